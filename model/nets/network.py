"""What every network of ours is: a module that carries its whole state in one vector, and can be folded for serving."""

import copy
from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn

from indrnn.model.cells.cell import StatePart


@torch.no_grad()
def centre_(readout: nn.Linear, classes: int | None = None) -> None:
    """Takes the mean over the first so many classes (all) out of their logits: the scores (softmax) stay, and what is left is small.

    Training is free to move all logits together; 12 million characters into it some stood at 155, and their rounding errors with them.
    """
    weight, bias = readout.weight[:classes], readout.bias[:classes]
    weight.sub_(weight.mean(0))
    bias.sub_(bias.mean())


class StateNet(nn.Module, ABC):
    """A network that carries its whole state in one vector: forward(x, lengths [B], state [B, N]) -> logits [B, T, K], state [B, N].

    sizes: length of the state's stretches in order; the last is last_logits, the logits [K] after the last step consumed.
    """

    config: Any  # a frozen dataclass
    sizes: list[int]

    @property
    def state_size(self) -> int:
        """Return N, the size of the whole state."""
        return sum(self.sizes)

    @property
    def classes(self) -> int:
        """Return K, the number of classes."""
        return self.sizes[-1]

    def start(self, rows: int) -> Tensor:
        """Return the state [rows, N] of sequences that begin."""
        return torch.zeros(rows, self.state_size, device=next(self.parameters()).device)

    @property
    def streams(self) -> bool:
        """Return whether a sequence can be read in pieces; a network whose layers go both ways looks at whole ones."""
        return not getattr(self.config, "bidirectional", False)

    @property
    def longest(self) -> int | None:
        """Return how many steps it looks at at most; None: as many as come."""
        return None

    @property
    def cell(self) -> str:
        """Return the name of the cell that the network is made of, in model/cells/table.py."""
        name: str = self.config.cell
        return name

    @abstractmethod
    def parts(self) -> tuple[StatePart, ...]:
        """Return the state's parts in order, as the manifest lists them."""

    def told(self) -> dict[str, Any]:
        """Return entries of the manifest that the network alone knows: that it has no stream, where it has none."""
        return {} if self.streams else {"streams": False}

    @abstractmethod
    def fold_(self) -> None:
        """Moves batch norm and feature scales into the neighbouring linear maps and centres the logits."""

    def fold(self) -> Self:
        """The same scores without batch norm and feature scales, in evaluation mode; logits differ by their mean, which becomes 0."""
        net = copy.deepcopy(self).eval()
        net.fold_()
        return net


class StackNet(StateNet):
    """A stack of layers (model/cells/stacks.py) between what is seen of x and a read-out; `forward` of each network says the whole way.

    sizes: of the stack's state, of last_frame where what was seen last is kept, of last_logits. A zero row of state is the start.
    """

    stack: Any  # a Stack, or a module of its shape
    readout: nn.Linear

    def not_online(self) -> str | None:
        """Return what the traces of its stack would need to tell how all of its state depends on its weights; None: nothing."""
        return "a network whose weights all stand in its chain of layers or behind it"

    @abstractmethod
    def seen(self, x: Tensor) -> Tensor:
        """x [B, T, ...] -> what the stack reads, [T, B, in] or symbols [T, B]."""

    def logits(self, y: Tensor) -> Tensor:
        """y [..., H] of the stack -> answers [..., K]."""
        logits: Tensor = self.readout(y)
        return logits.float()

    def answer(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x [B, T, ...] whole sequences, lengths [B] of 1 and more (default T) -> [B, K] after each one's last step, and only there."""
        return self.logits(self.stack.final(self.seen(x), lengths))

    def parts(self) -> tuple[StatePart, ...]:
        """Return the state's parts in order, as the manifest lists them."""
        roles = ("last_logits",) if len(self.sizes) == 2 else ("last_frame", "last_logits")
        return (*self.stack.parts(), *(StatePart(role, size) for role, size in zip(roles, self.sizes[1:], strict=True)))

    def fold_(self) -> None:
        """Moves batch norm into the linear maps where it can be; centres the logits."""
        self.stack.fold_()
        centre_(self.readout)


def last_valid(start: Tensor, steps: Tensor, lengths: Tensor) -> Tensor:
    """Return what stands after each row's last step: start [B, F] for length 0, else steps [B, T, F] at lengths - 1 -> [B, F]."""
    every = torch.cat([start[:, None], steps], 1)
    index = lengths[:, None, None].expand(-1, 1, every.shape[2])
    return every.gather(1, index).squeeze(1)
