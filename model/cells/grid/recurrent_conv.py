"""The recurrent convolutional layer: a picture is looked at again and again, each time beside what was seen before.

Liang and Hu, CVPR 2015, "Recurrent convolutional neural network for object recognition", section 3.1, equations 1 to 3. Of the feature map
k at place (i, j), after t of K looks:

    z_ijk(t) = (w_k^f)^T u^(i,j) + (w_k^r)^T x^(i,j)(t - 1) + b_k      u: the input, the same at each look; x(-1) = 0
    x_ijk(t) = g(f(z_ijk(t))),  f(z) = max(z, 0)                       t = 0 to K, so that the first look is feed-forward alone
    g(f_ijk) = f_ijk / (1 + alpha / N sum_l f_ijl^2)^beta              over the N maps about k; alpha = 0.001, beta = 0.75, N = maps / 8 + 1

w^f and w^r are convolutions with 0 around the picture, shared by all looks: K looks see as far as K + 1 layers, with the weights of two.
`response` is that norm. `batch` is x(t) = f(BN_t(z(t))) in its place, with statistics, a scale and a shift for each look, which
implementations use; where the network is folded each is a number to multiply by and one to add.
"""

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

from indrnn.model.cells.norm import BatchNorm

ALPHA, BETA = 0.001, 0.75  # of the response norm, as in section 4.1
NORMS = ("batch", "response", "none")


class PlaneNorm(BatchNorm):
    """Batch norm of planes x [B, C, R, W], over rows of the batch and places."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x [B, C, R, W] -> [B, C, R, W]; every place counts."""
        return self._norm(x)


class PlaneScale(nn.Module):
    """A norm that has been folded: x [B, C, R, W] times a number of each plane, and one added."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(scale[:, None, None]), nn.Parameter(shift[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, R, W] -> [B, C, R, W]."""
        return x * self.scale + self.shift


class RecurrentConv(nn.Module):
    """u [B, in, R, W] -> x(K) [B, C, R, W]. size: C; looks: K; reach: side of the convolutions, odd; norm: one of NORMS."""

    def __init__(self, inputs: int, size: int, looks: int = 3, reach: int = 3, norm: str = "batch") -> None:
        super().__init__()
        self.looks, self.around = looks, size // 8 + 1
        self.response = norm == "response"
        self.forth = nn.Conv2d(inputs, size, reach, padding=reach // 2)  # w^f and b
        self.back = nn.Conv2d(size, size, reach, padding=reach // 2, bias=False)  # w^r
        self.norms = nn.ModuleList(PlaneNorm(size) if norm == "batch" else nn.Identity() for _ in range(looks + 1))

    def forward(self, u: Tensor) -> Tensor:
        """Look K + 1 times."""
        fixed = self.forth(u)
        x = self._answer(fixed, 0)
        for t in range(1, self.looks + 1):
            x = self._answer(fixed + self.back(x), t)
        return x

    def _answer(self, z: Tensor, t: int) -> Tensor:
        """z(t) -> x(t)."""
        x = F.relu(self.norms[t](z))
        return response_norm(x, self.around) if self.response else x

    @torch.no_grad()
    def fold_(self) -> None:
        """Replaces batch norm by what it multiplies by and adds, which differs from look to look."""
        self.norms = nn.ModuleList(PlaneScale(*norm.affine()) if isinstance(norm, PlaneNorm) else norm for norm in self.norms)


def response_norm(x: Tensor, around: int) -> Tensor:
    """x [B, C, R, W] over (1 + ALPHA / N sum of squares of the N maps about each)^BETA; N: around, half of it, rounded down, before."""
    before = around // 2
    padded = F.pad(x.square(), (0, 0, 0, 0, before, around - 1 - before))
    squares = padded[:, : x.shape[1]]
    for k in range(1, around):
        squares = squares + padded[:, k : k + x.shape[1]]
    return x / (1 + ALPHA / around * squares) ** BETA
