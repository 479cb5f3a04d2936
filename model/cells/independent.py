"""The IndRNN cell: one recurrent weight per neuron, h_t = f(x_t + u * h_{t-1})  (Li et al., CVPR 2018, arXiv 1803.04831, equation 4).

x comes multiplied by its input weights. weight u [H]; state h [H]. U starts in U[low, bound] and is clamped to ±bound after each
optimiser step (`clamp_recurrent_`).
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from indrnn.model.cells import reference
from indrnn.model.cells.cell import Cell, Floats, StatePart
from indrnn.model.cells.recurrence import recurrence
from indrnn.model.cells.recurrent_weight import Recurrent


class Independent(Cell, Recurrent):
    """The cell as the file says; activation: of model/cells/recurrence.py. The recurrence and the state are float32 under autocast."""

    name = "indrnn"
    about = "An independently recurrent network (IndRNN; Li et al., CVPR 2018, arXiv 1803.04831)"
    carried = "The file carries the op `ai.indrnn::IndRNN` together with a body in standard operators, so that any ONNX runtime can run it."
    endless = "below 1: the state stays bounded however long a stream goes on."  # after the largest |u|, which decides it
    projected = True

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(inputs, size)
        self.u = nn.Parameter(torch.empty(size).uniform_(low, bound))
        self.bound, self.activation = bound, activation

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the size of h; u is not read for it."""
        return (self.size,)

    def parts(self) -> tuple[StatePart, ...]:
        """Return h, with its u."""
        return (StatePart("hidden", self.size, activation=self.activation, u=tuple(self.u.tolist())),)

    def recurrent_weights(self) -> Iterator[nn.Parameter]:
        """Return U [H]."""
        yield self.u

    def run(self, x: Tensor, lengths: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the op."""
        return recurrence(x, self.u, lengths, state, self.activation)

    @torch.no_grad()
    def loudness(self) -> Tensor:
        """White noise of unit variance becomes a state of variance 1 / (1 - u^2).

        So all neurons start at one loudness, whatever their memory. Measured on chars, some 200 steps of 4096 symbols, with a readout that
        starts at 0: 2.38 bits a character, not 2.56.
        """
        return (1 - self.u**2).clamp_min(0).sqrt()

    @torch.no_grad()
    def remember_(self, low: float) -> None:
        """Draw U anew from U[low, bound]."""
        self.u.uniform_(low, 1.0 if self.bound is None else self.bound)

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """h = f(x + u h)."""
        h = reference.ACTIVATIONS[self.activation](x + weights["u"] * state, 0.01)
        return h, h
