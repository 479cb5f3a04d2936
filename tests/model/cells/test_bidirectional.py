"""Layers that go both ways: each row as alone, whatever stands beside or behind it, of every cell and in every stack."""

import numpy as np
import pytest
import torch

from indrnn.model.cells.bidirectional import Bidirectional, ends, reversed_rows
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.cells.stacks import StackConfig, build_stack
from indrnn.model.cells.table import CELLS
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.nets.pixels import PixelsConfig, PixelsNet
from indrnn.model.nets.tensor import TensorConfig, TensorNet

H, IN = 4, 3
SMALL = {"layers": 3, "hidden": 8, "growth": 4, "blocks": (2, 1), "first": 2, "T": 6, "bidirectional": True}


def made(name: str) -> Bidirectional:
    torch.manual_seed(3)
    cell = Bidirectional(CELLS[name], H if CELLS[name].projected else IN, H, 0.9).double()
    with torch.no_grad():
        for p in cell.parameters():
            p.add_(0.4 * torch.randn_like(p))
    return cell


def given(cell: Bidirectional, T: int = 6, B: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(size=(T, B, cell.inputs))), torch.from_numpy(rng.uniform(-1, 1, (B, cell.state_size)))


def test_a_row_is_reversed_within_its_length_and_its_padding_stays_at_its_end():
    x = torch.arange(5.0)[:, None, None].expand(5, 4, 1)
    got = reversed_rows(x, torch.tensor([5, 3, 1, 0]))[:, :, 0].T.tolist()
    assert got == [[4, 3, 2, 1, 0], [2, 1, 0, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert torch.equal(reversed_rows(x, None), x.flip(0))


@pytest.mark.parametrize("name", CELLS)
def test_both_halves_answer_what_the_specification_says_and_so_do_their_gradients(name):
    cell = made(name)
    x, state = given(cell)
    lengths = np.array([6, 0, 3])
    with torch.no_grad():
        for ragged in (lengths, None):
            got = cell(x, None if ragged is None else torch.from_numpy(ragged), state)
            for answered, expected in zip(got, cell.specified(x.numpy(), ragged, state.numpy()), strict=True):
                np.testing.assert_allclose(answered, expected, atol=1e-12)
    rng = np.random.default_rng(1)
    slope = rng.normal(size=(6, 3, H))
    tensors = [x.requires_grad_(), *cell.parameters()]
    ways = [torch.from_numpy(rng.normal(size=t.shape)) for t in tensors]

    @torch.no_grad()
    def specified(amount: float) -> float:
        for t, way in zip(tensors, ways, strict=True):
            t.add_(way, alpha=amount)
        y, _ = cell.specified(x.detach().numpy(), lengths, state.numpy())
        for t, way in zip(tensors, ways, strict=True):
            t.sub_(way, alpha=amount)
        return float((y * slope).sum())

    (cell(x, torch.from_numpy(lengths), state)[0] * torch.from_numpy(slope)).sum().backward()
    told = sum(float((t.grad * way).sum()) for t, way in zip(tensors, ways, strict=True) if t.grad is not None)
    assert told == pytest.approx((specified(1e-6) - specified(-1e-6)) / 2e-6, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["indrnn", "gru", "scrn", "lru", "lstm"])
@torch.no_grad()
def test_each_row_is_as_alone_beside_nan_and_before_noise(name):
    cell = made(name)
    x, state = given(cell)
    x[4:, 0], x[:, 1] = np.nan, np.nan
    y, after = cell(x, torch.tensor([4, 0, 6]), state)
    alone, ended = cell(x[:4, :1], None, state[:1])
    torch.testing.assert_close((y[:4, :1], after[:1]), (alone, ended))
    assert not y[4:, 0].any()
    assert torch.equal(after[1], state[1])


@torch.no_grad()
def test_the_first_answer_depends_on_the_last_step_and_the_last_on_the_first():
    cell = made("tanh")
    x, state = given(cell)
    y, _ = cell(x, None, state)
    for at in (0, 5):
        other = x.clone()
        other[at] += 1
        changed = (cell(other, None, state)[0] - y).abs().amax(1) > 0  # [T, H]
        assert changed[5 - at].any()
    assert torch.equal(ends(y)[:, :, : H // 2], y[:, :, : H // 2])
    assert torch.equal(ends(y)[:, :, H // 2 :], y[:1, :, H // 2 :].expand(6, 3, H // 2))
    assert ends(y[:0]).shape == (0, 3, H)


@pytest.mark.parametrize("norm", ["before", "after", "none"])
@pytest.mark.parametrize(
    ("kind", "cell"), [("plain", "indrnn"), ("plain", "gru"), ("residual", "indrnn"), ("dense", "mingru"), ("conv", "sru")]
)
@torch.no_grad()
def test_a_stack_of_such_layers_reads_each_row_as_alone_and_folds(kind, cell, norm):
    torch.manual_seed(0)
    stack = build_stack(StackConfig(**SMALL, kind=kind, cell=cell, norm=norm), 5)
    for name, tensor in stack.state_dict().items():
        if "norm" in name:
            tensor.copy_(0.5 + torch.rand_like(tensor))
    stack.eval()
    assert stack.bidirectional
    assert [p.size for p in stack.parts()] == stack.sizes
    x, lengths = torch.randn(7, 3, 5), torch.tensor([7, 4, 1])
    for _ in range(2):
        last = stack.final(x, lengths)
        for b, n in enumerate(lengths):
            torch.testing.assert_close(stack.final(x[:n, b : b + 1])[0], last[b])
        stack.fold_()


def test_the_answer_at_the_end_rests_on_what_both_halves_have_read():
    """With what the second half answers at the last step alone, the first number would have no way through it."""
    torch.manual_seed(0)
    net = PixelsNet(PixelsConfig(hidden=4, layers=1, steps=5, norm=False, bidirectional=True))
    torch.nn.init.normal_(net.readout.weight)
    with torch.no_grad():
        net.readout.weight[:, :2] = 0  # the half that goes ahead
        net.stack.indrnns()[0].project.weight.abs_()
    x = torch.rand(2, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(net.answer(x).sum(), x)
    assert (gradient != 0).all()


def test_it_is_refused_where_there_is_a_stream_or_half_a_neuron():
    with pytest.raises(SizeError, match="--delay of `tensor` sees some steps of the future and streams"):
        CharsNet(CharsConfig(5, hidden=4, layers=1, bidirectional=True))
    with pytest.raises(SizeError, match="expected an even number of neurons for two directions, got 5"):
        TensorNet(TensorConfig(hidden=5, bidirectional=True))
    with pytest.raises(SizeError, match="got 'subsampled'"):
        build_stack(StackConfig(**SMALL, kind="subsampled", window=2), 5)
    with pytest.raises(SizeError, match="a piece of time does not know what comes after it"):
        build_stack(StackConfig(**SMALL), 5).checkpoint_activations = True


def test_a_network_says_that_it_has_no_stream():
    assert TensorNet(TensorConfig(hidden=4, bidirectional=True)).told() == {"streams": False}
    assert TensorNet(TensorConfig(hidden=4)).told() == {}
