"""The hysteresis of a checkpoint, chosen on held streams: its own, or those of networks of the same recipe that left them out."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from indrnn.model.data.clips import HZ
from indrnn.model.detection.figures import Thresholds, chosen, probabilities, told_events, worth
from indrnn.model.detection.source import StreamSource
from indrnn.model.detection.streams import MarkedStream
from indrnn.model.nets.detect import DetectNet
from indrnn.model.training import checkpoint
from indrnn.model.training.task import Figures, NothingHeldError, figure


def run(path: Path, by: Sequence[Path]) -> Figures:
    """Chooses the hysteresis of the checkpoint at path by the held streams of the checkpoints `by` (itself where there are none).

    A network that learned from all training streams has no held ones. Raises NothingHeldError when none of `by` has held streams, or one
    tells other classes apart; CheckpointError.
    """
    trained, meta = checkpoint.load_trained(path)
    assert isinstance(trained, DetectNet), "the caller has looked"
    found: list[NDArray[np.float32]] = []
    streams: list[MarkedStream] = []
    for one in by or [path]:
        net, told = checkpoint.load(one)
        if not isinstance(net, DetectNet) or (told.labels, told.layout, told.hz) != (meta.labels, meta.layout, meta.hz):
            raise NothingHeldError(f"{one}: expected a network of the same joints, classes and rate as the one to be calibrated")
        source = StreamSource.told(told)
        held = cast(list[MarkedStream], source.split(source.read().clips)[1])
        found += probabilities(net, held) if held else []
        streams += held
    if not streams:
        raise NothingHeldError("expected a network with streams held out of its training, for its own or for another's calibration (--by)")
    hz = meta.hz or HZ
    rules = chosen(found, streams, hz)
    w = worth(rules.on, told_events(found, [rules])[0], streams, hz)
    trained.set_hysteresis(*rules)
    this = shlex.join(["indrnn", "calibrate", str(path), *(["--by", *map(str, by)] if by else [])])
    command = meta.command if meta.command.endswith(f" && {this}") else f"{meta.command} && {this}"
    how = f"{len(streams)} held streams, each by a network that has not learned from it, with the hysteresis chosen on them"
    kept = (figure("val_f1_chosen", 100 * w.f1, "%", how), figure("val_false_alarms_chosen", w.false_alarms, "a minute", how))
    figures = {f["name"]: f for f in (*meta.figures, *kept)}
    checkpoint.save(path, trained, dataclasses.replace(meta, command=command, figures=tuple(figures.values())))
    print(_said(rules, w.f1, w.false_alarms))
    return kept


def _said(rules: Thresholds, f1: float, false_alarms: float) -> str:
    numbers = ", ".join(f"{name} {value:g}" for name, value in rules._asdict().items())
    return f"{numbers}: F1 {100 * f1:.1f} %, {false_alarms:.2f} false alarms a minute on held streams"
