"""What cells have in common whose gates look at the input alone: h_t = a_t * h_{t-1} + b_t, with a and b from one product P = W x + c.

Such a cell has no loop of its own: the product runs over all steps at once, and what is left is the operator of
model/cells/diagonal/recurrence.py (in a file, the op `ai.indrnn::DiagonalRecurrence`). Each cell is a file of its own beside this one.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor

from indrnn.model.cells.cell import Floats, Lowering, Product, StatePart
from indrnn.model.cells.diagonal.recurrence import diagonal
from indrnn.model.cells.recurrence import belongs

_NODES = """
    of_x = MatMul (X, W)
    every = Add (of_x, bias)
    sizes = Constant <value_ints = [{sizes}]> ()
    {blocks} = Split <axis = 2> (every, sizes)
    {terms}
    h, state_out = ai.indrnn.DiagonalRecurrence <direction = "forward"> (a, b, lengths, state)
    {answer}
"""


class GatedCell(Product):
    """A layer of H neurons. project: weight [G H, in], bias [G H], the blocks of P in the order of `blocks`; state h [H].

    Weights start as PyTorch starts them, biases at 0, but what a neuron keeps of the past where x is 0, which is drawn from U[low, bound].
    """

    blocks: ClassVar[tuple[str, ...]]  # names of the G blocks of P, as the equations and the ONNX nodes call them
    terms_onnx: ClassVar[str]  # nodes that give a and b [T, B, H] from the blocks
    answer_onnx: ClassVar[str] = "Y = Identity (h)"  # nodes that give Y from h and the blocks
    state_name: ClassVar[str] = "h"
    carried = (
        "The file carries the op `ai.indrnn::DiagonalRecurrence` together with a body in standard operators, "
        "so that any ONNX runtime can run it."
    )

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(inputs, size, len(self.blocks) * size)
        self.most = bound
        self._prepare()
        self.remember_(low)

    def _prepare(self) -> None:
        """Make what a cell has beside P."""

    def parts(self) -> tuple[StatePart, ...]:
        """Return the state under the name that the equations give it."""
        return (StatePart("hidden", self.size, name=self.state_name),)

    def bias_of(self, block: str) -> Tensor:
        """Return the bias [H] of a block, to be written to."""
        return self.project.bias.detach()[self.size * self.blocks.index(block) :][: self.size]

    @torch.no_grad()
    def remember_(self, low: float) -> None:
        """Draw anew what each neuron keeps of the past where x is 0, from U[low, bound]."""
        kept = torch.empty(self.size, dtype=self.project.bias.dtype).uniform_(low, max(low, self.most))
        self.keep_(kept.clamp(1e-3, 1 - 1e-3))

    @abstractmethod
    def keep_(self, kept: Tensor) -> None:
        """Set what each neuron keeps of the past where x is 0: kept [H], above 0 and below 1."""

    @abstractmethod
    def terms(self, *blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b [T, B, H] of the blocks of P, [T, B, H] each."""

    def answer(self, h: Tensor, *blocks: Tensor) -> Tensor:
        """Return y [T, B, H] of h and the blocks of P; h, unless a cell says otherwise."""
        return h

    def run(self, x: Tensor, lengths: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the product over all steps, then the operator; float32 under autocast, as every recurrence here."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(state.dtype)
            live = None if lengths is None else belongs(x, lengths)
            # What lies past a length may be NaN, and a gradient of 0 times a slope of NaN is NaN.
            x = x if live is None else torch.where(live, x, 0)
            blocks = torch.split(F.linear(x, self.project.weight, self.project.bias), self.size, -1)
            h, after = diagonal(*self.terms(*blocks), lengths, state)
            y = self.answer(h, *blocks)
            return (y if live is None or y is h else torch.where(live, y, 0)), after

    def lowering(self) -> Lowering:
        """Return the product, the cell's own nodes round the op, and what they read."""
        sizes = ", ".join([str(self.size)] * len(self.blocks))
        nodes = _NODES.format(sizes=sizes, blocks=", ".join(self.blocks), terms=self.terms_onnx, answer=self.answer_onnx)
        return Lowering(self.weights(), nodes)

    def parted(self, weights: Mapping[str, Floats], x: Floats) -> list[Floats]:
        """Return the blocks of P, [H] each, for the specifications: x [in]."""
        return list(np.split(self.product(weights, x), len(self.blocks)))


def logit(p: Tensor) -> Tensor:
    """Return the v of which p is the sigmoid."""
    return p.log() - (-p).log1p()
