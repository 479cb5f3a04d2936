"""The motions task: five sets of clips under one vocabulary (model/data/vocabulary.toml), the bundle `action` from version 2 on.

A recipe is chosen by leaving one set out in turn: the network learns from the others' training parts and is asked about people, cameras
and trackers that it has never seen. The last run learns from the training parts of all.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning
import torch
from torch import Tensor

from indrnn.frames import layouts
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.cells.stacks import ANSWERS_AT_ONCE
from indrnn.model.data import bodies, sets, vocabulary
from indrnn.model.data.clips import HZ, Clip
from indrnn.model.data.vocabulary import Vocabulary
from indrnn.model.motions.motion_learner import MotionLearner, MotionRecipe
from indrnn.model.nets.action import ActionConfig
from indrnn.model.nets.network import StateNet
from indrnn.model.tasks.skeleton import GIVEN
from indrnn.model.training.calibration import ends
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.measure import last_layer, stream_accuracy, told_apart
from indrnn.model.training.robustness import curves
from indrnn.model.training.source import Source
from indrnn.model.training.task import Figures, Job, Task, figure

TERMS = {
    "utd_mhad": sets.UTD_MHAD,
    "nwucla": sets.NW_UCLA,
    "msraction3d": sets.MSR_ACTION3D,
    "florence3d": sets.FLORENCE3D,
    "hdm05": sets.HDM05,
}
OWN = "utd20"  # the joints that the network reads
HELD = {"utd_mhad": (7,), "nwucla": (9, 10), "msraction3d": (9,), "florence3d": (10,), "hdm05": (1,)}  # training subjects to calibrate by
SELECTING, LAST = "some", "none"


@dataclass(frozen=True)
class MotionsConfig(ActionConfig):
    """Bodies from their own side alone, velocities limited. Distances between joints would say which tracker is looking."""

    hidden: int = 192
    dropout: float = 0.1
    readout_dropout: float = 0.3
    own: bool = True
    jump: float = 0.15
    steady: float = 0.95


@dataclass(frozen=True)
class MotionsRecipe(MotionRecipe):
    """without: the set that is left out; held: whether some training subjects are kept to calibrate by, which the last run learns from."""

    without: str = field(default="", metadata={"choices": ("", *TERMS), "help": "set that nothing is learned from"})
    held: str = field(default=SELECTING, metadata={"choices": (SELECTING, LAST), "help": "none: learn from all training subjects"})
    clips: int = 2
    alike: int = 4
    average: int = 600
    plenty: float = 0.25
    gait: float = 0.08
    rate: float = 3e-3
    warmup: int = 50
    turn: float = 0.5
    tilt: float = 0.25
    speed: float = 0.6
    body: float = 0.15
    bones: float = 0.1
    noise: float = 0.01
    lossy: float = 0.2
    other_rate: float = 0.2
    cut: float = 0.15
    drift: float = 2.0
    misplaced: float = 0.02
    trunk: float = 0.15
    strange: float = 0.15
    swapped: float = 0.3

    def source(self, words: Vocabulary) -> Source:
        """Return the source that says where the clips are."""
        subjects = [vocabulary.SUBJECTS * words.number(name) + s for name, held in HELD.items() if name != self.without for s in held]
        held = "subject=" + ",".join(map(str, subjects)) if self.held == SELECTING else "none"
        return Source(vocabulary.FILE.name, "flag", held, OWN, 1.0, without=self.without)


def begin(job: Job, config: dict[str, Any], recipe: MotionsRecipe) -> tuple[MotionLearner, Meta]:
    """Reads the sets and splits each as its protocol says."""
    words = vocabulary.read()
    source = recipe.source(words)
    found = source.read()
    train, held, _ = source.split(found.clips)
    body = bodies.kinect(layouts.UTD20)
    lightning.seed_everything(job.seed, verbose=False)
    sizes = ActionConfig(joints=found.joints, persons=1, root=body.root, classes=len(words.motions), across=body.across, **config)
    if sizes.bidirectional:
        raise SizeError(ANSWERS_AT_ONCE)
    learner = MotionLearner(sizes, recipe, body, found, train, held, job.seed, words)
    own = {OWN: (layouts.UTD20, tuple((j,) for j in range(len(layouts.UTD20))))}
    meta = Meta(
        "action",
        job.command,
        job.seed,
        job.steps,
        labels=words.motions,
        layout=OWN,
        layouts=own | layouts.known(layouts.UTD20),
        persons=1,
        hz=HZ,
        held=None if recipe.held == LAST else source.held,
        data=tuple(TERMS[name] | {"labels": dict(words.sets[name].motions)} for name in words.sets if name != recipe.without),
        clips=dataclasses.asdict(source),
        task="motions",
        told={"unit": "m", "metres": 1.0, "axes": "x y z", "dims": 3},  # its bodies are adults, of whom frames/anatomy.py tells
    )
    return learner, meta


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Accuracy set by set by the highest score and by the label a user sees; of a set left out, what strangers may expect."""
    source, words = Source.told(meta), vocabulary.read()
    clips, _ = source.of(split)
    found: list[dict[str, Any]] = []
    for name in words.sets:
        own = [c for c in clips if words.name(c.subject) == name]
        if own:
            found += _accuracy(
                net, own, meta.other_below, f"{split}_{name}", f"{name}, {words.sets[name].test if split == 'test' else source.held}"
            )
    own = [c for c in clips if words.name(c.subject) == "utd_mhad"]
    if own:
        how = "each subject's clips of utd_mhad one after another in an order drawn from seed 0, no reset, answer at each clip's last frame"
        found.append(figure(f"{split}_utd_mhad_stream", 100 * stream_accuracy(net, own), "%", how))
        found += curves(net, own, HZ, f"{split}_utd_mhad", "utd_mhad")
    shared = [c for c in clips if sum(words.motions[c.label] in m.motions.values() for m in words.sets.values()) > 1]
    groups = [c.subject // vocabulary.SUBJECTS for c in shared]
    if len(set(groups)) > 1:
        told, chance = told_apart(last_layer(net, shared), groups, [c.label for c in shared])
        how = f"a linear probe of what the readout sees, on clips of motions that several sets have; guessing has {100 * chance:.0f}"
        found.append(figure(f"{split}_set_told", 100 * told, "%", how))
    if source.without and split == "val":
        found += strangers(net, meta, words, source.without)
    return tuple(found)


def _accuracy(net: StateNet, clips: Sequence[Clip], below: float | None, name: str, which: str) -> list[dict[str, Any]]:
    logits, labels = ends(net, clips)
    score, answer = logits.softmax(1).max(1)
    right = answer == labels
    found = [figure(f"{name}_accuracy", _percent(right), "%", f"{which}; whole clips, by the highest score of {len(logits[0])} motions")]
    if below is not None:
        found.append(
            figure(
                f"{name}_shown",
                _percent(right & (score >= below)),
                "%",
                f"{which}; whole clips, by the label shown, `other` below {below:g}",
            )
        )
    return found


def strangers(net: StateNet, meta: Meta, words: Vocabulary, name: str) -> list[dict[str, Any]]:
    """Return what a network says of the set that it has learned nothing from: motions it knows, and motions that it cannot know."""
    told, below = words.left_out[name], meta.other_below or 0.0
    clips = vocabulary.joined(words, [name]).clips
    known = [c for c in clips if words.motions[c.label] in told.known]
    unknown = [c for c in clips if words.motions[c.label] in told.unknown]
    logits, labels = ends(net, known)
    score, answer = logits.softmax(1).max(1)
    strange = ends(net, unknown)[0].softmax(1).amax(1)
    right, sure = answer == labels, score >= below
    how = f"a network that learned nothing from {name}: its {len(known)} clips of {', '.join(told.known)}"
    other = f"a network that learned nothing from {name}: its {len(unknown)} clips of motions that no other set has"
    at_loss = float(score.sort().values[int(0.05 * len(score))])
    return [
        figure(f"without_{name}_accuracy", _percent(right), "%", f"{how}; by the highest score"),
        figure(f"without_{name}_shown_wrong", _percent(~(right & sure)), "%", f"{how}; by the label shown, `other` counted as wrong"),
        figure(f"without_{name}_wrong_and_sure", _percent(~right & sure), "%", f"{how}; another motion's label shown"),
        figure(f"without_{name}_known_called_other", _percent(~sure), "%", how),
        figure(f"without_{name}_unknown_called_other", _percent(strange < below), "%", other),
        figure(
            f"without_{name}_unknown_called_other_at_5",
            _percent(strange < at_loss),
            "%",
            f"{other}; threshold where 5 % of its known ones are lost",
        ),
    ]


def _percent(of: Tensor) -> float:
    return 100 * float(of.to(torch.float32).mean())


TASK = Task(
    "motions",
    MotionsConfig,
    MotionsRecipe,
    begin,
    figures,
    headline="test_utd_mhad_accuracy",
    summary="five sets under one vocabulary: the bundle `action` from version 2 on",
    steps=6600,
    decay=1500,
    published=(("--held", LAST, "--seed", "1"),),
    given=GIVEN,
)
