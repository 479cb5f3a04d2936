"""The images task: handwritten digits seen as pictures, by recurrent convolutional or multi-dimensional layers."""

from dataclasses import dataclass, field
from typing import Any

import lightning
import numpy as np
from numpy.typing import NDArray

from indrnn.model.data import mnist, sets
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.pictures.images import BRIGHT, ImagesConfig, ImagesNet
from indrnn.model.tasks.pictures.digits import DigitsLearner, DigitsRecipe, Images
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.options import PICTURES, SETTLING
from indrnn.model.training.task import Figures, Job, Task, figure

SIDE = 28


@dataclass(frozen=True)
class ImagesRecipe(DigitsRecipe):
    """rows B of a batch; shift: pixels by which each picture is moved at most, down and across, what comes in being dark."""

    rate: float = 3e-3
    epoch: int = 250
    weight_decay: float = 1e-3
    rows: int = field(default=100, metadata=PICTURES)
    shift: int = field(default=2, metadata={"help": "pixels by which a picture is moved at most"})
    settling: int = field(default=30, metadata=SETTLING)


class ImagesLearner(DigitsLearner[ImagesNet, ImagesRecipe]):
    """Classification of pictures, each moved a little."""

    def __init__(self, config: ImagesConfig, recipe: ImagesRecipe, train: Images, validation: Images, seed: int) -> None:
        super().__init__(ImagesNet(config), recipe, train, validation, seed)

    @staticmethod
    def read(x: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return images x [B, pixels] as pictures [B, R, C]."""
        return x.reshape(-1, SIDE, SIDE).astype(np.float32)

    def changed(self, x: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
        """Return images x [B, pixels] as pictures [B, R, C] that are moved."""
        return shifted(x.reshape(-1, SIDE, SIDE), self.recipe.shift, np.random.default_rng([self.seed, step, 1]))


def shifted(x: NDArray[np.uint8], most: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """x [B, R, C], each moved by -most to most rows and columns of its own; what comes in is dark."""
    B, R, C = x.shape
    down, across = rng.integers(0, 2 * most + 1, (2, B))
    wide = np.pad(x, [(0, 0), (most, most), (most, most)])
    rows = down[:, None] + np.arange(R)
    columns = across[:, None] + np.arange(C)
    moved: NDArray[np.uint8] = wide[np.arange(B)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def begin(job: Job, config: dict[str, Any], recipe: ImagesRecipe) -> tuple[ImagesLearner, Meta]:
    """Reads the 57,000 and the 3,000 pictures."""
    parts = {part: mnist.read(part, permuted=False) for part in ("train", "val")}
    lightning.seed_everything(job.seed, verbose=False)
    learner = ImagesLearner(ImagesConfig(**config), recipe, parts["train"], parts["val"], job.seed)
    mean, scale = (round(float(moment(parts["train"][0])), 2) for moment in (np.mean, np.std))
    unit = f"brightness, 0 to {BRIGHT:g}"
    told = {
        "features": tuple({"name": f"column {i}", "unit": unit, "mean": mean, "scale": scale} for i in range(SIDE)),
        "answer": "end",
    }
    digits = tuple("0123456789")
    return learner, Meta("tensor", job.command, job.seed, job.steps, labels=digits, data=(sets.MNIST,), told=told)


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Return the error on the validation or test pictures."""
    assert isinstance(net, ImagesNet)
    x, y = mnist.read(split, permuted=False)
    protocol = f"{len(x):,} pictures of {split}, each once, unmoved, running statistics"
    return (figure(f"{split}_error", ImagesLearner.error(net, x, y), "%", protocol),)


TASK = Task(
    "images",
    ImagesConfig,
    ImagesRecipe,
    begin,
    figures,
    "test_error",
    "handwritten digits as whole pictures",
    steps=5000,
    decay=4000,
    given=frozenset({"classes", "side"}),
    published=(("--seed", "1"), ("--seed", "1", "--kind", "md_indrnn", "--hidden", "24")),
)
