"""The task detect: streams of anybody's file whose motions are marked, learned so that each is told once, soon after its mark."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from indrnn.model.data import sets
from indrnn.model.data.clips import HZ
from indrnn.model.detection.figures import DELAYED, TOLERANCE, Thresholds, Worth, curve, probabilities, told_events, worth
from indrnn.model.detection.learner import DetectLearner, DetectRecipe
from indrnn.model.detection.source import StreamSource
from indrnn.model.detection.streams import MarkedStream
from indrnn.model.nets.detect import DetectConfig, DetectNet
from indrnn.model.nets.network import StateNet
from indrnn.model.tasks.skeleton import GIVEN, LAYOUT, UNIT, learn
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.options import FACING
from indrnn.model.training.task import Figures, Job, NothingHeldError, Task, figure

JOINED = "joined.npz"  # the name under which docs/detection.md keeps what model/detection/joining.py makes


@dataclass(frozen=True)
class DetectFileRecipe(DetectRecipe):
    """The file, its split, joints and unit, as `skeleton` has them; mark: where in an interval its mark is."""

    file: str = field(default="", metadata={"positional": True, "help": "an .npz of marked streams, as model/detection/streams.py says"})
    test: str = field(default="fold=1/5", metadata={"help": "streams to test on: flag, subject=1,2, view=3, fold=1/5, none"})
    held: str = field(default="fold=1/5", metadata={"help": "of the others, streams to select by; none: train on all"})
    layout: str = field(default="", metadata=LAYOUT)
    unit: float = field(default=0.0, metadata=UNIT)
    facing: bool = field(default=True, metadata=FACING)
    mark: float = field(
        default=0.5, metadata={"help": "part of an interval after which its motion is marked, where intervals are given alone"}
    )


def begin(job: Job, config: dict[str, Any], recipe: DetectFileRecipe) -> tuple[DetectLearner, Meta]:
    """Reads the streams and splits them as the recipe says."""
    source = StreamSource(recipe.file, recipe.test, recipe.held, recipe.layout, recipe.unit, mark=recipe.mark)
    terms = (sets.UTD_MHAD, sets.NW_UCLA) if Path(recipe.file).name == JOINED else ()
    learner, meta = learn(job, config, recipe, source, terms, recipe.facing, DetectLearner, DetectConfig)
    return learner, meta


def _measured(net: StateNet, meta: Meta, split: str) -> tuple[DetectNet, list[MarkedStream], str]:
    if not isinstance(net, DetectNet):
        raise NothingHeldError(f"expected a network that detects, got a {type(net).__name__}")
    found, which = StreamSource.told(meta).of(split)
    return net, cast(list[MarkedStream], found), which


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Return precision, recall, F1, delay and false alarms a minute with the network's own hysteresis.

    Raises NothingHeldError for a split without streams, as `val` of a network that learned from all training streams.
    """
    detect, found, which = _measured(net, meta, split)
    c, hz = detect.config, meta.hz or HZ
    rules = Thresholds(c.on, c.off, c.least, c.pause)
    w = worth(rules.on, told_events(probabilities(detect, found), [rules])[0], found, hz)
    minutes, marks = sum(len(s.x) for s in found) / hz / 60, sum(len(s.events) for s in found)
    how = f"{which}; {len(found)} streams, {minutes:.0f} minutes, {marks} marks"
    near = f"{how}; an event is right that is told within {TOLERANCE:.3f} s of a mark of its class, one event a mark"
    late = f"{how}; frames of {hz:g} a second from a mark to the event of its class told within {DELAYED:g} s of it"
    return (
        figure(f"{split}_f1", 100 * w.f1, "%", near),
        figure(f"{split}_precision", 100 * w.precision, "%", near),
        figure(f"{split}_recall", 100 * w.recall, "%", near),
        figure(f"{split}_false_alarms", w.false_alarms, "a minute", f"{near}; all others are false"),
        *(
            figure(f"{split}_delay_{name}", value, "frames", late)
            for name, value in (("p50", w.delay_p50), ("p90", w.delay_p90))
            if value == value
        ),
    )


def curves(net: StateNet, meta: Meta, split: str) -> tuple[list[Worth], float]:
    """Return the figures over the threshold `on`, the rest of the hysteresis in proportion or as it is; and the network's own `on`."""
    detect, found, _ = _measured(net, meta, split)
    c, hz = detect.config, meta.hz or HZ
    return curve(probabilities(detect, found), found, hz, Thresholds(c.on, c.off, c.least, c.pause)), c.on


TASK = Task(
    "detect",
    DetectConfig,
    DetectFileRecipe,
    begin,
    figures,
    headline="test_f1",
    summary="uncut streams of a file of your own, whose motions are marked",
    steps=1500,
    decay=750,
    published=(),
    given=GIVEN | {"on", "off", "least", "pause"},
    curves=curves,
)
