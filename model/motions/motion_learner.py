"""Teaching one network the motions of several sets: no set more often than another for one motion, mirrors with their own labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from indrnn.frames.joints import hold
from indrnn.frames.layouts import UTD20
from indrnn.model.data.augment import mirrored, shortened, warp
from indrnn.model.data.bodies import Body
from indrnn.model.data.camera import lose, resample, seen_at
from indrnn.model.data.clips import Clip, ClipSet, Frames
from indrnn.model.data.vocabulary import SUBJECTS, Vocabulary
from indrnn.model.motions import gait
from indrnn.model.motions.crowd import seen_elsewhere
from indrnn.model.nets.action import ActionConfig
from indrnn.model.training.clip_learner import ClipLearner, ClipRecipe, Row, together
from indrnn.model.training.measure import clip_accuracy

ENDS = tuple(
    (UTD20.index(f"{side} {end}"), UTD20.index(f"{side} {joint}"))
    for side in ("left", "right")
    for end, joint in (("hand", "wrist"), ("foot", "ankle"))
)
ARMS = tuple(tuple(UTD20.index(f"{side} {joint}") for joint in ("shoulder", "elbow", "wrist", "hand")) for side in ("left", "right"))
ROOT = UTD20.index("hip centre")
STRANGE = -1  # the label of a motion that is none of the list: every class is as likely


@dataclass(frozen=True)
class MotionRecipe(ClipRecipe):
    """How several sets are learned from at once.

    swapped: odds of a mirrored clip, which has the mirrored label. endless: odds that hands and feet are drawn to wrists and ankles, as by
    trackers that have none. mixed: odds that a stream's clips are of anybody, from any set. strange: part of the clips whose arms move as
    no motion of the list does, of which nothing is to be said. quick: the middle of the paces that clips of every set are played at, of
    life's: some sets play theirs twice as fast and more.
    """

    swapped: float = field(default=0.5, metadata={"help": "odds of a clip mirrored, with the mirrored label"})
    endless: float = field(default=0.5, metadata={"help": "odds of hands and feet drawn to wrists and ankles"})
    mixed: float = field(default=0.5, metadata={"help": "odds that a stream's clips come from any set"})
    quick: float = field(default=1.5, metadata={"help": "the middle of the paces of clips, of life's"})
    strange: float = field(default=0.0, metadata={"help": "part of the clips with motions of no class"})
    gait: float = field(default=0.0, metadata={"help": "part of the clips in which the body walks or jogs, as people do"})
    plenty: float = field(default=0.0, metadata={"help": "0: a motion of a set as often as any other; 1: as it has clips"})


class MotionLearner(ClipLearner):
    """Classification of every late frame of clips of several sets."""

    def __init__(
        self,
        config: ActionConfig,
        recipe: MotionRecipe,
        body: Body,
        data: ClipSet,
        train: list[Clip],
        validation: list[Clip],
        seed: int,
        words: Vocabulary,
    ) -> None:
        super().__init__(config, recipe, body, data, train, validation, seed)
        self.twins = words.twins
        self.gaits = [words.index(gait.WALK), words.index(gait.JOG)] if recipe.gait else []
        self.paces = [1.0, *(member.pace / recipe.quick for member in words.sets.values())]
        kinds = [(c.subject // SUBJECTS, c.label) for c in train]
        count = {kind: kinds.count(kind) for kind in set(kinds)}
        self.all = train
        weight = {kind: n ** (recipe.plenty - 1) for kind, n in count.items()}  # of a clip
        self.all_odds = np.array([weight[kind] for kind in kinds])
        chances = [np.array([weight[c.subject // SUBJECTS, c.label] for c in g]) for g in self.groups]
        self.odds = np.array([c.sum() for c in chances]) / sum(c.sum() for c in chances)
        self.chances = [c / c.sum() for c in chances]
        self.all_below, self.below = below(self.all_odds), below(self.odds)
        self.clip_below = [below(c) for c in self.chances]

    def loss(self, step: int) -> Tensor:
        """Return the mean over the asked frames of the cross-entropy in nats; a strange clip's is to every class alike."""
        rng = np.random.default_rng([self.seed, step])
        count = int(rng.integers(1, self.recipe.clips + 1))
        rows = [self._row(clips, rng) for clips in self._chosen(count, rng)]
        x, lengths, label, weight = together(rows)
        x = seen_elsewhere(x, self.body, self.recipe, self.hz, rng)
        x, lengths, label, weight = (part.to(self.device) for part in (x, lengths, label, weight))
        logits, _ = self.net(x, lengths, self.net.start(len(x)))
        return (self.cross_entropy(logits, label) * weight).sum() / weight.sum()

    def cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the cross-entropy in nats of logits [..., K] and smoothed labels [...]; of STRANGE to all classes alike."""
        scores = logits.log_softmax(-1)
        named = -scores.gather(-1, label.clamp_min(0)[..., None])[..., 0]
        alike = -scores.mean(-1)
        smooth = self.recipe.smoothing
        return torch.where(label == STRANGE, alike, (1 - smooth) * named + smooth * alike)

    def _chosen(self, count: int, rng: Generator) -> list[list[Clip]]:
        recipe = self.recipe
        assert isinstance(recipe, MotionRecipe)
        draws: list[list[Clip]] = []
        rows = recipe.rows * recipe.alike
        of_all = np.searchsorted(self.all_below, rng.random((rows, count)))
        groups = np.searchsorted(self.below, rng.random(rows))
        within = rng.random((rows, count))
        for i, mixed in enumerate(rng.random(rows) < recipe.mixed):
            if mixed:
                draws.append([self.all[k] for k in of_all[i]])
            else:
                g = groups[i]
                draws.append([self.groups[g][k] for k in np.searchsorted(self.clip_below[g], within[i])])
        draws.sort(key=lambda clips: sum(len(c.x) * self._pace(c) for c in clips))
        block = int(rng.integers(recipe.alike)) * recipe.rows
        return draws[block : block + recipe.rows]

    def _pace(self, clip: Clip) -> float:
        return self.paces[clip.subject // SUBJECTS]

    def _row(self, clips: list[Clip], rng: Generator) -> Row:
        recipe = self.recipe
        assert isinstance(recipe, MotionRecipe)
        swapped = rng.random() < recipe.swapped
        part = rng.uniform() if rng.random() < recipe.endless else 1.0
        frames, labels, paces = [], [], []
        for c in clips:
            x, label, pace = drawn_in(c.x, part), c.label, self._pace(c)
            twin = self.twins[label]
            if swapped and twin is not None:
                x, label = mirrored(x, self.body), twin
            if rng.random() < recipe.gait and gait.stands(c.x[0, 0]):
                jogs = bool(rng.random() < 0.5)
                x, label = gait.going(x[0, 0], self.body, jogs, self.hz, rng), self.gaits[jogs]
                pace = min(self.paces[1:])
            elif rng.random() < recipe.strange:
                x, label = strange(x, self.all[int(rng.integers(len(self.all)))].x, rng), STRANGE
            frames.append(x)
            labels.append(label)
            paces.append(pace)
        pieces = [self._played(x, pace, rng) for x, pace in zip(frames, paces, strict=True)]
        if rng.random() < recipe.lossy:
            share = rng.uniform(0, recipe.lost)
            pieces = [hold(lose(x, share, rng), np.zeros(x.shape[1:], np.float32)) for x in pieces]
        return self._stream(pieces, labels)

    def _played(self, x: Frames, pace: float, rng: Generator) -> Frames:
        """Return x [T, P, J, 3] slowed down by its pace, with less of its ends, as the network gets it from a camera of some rate."""
        recipe = self.recipe
        x = shortened(x, recipe.cut, rng)
        x = warp(x, float(np.exp(rng.uniform(-recipe.speed, recipe.speed))) / pace, rng.uniform(0, recipe.sway), rng.uniform(0, 2 * np.pi))
        if rng.random() < recipe.other_rate:
            rate = float(np.exp(rng.uniform(np.log(recipe.slowest), np.log(recipe.fastest))))
            x = resample(seen_at(x, self.hz, rate, rng.uniform(0, 1)), rate, self.hz)
        return x

    def validate(self) -> dict[str, float]:
        """Return the accuracy of the averaged weights on whole validation clips; none where there are none."""
        if not self.validation:
            return {}
        return {"val_100": clip_accuracy(self.folded(), self.validation)[1.0]}


def below(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, for each of these odds, the chance of what comes before it or it: what a number from 0 to 1 is looked up in."""
    sums = np.cumsum(odds)
    chances: NDArray[np.float64] = sums[:-1] / sums[-1]
    return chances


def drawn_in(x: Frames, part: float) -> Frames:
    """Return x [T, P, 20, 3] with hands and feet at so much of their distance from wrists and ankles."""
    if part == 1:
        return x
    out = x.copy()
    for end, joint in ENDS:
        out[..., end, :] = x[..., joint, :] + np.float32(part) * (x[..., end, :] - x[..., joint, :])
    return out


def strange(x: Frames, other: Frames, rng: Generator) -> Frames:
    """Return x [T, P, 20, 3] made a motion of no class: half-way to another clip's, or with one arm or both that move as none does."""
    at = np.minimum((np.arange(len(x)) * len(other) / len(x)).astype(np.int64), len(other) - 1)
    guest = other[at]
    kind = rng.integers(3)
    if kind == 0:
        share = np.float32(rng.uniform(0.35, 0.65))
        middle, own = guest[..., [ROOT], :], x[..., [ROOT], :]
        mixed: Frames = own + (1 - share) * (x - own) + share * (guest - middle)
        return mixed
    out, turn = x.copy(), random_turn(rng)
    for arm in ARMS if kind == 1 else ARMS[:1]:
        shoulder, rest = [arm[0]], list(arm[1:])
        whose = x if kind == 1 else guest
        out[..., rest, :] = x[..., shoulder, :] + (whose[..., rest, :] - whose[..., shoulder, :]) @ turn.T
    return out


def random_turn(rng: Generator) -> NDArray[np.float32]:
    """Return a rotation [3, 3] by 0.8 to 2.4 radians about an axis drawn from all directions."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = rng.uniform(0.8, 2.4)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turned: NDArray[np.float32] = (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross).astype(np.float32)
    return turned


def of_sets(clips: Sequence[Clip], numbers: Sequence[int]) -> list[Clip]:
    """Return the clips of the sets of these numbers."""
    return [c for c in clips if c.subject // SUBJECTS in numbers]
