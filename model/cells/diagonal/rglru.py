"""The real-gated linear recurrent unit (RG-LRU; De et al., 2024, "Griffin", arXiv 2402.19427, equations 1 to 4).

r = sigmoid(W_r x + c_r),  i = sigmoid(W_i x + c_i),  a = exp(-8 softplus(L) * r),  h' = a * h + sqrt(1 - a^2) * (i * v),  v = W_v x + c_v.

Blocks r, i, v [H]; L [H], one number per neuron; state h [H]. In the paper v is what the gates look at too: a linear map and a convolution
over four steps of the block's input stand before all of it. Here the gates look at x itself, and there is no convolution: a stack of kind
`conv` has one.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn, sigmoid

from indrnn.model.cells import rnn
from indrnn.model.cells.cell import Floats
from indrnn.model.cells.diagonal.gated import GatedCell

SHARPNESS = 8.0  # the paper's c: how far r moves a


class RGLRU(GatedCell):
    """The cell as the file says."""

    name = "rglru"
    about = "A network of real-gated linear recurrent units (RG-LRU; De et al., 2024, arXiv 2402.19427)"
    endless = "a is below 1, and what comes in is scaled by sqrt(1 - a^2): the state stays bounded however long a stream goes on."
    blocks = ("r", "i", "v")
    # sqrt(1 - a^2) without the cancellation near a = 1: 1 - exp(2 l) = -tanh(l) (1 + exp(2 l)).
    terms_onnx = """
        gate = Sigmoid (r)
        log_a = Mul (gate, rate)
        a = Exp (log_a)
        square = Mul (a, a)
        one = Constant <value_float = 1.0> ()
        more = Add (square, one)
        slope = Tanh (log_a)
        rest = Mul (slope, more)
        left = Neg (rest)
        scale = Sqrt (left)
        take = Sigmoid (i)
        taken = Mul (take, v)
        b = Mul (scale, taken)
    """

    def _prepare(self) -> None:
        self.decay = nn.Parameter(torch.empty(self.size))

    def keep_(self, kept: Tensor) -> None:
        """Of x = 0, where r is a half: kept = exp(-4 softplus(L))."""
        self.decay.copy_((-2 / SHARPNESS * kept.log()).expm1().log())

    def terms(self, *blocks: Tensor) -> tuple[Tensor, Tensor]:
        """a, and b = sqrt(1 - a^2) i v."""
        r, i, v = blocks
        log_a = sigmoid(r) * (-SHARPNESS * F.softplus(self.decay))
        a = log_a.exp()
        # The least of a square root whose slope float32 can hold, where a is 1 to its last digit.
        left = (-torch.tanh(log_a) * (1 + a * a)).clamp_min(1e-12)
        return a, left.sqrt() * (sigmoid(i) * v)

    def constants(self) -> Mapping[str, Tensor]:
        """Return -8 softplus(L)."""
        return {"rate": -SHARPNESS * F.softplus(self.decay)}

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        r, i, v = self.parted(weights, x)
        a = np.exp(-SHARPNESS * np.log1p(np.exp(weights["decay"])) * rnn.sigmoid(r))
        h = a * state + np.sqrt(1 - a * a) * (rnn.sigmoid(i) * v)
        return h, h
