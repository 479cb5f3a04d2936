"""The mnist and pmnist tasks: images pixel by pixel, in the order of the rows or in one drawn once from a written seed."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning

from indrnn.model.data import mnist, sets
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.pixels import PixelsConfig, PixelsNet
from indrnn.model.tasks.pictures.digits import DigitsLearner, DigitsRecipe, Images
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.task import Figures, Job, Task, figure


@dataclass(frozen=True)
class PixelsRecipe(DigitsRecipe):
    """rows B of a batch; settling: batches that the norms of the averaged weights are measured on.

    A last layer that sums over 784 steps sums errors of the mean, too: of validation images the averaged weights got 38.1 % wrong with
    averaged statistics and 37.5 % with measured ones, the last step's weights 49.5 and 43.6 % (pmnist, `skip` of 4 layers, step 2,500).
    rate: 2e-3 did no better than 1e-3 (24.5 and 24.2 %, see PixelsConfig); `skip` lost with 5e-3.
    """

    rate: float = 1e-3
    epoch: int = 500


class PixelsLearner(DigitsLearner[PixelsNet, PixelsRecipe]):
    """Classification at the last pixel."""

    read = staticmethod(mnist.scaled)

    def __init__(self, config: PixelsConfig, recipe: PixelsRecipe, train: Images, validation: Images, seed: int) -> None:
        super().__init__(PixelsNet(config), recipe, train, validation, seed)


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
    return (figure(f"{split}_error", PixelsLearner.error(net, x, y), "%", protocol),)


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
