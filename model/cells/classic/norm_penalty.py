"""The norm stabiliser: a penalty on states whose length changes (Krueger and Memisevic, 2015, arXiv 1511.08400, equation 2).

beta / T sum_t (|h_t| - |h_{t-1}|)^2, over the steps of a call that have one before them in it, a mean over rows. It was made for relu
networks that start as the identity (IRNN), whose activations grow beyond the length that they were trained at.
"""

from typing import Any

import torch
from torch import Tensor


class _Beside(torch.autograd.Function):
    """Hand a tensor on as it is, and ask for the gradient of a term of the loss beside it."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, term: Tensor) -> Tensor:
        """Return y."""
        ctx.save_for_backward(term)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient by y, and 1 by the term."""
        (term,) = ctx.saved_tensors
        return grad, torch.ones_like(term)


def norm_change(h: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return the mean of (|h_t| - |h_{t-1}|)^2 over the pairs of steps within lengths [B] (None: all) of h [T, B, H]; 0 without a pair."""
    T = h.shape[0]
    length = (h.square().sum(2) + 1e-12).sqrt()  # the root has a slope at 0 then
    change = (length[1:] - length[:-1]).square()
    live = torch.ones_like(change, dtype=torch.bool)
    if lengths is not None:
        live = torch.arange(1, T, device=h.device)[:, None] < lengths
    pairs = torch.where(live, change, 0)
    return pairs.sum() / live.sum().clamp_min(1)


def penalised(h: Tensor, lengths: Tensor | None, beta: float) -> Tensor:
    """Return h [T, B, H]; whatever loss is made of it, its gradient is that of the loss plus beta times `norm_change`."""
    result: Tensor = _Beside.apply(h, beta * norm_change(h, lengths))  # type: ignore[no-untyped-call]  # torch's own
    return result
