"""The multi-dimensional recurrent layer: each place of a picture remembers its neighbours above and to the left, and so all before it.

Graves, Fernandez and Schmidhuber, 2007 (arXiv 0705.2011), "Multi-dimensional recurrent neural networks", section 2: the hidden layer at a
point reads the input there and its own activations one step back along every dimension. In two dimensions, at row i and column j:

    h_ij = f(W x_ij + b + U^1 h_{i-1,j} + U^2 h_{i,j-1})          h = 0 outside the picture

Four layers of their own weights go through it from its four corners (section 2.2: 2^n of them, so that each place has context from
everywhere), and what they say of a place stands side by side. `relu` and `tanh` have matrices U [H, H]; `indrnn` has vectors, as IndRNN has
(Li et al., 2018, equation 4):

    h_ij = relu(W x_ij + b + u^1 * h_{i-1,j} + u^2 * h_{i,j-1})   |u^1| + |u^2| <= gamma^(1/(R + C - 2)) of each neuron

From (i, j) to a place m rows down and n columns on lead (m + n)! / (m! n!) paths. The gradient is the sum over them of their products of u,
and that is at most (|u^1| + |u^2|)^(m + n), by the binomial theorem: with the bound it grows at most gamma-fold. Pairs beyond it are
scaled back to it where they are used.

All places of a diagonal i + j = d depend on the one before it alone, and are computed together: R + C - 1 steps in place of R C.
"""

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

from indrnn.model.cells.norm import BatchNorm
from indrnn.model.cells.recurrent_weight import Recurrent, bound

CORNERS = 4  # (rows, columns): from the top left, with columns reversed, with rows, with both
KINDS = ("indrnn", "relu", "tanh")


class MultiDimensional(Recurrent):
    """x [B, R, C, in] -> h [B, R, C, 4 H]. size: H, of each direction; rows, columns: R, C; kind: one of KINDS.

    norm: batch norm of W x over all places before the recurrence. gamma: of the bound on u.
    """

    def __init__(
        self, inputs: int, size: int, rows: int, columns: int, kind: str = "indrnn", norm: bool = True, gamma: float = 2.0
    ) -> None:
        super().__init__()
        self.size, self.kind, self.bound = size, kind, None
        self.most = bound(gamma, max(1, rows + columns - 2))
        self.project = nn.Linear(inputs, CORNERS * size)
        self.norm = BatchNorm(CORNERS * size) if norm else None
        shape = (2, CORNERS, size) if kind == "indrnn" else (2, CORNERS, size, size)
        self.u = nn.Parameter(torch.empty(shape))
        with torch.no_grad():
            if kind == "indrnn":
                self.u.uniform_(0, 0.5)
            else:  # half of an orthogonal matrix each, so that what comes of both is no larger than what went in
                for matrix in self.u.flatten(0, 1):
                    nn.init.orthogonal_(matrix, 0.5)

    def recurrent_weights(self) -> list[nn.Parameter]:  # type: ignore[override]  # an iterable all the same
        """Return u [2, 4, H], or U [2, 4, H, H]: of the row above, of the column before."""
        return [self.u]

    def recurrent(self) -> Tensor:
        """Return what is used of `u`: of `indrnn` within its bound."""
        if self.kind != "indrnn":
            return self.u
        return self.u * (self.most / self.u.abs().sum(0).clamp_min(self.most))

    def forward(self, x: Tensor) -> Tensor:
        """Go through the picture from four corners."""
        B, R, C, _ = x.shape
        a = self.project(x)  # [B, R, C, 4 H]
        if self.norm is not None:
            a = self.norm(a.flatten(1, 2)).view_as(a)
        a = a.view(B, R, C, CORNERS, self.size).permute(3, 0, 1, 2, 4)  # [4, B, R, C, H]
        h = turned(self._diagonals(turned(a.to(torch.promote_types(a.dtype, torch.float32)))))
        return h.permute(1, 2, 3, 0, 4).flatten(3)

    def _diagonals(self, a: Tensor) -> Tensor:
        """a [4, B, R, C, H] -> h of the same shape, each from its top left corner."""
        C = a.shape[3]
        # 0 outside the picture. h is 0 to the left of it and above, as the equation has it; to the right it is not, but from there nothing
        # comes back into the picture, and `unskew` cuts it off.
        skewed = skew(a)  # [4, B, R, R + C - 1, H]
        above, before = self.recurrent()
        if self.kind == "indrnn":
            above, before = above[:, None, None], before[:, None, None]
        h = torch.zeros_like(skewed[:, :, :, 0])  # [4, B, R, H]
        found = []
        for diagonal in skewed.unbind(3):  # a slice by its number would have a gradient of the size of all, each
            up = F.pad(h[:, :, :-1], (0, 0, 1, 0))  # the row above, on the diagonal before
            z = diagonal + (up * above + h * before if self.kind == "indrnn" else times(up, above) + times(h, before))
            h = torch.tanh(z) if self.kind == "tanh" else torch.relu(z)
            found.append(h)
        return unskew(torch.stack(found, 3), C)

    @torch.no_grad()
    def fold_(self) -> None:
        """Moves batch norm into W and b."""
        if self.norm is not None:
            scale, shift = self.norm.affine()
            self.project.weight.mul_(scale[:, None])
            self.project.bias.mul_(scale).add_(shift)
            self.norm = None


def turned(a: Tensor) -> Tensor:
    """a [4, B, R, C, H], each seen from its own corner; a second time as it was."""
    return torch.stack([a[0], a[1].flip(2), a[2].flip(1), a[3].flip((1, 2))])


def skew(a: Tensor) -> Tensor:
    """a [..., R, C, H] -> [..., R, R + C - 1, H], row i moved i to the right, so that column d holds the places with i + j = d; else 0."""
    R, C, H = a.shape[-3:]
    flat = F.pad(a, (0, 0, 0, R)).flatten(-3, -2)[..., : R * (R + C - 1), :]
    return flat.reshape(*a.shape[:-3], R, R + C - 1, H)


def unskew(a: Tensor, columns: int) -> Tensor:
    """a [..., R, R + C - 1, H] -> [..., R, C, H], the reverse of `skew`."""
    R, D, H = a.shape[-3:]
    flat = F.pad(a.flatten(-3, -2), (0, 0, 0, R))
    return flat.reshape(*a.shape[:-3], R, D + 1, H)[..., :columns, :]


def times(h: Tensor, matrices: Tensor) -> Tensor:
    """h [4, B, R, H] through a matrix [H, H] of each direction -> [4, B, R, H]."""
    return torch.bmm(h.flatten(1, 2), matrices).view_as(h)
