"""What cells have in common whose step is no operator of ONNX's and no diagonal recurrence: one product of x for all steps, then a loop.

P = W x + c runs over all steps at once; each step then reads its own row of P and the state. PyTorch goes through the steps in Python, so
that training takes T calls of each operation; a file has a `Loop` round the step, unless a cell knows an operator that does it.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

from indrnn.model.cells.cell import Lowering, Product, loop
from indrnn.model.cells.recurrence import belongs


class Looped(Product):
    """A layer that loops over the rows of P.

    step_onnx: nodes of one step; they read x [B, width], a row of P, s [B, S] and `constants`, and give y [B, H] and s_next [B, S].
    """

    carried = "Its layers are a `Loop` of standard operators round one step."
    step_onnx: str

    def matrices(self) -> tuple[Tensor, ...]:
        """Return what all steps read and is made of weights once for each call; nothing, unless a cell says otherwise."""
        return ()

    @abstractmethod
    def go(self, p: Tensor, state: Tensor, *matrices: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step: p [B, width] of P, state [B, S] -> y [B, H], state [B, S]."""

    def run(self, x: Tensor, lengths: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the product over all steps, then step by step; float32 under autocast, as every recurrence here."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(state.dtype)
            live = None if lengths is None or bool((lengths >= len(x)).all()) else belongs(x, lengths)
            # What lies past a length may be NaN, and a gradient of 0 times NaN is NaN.
            p = F.linear(x if live is None else torch.where(live, x, 0), self.project.weight, self.project.bias)
            matrices, outputs = self.matrices(), []
            for t in range(len(x)):
                y, after = self.go(p[t], state, *matrices)
                outputs.append(y if live is None else torch.where(live[t], y, 0))
                state = after if live is None else torch.where(live[t], after, state)
            return (torch.stack(outputs) if outputs else x.new_zeros(0, x.shape[1], self.size)), state

    def lowering(self) -> Lowering:
        """Return the product, and a `Loop` round the step."""
        nodes = "of_x = MatMul (X, W) every = Add (of_x, bias)" + loop(self.step_onnx.format(H=self.size), self.size, "every")
        return Lowering(self.weights(), nodes)


def recurrent(rows: int, size: int) -> nn.Parameter:
    """Return recurrent weights [rows, size], drawn as PyTorch draws its layers' own."""
    return nn.Parameter(torch.empty(rows, size).uniform_(-(size**-0.5), size**-0.5))
