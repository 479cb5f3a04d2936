"""The LSTM whose gates see the cell (Gers and Schmidhuber, 2000, "Recurrent Nets that Time and Count"):

i, f = sigmoid(W x + b + U h + p * c),  c' = f * c + i * tanh(W_g x + b_g + U_g h),  o = sigmoid(W_o x + b_o + U_o h + p_o * c'),
h' = o * tanh(c').

project: W [4H, in], b [4H]; recurrent: U [4H, H], gates in the order i, f, g, o, as model/cells/lstm.py has them; peepholes p [3H] of i, f
and o: those of i and f see the cell before the step, that of o sees it after. ONNX's orders are i, o, f, g and i, o, f. State h [H], c [H].

The paper could not be looked up, so that its equations have no numbers here; ONNX's operator, which a test compares with, has this form.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn, sigmoid, tanh

from indrnn.model.cells import rnn
from indrnn.model.cells.cell import Floats, Lowering, StatePart
from indrnn.model.cells.classic.looped import Looped, recurrent
from indrnn.model.cells.lstm import LSTM


class PeepholeLSTM(Looped):
    """The cell as the file says; weights start as those of model/cells/lstm.py, peepholes at 0: as an LSTM."""

    name = "lstm_peephole"
    about = "A network of long short-term memory whose gates see the cell (Gers and Schmidhuber, 2000)"
    carried = "Its layers are ONNX's own operator `LSTM`, with peepholes."
    endless = LSTM.endless

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(inputs, size, 4 * size)
        nn.init.uniform_(self.project.weight, -(size**-0.5), size**-0.5)
        self.project.bias.data[size : 2 * size] = 1
        self.recurrent = recurrent(4 * size, size)
        self.peepholes = nn.Parameter(torch.zeros(3 * size))

    def parts(self) -> tuple[StatePart, ...]:
        """Return h, within ±1, and c."""
        return StatePart("hidden", self.size, name="h", activation="tanh"), StatePart("hidden", self.size, name="c")

    def go(self, p: Tensor, state: Tensor, *matrices: Tensor) -> tuple[Tensor, Tensor]:
        """One step, as above."""
        h, c = torch.split(state, self.size, 1)
        i, f, g, o = torch.split(p + h @ self.recurrent.T, self.size, 1)
        of_i, of_f, of_o = torch.split(self.peepholes, self.size)
        c = sigmoid(f + of_f * c) * c + sigmoid(i + of_i * c) * tanh(g)
        h = sigmoid(o + of_o * c) * tanh(c)
        return h, torch.cat([h, c], 1)

    def lowering(self) -> Lowering:
        """Return ONNX's own operator."""
        of_i, of_f, of_o = torch.split(self.peepholes, self.size)
        four = (self.project.weight, self.recurrent, self.project.bias, torch.zeros_like(self.project.bias))
        return rnn.operator("LSTM", "", self.size, LSTM.order, four, 2, torch.cat([of_i, of_o, of_f]))

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        h, c = np.split(state, 2)
        i, f, g, o = np.split(self.product(weights, x) + weights["recurrent"] @ h, 4)
        of_i, of_f, of_o = np.split(weights["peepholes"], 3)
        after = rnn.sigmoid(f + of_f * c) * c + rnn.sigmoid(i + of_i * c) * np.tanh(g)
        h = rnn.sigmoid(o + of_o * after) * np.tanh(after)
        return h, np.concatenate([h, after])
