"""Teaching the detecting network: windows of streams, in which a class is asked for shortly after its marks, and nothing elsewhere."""

import dataclasses
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import numpy as np
import torch.nn.functional as F  # noqa: N812  # its usual name
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.data.augment import Augment, joined, warp
from indrnn.model.data.bodies import Body
from indrnn.model.data.clips import Clip, ClipSet
from indrnn.model.detection.figures import chosen, probabilities, told_events, worth
from indrnn.model.detection.streams import MarkedMotion, MarkedStream
from indrnn.model.nets.detect import DetectConfig, DetectNet
from indrnn.model.training.clip_learner import Row, together
from indrnn.model.training.learner import Learner, Recipe
from indrnn.model.training.options import SEQUENCES, SMOOTHING

SETTLING = 45  # frames of a window begun within a stream that are not asked: their answers rest on frames that the network was not shown
MARKED = 0.75  # part of the windows that are drawn by their marks, so that streams with few are not learned as nothing alone


@dataclass(frozen=True)
class DetectRecipe(Augment, Recipe):
    """The way detection is learned, beside how streams are changed (Augment). Times are seconds.

    rows B of a batch, windows of `length` frames. A class is asked for from `early` before its mark until `late` after it, the sooner the
    heavier, which is what makes events come soon; in `unsure` on either side nothing is asked, because no mark is exact; everywhere else
    the answer is nothing. silence: the part that nothing has in the loss.
    """

    average: int = 200
    epoch: int = 200
    rows: int = field(default=24, metadata=SEQUENCES)
    length: int = field(default=192, metadata={"help": "frames of a sequence"})
    smoothing: float = field(default=0.05, metadata=SMOOTHING)
    early: float = field(default=0.0, metadata={"help": "seconds before its mark from which a class is asked for"})
    late: float = field(default=0.5, metadata={"help": "seconds after its mark until which it is"})
    unsure: float = field(default=0.2, metadata={"help": "seconds before and after these in which nothing is asked"})
    silence: float = field(default=0.5, metadata={"help": "part that the class nothing has in the loss"})
    speed: float = 0.25
    mirror: float = 0.0
    # By people left out in turn (docs/detection.md): without these three F1 is 90.2 and not 91.7; with an early of 0.1 as well, 87.8.
    bones: float = 0.12
    misplaced: float = 0.02
    trunk: float = 0.1


class DetectLearner(Learner[DetectNet, DetectRecipe]):
    """Classification of every frame of augmented windows of streams."""

    def __init__(
        self, config: DetectConfig, recipe: DetectRecipe, body: Body, data: ClipSet, train: list[Clip], validation: list[Clip], seed: int
    ) -> None:
        super().__init__(DetectNet(config), recipe, seed)
        self.body, self.hz, self.flat = body, data.hz, data.flat
        self.streams, self.validation = cast(list[MarkedStream], train), cast(list[MarkedStream], validation)
        self.steady_pace = dataclasses.replace(recipe, speed=0.0, sway=0.0)  # the pace is changed here, where the marks go with it
        lengths = np.array([len(s.x) for s in self.streams], np.float64)
        self.chances = lengths / lengths.sum()
        self.marks = [(s, e.point) for s in self.streams for e in s.events]

    def loss(self, step: int) -> Tensor:
        """Return the cross-entropy in nats, the mean over the asked frames of marks and that over nothing's, weighed by `silence`."""
        rng = np.random.default_rng([self.seed, step])
        rows = [self._row(rng) for _ in range(self.recipe.rows)]
        x, lengths, label, weight = (part.to(self.device) for part in together(rows))
        net = self.net.classifier
        logits, _ = net(x, lengths, net.start(len(x)))
        losses = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none", label_smoothing=self.recipe.smoothing)
        losses, weight, nothing = losses * weight.flatten(), weight.flatten(), label.flatten() == 0
        parts = [losses[which].sum() / weight[which].sum().clamp_min(1e-6) for which in (nothing, ~nothing)]
        return self.recipe.silence * parts[0] + (1 - self.recipe.silence) * parts[1]

    def _row(self, rng: Generator) -> Row:
        """Return one changed window: frames [T, P, J, 3], label [T], weight [T]."""
        n = self.recipe.length
        reach = int(n * np.exp(self.recipe.speed)) + 1  # what plays in n frames at the fastest
        if self.marks and rng.random() < MARKED:
            stream, point = self.marks[int(rng.integers(len(self.marks)))]
            begin = point - int(rng.integers(0, n))
        else:
            stream = self.streams[int(rng.choice(len(self.streams), p=self.chances))]
            begin = int(rng.integers(-n // 4, max(1, len(stream.x) - n // 2)))  # below 0: a stream's start is learned more often
        begin = max(0, min(begin, len(stream.x) - 1))
        x = stream.x[begin : begin + reach]
        r = self.recipe
        speed, sway, phase = float(np.exp(rng.uniform(-r.speed, r.speed))), rng.uniform(0, r.sway), rng.uniform(0, 2 * np.pi)
        played = warp(x, speed, sway, phase)[:n]
        when = warp(np.arange(len(x), dtype=np.float32).reshape(-1, 1, 1, 1), speed, sway, phase)[:n].ravel()
        marks = [
            MarkedMotion(e.label, int(np.searchsorted(when, e.point - begin))) for e in stream.events if 0 <= e.point - begin <= when[-1]
        ]
        (seen,) = joined([played], self.body, self.steady_pace, self.hz, rng, self.flat)
        label, weight = self._asked(marks, len(seen))
        if begin:
            weight[:SETTLING] = 0
        return seen, label, weight

    def _asked(self, marks: list[MarkedMotion], T: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return label [T] and weight [T] of a window; between marks, however close, the answer is nothing for a quarter of the way."""
        r = self.recipe
        early, late, unsure = (round(seconds * self.hz) for seconds in (r.early, r.late, r.unsure))
        label, weight = np.zeros(T, np.int64), np.ones(T, np.float32)
        points = [-T, *(e.point for e in marks), 3 * T]
        gaps = [int(b - a) for a, b in pairwise(points)]
        for e, before, after in zip(marks, gaps[:-1], gaps[1:], strict=True):
            first, last = e.point - min(early, before // 6), e.point + min(late, after // 3)
            weight[max(0, first - min(unsure, before // 8)) : last + min(unsure, after // 8) + 1] = 0
            frames = np.arange(max(0, first), min(T, last + 1))
            label[frames] = e.label
            weight[frames] = 1 - 0.5 * (frames - first) / (late + early + 1)
        return label, weight

    def validate(self) -> dict[str, float]:
        """Choose the hysteresis of the averaged weights on validation streams, and return their figures; none where there are no such."""
        if not self.validation:
            return {}
        found = probabilities(self.folded(), self.validation)
        rules = chosen(found, self.validation, self.hz)
        w = worth(rules.on, told_events(found, [rules])[0], self.validation, self.hz)
        if w.f1 > 0:  # else nothing is known, and nothing is changed
            self.averaged.set_hysteresis(*rules)
        return {"val_f1": w.f1, "val_false_alarms": w.false_alarms, "val_delay": w.delay_p50, "on": rules.on}
