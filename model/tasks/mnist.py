"""The mnist and pmnist tasks: images pixel by pixel, in the order of the rows or in one drawn once from a written seed."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.cells.norm import settle_
from indrnn.model.data import mnist, sets
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.pixels import PixelsConfig, PixelsNet
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.learner import Learner, Recipe, batches
from indrnn.model.training.options import SEQUENCES, SETTLING
from indrnn.model.training.task import Figures, Job, Task, figure

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]
ROWS = 250  # images measured at once


@dataclass(frozen=True)
class PixelsRecipe(Recipe):
    """rows B of a batch; settling: batches that the norms of the averaged weights are measured on.

    A last layer that sums over 784 steps sums errors of the mean, too: of validation images the averaged weights got 38.1 % wrong with
    averaged statistics and 37.5 % with measured ones, the last step's weights 49.5 and 43.6 % (pmnist, `skip` of 4 layers, step 2,500).
    rate: 2e-3 did no better than 1e-3 (24.5 and 24.2 %, see PixelsConfig); `skip` lost with 5e-3.
    """

    rate: float = 1e-3
    warmup: int = 200
    average: int = 300
    epoch: int = 500
    rows: int = field(default=32, metadata=SEQUENCES)
    settling: int = field(default=50, metadata=SETTLING)


class PixelsLearner(Learner[PixelsNet, PixelsRecipe]):
    """Classification at the last pixel; each pass through the images in an order of its own."""

    def __init__(self, config: PixelsConfig, recipe: PixelsRecipe, train: Images, validation: Images, seed: int) -> None:
        super().__init__(PixelsNet(config), recipe, seed)
        self.images, self.validation = train, validation
        self.batches = batches(len(train[0]), recipe.rows)
        self.order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images [B, T] and classes [B] of step number `step`; a last few of each pass are left out."""
        x, y = self.images
        passes, place = divmod(step, self.batches)
        if self.order[0] != passes:
            self.order = (passes, np.random.default_rng([self.seed, passes]).permutation(len(x)))
        chosen = self.order[1][place * self.recipe.rows : (place + 1) * self.recipe.rows]
        return torch.from_numpy(mnist.scaled(x[chosen])).to(self.device), torch.from_numpy(y[chosen]).to(self.device)

    def loss(self, step: int) -> Tensor:
        """Return the mean cross-entropy in nats."""
        x, y = self.batch(step)
        return F.cross_entropy(self.net.answer(x), y)

    def settle(self) -> None:
        """Measures the norms' statistics on training images."""
        settle_(self.averaged, self.recipe.settling, lambda i: self.averaged.answer(self.batch(i)[0]))

    def validate(self) -> dict[str, float]:
        """Return the error on the validation images."""
        return {"val_error": error(self.folded(), *self.validation)}


@torch.no_grad()
def error(net: PixelsNet, x: NDArray[np.uint8], y: NDArray[np.int64]) -> float:
    """Return the percentage of images x [N, T] that are not answered with their class y [N]."""
    wrong = 0
    for i in range(0, len(x), ROWS):
        answers = net.answer(torch.from_numpy(mnist.scaled(x[i : i + ROWS]))).argmax(1)
        wrong += int((answers != torch.from_numpy(y[i : i + ROWS])).sum())
    return 100 * wrong / len(x)


def begin(job: Job, config: dict[str, Any], recipe: PixelsRecipe, name: str) -> tuple[PixelsLearner, Meta]:
    """Reads the 57,000 and the 3,000 images."""
    pool = config.get("pool", 1)
    parts = {part: mnist.read(part, name == "pmnist", pool) for part in ("train", "val")}
    lightning.seed_everything(job.seed, verbose=False)
    sizes = PixelsConfig(**config, steps=mnist.PIXELS // pool**2)
    learner = PixelsLearner(sizes, recipe, parts["train"], parts["val"], job.seed)
    return learner, Meta("pixels", job.command, job.seed, job.steps, labels=tuple("0123456789"), data=(sets.MNIST,))


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Return the error on the validation or test images."""
    assert isinstance(net, PixelsNet)
    x, y = mnist.read(split, meta.task == "pmnist", net.config.pool)
    order = f"an order drawn from seed {mnist.PERMUTATION_SEED}" if meta.task == "pmnist" else "the order of the rows"
    means = f"means of {net.config.pool} x {net.config.pool} " if net.config.pool > 1 else ""
    protocol = f"{len(x):,} images of {split}, {means}pixels in {order}, one pass, running statistics, answer after the last pixel"
    return (figure(f"{split}_error", error(net, x, y), "%", protocol),)


def _task(name: str, summary: str, **defaults: Any) -> Task:
    begun = partial(begin, name=name)
    return Task(name, PixelsConfig, PixelsRecipe, begun, figures, "test_error", summary, given=frozenset({"classes", "steps"}), **defaults)


MNIST = _task("mnist", "handwritten digits, pixel by pixel", steps=12000, decay=9000, published=(("--seed", "1", "--validate-every", "2"),))
PMNIST = _task(
    "pmnist",
    "handwritten digits, pixel by pixel in an order drawn once",
    steps=14000,
    decay=11000,
    published=(("--seed", "1", "--validate-every", "2"),),
)
