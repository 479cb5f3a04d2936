"""One layer of a stack: input projection, a cell, batch norm before or after it, dropout with one mask over time.

Before the cell, the norm keeps a carried state independent of another batch's statistics; after it, classifiers learn faster (Li et al.,
2019, section 4). The matrix product may run in bfloat16 under autocast; the recurrence and the state are float32.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

from indrnn.model.cells.cell import Cell
from indrnn.model.cells.classic.norm_penalty import penalised
from indrnn.model.cells.classic.subsample import Subsample
from indrnn.model.cells.norm import BatchNorm, Gathered, StepBatchNorm


class CausalConv(nn.Module):
    """a_t = b + sum_j W_j x_{t-j}, j = 0 .. kernel - 1: a convolution over time that sees the past only. weight [kernel, H, in]."""

    def __init__(self, inputs: int, size: int, kernel: int) -> None:
        super().__init__()
        spread = (kernel * inputs) ** -0.5  # as nn.Linear of that many inputs
        self.weight = nn.Parameter(torch.empty(kernel, size, inputs).uniform_(-spread, spread))
        self.bias = nn.Parameter(torch.zeros(size))
        self.kernel, self.window = kernel, (kernel - 1) * inputs

    def forward(self, x: Tensor, lengths: Tensor | None, window: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, B, in], window [B, (kernel - 1) * in]: the inputs before x, the oldest first -> a [T, B, H], window after `lengths` [B]."""
        T, B, inputs = x.shape
        before = window.view(B, self.kernel - 1, inputs).transpose(0, 1)
        every = torch.cat([before.to(x.dtype), x])  # [kernel - 1 + T, B, in]
        # One matrix product a tap, on slices that lie contiguously: no transposes, and nothing special about T = 0.
        a = F.linear(every.narrow(0, self.kernel - 1, T), self.weight[0], self.bias)
        for j in range(1, self.kernel):
            a = a + F.linear(every.narrow(0, self.kernel - 1 - j, T), self.weight[j])
        after = every[T:] if lengths is None else self._last(every, lengths)
        return a, after.transpose(0, 1).reshape(B, self.window).to(window.dtype)

    def _last(self, every: Tensor, lengths: Tensor) -> Tensor:
        index = lengths + torch.arange(self.kernel - 1, device=lengths.device)[:, None]  # [kernel - 1, B]
        return every.gather(0, index[:, :, None].expand(-1, -1, every.shape[2]))


Projection = nn.Linear | nn.Embedding | CausalConv | Subsample
Norm = BatchNorm | StepBatchNorm


@dataclass(frozen=True)
class Steps:
    """The choice of the steps of a batch that count.

    lengths [B] (None: all T); valid, in training: the indices in [T * B] of the steps that count (None: all); position [B]: how many
    steps each row has seen before, where a norm asks for it. gathered: the steps are a piece of a longer sequence (model/cells/chunked.py).
    """

    lengths: Tensor | None = None
    valid: Tensor | None = None
    position: Tensor | None = None
    gathered: Gathered | None = None


class Layer(nn.Module):
    """One recurrent layer.

    project: nn.Linear(in, H), CausalConv, for symbols nn.Embedding(K, H), or None: the cell reads x as it is. Dropout uses one mask for all
    steps (Gal and Ghahramani, 2016). The norm stands before the cell, or after it (`after`). norm_penalty: beta of
    model/cells/classic/norm_penalty.py, on what the cell answers, in training.
    """

    def __init__(
        self,
        project: Projection | None,
        cell: Cell,
        dropout: float = 0.0,
        norm: Norm | None = None,
        after: bool = False,
    ) -> None:
        super().__init__()
        self.cell = cell  # first, as its u was when it was the layer's own: optimisers keep the order
        self.project = project
        self.norm = norm
        self.size, self.state_size, self.dropout, self.after = cell.size, cell.state_size, dropout, after
        self.norm_penalty = 0.0
        self.register_load_state_dict_pre_hook(_take_old_names)  # type: ignore[no-untyped-call]

    @property
    def window(self) -> int:
        """Return how many numbers of state the projection carries beside those of the cell."""
        return self.project.window if isinstance(self.project, CausalConv | Subsample) else 0

    def forward(self, x: Tensor, steps: Steps, h0: Tensor, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [T, B, in] (or [T, B] symbols), h0 [B, S], window [B, W] -> y [T, B, H] and h [B, S], window [B, W] after each row's steps.

        Past a row's length y is 0 or, with the norm after the recurrence, what the norm makes of 0.
        """
        if isinstance(self.project, Subsample):
            return self._subsampled(self.project, x, steps, h0, window)
        a = x
        if isinstance(self.project, CausalConv):
            a, window = self.project(x, steps.lengths, window)
        elif self.project is not None:
            a = self.project(x)
        y, h = self._recurrent(a, steps, h0, window)
        return y, h, window

    def _subsampled(self, windows: Subsample, x: Tensor, steps: Steps, h0: Tensor, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make a step where a window is full, and hold what it answers until the next is."""
        T, B, _ = x.shape
        lengths = torch.full((B,), T, device=x.device) if steps.lengths is None else steps.lengths
        before, held, waiting = windows.split(window)
        a, full, last = windows.windows(x, lengths, before, waiting)
        a = a if windows.linear is None else windows.linear(a)
        inner = Steps(full, valid_steps(a.shape[0], full) if self.training else None, None, steps.gathered)
        # Norms that gather look at this state: their pass ends here, with nothing held.
        y, h = self._recurrent(a, inner, h0, windows.joined(last, held, lengths, waiting, window))
        y, held = windows.hold(y, held, lengths, waiting, T)
        return y, h, windows.joined(last, held, lengths, waiting, window)

    def _recurrent(self, a: Tensor, steps: Steps, h0: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """Run the norm, the cell and the dropout on projected input a [T, B, in] -> y [T, B, H], h [B, S]."""
        if not self.after:
            a = self._normed(a, steps, (h0, window))
        y, h = self.cell(a, steps.lengths, h0)
        if self.training and self.norm_penalty:
            y = penalised(y, steps.lengths, self.norm_penalty)
        if self.after:
            y = self._normed(y, steps, (h, window))
        if self.training and self.dropout > 0:
            y = y * F.dropout(y.new_ones(1, *y.shape[1:]), self.dropout)
        return y, h

    def _normed(self, x: Tensor, steps: Steps, carried: tuple[Tensor, Tensor]) -> Tensor:
        """carried: what the next piece of the sequence would begin with, should the pass end here."""
        if self.norm is None:
            return x
        y: Tensor
        if isinstance(self.norm, StepBatchNorm):
            assert steps.position is not None  # a stack that holds such a layer carries it
            y = self.norm(x, steps.valid, steps.position, track=steps.gathered is None or not steps.gathered.again)
        elif steps.gathered is not None:
            y = steps.gathered.normed(self.norm, x, steps.valid, carried)
        else:
            y = self.norm(x, steps.valid)
        return y

    @torch.no_grad()
    def fold_(self, input_scale: Tensor | None = None) -> bool:
        """Moves a norm before the cell, and a scale [in] of the input, into the projection or the cell: the layer computes the same.

        A norm after the cell, one per step, and one before a cell that cannot take it stay. False where the scale could not be moved.
        """
        before = self.norm if isinstance(self.norm, BatchNorm) and not self.after else None
        project = self.project.linear if isinstance(self.project, Subsample) else self.project
        if isinstance(self.project, Subsample) and input_scale is not None:
            return False
        if project is None:
            if before is not None and self.cell.fold_(*before.affine()):
                self.norm = before = None
            between = before is not None or (self.norm is not None and not self.after)  # a norm between the input and the cell
            return input_scale is None or (not between and self.cell.fold_(input_scale, torch.zeros_like(input_scale)))
        if input_scale is not None:
            if not isinstance(project, nn.Linear):
                return False
            project.weight.mul_(input_scale)
        if before is not None:
            scale, shift = before.affine()
            weight = project.weight
            if isinstance(project, nn.Embedding):
                weight.mul_(scale).add_(shift)
            else:
                weight.mul_(scale[:, None])
                project.bias.copy_(project.bias * scale + shift)
            self.norm = None
        return True


def valid_steps(T: int, lengths: Tensor | None) -> Tensor | None:
    """Indices in [T * B] of the steps within their rows' lengths; None when all are."""
    if lengths is None:
        return None
    mask = torch.arange(T, device=lengths.device)[:, None] < lengths
    return None if bool(mask.all()) else mask.flatten().nonzero().squeeze(1)


def _take_old_names(layer: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Reads weights that were kept when every layer was an IndRNN and its u the layer's own."""
    if prefix + "u" in weights:
        weights[prefix + "cell.u"] = weights.pop(prefix + "u")
