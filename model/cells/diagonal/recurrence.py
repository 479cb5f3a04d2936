"""Every recurrence whose neurons never meet, h_t = clip(a_t * h_{t-1} + b_t, lo, hi), as one PyTorch operator, `indrnn::diagonal`.

The exporter sees one node, as of model/cells/recurrence.py, whose IndRNN is the case of an a that never changes. Inside, the native kernel
runs on the CPU, Triton's on NVIDIA GPUs, and the loop below elsewhere; model/cells/reference.py is what all are tested against.

Its gradient is the same recurrence once more, from the last step to the first: with m_t = 1 where the bounds let h_t through, and G_t the
gradient by h_t itself,  db_t = m_t (G_t + a_{t+1} db_{t+1}),  da_t = db_t h_{t-1}.
"""

import torch
from torch import Tensor

from indrnn.model.cells import fused, recurrence
from indrnn.model.cells.recurrence import DIRECTIONS, belongs, check_device, flip, looked_into

CLIP = "clip"  # its name among the GPU's activations


def _check(a: Tensor, b: Tensor, sequence_lens: Tensor, initial_h: Tensor, lo: float | None, hi: float | None, direction: str) -> None:
    """Raises ValueError unless the inputs fit each other: a kernel goes by b's shape alone, and would read past the end of the others."""
    if direction not in DIRECTIONS:
        raise ValueError(f"expected one of {DIRECTIONS}, got {direction!r}")
    if lo is not None and hi is not None and not lo <= hi:
        raise ValueError(f"expected lo at most hi, got {lo} and {hi}")
    if b.dim() != 3:
        raise ValueError(f"b: expected [T, B, H], got {list(b.shape)}")
    T, B, H = b.shape
    for name, tensor, shape in (("a", a, (T, B, H)), ("sequence_lens", sequence_lens, (B,)), ("initial_h", initial_h, (B, H))):
        if tensor.shape != shape:
            raise ValueError(f"{name}: expected {list(shape)}, got {list(tensor.shape)}")
    if sequence_lens.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"sequence_lens: expected int64, got {sequence_lens.dtype}")
    check_device(a, b, sequence_lens, initial_h)


@torch.library.custom_op("indrnn::diagonal", mutates_args=())
def diagonal_op(
    a: Tensor, b: Tensor, sequence_lens: Tensor, initial_h: Tensor, lo: float | None, hi: float | None, direction: str
) -> tuple[Tensor, Tensor]:
    """Run `diagonal` as a bare operator, all four tensors given, of one type."""
    _check(a, b, sequence_lens, initial_h, lo, hi, direction)
    if gpu := recurrence.on_gpu(b):
        y, y_h = gpu.forward(b, a, sequence_lens, initial_h, CLIP, 0.0, direction, bounds=(lo, hi))
        return y, y_h
    if native := fused.fitting_diagonal(b, a, initial_h):
        return fused.forward(native, fused.diagonal(lo, hi, direction), b, a, sequence_lens, initial_h)
    y, y_h = _loop(a, b, sequence_lens.clamp(0, len(b)), initial_h, lo, hi, direction)
    return y.contiguous(), y_h.clone(memory_format=torch.contiguous_format)


@diagonal_op.register_fake
def _(a, b, sequence_lens, initial_h, lo, hi, direction):  # type: ignore[no-untyped-def]  # torch calls it
    check_device(a, b, sequence_lens, initial_h)
    contiguous = torch.contiguous_format
    return torch.empty_like(b, memory_format=contiguous), torch.empty_like(initial_h, memory_format=contiguous)


def _loop(
    a: Tensor, b: Tensor, lens: Tensor, initial_h: Tensor, lo: float | None, hi: float | None, direction: str
) -> tuple[Tensor, Tensor]:
    """Run the recurrence in PyTorch's own operations, which every transform of torch.func and both modes of differentiation look into."""
    valid = belongs(b, lens)
    if direction == "reverse":
        a, b = flip(a, lens), flip(b, lens)
    h, steps = initial_h, []
    for t in range(b.shape[0]):
        new = b[t] + a[t] * h
        # Where, and not clamp: NaN stays NaN, and the slope at a bound is 0, as the kernels have it.
        new = new if lo is None else torch.where(new <= lo, lo, new)
        new = new if hi is None else torch.where(new >= hi, hi, new)
        h = torch.where(valid[t], new, h)
        steps.append(torch.where(valid[t], new, 0))
    y = torch.stack(steps) if steps else a + b
    return (flip(y, lens) if direction == "reverse" else y), h


@torch.library.custom_op("indrnn::diagonal_backward", mutates_args=())
def diagonal_backward_op(
    dy: Tensor,
    dy_h: Tensor,
    y: Tensor,
    a: Tensor,
    sequence_lens: Tensor,
    initial_h: Tensor,
    lo: float | None,
    hi: float | None,
    direction: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of the recurrence by a, b and initial_h: in one pass over memory where a kernel is."""
    _check(a, y, sequence_lens, initial_h, lo, hi, direction)
    check_device(dy, dy_h, y)
    if dy.shape != y.shape or dy_h.shape != initial_h.shape:
        raise ValueError(f"expected dy {list(y.shape)} and dy_h {list(initial_h.shape)}, got {list(dy.shape)} and {list(dy_h.shape)}")
    if gpu := recurrence.on_gpu(y):
        db, da, dh0 = gpu.backward(dy, dy_h, y, a, sequence_lens, initial_h, CLIP, 0.0, direction, bounds=(lo, hi))
        return da, db, dh0
    if native := fused.fitting_diagonal(y, dy, dy_h, a, initial_h):
        db, da, dh0 = fused.backward(native, fused.diagonal(lo, hi, direction), dy, dy_h, y, a, sequence_lens, initial_h)
        return da, db, dh0
    found = composed_backward(dy, dy_h, y, a, sequence_lens.clamp(0, len(y)), initial_h, lo, hi, direction)
    da, db, dh0 = (t.clone(memory_format=torch.contiguous_format) for t in found)
    return da, db, dh0


@diagonal_backward_op.register_fake
def _(dy, dy_h, y, a, sequence_lens, initial_h, lo, hi, direction):  # type: ignore[no-untyped-def]  # torch calls it
    check_device(y, a, sequence_lens, initial_h, dy, dy_h)
    contiguous = torch.contiguous_format
    return tuple(torch.empty_like(t, memory_format=contiguous) for t in (y, y, initial_h))


def composed_backward(
    dy: Tensor,
    dy_h: Tensor,
    y: Tensor,
    a: Tensor,
    lens: Tensor,
    initial_h: Tensor,
    lo: float | None,
    hi: float | None,
    direction: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same gradients by the recurrence itself, run backwards, which has a gradient in its turn. lens: within 0 and T."""
    if direction == "reverse":
        dy, y, a = (flip(t, lens) for t in (dy, y, a))
    stopped = torch.zeros_like(y, dtype=torch.bool)
    if lo is not None:
        stopped = stopped | (y <= lo)
    if hi is not None:
        stopped = stopped | (y >= hi)
    # a_{t+1} carries the gradient from step t + 1 to step t; into a row's last step it comes from dy_h as it is.
    last = (torch.arange(y.shape[0], device=y.device)[:, None] == lens - 1)[:, :, None]
    after = torch.where(last, 1, torch.cat([a[1:], torch.zeros_like(a[:1])]))
    db, carried = diagonal(torch.where(stopped, 0, after), torch.where(stopped, 0, dy), lens, dy_h, direction="reverse")
    before = torch.cat([initial_h[None], y[:-1]]) if y.shape[0] else y
    da = torch.where(belongs(y, lens), db * before, 0)
    dh0 = torch.where((lens > 0)[:, None], a[0] * carried, dy_h) if y.shape[0] else dy_h
    return (flip(da, lens), flip(db, lens), dh0) if direction == "reverse" else (da, db, dh0)


def _setup(ctx, inputs, output):  # type: ignore[no-untyped-def]  # torch calls it
    a, _, lens, h0, *ctx.options = inputs
    ctx.save_for_backward(output[0], a, lens, h0)


def _backward(ctx, dy, dy_h):  # type: ignore[no-untyped-def]  # torch calls it
    y, a, lens, h0 = ctx.saved_tensors
    if torch.is_grad_enabled() or looked_into(dy, dy_h, y, a, h0):  # a gradient of this gradient may be asked for
        da, db, dh0 = composed_backward(dy, dy_h, y, a, lens.clamp(0, len(y)), h0, *ctx.options)
    else:
        da, db, dh0 = diagonal_backward_op(dy.contiguous(), dy_h.contiguous(), y, a, lens, h0, *ctx.options)
    return da, db, None, dh0, None, None, None


diagonal_op.register_autograd(_backward, setup_context=_setup)


def diagonal(
    a: Tensor,
    b: Tensor,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    lo: float | None = None,
    hi: float | None = None,
    direction: str = "forward",
) -> tuple[Tensor, Tensor]:
    """h_t = clip(a_t * h_{t-1} + b_t, lo, hi) over time, differentiable in a, b and initial_h.

    a, b [T, B, H], sequence_lens [B] int64 (default T; below 0 counts as 0, above T as T), initial_h [B, H] (default 0); lo, hi: no bound
    where None, and a slope of 0 at a bound -> y [T, B, H], 0 past a row's length, and y_h [B, H], the state after it; float64 if b is, else
    float32, whatever autocast says. Gradients of gradients, forward mode and every transform of torch.func work.
    Raises ValueError on an unknown direction, on lo above hi, and on tensors that do not fit each other.
    """
    T, B, H = b.shape
    dtype = torch.float64 if b.dtype == torch.float64 else torch.float32
    if sequence_lens is None:
        sequence_lens = torch.full((B,), T, dtype=torch.int64, device=b.device)
    if initial_h is None:
        initial_h = torch.zeros(B, H, dtype=dtype, device=b.device)
    a, b, initial_h = a.to(dtype), b.to(dtype), initial_h.to(dtype)
    if looked_into(a, b, initial_h):
        _check(a, b, sequence_lens, initial_h, lo, hi, direction)
        return _loop(a, b, sequence_lens.clamp(0, T), initial_h, lo, hi, direction)
    y, y_h = torch.ops.indrnn.diagonal(a, b, sequence_lens, initial_h, lo, hi, direction)
    return y, y_h
