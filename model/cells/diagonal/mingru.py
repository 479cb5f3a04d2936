"""The minimal GRU (Feng et al., 2024, "Were RNNs All We Needed?", arXiv 2410.01201, section 3.1): a GRU whose gates forget the state.

z = sigmoid(W_z x + c_z),  h~ = W_h x + c_h,  h' = (1 - z) * h + z * h~.

Blocks z, h~ [H]; state h [H]. As section 3.1 has it: without the function g that keeps h positive for the paper's scan in logarithms
(appendix B), which the operator does not need.
"""

from collections.abc import Mapping

from torch import Tensor, sigmoid

from indrnn.model.cells import rnn
from indrnn.model.cells.cell import Floats
from indrnn.model.cells.diagonal.gated import GatedCell, logit


class MinGRU(GatedCell):
    """The cell as the file says."""

    name = "mingru"
    about = "A network of minimal gated recurrent units (minGRU; Feng et al., 2024, arXiv 2410.01201)"
    endless = "h is a mean of what it was and of a linear map of x: a bounded input keeps the state bounded however long a stream goes on."
    blocks = ("z", "new")
    terms_onnx = """
        gate = Sigmoid (z)
        away = Neg (z)
        a = Sigmoid (away)
        b = Mul (gate, new)
    """

    def keep_(self, kept: Tensor) -> None:
        """a = 1 - sigmoid(c_z)."""
        self.bias_of("z").copy_(-logit(kept))

    def terms(self, *blocks: Tensor) -> tuple[Tensor, Tensor]:
        """a = 1 - z, b = z h~."""
        z, new = blocks
        return sigmoid(-z), sigmoid(z) * new

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        z, new = self.parted(weights, x)
        z = rnn.sigmoid(z)
        h = (1 - z) * state + z * new
        return h, h
