"""The recurrence in PyTorch's own differentiable operations, for what an opaque operator cannot do.

`torch.func` (grad, jvp, vjp, jacfwd, jacrev, hessian, vmap), dual tensors of forward mode, batched gradients and gradients of gradients
look into what they transform. An operator of our own hides its inside: forward mode would see a constant, without a word. So
`recurrence` takes this way wherever such a transform is at work. A step is some small operations: slower than the operator, and exact.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from indrnn.kernels.activations import ACTIVATIONS


def at_work(*tensors: Tensor) -> bool:
    """Return whether a transform is at work that has to look into the recurrence of these tensors."""
    if torch.compiler.is_compiling():
        return False  # a graph is traced: the operator is a node of it, and transforms are applied to that
    if torch._C._are_functorch_transforms_active():
        return True
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)  # type: ignore[no-untyped-call]


def forward(x: Tensor, u: Tensor, lens: Tensor, initial_h: Tensor, activation: str, alpha: float, direction: str) -> tuple[Tensor, Tensor]:
    """Run the recurrence. x [T, B, H], u [H], lens [B], initial_h [B, H] -> y [T, B, H], y_h [B, H], both of u's type."""
    valid = _valid(x, lens)
    if direction == "reverse":
        x = _flip(x, lens, valid)
    value = ACTIVATIONS[activation].value
    h, steps = initial_h + torch.zeros_like(u), []
    for t in range(x.shape[0]):
        new = value(x[t] + u * h, alpha)
        h = torch.where(valid[t], new, h)
        steps.append(torch.where(valid[t], new, 0))
    y = torch.stack(steps) if steps else x + torch.zeros_like(u)
    return (_flip(y, lens, valid) if direction == "reverse" else y), h


def backward(
    dy: Tensor, dy_h: Tensor, y: Tensor, u: Tensor, initial_h: Tensor, lens: Tensor, activation: str, alpha: float, direction: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients by x, u and initial_h of a recurrence that gave y, whose own gradients are dy and dy_h."""
    valid = _valid(y, lens)
    if direction == "reverse":
        dy, y = _flip(dy, lens, valid), _flip(y, lens, valid)
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
    return (_flip(dx, lens, valid) if direction == "reverse" else dx), du, g + torch.zeros_like(u)


def backward_of_backward(
    gradients: Sequence[Tensor | None], inputs: Sequence[Tensor], lens: Tensor, activation: str, alpha: float, direction: str
) -> tuple[Tensor, ...]:
    """Return the gradients of `backward` by dy, dy_h, y, u and initial_h, differentiable in their turn."""

    def run(dy: Tensor, dy_h: Tensor, y: Tensor, u: Tensor, initial_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return backward(dy, dy_h, y, u, initial_h, lens, activation, alpha, direction)

    outputs, pull, *_ = torch.func.vjp(run, *inputs)
    given = tuple(torch.zeros_like(out) if g is None else g for g, out in zip(gradients, outputs, strict=True))
    pulled: tuple[Tensor, ...] = pull(given)
    return pulled


def _valid(x: Tensor, lens: Tensor) -> Tensor:
    """[T, B, 1], True where a step belongs to its row."""
    return (torch.arange(x.shape[0], device=x.device)[:, None] < lens)[:, :, None]


def _flip(x: Tensor, lens: Tensor, valid: Tensor) -> Tensor:
    """Reverse each row of x [T, B, H] within its length; steps past it keep their place."""
    t = torch.arange(x.shape[0], device=x.device)[:, None]
    index = torch.where(valid[:, :, 0], lens - 1 - t, t)[:, :, None]
    return torch.gather(x, 0, index.expand(-1, -1, x.shape[-1]))
