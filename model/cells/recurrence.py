"""The recurrence as one opaque PyTorch operator, `indrnn::recurrence`, with its gradient.

The exporter must see one node: a Python time loop would be unrolled to the length of the export example. Inside, on the CPU, the native
kernel runs where it has been built (model/cells/fused.py), on NVIDIA GPUs kernels/triton_recurrence.py where Triton is installed, and the
plain loop over time below elsewhere; model/cells/reference.py is what all are tested against.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd import forward_ad

from indrnn.kernels.activations import ACTIVATIONS as ACTIVATIONS
from indrnn.model.cells import fused

DIRECTIONS = ("forward", "reverse")
NARROW = (torch.bfloat16, torch.float16)


@functools.cache
def _triton() -> ModuleType | None:
    try:
        from indrnn.kernels import triton_recurrence
    except ImportError:  # PyTorch for CUDA brings Triton; others need not have it
        return None
    return triton_recurrence


def on_gpu(x: Tensor) -> ModuleType | None:
    """Return the module of the kernels on this tensor's GPU; None elsewhere."""
    return _triton() if x.is_cuda else None


def _on_gpu(x: Tensor, activation: str) -> ModuleType | None:
    """Return the module that runs this tensor's recurrence on its GPU; None elsewhere, and where it has no such activation."""
    module = on_gpu(x)
    return module if module is not None and activation in module.ACTIVATIONS else None


# PyTorch's own kernels of a slope: one pass over memory, where the table's take some.
_ONE_PASS: Mapping[str, Callable[[Tensor, Tensor, Tensor], object]] = {
    "relu": lambda g, h, out: torch.ops.aten.threshold_backward.grad_input(g, h, 0, grad_input=out),
    "tanh": lambda g, h, out: torch.ops.aten.tanh_backward.grad_input(g, h, grad_input=out),
    "sigmoid": lambda g, h, out: torch.ops.aten.sigmoid_backward.grad_input(g, h, grad_input=out),
}


def _times_slope(g: Tensor, h: Tensor, activation: str, alpha: float, out: Tensor) -> None:
    """out = the gradient g times the activation's derivative, told from its output h (alpha >= 0 keeps the sign). It may write into g."""
    if one_pass := _ONE_PASS.get(activation):
        one_pass(g, h, out)
    else:
        out.copy_(ACTIVATIONS[activation].slope(g, h, alpha))


def _check_options(activation: str, direction: str) -> None:
    if activation not in ACTIVATIONS or direction not in DIRECTIONS:
        raise ValueError(f"expected one of {tuple(ACTIVATIONS)} and {DIRECTIONS}, got {activation!r} and {direction!r}")


def _check(x: Tensor, u: Tensor, sequence_lens: Tensor, initial_h: Tensor, activation: str, direction: str) -> None:
    """Raises ValueError unless the inputs fit each other: a kernel goes by x's shape alone, and would read past the end of the others."""
    _check_options(activation, direction)
    if x.dim() != 3:
        raise ValueError(f"x: expected [T, B, H], got {list(x.shape)}")
    _, B, H = x.shape
    for name, tensor, shape in (("u", u, (H,)), ("sequence_lens", sequence_lens, (B,)), ("initial_h", initial_h, (B, H))):
        if tensor.shape != shape:
            raise ValueError(f"{name}: expected {list(shape)}, got {list(tensor.shape)}")
    if sequence_lens.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"sequence_lens: expected int64, got {sequence_lens.dtype}")
    check_device(x, u, sequence_lens, initial_h)


def check_device(*tensors: Tensor) -> None:
    """Raises ValueError unless all tensors are on one device."""
    if len({tensor.device for tensor in tensors}) > 1:
        raise ValueError(f"expected tensors of one device, got them on {', '.join(str(tensor.device) for tensor in tensors)}")


def _check_slope(activation: str, alpha: float) -> None:
    """Raises ValueError where the gradient cannot be told from the output, which has one sign for both halves of such an activation."""
    if ACTIVATIONS[activation].takes_alpha and not alpha >= 0:
        raise ValueError(f"alpha: the gradient of {activation} expects 0 or more, got {alpha}")


def _valid(x: Tensor, lens: Tensor) -> tuple[Tensor, int]:
    """[T, B, 1], True where a step belongs to its row, and the number of first steps that belong to every row."""
    valid = belongs(x, lens)
    return valid, int(valid.all(1).sum())


def belongs(x: Tensor, lens: Tensor) -> Tensor:
    """[T, B, 1], True where a step belongs to its row."""
    return (torch.arange(x.shape[0], device=x.device)[:, None] < lens)[:, :, None]


def flip(x: Tensor, lens: Tensor) -> Tensor:
    """Reverses each row of x [T, B, H] within its length; steps past it keep their place."""
    t = torch.arange(x.shape[0], device=x.device)[:, None]
    index = torch.where(t < lens, lens - 1 - t, t)
    return torch.gather(x, 0, index[:, :, None].expand(-1, -1, x.shape[-1]))


@torch.library.custom_op("indrnn::recurrence", mutates_args=())
def recurrence_op(
    x: Tensor, u: Tensor, sequence_lens: Tensor, initial_h: Tensor, activation: str, alpha: float, direction: str
) -> tuple[Tensor, Tensor]:
    """Run `recurrence` as a bare operator, all four tensors given. x may be of a narrower type than the others; y is of x's."""
    _check(x, u, sequence_lens, initial_h, activation, direction)
    if gpu := _on_gpu(x, activation):
        y, y_h = gpu.forward(x, u, sequence_lens, initial_h, activation, alpha, direction)
        return y, y_h
    if native := fused.fitting(activation, x, u, initial_h):
        return fused.forward(native, fused.indrnn(activation, alpha, direction), x, u, sequence_lens, initial_h)
    y, y_h = _loop(x.to(u.dtype), u, sequence_lens.clamp(0, x.shape[0]), initial_h, activation, alpha, direction)
    return y.to(x.dtype), y_h


@recurrence_op.register_fake
def _(x, u, sequence_lens, initial_h, activation, alpha, direction):  # type: ignore[no-untyped-def]  # torch calls it
    check_device(x, u, sequence_lens, initial_h)  # with one on "meta" among them this function is the operator
    contiguous = torch.contiguous_format
    return torch.empty_like(x, memory_format=contiguous), torch.empty_like(initial_h, memory_format=contiguous)


def _loop(
    x: Tensor, u: Tensor, sequence_lens: Tensor, initial_h: Tensor, activation: str, alpha: float, direction: str
) -> tuple[Tensor, Tensor]:
    """Run the operator without the kernel."""
    if direction == "reverse":
        y, h = _loop(flip(x, sequence_lens), u, sequence_lens, initial_h, activation, alpha, "forward")
        return flip(y, sequence_lens), h
    valid, whole = _valid(x, sequence_lens)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    h = initial_h
    for t in range(x.shape[0]):
        torch.addcmul(x[t], u, h, out=y[t])
        new = ACTIVATIONS[activation].value(y[t], alpha)
        if t < whole:
            h = y[t] if new is y[t] else y[t].copy_(new)
        else:
            h = torch.where(valid[t], new, h)
            y[t] = torch.where(valid[t], new, 0)
    return y, h.clone(memory_format=torch.contiguous_format)


@torch.library.custom_op("indrnn::recurrence_backward", mutates_args=())
def recurrence_backward_op(
    dy: Tensor,
    dy_h: Tensor,
    y: Tensor,
    u: Tensor,
    sequence_lens: Tensor,
    initial_h: Tensor,
    activation: str,
    alpha: float,
    direction: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of the forward recurrence by x, u and initial_h: an exact linear scan from the last step to the first."""
    _check(y, u, sequence_lens, initial_h, activation, direction)
    _check_slope(activation, alpha)
    check_device(dy, dy_h, y)
    if dy.shape != y.shape or dy_h.shape != initial_h.shape:
        raise ValueError(f"expected dy {list(y.shape)} and dy_h {list(initial_h.shape)}, got {list(dy.shape)} and {list(dy_h.shape)}")
    if gpu := _on_gpu(y, activation):
        dx, du, dh0 = gpu.backward(dy, dy_h, y, u, sequence_lens, initial_h, activation, alpha, direction)
        return dx, du, dh0
    if native := fused.fitting(activation, y, dy, dy_h, u, initial_h):
        return fused.backward(native, fused.indrnn(activation, alpha, direction), dy, dy_h, y, u, sequence_lens, initial_h)
    wide = (dy.to(u.dtype), dy_h, y.to(u.dtype), u)
    dx, du, dh0 = _loop_backward(*wide, sequence_lens.clamp(0, y.shape[0]), initial_h, activation, alpha, direction)
    return dx.to(y.dtype), du, dh0


@recurrence_backward_op.register_fake
def _(dy, dy_h, y, u, sequence_lens, initial_h, activation, alpha, direction):  # type: ignore[no-untyped-def]  # torch calls it
    check_device(y, u, sequence_lens, initial_h, dy, dy_h)
    contiguous = torch.contiguous_format
    return tuple(torch.empty_like(t, memory_format=contiguous) for t in (y, u, initial_h))


def _loop_backward(
    dy: Tensor,
    dy_h: Tensor,
    y: Tensor,
    u: Tensor,
    sequence_lens: Tensor,
    initial_h: Tensor,
    activation: str,
    alpha: float,
    direction: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradient without the kernel."""
    lens = sequence_lens
    if direction == "reverse":
        dy, y = flip(dy, lens), flip(y, lens)
    valid, whole = _valid(y, lens)
    da = torch.empty_like(y)
    du = torch.zeros_like(dy_h)  # per row: no reduction inside the loop
    step, g = torch.empty_like(dy_h), dy_h
    for t in range(y.shape[0] - 1, -1, -1):
        torch.add(dy[t], g, out=step)
        _times_slope(step, y[t], activation, alpha, out=da[t])
        if t < whole:
            g = torch.mul(da[t], u, out=step)
        else:
            da[t].masked_fill_(~valid[t], 0)
            g = torch.where(valid[t], da[t] * u, g)
        du.addcmul_(da[t], initial_h if t == 0 else y[t - 1])
    return (da if direction == "forward" else flip(da, lens)), du.sum(0), g.clone(memory_format=torch.contiguous_format)


# --- what an opaque operator cannot do: transforms that look into it ----------------------------------------------------------------------

# `torch.func` (grad, jvp, vjp, jacfwd, jacrev, hessian, vmap), dual tensors of forward mode, batched gradients and gradients of gradients
# look into what they transform. An operator of our own hides its inside: forward mode would see a constant, without a word. So
# `recurrence` takes this way wherever such a transform is at work. A step is some small operations: slower than the operator, and exact.


def looked_into(*tensors: Tensor) -> bool:
    """Return whether a transform is at work that has to look into the recurrence of these tensors."""
    if torch._C._are_functorch_transforms_active():
        return True  # also while a graph is traced: its operator's inside would be a constant to forward mode
    if torch.compiler.is_compiling():
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)  # type: ignore[no-untyped-call]


def _open_forward(
    x: Tensor, u: Tensor, lens: Tensor, initial_h: Tensor, activation: str, alpha: float, direction: str
) -> tuple[Tensor, Tensor]:
    """Run the recurrence. x [T, B, H], u [H], lens [B], initial_h [B, H] -> y [T, B, H], y_h [B, H], both of u's type."""
    valid = belongs(x, lens)
    if direction == "reverse":
        x = flip(x, lens)
    value = ACTIVATIONS[activation].value
    h, steps = initial_h + torch.zeros_like(u), []
    for t in range(x.shape[0]):
        new = value(x[t] + u * h, alpha)
        h = torch.where(valid[t], new, h)
        steps.append(torch.where(valid[t], new, 0))
    y = torch.stack(steps) if steps else x + torch.zeros_like(u)
    return (flip(y, lens) if direction == "reverse" else y), h


def _open_backward(
    dy: Tensor, dy_h: Tensor, y: Tensor, u: Tensor, initial_h: Tensor, lens: Tensor, activation: str, alpha: float, direction: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients by x, u and initial_h of a recurrence that gave y, whose own gradients are dy and dy_h."""
    valid = belongs(y, lens)
    if direction == "reverse":
        dy, y = flip(dy, lens), flip(y, lens)
    slope = ACTIVATIONS[activation].slope
    g, steps = dy_h, []
    du = torch.zeros_like(u)
    for t in range(y.shape[0] - 1, -1, -1):
        da = torch.where(valid[t], slope((dy[t] + g) * torch.ones_like(y[t]), y[t], alpha), 0)
        before = initial_h if t == 0 else y[t - 1]
        du = du + torch.where(valid[t], da * before, 0).sum(0)
        g = torch.where(valid[t], da * u, g)
        steps.append(da)
    dx = torch.stack(steps[::-1]) if steps else dy + torch.zeros_like(u)
    return (flip(dx, lens) if direction == "reverse" else dx), du, g + torch.zeros_like(u)


def _open_backward_of_backward(
    gradients: Sequence[Tensor | None], inputs: Sequence[Tensor], lens: Tensor, activation: str, alpha: float, direction: str
) -> tuple[Tensor, ...]:
    """Return the gradients of `_open_backward` by dy, dy_h, y, u and initial_h, differentiable in their turn."""

    def run(dy: Tensor, dy_h: Tensor, y: Tensor, u: Tensor, initial_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _open_backward(dy, dy_h, y, u, initial_h, lens, activation, alpha, direction)

    outputs, pull, *_ = torch.func.vjp(run, *inputs)
    given = tuple(torch.zeros_like(out) if g is None else g for g, out in zip(gradients, outputs, strict=True))
    pulled: tuple[Tensor, ...] = pull(given)
    return pulled


def _setup(ctx, inputs, output):  # type: ignore[no-untyped-def]  # torch calls it
    _, u, lens, h0, *ctx.options = inputs
    activation, alpha, _ = ctx.options
    _check_slope(activation, alpha)  # here too, so that it is said before the forward pass and not after it
    ctx.save_for_backward(output[0], u, lens, h0)


def _backward(ctx, dy, dy_h):  # type: ignore[no-untyped-def]  # torch calls it
    y, u, lens, h0 = ctx.saved_tensors
    if looked_into(dy, dy_h, y, u, h0):
        wide = (dy.to(u.dtype), dy_h, y.to(u.dtype), u, h0)
        dx, du, dh0 = _open_backward(*wide, lens.clamp(0, y.shape[0]), *ctx.options)
        return dx.to(y.dtype), du, None, dh0, None, None, None
    dx, du, dh0 = recurrence_backward_op(dy.contiguous(), dy_h.contiguous(), y, u, lens, h0, *ctx.options)
    return dx, du, None, dh0, None, None, None


recurrence_op.register_autograd(_backward, setup_context=_setup)


def _setup_backward(ctx, inputs, output):  # type: ignore[no-untyped-def]  # torch calls it
    dy, dy_h, y, u, lens, h0, *ctx.options = inputs
    ctx.save_for_backward(dy, dy_h, y, u, h0, lens)


def _backward_of_backward(ctx, *gradients):  # type: ignore[no-untyped-def]  # torch calls it
    dy, dy_h, y, u, h0, lens = ctx.saved_tensors
    wide = (dy.to(u.dtype), dy_h, y.to(u.dtype), u, h0)
    given = [None if g is None else g.to(u.dtype) for g in gradients]
    by_dy, by_dy_h, by_y, by_u, by_h0 = _open_backward_of_backward(given, wide, lens.clamp(0, y.shape[0]), *ctx.options)
    return by_dy.to(dy.dtype), by_dy_h, by_y.to(y.dtype), by_u, None, by_h0, None, None, None


recurrence_backward_op.register_autograd(_backward_of_backward, setup_context=_setup_backward)


def recurrence(
    x: Tensor,
    u: Tensor,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    activation: str = "relu",
    alpha: float = 0.01,
    direction: str = "forward",
) -> tuple[Tensor, Tensor]:
    """h_t = activation(x_t + u * h_{t-1}) over time, differentiable in x, u and initial_h.

    x [T, B, H] already projected (W x + b), u [H], sequence_lens [B] int64 (default T; below 0 counts as 0, above T as T), initial_h [B, H]
    (default 0)
    -> y [T, B, H], 0 past a row's length, and y_h [B, H], the state after it. The state is float32 or float64 whatever autocast says, and
    so is y, but on a GPU, where bfloat16 and float16 are half of the bytes to move: there y is of x's type.
    Gradients of gradients, forward mode and every transform of torch.func work, step by step in PyTorch's own operations.
    Raises ValueError on an unknown activation or direction, on tensors that do not fit each other, and on a gradient of leaky_relu with
    alpha < 0. Li et al., CVPR 2018, equation 4.
    """
    _check_options(activation, direction)  # while a graph is traced, too, where the operator itself is not run
    T, B, H = x.shape
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    if sequence_lens is None:
        sequence_lens = torch.full((B,), T, dtype=torch.int64, device=x.device)
    if initial_h is None:
        initial_h = torch.zeros(B, H, dtype=dtype, device=x.device)
    if looked_into(x, u, initial_h):
        _check(x, u, sequence_lens, initial_h, activation, direction)
        _check_slope(activation, alpha)
        lens = sequence_lens.clamp(0, T)
        return _open_forward(x.to(dtype), u.to(dtype), lens, initial_h.to(dtype), activation, alpha, direction)
    x = x if x.is_cuda and x.dtype in NARROW else x.to(dtype)
    y, y_h = torch.ops.indrnn.recurrence(x, u.to(dtype), sequence_lens, initial_h.to(dtype), activation, alpha, direction)
    return y, y_h
