"""The GPU's kernels in Triton against the specification, on a GPU; test_triton_without_gpu.py runs this in Triton's interpreter."""

import os
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from indrnn.model.cells import recurrence
from indrnn.model.cells.diagonal.recurrence import composed_backward, diagonal_op
from indrnn.model.cells.reference import ACTIVATIONS, diagonal, indrnn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ALPHA = 0.25
DIRECTIONS = ("forward", "reverse")
WAYS = [(a, False) for a in ACTIVATIONS] + [("relu", True), ("identity", True)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
# The interpreter is NumPy, which speaks up about infinities in the branch that is not taken.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def triton() -> ModuleType:
    if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("no GPU here; test_triton_without_gpu.py runs these in Triton's interpreter, where triton is installed")
    pytest.importorskip("triton", reason="triton is not installed")
    from indrnn.kernels import triton_recurrence

    return triton_recurrence


@pytest.fixture(autouse=True)
def _short_chunks(triton: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a short sequence has several, the last of them partial."""
    monkeypatch.setattr(triton, "CHUNK", 8)
    monkeypatch.setattr(triton, "BLOCK", 32)
    monkeypatch.setattr(triton, "UNROLL", 4)


def tensors(T: int, B: int, H: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, u, ragged lengths, h0."""
    g = torch.Generator().manual_seed(seed)
    state = torch.float64 if dtype == torch.float64 else torch.float32
    x, h0 = (torch.randn(s, generator=g, dtype=state).to(DEVICE) for s in ((T, B, H), (B, H)))
    u = (torch.rand(H, generator=g, dtype=state) * 2 - 1).to(DEVICE)
    return x.to(dtype), u, torch.randint(0, T + 1, (B,), generator=g).to(DEVICE), h0


def specified(x: Tensor, u: Tensor, lens: Tensor, h0: Tensor, activation: str, direction: str) -> list[np.ndarray]:
    wide = (t.cpu().double().numpy() for t in (x, u))
    return list(indrnn(*wide, lens.cpu().numpy(), h0.cpu().double().numpy(), activation, ALPHA, direction))


def close(got: Tensor, want: np.ndarray, tolerance: float) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(got.cpu().double().numpy(), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("activation", "scan"), WAYS)
def test_outputs_and_state_are_the_specification(triton: ModuleType, activation: str, scan: bool, direction: str) -> None:
    for seed, shape in enumerate([(0, 2, 3), (1, 1, 1), (1, 3, 40), (21, 3, 17)]):
        args = tensors(*shape, torch.float32, seed)
        y, y_h = triton.forward(*args, activation, ALPHA, direction, scan)
        for got, want in zip((y, y_h), specified(*args, activation, direction), strict=True):
            close(got, want, TOLERANCE[torch.float32])


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("activation", "scan"), WAYS)
def test_the_gradient_is_the_specification_s_by_finite_differences(triton: ModuleType, activation: str, scan: bool, direction: str) -> None:
    x, u, _, h0 = tensors(11, 3, 2, torch.float64)
    lens = torch.tensor([11, 0, 9], device=DEVICE)
    dy, _, _, dy_h = tensors(11, 3, 2, torch.float64, 1)
    weights = [t.cpu().numpy() for t in (dy, dy_h)]

    def loss(*given: np.ndarray) -> float:
        outputs = indrnn(given[0], given[1], lens.cpu().numpy(), given[2], activation, ALPHA, direction)
        return float(sum((w * o).sum() for w, o in zip(weights, outputs, strict=True)))

    y, _ = triton.forward(x, u, lens, h0, activation, ALPHA, direction, scan)
    grads = triton.backward(dy, dy_h, y, u, lens, h0, activation, ALPHA, direction, scan)
    inputs = [t.cpu().numpy() for t in (x, u, h0)]
    for which, grad in enumerate(grads):
        want = np.empty_like(inputs[which])
        for i in np.ndindex(want.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [a.copy() for a in inputs]
                moved[which][i] += step
                ends.append(loss(*moved))
            want[i] = (ends[0] - ends[1]) / 2e-6
        close(grad, want, 1e-7)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("activation", "scan"), [("relu", False), ("tanh", False), ("relu", True)])
def test_narrow_inputs_keep_a_wide_state(triton: ModuleType, dtype: torch.dtype, activation: str, scan: bool) -> None:
    x, u, lens, h0 = tensors(19, 2, 9, dtype)
    dy, _, _, dy_h = tensors(19, 2, 9, dtype, 1)
    y, y_h = triton.forward(x, u, lens, h0, activation, ALPHA, "forward", scan)
    assert (y.dtype, y_h.dtype) == (dtype, u.dtype)
    want_y, want_h = specified(x, u, lens, h0, activation, "forward")
    close(y, want_y, TOLERANCE[dtype])
    close(y_h, want_h, min(TOLERANCE[dtype], TOLERANCE[torch.float32]))
    grads = triton.backward(dy, dy_h, y, u, lens, h0, activation, ALPHA, "forward", scan)
    wide = (t.double() for t in (dy, dy_h, y, u))
    dx, du, dh0 = triton.backward(*wide, lens, h0.double(), activation, ALPHA, "forward", False)
    for got, want in zip(grads, (dx, du, dh0), strict=True):
        close(got, want.cpu().numpy(), TOLERANCE[got.dtype])


@pytest.mark.parametrize("scan", [False, True])
def test_nan_in_one_row_reaches_no_other(triton: ModuleType, scan: bool) -> None:
    x, u, lens, h0 = tensors(13, 3, 5, torch.float32)
    lens[:] = torch.tensor([13, 13, 7])
    poisoned, dy = x.clone(), torch.ones_like(x)
    poisoned[4, 1, 2] = float("nan")
    poisoned[7:, 2] = float("nan")  # past the row's length
    options = ("relu", ALPHA, "forward", scan)
    y, y_h = triton.forward(x, u, lens, h0, *options)
    bad, bad_h = triton.forward(poisoned, u, lens, h0, *options)
    assert bad[4:, 1, 2].isnan().all()
    clean = torch.ones_like(x, dtype=torch.bool)
    clean[4:, 1, 2] = False
    assert torch.equal(bad[clean], y[clean])
    assert torch.equal(bad_h[clean[-1]], y_h[clean[-1]])
    dx, _, dh0 = triton.backward(dy, h0, y, u, lens, h0, *options)
    bad_dx, _, bad_dh0 = triton.backward(dy, h0, bad, u, lens, h0, *options)
    clean[:, 1, 2] = False
    assert torch.equal(bad_dx[clean], dx[clean])
    assert torch.equal(bad_dh0[clean[0]], dh0[clean[0]])


def test_where_powers_of_u_would_overflow_the_scan_takes_single_steps(triton: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "CHUNK", 256)
    for sign in (1, -1):
        x, _, _, h0 = tensors(150, 1, 3, torch.float32)
        x = -x.abs() if sign > 0 else x
        u, lens = torch.full((3,), 2.0 * sign, device=DEVICE), torch.tensor([150], device=DEVICE)
        args = (x, u, lens, torch.zeros_like(h0), "relu", ALPHA, "forward")
        got, want = triton.forward(*args, True), triton.forward(*args, False)
        assert want[0].isfinite().all()
        torch.testing.assert_close(got, want, rtol=0, atol=0)
        grads = [triton.backward(torch.ones_like(x), h0, want[0], *args[1:], scan) for scan in (True, False)]
        torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-6)


def test_strided_inputs_are_taken_as_they_are(triton: ModuleType) -> None:
    x, u, lens, h0 = tensors(7, 3, 5, torch.float32)
    strided = (x.mT.contiguous().mT, u, lens, h0.mT.contiguous().mT)
    for got, want in zip(
        triton.forward(*strided, "relu", 0.0, "reverse"), triton.forward(x, u, lens, h0, "relu", 0.0, "reverse"), strict=True
    ):
        assert torch.equal(got, want)


def test_the_scan_is_for_few_neurons_long_sequences_and_linear_activations(triton: ModuleType) -> None:
    assert triton.scans(5000, 1, 128, "relu")
    assert not triton.scans(5000, 1, 128, "tanh")
    assert not triton.scans(5000, 512, 512, "relu")
    assert not triton.scans(1, 1, 128, "relu")
    with pytest.raises(ValueError, match="got 'tanh'"):
        triton.forward(*tensors(2, 1, 1, torch.float32), "tanh", 0.0, "forward", True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_trains_on_them(triton: ModuleType, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """model/cells/recurrence.py's operator, its gradient included, against its plain loop in float64."""
    monkeypatch.setattr(recurrence, "_on_gpu", lambda *_: triton)  # in the interpreter the tensors are the CPU's
    x, u, lens, h0 = tensors(9, 2, 5, dtype)
    results = []
    for inputs in ((x, u, h0), (x.double(), u.double(), h0.double())):
        x, u, h0 = (t.detach().requires_grad_() for t in inputs)
        y, y_h = recurrence.recurrence_op(x, u, lens, h0, "relu", 0.0, "reverse")
        grads = torch.autograd.grad(y.double().square().sum() + y_h.double().sum(), (x, u, h0))
        results.append((y, y_h, *grads))
        monkeypatch.setattr(recurrence, "_on_gpu", lambda *_: None)
    for got, want in zip(*results, strict=True):
        close(got.detach(), want.detach().cpu().numpy(), 0.05 if dtype == torch.bfloat16 else 1e-5)
    assert results[0][0].dtype == results[0][2].dtype == dtype


BOUNDS = [(None, None), (0.0, None), (None, 0.5), (-0.75, 0.5)]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("scan", [False, True])
def test_a_weight_that_differs_from_step_to_step(
    triton: ModuleType, bounds: tuple[float | None, float | None], direction: str, scan: bool
) -> None:
    """Outputs and gradients of DiagonalRecurrence, those of the specification by the kernel-free composition."""
    for seed, (T, B, H, largest) in enumerate([(0, 2, 3, 1.0), (1, 3, 4, 1.0), (21, 3, 17, 1.0), (21, 2, 3, 3.0)]):
        g = torch.Generator().manual_seed(seed)
        a, b, h0, dy, dy_h = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((T, B, H),) * 2 + ((B, H), (T, B, H), (B, H)))
        a = largest * a.tanh()  # above what a chunk may multiply, too
        lens = torch.randint(0, T + 1, (B,), generator=g)
        on = [t.to(DEVICE) for t in (b, a, lens, h0)]
        y, y_h = triton.forward(*on, "clip", 0.0, direction, scan, bounds)
        want_y, want_h = diagonal(a.numpy(), b.numpy(), lens.numpy(), h0.numpy(), *bounds, direction)
        close(y, want_y, 1e-9)
        close(y_h, want_h, 1e-9)
        grads = triton.backward(dy.to(DEVICE), dy_h.to(DEVICE), y, *on[1:], "clip", 0.0, direction, scan, bounds)
        da, db, dh0 = composed_backward(dy, dy_h, y.cpu(), a, lens, h0, *bounds, direction)
        for got, want in zip(grads, (db, da, dh0), strict=True):
            close(got, want.numpy(), 1e-9)


def test_the_diagonal_operator_trains_on_them(triton: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, h0 = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((9, 2, 5), (9, 2, 5), (2, 5)))
    lens = torch.tensor([9, 4])
    results = []
    for module in (triton, None):
        monkeypatch.setattr(recurrence, "on_gpu", lambda _, module=module: module)
        y, y_h = diagonal_op(a, b, lens, h0, -0.5, None, "reverse")
        results.append((y, y_h, *torch.autograd.grad(y.square().sum() + y_h.sum(), (a, b, h0))))
    for got, want in zip(*results, strict=True):
        close(got.detach(), want.detach().numpy(), 1e-9)
