"""Bidirectional layers, of any cell (Schuster and Paliwal, 1997, "Bidirectional Recurrent Neural Networks", section II.B).

Half of a layer's neurons go through a sequence from its first step to its last, the others from its last to its first, and no neuron of
either half reads one of the other: y_t = (f_t, b_t), f the cell on x, b another cell of its kind on the reversed row. A row of n steps is
reversed within them, and what pads it stays where it is.

What stands after the layer reads both halves. Where a sequence has one answer, given at its last step, b_t there has read no more than that
step; `ends` puts what has read all of it, b at the first step, in its place. Such a network looks ahead, so that it has no stream.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.cells.cell import Cell, Floats, StatePart
from indrnn.model.cells.independent import Independent
from indrnn.model.cells.recurrence import recurrence
from indrnn.model.cells.recurrent_weight import SizeError


class Bidirectional(Cell):
    """Two cells of one kind, H / 2 neurons each: `ahead` and `back`. State: that of `ahead`, then that of `back`.

    The state of `back` that comes out is that after a row's first step. A cell whose input comes multiplied takes half of it each, the
    others read all of it. Raises SizeError on an odd number of neurons.
    """

    name = "bidirectional"
    about = "A bidirectional recurrent network (Schuster and Paliwal, 1997)"
    carried = "The file runs each half of a layer in its own direction."
    endless = "It looks at whole sequences and has no stream."

    def __init__(self, kind: type[Cell], inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        if size % 2:
            raise SizeError(f"expected an even number of neurons for two directions, got {size}")
        super().__init__(inputs, size)
        reads = size // 2 if kind.projected else inputs
        self.projected_input = kind.projected
        self.ahead = kind(reads, size // 2, bound, low, activation)
        self.back = kind(reads, size // 2, bound, low, activation)

    def parts(self) -> tuple[StatePart, ...]:
        """Return the parts of both halves."""
        ways = ((self.ahead, ""), (self.back, "_back"))
        return tuple(replace(p, name=p.name and p.name + way) for cell, way in ways for p in cell.parts())

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the sizes of the parts of both halves; no u is read for it."""
        return *self.ahead.sizes, *self.back.sizes

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each half reads."""
        if not self.projected_input:
            return x, x
        one, other = torch.split(x, self.size // 2, -1)
        return one, other

    def run(self, x: Tensor, lengths: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run one half as it is, the other over reversed rows."""
        of_ahead, of_back = self._halves(x)
        start, end = torch.split(state, [self.ahead.state_size, self.back.state_size], 1)
        f, f_state = self.ahead(of_ahead, lengths, start)
        if isinstance(self.back, Independent):  # its op has a direction
            b, b_state = recurrence(of_back, self.back.u, lengths, end, self.back.activation, direction="reverse")
        else:
            b, b_state = self.back(reversed_rows(of_back, lengths), lengths, end)
            b = reversed_rows(b, lengths)
        return torch.cat([f, b], 2), torch.cat([f_state, b_state], 1)

    def fold_(self, scale: Tensor, shift: Tensor) -> bool:
        """Both halves take the scale and the shift, where such cells can."""
        if self.projected_input:
            return False
        return all([self.ahead.fold_(scale, shift), self.back.fold_(scale, shift)])

    def loudness(self) -> Tensor | None:
        """Return the scales of both halves, where each has its own input."""
        one, other = self.ahead.loudness(), self.back.loudness()
        return None if one is None or other is None else torch.cat([one, other])

    def remember_(self, low: float) -> None:
        """Draw recurrent weights anew, of both halves."""
        self.ahead.remember_(low)
        self.back.remember_(low)

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, which is a whole sequence here."""
        halves = np.split(x, 2) if self.projected_input else (x, x)
        states = np.split(state, [self.ahead.state_size])
        done = [self._one(weights, way, *given) for way, given in enumerate(zip(halves, states, strict=True))]
        return np.concatenate([y for y, _ in done]), np.concatenate([s for _, s in done])

    def _one(self, weights: Mapping[str, Floats], way: int, x: Floats, state: Floats) -> tuple[Floats, Floats]:
        cell, prefix = (self.ahead, "ahead.") if way == 0 else (self.back, "back.")
        return cell.reference({k.removeprefix(prefix): w for k, w in weights.items() if k.startswith(prefix)}, x, state)

    def specified(self, x: Floats, lengths: NDArray[np.int64] | None, state: Floats) -> tuple[Floats, Floats]:
        """Return what `forward` must return: row by row, the second half on the row's own steps from the last to the first."""
        weights = {name: w.detach().double().cpu().numpy() for name, w in self.state_dict().items()}
        halves = np.split(x, 2, -1) if self.projected_input else (x, x)
        states = np.split(state, [self.ahead.state_size], 1)
        found = []
        for way, (read, carried) in enumerate(zip(halves, states, strict=True)):
            turn = -1 if way else 1  # the order of a row's steps
            y, after = np.zeros((*x.shape[:2], self.size // 2)), np.array(carried, np.float64)
            for row in range(x.shape[1]):
                steps = range(len(x) if lengths is None else int(lengths[row]))[::turn]
                for t in steps:
                    y[t, row], after[row] = self._one(weights, way, read[t, row], after[row])
            found.append((y, after))
        return np.concatenate([y for y, _ in found], 2), np.concatenate([s for _, s in found], 1)


def reversed_rows(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x [T, B, F], lengths [B] (None: all T) -> each row's own steps from the last to the first; what stands behind them stays there."""
    if lengths is None:
        return x.flip(0)
    t = torch.arange(x.shape[0], device=x.device)[:, None]  # [T, 1]
    index = torch.where(t < lengths, lengths - 1 - t, t)  # [T, B]
    return x.gather(0, index[:, :, None].expand(-1, -1, x.shape[2]))


def ends(y: Tensor) -> Tensor:
    """y [T, B, H] of a bidirectional layer -> the same, its second half at every step as at the first, having read all."""
    half = y.shape[2] // 2
    f, b = torch.split(y, half, 2)
    return torch.cat([f, b.gather(0, torch.zeros_like(b, dtype=torch.int64))], 2)
