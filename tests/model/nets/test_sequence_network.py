"""The sequence network is a StateNet over any stack."""

import numpy as np
import pytest
import torch

from indrnn.model.cells.stacks import KINDS
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.training.checkpoint import CheckpointError, Meta, load_trained, save

SMALL = {"layers": 3, "hidden": 6, "growth": 2, "blocks": (1, 1), "T": 8, "inputs": 4, "classes": 3}


@pytest.fixture(params=KINDS)
def net(request):
    torch.manual_seed(0)
    return SequenceNet(SequenceConfig(**SMALL, kind=request.param, per_step=True, frames=True)).eval()


@torch.no_grad()
def test_any_split_gives_the_same_logits_and_state_and_answer_is_the_last(net):
    x, lengths = torch.randn(3, 9, 2, 2), torch.tensor([9, 4, 1])
    logits, end = net(x, lengths, net.start(3))
    state, pieces = net.start(3), []
    for start, stop in ((0, 2), (2, 9)):
        piece, state = net(x[:, start:stop], (lengths - start).clamp(0, stop - start), state)
        pieces.append(piece)
    split, last = torch.cat(pieces, 1), torch.stack([logits[b, n - 1] for b, n in enumerate(lengths)])
    for b, n in enumerate(lengths):
        torch.testing.assert_close(split[b, :n], logits[b, :n])
    torch.testing.assert_close(state, end)
    torch.testing.assert_close(net.answer(x, lengths), last)
    torch.testing.assert_close(end[:, -3:], last)
    torch.testing.assert_close(end[:, -7:-3], torch.stack([x[b, n - 1].flatten() for b, n in enumerate(lengths)]))
    torch.testing.assert_close(net.answer(x), net(x, torch.full((3,), 9), net.start(3))[0][:, -1])


def test_the_parts_cover_the_state(net):
    assert isinstance(net, StateNet)
    assert [p.size for p in net.parts()] == [*net.stack.sizes, 4, 3]
    assert net.state_size == sum(p.size for p in net.parts())


def test_scores_are_centred_and_what_is_told_is_not():
    for scores in (True, False):
        net = SequenceNet(SequenceConfig(**SMALL, scores=scores)).eval()
        with torch.no_grad():
            net.readout.bias.copy_(torch.tensor([1.0, 2.0, 6.0]))
        x = torch.randn(2, 5, 4)
        folded, own = (n(x, torch.tensor([5, 5]), n.start(2))[0].detach() for n in (net.fold(), net))
        torch.testing.assert_close(folded, own - own.mean(2, keepdim=True) if scores else own)


def test_a_checkpoint_brings_back_the_network_whatever_it_is_made_for(net, tmp_path):
    for kind in ("sequence", "action"):
        save(tmp_path / "net.pt", net, Meta(kind, "", 0, 0))
        again, meta = load_trained(tmp_path / "net.pt")
        assert (meta.kind, again.config) == (kind, net.config)
        x = torch.randn(2, 5, 4)
        for got, want in zip(*(n(x, torch.tensor([5, 3]), n.start(2)) for n in (again, net)), strict=True):
            np.testing.assert_array_equal(got.detach(), want.detach())


def test_a_checkpoint_of_an_unknown_network_is_refused(net, tmp_path):
    save(tmp_path / "net.pt", net, Meta("action", "", 0, 0))
    content = torch.load(tmp_path / "net.pt", weights_only=True)
    torch.save(content | {"network": "tree"}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="tree"):
        load_trained(tmp_path / "net.pt")
