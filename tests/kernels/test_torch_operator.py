"""indrnn::recurrence on the native kernel and on the plain loop: one operator, the same numbers, for autograd, compile and export."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from indrnn.kernels.native import Library
from indrnn.model.cells import fused
from indrnn.model.cells.recurrence import ACTIVATIONS, DIRECTIONS, _loop, _loop_backward, recurrence
from indrnn.model.cells.recurrence import recurrence_backward_op as backward_op
from indrnn.model.cells.recurrence import recurrence_op as forward_op


@pytest.fixture(autouse=True)
def _native(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "library", lambda: library)


@pytest.fixture(params=["fused", "loop"])
def _either(request: pytest.FixtureRequest, _native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "loop":
        monkeypatch.setattr(fused, "library", lambda: None)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tensors(T: int, B: int, H: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x, h0 = torch.randn(T, B, H, generator=g, dtype=dtype), torch.randn(B, H, generator=g, dtype=dtype)
    u = torch.rand(H, generator=g, dtype=dtype) * 2 - 1
    return x, u, torch.randint(0, T + 1, (B,), generator=g), h0


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(0, 12), st.integers(0, 4), st.integers(1, 40)),
    activation=st.sampled_from(tuple(ACTIVATIONS)),
    direction=st.sampled_from(DIRECTIONS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    strided=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_kernel_and_loop_agree_in_outputs_and_gradients(shape, activation, direction, dtype, strided, seed):
    x, u, lens, h0 = tensors(*shape, dtype, seed)
    dy, _, _, dy_h = tensors(*shape, dtype, seed + 1)
    if strided:  # the same values in another order of memory
        x, dy, h0, dy_h = (t.mT.contiguous().mT for t in (x, dy, h0, dy_h))
    options = (activation, 0.25, direction)
    tolerance = {"rtol": 0, "atol": 2e-5 if dtype == torch.float32 else 1e-12}
    want = _loop(x, u, lens, h0, *options)
    got = forward_op(x, u, lens, h0, *options)
    torch.testing.assert_close(got, want, **tolerance)
    grads = backward_op(dy, dy_h, want[0], u, lens, h0, *options)
    torch.testing.assert_close(grads, _loop_backward(dy, dy_h, want[0], u, lens, h0, *options), **tolerance)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("strided", [False, True])
def test_torch_accepts_the_operator_as_its_own(strided: bool) -> None:
    x, u, lens, h0 = tensors(5, 3, 4, torch.float32)
    if strided:
        x, h0 = x.mT.contiguous().mT, h0.mT.contiguous().mT
    args = (x.requires_grad_(), u.requires_grad_(), lens, h0.requires_grad_(), "relu", 0.0, "reverse")
    torch.library.opcheck(forward_op, args)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_gradient_is_the_derivative(activation: str, direction: str) -> None:
    x, u, lens, h0 = tensors(5, 3, 4, torch.float64)

    def run(x: Tensor, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return recurrence(x, u, lens, h, activation, 0.25, direction)

    assert torch.autograd.gradcheck(run, [t.requires_grad_() for t in (x, u, h0)])


@pytest.mark.usefixtures("_threads")
def test_the_number_of_threads_changes_no_bit() -> None:
    x, u, lens, h0 = tensors(300, 16, 128, torch.float32)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        y, y_h = forward_op(x, u, lens, h0, "tanh", 0.0, "forward")
        results.append((y, y_h, *backward_op(x, h0, y, u, lens, h0, "tanh", 0.0, "forward")))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("_either")
def test_compiled_it_stays_one_operator_with_the_same_numbers() -> None:
    seen: list[str] = []

    def backend(module: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        seen.extend(str(node.target) for node in module.graph.nodes if node.op == "call_function")
        return module

    x, u, lens, h0 = tensors(7, 3, 33, torch.float32)

    def run(x: Tensor, u: Tensor) -> Tensor:
        return recurrence(x * 2, u, lens, h0)[0] + 1

    torch.testing.assert_close(torch.compile(run, fullgraph=True, backend=backend)(x, u), run(x, u))
    assert [target for target in seen if "indrnn" in target] == ["indrnn.recurrence"]


@pytest.mark.usefixtures("_either")
def test_compiled_gradients_are_the_eager_ones() -> None:
    x, u, lens, h0 = tensors(7, 3, 33, torch.float32)
    u.requires_grad_()

    def loss(x: Tensor, u: Tensor) -> Tensor:
        y, y_h = recurrence(x, u, lens, h0)
        return y.square().sum() + y_h.sum()

    (want,) = torch.autograd.grad(loss(x, u), u)
    (got,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x, u), u)
    torch.testing.assert_close(got, want)


@pytest.mark.usefixtures("_either")
def test_exported_it_is_one_node_and_runs_at_other_lengths() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor, u: Tensor, lens: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
            return recurrence(x, u, lens, h0)

    T, B = torch.export.Dim("T", min=0), torch.export.Dim("B", min=0)
    shapes = {"x": {0: T, 1: B}, "u": {}, "lens": {0: B}, "h0": {0: B}}
    program = torch.export.export(Net(), tensors(6, 2, 5, torch.float32), dynamic_shapes=shapes)
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert [t for t in targets if "indrnn" in t] == ["indrnn.recurrence.default"]
    other = tensors(11, 3, 5, torch.float32)
    torch.testing.assert_close(program.module()(*other), recurrence(*other))


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.ones(3, 4)}, r"x: expected \[T, B, H\], got \[3, 4\]"),
        ({"u": torch.ones(1)}, r"u: expected \[4\], got \[1\]"),
        ({"u": torch.ones(4, device="meta")}, "expected tensors of one device, got them on cpu, meta, cpu, cpu"),
        ({"sequence_lens": torch.tensor([3])}, r"sequence_lens: expected \[2\], got \[1\]"),
        ({"sequence_lens": torch.tensor([1.5, 2.5])}, "sequence_lens: expected int64, got torch.float32"),
        ({"initial_h": torch.ones(4)}, r"initial_h: expected \[2, 4\], got \[4\]"),
        ({"activation": "gelu"}, "got 'gelu'"),
        ({"direction": "sideways"}, "got .* 'sideways'"),
    ],
    ids=lambda change: "-".join(change) if isinstance(change, dict) else "",
)
def test_inputs_that_do_not_fit_each_other_are_refused_before_memory_is_read(change: dict[str, Tensor], said: str) -> None:
    lens = torch.tensor([3, 3])
    given = {"x": torch.ones(3, 2, 4), "u": torch.ones(4), "sequence_lens": lens, "initial_h": torch.ones(2, 4)}
    options = {"activation": "relu", "alpha": 0.0, "direction": "forward"}
    with pytest.raises(ValueError, match=said):
        forward_op(**given | options | change)
    if "x" not in change:
        given["y"] = given.pop("x")
        with pytest.raises(ValueError, match=said):
            backward_op(dy=given["y"], dy_h=torch.ones(2, 4), **given | options | change)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("wrong", [{"dy": torch.ones(1, 2, 4)}, {"dy_h": torch.ones(4)}], ids=["dy", "dy_h"])
def test_gradients_of_another_shape_are_refused(wrong: dict[str, Tensor]) -> None:
    given = {"dy": torch.ones(3, 2, 4), "dy_h": torch.ones(2, 4)} | wrong
    with pytest.raises(ValueError, match=r"expected dy \[3, 2, 4\] and dy_h \[2, 4\], got"):
        backward_op(**given, y=torch.ones(3, 2, 4), u=torch.ones(4), sequence_lens=torch.tensor([3, 3]), initial_h=torch.ones(2, 4),
                    activation="relu", alpha=0.0, direction="forward")  # fmt: skip


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_lengths_outside_the_sequence_are_clipped(direction: str) -> None:
    x, u, _, h0 = tensors(6, 4, 5, torch.float32)
    results = []
    for lens in ([-3, 99, 6, 2], [0, 6, 6, 2]):
        args = (u, torch.tensor(lens), h0, "tanh", 0.0, direction)
        y, y_h = forward_op(x, *args)
        results.append((y, y_h, *backward_op(x, h0, y, *args)))
    for got, want in zip(*results, strict=True):
        assert torch.equal(got, want)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("alpha", [-0.5, float("nan")])
def test_a_slope_that_the_output_does_not_tell_is_refused_when_a_gradient_is_wanted(alpha: float) -> None:
    """Such a leaky_relu folds both halves onto one sign; without a gradient it is as good as any."""
    x, u, lens, h0 = tensors(5, 3, 4, torch.float64)
    y, _ = recurrence(x, u, lens, h0, "leaky_relu", alpha)
    assert y.shape == x.shape
    with pytest.raises(ValueError, match=r"alpha: the gradient of leaky_relu expects 0 or more"):
        recurrence(x, u.requires_grad_(), lens, h0, "leaky_relu", alpha)
    with pytest.raises(ValueError, match=r"alpha: the gradient of leaky_relu expects 0 or more"):
        backward_op(x, h0, y, u.detach(), lens, h0, "leaky_relu", alpha, "forward")


def test_a_leaky_relu_of_slope_zero_has_its_gradient() -> None:
    x, u, lens, h0 = tensors(5, 3, 4, torch.float64)
    assert torch.autograd.gradcheck(lambda x: recurrence(x, u, lens, h0, "leaky_relu", 0.0), [x.requires_grad_()])


@pytest.mark.usefixtures("_threads")
def test_the_callers_mode_for_denormals_holds_on_every_thread() -> None:
    """The kernel's threads are started with one mode and lent to a caller that has the other."""
    x, u = torch.full((50, 64, 512), 1e-39), torch.full((512,), 0.5)
    torch.set_num_threads(3)
    kept, _ = recurrence(x, u)
    if not torch.set_flush_denormal(True):
        pytest.skip("this machine keeps denormals")
    try:
        flushed = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            flushed.append(recurrence(x, u)[0].view(torch.int32))
    finally:
        torch.set_flush_denormal(False)
    assert (kept.view(torch.int32) != 0).all()
    assert all((y == 0).all() for y in flushed)


@pytest.mark.usefixtures("_either")
def test_a_gradient_may_be_taken_twice_and_has_a_gradient_of_its_own() -> None:
    x, u, lens, h0 = tensors(5, 3, 4, torch.float64)
    u.requires_grad_()
    y, _ = recurrence(x, u, lens, h0, "tanh")
    first, second = (torch.autograd.grad(y.sum(), u, create_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    (found,) = torch.autograd.grad(first.sum(), u)
    step = 1e-6

    def slopes(u: torch.Tensor) -> torch.Tensor:
        u = u.detach().requires_grad_()
        return torch.autograd.grad(recurrence(x, u, lens, h0, "tanh")[0].sum(), u)[0]

    torch.testing.assert_close(found, (slopes(u + step) - slopes(u - step)) / (2 * step), rtol=0, atol=1e-6)
