"""The labels network: a picture in, a class of each of its pixels out, and the answer goes round as an input of the next look.

Pinheiro and Collobert, 2014, "Recurrent convolutional neural networks for scene labeling": a convolutional network f reads the picture I
beside the planes of labels that it gave itself before, with the same weights each time,

    F^p = f([F^(p-1), I]),  F^0 = 0,  p = 1 to P

and is trained so that each of its P answers is right: the loss is the mean of theirs (the paper adds log-likelihoods up). What f sees of a
picture grows with each round, and its weights do not. Here f is `layers` convolutions of 3 x 3 with relu and one of 1 x 1, and the planes
that go round are probabilities (softmax). In the paper a round works at another scale of the picture; here all work at its own.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

from indrnn.model.cells.cell import StatePart
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.options import CLASSES

FARTHEST = 100.0  # of a pixel from 0; a number beyond counts as this one


@dataclass(frozen=True)
class LabelsConfig:
    """Sizes of the network. columns W of a picture; rounds P, 1: without the loop; hidden: maps C of a convolution."""

    columns: int = 16
    classes: int = field(default=3, metadata=CLASSES)
    hidden: int = field(default=24, metadata={"help": "maps of a convolution"})
    layers: int = field(default=3, metadata={"help": "convolutions of 3 x 3"})
    rounds: int = field(default=5, metadata={"help": "answers, each an input of the next; 1: no loop"})


class LabelsNet(StateNet):
    """x [B, T, W] of pixels, row by row; lengths [B]; state [B, N] -> logits [B, T, W K], K of each pixel of a row, state [B, N].

    A picture may have any number of rows; what lies past its last one is not looked at. Of the state only the last row's answer goes from
    picture to picture, and nothing reads it.
    """

    def __init__(self, config: LabelsConfig) -> None:
        super().__init__()
        c = self.config = config
        widths = [1 + c.classes] + [c.hidden] * c.layers
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(widths))
        self.readout = nn.Conv2d(c.hidden, c.classes, 1)
        self.sizes = [c.columns * c.classes]

    @property
    def streams(self) -> bool:
        """Return False: a picture is looked at as a whole."""
        return False

    @property
    def cell(self) -> str:
        """Return what its layers are, which are no cells: nothing is carried from step to step."""
        return "label_loop"

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the shapes that the class names."""
        there = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # [B, T]
        seen = torch.where(there[:, :, None], x, 0.0)  # [B, T, W]
        more = F.pad(seen, (0, 0, 0, 1))  # [B, T + 1, W]: a row that is not there, since a convolution takes no picture of none
        planes = self.rounds(more, F.pad(there, (0, 1)))[-1]  # [B, K, T + 1, W]
        logits = planes.permute(0, 2, 3, 1).flatten(2)[:, : x.shape[1]]  # [B, T, W K]
        every = torch.cat([state[:, None], logits], 1)  # [B, T + 1, W K]
        index = lengths[:, None, None].expand(-1, 1, every.shape[2])  # [B, 1, W K]
        return logits, every.gather(1, index).squeeze(1)

    def rounds(self, picture: Tensor, there: Tensor | None = None) -> list[Tensor]:
        """picture [B, T, W], there [B, T]: which rows it has (None: all) -> logits [B, K, T, W] of each round."""
        seen = picture[:, None].clamp(-FARTHEST, FARTHEST)
        mask = None if there is None else there[:, None, :, None].to(seen.dtype)
        labels = torch.zeros_like(seen).expand(-1, self.config.classes, -1, -1)
        found = []
        for _ in range(self.config.rounds):
            y = torch.cat([seen, labels], 1)
            y = y if mask is None else y * mask
            for layer in self.layers:
                y = F.relu(layer(y))
                y = y if mask is None else y * mask  # below a picture's last row is what stands around every picture
            logits = self.readout(y).float()
            found.append(logits)
            labels = logits.softmax(1)
        return found

    def parts(self) -> tuple[StatePart, ...]:
        """Return the state's one part."""
        return (StatePart("last_logits", self.sizes[0]),)

    def fold_(self) -> None:
        """Do nothing: there is no norm, and the scores of a pixel are few."""
