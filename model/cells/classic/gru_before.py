"""The GRU as its paper has it, the reset gate before the matrix (Cho et al., 2014, arXiv 1406.1078, equations 5 to 8):

r = sigmoid(W_r x + b_r + U_r h),  z = sigmoid(W_z x + b_z + U_z h),  n = tanh(W_n x + b_n + U_n (r * h)),  h' = (1 - z) * n + z * h.

project: W [3H, in], b [3H]; recurrent: U [3H, H], in the order r, z, n; ONNX's is z, r, n. State h [H]. model/cells/gru.py has the form
that cuDNN and PyTorch run, r after the matrix. With r = 1 and z = 0 it is the simple RNN.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn, sigmoid, tanh

from indrnn.model.cells import rnn
from indrnn.model.cells.cell import Floats, Lowering, StatePart
from indrnn.model.cells.classic.looped import Looped, recurrent


class ResetBeforeGRU(Looped):
    """The cell as the file says; weights start as PyTorch starts those of its GRU."""

    name = "gru_before"
    about = "A network of gated recurrent units, reset before the matrix (GRU; Cho et al., 2014, arXiv 1406.1078)"
    carried = "Its layers are ONNX's own operator `GRU`."
    endless = "h is a mean of what it was and of a number within ±1: the state stays within ±1 however long a stream goes on."

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(inputs, size, 3 * size)
        nn.init.uniform_(self.project.weight, -(size**-0.5), size**-0.5)
        self.recurrent = recurrent(3 * size, size)

    def parts(self) -> tuple[StatePart, ...]:
        """Return h, within ±1."""
        return (StatePart("hidden", self.size, name="h", activation="tanh"),)

    def go(self, p: Tensor, state: Tensor, *matrices: Tensor) -> tuple[Tensor, Tensor]:
        """One step, as above."""
        x_gates, x_n = torch.split(p, [2 * self.size, self.size], 1)
        u_gates, u_n = torch.split(self.recurrent, [2 * self.size, self.size])
        r, z = torch.split(sigmoid(x_gates + state @ u_gates.T), self.size, 1)
        n = tanh(x_n + (r * state) @ u_n.T)
        h = torch.lerp(n, state, z)
        return h, h

    def lowering(self) -> Lowering:
        """Return ONNX's own operator."""
        four = (self.project.weight, self.recurrent, self.project.bias, torch.zeros_like(self.project.bias))
        return rnn.operator("GRU", ", linear_before_reset = 0", self.size, (1, 0, 2), four)

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        x_r, x_z, x_n = np.split(self.product(weights, x), 3)
        u_r, u_z, u_n = np.split(weights["recurrent"], 3)
        r, z = rnn.sigmoid(x_r + u_r @ state), rnn.sigmoid(x_z + u_z @ state)
        h = (1 - z) * np.tanh(x_n + u_n @ (r * state)) + z * state
        return h, h
