"""The pixels network: one number after another in, class scores after each, all state in one vector.

Pixel [1] -> layers y_l = r(W y_{l-1} + b), where r is h_t = relu(a_t + u * h_{t-1}), then batch norm (`plain`; another `kind` stacks
them otherwise, another `cell` has its own equations) -> scores V y + c [K]. Li et al., 2019, section 5.2.2: 6 layers of 128 neurons for
images of 784 steps.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from indrnn.kernels.activations import ACTIVATIONS
from indrnn.model.cells.norm import BatchNorm
from indrnn.model.cells.recurrent_weight import bound
from indrnn.model.cells.stacks import KINDS, SUBSAMPLED, Chain, Stack, StackConfig, StackOptions, build_stack, skip_chain
from indrnn.model.nets.network import StackNet, last_valid
from indrnn.model.nets.options import CELL, CLASSES, DROPOUT, KIND, LAYERS, NORM, WINDOW

POOLS = (1, 2, 4, 7)  # of the divisors of 28 those that leave something to see


@dataclass(frozen=True)
class PixelsConfig(StackOptions):
    """Sizes of the network. steps T: the length it is made for; |u| <= gamma^(1/T), so that a gradient grows no more than gamma-fold.

    pool: images are read as means of pool x pool pixels, in (28 / pool)^2 steps.

    kind: `skip`, norm before the recurrence and each layer added to its input, or one of the papers' (model/cells/stacks.py), norm after
    it; hidden: of `dense`, the growth. Measured on permuted images of 14 x 14, 1,200 steps of 32, best of the rates tried: `skip` of
    4 layers 30.6 % wrong of validation, plain of 4 layers 24.2 %, plain of 6 layers 17.0 % (in half as much time again).
    """

    classes: int = field(default=10, metadata=CLASSES)
    kind: str = field(default="plain", metadata={"choices": ("skip", *KINDS, SUBSAMPLED), "help": KIND})
    hidden: int = field(default=128, metadata={"help": "neurons H of a layer; of a dense stack the growth"})
    layers: int = field(default=6, metadata=LAYERS)
    steps: int = field(default=784, metadata={"help": "T, the length it is made for: |u| <= gamma^(1/T)"})
    window: int = field(default=4, metadata=WINDOW)
    gamma: float = field(default=2.0, metadata={"help": "most that a gradient grows through T steps"})
    dropout: float = field(default=0.0, metadata=DROPOUT)
    norm: bool = field(default=True, metadata=NORM)
    cell: str = field(default="indrnn", metadata=CELL)
    pool: int = field(default=1, metadata={"choices": POOLS, "help": "side of the squares whose mean is read as one pixel"})
    nonlinearity: str = field(default="relu", metadata={"choices": ACTIVATIONS, "help": "of IndRNN's neurons; `skip` has relu"})


class PixelsNet(StackNet):
    """x [B, T] float in [-1, 1]; lengths [B] int64; state [B, N] -> logits [B, T, K] after each number, state [B, N].

    A zero row of state is the start. State parts in order: hidden of each layer, last_logits.
    """

    def __init__(self, config: PixelsConfig) -> None:
        super().__init__()
        c = self.config = config
        bound(c.gamma, c.steps)  # says so where they make no sense
        self.stack = (_skipping(c) if c.kind == "skip" else _published(c)).taking(c)
        self.readout = nn.Linear(self.stack.out_features, c.classes)
        nn.init.zeros_(self.readout.weight)  # an untrained net knows nothing: uniform scores
        nn.init.zeros_(self.readout.bias)
        self.sizes = [self.stack.state_size, c.classes]

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the shapes that the class names."""
        carried, last_logits = torch.split_with_sizes(state, self.sizes, 1)  # [B, S], [B, K]
        seen = self.seen(x)  # [T, B, 1]
        y, carried = self.stack(seen, lengths, carried)  # [T, B, H], [B, S]
        logits = self.logits(y).transpose(0, 1)  # [B, T, K]
        return logits, torch.cat([carried, last_valid(last_logits, logits, lengths)], 1)

    def seen(self, x: Tensor) -> Tensor:
        """x [B, T] -> [T, B, 1]."""
        return x.t()[:, :, None]


@torch.no_grad()
def _skipping(c: PixelsConfig) -> Chain:
    """The last IndRNN layer's u start near 1, because the answer at the end rests on all steps (Li et al., 2019, section 5.1).

    A sum over T steps of white noise of unit variance has variance T: the norm before the last layer starts so as to make that 1.
    """
    high = bound(c.gamma, c.steps)
    stack = skip_chain(1, c.hidden, c.layers, high, c.dropout, c.norm, c.cell, c.bidirectional)
    last = stack.indrnns()[-1]
    last.cell.remember_(1 / high)
    if isinstance(last.norm, BatchNorm) and last.cell.loudness() is not None:
        last.norm.weight.fill_(c.steps**-0.5)
    return stack


def _published(c: PixelsConfig) -> Stack:
    norm = "after" if c.norm else "none"
    epsilon = 1 / c.gamma  # the authors' code: the last layer starts in [gamma^(-1/T), gamma^(1/T)]
    shared = {"norm": norm, "T": c.steps, "gamma": c.gamma, "epsilon": epsilon, "dropout": c.dropout, "cell": c.cell}
    shared |= {"window": c.window, "nonlinearity": c.nonlinearity, "bidirectional": c.bidirectional}
    return build_stack(StackConfig(c.kind, c.layers, c.hidden, c.hidden, **shared), 1)  # type: ignore[arg-type]  # of several types
