"""h_t = clip(a_t h_{t-1} + b_t, lo, hi): the operator on the kernel and on the loop is the specification, in outputs and every gradient."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, jacfwd, jacrev, jvp, vmap

from indrnn.kernels.build import KernelMissing, build
from indrnn.kernels.native import Library
from indrnn.model.cells import fused, reference
from indrnn.model.cells.diagonal.recurrence import composed_backward, diagonal, diagonal_backward_op, diagonal_op
from indrnn.model.cells.recurrence import DIRECTIONS, recurrence

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch.func's own forward mode calls it

BOUNDS = [(None, None), (0.0, None), (None, 0.5), (-0.75, 0.5)]
every = pytest.mark.parametrize(("bounds", "direction"), [(b, d) for b in BOUNDS for d in DIRECTIONS], ids=str)
Four = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def library() -> Library | None:
    try:
        return Library(build())
    except KernelMissing:
        return None


@pytest.fixture(params=["fused", "loop"], autouse=True)
def _either(request: pytest.FixtureRequest, library: Library | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "fused" and library is None:
        pytest.skip("no kernel")
    monkeypatch.setattr(fused, "library", lambda: library if request.param == "fused" else None)


def tensors(T: int = 5, B: int = 3, H: int = 4, dtype: torch.dtype = torch.float64, seed: int = 0) -> Four:
    """a, b, ragged lengths, initial_h."""
    g = torch.Generator().manual_seed(seed)
    a, b, h = (torch.randn(s, generator=g, dtype=dtype) for s in ((T, B, H), (T, B, H), (B, H)))
    return a, b, torch.randint(0, T + 1, (B,), generator=g), h


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(0, 12), st.integers(0, 4), st.integers(1, 40)),
    bounds=st.sampled_from(BOUNDS),
    direction=st.sampled_from(DIRECTIONS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    strided=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_outputs_and_gradients_are_the_specification_s(shape, bounds, direction, dtype, strided, seed):
    a, b, lens, h = tensors(*shape, dtype, seed)
    dy, _, _, dy_h = tensors(*shape, dtype, seed + 1)
    if strided:  # the same values in another order of memory
        a, b, h, dy, dy_h = (t.mT.contiguous().mT for t in (a, b, h, dy, dy_h))
    y, y_h = diagonal(a, b, lens, h, *bounds, direction)
    wide = (t.double().numpy() if t.is_floating_point() else t.numpy() for t in (a, b, lens, h))
    scale = 1 + float(y.abs().max() if y.numel() else 0)
    atol = (2e-6 if dtype == torch.float32 else 1e-13) * scale
    for got, want in zip((y, y_h), reference.diagonal(*wide, *bounds, direction), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=atol)
    grads = diagonal_backward_op(dy, dy_h, y, a, lens, h, *bounds, direction)
    composed = composed_backward(dy, dy_h, y, a, lens, h, *bounds, direction)
    for got, want in zip(grads, composed, strict=True):
        assert got.shape == want.shape
        torch.testing.assert_close(got, want, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=atol)


def test_a_constant_a_is_the_indrnn():
    _, x, lens, h = tensors(9, 3, 17)
    u = torch.linspace(-1.2, 1.2, 17, dtype=torch.float64)
    for activation, bounds in (("relu", (0.0, None)), ("identity", (None, None))):
        for direction in DIRECTIONS:
            got = diagonal(u.expand_as(x), x, lens, h, *bounds, direction)
            for one, other in zip(got, recurrence(x, u, lens, h, activation, direction=direction), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)  # on the kernel to the bit: tests/kernels


def test_the_indrnn_s_gradient_is_one_of_them():
    """Reversed in time, with a_t = u where the neuron of step t is on: what an exported explanation is made of."""
    _, x, _, h = tensors(9, 3, 4)
    u = torch.linspace(-1, 1, 4, dtype=torch.float64)
    lens, dy = torch.tensor([9, 0, 6]), torch.randn_like(x)
    x.requires_grad_()
    y, _ = recurrence(x, u, lens, h)
    (want,) = torch.autograd.grad(y, x, dy)
    on = (y > 0).double()
    got, _ = diagonal(on * u, on * dy, lens, direction="reverse")  # u is the same at t + 1, so nothing shifts
    torch.testing.assert_close(got, want.detach())


@every
@pytest.mark.filterwarnings("ignore:.*non-deterministic.*")
def test_both_modes_and_the_second_order_are_derivatives(bounds, direction):
    a, b, _, h = tensors(3, 4, 1)
    lengths = torch.tensor([3, 0, 2, 3])

    def run(a: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return diagonal(a, b, lengths, h, *bounds, direction)

    inputs = [t.requires_grad_() for t in (a, b, h)]
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, inputs)


@every
def test_every_transform_is_plain_differentiation(bounds, direction):
    a, b, _, h = tensors(4, 2, 2)
    lens = torch.tensor([4, 3])

    def run(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        return torch.cat([t.reshape(-1) for t in diagonal(a, b, lens, h, *bounds, direction)])

    plain = torch.autograd.functional.jacobian(run, (a, b, h))
    for found in (jacfwd(run, (0, 1, 2))(a, b, h), jacrev(run, (0, 1, 2))(a, b, h)):
        for one, other in zip(found, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    ways = tuple(torch.randn_like(t) for t in (a, b, h))
    _, tangent = jvp(run, (a, b, h), ways)
    want = sum(torch.tensordot(j, way, way.dim()) for j, way in zip(plain, ways, strict=True))
    torch.testing.assert_close(tangent, want, rtol=0, atol=1e-12)
    stacked = torch.stack([b, -b])
    torch.testing.assert_close(vmap(run, (None, 0, None))(a, stacked, h), torch.stack([run(a, one, h) for one in stacked]))
    each = vmap(grad(lambda b: run(a, b, h).square().sum()))(stacked)
    for one, found in zip(stacked, each, strict=True):
        torch.testing.assert_close(found, grad(lambda b: run(a, b, h).square().sum())(one), rtol=0, atol=1e-12)
    given = torch.randn(3, len(run(a, b, h)), dtype=b.dtype)
    y = run(a.requires_grad_(), b, h)
    (together,) = torch.autograd.grad(y, a, given, is_grads_batched=True, retain_graph=True)
    for one, found in zip(given, together, strict=True):
        torch.testing.assert_close(found, torch.autograd.grad(y, a, one, retain_graph=True)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("strided", [False, True])
def test_torch_accepts_the_operator_as_its_own(strided):
    a, b, lens, h = tensors(dtype=torch.float32)
    if strided:
        a, b, h = (t.mT.contiguous().mT for t in (a, b, h))
    torch.library.opcheck(diagonal_op, (a.requires_grad_(), b.requires_grad_(), lens, h.requires_grad_(), -0.5, None, "reverse"))


def test_compiled_it_stays_one_operator_with_the_same_numbers_and_gradients():
    seen: list[str] = []

    def backend(module: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        seen.extend(str(node.target) for node in module.graph.nodes if node.op == "call_function")
        return module

    a, b, lens, h = tensors(7, 3, 33, torch.float32)
    a.requires_grad_()

    def loss(a: Tensor, b: Tensor) -> Tensor:
        y, y_h = diagonal(torch.sigmoid(a), b * 2, lens, h, 0.0)
        return y.square().sum() + y_h.sum()

    torch.testing.assert_close(torch.compile(loss, fullgraph=True, backend=backend)(a, b), loss(a, b))
    assert [target for target in seen if "indrnn" in target] == ["indrnn.diagonal"]
    (want,) = torch.autograd.grad(loss(a, b), a)
    (got,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(a, b), a)
    torch.testing.assert_close(got, want)


def test_whatever_stands_past_a_rows_length_reaches_neither_outputs_nor_gradients():
    a, b, _, h = tensors()
    lens = torch.tensor([5, 0, 3])
    past = (torch.arange(5)[:, None] >= lens)[:, :, None]
    results = []
    for filler in (0.0, float("nan")):
        dirty = [torch.where(past, filler, t).requires_grad_() for t in (a, b)]
        y, y_h = diagonal(*dirty, lens, h, -1.0)
        results.append((y, y_h, *torch.autograd.grad(y[:, 1:].square().sum() + y_h.sum(), dirty)))
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_defaults_are_full_length_and_a_zero_state_and_lengths_are_clipped():
    a, b, _, h = tensors()
    for one, other in zip(diagonal(a, b), diagonal(a, b, torch.full((3,), 5), torch.zeros_like(h)), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(diagonal(a, b, torch.tensor([-2, 9, 3]), h), diagonal(a, b, torch.tensor([0, 5, 3]), h), strict=True):
        assert torch.equal(one, other)


def test_nan_stays_in_its_neuron_whatever_the_bounds():
    a, b, _, h = tensors(dtype=torch.float32)
    b[1, 0, 2] = float("nan")
    for bounds in BOUNDS:
        _, y_h = diagonal(a, b, None, h, *bounds)
        assert y_h.isnan().nonzero().tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"b": torch.ones(3, 4)}, r"b: expected \[T, B, H\], got \[3, 4\]"),
        ({"a": torch.ones(4)}, r"a: expected \[3, 2, 4\], got \[4\]"),
        ({"a": torch.ones(3, 2, 4, device="meta")}, "expected tensors of one device, got them on .*meta, cpu, cpu"),
        ({"sequence_lens": torch.tensor([3])}, r"sequence_lens: expected \[2\], got \[1\]"),
        ({"sequence_lens": torch.tensor([1.5, 2.5])}, "sequence_lens: expected int64, got torch.float32"),
        ({"initial_h": torch.ones(4)}, r"initial_h: expected \[2, 4\], got \[4\]"),
        ({"lo": 1.0, "hi": 0.5}, "expected lo at most hi, got 1.0 and 0.5"),
        ({"direction": "sideways"}, "got 'sideways'"),
    ],
    ids=lambda change: "-".join(change) if isinstance(change, dict) else "",
)
def test_inputs_that_do_not_fit_each_other_are_refused_before_memory_is_read(change, said):
    lens = torch.tensor([3, 3])
    given = {"a": torch.ones(3, 2, 4), "b": torch.ones(3, 2, 4), "sequence_lens": lens, "initial_h": torch.ones(2, 4)}
    options = {"lo": None, "hi": None, "direction": "forward"}
    with pytest.raises(ValueError, match=said):
        diagonal_op(**given | options | change)
    if "b" not in change:
        given["y"] = given.pop("b")
        with pytest.raises(ValueError, match=said):
            diagonal_backward_op(dy=given["y"], dy_h=torch.ones(2, 4), **given | options | change)


@pytest.mark.parametrize("wrong", [{"dy": torch.ones(1, 2, 4)}, {"dy_h": torch.ones(4)}], ids=["dy", "dy_h"])
def test_gradients_of_another_shape_are_refused(wrong):
    given = {"dy": torch.ones(3, 2, 4), "dy_h": torch.ones(2, 4)} | wrong
    with pytest.raises(ValueError, match=r"expected dy \[3, 2, 4\] and dy_h \[2, 4\], got"):
        diagonal_backward_op(**given, y=torch.ones(3, 2, 4), a=torch.ones(3, 2, 4), sequence_lens=torch.tensor([3, 3]),
                             initial_h=torch.ones(2, 4), lo=None, hi=None, direction="forward")  # fmt: skip
