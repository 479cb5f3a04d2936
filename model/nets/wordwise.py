"""The network that the memory network is compared with: layers of any cell that read a story word by word, all state in one vector.

A sentence is a row of W word numbers, 0 past its end; each of them, the zeros too -> embedding E [H] -> layers y_1 = r(E), y_l = y_{l-1} +
r(W y_{l-1} + b), r the cell's own equations -> after a sentence's last word scores [K].
"""

import torch
from torch import Tensor, nn

from indrnn.model.cells.classic.memory import numbers
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.cells.stacks import skip_chain
from indrnn.model.cells.table import CELLS
from indrnn.model.nets.network import StackNet, last_valid
from indrnn.model.nets.stories import StoriesConfig, StoryNet


class WordwiseNet(StoryNet, StackNet):
    """Layers of a cell that read every sentence word by word, all W of them, and answer after its last. State: the layers', last_logits."""

    def __init__(self, config: StoriesConfig) -> None:
        super().__init__()
        c = self.config = config
        if c.cell not in CELLS:
            raise SizeError(f"expected a cell of {tuple(CELLS)}, got {c.cell!r}")
        self.stack = skip_chain(
            nn.Embedding(c.words + 1, c.hidden), c.hidden, c.layers, c.bound, c.dropout, norm=False, cell=c.cell
        ).taking(c)
        self.readout = nn.Linear(c.hidden, c.classes)
        nn.init.zeros_(self.readout.bias)
        self.sizes = [self.stack.state_size, c.classes]

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the shapes that the class names."""
        carried, last_logits = torch.split_with_sizes(state, self.sizes, 1)  # [B, S], [B, K]
        W = self.config.width
        y, carried = self.stack(self.seen(x), lengths * W, carried)  # [T W, B, H], [B, S]
        y = y.view(-1, W, *y.shape[1:])[:, -1]  # [T, B, H]
        logits = self.logits(y).transpose(0, 1)  # [B, T, K]
        return logits, torch.cat([carried, last_valid(last_logits, logits, lengths)], 1)

    def seen(self, x: Tensor) -> Tensor:
        """x [B, T, W] -> words [T W, B]."""
        return numbers(x, self.config.words).flatten(1).transpose(0, 1)

    def ask(self, told: Tensor, lengths: Tensor, asked: Tensor) -> Tensor:
        """Read from the first word to the last, as the class says."""
        x = torch.cat([told, torch.zeros_like(asked)[:, None]], 1)
        at = lengths[:, None, None].expand(-1, 1, x.shape[2])
        return self.answer(x.scatter(1, at, asked[:, None]), (lengths + 1) * self.config.width)

    def fold_(self) -> None:
        """Fold the layers as every stack is; centre the logits."""
        StackNet.fold_(self)
