"""The LSTM cell (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000):

i, f, o = sigmoid(W x + b + U h + b'),  g = tanh(W_g x + b_g + U_g h + b'_g),  c' = f * c + i * g,  h' = o * tanh(c').

weight_ih [4H, in], weight_hh [4H, H], bias_ih, bias_hh [4H], gates in the order i, f, g, o; ONNX's is i, o, f, g. State h [H], c [H].
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from indrnn.model.cells.cell import Floats
from indrnn.model.cells.rnn import TorchCell, sigmoid


class LSTM(TorchCell):
    """The cell as the file says; weights start as PyTorch starts them, but the forget gate open (bias 1, the authors' comparison)."""

    name = "lstm"
    about = "A network of long short-term memory (LSTM; Hochreiter and Schmidhuber, 1997)"
    carried = "Its layers are ONNX's own operator `LSTM`."
    endless = "h stays within ±1, and |c| grows by less than 1 a step: the state stays finite however long a stream goes on."
    names = ("h", "c")
    order = (0, 3, 1, 2)
    operator = "LSTM"

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(nn.LSTM(inputs, size))
        bias = self.rnn.bias_hh_l0
        assert isinstance(bias, torch.Tensor)
        bias.data[size : 2 * size] = 1  # PyTorch adds two biases

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        h, c = np.split(state, 2)
        a = weights["rnn.weight_ih_l0"] @ x + weights["rnn.bias_ih_l0"] + weights["rnn.weight_hh_l0"] @ h + weights["rnn.bias_hh_l0"]
        i, f, g, o = np.split(a, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return h, np.concatenate([h, c])
