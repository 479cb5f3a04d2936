"""The tensor network: rows of raw numbers in, classes or values after each out, all state in one vector.

Numbers [F] -> each less its mean, over its deviation, d -> layers y_1 = r(W d + b), y_l = y_{l-1} + r(W y_{l-1} + b), where r is batch
norm, then h_t = relu(a_t + u * h_{t-1}) (another `cell`: its own equations) -> the last output [H] beside leaky means of it [C, H] ->
scores of classes, or values in their own units [K].
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from indrnn.model.cells.cell import StatePart
from indrnn.model.cells.recurrence import recurrence
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.cells.stacks import StackOptions, skip_chain
from indrnn.model.nets.network import StackNet, centre_, last_valid
from indrnn.model.nets.options import BOUND, CELL, DROPOUT, HIDDEN, LAYERS, NORM

FARTHEST = 100.0  # deviations from the mean; what is farther counts as here, so that no number that a client sends overflows


@dataclass(frozen=True)
class TensorConfig(StackOptions):
    """Sizes of the network. mean, scale: of each of the F features. value_mean, value_scale: of each of the K values; none for classes.

    pools: leak a of each leaky mean, which remembers 1 / (1 - a) steps. ends: whether a sequence has one answer, at its end.
    """

    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    classes: int = 2
    value_mean: tuple[float, ...] = ()
    value_scale: tuple[float, ...] = ()
    hidden: int = field(default=128, metadata=HIDDEN)
    layers: int = field(default=3, metadata=LAYERS)
    bound: float = field(default=0.99, metadata=BOUND)
    pools: tuple[float, ...] = field(
        default=(0.9, 0.97, 0.99), metadata={"help": "leak a of each mean that is read; remembers 1 / (1 - a) steps"}
    )
    dropout: float = field(default=0.1, metadata=DROPOUT)
    norm: bool = field(default=True, metadata=NORM)
    cell: str = field(default="indrnn", metadata=CELL)
    ends: bool = False


class TensorNet(StackNet):
    """x [B, T, F] raw; lengths [B] int64; state [B, N] -> logits [B, T, K] after each step, scores or values, state [B, N].

    A zero row of state is the start. State parts in order: hidden of each layer, pool, last_logits.
    """

    mean: Tensor
    scale: Tensor
    value_mean: Tensor
    value_scale: Tensor
    leak: Tensor

    def __init__(self, config: TensorConfig) -> None:
        super().__init__()
        c = self.config = config
        if len(c.mean) != len(c.scale) or len(c.value_mean) != len(c.value_scale) or len(c.value_mean) not in (0, c.classes):
            raise SizeError(f"expected a mean and a scale for each feature and each value, got {c}")
        for name in ("mean", "scale", "value_mean", "value_scale"):
            self.register_buffer(name, torch.tensor(getattr(c, name)), persistent=False)
        leak = torch.tensor(c.pools).repeat_interleave(c.hidden)
        self.register_buffer("leak", torch.cat([leak, torch.tensor(c.pools)]), persistent=False)  # [CH + C], of sums and of their weights
        self.stack = skip_chain(len(c.mean), c.hidden, c.layers, c.bound, c.dropout, c.norm, c.cell, c.bidirectional).taking(c)
        self.stack.ends = c.bidirectional and c.ends
        self.readout = nn.Linear(c.hidden * (1 + len(c.pools)), c.classes)
        nn.init.zeros_(self.readout.weight)  # an untrained net knows nothing: uniform scores, mean values
        nn.init.zeros_(self.readout.bias)
        self.sizes = [self.stack.state_size, len(self.leak), c.classes]

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the shapes that the class names."""
        carried, pool, last_logits = torch.split_with_sizes(state, self.sizes, 1)  # [B, S], [B, CH + C], [B, K]
        deviations = self.seen(x)  # [T, B, F]
        y, carried = self.stack(deviations, lengths, carried)  # [T, B, H], [B, S]
        seen, pool = self._pooled(y, lengths, pool)  # [T, B, H + CH], [B, CH + C]
        logits = self.logits(seen).transpose(0, 1)  # [B, T, K]
        return logits, torch.cat([carried, pool, last_valid(last_logits, logits, lengths)], 1)

    def not_online(self) -> str | None:
        """Return what `StackNet` says: leaky means are state beside the stack's."""
        return "--pools without a number: a leaky mean would need derivatives of its own" if self.config.pools else None

    def answer(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x [B, T, F] whole sequences, lengths [B] of 1 and more (default T) -> [B, K] after each one's last step."""
        lengths = torch.full((len(x),), x.shape[1], device=x.device) if lengths is None else lengths
        state: Tensor = self(x, lengths, self.start(len(x)))[1]
        return state[:, -self.classes :]

    def seen(self, x: Tensor) -> Tensor:
        """x [B, T, F] -> deviations from the means [T, B, F]."""
        return ((x - self.mean) / self.scale).clamp(-FARTHEST, FARTHEST).transpose(0, 1)

    def logits(self, y: Tensor) -> Tensor:
        """y [..., H + CH] -> scores [..., K], or values in their own units."""
        logits: Tensor = self.readout(y).float()
        return logits * self.value_scale + self.value_mean if self.config.value_mean else logits

    def _pooled(self, y: Tensor, lengths: Tensor, pool: Tensor) -> tuple[Tensor, Tensor]:
        """y [T, B, H] beside its leaky means, sum_t = a sum_{t-1} + (1 - a) y_t over weight_t, the same of ones -> [T, B, H + CH], pool.

        Both are IndRNNs with identity activation and U = a, as in the action network.
        """
        C, H = len(self.config.pools), self.config.hidden
        if not C:
            return y, pool
        every = torch.cat([*[y] * C, y.new_ones(*y.shape[:2], C)], 2)  # [T, B, CH + C]
        sums, pool = recurrence(every.float() * (1 - self.leak), self.leak, lengths, pool, activation="identity")  # [T, B, CH + C]
        share = sums[..., C * H :].clamp_min(1e-6).reciprocal()  # [T, B, C]; the clamp is for steps past a row's length
        means = sums[..., : C * H].view(*y.shape[:2], C, H) * share[..., None]  # [T, B, C, H]
        return torch.cat([y, means.flatten(2)], 2), pool

    def parts(self) -> tuple[StatePart, ...]:
        """Return the state's parts in order, as the manifest lists them."""
        pool = StatePart("pool", self.sizes[1], activation="identity", u=tuple(self.leak.tolist()))
        last = StatePart("last_logits", self.classes)
        return (*self.stack.parts(), *([pool] if self.config.pools else []), last)

    def fold_(self) -> None:
        """Moves batch norm into the linear maps; centres scores."""
        self.stack.fold_()
        if not self.config.value_mean:
            centre_(self.readout)
