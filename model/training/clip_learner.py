"""Teaching the action network: clips joined into short streams, an answer asked for throughout the later part of each clip."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.data.augment import Augment, joined
from indrnn.model.data.bodies import Body
from indrnn.model.data.clips import Clip, ClipSet
from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.training.learner import Learner, Recipe
from indrnn.model.training.measure import clip_accuracy, padded, stream_accuracy
from indrnn.model.training.options import ALIKE, BALANCED, SEQUENCES, SMOOTHING

Row = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]
"""A stream: frames [T, P, J, 3], the label of each [T], and how much each answer counts [T]."""


@dataclass(frozen=True)
class ClipRecipe(Augment, Recipe):
    """The way the action network learns from clips, beside how these are changed (Augment).

    rows B of a batch, each of 1 to `clips` joined clips; smoothing of the labels; asked: part of a clip after which answers count; alike:
    batches drawn at once and sorted by length, so that a batch holds little padding; balanced: every class as often as any
    other, however many clips it has. zeros: in the file a joint at exactly 0 on all axes was not seen (`--lost zero`).
    """

    average: int = 100
    epoch: int = 100
    rows: int = field(default=32, metadata=SEQUENCES)
    clips: int = field(default=3, metadata={"help": "clips that are joined to one sequence, at most"})
    smoothing: float = field(default=0.1, metadata=SMOOTHING)
    asked: float = field(default=0.3, metadata={"help": "part of a clip after which answers count"})
    alike: int = field(default=1, metadata=ALIKE)
    balanced: bool = field(default=False, metadata=BALANCED)
    zeros: bool = field(default=False, metadata={"by": "lost"})


class ClipLearner(Learner[ActionNet, ClipRecipe]):
    """Classification of every late frame of augmented, joined clips."""

    def __init__(
        self, config: ActionConfig, recipe: ClipRecipe, body: Body, data: ClipSet, train: list[Clip], validation: list[Clip], seed: int
    ) -> None:
        super().__init__(ActionNet(config), recipe, seed)
        self.body, self.hz, self.flat, self.validation = body, data.hz, data.flat, validation
        groups: dict[tuple[int, int | None], list[Clip]] = {}  # what may follow each other in a stream: one person before one camera
        for c in train:
            groups.setdefault((c.subject, c.view), []).append(c)
        self.groups = list(groups.values())
        count = np.bincount([c.label for c in train], minlength=config.classes)
        chances = [np.array([1 / count[c.label] if recipe.balanced else 1.0 for c in g]) for g in self.groups]
        self.odds = np.array([c.sum() for c in chances]) / sum(c.sum() for c in chances)  # of a group
        self.chances = [c / c.sum() for c in chances]  # of each clip of a group

    def loss(self, step: int) -> Tensor:
        """Return the mean over the asked frames of the cross-entropy in nats, the later in its clip the heavier."""
        rng = np.random.default_rng([self.seed, step])
        # One number for all rows: less padding. Who looks at whole sequences would see the next clip.
        count = int(rng.integers(1, self.recipe.clips + 1)) if self.net.streams else 1
        rows = [self._row(clips, rng) for clips in self._chosen(count, rng)]
        x, lengths, label, weight = (part.to(self.device) for part in together(rows))
        logits, _ = self.net(x, lengths, self.net.start(len(x)))
        losses = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none", label_smoothing=self.recipe.smoothing)
        return (losses * weight.flatten()).sum() / weight.sum()

    def _chosen(self, count: int, rng: Generator) -> list[list[Clip]]:
        """Return the clips of each row: `alike` batches are drawn, sorted by length, and one of them taken, so that little is padded."""
        draws = []
        for _ in range(self.recipe.rows * self.recipe.alike):
            g = int(rng.choice(len(self.groups), p=self.odds))
            draws.append([self.groups[g][i] for i in rng.choice(len(self.groups[g]), size=count, p=self.chances[g])])
        draws.sort(key=lambda clips: sum(len(c.x) for c in clips))
        block = int(rng.integers(self.recipe.alike)) * self.recipe.rows
        return draws[block : block + self.recipe.rows]

    def _row(self, clips: list[Clip], rng: Generator) -> Row:
        """Return one stream of joined clips."""
        return self._stream(joined([c.x for c in clips], self.body, self.recipe, self.hz, rng, self.flat), [c.label for c in clips])

    def _stream(self, pieces: Sequence[NDArray[np.float32]], labels: Sequence[int]) -> Row:
        """Return one stream of pieces: frames [T, P, J, 3], label [T], weight [T], which is 0 up to `asked` and 1 a piece in sum.

        Of a network without a stream the last frame alone is asked.
        """
        weights = []
        for x in pieces:
            w = np.clip(np.arange(1, len(x) + 1, dtype=np.float32) / len(x) - self.recipe.asked, 0, None)
            if not self.net.streams:
                w[:-1] = 0
            weights.append(w / w.sum())
        return np.concatenate(pieces), np.repeat(labels, [len(x) for x in pieces]), np.concatenate(weights)

    def validate(self) -> dict[str, float]:
        """Return the accuracy of the averaged weights on the validation clips, alone and in streams; none when there are none."""
        if not self.validation:
            return {}
        folded = self.folded()
        portions = {f"val_{round(100 * p)}": a for p, a in clip_accuracy(folded, self.validation).items()}
        if not folded.streams:
            return portions
        streams = [stream_accuracy(folded, self.validation, seed) for seed in range(3)]
        return portions | {"val_stream": float(np.mean(streams))}


def together(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return rows as a batch: x [B, T, P, J, 3], lengths [B], label [B, T], weight [B, T], all 0 past the ends."""
    x, lengths = padded([frames for frames, _, _ in rows])
    T = x.shape[1]
    label = torch.stack([F.pad(torch.from_numpy(y), (0, T - len(y))) for _, y, _ in rows])
    weight = torch.stack([F.pad(torch.from_numpy(w), (0, T - len(w))) for _, _, w in rows])
    return x, lengths, label, weight
