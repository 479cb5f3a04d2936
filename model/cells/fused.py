"""The recurrences and their gradients on the native kernel, over CPU tensors, on as many threads as PyTorch has."""

import math

import torch
from torch import Tensor

from indrnn.kernels.native import ACTIVATIONS, CLIP, DIRECTIONS, Call, Library, library

DTYPES = (torch.float32, torch.float64)


def fitting(activation: str, x: Tensor, *others: Tensor) -> Library | None:
    """The kernel's library, if it has been built, knows the activation, and fits these tensors' device and type."""
    return fitting_diagonal(x, *others) if activation in ACTIVATIONS else None


def fitting_diagonal(x: Tensor, *others: Tensor) -> Library | None:
    """The kernel's library, if it has been built and fits these tensors' device and type."""
    fits = x.device.type == "cpu" and x.dtype in DTYPES and all(o.dtype == x.dtype for o in others)
    return library() if fits else None


def _call(like: Tensor, activation: str, alpha: float, direction: str, **arrays: Tensor) -> Call:
    T, B, H = like.shape
    return Call(
        T=T,
        B=B,
        H=H,
        dtype=DTYPES.index(like.dtype),
        activation=ACTIVATIONS.index(activation),
        reverse=DIRECTIONS.index(direction),
        alpha=alpha,
        **{name: tensor.data_ptr() for name, tensor in arrays.items()},
    )


def forward(
    native: Library, x: Tensor, u: Tensor, lens: Tensor, h0: Tensor, activation: str, alpha: float, direction: str
) -> tuple[Tensor, Tensor]:
    """Run the operator of model/cells/recurrence.py: x [T, B, H], u [H], lens [B], h0 [B, H] -> y [T, B, H], y_h [B, H]."""
    x, u, lens, h0 = x.contiguous(), u.contiguous(), lens.to(torch.int64).contiguous(), h0.contiguous()
    y, y_h = torch.empty_like(x), torch.empty_like(h0)
    native.run(_call(x, activation, alpha, direction, x=x, u=u, lens=lens, h0=h0, y=y, y_h=y_h), torch.get_num_threads())
    return y, y_h


def backward(
    native: Library,
    dy: Tensor,
    dy_h: Tensor,
    y: Tensor,
    u: Tensor,
    lens: Tensor,
    h0: Tensor,
    activation: str,
    alpha: float,
    direction: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients by x [T, B, H], u [H] and h0 [B, H]."""
    dy, dy_h, y, h0 = (t.contiguous() for t in (dy, dy_h, y, h0))
    u, lens = u.contiguous(), lens.to(torch.int64).contiguous()
    dx, du, dh0, rows = torch.empty_like(y), torch.empty_like(u), torch.empty_like(h0), torch.empty_like(h0)
    given = {"dy": dy, "dy_h": dy_h, "y": y, "u": u, "lens": lens, "h0": h0}
    call = _call(y, activation, alpha, direction, **given, dx=dx, du=du, dh0=dh0, du_rows=rows)
    call.gradient = 1
    native.run(call, torch.get_num_threads())
    return dx, du, dh0


def _diagonal_call(like: Tensor, lo: float | None, hi: float | None, direction: str, **arrays: Tensor) -> Call:
    T, B, H = like.shape
    return Call(
        T=T,
        B=B,
        H=H,
        dtype=DTYPES.index(like.dtype),
        activation=CLIP,
        varying=1,
        reverse=DIRECTIONS.index(direction),
        lo=math.nan if lo is None else lo,
        hi=math.nan if hi is None else hi,
        **{name: tensor.data_ptr() for name, tensor in arrays.items()},
    )


def diagonal_forward(
    native: Library, a: Tensor, b: Tensor, lens: Tensor, h0: Tensor, lo: float | None, hi: float | None, direction: str
) -> tuple[Tensor, Tensor]:
    """Run the operator of model/cells/diagonal/recurrence.py: a, b [T, B, H], lens [B], h0 [B, H] -> y [T, B, H], y_h [B, H]."""
    a, b, lens, h0 = a.contiguous(), b.contiguous(), lens.to(torch.int64).contiguous(), h0.contiguous()
    y, y_h = torch.empty_like(b), torch.empty_like(h0)
    native.run(_diagonal_call(b, lo, hi, direction, x=b, u=a, lens=lens, h0=h0, y=y, y_h=y_h), torch.get_num_threads())
    return y, y_h


def diagonal_backward(
    native: Library,
    dy: Tensor,
    dy_h: Tensor,
    y: Tensor,
    a: Tensor,
    lens: Tensor,
    h0: Tensor,
    lo: float | None,
    hi: float | None,
    direction: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients by a [T, B, H], b [T, B, H] and h0 [B, H]."""
    dy, dy_h, y, a, h0 = (t.contiguous() for t in (dy, dy_h, y, a, h0))
    lens = lens.to(torch.int64).contiguous()
    da, db, dh0 = torch.empty_like(y), torch.empty_like(y), torch.empty_like(h0)
    given = {"dy": dy, "dy_h": dy_h, "y": y, "u": a, "lens": lens, "h0": h0}
    call = _diagonal_call(y, lo, hi, direction, **given, dx=db, du=da, dh0=dh0)
    call.gradient = 1
    native.run(call, torch.get_num_threads())
    return da, db, dh0
