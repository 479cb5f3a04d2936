"""The detecting network: the action network with a class for nothing, and hysteresis behind its scores, all state in one vector.

Answers after each frame are the K logits, the first of them nothing's, and three numbers that say whether an event is told there: its class
(0: none), how many frames ago it began, its score (model/nets/hysteresis.py).
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from indrnn.model.cells.cell import StatePart
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.cells.stacks import ANSWERS_AT_ONCE
from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.nets.hysteresis import COLUMNS, Hysteresis
from indrnn.model.nets.network import StateNet, last_valid


@dataclass(frozen=True)
class DetectConfig(ActionConfig):
    """Sizes of the network; classes: K, nothing included. on, off, least, pause: the hysteresis, chosen on held streams after training.

    Two configurations that differ in these four alone are the same network. The distances between joints are shown unless told otherwise:
    all figures of docs/detection.md were made so, and those of NW-UCLA and HDM05 are better for it.
    """

    apart: bool = True
    on: float = field(default=0.5, compare=False)
    off: float = field(default=0.3, compare=False)
    least: int = field(default=2, compare=False)
    pause: int = field(default=15, compare=False)


class DetectNet(StateNet):
    """x [B, T, P, J, 3] metres; lengths [B]; state [B, N] -> [B, T, K + 3] after each frame, state [B, N].

    A zero row of state is the start. State parts in order: those of the action network but its last, event, last_logits.
    """

    def __init__(self, config: DetectConfig) -> None:
        super().__init__()
        self.config = config
        if config.bidirectional:
            raise SizeError(ANSWERS_AT_ONCE)
        self.classifier = ActionNet(config)
        self.hysteresis = Hysteresis(config.classes, config.on, config.off, config.least, config.pause)
        self.sizes = [*self.classifier.sizes[:-1], self.hysteresis.state_size, config.classes + COLUMNS]

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the shapes that the class names."""
        K = self.config.classes
        carried, event, last = torch.split_with_sizes(state, [sum(self.sizes[:-2]), *self.sizes[-2:]], 1)  # [B, N - E - L], [B, E], [B, L]
        logits, carried = self.classifier(x, lengths, torch.cat([carried, last[:, :K]], 1))  # [B, T, K], [B, N - E - L + K]
        events, event = self.hysteresis(logits.softmax(2).transpose(0, 1), lengths, event)  # [T, B, 3], [B, E]
        answers = torch.cat([logits, events.transpose(0, 1)], 2)  # [B, T, L]
        return answers, torch.cat([carried[:, :-K], event, last_valid(last, answers, lengths)], 1)

    def told(self) -> dict[str, Any]:
        """Return what the manifest says of the network's events."""
        c = self.config
        return {"events": {"on": c.on, "off": c.off, "least": c.least, "pause": c.pause}}

    def set_hysteresis(self, on: float, off: float, least: int, pause: int) -> None:
        """Put another hysteresis in the place of the network's own."""
        self.config = dataclasses.replace(self.config, on=on, off=off, least=least, pause=pause)
        self.hysteresis = Hysteresis(self.config.classes, on, off, least, pause)

    def parts(self) -> tuple[StatePart, ...]:
        """Return the state's parts in order, as the manifest lists them."""
        return (*self.classifier.parts()[:-1], *self.hysteresis.parts(), StatePart("last_logits", self.sizes[-1]))

    def fold_(self) -> None:
        """Moves batch norm and the features' scale into the weights; centres the logits."""
        self.classifier.fold_()
