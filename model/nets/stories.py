"""The memory network of stories: a sentence a step in, scores of the answer after each, all state in one vector.

A sentence is a row of W word numbers, 0 past its end -> the memory (model/cells/classic/memory.py) -> what was found [H] -> scores [K].
"""

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from indrnn.model.cells.cell import StatePart
from indrnn.model.cells.classic.memory import Memory
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.cells.stacks import ANSWERS_AT_ONCE, StackOptions
from indrnn.model.cells.table import CELLS
from indrnn.model.nets.network import StateNet, centre_, last_valid
from indrnn.model.nets.options import BOUND, CLASSES, DROPOUT


@dataclass(frozen=True)
class StoriesConfig(StackOptions):
    """Sizes of the network. words: how many there are; width W: words of a sentence; classes K: answers. cell: memory, or of the table.

    memory: slots M, hops K and numbers d (`hidden`); another cell: layers of `hidden` neurons.
    """

    words: int = 1
    width: int = 1
    classes: int = field(default=2, metadata=CLASSES)
    cell: str = field(default=Memory.name, metadata={"choices": (Memory.name, *CELLS), "help": "what remembers"})
    hidden: int = field(default=32, metadata={"help": "numbers of an embedding; neurons of a layer"})
    slots: int = field(default=64, metadata={"help": "memory: sentences that it holds"})
    hops: int = field(default=3, metadata={"help": "memory: how often it is looked up for a question"})
    layers: int = field(default=1, metadata={"help": "recurrent layers, of a cell that is no memory"})
    bound: float = field(default=0.99, metadata=BOUND)
    dropout: float = field(default=0.0, metadata=DROPOUT)


class StoryNet(StateNet):
    """x [B, T, W] word numbers; lengths [B] int64; state [B, N] -> logits [B, T, K] after each sentence, state [B, N]."""

    config: StoriesConfig
    readout: nn.Linear

    @abstractmethod
    def ask(self, told: Tensor, lengths: Tensor, asked: Tensor) -> Tensor:
        """told [B, T, W], lengths [B], asked [B, W] -> logits [B, K] of what is asked after the sentences that are told."""

    def fold_(self) -> None:
        """Centres the logits."""
        centre_(self.readout)


class MemoryNet(StoryNet):
    """A memory and a read-out. A zero row of state is the start: no sentence is held. State parts in order: slots, last_logits."""

    def __init__(self, config: StoriesConfig) -> None:
        super().__init__()
        c = self.config = config
        if c.h0 != "zero" or c.norm_penalty:
            raise SizeError(f"expected a cell that is no memory beside --h0 {c.h0} and --norm-penalty {c.norm_penalty:g}, got {c.cell!r}")
        if c.bidirectional:
            raise SizeError(ANSWERS_AT_ONCE)
        self.memory = Memory(c.width, c.hidden, c.words, c.slots, c.hops)
        self.readout = nn.Linear(c.hidden, c.classes)
        nn.init.zeros_(self.readout.bias)
        self.sizes = [self.memory.state_size, c.classes]

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the shapes that the class names."""
        slots, last_logits = torch.split_with_sizes(state, self.sizes, 1)  # [B, M W], [B, K]
        words = x.transpose(0, 1)  # [T, B, W]
        y, slots = self.memory(words, lengths, slots)  # [T, B, H], [B, M W]
        logits = self.readout(y).transpose(0, 1)  # [B, T, K]
        return logits, torch.cat([slots, last_valid(last_logits, logits, lengths)], 1)

    def ask(self, told: Tensor, lengths: Tensor, asked: Tensor) -> Tensor:
        """Look at all sentences at once, as the class says."""
        M = self.config.slots
        at = lengths[:, None] - M + torch.arange(M, device=told.device)
        held = told.gather(1, at.clamp_min(0)[..., None].expand(-1, -1, told.shape[2])) * (at >= 0)[..., None]
        logits: Tensor = self.readout(self.memory.find(held, asked))
        return logits

    def parts(self) -> tuple[StatePart, ...]:
        """Return the state's parts in order, as the manifest lists them."""
        (slots,) = self.memory.parts()
        return StatePart(slots.role, slots.size, 0, slots.name), StatePart("last_logits", self.classes)
