"""What every network of ours is: a module that carries its whole state in one vector, and can be folded for serving."""

import copy
from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn


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


def last_valid(start: Tensor, steps: Tensor, lengths: Tensor) -> Tensor:
    """What stands after each row's last step: start [B, F] for length 0, else steps [B, T, F] at lengths - 1 -> [B, F]."""
    every = torch.cat([start[:, None], steps], 1)
    index = lengths[:, None, None].expand(-1, 1, every.shape[2])
    return every.gather(1, index).squeeze(1)
