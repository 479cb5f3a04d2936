"""The images task: handwritten digits seen as pictures, by recurrent convolutional or multi-dimensional layers."""

from dataclasses import dataclass, field
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
from indrnn.model.nets.pictures.images import BRIGHT, ImagesConfig, ImagesNet
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.learner import Learner, Recipe, batches
from indrnn.model.training.options import PICTURES, SETTLING
from indrnn.model.training.task import Figures, Job, Task, figure

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]
SIDE = 28
ROWS = 250  # pictures measured at once


@dataclass(frozen=True)
class ImagesRecipe(Recipe):
    """rows B of a batch; shift: pixels by which each picture is moved at most, down and across, what comes in being dark."""

    rate: float = 3e-3
    warmup: int = 200
    average: int = 300
    epoch: int = 250
    weight_decay: float = 1e-3
    rows: int = field(default=100, metadata=PICTURES)
    shift: int = field(default=2, metadata={"help": "pixels by which a picture is moved at most"})
    settling: int = field(default=30, metadata=SETTLING)


class ImagesLearner(Learner[ImagesNet, ImagesRecipe]):
    """Classification of pictures; each pass through them in an order of its own."""

    def __init__(self, config: ImagesConfig, recipe: ImagesRecipe, train: Images, validation: Images, seed: int) -> None:
        super().__init__(ImagesNet(config), recipe, seed)
        self.images, self.validation = train, validation
        self.batches = batches(len(train[0]), recipe.rows)
        self.order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Pictures [B, R, C] and classes [B] of step number `step`; a last few of each pass are left out."""
        x, y = self.images
        passes, place = divmod(step, self.batches)
        if self.order[0] != passes:
            self.order = (passes, np.random.default_rng([self.seed, passes]).permutation(len(x)))
        chosen = self.order[1][place * self.recipe.rows : (place + 1) * self.recipe.rows]
        rng = np.random.default_rng([self.seed, step, 1])
        moved = shifted(x[chosen].reshape(-1, SIDE, SIDE), self.recipe.shift, rng)
        return torch.from_numpy(moved.astype(np.float32)).to(self.device), torch.from_numpy(y[chosen]).to(self.device)

    def loss(self, step: int) -> Tensor:
        """Return the mean cross-entropy in nats."""
        x, y = self.batch(step)
        return F.cross_entropy(self.net.answer(x), y)

    def settle(self) -> None:
        """Measures the norms' statistics on training pictures."""
        settle_(self.averaged, self.recipe.settling, lambda i: self.averaged.answer(self.batch(i)[0]))

    def validate(self) -> dict[str, float]:
        """Return the error on the validation pictures."""
        return {"val_error": error(self.folded(), *self.validation)}


def shifted(x: NDArray[np.uint8], most: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """x [B, R, C], each moved by -most to most rows and columns of its own; what comes in is dark."""
    B, R, C = x.shape
    down, across = rng.integers(0, 2 * most + 1, (2, B))
    wide = np.pad(x, [(0, 0), (most, most), (most, most)])
    rows = down[:, None] + np.arange(R)
    columns = across[:, None] + np.arange(C)
    moved: NDArray[np.uint8] = wide[np.arange(B)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


@torch.no_grad()
def error(net: ImagesNet, x: NDArray[np.uint8], y: NDArray[np.int64]) -> float:
    """Return the percentage of pictures x [N, 784] that are not answered with their class y [N]."""
    wrong = 0
    for i in range(0, len(x), ROWS):
        pictures = torch.from_numpy(x[i : i + ROWS].reshape(-1, SIDE, SIDE).astype(np.float32))
        wrong += int((net.answer(pictures).argmax(1) != torch.from_numpy(y[i : i + ROWS])).sum())
    return 100 * wrong / len(x)


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
    return (figure(f"{split}_error", error(net, x, y), "%", f"{len(x):,} pictures of {split}, each once, unmoved, running statistics"),)


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
