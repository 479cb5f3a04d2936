"""The adding network: numbers and marks in, after each step the sum it would answer; all state in one vector.

(number, mark) [2] -> layers y_l = r(W y_{l-1} + b), r: h_t = relu(a_t + u * h_{t-1}), without norm, or one layer of another cell -> the sum
v y + c [1]. Li et al., 2019, section 5.2.1: 2 layers of 128 neurons.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from indrnn.kernels.activations import ACTIVATIONS
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.cells.stacks import SUBSAMPLED, StackConfig, StackOptions, build_stack
from indrnn.model.cells.table import CELLS
from indrnn.model.nets.network import StackNet, last_valid
from indrnn.model.nets.options import HIDDEN, KIND, WINDOW


@dataclass(frozen=True)
class AddingConfig(StackOptions):
    """Sizes of the network. length T: that of the sequences, |u| <= gamma^(1/T); the last layer's u start in [1/gamma, gamma]^(1/T).

    cell: `indrnn`, or what it is compared with. spread: deviation of the input weights at the start.
    """

    cell: str = field(default="indrnn", metadata={"choices": CELLS, "help": "what is trained: IndRNN, or what it is compared with"})
    length: int = field(default=100, metadata={"help": "T, steps of a sequence"})
    hidden: int = field(default=128, metadata=HIDDEN)
    layers: int = field(default=2, metadata={"help": "of IndRNN and of a subsampled stack; the others have one"})
    gamma: float = field(default=2.0, metadata={"help": "|u| is at most gamma^(1/T)"})
    spread: float = field(default=0.001, metadata={"help": "deviation of the input weights at the start"})
    nonlinearity: str = field(default="relu", metadata={"choices": ACTIVATIONS, "help": "of IndRNN's neurons"})
    kind: str = field(default="plain", metadata={"choices": ("plain", SUBSAMPLED), "help": KIND})
    window: int = field(default=4, metadata=WINDOW)


class AddingNet(StackNet):
    """x [B, T, 2], number and mark; lengths [B] int64; state [B, N] -> the sum [B, T, 1] after each step, state [B, N].

    A zero row of state is the start. State parts in order: hidden of each layer, last_logits, here the last sum.
    """

    def __init__(self, config: AddingConfig) -> None:
        super().__init__()
        c = self.config = config
        if c.length < 2 or c.gamma <= 0 or c.hidden < 1:
            raise SizeError(f"expected two steps and more, one for each mark, gamma above 0 and a neuron, got {c}")
        layers = c.layers if c.cell == "indrnn" or c.kind == SUBSAMPLED else 1
        shared = {"T": c.length, "gamma": c.gamma, "epsilon": 1 / c.gamma, "spread": c.spread, "cell": c.cell}
        shared |= {"nonlinearity": c.nonlinearity, "window": c.window, "bidirectional": c.bidirectional}
        self.stack = build_stack(StackConfig(c.kind, layers, c.hidden, norm="none", **shared), 2).taking(c)  # type: ignore[arg-type]  # of several types
        self.readout = nn.Linear(c.hidden, 1)
        self.sizes = [self.stack.state_size, 1]
        self.register_load_state_dict_pre_hook(_take_old_names)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the shapes that the class names."""
        carried, last_logits = torch.split_with_sizes(state, self.sizes, 1)  # [B, S], [B, K]
        seen = self.seen(x)  # [T, B, 2]
        y, carried = self.stack(seen, lengths, carried)  # [T, B, H], [B, S]
        logits = self.logits(y).transpose(0, 1)  # [B, T, 1]
        return logits, torch.cat([carried, last_valid(last_logits, logits, lengths)], 1)

    def seen(self, x: Tensor) -> Tensor:
        """x [B, T, 2] -> [T, B, 2]."""
        return x.transpose(0, 1)

    def answer(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x [B, T, 2] -> the sum [B] after each row's last step, the only one that is asked for."""
        return super().answer(x, lengths).squeeze(1)

    def fold_(self) -> None:
        """Do nothing: there is no norm to fold."""


def _take_old_names(net: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Reads weights that were kept when what IndRNN is compared with was no layer of a stack."""
    old = f"{prefix}stack.rnn."
    for name in [name for name in weights if name.startswith(old)]:
        weights[f"{prefix}stack.layers.0.cell.rnn.{name.removeprefix(old)}"] = weights.pop(name)
