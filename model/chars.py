"""The chars network: symbols in, scores of the next symbol after each, all state in one vector.

Symbols -> embedding -> residual stack of IndRNN layers -> scores of the next symbol.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from model.network import StateNet, centre_, last_valid
from model.stacks import skip_chain

# Folded nets answer no less than this. Training pushes symbols that it saw three times to logits of -150, where rounding errors of two
# runtimes differ by 1e-4 about a chance of e^-180; with the bound they differ by a sixth of that, and no such symbol costs 200 bits.
LEAST_LOGIT = -30.0


@dataclass(frozen=True)
class CharsConfig:
    """Sizes of the network; classes is the length K of the alphabet."""

    classes: int
    hidden: int = field(default=640, metadata={"help": "neurons H of a layer"})
    layers: int = field(default=5, metadata={"help": "IndRNN layers"})
    bound: float = field(default=0.99, metadata={"help": "largest |u|: below 1 a stream may be endless"})
    dropout: float = field(default=0.0, metadata={"help": "after each layer, one mask for all steps"})
    norm: bool = field(default=True, metadata={"help": "batch norm"})


class CharsNet(StateNet):
    """x [B, T] int64 in [0, K); lengths [B] int64; state [B, N] -> logits [B, T, K] of the symbol after each, state [B, N].

    A zero row of state is the start: last_logits 0 is a uniform first guess. State parts in order: hidden of each layer, last_logits.
    """

    def __init__(self, config: CharsConfig) -> None:
        super().__init__()
        c = self.config = config
        self.stack = skip_chain(nn.Embedding(c.classes, c.hidden), c.hidden, c.layers, c.bound, c.dropout, c.norm)
        self.readout = nn.Linear(c.hidden, c.classes)
        nn.init.zeros_(self.readout.weight)  # an untrained net knows nothing: uniform scores
        nn.init.zeros_(self.readout.bias)
        self.least: float | None = None
        self.sizes = [c.layers * c.hidden, c.classes]

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        hidden, last_logits = torch.split_with_sizes(state, self.sizes, 1)
        y, hidden = self.stack(x.transpose(0, 1), lengths, hidden)  # [T, B, H]
        logits = self.readout(y).float().transpose(0, 1)  # [B, T, K]
        if self.least is not None:
            logits = logits.clamp_min(self.least)
        return logits, torch.cat([hidden, last_valid(last_logits, logits, lengths)], 1)

    def parts(self) -> tuple[dict[str, Any], ...]:
        """The state's parts in order, as the manifest lists them."""
        return (*self.stack.parts(), {"role": "last_logits", "layer": None, "size": self.config.classes, "activation": None, "u": None})

    def fold_(self) -> None:
        """Moves batch norm into the embedding and the linear maps; centres the logits and bounds them from below."""
        self.stack.fold_()
        centre_(self.readout)
        self.least = LEAST_LOGIT
