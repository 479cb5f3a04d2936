"""The gradient of an IndRNN written with the diagonal recurrence, so that an exported graph can hold it.

With s_t the slope of the activation at h_t and G_t the gradient by h_t itself,  dx_t = s_t (G_t + u dx_{t+1}):  the recurrence reversed in
time, with a_t = s_t u. (For relu s_t is 1 where the neuron is on.) The native kernels compute the same in one pass and without a.
"""

import torch
from torch import Tensor

from indrnn.model.cells.diagonal.recurrence import diagonal
from indrnn.model.cells.recurrence import ACTIVATIONS, belongs, flip


def indrnn_backward(
    dy: Tensor, dy_h: Tensor, y: Tensor, u: Tensor, sequence_lens: Tensor, initial_h: Tensor, activation: str, alpha: float, direction: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what torch.ops.indrnn.recurrence_backward returns: gradients by x [T, B, H], u [H] and initial_h [B, H]."""
    lens = sequence_lens
    if direction == "reverse":
        dy, y = flip(dy, lens), flip(y, lens)
    slope = ACTIVATIONS[activation].slope(torch.ones_like(y), y, alpha)
    # Into a row's last step the gradient comes from dy_h as it is; every other one has it by way of u.
    last = (torch.arange(y.shape[0], device=y.device)[:, None] == lens - 1)[:, :, None]
    dx, carried = diagonal(slope * torch.where(last, 1, u), slope * dy, lens, dy_h, direction="reverse")
    before = torch.cat([initial_h[None], y[:-1]])
    du = torch.where(belongs(y, lens), dx * before, 0).sum((0, 1))
    dh0 = torch.where((lens > 0)[:, None], u * carried, dy_h)
    return (flip(dx, lens) if direction == "reverse" else dx), du, dh0
