import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indrnn.model.cells.recurrence import ACTIVATIONS, DIRECTIONS, recurrence
from indrnn.model.cells.reference import indrnn


@settings(deadline=None)
@given(
    T=st.integers(0, 9),
    B=st.integers(1, 4),
    H=st.integers(1, 5),
    activation=st.sampled_from(tuple(ACTIVATIONS)),
    direction=st.sampled_from(DIRECTIONS),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_the_operator_equals_the_specification(T, B, H, activation, direction, seed, data):
    rng = np.random.default_rng(seed)
    lens = np.array(data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B)))
    x, u, h = rng.standard_normal((T, B, H)), rng.uniform(-1.2, 1.2, H), rng.standard_normal((B, H))
    y, y_h = recurrence(*map(torch.from_numpy, (x, u, lens, h)), activation=activation, alpha=0.1, direction=direction)
    expected_y, expected_h = indrnn(x, u, lens, h, activation, 0.1, direction)
    np.testing.assert_allclose(y, expected_y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(y_h, expected_h, rtol=0, atol=1e-12)


def _case(T=5, B=3, H=4, lens=(5, 0, 3)):
    g = torch.Generator().manual_seed(3)
    x, u, h = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((T, B, H), (H,), (B, H)))
    return x, u, torch.tensor(lens), h


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("lens", [(5, 0, 3), (5, 5, 5), (0, 0, 0)])
def test_the_gradient_is_the_derivative(activation, direction, lens):
    x, u, lengths, h = _case(lens=lens)

    def run(x, u, h):
        return recurrence(x, u, lengths, h, activation, 0.1, direction)

    assert torch.autograd.gradcheck(run, [t.requires_grad_() for t in (x, u, h)])


def test_the_gradient_through_time_has_the_papers_closed_form():
    # Li et al., 2018, equation 5: dh_T / dh_0 = u^T times the slopes, which are 1 while a relu neuron is active.
    u = torch.tensor([0.5, 1.01], requires_grad=True)
    h0 = torch.ones(1, 2, requires_grad=True)
    _, h = recurrence(torch.ones(20, 1, 2), u, None, h0)
    (g,) = torch.autograd.grad(h.sum(), h0)
    torch.testing.assert_close(g[0], u.detach() ** 20)


def test_whatever_stands_past_a_rows_length_reaches_neither_outputs_nor_gradients():
    x, u, lens, h = _case()
    u.requires_grad_()
    results = []
    for filler in (0.0, float("nan")):
        y, y_h = recurrence(torch.where(torch.arange(5)[:, None, None] < lens[:, None], x, filler), u, lens, h)
        results.append((y, y_h, *torch.autograd.grad(y.square().sum() + y_h.sum(), u)))
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_defaults_are_full_length_and_a_zero_state():
    x, u, _, h = _case()
    y, y_h = recurrence(x, u)
    same_y, same_h = recurrence(x, u, torch.full((3,), 5), torch.zeros_like(h))
    assert torch.equal(y, same_y)
    assert torch.equal(y_h, same_h)


def test_the_state_is_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        a = torch.nn.Linear(4, 4)(torch.ones(3, 2, 4))
        y, y_h = recurrence(a, torch.rand(4))
    assert (a.dtype, y.dtype, y_h.dtype) == (torch.bfloat16, torch.float32, torch.float32)


@pytest.mark.parametrize("wrong", [{"activation": "gelu"}, {"direction": "both"}])
def test_an_unknown_option_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong.values()))):
        recurrence(torch.zeros(1, 1, 1), torch.zeros(1), **wrong)


def test_torch_accepts_the_operator_as_its_own():
    x, u, lens, h = (t.float() if t.is_floating_point() else t for t in _case())
    args = (x.requires_grad_(), u.requires_grad_(), lens, h.requires_grad_(), "relu", 0.0, "forward")
    torch.library.opcheck(torch.ops.indrnn.recurrence.default, args)
