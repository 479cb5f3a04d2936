"""The words network: word numbers in, scores of the next word after each, all state in one vector.

Word -> embedding E [H] -> layers y_1 = r(W E + b), y_l = y_{l-1} + r(W y_{l-1} + b), where r is batch norm, then
h_t = relu(a_t + u * h_{t-1}) (another `cell`: its own equations) -> scores by the same embedding, E y / sqrt(H) + c [K] (Press and Wolf,
2017; Li et al., 2019, section 5.2.3).
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

from indrnn.model.cells.stacks import StackOptions, skip_chain
from indrnn.model.nets.network import StackNet, last_valid
from indrnn.model.nets.options import BOUND, CELL, CLASSES, DROPOUT, HIDDEN, LAYERS, NORM, READOUT_DROPOUT


@dataclass(frozen=True)
class WordsConfig(StackOptions):
    """Sizes of the network; classes: words. Dropout with one mask for all steps, of the embedding, between layers, and of the last."""

    classes: int = field(default=10_000, metadata=CLASSES)
    hidden: int = field(default=512, metadata=HIDDEN)
    layers: int = field(default=4, metadata=LAYERS)
    bound: float = field(default=0.99, metadata=BOUND)
    embedding_dropout: float = field(default=0.4, metadata={"help": "of the embedding, one mask for all steps"})
    dropout: float = field(default=0.3, metadata=DROPOUT)
    readout_dropout: float = field(default=0.4, metadata=READOUT_DROPOUT)
    norm: bool = field(default=True, metadata=NORM)
    cell: str = field(default="indrnn", metadata=CELL)


class WordsNet(StackNet):
    """x [B, T] int64 in [0, K); lengths [B] int64; state [B, N] -> logits [B, T, K] of the word after each, state [B, N].

    A zero row of state is the start: last_logits 0 is a uniform first guess. State parts in order: hidden of each layer, last_logits.
    """

    def __init__(self, config: WordsConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embedding = nn.Embedding(c.classes, c.hidden)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.stack = skip_chain(c.hidden, c.hidden, c.layers, c.bound, c.dropout, c.norm, c.cell).taking(c)
        self.bias = nn.Parameter(torch.zeros(c.classes))
        self.sizes = [self.stack.state_size, c.classes]

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the shapes that the class names."""
        carried, last_logits = torch.split_with_sizes(state, self.sizes, 1)  # [B, S], [B, K]
        seen = self.seen(x)  # [T, B, H] embedded
        y, carried = self.stack(seen, lengths, carried)  # [T, B, H], [B, S]
        logits = self.logits(y).transpose(0, 1)  # [B, T, K]
        return logits, torch.cat([carried, last_valid(last_logits, logits, lengths)], 1)

    def seen(self, x: Tensor) -> Tensor:
        """x [B, T] -> embedded words [T, B, H]."""
        return self._dropped(self.embedding(x.transpose(0, 1)), self.config.embedding_dropout)

    def logits(self, y: Tensor) -> Tensor:
        """y [T, B, H] -> [T, B, K]."""
        y = self._dropped(y, self.config.readout_dropout) * self.config.hidden**-0.5
        return F.linear(y, self.embedding.weight, self.bias).float()

    def _dropped(self, x: Tensor, share: float) -> Tensor:
        """x [T, B, H] with a share of the features of each row at 0 for all steps, in training."""
        return x * F.dropout(x.new_ones(1, *x.shape[1:]), share, self.training)

    def fold_(self) -> None:
        """Moves batch norm into the linear maps. The logits keep their mean: the embedding that makes them also reads."""
        self.stack.fold_()
