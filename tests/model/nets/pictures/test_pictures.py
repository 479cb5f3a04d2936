"""Networks that look at whole pictures: rows alone and among others, what padding and folding leave, and what the loop is for."""

import numpy as np
import pytest
import torch
from nets import stirred

from indrnn.model.cells.norm import BatchNorm
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.data.pictures import strokes
from indrnn.model.nets.pictures.images import CHANNELS, ImagesConfig, ImagesNet, blocks
from indrnn.model.nets.pictures.labels import LabelsConfig, LabelsNet

SIDE = 8
torch.manual_seed(1)  # drawn otherwise, now and then all relus of the smallest are off
NETS = {
    **{kind: ImagesNet(ImagesConfig(kind=kind, side=SIDE, classes=3, hidden=5)) for kind in CHANNELS},
    "response": ImagesNet(ImagesConfig(side=SIDE, classes=3, hidden=9, looks=1, plane_norm="response")),
    "labels": LabelsNet(LabelsConfig(columns=SIDE, classes=3, hidden=6, layers=2, rounds=3)),
}
for made in NETS.values():
    stirred(made)


@pytest.fixture(params=list(NETS))
def net(request):
    return NETS[request.param]


def pictures(net, rows, steps, seed=0):
    bright = 255 if isinstance(net, ImagesNet) else 3
    return bright * torch.rand(rows, steps, SIDE, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def run(net, x, lengths, state=None):
    return net(x, torch.tensor(lengths), net.start(len(x)) if state is None else state)


def test_a_picture_is_answered_as_alone_whatever_stands_beside_and_below_it(net):
    x, lengths = pictures(net, 4, SIDE), [SIDE, 3, 1, 0]
    noisy = x.clone()
    for row, n in zip(noisy, lengths, strict=True):
        row[n:] = float("nan")
    state = torch.rand(4, net.state_size)
    logits, after = run(net, noisy, lengths, state)
    for b, n in enumerate(lengths[:3]):
        alone, ended = run(net, x[b : b + 1, :n], [n])
        torch.testing.assert_close(logits[b : b + 1, :n], alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(after[b : b + 1], ended, rtol=0, atol=1e-5)
    assert torch.equal(after[3], state[3])


@pytest.mark.parametrize("T", [0, 3])
def test_a_picture_of_no_rows_is_none(net, T):
    state = torch.rand(2, net.state_size)
    logits, after = run(net, pictures(net, 2, T), [0, 0], state)
    assert logits.shape == (2, T, net.classes)
    assert torch.equal(after, state)


def test_the_state_ends_with_the_last_answer_and_does_not_come_in(net):
    x = pictures(net, 2, SIDE)
    logits, after = run(net, x, [SIDE, 5])
    torch.testing.assert_close(after[:, -net.classes :], torch.stack([logits[0, -1], logits[1, 4]]))
    again, _ = run(net, x, [SIDE, 5], torch.full((2, net.state_size), 7.0))
    assert torch.equal(again, logits)
    assert not net.streams
    assert net.told() == {"streams": False}
    assert sum(p.size for p in net.parts()) == net.state_size


def test_folding_changes_nothing_but_the_rounding_and_the_mean_of_the_scores(net):
    x, folded = pictures(net, 3, SIDE), net.fold()
    logits, _ = run(net, x, [SIDE] * 3)
    mean = logits.mean(2, keepdim=True) if isinstance(net, ImagesNet) else 0
    torch.testing.assert_close(run(folded, x, [SIDE] * 3)[0], logits - mean, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, BatchNorm) for m in folded.modules())


@pytest.mark.parametrize("kind", list(CHANNELS))
def test_a_picture_of_images_is_dark_below_its_rows_and_a_number_beyond_a_pixel_is_one(kind):
    net, x = NETS[kind], pictures(NETS[kind], 1, SIDE)
    x[:, 5:] = 0
    whole, _ = run(net, x, [SIDE])
    torch.testing.assert_close(run(net, x[:, :5], [5])[0][:, 0], whole[:, 0])
    assert net.longest == SIDE
    wild = torch.where(x > 127, 3e38, -3e38)
    torch.testing.assert_close(run(net, wild, [SIDE])[0], run(net, (x > 127) * 255.0, [SIDE])[0])


@pytest.mark.parametrize("kind", list(CHANNELS))
def test_every_pixel_counts(kind):
    x = (100 + pictures(NETS[kind], 1, SIDE) / 10).requires_grad_()
    NETS[kind](x, torch.tensor([SIDE]), NETS[kind].start(1))[0].square().sum().backward()
    assert (x.grad != 0).float().mean() > 0.9


def test_blocks_are_the_pixels_of_each():
    y = torch.arange(16.0).view(1, 4, 4, 1)
    assert blocks(y, 2)[0, 0, 1].tolist() == [2, 3, 6, 7]


@pytest.mark.parametrize(
    ("config", "said"),
    [({"side": 3}, "4 x 4 pixels and more"), ({"side": 10, "kind": "md_tanh"}, "a side that 2 layers can halve .4 and its multiples.")],
)
def test_sides_that_cannot_be_halved_are_refused(config, said):
    with pytest.raises(SizeError, match=said):
        ImagesNet(ImagesConfig(**config))


def test_the_loop_carries_a_label_farther_than_one_round_can_see():
    """A round of two convolutions of 3 x 3 sees two pixels far."""
    net = NETS["labels"]
    x = pictures(net, 1, SIDE).requires_grad_()
    for i, logits in enumerate(net.rounds(x)):
        (grad,) = torch.autograd.grad(logits[0, :, 0, 0].sum(), x, retain_graph=True)
        reached = grad[0].abs().sum(1).nonzero().max().item()
        assert reached == min(SIDE - 1, 2 * (i + 1))


def test_strokes_are_marked_at_their_heads_and_do_not_touch():
    x, y = strokes.draw(np.random.default_rng(3), 20)
    assert x.shape == y.shape == (20, strokes.SIDE, strokes.SIDE)
    assert ((x > 0) == (y > 0)).all()
    heads = x > 1
    assert (x[heads] == y[heads] + 1).all()
    assert 30 < heads.sum() <= 20 * strokes.STROKES
    for picture, labels in zip(x, y, strict=True):
        left = {(i, j) for i, j in zip(*np.nonzero(picture), strict=True)}
        for head in zip(*np.nonzero(picture > 1), strict=True):
            found, edge = {head}, [head]
            while edge:
                i, j = edge.pop()
                near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left - found
                found |= near
                edge += near
            assert strokes.LENGTHS[0] <= len(found) <= strokes.LENGTHS[1]
            assert {labels[p] for p in found} == {labels[head]}
            assert sum(picture[p] > 1 for p in found) == 1
            left -= found
        assert not left
