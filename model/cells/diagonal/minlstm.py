"""The minimal LSTM (Feng et al., 2024, "Were RNNs All We Needed?", arXiv 2410.01201, section 3.2): an LSTM whose gates forget the state.

f, i = sigmoid(W x + c),  f' = f / (f + i),  i' = i / (f + i),  h~ = W_h x + c_h,  h' = f' * h + i' * h~.

Blocks h~, f, i [H]; state h [H], a weighted mean whatever the gates (the paper's length-independent scaling).
"""

from collections.abc import Mapping

from torch import Tensor, sigmoid
from torch.nn.functional import softplus

from indrnn.model.cells import rnn
from indrnn.model.cells.cell import Floats
from indrnn.model.cells.diagonal.gated import GatedCell, logit


class MinLSTM(GatedCell):
    """The cell as the file says."""

    name = "minlstm"
    about = "A network of minimal long short-term memory (minLSTM; Feng et al., 2024, arXiv 2410.01201)"
    endless = "h is a mean of what it was and of a linear map of x: a bounded input keeps the state bounded however long a stream goes on."
    blocks = ("new", "f", "i")
    terms_onnx = """
        f_away = Neg (f)
        i_away = Neg (i)
        f_log = Softplus (f_away)
        i_log = Softplus (i_away)
        more = Sub (i_log, f_log)
        less = Sub (f_log, i_log)
        a = Sigmoid (more)
        take = Sigmoid (less)
        b = Mul (take, new)
    """

    def keep_(self, kept: Tensor) -> None:
        """f / (f + i) = sigmoid(v) where f = sigmoid(v) and i = sigmoid(-v)."""
        self.bias_of("f").copy_(logit(kept))
        self.bias_of("i").copy_(-logit(kept))

    def terms(self, *blocks: Tensor) -> tuple[Tensor, Tensor]:
        """a = f', b = i' h~."""
        new, f, i = blocks
        more = softplus(-i) - softplus(-f)  # log f - log i: f / (f + i) is its sigmoid, also where both gates are all but shut
        return sigmoid(more), sigmoid(-more) * new

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        new, f, i = self.parted(weights, x)
        f, i = rnn.sigmoid(f), rnn.sigmoid(i)
        h = f / (f + i) * state + i / (f + i) * new
        return h, h
