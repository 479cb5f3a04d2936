"""Deep recurrent networks with perceptrons: a simple RNN, one of whose three maps has a hidden layer m [H] of its own.

Pascanu, Gulcehre, Cho and Bengio, 2013, "How to Construct Deep Recurrent Neural Networks" (arXiv 1312.6026), named here by its sections;
its simple RNN is h' = tanh(W x + U h), y = h. Biases are ours.

deep_input       m = tanh(W x + b),         h' = tanh(V m + c + U h),     y = h'              (3.2.1, deep input-to-hidden function)
deep_transition  m = tanh(W x + b + U h),   h' = tanh(V m + c),           y = h'              (3.3.1, deep transition, DT-RNN)
deep_shortcut    m = tanh(W x + b + U h),   h' = tanh(V m + c + S h),     y = h'              (3.3.1, with shortcut, DT(S)-RNN)
deep_output      h' = tanh(W x + b + U h),  m = y = tanh(V h' + c)                            (3.3.2, deep output, DO-RNN)

The fourth way to depth, hidden layers upon each other (3.3.3, stacked RNN), is a stack of cells: `tanh` with several layers. project: W
[H, in], b [H]; recurrent: U [H, H]; deeper: V [H, H], c [H]; shortcut: S [H, H]. State h [H].
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn, tanh

from indrnn.model.cells.cell import Floats, StatePart
from indrnn.model.cells.classic.looped import Looped, recurrent

_PAPER = "Pascanu et al., 2013, arXiv 1312.6026"


class DeepRNN(Looped):
    """The common part of the four; weights start as PyTorch starts those of its RNN."""

    endless = "A neuron is a tanh: the state stays within ±1 however long a stream goes on."

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(inputs, size, size)
        spread = size**-0.5
        nn.init.uniform_(self.project.weight, -spread, spread)
        self.recurrent = recurrent(size, size)
        self.deeper = nn.Linear(size, size)

    def parts(self) -> tuple[StatePart, ...]:
        """Return h, within ±1."""
        return (StatePart("hidden", self.size, name="h", activation="tanh"),)

    def constants(self) -> Mapping[str, Tensor]:
        """Return U, V and c."""
        return {"U": self.recurrent.T, "V": self.deeper.weight.T, "c": self.deeper.bias}

    def _deeper(self, weights: Mapping[str, Floats], m: Floats) -> Floats:
        """Return V m + c, for the specifications."""
        sums: Floats = weights["deeper.weight"] @ m + weights["deeper.bias"]
        return sums


class DeepInputRNN(DeepRNN):
    """A perceptron between the input and the hidden state."""

    name = "deep_input"
    about = f"A recurrent network of tanh neurons whose input passes a hidden layer ({_PAPER})"
    step_onnx = """
        m = Tanh (x)
        of_m = MatMul (m, V)
        of_m_c = Add (of_m, c)
        of_h = MatMul (s, U)
        sum = Add (of_m_c, of_h)
        y = Tanh (sum)
        s_next = Identity (y)
    """

    def go(self, p: Tensor, state: Tensor, *matrices: Tensor) -> tuple[Tensor, Tensor]:
        """One step, as above."""
        h = tanh(self.deeper(tanh(p)) + state @ self.recurrent.T)
        return h, h

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        h = np.tanh(self._deeper(weights, np.tanh(self.product(weights, x))) + weights["recurrent"] @ state)
        return h, h


class DeepTransitionRNN(DeepRNN):
    """A perceptron between one hidden state and the next."""

    name = "deep_transition"
    about = f"A recurrent network of tanh neurons with a hidden layer between one state and the next ({_PAPER})"
    step_onnx = """
        of_h = MatMul (s, U)
        m_sum = Add (x, of_h)
        m = Tanh (m_sum)
        of_m = MatMul (m, V)
        sum = Add (of_m, c)
        y = Tanh (sum)
        s_next = Identity (y)
    """

    def go(self, p: Tensor, state: Tensor, *matrices: Tensor) -> tuple[Tensor, Tensor]:
        """One step, as above."""
        h = tanh(self.deeper(tanh(p + state @ self.recurrent.T)))
        return h, h

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        h = np.tanh(self._deeper(weights, np.tanh(self.product(weights, x) + weights["recurrent"] @ state)))
        return h, h


class DeepShortcutRNN(DeepRNN):
    """The deep transition, and past its hidden layer a way from one state to the next, so that a gradient has fewer tanh to pass."""

    name = "deep_shortcut"
    about = f"A recurrent network of tanh neurons with a hidden layer between one state and the next, and a way past it ({_PAPER})"
    step_onnx = """
        of_h = MatMul (s, U)
        m_sum = Add (x, of_h)
        m = Tanh (m_sum)
        of_m = MatMul (m, V)
        of_m_c = Add (of_m, c)
        past = MatMul (s, S)
        sum = Add (of_m_c, past)
        y = Tanh (sum)
        s_next = Identity (y)
    """

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(inputs, size)
        self.shortcut = recurrent(size, size)

    def go(self, p: Tensor, state: Tensor, *matrices: Tensor) -> tuple[Tensor, Tensor]:
        """One step, as above."""
        h = tanh(self.deeper(tanh(p + state @ self.recurrent.T)) + state @ self.shortcut.T)
        return h, h

    def constants(self) -> Mapping[str, Tensor]:
        """Return U, V, c and S."""
        return {**super().constants(), "S": self.shortcut.T}

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        m = np.tanh(self.product(weights, x) + weights["recurrent"] @ state)
        h = np.tanh(self._deeper(weights, m) + weights["shortcut"] @ state)
        return h, h


class DeepOutputRNN(DeepRNN):
    """A perceptron between the hidden state and the answer; only what stands after the layer reads it, not the next step."""

    name = "deep_output"
    about = f"A recurrent network of tanh neurons with a hidden layer before its answer ({_PAPER})"
    step_onnx = """
        of_h = MatMul (s, U)
        sum = Add (x, of_h)
        s_next = Tanh (sum)
        of_s = MatMul (s_next, V)
        m_sum = Add (of_s, c)
        y = Tanh (m_sum)
    """

    def go(self, p: Tensor, state: Tensor, *matrices: Tensor) -> tuple[Tensor, Tensor]:
        """One step, as above."""
        h = tanh(p + state @ self.recurrent.T)
        return tanh(self.deeper(h)), h

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        h = np.tanh(self.product(weights, x) + weights["recurrent"] @ state)
        return np.tanh(self._deeper(weights, h)), h
