"""The sequence network: a row of features per step in, answers after each step, all state in one vector.

Features -> a stack of any kind (model/stacks.py) -> K numbers: scores of classes, or what is to be told of the sequence.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.network import StateNet, centre_, last_valid
from model.stacks import StackConfig, build_stack


@dataclass(frozen=True)
class SequenceConfig(StackConfig):
    """The stack, and around it: inputs F of a step, classes K, and whether the answers are scores, whose mean means nothing (`scores`).

    frames: the state keeps the last step's input too, as the service asks of what reads skeletons.
    """

    inputs: int = 1
    classes: int = 10
    scores: bool = True
    frames: bool = False


class SequenceNet(StateNet):
    """x [B, T, ...] of F features a step; lengths [B] int64; state [B, N] -> logits [B, T, K] after each step, state [B, N].

    A zero row of state is the start. State parts in order: the stack's, last_frame where frames are kept, last_logits.
    """

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        c = self.config = config
        self.stack = build_stack(c, c.inputs)
        self.readout = nn.Linear(self.stack.out_features, c.classes)
        nn.init.zeros_(self.readout.bias)
        self.sizes = [self.stack.state_size, c.inputs if c.frames else 0, c.classes]

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        carried, last_frame, last_logits = torch.split_with_sizes(state, self.sizes, 1)
        frames = x.flatten(2)  # [B, T, F]
        y, carried = self.stack(frames.transpose(0, 1), lengths, carried)  # [T, B, H]
        logits = self.readout(y).float().transpose(0, 1)  # [B, T, K]
        kept = [last_valid(last_frame, frames, lengths)] if self.config.frames else []
        return logits, torch.cat([carried, *kept, last_valid(last_logits, logits, lengths)], 1)

    def answer(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x [B, T, ...] whole sequences, lengths [B] of 1 and more (default T) -> [B, K] after each one's last step, and only there."""
        answers: Tensor = self.readout(self.stack.final(x.flatten(2).transpose(0, 1), lengths)).float()
        return answers

    def parts(self) -> tuple[dict[str, Any], ...]:
        """The state's parts in order, as the manifest lists them."""
        frame = {"role": "last_frame", "layer": None, "size": self.config.inputs, "activation": None, "u": None}
        logits = {"role": "last_logits", "layer": None, "size": self.config.classes, "activation": None, "u": None}
        return (*self.stack.parts(), *([frame] if self.config.frames else []), logits)

    def fold_(self) -> None:
        """Moves batch norm into the linear maps where it can be; centres scores."""
        self.stack.fold_()
        if self.config.scores:
            centre_(self.readout)
