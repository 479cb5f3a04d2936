"""Every cell of the table does what its specification in NumPy says, over ragged rows, forwards and backwards, alone and in stacks."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from indrnn.model.cells.cell import Cell
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.cells.stacks import KINDS, Stack, StackConfig, build_stack, skip_chain
from indrnn.model.cells.table import CELLS

IN, H = 5, 4
LENGTHS = [None, (6, 0, 3), (6, 6, 6), (0, 0, 0), (1, 2, 1)]


def made(name: str, inputs: int = IN) -> Cell:
    """A cell in float64 with nothing at its initial value."""
    torch.manual_seed(3)
    cell = CELLS[name](H if CELLS[name].projected else inputs, H, 0.9).double()
    with torch.no_grad():
        for p in cell.parameters():
            p.add_(0.4 * torch.randn_like(p))
    return cell


def given(cell: Cell, T: int = 6, B: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(T, B, cell.inputs))), torch.from_numpy(rng.uniform(-1, 1, (B, cell.state_size)))


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> Cell:
    return made(request.param)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@torch.no_grad()
def test_a_cell_answers_what_its_specification_says(cell, lengths):
    x, state = given(cell)
    got = cell(x, None if lengths is None else torch.tensor(lengths), state)
    want = cell.specified(x.numpy(), None if lengths is None else np.array(lengths), state.numpy())
    for answered, expected in zip(got, want, strict=True):
        np.testing.assert_allclose(answered, expected, atol=1e-12)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_its_gradients_are_the_differences_of_its_specification(cell, lengths):
    """Along one direction through x, the state and every weight at once; a step of 1e-6 and float64 leave some 1e-8."""
    x, state = given(cell)
    rng = np.random.default_rng(1)
    y_slope, state_slope = rng.normal(size=(6, 3, H)), rng.normal(size=state.shape)
    ends = None if lengths is None else np.array(lengths)

    def specified(amount: float) -> float:
        with torch.no_grad():
            for t, way in zip(tensors, ways, strict=True):
                t.add_(way, alpha=amount)
            y, after = cell.specified(x.detach().numpy(), ends, state.detach().numpy())
            for t, way in zip(tensors, ways, strict=True):
                t.sub_(way, alpha=amount)
        return float((y * y_slope).sum() + (after * state_slope).sum())

    tensors = [x.requires_grad_(), state.requires_grad_(), *cell.parameters()]
    ways = [torch.from_numpy(rng.normal(size=t.shape)) for t in tensors]
    y, after = cell(x, None if ends is None else torch.from_numpy(ends), state)
    ((y * torch.from_numpy(y_slope)).sum() + (after * torch.from_numpy(state_slope)).sum()).backward()
    slope = sum(float((t.grad * way).sum()) for t, way in zip(tensors, ways, strict=True) if t.grad is not None)
    assert slope == pytest.approx((specified(1e-6) - specified(-1e-6)) / 2e-6, rel=1e-5, abs=1e-6)


@torch.no_grad()
def test_one_step_is_a_sequence_of_one(cell):
    x, state = given(cell)
    y, after = cell.step(x[0], state)
    for got, want in zip((y[None], after), cell(x[:1], None, state), strict=True):
        torch.testing.assert_close(got, want)


@torch.no_grad()
def test_no_steps_change_nothing(cell):
    x, state = given(cell, T=0)
    y, after = cell(x, torch.zeros(3, dtype=torch.int64), state)
    assert y.shape == (0, 3, H)
    assert torch.equal(after, state)


def test_what_stands_past_a_length_and_in_other_rows_matters_to_nobody(cell):
    x, state = given(cell)
    lengths = torch.tensor([4, 0, 6])
    x[4:, 0], x[:, 1], x[:, 2], state[2] = np.nan, np.inf, np.nan, np.nan
    y, after = cell(x.requires_grad_(), lengths, state)
    alone, ended = cell(x.detach()[:4, :1], None, state[:1])
    torch.testing.assert_close((y[:4, :1], after[:1]), (alone, ended))
    assert not y[4:, 0].any()
    assert torch.equal(after[1], state[1])
    assert not y[:, 1].any()
    (gradient,) = torch.autograd.grad(y[:, 0].sum(), x)
    assert torch.isfinite(gradient[:, 0]).all()
    assert not gradient[4:, 0].any()


def test_a_row_of_no_steps_teaches_nothing_whatever_it_holds(cell):
    grads = []
    for filler in (0.0, np.nan):
        x, state = given(cell)
        x[:, 1], x[3:, 2] = filler, filler
        y, after = cell(x, torch.tensor([6, 0, 3]), state)
        grads.append(torch.autograd.grad(y.sum() + after.sum(), list(cell.parameters())))
    torch.testing.assert_close(grads[0], grads[1])


def test_the_parts_say_how_the_state_lies(cell):
    assert [p.size for p in cell.parts()] == list(cell.sizes)
    assert sum(cell.sizes) == cell.state_size
    assert all(p.role == "hidden" and (p.u is None) is (p.name is not None) for p in cell.parts())


def test_the_state_of_each_cell_is_what_its_equations_carry():
    assert {name: [p.name for p in made(name).parts()] for name in CELLS} == {
        "indrnn": [None],
        "gru": ["h"],
        "lstm": ["h", "c"],
        "tanh": ["h"],
        "irnn": ["h"],
        "relu": ["h"],
        "irnn_pd": ["h"],
        "gru_before": ["h"],
        "lstm_peephole": ["h", "c"],
        "scrn": ["h", "s"],
        "urnn": ["re", "im"],
        "goru": ["h"],
        "deep_input": ["h"],
        "deep_transition": ["h"],
        "deep_shortcut": ["h"],
        "deep_output": ["h"],
        "mingru": ["h"],
        "minlstm": ["h"],
        "rglru": ["h"],
        "hgrn": ["h"],
        "sru": ["c"],
        "qrnn": ["c", "v"],
        "lru": ["re", "im"],
    }


@torch.no_grad()
def test_what_a_cell_says_it_has_folded_it_has(cell):
    x, state = given(cell)
    scale, shift = torch.rand(cell.inputs).double() + 0.5, torch.randn(cell.inputs).double()
    want = cell(x * scale + shift, None, state)
    taken = cell.fold_(scale, shift)
    assert taken is not cell.projected
    torch.testing.assert_close(cell(x if taken else x * scale + shift, None, state), want)


def test_under_autocast_the_recurrence_is_float32(cell):
    x, state = (t.float() for t in given(cell))
    cell = cell.float()
    want = cell(x, torch.tensor([6, 0, 3]), state)
    with torch.autocast("cpu", torch.bfloat16):
        got = cell(x, torch.tensor([6, 0, 3]), state)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])
    with torch.autocast("cpu", torch.bfloat16):
        y, after = cell(x.bfloat16(), torch.tensor([6, 0, 3]), state)
    assert (y.dtype, after.dtype) == (torch.float32, torch.float32)


SMALL = {"layers": 3, "hidden": 6, "growth": 2, "blocks": (2, 1), "first": 3, "T": 4, "gamma": 1.0}
OTHERS = [name for name in CELLS if name != "indrnn"]


def stack_of(cell: str, kind: str, norm: str, **more: object) -> Stack:
    torch.manual_seed(0)
    stack = build_stack(StackConfig(**SMALL | {"kind": kind, "norm": norm, "cell": cell} | more), 5)
    with torch.no_grad():
        for name, tensor in stack.state_dict().items():
            if "norm" in name:
                tensor.copy_(0.5 + torch.rand_like(tensor))
    return stack.eval()


@pytest.fixture
def wide() -> Iterator[None]:
    """Everything in float64: what unitary cells add up over time, float32 rounds by more than a comparison allows."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("norm", ["before", "after", "none"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", OTHERS)
@torch.no_grad()
def test_a_stack_of_any_cell_carries_its_state_through_any_split_and_folds(cell, kind, norm):
    stack = stack_of(cell, kind, norm)
    x, lengths = torch.randn(13, 3, 5), torch.tensor([13, 6, 0])
    y, end = stack(x, lengths)
    assert end.shape == (3, stack.state_size)
    assert [p.size for p in stack.parts()] == stack.sizes
    for _ in range(2):
        state, pieces = None, []
        for start, stop in ((0, 1), (1, 8), (8, 13)):
            piece, state = stack(x[start:stop], (lengths - start).clamp(0, stop - start), state)
            pieces.append(piece)
        torch.testing.assert_close(state, end)
        for b, n in enumerate(lengths):
            torch.testing.assert_close(torch.cat(pieces)[:n, b], y[:n, b])
        stack.fold_()  # and once more, without the norms that could be moved
    scale = torch.rand(5) + 0.5
    want, _ = stack(x * scale)
    if stack.fold_(scale):
        torch.testing.assert_close(stack(x)[0], want)
    else:
        assert kind == "conv"


@pytest.mark.parametrize("cell", OTHERS)
def test_a_norm_before_a_cell_of_its_own_weights_is_folded_into_them(cell):
    stack = stack_of(cell, "plain", "before")
    stack.fold_()
    assert all(layer.norm is None and layer.project is None for layer in stack.indrnns())


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("norm", ["before", "after", "none"])
@pytest.mark.parametrize("cell", OTHERS)
def test_training_in_pieces_gives_the_gradients_of_the_whole(cell, norm):
    grads = []
    for pieces in (False, True):
        stack = stack_of(cell, "plain", norm).train()
        stack.checkpoint_activations = pieces
        x = torch.randn(10, 3, 5, generator=torch.Generator().manual_seed(2))
        stack.final(x, torch.tensor([10, 7, 4])).square().sum().backward()
        grads.append([p.grad for p in stack.parameters()])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_a_chain_with_an_embedding_folds_and_stays_as_it_is(cell):
    torch.manual_seed(0)
    chain = skip_chain(torch.nn.Embedding(7, 6), 6, 2, 0.9, 0.0, True, cell).eval()
    x = torch.randint(0, 7, (5, 2))
    with torch.no_grad():
        for layer in chain.indrnns():
            layer.norm.mean.normal_()
        want = chain(x)
        chain.fold_()
        assert all(layer.norm is None for layer in chain.indrnns())
        torch.testing.assert_close(chain(x), want)


def test_a_cell_that_is_not_in_the_table_is_refused_by_name():
    with pytest.raises(SizeError, match=r"expected a cell of \('indrnn', .*, got 'mamba'"):
        build_stack(StackConfig(**SMALL, cell="mamba"), 5)
    with pytest.raises(SizeError, match="got 'mamba'"):
        skip_chain(3, 6, 2, 0.9, 0.0, True, "mamba")
