"""The chars network: symbols in, scores of the next symbol after each, all state in one vector.

Symbol -> embedding E [H] -> layers y_1 = r(E), y_l = y_{l-1} + r(W y_{l-1} + b), where r is batch norm, then h_t = relu(a_t + u * h_{t-1})
(another `cell`: its own equations) -> scores V y + c [K] of the next symbol.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from indrnn.model.cells.stacks import StackOptions, skip_chain
from indrnn.model.nets.network import StackNet, centre_, last_valid
from indrnn.model.nets.options import BOUND, CELL, DROPOUT, HIDDEN, LAYERS, NORM

# Folded nets answer no less than this. Training pushes symbols that it saw three times to logits of -150, where rounding errors of two
# runtimes differ by 1e-4 about a chance of e^-180; with the bound they differ by a sixth of that, and no such symbol costs 200 bits.
LEAST_LOGIT = -30.0


@dataclass(frozen=True)
class CharsConfig(StackOptions):
    """Sizes of the network; classes is the length K of the alphabet. unknown: its last place is for symbols that it lacks."""

    classes: int
    hidden: int = field(default=640, metadata=HIDDEN)
    layers: int = field(default=5, metadata=LAYERS)
    bound: float = field(default=0.99, metadata=BOUND)
    dropout: float = field(default=0.0, metadata=DROPOUT)
    norm: bool = field(default=True, metadata=NORM)
    cell: str = field(default="indrnn", metadata=CELL)
    unknown: bool = False


class CharsNet(StackNet):
    """x [B, T] int64 in [0, K); lengths [B] int64; state [B, N] -> logits [B, T, K] of the symbol after each, state [B, N].

    A zero row of state is the start: last_logits 0 is a uniform first guess. State parts in order: hidden of each layer, last_logits.
    """

    def __init__(self, config: CharsConfig) -> None:
        super().__init__()
        c = self.config = config
        self.stack = skip_chain(nn.Embedding(c.classes, c.hidden), c.hidden, c.layers, c.bound, c.dropout, c.norm, c.cell).taking(c)
        self.readout = nn.Linear(c.hidden, c.classes)
        nn.init.zeros_(self.readout.weight)  # an untrained net knows nothing: uniform scores
        nn.init.zeros_(self.readout.bias)
        if c.unknown:  # such a symbol is read and never written
            nn.init.constant_(self.readout.bias[-1:], LEAST_LOGIT)
        self.least: float | None = None
        self.sizes = [self.stack.state_size, c.classes]

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the shapes that the class names."""
        carried, last_logits = torch.split_with_sizes(state, self.sizes, 1)  # [B, S], [B, K]
        seen = self.seen(x)  # [T, B] symbols
        y, carried = self.stack(seen, lengths, carried)  # [T, B, H], [B, S]; the first layer embeds
        logits = self.logits(y).transpose(0, 1)  # [B, T, K]
        return logits, torch.cat([carried, last_valid(last_logits, logits, lengths)], 1)

    def not_online(self) -> None:
        """Return None: symbols are embedded by the first layer, and read out behind the last."""

    def seen(self, x: Tensor) -> Tensor:
        """x [B, T] -> symbols [T, B]."""
        return x.transpose(0, 1)

    def logits(self, y: Tensor) -> Tensor:
        """y [..., H] -> scores [..., K]; those of a folded net are no less than LEAST_LOGIT."""
        logits: Tensor = self.readout(y).float()
        return logits if self.least is None else logits.clamp_min(self.least)

    def fold_(self) -> None:
        """Moves batch norm into the embedding and the linear maps; centres the logits and bounds them from below."""
        known = self.config.classes - self.config.unknown
        self.stack.fold_()
        with torch.no_grad():
            self.readout.weight[known:].zero_()
            self.readout.bias[known:].fill_(LEAST_LOGIT)
            centre_(self.readout, known)
        self.least = LEAST_LOGIT
