"""The CPU kernel against the specification in model/cells/reference.py, and against itself: no bit may depend on how it was run."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_calls import Array, Kernel, Lens, assert_differences

from indrnn.kernels.native import ACTIVATIONS, CLIP, DIRECTIONS, Call, Library
from indrnn.model.cells.reference import indrnn

VARIANTS = [(a, d) for a in ACTIVATIONS for d in DIRECTIONS]
ALPHA = 0.25
many = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Case:
    """Inputs of one run."""

    x: Array
    u: Array
    lens: Lens
    h0: Array

    @property
    def inputs(self) -> tuple[Array, Array, Lens, Array]:
        return self.x, self.u, self.lens, self.h0


def case(T: int, B: int, H: int, dtype: str = "float32", seed: int = 0, lens: list[int] | None = None) -> Case:
    rng = np.random.default_rng(seed)
    x, h0 = rng.standard_normal((T, B, H)), rng.standard_normal((B, H))
    u = rng.uniform(-1.1, 1.1, H)
    ragged = rng.integers(0, T + 1, B) if lens is None else np.array(lens, np.int64)
    return Case(x.astype(dtype), u.astype(dtype), ragged, h0.astype(dtype))


shapes = st.tuples(st.integers(0, 40), st.integers(0, 5), st.integers(0, 150))


@many
@given(
    shape=shapes,
    variant=st.sampled_from(VARIANTS),
    dtype=st.sampled_from(["float32", "float64"]),
    pieces=st.integers(1, 9),
    seed=st.integers(0, 2**31),
    even=st.booleans(),
)
def test_it_is_the_specification(each_isa, shape, variant, dtype, pieces, seed, even):
    activation, direction = variant
    c = case(*shape, dtype, seed, [shape[0]] * shape[1] if even else None)
    y, y_h = each_isa.having(activation=activation, direction=direction, alpha=ALPHA, pieces=pieces).forward(*c.inputs)
    wide = (c.x.astype(np.float64), c.u.astype(np.float64), c.lens, c.h0.astype(np.float64))
    want_y, want_h = indrnn(*wide, activation, ALPHA, direction)
    scale = 1 + max(np.abs(want_y).max(initial=0), np.abs(want_h).max(initial=0))
    atol = (1e-6 if dtype == "float32" else 1e-14) * scale
    np.testing.assert_allclose(y, want_y, rtol=0, atol=atol)
    np.testing.assert_allclose(y_h, want_h, rtol=0, atol=atol)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "identity", "piecewise_linear"])
def test_without_exp_it_is_the_specification_to_the_bit(each_isa: Kernel, activation: str, direction: str) -> None:
    c = case(50, 3, 77)
    alpha = np.float32(ALPHA)
    got = each_isa.having(activation=activation, direction=direction).forward(*c.inputs)
    want = indrnn(*c.inputs, activation, alpha, direction)
    assert np.array_equal(got[0], want[0])
    assert np.array_equal(got[1], want[1])


@pytest.mark.parametrize(("activation", "direction"), VARIANTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_absent_inputs_are_full_length_and_a_zero_state(kernel: Kernel, activation: str, direction: str, dtype: str) -> None:
    k = kernel.having(activation=activation, direction=direction)
    c = case(9, 3, 33, dtype)
    full, zeros = np.full(3, 9), np.zeros_like(c.h0)
    y, y_h = k.forward(c.x, c.u)
    for got, want in zip((y, y_h), k.forward(c.x, c.u, full, zeros), strict=True):
        assert np.array_equal(got, want)
    for got, want in zip(k.backward(c.x, None, y, c.u), k.backward(c.x, zeros, y, c.u, full, zeros), strict=True):
        assert np.array_equal(got, want)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("activation", "direction"), VARIANTS)
def test_every_instruction_set_gives_the_same_bits(kernel: Kernel, activation: str, direction: str, dtype: str) -> None:
    c, dy = case(30, 3, 93, dtype), case(30, 3, 93, dtype, seed=1)
    k = kernel.having(activation=activation, direction=direction)
    y, _ = k.forward(*c.inputs)
    want = (*k.forward(*c.inputs), *k.backward(dy.x, dy.h0, y, c.u, c.lens, c.h0))
    for isa in kernel.library.isas():
        one = k.having(isa=isa)
        got = (*one.forward(*c.inputs), *one.backward(dy.x, dy.h0, y, c.u, c.lens, c.h0))
        assert all(np.array_equal(g, w) for g, w in zip(got, want, strict=True)), isa


@many
@given(variant=st.sampled_from(VARIANTS), seed=st.integers(0, 2**31), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_a_split_in_time_changes_no_bit(each_isa, variant, seed, cuts):
    """Forward; in reverse the state runs the other way, so the last piece comes first, and rows must be full."""
    activation, direction = variant
    k = each_isa.having(activation=activation, direction=direction)
    forward = direction == "forward"
    c = case(60, 3, 37, seed=seed, lens=None if forward else [60] * 3)
    whole_y, whole_h = k.forward(*c.inputs)
    edges = [0, *sorted(cuts), 60]
    parts = list(pairwise(edges))
    y, h = np.zeros_like(c.x), c.h0
    for start, stop in parts if forward else reversed(parts):
        y[start:stop], h = k.forward(c.x[start:stop], c.u, np.clip(c.lens - start, 0, stop - start), h)
    assert np.array_equal(y, whole_y)
    assert np.array_equal(h, whole_h)


@pytest.mark.parametrize(("activation", "direction"), VARIANTS)
def test_neighbours_change_no_bit_even_when_they_are_nan(each_isa: Kernel, activation: str, direction: str) -> None:
    k = each_isa.having(activation=activation, direction=direction)
    c, dy = case(25, 4, 37, lens=[25, 3, 0, 24]), case(25, 4, 37, seed=1)
    y, y_h = k.forward(*c.inputs)
    dx, _, dh0 = k.backward(dy.x, dy.h0, y, c.u, c.lens, c.h0)
    for b in range(4):
        row = slice(b, b + 1)
        alone_y, alone_h = k.forward(c.x[:, row].copy(), c.u, c.lens[row], c.h0[row])
        assert np.array_equal(alone_y[:, 0], y[:, b])
        assert np.array_equal(alone_h[0], y_h[b])
        alone = k.backward(dy.x[:, row].copy(), dy.h0[row], alone_y, c.u, c.lens[row], c.h0[row])
        assert np.array_equal(alone[0][:, 0], dx[:, b])
        assert np.array_equal(alone[2][0], dh0[b])
        x, grad = c.x.copy(), dy.x.copy()
        others = [o for o in range(4) if o != b]
        x[:, others] = grad[:, others] = np.nan
        poisoned_y, poisoned_h = k.forward(x, c.u, c.lens, c.h0)
        poisoned = k.backward(grad, dy.h0, poisoned_y, c.u, c.lens, c.h0)
        for got, want in ((poisoned_y[:, b], y[:, b]), (poisoned_h[b], y_h[b]), (poisoned[0][:, b], dx[:, b]), (poisoned[2][b], dh0[b])):
            assert np.array_equal(got, want)


@pytest.mark.parametrize(("activation", "direction"), VARIANTS)
def test_nan_is_carried_and_what_is_past_a_length_is_not_read(each_isa: Kernel, activation: str, direction: str) -> None:
    k = each_isa.having(activation=activation, direction=direction)
    c, dy = case(12, 3, 19, lens=[12, 5, 0]), case(12, 3, 19, seed=1)
    past = np.arange(12)[:, None] >= c.lens
    y, y_h = k.forward(*c.inputs)
    grads = k.backward(dy.x, dy.h0, y, c.u, c.lens, c.h0)
    dirty = [np.where(past[:, :, None], np.float32(np.nan), a) for a in (c.x, dy.x, y)]
    again = (*k.forward(dirty[0], c.u, c.lens, c.h0), *k.backward(dirty[1], dy.h0, dirty[2], c.u, c.lens, c.h0))
    assert all(np.array_equal(g, w) for g, w in zip(again, (y, y_h, *grads), strict=True))
    assert (y[past] == 0).all()
    assert (grads[0][past] == 0).all()
    c.x[4 if direction == "forward" else 0, 1, 7] = np.nan
    y, y_h = k.forward(*c.inputs)
    assert np.isnan(y_h[1, 7])
    assert np.isnan(y_h).sum() == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("activation", "direction"), VARIANTS)
@pytest.mark.parametrize("shape", [(40, 3, 200), (2000, 1, 130), (3, 70, 5)], ids=str)
def test_threads_and_pieces_change_no_bit(kernel: Kernel, shape: tuple[int, int, int], activation: str, direction: str, dtype: str) -> None:
    c, dy = case(*shape, dtype), case(*shape, dtype, seed=1)
    k = kernel.having(activation=activation, direction=direction)
    y, y_h = k.forward(*c.inputs)
    grads = k.backward(dy.x, dy.h0, y, c.u, c.lens, c.h0)
    for threads, pieces in ((1, 4), (2, 2), (3, 64), (4, 5)):
        one = k.having(threads=threads, pieces=pieces)
        got = (*one.forward(*c.inputs), *one.backward(dy.x, dy.h0, y, c.u, c.lens, c.h0))
        assert all(np.array_equal(g, w) for g, w in zip(got, (y, y_h, *grads), strict=True)), (threads, pieces)


@pytest.mark.parametrize(("activation", "direction"), VARIANTS)
@pytest.mark.parametrize("lens", [None, [7, 0, 4]], ids=str)
def test_the_gradient_is_the_derivative_of_the_specification(each_isa: Kernel, activation: str, direction: str, lens: list[int]) -> None:
    """Central differences of the specification in float64, in every element of x, u and the state carried in."""
    k = each_isa.having(activation=activation, direction=direction, alpha=ALPHA)
    c, w = case(7, 3, 5, "float64", lens=lens or [7] * 3), case(7, 3, 5, "float64", seed=1)

    def loss() -> float:
        y, y_h = indrnn(c.x, c.u, c.lens, c.h0, activation, ALPHA, direction)
        return float((y * w.x).sum() + (y_h * w.h0).sum())

    y, _ = k.forward(*c.inputs)
    assert_differences(loss, k.backward(w.x, w.h0, y, c.u, c.lens, c.h0), (c.x, c.u, c.h0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_exp_is_accurate_from_tiny_to_huge(each_isa: Kernel, activation: str, dtype: str) -> None:
    """One step without a past is the bare activation. tanh is right to a few units in the last place of its value, near 0 too."""
    size = np.concatenate([np.logspace(-30, 2.5, 3000), np.linspace(0.01, 30, 3000), [np.inf]])
    a = np.concatenate([size, -size]).astype(dtype)[None, None]
    y, _ = each_isa.having(activation=activation).forward(a, np.zeros_like(a[0, 0]))
    wide = a.astype(np.longdouble)
    want = np.tanh(wide) if activation == "tanh" else 1 / (1 + np.exp(-wide))
    ulps = 4 * np.finfo(dtype).eps
    smallest = 0 if activation == "tanh" else (1e-37 if dtype == "float32" else 1e-307)
    np.testing.assert_allclose(y, want.astype(dtype), rtol=ulps, atol=smallest)
    assert np.array_equal(np.signbit(y), np.signbit(want))


@pytest.mark.parametrize("shape", [(0, 3, 5), (4, 0, 5), (4, 3, 0), (0, 0, 0)], ids=str)
def test_the_gradient_of_nothing_is_zero_and_what_was_given(each_isa: Kernel, shape: tuple[int, int, int]) -> None:
    c = case(*shape)
    dx, du, dh0 = each_isa.backward(np.zeros_like(c.x), c.h0, np.zeros_like(c.x), c.u, None, c.h0)
    assert dx.shape == shape
    assert (du == 0).all()
    if not shape[0]:
        assert np.array_equal(dh0, c.h0)


def test_lengths_outside_the_sequence_are_clipped(kernel: Kernel) -> None:
    c = case(6, 2, 20)
    got = kernel.forward(c.x, c.u, np.array([-(2**63), 2**63 - 1]), c.h0)
    want = kernel.forward(c.x, c.u, np.array([0, 6]), c.h0)
    assert np.array_equal(got[0], want[0])
    assert np.array_equal(got[1], want[1])


def test_an_instruction_set_that_is_not_there_is_refused(kernel: Kernel) -> None:
    missing = [isa for isa in ("avx2", "avx512") if isa not in kernel.library.isas()]
    if not missing:
        pytest.skip("this machine has them all")
    with pytest.raises(ValueError, match=missing[0]):
        kernel.having(isa=missing[0]).forward(np.zeros((1, 1, 1)), np.zeros(1))


def test_a_call_without_its_arrays_is_refused(library: Library) -> None:
    for wrong in (Call(T=1, B=1, H=1), Call(T=-1, B=1, H=1), Call(T=0, B=0, H=0, activation=CLIP), Call(T=0, B=0, H=0, dtype=2)):
        with pytest.raises(ValueError, match="missing or wrong"):
            library.run(wrong, 1)


def test_the_gradient_of_a_leaky_relu_that_turns_the_sign_is_refused(kernel: Kernel) -> None:
    c = case(3, 2, 5)
    k = kernel.having(activation="leaky_relu", alpha=-0.5)
    y, _ = k.forward(*c.inputs)
    with pytest.raises(ValueError, match="missing or wrong"):
        k.backward(c.x, c.h0, y, c.u, c.lens, c.h0)
