"""Teaching the tensor network online: rows that read one sequence after another from end to end, in pieces."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.data.series import Series
from indrnn.model.nets.tensor import TensorConfig
from indrnn.model.training.measure import padded
from indrnn.model.training.online.carried import Carrying
from indrnn.model.training.online.traces import OnlineError
from indrnn.model.training.series_learner import SeriesLearner, SeriesRecipe, filled


@dataclass(frozen=True)
class PieceOrder:
    """The order in which rows read sequences of these many steps: every pass in an order of its own, in pieces of `length` steps and less.

    A piece ends where its sequence does. All rows make passes of equally many pieces; row r of `rows` begins that part of the way in.
    """

    steps: tuple[int, ...]
    rows: int
    length: int
    seed: int

    def piece(self, row: int, k: int) -> tuple[int, int]:
        """Return the sequence and its step that piece number k of a row begins with."""
        pieces = -(-np.asarray(self.steps) // self.length)
        passes, place = divmod(k + row * int(pieces.sum()) // self.rows, int(pieces.sum()))
        order = np.random.default_rng([self.seed, row, passes]).permutation(len(pieces))
        ends = np.cumsum(pieces[order])
        at = int(np.searchsorted(ends, place, side="right"))
        return int(order[at]), (place - int(ends[at] - pieces[order[at]])) * self.length


class OnlineSeriesLearner(Carrying, SeriesLearner):
    """Classification, or regression in deviations of each value, of sequences of any length; memory does not grow with it."""

    parallel = False

    def __init__(
        self, config: TensorConfig, recipe: SeriesRecipe, train: Sequence[Series], validation: Sequence[Series], seed: int
    ) -> None:
        super().__init__(config, recipe, train, validation, seed)
        if recipe.balanced:
            raise OnlineError("--online: expected --no-balanced: sequences are read one after another")
        self.order = PieceOrder(tuple(len(s.x) for s in train), recipe.rows, recipe.length, seed)
        self.carry(self.net, recipe.rows, recipe.online, recipe.checkpoint_activations)

    def loss(self, step: int) -> Tensor:
        """Return the mean over the asked steps of a batch of pieces, or, where a sequence has one answer, over the rows.

        Cross-entropy in nats, or squared error in squared deviations.
        """
        rng = np.random.default_rng([self.seed, step])
        rows, begins = [], []
        for row in range(self.recipe.rows):
            which, begin = self.order.piece(row, step)
            rows.append(self._piece(self.series[which], begin, rng))
            begins.append(begin == 0)
        x, lengths = padded([x for x, _, _ in rows])
        y, weight = (torch.from_numpy(np.stack([filled(row[i], x.shape[1]) for row in rows])) for i in (1, 2))
        x, lengths, y, weight = (part.to(self.device) for part in (x, lengths, y, weight))
        logits = self.read(self.net, step, x, lengths, torch.tensor(begins, device=self.device))
        return (self.losses(logits, y) * weight.flatten()).sum() / (weight.sum() if self.steps else len(rows))

    def losses(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each step of each row, [B * T]."""
        if self.values:
            return F.mse_loss(self.deviation(logits), self.deviation(y), reduction="none").mean(2).flatten()
        return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none", label_smoothing=self.recipe.smoothing)

    def _piece(
        self, s: Series, begin: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.generic], NDArray[np.float32]]:
        """Return x [t, F] with noise, what is to be told after each step, and how much each counts, [t], of a piece of a sequence."""
        T, piece = len(s.x), slice(begin, begin + self.recipe.length)
        x = s.x[piece]
        if self.recipe.noise:
            x = x + self.recipe.noise * self.spread * rng.standard_normal(x.shape, np.float32)
        if self.steps:
            return x, s.y[piece], np.ones(len(x), np.float32)
        after = np.arange(1, T + 1, dtype=np.float32)
        weight = (after == T).astype(np.float32) if self.values else np.clip(after / T - self.recipe.asked, 0, None)
        return x, np.repeat(s.y[None], len(x), 0), (weight / weight.sum())[piece]
