"""Cells with one matrix and no gate, which IndRNN is compared with: h' = f(W x + b + U h + b')  (Elman, 1990).

weight_ih [H, in], weight_hh [H, H], bias_ih, bias_hh [H]. State h [H].
"""

from collections.abc import Mapping

import numpy as np
from torch import nn

from indrnn.model.cells.cell import Floats
from indrnn.model.cells.torch_cell import TorchCell


class TanhRNN(TorchCell):
    """f = tanh; weights start as PyTorch starts them."""

    name = "tanh"
    about = "A recurrent network of tanh neurons (Elman, 1990)"
    carried = "Its layers are ONNX's own operator `RNN`."
    endless = "A neuron is a tanh: the state stays within ±1 however long a stream goes on."
    operator = "RNN"

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(nn.RNN(inputs, size))

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        h: Floats = np.tanh(_sum(weights, x, state))
        return h, h


class IRNN(TorchCell):
    """f = relu; U starts as the identity, input weights as N(0, 0.001), biases as 0 (Le, Jaitly and Hinton, 2015, arXiv 1504.00941)."""

    name = "irnn"
    about = "A recurrent network of relu neurons that starts as a sum (IRNN; Le, Jaitly and Hinton, 2015, arXiv 1504.00941)"
    carried = TanhRNN.carried
    endless = "Nothing bounds the state."
    bounded = False
    operator = "RNN"
    attributes = ', activations = ["Relu"]'
    squashed = False

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        rnn = nn.RNN(inputs, size, nonlinearity="relu")
        for name, p in rnn.named_parameters():
            nn.init.normal_(p, std=0.001) if "weight_ih" in name else nn.init.zeros_(p)
            if "weight_hh" in name:
                nn.init.eye_(p)
        super().__init__(rnn)

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        h: Floats = np.maximum(_sum(weights, x, state), 0)
        return h, h


def _sum(weights: Mapping[str, Floats], x: Floats, state: Floats) -> Floats:
    of_x: Floats = weights["rnn.weight_ih_l0"] @ x + weights["rnn.bias_ih_l0"]
    of_h: Floats = weights["rnn.weight_hh_l0"] @ state + weights["rnn.bias_hh_l0"]
    return of_x + of_h
