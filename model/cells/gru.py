"""The GRU cell, as PyTorch and cuDNN have it (Cho et al., 2014, arXiv 1406.1078, with the reset gate after the matrix):

r = sigmoid(W_r x + b_r + U_r h + c_r),  z = sigmoid(W_z x + b_z + U_z h + c_z),
n = tanh(W_n x + b_n + r * (U_n h + c_n)),  h' = (1 - z) * n + z * h.

weight_ih [3H, in], weight_hh [3H, H], bias_ih, bias_hh [3H], gates in the order r, z, n; ONNX's is z, r, n. State h [H].
"""

from collections.abc import Mapping

import numpy as np
from torch import nn

from indrnn.model.cells.cell import Floats
from indrnn.model.cells.rnn import TorchCell, sigmoid


class GRU(TorchCell):
    """The cell as the file says; weights start as PyTorch starts them."""

    name = "gru"
    about = "A network of gated recurrent units (GRU; Cho et al., 2014, arXiv 1406.1078)"
    carried = "Its layers are ONNX's own operator `GRU`."
    endless = "h is a mean of what it was and of a number within ±1: the state stays within ±1 however long a stream goes on."
    order = (1, 0, 2)
    operator = "GRU"
    attributes = ", linear_before_reset = 1"

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(nn.GRU(inputs, size))

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        x_r, x_z, x_n = np.split(weights["rnn.weight_ih_l0"] @ x + weights["rnn.bias_ih_l0"], 3)
        h_r, h_z, h_n = np.split(weights["rnn.weight_hh_l0"] @ state + weights["rnn.bias_hh_l0"], 3)
        z = sigmoid(x_z + h_z)
        h = (1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * state
        return h, h
