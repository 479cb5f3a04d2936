"""Teaching the tensor network: classes or values, of each step or at the end of each sequence."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.data.series import Series
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.training.learner import Learner, Recipe
from indrnn.model.training.measure import padded, series_accuracy, series_errors
from indrnn.model.training.options import ALIKE, BALANCED, ONLINE, SEQUENCES, SMOOTHING

SEEN = 0.25  # part of a window begun within a sequence that is not asked: its answers rest on steps that the network was not shown


@dataclass(frozen=True)
class SeriesRecipe(Recipe):
    """rows B of a batch; alike: batches drawn at once and sorted by length, so that a batch holds little padding; balanced: every class as
    often as any other, where each sequence has one.

    length: of a window, where there is an answer a step; where there is one a sequence it is read whole. asked: part of a sequence after
    which its class counts, the later the more; a value counts at the end alone. noise: added to each number, in deviations of its feature.
    online: sequences are read from end to end in pieces of `length` (model/training/online/series.py).
    """

    precision: str = "32-true"
    rows: int = field(default=32, metadata=SEQUENCES)
    length: int = field(default=256, metadata={"help": "steps of a sequence that are read at once, where each step has an answer"})
    smoothing: float = field(default=0.05, metadata=SMOOTHING)
    asked: float = field(default=0.5, metadata={"help": "part of a sequence after which its class counts"})
    noise: float = field(default=0.05, metadata={"help": "of each number, in deviations of its feature"})
    alike: int = field(default=4, metadata=ALIKE)
    balanced: bool = field(default=False, metadata=BALANCED)
    online: bool = field(default=False, metadata=ONLINE)


class SeriesLearner(Learner[TensorNet, SeriesRecipe]):
    """Classification, or regression in deviations of each value, on sequences drawn from the training part."""

    def __init__(
        self, config: TensorConfig, recipe: SeriesRecipe, train: Sequence[Series], validation: Sequence[Series], seed: int
    ) -> None:
        super().__init__(TensorNet(config), recipe, seed)
        self.series, self.validation = train, validation
        self.values = bool(config.value_mean)
        self.steps = train[0].y.ndim == (2 if self.values else 1)  # an answer a step
        count = np.bincount([s.label for s in train])
        chances = np.array([1 / count[s.label] if recipe.balanced else 1.0 for s in train])
        self.chances = chances / chances.sum()
        self.spread = np.asarray(config.scale, np.float32)

    def loss(self, step: int) -> Tensor:
        """Return the mean over what is asked of the cross-entropy in nats, or of the squared error in squared deviations."""
        rng = np.random.default_rng([self.seed, step])
        rows = [self._row(s, rng) for s in self._chosen(rng)]
        x, lengths = padded([x for x, _, _ in rows])
        y, weight = (torch.from_numpy(np.stack([filled(row[i], x.shape[1]) for row in rows])) for i in (1, 2))
        x, lengths, y, weight = (part.to(self.device) for part in (x, lengths, y, weight))
        if self.values and not self.steps:
            return F.mse_loss(self.deviation(self.net.answer(x, lengths)), self.deviation(y[:, -1]))
        logits, _ = self.net(x, lengths, self.net.start(len(x)))
        if self.values:
            losses = F.mse_loss(self.deviation(logits), self.deviation(y), reduction="none").mean(2)
        else:
            losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none", label_smoothing=self.recipe.smoothing)
        return (losses.flatten() * weight.flatten()).sum() / weight.sum()

    def deviation(self, values: Tensor) -> Tensor:
        """Return values [..., K] as deviations from their means."""
        return (values - self.net.value_mean) / self.net.value_scale

    def _chosen(self, rng: Generator) -> list[Series]:
        """Return the sequences of a batch: of `alike` batches, sorted by length, one."""
        drawn = [self.series[i] for i in rng.choice(len(self.series), size=self.recipe.rows * self.recipe.alike, p=self.chances)]
        drawn.sort(key=lambda s: len(s.x))
        block = int(rng.integers(self.recipe.alike)) * self.recipe.rows
        return drawn[block : block + self.recipe.rows]

    def _row(self, s: Series, rng: Generator) -> tuple[NDArray[np.float32], NDArray[np.generic], NDArray[np.float32]]:
        """Return x [T, F] with noise, what is to be told after each step, [T] or [T, D], and how much each counts, [T]."""
        x, y, T = s.x, s.y, len(s.x)
        weight = np.ones(T, np.float32)
        if self.steps and self.recipe.length < T:
            T, begin = self.recipe.length, int(rng.integers(T - self.recipe.length + 1))
            x, y, weight = x[begin : begin + T], y[begin : begin + T], np.ones(T, np.float32)
            weight[: int(SEEN * T) if begin else 0] = 0
            if not self.net.streams and begin + T < len(s.x):  # the other half has not seen enough there
                weight[T - int(SEEN * T) :] = 0
        elif not self.steps and not self.net.streams:
            y, weight = np.repeat(s.y[None], T, 0), np.zeros(T, np.float32)
            weight[-1] = 1
        elif not self.steps:
            y = np.repeat(s.y[None], T, 0)
            weight = np.clip(np.arange(1, T + 1, dtype=np.float32) / T - self.recipe.asked, 0, None)
            weight /= weight.sum()
        if self.recipe.noise:
            x = x + self.recipe.noise * self.spread * rng.standard_normal(x.shape, np.float32)
        return x, y, weight

    def validate(self) -> dict[str, float]:
        """Return the accuracy, or the mean over the values of R^2, on validation data; none where there is none."""
        if not self.validation:
            return {}
        folded = self.folded()
        if self.values:
            return {"val_r2": float(series_errors(folded, self.validation)[1].mean())}
        return {f"val_{round(100 * p)}": a for p, a in series_accuracy(folded, self.validation).items()}


def filled(a: NDArray[np.generic], T: int) -> NDArray[np.generic]:
    """Return a [t, ...] as [T, ...]: its last row again, weights 0."""
    if a.dtype == np.float32 and a.ndim == 1:
        return np.pad(a, (0, T - len(a)))
    return np.pad(a, [(0, T - len(a)), *[(0, 0)] * (a.ndim - 1)], mode="edge")
