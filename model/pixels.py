"""The pixels network: one number after another in, class scores after each, all state in one vector.

Pixel -> stack of IndRNN layers -> classes. Li et al., 2019, section 5.2.2: 6 layers of 128 neurons for images of 784 steps.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.network import Stack, StateNet, centre_, last_valid


@dataclass(frozen=True)
class PixelsConfig:
    """Sizes of the network. steps T: the length it is made for; |u| <= gain^(1/T), so that a gradient grows no more than gain-fold."""

    classes: int = 10
    hidden: int = 128
    layers: int = 6
    steps: int = 784
    gain: float = 2.0
    dropout: float = 0.0
    norm: bool = True


class PixelsNet(StateNet):
    """x [B, T] float in [-1, 1]; lengths [B] int64; state [B, N] -> logits [B, T, K] after each number, state [B, N].

    A zero row of state is the start. State parts in order: hidden of each layer, last_logits.
    """

    def __init__(self, config: PixelsConfig) -> None:
        super().__init__()
        c = self.config = config
        bound = c.gain ** (1 / c.steps)
        self.stack = Stack(nn.Linear(1, c.hidden), c.hidden, c.layers, bound, c.dropout, c.norm)
        self._remember(1 / bound, bound)
        self.readout = nn.Linear(c.hidden, c.classes)
        nn.init.zeros_(self.readout.weight)  # an untrained net knows nothing: uniform scores
        nn.init.zeros_(self.readout.bias)
        self.sizes = [c.layers * c.hidden, c.classes]

    @torch.no_grad()
    def _remember(self, low: float, high: float) -> None:
        """Starts the last layer at u in [low, high], near 1: the answer at the end rests on all steps (Li et al., 2019, section 5.1).

        A sum over T steps of white noise of unit variance has variance T: the norm before it starts so as to make that 1.
        """
        last = self.stack.indrnns()[-1]
        last.u.uniform_(low, high)
        if last.norm is not None:
            last.norm.weight.fill_(self.config.steps**-0.5)

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        hidden, last_logits = torch.split_with_sizes(state, self.sizes, 1)
        y, hidden = self.stack(x.t()[:, :, None], lengths, hidden)  # [T, B, H]
        logits = self.readout(y).float().transpose(0, 1)  # [B, T, K]
        return logits, torch.cat([hidden, last_valid(last_logits, logits, lengths)], 1)

    def answer(self, x: Tensor) -> Tensor:
        """x [B, T], whole sequences -> logits [B, K] after the last number, the only ones that are asked for here."""
        B, T = x.shape
        hidden = x.new_zeros(B, self.sizes[0])
        y, _ = self.stack(x.t()[:, :, None], torch.full((B,), T, device=x.device), hidden)
        logits: Tensor = self.readout(y[-1])
        return logits.float()

    def parts(self) -> tuple[dict[str, Any], ...]:
        """The state's parts in order, as the manifest lists them."""
        return (*self.stack.parts(), {"role": "last_logits", "layer": None, "size": self.config.classes, "activation": None, "u": None})

    def fold_(self) -> None:
        """Moves batch norm into the linear maps; centres the logits."""
        self.stack.fold_()
        centre_(self.readout)
