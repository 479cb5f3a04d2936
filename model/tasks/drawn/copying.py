"""The copying task: ten symbols are told again after many blanks. Who forgets cannot be better than `without_memory`."""

from dataclasses import dataclass, field
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor

from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.cells.stacks import ANSWERS_AT_ONCE, StackConfig, StackOptions
from indrnn.model.data.drawn import copying
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.options import CELL, HIDDEN, LAYERS
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.learner import Learner, Recipe
from indrnn.model.training.options import SEQUENCES
from indrnn.model.training.task import Figures, Job, Task, figure

PLACES = 25_000  # rows times steps measured at once
NAMES = (*"abcdefgh", "blank", "mark")


@dataclass(frozen=True)
class CopyingConfig(StackOptions):
    """Sizes of the network, a SequenceNet without norms. length: blanks to remember through; a sequence has 20 steps more."""

    cell: str = field(default="indrnn", metadata=CELL)
    length: int = field(default=200, metadata={"help": "steps to remember through; a sequence has 20 more"})
    hidden: int = field(default=128, metadata=HIDDEN)
    layers: int = field(default=1, metadata=LAYERS)
    gamma: float = field(default=2.0, metadata={"help": "IndRNN: |u| is at most gamma^(1/T)"})


@dataclass(frozen=True)
class CopyingRecipe(Recipe):
    """rows B of a batch."""

    rate: float = 1e-3
    precision: str = "32-true"
    rows: int = field(default=32, metadata=SEQUENCES)


class CopyingLearner(Learner[SequenceNet, CopyingRecipe]):
    """Classification at every step, on sequences drawn anew for every batch."""

    def __init__(self, config: CopyingConfig, recipe: CopyingRecipe, seed: int) -> None:
        super().__init__(SequenceNet(network(config)), recipe, seed)
        self.length = config.length

    def loss(self, step: int) -> Tensor:
        """Return the mean cross-entropy of all steps in nats."""
        x, y = copying.draw(np.random.default_rng([self.seed, step]), self.recipe.rows, self.length)
        return cross_entropy(self.net, torch.from_numpy(x).to(self.device), torch.from_numpy(y).to(self.device))

    def validate(self) -> dict[str, float]:
        """Return the same on sequences that no batch has."""
        return {"val_nats": measured(self.folded(), "val")[0]}


def network(c: CopyingConfig) -> SequenceConfig:
    """Return the network that a configuration describes. Raises SizeError."""
    if c.bidirectional:
        raise SizeError(ANSWERS_AT_ONCE)
    stack = StackConfig(layers=c.layers, hidden=c.hidden, cell=c.cell, T=copying.steps(c.length), gamma=c.gamma, norm="none")
    told = {"h0": c.h0, "norm_penalty": c.norm_penalty, "inputs": copying.SYMBOLS, "classes": copying.SYMBOLS}
    return SequenceConfig(**vars(stack) | told)


def cross_entropy(net: SequenceNet, x: Tensor, y: Tensor) -> Tensor:
    """x, y [B, T] -> nats a step."""
    logits, _ = net(F.one_hot(x, copying.SYMBOLS).float(), torch.full((len(x),), x.shape[1], device=x.device), net.start(len(x)))
    return F.cross_entropy(logits.flatten(0, 1), y.flatten())


@torch.no_grad()
def measured(net: SequenceNet, split: str) -> tuple[float, float]:
    """Return nats a step, and the percentage of the ten symbols that are told wrongly, on the sequences of `val` or `test`."""
    T = net.config.T
    rng, rows, nats, wrong = np.random.default_rng(copying.SEEDS[split]), max(1, PLACES // T), 0.0, 0
    for start in range(0, copying.MEASURED, rows):
        x, y = map(torch.from_numpy, copying.draw(rng, min(rows, copying.MEASURED - start), T - 2 * copying.COPIED))
        logits, _ = net(F.one_hot(x, copying.SYMBOLS).float(), torch.full((len(x),), T), net.start(len(x)))
        nats += F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").item() / T
        wrong += int((logits.argmax(2) != y)[:, -copying.COPIED :].sum())
    return nats / copying.MEASURED, 100 * wrong / (copying.MEASURED * copying.COPIED)


# What its bundle says of x and of the answers: it is a network of numbers, of which one is 1.
TOLD: dict[str, Any] = {
    "modality": "tensor",
    "features": tuple({"name": name, "mean": 0.1, "scale": 0.3} for name in NAMES),
    "answer": "step",
}


def begin(job: Job, config: dict[str, Any], recipe: CopyingRecipe) -> tuple[CopyingLearner, Meta]:
    """Nothing to read: the data are drawn."""
    lightning.seed_everything(job.seed, verbose=False)
    meta = Meta("tensor", job.command, job.seed, job.steps, labels=NAMES, task="copying", told=TOLD)
    return CopyingLearner(CopyingConfig(**config), recipe, job.seed), meta


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Return nats a step beside those without memory, and how many of the symbols are wrong."""
    assert isinstance(net, SequenceNet)
    blanks = net.config.T - 2 * copying.COPIED
    without = f"without memory {copying.without_memory(blanks):.4f}"
    drawn = f"{copying.MEASURED:,} sequences of ten symbols and {blanks} blanks from seed {copying.SEEDS[split]}"
    nats, wrong = measured(net, split)
    return (
        figure(f"{split}_nats", nats, "nats", f"{drawn}, mean of all steps, {without}"),
        figure(f"{split}_wrong", wrong, "%", f"{drawn}, of the ten symbols at the end; by chance 87.5"),
    )


TASK = Task(
    "copying",
    CopyingConfig,
    CopyingRecipe,
    begin,
    figures,
    "test_nats",
    "ten symbols, told again after many blanks",
    steps=4000,
    decay=2000,
    published=(("--cell", "urnn"), ("--cell", "goru"), ("--cell", "lstm"), ("--layers", "2")),
    given=frozenset(),
)
