"""The IndRNN layer and stack: what the action and the chars network are made of.

One layer is  h_t = relu(BN(W x_t + b) + u * h_{t-1})  (Li et al., CVPR 2018, equation 4), batch norm before the recurrence, because a
carried state must not depend on another batch's statistics. A stack adds each layer's output to its input (Li et al., 2019, section 4).
The matrix product may run in bfloat16 under autocast; the recurrence and the state are float32.
"""

import copy
from abc import ABC, abstractmethod
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

from model.recurrence import recurrence

Projection = nn.Linear | nn.Embedding


class BatchNorm(nn.Module):
    """Batch norm of x [T, B, H] over the valid steps of all rows; running statistics (float32) when not training."""

    def __init__(self, size: int, momentum: float = 0.05, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("var", torch.ones(size))
        self.momentum, self.eps = momentum, eps

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x [T, B, H], valid: indices of the steps that count in [T * B] (None: all) -> [T, B, H], in training 0 at the others."""
        if not self.training or valid is None:
            return self._norm(x.flatten(0, 1)).view_as(x)
        flat = x.flatten(0, 1)
        rows = self._norm(flat.index_select(0, valid))
        return torch.zeros_like(flat).index_copy(0, valid, rows).view_as(x)

    def _norm(self, rows: Tensor) -> Tensor:
        return F.batch_norm(rows, self.mean, self.var, self.weight, self.bias, self.training, self.momentum, self.eps)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift [H] that evaluation applies: BN(a) = scale * a + shift."""
        scale = self.weight * torch.rsqrt(self.var + self.eps)
        return scale, self.bias - self.mean * scale


class IndRNN(nn.Module):
    """One recurrent layer, relu.

    project: nn.Linear(in, H) or, for symbols, nn.Embedding(K, H). U [H] starts in U[low, bound] and is clamped to ±bound after each
    optimiser step (`clamp_recurrent_`). Dropout uses one mask for all steps (Gal and Ghahramani, 2016). Without `norm` the projection is
    all there is before the recurrence: the form `fold` returns.
    """

    def __init__(self, project: Projection, size: int, bound: float, low: float = 0.0, dropout: float = 0.0, norm: bool = True) -> None:
        super().__init__()
        self.project = project
        self.norm = BatchNorm(size) if norm else None
        self.u = nn.Parameter(torch.empty(size).uniform_(low, bound))
        self.size, self.bound, self.dropout = size, bound, dropout
        if self.norm is not None:
            # White noise of unit variance becomes a state of variance 1 / (1 - u^2): start all neurons at one loudness, whatever their
            # memory. Measured on chars, some 200 steps of 4096 symbols, with a readout that starts at 0: 2.38 bits a character, not 2.56.
            self.norm.weight.data.copy_((1 - self.u.detach() ** 2).clamp_min(0).sqrt())

    def forward(self, x: Tensor, lengths: Tensor, h0: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [T, B, in] (or [T, B] symbols), lengths [B], h0 [B, H] -> y [T, B, H], 0 past a row's length, and h [B, H]."""
        a = self.project(x)
        if self.norm is not None:
            a = self.norm(a, valid)
        y, h = recurrence(a, self.u, lengths, h0)
        if self.training and self.dropout > 0:
            y = y * F.dropout(y.new_ones(1, *y.shape[1:]), self.dropout)
        return y, h

    @torch.no_grad()
    def fold_(self, input_scale: Tensor | None = None) -> None:
        """Moves batch norm, and a scale [in] of the input features, into the projection; the layer computes the same without them."""
        weight = self.project.weight
        if input_scale is not None:
            weight.mul_(input_scale)
        if self.norm is None:
            return
        scale, shift = self.norm.affine()
        if isinstance(self.project, nn.Linear):
            weight.mul_(scale[:, None])
            self.project.bias.copy_(self.project.bias * scale + shift)
        else:
            weight.mul_(scale).add_(shift)
        self.norm = None


class Stack(nn.Module):
    """IndRNN layers of one width H, each added to its input from the second on: y_l = y_{l-1} + layer_l(y_{l-1})."""

    def __init__(self, first: Projection, size: int, layers: int, bound: float, dropout: float, norm: bool) -> None:
        super().__init__()
        projections = [first, *(nn.Linear(size, size) for _ in range(layers - 1))]
        # The last layer keeps what the answer needs: its U starts nearer the bound (Li et al., 2019, section 5.1).
        lows = [0.0] * (layers - 1) + [bound / 2]
        self.layers = nn.ModuleList(IndRNN(p, size, bound, low, dropout, norm) for p, low in zip(projections, lows, strict=True))
        self.size = size

    def forward(self, x: Tensor, lengths: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, B, in] (or [T, B] symbols), lengths [B], hidden [B, layers * H] -> y [T, B, H], hidden after each row's length."""
        valid = None
        if self.training:
            mask = torch.arange(x.shape[0], device=x.device)[:, None] < lengths
            valid = None if bool(mask.all()) else mask.flatten().nonzero().squeeze(1)
        states = []
        for i, layer in enumerate(self.layers):
            h = hidden[:, i * self.size : (i + 1) * self.size]
            y, h = layer(x, lengths, h, valid)
            x = y if i == 0 else x + y
            states.append(h)
        return x, torch.cat(states, 1)

    def parts(self) -> tuple[dict[str, Any], ...]:
        """The state's hidden parts, one a layer, as the manifest lists them."""
        return tuple(
            {"role": "hidden", "layer": i, "size": self.size, "activation": "relu", "u": tuple(layer.u.tolist())}
            for i, layer in enumerate(self.indrnns())
        )

    def indrnns(self) -> list[IndRNN]:
        """The layers, from the input on."""
        return [layer for layer in self.layers if isinstance(layer, IndRNN)]

    def fold_(self, input_scale: Tensor | None = None) -> None:
        """Moves every batch norm, and a scale [in] of the features, into the projections."""
        for i, layer in enumerate(self.indrnns()):
            layer.fold_(input_scale if i == 0 else None)


@torch.no_grad()
def centre_(readout: nn.Linear) -> None:
    """Takes the mean over the classes out of every logit: the scores (softmax) stay, and what is left is small.

    Training is free to move all logits together; 12 million characters into it some stood at 155, and their rounding errors with them.
    """
    readout.weight.sub_(readout.weight.mean(0))
    readout.bias.sub_(readout.bias.mean())


class StateNet(nn.Module, ABC):
    """A network that carries its whole state in one vector: forward(x, lengths [B], state [B, N]) -> logits [B, T, K], state [B, N].

    sizes: length of the state's stretches in order; the last is last_logits, the logits [K] after the last step consumed.
    """

    config: Any  # a frozen dataclass
    sizes: list[int]

    @property
    def state_size(self) -> int:
        """N."""
        return sum(self.sizes)

    @property
    def classes(self) -> int:
        """K."""
        return self.sizes[-1]

    def start(self, rows: int) -> Tensor:
        """The state [rows, N] of sequences that begin."""
        return torch.zeros(rows, self.state_size)

    @abstractmethod
    def parts(self) -> tuple[dict[str, Any], ...]:
        """The state's parts in order, as the manifest lists them."""

    @abstractmethod
    def fold_(self) -> None:
        """Moves batch norm and feature scales into the neighbouring linear maps and centres the logits."""

    def fold(self) -> Self:
        """The same scores without batch norm and feature scales, in evaluation mode; logits differ by their mean, which becomes 0."""
        net = copy.deepcopy(self).eval()
        net.fold_()
        return net


@torch.no_grad()
def clamp_recurrent_(net: nn.Module) -> None:
    """Projects every U of the net back to its bound, |u| <= bound (Li et al., 2019, section 3.1); call after each optimiser step."""
    for module in net.modules():
        if isinstance(module, IndRNN):
            module.u.clamp_(-module.bound, module.bound)


def last_valid(start: Tensor, steps: Tensor, lengths: Tensor) -> Tensor:
    """What stands after each row's last step: start [B, F] for length 0, else steps [B, T, F] at lengths - 1 -> [B, F]."""
    every = torch.cat([start[:, None], steps], 1)
    index = lengths[:, None, None].expand(-1, 1, every.shape[2])
    return every.gather(1, index).squeeze(1)
