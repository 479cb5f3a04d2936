"""The hierarchically gated recurrent unit (HGRN; Qin, Yang and Zhong, 2023, arXiv 2311.04823, section 3.2), with a real state.

f = low + (1 - low) * sigmoid(W_f x + c_f),  v = silu(W_v x + c_v),  h' = f * h + (1 - f) * v,  y = sigmoid(W_g x + c_g) * h,
low = sigmoid(L).

Blocks f, v, g [H]; L [H]; state h [H]. What a neuron forgets in a step has a bound, `low`, learned for each neuron. Two departures: the
paper turns complex states by a fixed angle at each step, and makes the bounds of a layer from those of the layers below, which a cell
cannot know. Its norm and its last product are a stack's.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn, sigmoid

from indrnn.model.cells import rnn
from indrnn.model.cells.cell import Floats
from indrnn.model.cells.diagonal.gated import GatedCell, logit


class HGRN(GatedCell):
    """The cell as the file says; its bounds start at U[low, bound] of the seam, and f where x is 0 half way from there to 1."""

    name = "hgrn"
    about = "A network of hierarchically gated recurrent units (HGRN; Qin et al., 2023, arXiv 2311.04823)"
    endless = "h is a mean of what it was and of a map of x: a bounded input keeps the state bounded however long a stream goes on."
    blocks = ("f", "v", "g")
    terms_onnx = """
        open = Sigmoid (f)
        over = Mul (open, room)
        a = Add (over, least)
        one = Constant <value_float = 1.0> ()
        away = Sub (one, a)
        half = Sigmoid (v)
        new = Mul (v, half)
        b = Mul (away, new)
    """
    answer_onnx = "gate = Sigmoid (g) Y = Mul (gate, h)"

    def _prepare(self) -> None:
        self.least = nn.Parameter(torch.empty(self.size))

    def keep_(self, kept: Tensor) -> None:
        """low = sigmoid(L)."""
        self.least.copy_(logit(kept))

    def terms(self, *blocks: Tensor) -> tuple[Tensor, Tensor]:
        """a = f, b = (1 - f) v."""
        a = sigmoid(self.least) + sigmoid(-self.least) * sigmoid(blocks[0])
        return a, (1 - a) * F.silu(blocks[1])

    def answer(self, h: Tensor, *blocks: Tensor) -> Tensor:
        """Let a part of the state out."""
        return sigmoid(blocks[2]) * h

    def constants(self) -> Mapping[str, Tensor]:
        """Return low and 1 - low."""
        return {"least": sigmoid(self.least), "room": sigmoid(-self.least)}

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        f, v, g = self.parted(weights, x)
        low = rnn.sigmoid(weights["least"])
        f = low + (1 - low) * rnn.sigmoid(f)
        h = f * state + (1 - f) * (v * rnn.sigmoid(v))
        y: Floats = np.multiply(rnn.sigmoid(g), h)
        return y, h
