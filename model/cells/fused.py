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


Options = dict[str, float]
"""fields of a Call that say which recurrence is run"""


def indrnn(activation: str, alpha: float, direction: str) -> Options:
    """Return the options of the operator of model/cells/recurrence.py: u [H]."""
    return {"activation": ACTIVATIONS.index(activation), "alpha": alpha, "reverse": DIRECTIONS.index(direction)}


def diagonal(lo: float | None, hi: float | None, direction: str) -> Options:
    """Return the options of the operator of model/cells/diagonal/recurrence.py: u [T, B, H], which is its a."""
    bounds = {"lo": math.nan if lo is None else lo, "hi": math.nan if hi is None else hi}
    return {"activation": CLIP, "varying": 1, "reverse": DIRECTIONS.index(direction), **bounds}


def _run(native: Library, like: Tensor, options: Options, **arrays: Tensor) -> None:
    T, B, H = like.shape
    pointers = {name: tensor.data_ptr() for name, tensor in arrays.items()}
    call = Call(T=T, B=B, H=H, dtype=DTYPES.index(like.dtype), gradient=int("dx" in arrays), **options, **pointers)
    native.run(call, torch.get_num_threads())


def forward(native: Library, options: Options, x: Tensor, u: Tensor, lens: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
    """Run an operator: x [T, B, H], u as the options want it, lens [B], h0 [B, H] -> y [T, B, H], y_h [B, H]."""
    x, u, lens, h0 = x.contiguous(), u.contiguous(), lens.to(torch.int64).contiguous(), h0.contiguous()
    y, y_h = torch.empty_like(x), torch.empty_like(h0)
    _run(native, x, options, x=x, u=u, lens=lens, h0=h0, y=y, y_h=y_h)
    return y, y_h


def backward(
    native: Library, options: Options, dy: Tensor, dy_h: Tensor, y: Tensor, u: Tensor, lens: Tensor, h0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients by x [T, B, H], u (its shape) and h0 [B, H]; y is what `forward` returned."""
    dy, dy_h, y, u, h0 = (t.contiguous() for t in (dy, dy_h, y, u, h0))
    lens = lens.to(torch.int64).contiguous()
    dx, du, dh0, rows = torch.empty_like(y), torch.empty_like(u), torch.empty_like(h0), torch.empty_like(h0)
    _run(native, y, options, dy=dy, dy_h=dy_h, y=y, u=u, lens=lens, h0=h0, dx=dx, du=du, dh0=dh0, du_rows=rows)
    return dx, du, dh0
