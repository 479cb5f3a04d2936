import numpy as np
import pytest
import torch

from indrnn.model.data.clips import Clip
from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.training.measure import bits_per_char, clip_accuracy, padded, stream_accuracy


def test_an_untrained_net_needs_the_logarithm_of_the_alphabet():
    net = CharsNet(CharsConfig(classes=8, hidden=4, layers=1)).eval()
    symbols = np.random.default_rng(0).integers(0, 8, 3000)
    assert bits_per_char(net, symbols) == pytest.approx(3)


def test_bits_are_those_of_one_pass_symbol_by_symbol(chars_net):
    symbols = np.random.default_rng(0).integers(0, 7, 1500)  # longer than one chunk
    state, nats = chars_net.start(1), []
    with torch.no_grad():
        for s in symbols:
            nats.append(-torch.log_softmax(state[0, -7:], 0)[s].item())
            _, state = chars_net(torch.tensor([[s]]), torch.tensor([1]), state)
    assert bits_per_char(chars_net, symbols) == pytest.approx(np.mean(nats) / np.log(2), abs=1e-5)


def test_what_was_read_before_is_remembered_and_not_scored(chars_net):
    symbols = np.random.default_rng(0).integers(0, 7, 60)
    whole, first = bits_per_char(chars_net, symbols) * 60, bits_per_char(chars_net, symbols[:40]) * 40
    assert bits_per_char(chars_net, symbols[40:], before=symbols[:40]) * 20 == pytest.approx(whole - first, abs=1e-3)


class Clock(ActionNet):
    """Answers with how many frames it has read since the state was zero, capped at 9."""

    def forward(self, x, lengths, state):
        count = state[:, :1] + torch.arange(1, x.shape[1] + 1)
        logits = torch.nn.functional.one_hot(count.long().clamp(max=9), 10).float()
        return logits, state


def clips(lengths, labels, subject=1):
    return [Clip(np.ones((n, 1, 20, 3), np.float32), y, subject, "") for n, y in zip(lengths, labels, strict=True)]


def test_portions_of_a_clip_are_read_at_their_own_frames():
    net = Clock(ActionConfig(classes=10))
    accuracy = clip_accuracy(net, clips([8, 4, 5], [4, 4, 4]))
    assert accuracy == pytest.approx({0.25: 0, 0.5: 1 / 3, 0.75: 1 / 3, 1.0: 1 / 3})  # rightly at the fourth frame only


def test_a_stream_is_never_reset_within_a_subject():
    net = Clock(ActionConfig(classes=10))
    two = clips([3, 3], [3, 3]) + clips([3], [3], subject=2)
    assert stream_accuracy(net, two) == pytest.approx(2 / 3)  # each subject's first clip ends at frame 3, the second at 6


def test_padding_keeps_frames_and_counts_them():
    x, lengths = padded([np.full((2, 1, 20, 3), 5, np.float32), np.full((4, 1, 20, 3), 6, np.float32)])
    assert x.shape == (2, 4, 1, 20, 3)
    assert lengths.tolist() == [2, 4]
    assert x[0].sum() == 5 * 2 * 60
