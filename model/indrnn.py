"""`IndRNN`, a layer with the habits of torch.nn.RNN, and `IndRNNCell`, one step of it.

    rnn = IndRNN(40, 128, num_layers=6, batch_first=True, recurrent_max_abs=(2.0, 784))   # where nn.LSTM(40, 128, ...) stood
    optimizer = torch.optim.Adam(parameter_groups(rnn, 1e-4), lr=2e-4)
    clamp_after_steps(optimizer, rnn)
    output, h_n = rnn(x)

h_t = f(W x_t + b + u * h_{t-1})  (Li et al., CVPR 2018, arXiv 1803.04831, equation 4). What stands between the layers of the papers'
deep networks (batch norm, sums) is in model/cells/stacks.py.
"""

import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from indrnn.model.cells.recurrence import ACTIVATIONS, DIRECTIONS, recurrence
from indrnn.model.cells.recurrent_weight import Recurrent, bound

EPSILON = 0.5  # of a gradient that the last layer's weakest neuron passes on over T steps, at the start of training

MaxAbs = float | tuple[float, int] | None
Init = Callable[[Tensor], object]


class _Weights(Recurrent):
    """The common part of the layer and the cell: how weights are made, drawn and shown."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool, nonlinearity: str, max_abs: MaxAbs, init: Init | None) -> None:
        super().__init__()
        if nonlinearity not in ACTIVATIONS:
            raise ValueError(f"expected a nonlinearity of {tuple(ACTIVATIONS)}, got {nonlinearity!r}")
        if input_size < 1 or hidden_size < 1:
            raise ValueError(f"expected sizes of 1 and more, got {input_size} and {hidden_size}")
        self.input_size, self.hidden_size, self.bias, self.nonlinearity = input_size, hidden_size, bias, nonlinearity
        self.recurrent_max_abs, self.recurrent_init = max_abs, init
        self.bound = bound(*max_abs) if isinstance(max_abs, tuple) else max_abs
        if self.bound is not None and not self.bound > 0:
            raise ValueError(f"expected a recurrent_max_abs above 0, got {max_abs}")

    def _draw(self, weight: Tensor, bias: Tensor | None, u: Tensor, last: bool) -> None:
        """W as nn.Linear's, b = 0, u from U[0, bound], of a last layer with T known from U[EPSILON^(1/T), bound]."""
        spread = weight.shape[1] ** -0.5
        nn.init.uniform_(weight, -spread, spread)
        if bias is not None:
            nn.init.zeros_(bias)
        high = 1.0 if self.bound is None else self.bound
        low = EPSILON ** (1 / self.recurrent_max_abs[1]) if last and isinstance(self.recurrent_max_abs, tuple) else 0.0
        if self.recurrent_init is None:
            nn.init.uniform_(u, min(low, high), high)
        else:
            with torch.no_grad():
                self.recurrent_init(u)

    def _run(self, x: Tensor, names: str, lengths: Tensor | None, h0: Tensor, direction: str = "forward") -> tuple[Tensor, Tensor]:
        """x [T, B, in], the weights whose names end in `names`, h0 [B, H] -> y [T, B, H], h [B, H]."""
        weight, u = getattr(self, f"weight_ih{names}"), getattr(self, f"weight_hh{names}")
        a = F.linear(x, weight, getattr(self, f"bias_ih{names}") if self.bias else None)
        y, h = recurrence(a, u, lengths, h0, self.nonlinearity, direction=direction)
        return y.to(u.dtype), h.to(u.dtype)

    def extra_repr(self) -> str:
        """Return the options that differ from the defaults, as text."""
        shown = f"{self.input_size}, {self.hidden_size}"
        shown += "" if self.bias else ", bias=False"
        shown += "" if self.nonlinearity == "relu" else f", nonlinearity={self.nonlinearity!r}"
        return shown + ("" if self.recurrent_max_abs == 1.0 else f", recurrent_max_abs={self.recurrent_max_abs}")


class IndRNNCell(_Weights):
    """One step: h' = f(W x + b + u * h); as torch.nn.RNNCell, but with one u per neuron and one bias.

    Arguments and parameters (without the suffix _l0) as in `IndRNN`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "relu",
        *,
        recurrent_max_abs: MaxAbs = 1.0,
        recurrent_init: Init | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, nonlinearity, recurrent_max_abs, recurrent_init)
        self.weight_ih = nn.Parameter(torch.empty(hidden_size, input_size, device=device, dtype=dtype))
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.bias_ih = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        self._draw(self.weight_ih, self.bias_ih, self.weight_hh, last=False)

    def recurrent_weights(self) -> Iterator[nn.Parameter]:
        """Return the recurrent weights, weight_hh [H]."""
        yield self.weight_hh

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """x [B, in] or [in], h [B, H] or [H] (default 0) -> h' of h's shape. Raises ValueError on other shapes."""
        shape = (*x.shape[:-1], self.hidden_size)
        if x.dim() not in (1, 2) or x.shape[-1] != self.input_size or (h is not None and h.shape != shape):
            raise ValueError(
                f"expected x [B, {self.input_size}] or [{self.input_size}] and h alike of {self.hidden_size}, "
                f"got {tuple(x.shape)}{'' if h is None else f' and {tuple(h.shape)}'}"
            )
        h = x.new_zeros(shape) if h is None else h
        _, out = self._run(x.view(1, -1, self.input_size), "", None, h.view(-1, self.hidden_size))
        return out.view(shape)


class IndRNN(_Weights):
    """Layers of independently recurrent neurons over a sequence, called as torch.nn.RNN, LSTM and GRU are.

    input_size, hidden_size, num_layers, bias, batch_first, bidirectional: as torch.nn.RNN's, in the order of nn.LSTM's.
    dropout       after each layer but the last; unlike nn.RNN's, one mask for all steps (Gal and Ghahramani, 2016).
    nonlinearity  one of the table in kernels/activations.py: relu, leaky_relu (slope 0.01), tanh, sigmoid, identity.
    recurrent_max_abs  the bound on |u| that `clamp_recurrent_` and `clamp_after_steps` of model/cells/recurrent_weight.py keep: a number,
        or (gamma, T) for gamma^(1/T), with which gradients of a relu neuron grow at most gamma-fold in T steps, or None. Streams that never
        end want a number below 1.
    recurrent_init  called with each u to draw it in place, as nn.init.ones_; by default U[0, bound], the last layer's, where (gamma, T)
        is given, U[0.5^(1/T), bound] (Li et al., 2019, section 5.1).

    Parameters, k the layer from 0, a second direction's ending in _reverse: weight_ih_l{k} [H, in], weight_hh_l{k} [H], bias_ih_l{k} [H].
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        nonlinearity: str = "relu",
        recurrent_max_abs: MaxAbs = 1.0,
        recurrent_init: Init | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, nonlinearity, recurrent_max_abs, recurrent_init)
        if num_layers < 1 or not 0 <= dropout <= 1:
            raise ValueError(f"expected at least one layer and a dropout in [0, 1], got {num_layers} and {dropout}")
        if dropout and num_layers == 1:
            warnings.warn("dropout stands between layers: with one layer there is none", stacklevel=2)
        self.num_layers, self.batch_first, self.dropout, self.bidirectional = num_layers, batch_first, dropout, bidirectional
        directions = 2 if bidirectional else 1
        for k in range(num_layers):
            inputs = directions * hidden_size if k else input_size
            for names in self._names(k):
                shapes = {"weight_ih": (hidden_size, inputs), "weight_hh": (hidden_size,)}
                for name, shape in (shapes | ({"bias_ih": (hidden_size,)} if bias else {})).items():
                    self.register_parameter(name + names, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _names(self, k: int) -> tuple[str, ...]:
        return (f"_l{k}", f"_l{k}_reverse") if self.bidirectional else (f"_l{k}",)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for k in range(self.num_layers):
            for names in self._names(k):
                bias = getattr(self, f"bias_ih{names}") if self.bias else None
                self._draw(getattr(self, f"weight_ih{names}"), bias, getattr(self, f"weight_hh{names}"), k == self.num_layers - 1)

    def recurrent_weights(self) -> Iterator[nn.Parameter]:
        """Return each weight_hh [H], layer by layer."""
        for k in range(self.num_layers):
            for names in self._names(k):
                yield getattr(self, f"weight_hh{names}")

    def flatten_parameters(self) -> None:
        """Does nothing; torch.nn.RNN's users call it."""

    def forward(self, x: Tensor | PackedSequence, h0: Tensor | None = None) -> tuple[Tensor | PackedSequence, Tensor]:
        """Runs all layers over whole sequences; D directions, L layers.

        x [T, B, in], with batch_first [B, T, in], unbatched [T, in], or a PackedSequence; h0 [D * L, B, H], unbatched [D * L, H]
        (default 0) -> output of x's form with D * H features, h_n of h0's shape: h after each row's last step, in the backward direction
        after its first. Rows of a PackedSequence are reversed within their own length. Raises ValueError on other shapes.
        """
        if isinstance(h0, tuple):
            raise TypeError("expected h0 to be one tensor, as torch.nn.GRU's: an IndRNN has no second state as an LSTM has")
        if isinstance(x, PackedSequence):
            return self._packed(x, h0)
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size:
            raise ValueError(f"expected x of 2 or 3 axes, the last of {self.input_size}, got {tuple(x.shape)}")
        if x.dim() == 2:
            output, h_n = self._padded(x[:, None], None, None if h0 is None else h0[:, None], unbatched=True)
            return output.squeeze(1), h_n.squeeze(1)
        output, h_n = self._padded(x.transpose(0, 1) if self.batch_first else x, None, h0)
        return (output.transpose(0, 1) if self.batch_first else output), h_n

    def _packed(self, x: PackedSequence, h0: Tensor | None) -> tuple[PackedSequence, Tensor]:
        padded, lengths = pad_packed_sequence(PackedSequence(x.data, x.batch_sizes))  # rows stay in order of length
        if padded.shape[2] != self.input_size:
            raise ValueError(f"expected {self.input_size} features, got {padded.shape[2]}")
        if h0 is not None and x.sorted_indices is not None:
            h0 = h0.index_select(1, x.sorted_indices)
        output, h_n = self._padded(padded, lengths.to(padded.device), h0)
        if x.unsorted_indices is not None:
            h_n = h_n.index_select(1, x.unsorted_indices)
        packed = pack_padded_sequence(output, lengths)
        return PackedSequence(packed.data, x.batch_sizes, x.sorted_indices, x.unsorted_indices), h_n

    def _padded(self, x: Tensor, lengths: Tensor | None, h0: Tensor | None, unbatched: bool = False) -> tuple[Tensor, Tensor]:
        """x [T, B, in], lengths [B] -> output [T, B, D * H], h_n [D * L, B, H]."""
        shape = ((2 if self.bidirectional else 1) * self.num_layers, x.shape[1], self.hidden_size)
        if h0 is None:
            h0 = x.new_zeros(shape)
        elif h0.shape != shape:
            want, got = ((shape[0], shape[2]), h0.squeeze(1).shape) if unbatched else (shape, h0.shape)
            raise ValueError(f"expected h0 {tuple(want)}, got {tuple(got)}")
        ends: list[Tensor] = []
        for k in range(self.num_layers):
            outputs = []
            for names, direction in zip(self._names(k), DIRECTIONS, strict=False):
                y, h = self._run(x, names, lengths, h0[len(ends)], direction)
                outputs.append(y)
                ends.append(h)
            x = torch.cat(outputs, 2) if self.bidirectional else outputs[0]
            if self.training and self.dropout and k < self.num_layers - 1:
                x = x * F.dropout(x.new_ones(1, *x.shape[1:]), self.dropout)
        return x, torch.stack(ends)

    def extra_repr(self) -> str:
        """Return the options that differ from the defaults, as torch.nn.RNN does."""
        shown = super().extra_repr()
        for name, default in (("num_layers", 1), ("batch_first", False), ("dropout", 0.0), ("bidirectional", False)):
            value = getattr(self, name)
            shown += "" if value == default else f", {name}={value}"
        return shown
