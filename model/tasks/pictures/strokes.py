"""The strokes task: a class of each pixel that its neighbourhood does not tell, by a network whose answer is its own next input."""

from dataclasses import dataclass, field
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor

from indrnn.model.data.pictures import strokes
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.pictures.labels import LabelsConfig, LabelsNet
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.learner import Learner, Recipe
from indrnn.model.training.options import PICTURES
from indrnn.model.training.task import Figures, Job, Task, figure

PARTS = {"val": 1, "test": 2}  # what the pictures of each are drawn from, beside the seed of training
MEASURED = 1_000  # pictures
ROWS = 100  # pictures measured at once
UNIT = "0 nothing, 1 a stroke, 2 and 3 the heads of the two classes"


@dataclass(frozen=True)
class StrokesRecipe(Recipe):
    """rows B of a batch. Each batch is made up anew."""

    rate: float = 3e-3
    precision: str = "32-true"
    rows: int = field(default=32, metadata=PICTURES)


class StrokesLearner(Learner[LabelsNet, StrokesRecipe]):
    """Classification of every pixel, in every round."""

    def __init__(self, config: LabelsConfig, recipe: StrokesRecipe, seed: int) -> None:
        super().__init__(LabelsNet(config), recipe, seed)

    def loss(self, step: int) -> Tensor:
        """Return the mean over rounds and pixels of the cross-entropy in nats."""
        x, y = strokes.draw(np.random.default_rng([0, self.seed, step]), self.recipe.rows)
        picture, labels = torch.from_numpy(x).to(self.device), torch.from_numpy(y).to(self.device)
        losses = [F.cross_entropy(logits, labels) for logits in self.net.rounds(picture)]
        return torch.stack(losses).mean()

    def validate(self) -> dict[str, float]:
        """Return the error on the pixels of strokes of the validation pictures."""
        return {"val_error": error(self.folded(), "val")}


@torch.no_grad()
def error(net: LabelsNet, part: str) -> float:
    """Return the percentage of pixels on strokes whose class is told wrong, of the pictures of `val` or `test`."""
    x, y = strokes.draw(np.random.default_rng([PARTS[part]]), MEASURED)
    wrong = 0
    for i in range(0, MEASURED, ROWS):
        labels = torch.from_numpy(y[i : i + ROWS])
        told = net.rounds(torch.from_numpy(x[i : i + ROWS]))[-1].argmax(1)
        wrong += int(((told != labels) & (labels > 0)).sum())
    return 100 * wrong / int((y > 0).sum())


def begin(job: Job, config: dict[str, Any], recipe: StrokesRecipe) -> tuple[StrokesLearner, Meta]:
    """Makes a network for pictures of strokes."""
    lightning.seed_everything(job.seed, verbose=False)
    K, W = len(strokes.CLASSES), strokes.SIDE
    learner = StrokesLearner(LabelsConfig(columns=W, classes=K, **config), recipe, job.seed)
    told = {
        "features": tuple({"name": f"column {j}", "unit": UNIT, "mean": 0.2, "scale": 0.5} for j in range(W)),
        "values": tuple({"name": f"column {j}: {name}"} for j in range(W) for name in strokes.CLASSES),
        "returned": ({"name": "labels", "shape": (W, K)},),
        "answer": "step",
    }
    return learner, Meta("tensor", job.command, job.seed, job.steps, told=told)


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Return the error on the pixels of strokes."""
    assert isinstance(net, LabelsNet)
    protocol = f"{MEASURED:,} made-up pictures of {split}, seed {PARTS[split]}, the pixels that lie on strokes"
    return (figure(f"{split}_error", error(net, split), "%", protocol),)


TASK = Task(
    "strokes",
    LabelsConfig,
    StrokesRecipe,
    begin,
    figures,
    "test_error",
    "a class of each pixel, told by following its stroke; the answer is an input of the next look",
    steps=1500,
    decay=1000,
    given=frozenset({"classes", "columns"}),
    published=(("--seed", "1"), ("--seed", "1", "--rounds", "1")),
)
