"""The simple recurrent unit (SRU; Lei, Zhang and Artzi, 2017, arXiv 1709.02755, first version, equations 3 to 7).

f = sigmoid(W_f x + c_f),  r = sigmoid(W_r x + c_r),  c' = f * c + (1 - f) * (W x),  y = r * tanh(c') + (1 - r) * (W_s x).

Blocks new, f, r, skip [H]; state c [H]. The first version's gates look at x alone; later ones add v * c, which is no diagonal recurrence.
The highway of the paper is x itself; here it goes through a matrix of its own, as its code has it where x and c differ in size.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor, sigmoid, tanh

from indrnn.model.cells import rnn
from indrnn.model.cells.cell import Floats
from indrnn.model.cells.diagonal.gated import GatedCell, logit


class SRU(GatedCell):
    """The cell as the file says."""

    name = "sru"
    about = "A network of simple recurrent units (SRU; Lei et al., 2017, arXiv 1709.02755)"
    endless = "c is a mean of what it was and of a linear map of x: a bounded input keeps the state bounded however long a stream goes on."
    blocks = ("new", "f", "r", "skip")
    state_name = "c"
    terms_onnx = """
        a = Sigmoid (f)
        away = Neg (f)
        rest = Sigmoid (away)
        b = Mul (rest, new)
    """
    answer_onnx = """
        squashed = Tanh (h)
        gate = Sigmoid (r)
        over = Sub (squashed, skip)
        moved = Mul (gate, over)
        Y = Add (skip, moved)
    """

    def keep_(self, kept: Tensor) -> None:
        """a = sigmoid(c_f)."""
        self.bias_of("f").copy_(logit(kept))

    def terms(self, *blocks: Tensor) -> tuple[Tensor, Tensor]:
        """a = f, b = (1 - f) W x."""
        new, f, _, _ = blocks
        return sigmoid(f), sigmoid(-f) * new

    def answer(self, h: Tensor, *blocks: Tensor) -> Tensor:
        """Mix the state with the highway."""
        _, _, r, skip = blocks
        return skip + sigmoid(r) * (tanh(h) - skip)

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        new, f, r, skip = self.parted(weights, x)
        f, r = rnn.sigmoid(f), rnn.sigmoid(r)
        c = f * state + (1 - f) * new
        y: Floats = r * np.tanh(c) + (1 - r) * skip
        return y, c
