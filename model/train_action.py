"""Teaching the action network: clips of one person joined into short streams, an answer asked for throughout the later part of each."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from model import data, skeletons
from model.action import ActionConfig, ActionNet
from model.augment import joined
from model.checkpoint import Meta
from model.layouts import LAYOUTS
from model.learner import Learner, Recipe
from model.measure import clip_accuracy, padded, stream_accuracy
from model.network import StateNet
from model.skeletons import Clip
from model.task import Figures, Job, NothingHeldError, Task, figure

HOLDABLE = (0, *skeletons.SUBJECTS["train"])


@dataclass(frozen=True)
class ActionRecipe(Recipe):
    """rows B of a batch, each of 1 to `clips` joined clips; smoothing of the labels; asked: part of a clip after which answers count.

    held: the training subject that is kept to select by; with 0 all are trained on: a recipe's last run.
    """

    average: int = 100
    epoch: int = 100
    rows: int = 32
    clips: int = 3
    smoothing: float = 0.1
    asked: float = 0.3
    held: int = field(default=7, metadata={"choices": HOLDABLE, "help": "training subject to select by; 0: train on all"})


class ActionLearner(Learner[ActionNet, ActionRecipe]):
    """Classification of every late frame of augmented, joined clips."""

    def __init__(self, config: ActionConfig, recipe: ActionRecipe, train: list[Clip], validation: list[Clip], seed: int) -> None:
        super().__init__(ActionNet(config), recipe, seed)
        self.validation = validation
        self.by_subject = {s: [c for c in train if c.subject == s] for s in sorted({c.subject for c in train})}

    def loss(self, step: int) -> Tensor:
        """Mean over the asked frames of the cross-entropy in nats, the later in its clip the heavier."""
        rng = np.random.default_rng([self.seed, step])
        count = int(rng.integers(1, self.recipe.clips + 1))  # one number for all rows: less padding
        rows = [self._row(count, rng) for _ in range(self.recipe.rows)]
        x, lengths = padded([frames for frames, _, _ in rows])
        T = x.shape[1]
        label = torch.stack([F.pad(torch.from_numpy(y), (0, T - len(y))) for _, y, _ in rows])
        weight = torch.stack([F.pad(torch.from_numpy(w), (0, T - len(w))) for _, _, w in rows])
        logits, _ = self.net(x, lengths, self.net.start(len(x)))
        losses = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none", label_smoothing=self.recipe.smoothing)
        return (losses * weight.flatten()).sum() / weight.sum()

    def _row(self, count: int, rng: Generator) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """One stream of `count` joined clips: frames [T, J, 3], label [T], weight [T], which is 0 up to `asked` and 1 a clip in sum."""
        own = self.by_subject[int(rng.choice(list(self.by_subject)))]
        clips = [own[i] for i in rng.integers(len(own), size=count)]
        pieces = joined([c.x for c in clips], rng)
        weights = []
        for x in pieces:
            w = np.clip(np.arange(1, len(x) + 1, dtype=np.float32) / len(x) - self.recipe.asked, 0, None)
            weights.append(w / w.sum())
        label = np.repeat([c.label for c in clips], [len(x) for x in pieces])
        return np.concatenate(pieces), label, np.concatenate(weights)

    def validate(self) -> dict[str, float]:
        """Accuracy of the averaged weights on the validation subject, on clips and on its stream; none when it is trained on."""
        if not self.validation:
            return {}
        folded = self.averaged.fold()
        portions = {f"val_{round(100 * p)}": a for p, a in clip_accuracy(folded, self.validation).items()}
        streams = [stream_accuracy(folded, self.validation, seed) for seed in range(3)]
        return portions | {"val_stream": float(np.mean(streams))}


def begin(job: Job, config: dict[str, Any], recipe: ActionRecipe) -> tuple[ActionLearner, Meta]:
    """Reads the clips; trains on the training subjects but the held one."""
    clips, labels = skeletons.read()
    lightning.seed_everything(job.seed, verbose=False)
    sizes = ActionConfig(classes=len(labels), **config)
    train = skeletons.of_subjects(clips, set(skeletons.SUBJECTS["train"]) - {recipe.held})
    validation = skeletons.of_subjects(clips, set(skeletons.SUBJECTS["train"]) & {recipe.held})
    learner = ActionLearner(sizes, recipe, train, validation, job.seed)
    meta = Meta("action", job.command, job.seed, job.steps, labels=labels, layout="utd20", layouts=LAYOUTS)
    return learner, dataclasses.replace(meta, persons=sizes.persons, hz=skeletons.HZ, held=recipe.held or None, data=(data.UTD_MHAD,))


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Accuracy on single clips after parts of them, and at the end of each clip in streams without a reset.

    Raises NothingHeldError for `val` when the network learned from every training subject.
    """
    held = () if meta.held is None else (meta.held,)
    subjects = skeletons.SUBJECTS["test"] if split == "test" else held
    if not subjects:
        raise NothingHeldError("expected a held-out subject to validate on, but this network learned from all (--held 0)")
    clips = skeletons.of_subjects(skeletons.read()[0], subjects)
    who = "subjects " + ", ".join(map(str, subjects))
    single = [
        figure(f"{split}_accuracy_{round(100 * p)}", 100 * a, "%", f"{who}; single clips from a zero state, after {round(100 * p)} %")
        for p, a in clip_accuracy(net, clips).items()
    ]
    protocol = f"{who}; each subject's clips one after another in an order drawn from seed 0, no reset, answer at each clip's last frame"
    return (*single, figure(f"{split}_accuracy_stream", 100 * stream_accuracy(net, clips), "%", protocol))


TASK = Task(
    "action",
    ActionConfig,
    ActionRecipe,
    begin,
    figures,
    headline="test_accuracy_100",
    steps=800,
    decay=400,
    published=(("--held", "0", "--seed", "1"), ("--held", "0", "--seed", "2"), ("--held", "0", "--seed", "3")),
    given=frozenset({"classes", "joints", "persons", "root"}),
)
