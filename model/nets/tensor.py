"""The tensor network: rows of raw numbers in, classes or values after each out, all state in one vector.

Numbers -> each less its mean, over its deviation -> residual stack of IndRNN layers -> scores of classes, or values in their own units.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.cells.stacks import skip_chain
from indrnn.model.nets.network import StackNet, centre_

FARTHEST = 100.0  # deviations from the mean; what is farther counts as here, so that no number that a client sends overflows


@dataclass(frozen=True)
class TensorConfig:
    """Sizes of the network. mean, scale: of each of the F features. value_mean, value_scale: of each of the K values; none for classes."""

    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    classes: int = 2
    value_mean: tuple[float, ...] = ()
    value_scale: tuple[float, ...] = ()
    hidden: int = field(default=128, metadata={"help": "neurons H of a layer"})
    layers: int = field(default=3, metadata={"help": "IndRNN layers"})
    bound: float = field(default=0.99, metadata={"help": "largest |u|: below 1 a stream may be endless"})
    dropout: float = field(default=0.1, metadata={"help": "after each layer, one mask for all steps"})
    norm: bool = field(default=True, metadata={"help": "batch norm"})


class TensorNet(StackNet):
    """x [B, T, F] raw; lengths [B] int64; state [B, N] -> logits [B, T, K] after each step, scores or values, state [B, N].

    A zero row of state is the start. State parts in order: hidden of each layer, last_logits.
    """

    mean: Tensor
    scale: Tensor
    value_mean: Tensor
    value_scale: Tensor

    def __init__(self, config: TensorConfig) -> None:
        super().__init__()
        c = self.config = config
        if len(c.mean) != len(c.scale) or len(c.value_mean) != len(c.value_scale) or len(c.value_mean) not in (0, c.classes):
            raise SizeError(f"expected a mean and a scale for each feature and each value, got {c}")
        for name in ("mean", "scale", "value_mean", "value_scale"):
            self.register_buffer(name, torch.tensor(getattr(c, name)), persistent=False)
        self.stack = skip_chain(nn.Linear(len(c.mean), c.hidden), c.hidden, c.layers, c.bound, c.dropout, c.norm)
        self.readout = nn.Linear(c.hidden, c.classes)
        nn.init.zeros_(self.readout.weight)  # an untrained net knows nothing: uniform scores, mean values
        nn.init.zeros_(self.readout.bias)
        self.sizes = [self.stack.state_size, c.classes]

    def seen(self, x: Tensor) -> Tensor:
        """x [B, T, F] -> deviations from the means [T, B, F]."""
        return ((x - self.mean) / self.scale).clamp(-FARTHEST, FARTHEST).transpose(0, 1)

    def logits(self, y: Tensor) -> Tensor:
        """y [..., H] -> scores [..., K], or values in their own units."""
        logits = super().logits(y)
        return logits * self.value_scale + self.value_mean if self.config.value_mean else logits

    def fold_(self) -> None:
        """Moves batch norm into the linear maps; centres scores."""
        self.stack.fold_()
        if not self.config.value_mean:
            centre_(self.readout)
