"""The task `ntu`: NTU RGB+D, two persons, 20 frames a clip, one answer at the end, averaged over samplings.

The papers feed raw coordinates of both persons; here both stand relative to the first one's hip (`together`), which keeps the distance
between them. The network is the served one, |u| <= 0.99, so that a model of it can be streamed; the papers allow 5^(1/20) = 1.08.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor

from indrnn.model.data.augment import joined
from indrnn.model.nets.action import ActionConfig
from indrnn.model.nets.network import StateNet
from indrnn.model.tasks.skeleton import GIVEN, SkeletonRecipe, folds, learn
from indrnn.model.training import sampling
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.clip_learner import ClipLearner
from indrnn.model.training.measure import padded
from indrnn.model.training.options import CLIPS
from indrnn.model.training.source import Source
from indrnn.model.training.task import Figures, Job, Task, figure

FRAMES = 20
SAMPLINGS = 20  # of a test clip; the papers take the mean of as many
VALIDATION_SAMPLINGS = 5


@dataclass(frozen=True)
class NtuConfig(ActionConfig):
    """The papers' plain network: 6 layers of 512."""

    hidden: int = 512
    layers: int = 6
    pools: tuple[float, ...] = (0.9,)
    dropout: float = 0.25
    together: bool = True


@dataclass(frozen=True)
class NtuRecipe(SkeletonRecipe):
    """test: cross-subject, cross-view or cross-setup; 5 % of the training clips, those of one subject in twenty, are held."""

    file: str = field(default="skeleton/ntu.npz", metadata=CLIPS)
    test: str = "cross-subject"
    held: str = "fold=1/20"
    rows: int = 128
    rate: float = 2e-3
    smoothing: float = 0.0
    turn: float = 0.5
    sway: float = 0.0


class NtuLearner(ClipLearner):
    """Classification after the last of 20 frames."""

    def loss(self, step: int) -> Tensor:
        """Return the mean cross-entropy in nats at the last frame."""
        rng = np.random.default_rng([self.seed, step])
        clips = [own[0] for own in self._chosen(1, rng)]
        changed = [joined([c.x], self.body, self.recipe, self.hz, rng, self.flat)[0] for c in clips]
        x, lengths = padded([sampling.segments(c, FRAMES, rng) for c in changed])
        logits, _ = self.net(x, lengths, self.net.start(len(x)))
        label = torch.tensor([c.label for c in clips])
        return F.cross_entropy(logits[:, -1], label, label_smoothing=self.recipe.smoothing)

    def validate(self) -> dict[str, float]:
        """Return the accuracy of the averaged weights on the validation clips; none when there are none."""
        if not self.validation:
            return {}
        return {"val": sampling.accuracy(self.averaged.fold(), self.validation, FRAMES, VALIDATION_SAMPLINGS)}


def begin(job: Job, config: dict[str, Any], recipe: NtuRecipe) -> tuple[ClipLearner, Meta]:
    """Reads what `python -m indrnn.model.data.ntu` wrote, and splits it as the recipe says."""
    return learn(job, config, recipe, recipe.source, (), recipe.facing, NtuLearner, NtuConfig)


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Return the accuracy by one sampling of 20 frames, the figure of a served model, and by the mean of 20, the papers' figure."""
    clips, which = Source.told(meta).of(split)
    how = f"{which}; 20 of a clip's frames, one answer at the last, running statistics; mean of samplings: "
    return tuple(figure(f"{split}_accuracy_{n}", 100 * sampling.accuracy(net, clips, FRAMES, n), "%", how + str(n)) for n in (1, SAMPLINGS))


TASK = Task(
    "ntu",
    NtuConfig,
    NtuRecipe,
    begin,
    figures,
    headline=f"test_accuracy_{SAMPLINGS}",
    summary="NTU RGB+D: 60 actions, two persons",
    steps=20000,
    decay=10000,
    published=(("--held", "none", "--seed", "1"),),
    given=GIVEN,
    folds=folds,
)
