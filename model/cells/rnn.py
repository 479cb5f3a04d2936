"""Cells that PyTorch has itself: their common part, one layer with ragged rows and one state vector, and those without gates.

TanhRNN, ReluRNN and what starts otherwise: h' = f(W x + b + U h + b')  (Elman, 1990). weight_ih [H, in], weight_hh [H, H], bias_ih,
bias_hh [H]. State h [H].
What has gates has a file: model/cells/gru.py and lstm.py say the equations, the order of the gates, and the operator of ONNX.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from indrnn.model.cells.cell import Cell, Floats, Lowering, StatePart

# ONNX's operators read time-major X and keep an axis of directions: W [1, G H, in], R [1, G H, H], B [1, 2 G H] (of x, of h). ONNX Runtime
# gives zeros as the state after no steps, not what went in, as its standard has it nowhere; so `lengths` of 0 are looked at here.
_NODES = """
    lengths_int = Cast <to = 6> (lengths)
    axis_of_directions = Constant <value_ints = [1]> ()
    axis_first = Constant <value_ints = [0]> ()
    one_step = Constant <value = int64 {{1}}> ()
    {initial}
    Y_all, {ends} = {operator} <hidden_size = {H}{attributes}> (X, W, R, bias, lengths_int, {begins})
    Y = Squeeze (Y_all, axis_of_directions)
    {final}
    state_new = Squeeze (ends, axis_first)
    idle = Less (lengths, one_step)
    idle_rows = Unsqueeze (idle, axis_of_directions)
    state_out = Where (idle_rows, state, state_new)
"""
_ONE = {"initial": "h = Unsqueeze (state, axis_first)", "begins": "h", "ends": "ends", "final": ""}
_TWO = {
    "initial": """sizes = Constant <value_ints = [{H}, {H}]> ()
    h_flat, c_flat = Split <axis = 1> (state, sizes)
    h = Unsqueeze (h_flat, axis_first)
    c = Unsqueeze (c_flat, axis_first)""",
    "begins": "h, c",
    "ends": "h_end, c_end",
    "final": "ends = Concat <axis = 2> (h_end, c_end)",
}


class TorchCell(Cell):
    """A layer of `rnn`, one of PyTorch's; float32 under autocast, as every recurrence here.

    names: the state's parts, h and of the LSTM c. order: the gates, by their places in PyTorch, as ONNX orders them. operator,
    attributes: ONNX's. h lies within ±1 where `squashed`.
    """

    names: ClassVar[tuple[str, ...]] = ("h",)
    order: ClassVar[tuple[int, ...]] = (0,)
    operator: ClassVar[str]
    attributes: ClassVar[str] = ""
    squashed: ClassVar[bool] = True
    rnn: nn.RNNBase

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__(rnn.input_size, rnn.hidden_size)
        self.rnn = rnn

    def parts(self) -> tuple[StatePart, ...]:
        """Return h, of the LSTM c too."""
        bounded = "tanh" if self.squashed else None
        return tuple(StatePart("hidden", self.size, name=name, activation=bounded if name == "h" else None) for name in self.names)

    def run(self, x: Tensor, lengths: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run PyTorch's layer, on packed rows where they end apart."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(state.dtype)
            if len(x) == 0:
                return x.new_zeros(*x.shape[:2], self.size), state
            if lengths is None or bool((lengths == len(x)).all()):
                return self._all_steps(x, state)
            return self._ragged(x, lengths, state)

    def _all_steps(self, x: Tensor | PackedSequence, state: Tensor) -> tuple[Tensor, Tensor]:
        carried = [part[None].contiguous() for part in torch.split(state, self.size, 1)]
        y, after = self.rnn(x, carried[0] if len(carried) == 1 else tuple(carried))
        return y, torch.cat([after] if isinstance(after, Tensor) else list(after), 2)[0]

    def _ragged(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        some = lengths > 0
        # A packed row has a step at the least: rows of none read a zero, and their answers are put aside.
        packed = pack_padded_sequence(torch.where(some[:, None], x, 0), lengths.clamp_min(1).cpu(), enforce_sorted=False)
        out, after = self._all_steps(packed, state)
        y, _ = pad_packed_sequence(out, total_length=len(x))  # type: ignore[arg-type]  # of a packed sequence it is one
        return torch.where(some[:, None], y, 0), torch.where(some[:, None], after, state)

    @torch.no_grad()
    def fold_(self, scale: Tensor, shift: Tensor) -> bool:
        """W (scale x + shift) + b = (W scale) x + (W shift + b)."""
        weight, bias = self.rnn.weight_ih_l0, self.rnn.bias_ih_l0
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        bias.add_(weight @ shift)
        weight.mul_(scale)
        return True

    def lowering(self) -> Lowering:
        """Return ONNX's own operator."""
        named = {name.removesuffix("_l0"): p for name, p in self.rnn.named_parameters()}
        four = (named["weight_ih"], named["weight_hh"], named["bias_ih"], named["bias_hh"])
        return operator(self.operator, self.attributes, self.size, self.order, four, len(self.names))


def operator(
    name: str,
    attributes: str,
    size: int,
    order: tuple[int, ...],
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    parts: int = 1,
    peepholes: Tensor | None = None,
) -> Lowering:
    """Return a recurrent operator of ONNX's own, of `size` neurons.

    weights: of x [G H, in], of h [G H, H], and both biases [G H]; order: where in them ONNX's gates are, one after another. parts: 1, the
    state is h, or 2, h and c. peepholes: [3 H] of the LSTM, in ONNX's order.
    """
    ordered = []
    for w in weights:
        gates = np.split(w.detach().float().cpu().numpy(), len(order))
        ordered.append(np.concatenate([gates[i] for i in order]))
    given: dict[str, NDArray[np.float32]] = {"W": ordered[0][None], "R": ordered[1][None], "bias": np.concatenate(ordered[2:])[None]}
    words = {word: text.format(H=size) for word, text in (_ONE if parts == 1 else _TWO).items()}
    if peepholes is not None:
        given["P"] = peepholes.detach().float().cpu().numpy()[None]
        words["begins"] += ", P"
    return Lowering(given, _NODES.format(operator=name, attributes=attributes, H=size, **words))


def sigmoid(a: Floats) -> Floats:
    """1 / (1 + e^-a), for the specifications."""
    result: Floats = 1 / (1 + np.exp(-a))
    return result


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


class ReluRNN(TorchCell):
    """f = relu; weights start as PyTorch starts them."""

    name = "relu"
    about = "A recurrent network of relu neurons (Elman, 1990)"
    carried = TanhRNN.carried
    endless = "Nothing bounds the state."
    bounded = False
    operator = "RNN"
    attributes = ', activations = ["Relu"]'
    squashed = False

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(nn.RNN(inputs, size, nonlinearity="relu"))

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        h: Floats = np.maximum(_sum(weights, x, state), 0)
        return h, h


class IRNN(ReluRNN):
    """f = relu; U starts as the identity, input weights as N(0, 0.001), biases as 0 (Le, Jaitly and Hinton, 2015, arXiv 1504.00941)."""

    name = "irnn"
    about = "A recurrent network of relu neurons that starts as a sum (IRNN; Le, Jaitly and Hinton, 2015, arXiv 1504.00941)"

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(inputs, size)
        for name, p in self.rnn.named_parameters():
            nn.init.normal_(p, std=0.001) if "weight_ih" in name else nn.init.zeros_(p)
            if "weight_hh" in name:
                nn.init.eye_(p)


class PositiveDefiniteRNN(ReluRNN):
    """f = relu; U starts as (A + 1) / e, A = R' R / H of a normal R [H, H], e the largest eigenvalue of A + 1 (np-RNN).

    U is positive definite then, with one eigenvalue of 1 and all others below (Talathi and Vartak, 2015, arXiv 1511.03771). Input weights
    start as N(0, 2 / in), biases as 0. U is as unixpickle's Go code has it, which names the paper; how the paper starts input weights could
    not be looked up, and that code draws them otherwise.
    """

    name = "irnn_pd"
    about = "A recurrent network of relu neurons with a positive definite start (np-RNN; Talathi and Vartak, 2015, arXiv 1511.03771)"

    @torch.no_grad()
    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(inputs, size)
        drawn = torch.randn(size, size)
        start = drawn.T @ drawn / size + torch.eye(size)
        for name, p in self.rnn.named_parameters():
            nn.init.normal_(p, std=(2 / inputs) ** 0.5) if "weight_ih" in name else nn.init.zeros_(p)
            if "weight_hh" in name:
                p.copy_(start / torch.linalg.eigvalsh(start)[-1])


def _sum(weights: Mapping[str, Floats], x: Floats, state: Floats) -> Floats:
    of_x: Floats = weights["rnn.weight_ih_l0"] @ x + weights["rnn.bias_ih_l0"]
    of_h: Floats = weights["rnn.weight_hh_l0"] @ state + weights["rnn.bias_hh_l0"]
    return of_x + of_h
