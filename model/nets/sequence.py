"""The sequence network: a row of features per step in, answers after each step, all state in one vector.

Features -> a stack of any kind (model/cells/stacks.py) -> K numbers: scores of classes, or what is to be told of the sequence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from indrnn.model.cells.stacks import StackConfig, build_stack
from indrnn.model.nets.network import StackNet, centre_, last_valid


@dataclass(frozen=True)
class SequenceConfig(StackConfig):
    """The stack, and around it: inputs F of a step, classes K, and whether the answers are scores, whose mean means nothing (`scores`).

    frames: the state keeps the last step's input too, as the service asks of what reads skeletons.
    """

    inputs: int = 1
    classes: int = 10
    scores: bool = True
    frames: bool = False


class SequenceNet(StackNet):
    """x [B, T, ...] of F features a step; lengths [B] int64; state [B, N] -> logits [B, T, K] after each step, state [B, N].

    A zero row of state is the start. State parts in order: the stack's, last_frame where frames are kept, last_logits.
    """

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        c = self.config = config
        self.stack = build_stack(c, c.inputs)
        self.readout = nn.Linear(self.stack.out_features, c.classes)
        nn.init.zeros_(self.readout.bias)
        self.sizes = [self.stack.state_size, *([c.inputs] if c.frames else []), c.classes]

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the shapes that the class names."""
        carried, *frame, last_logits = torch.split_with_sizes(state, self.sizes, 1)  # [B, S]
        seen = self.seen(x)  # [T, B, F]
        y, carried = self.stack(seen, lengths, carried)  # [T, B, H], [B, S]
        logits = self.logits(y).transpose(0, 1)  # [B, T, K]
        frame = [last_valid(last, seen.transpose(0, 1), lengths) for last in frame]  # none, or of [B, F]
        return logits, torch.cat([carried, *frame, last_valid(last_logits, logits, lengths)], 1)

    def seen(self, x: Tensor) -> Tensor:
        """x [B, T, ...] -> frames [T, B, F]."""
        return x.flatten(2).transpose(0, 1)

    def fold_(self) -> None:
        """Moves batch norm into the linear maps where it can be; centres scores."""
        self.stack.fold_()
        if self.config.scores:
            centre_(self.readout)
