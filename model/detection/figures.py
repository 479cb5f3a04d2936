"""What a network that detects is worth: events against marks, and the hysteresis that is best on held streams.

An event is right where it is told within `TOLERANCE` seconds of a mark of its class that no other event has taken (Bloom, Makris,
Argyriou, "G3D: A gaming action dataset and real time action recognition evaluation framework", CVPRW 2012; Fothergill et al., CHI 2012).
What counts is the frame at which an event is told, not the one at which it is said to have begun: waiting is paid for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from indrnn.model.detection.streams import MarkedMotion, MarkedStream
from indrnn.model.nets.detect import DetectNet
from indrnn.model.training.measure import padded

TOLERANCE = 1 / 3  # seconds: 10 frames of 30 a second
DELAYED = 1.0  # seconds within which an event counts as a mark's for its delay
ROWS = 16  # streams that are measured at once
PIECE = 1_000  # frames that they are read in: the state is carried, so it changes nothing but memory
FALSE_ALARMS = 1.0  # a minute: what a chosen hysteresis keeps to, where any does


class Thresholds(NamedTuple):
    """A hysteresis, as model/nets/hysteresis.py has it."""

    on: float
    off: float
    least: int
    pause: int


class ToldEvent(NamedTuple):
    """An event as it was told: its class, and the frame."""

    label: int
    at: int


@dataclass(frozen=True)
class Worth:
    """Figures of one hysteresis on some streams. Delays are frames from the mark to the event, NaN where there is none."""

    on: float
    precision: float
    recall: float
    f1: float
    false_alarms: float
    delay_p50: float
    delay_p90: float


def told_events(probabilities: Sequence[NDArray[np.float32]], rules: Sequence[Thresholds]) -> list[list[list[ToldEvent]]]:
    """Return the events of each hysteresis, of each stream [T_s, K]: the recurrence of model/nets/hysteresis.py for all at once."""
    S, G, K = len(probabilities), len(rules), probabilities[0].shape[1]
    order = sorted(range(S), key=lambda s: -len(probabilities[s]))
    lengths = np.array([len(probabilities[s]) for s in order])
    on, off, least, pause = (np.array([r[i] for r in rules], np.float32)[:, None] for i in range(4))
    a, high, busy = (np.zeros((G, S), np.int64 if i == 0 else np.float32) for i in range(3))
    told = np.zeros((G, S), np.bool_)
    found: list[list[list[ToldEvent]]] = [[[] for _ in range(S)] for _ in range(G)]
    for t in range(int(lengths[0])):
        n = int((lengths > t).sum())  # streams that go on, the longest first
        p = np.zeros((n, K), np.float32)
        for i in range(n):
            p[i] = probabilities[order[i]][t]
        rows = np.arange(n)
        k = 1 + p[:, 1:].argmax(1)
        p_k = p[rows, k]
        p_a = p[rows, a[:, :n]]
        lasts = (a[:, :n] > 0) & (p_a >= off) & ~((k != a[:, :n]) & (p_k >= on))
        a[:, :n] = np.where(lasts, a[:, :n], np.where(p_k >= off, k, 0))
        now = np.where(lasts, p_a, p_k)
        high[:, :n] = np.where(now >= on, np.where(lasts, high[:, :n], 0) + 1, 0)
        told[:, :n] &= lasts
        event = (high[:, :n] >= least) & (busy[:, :n] <= 0) & ~told[:, :n]
        told[:, :n] |= event
        busy[:, :n] = np.where(event, pause, np.maximum(busy[:, :n] - 1, 0))
        for g, i in np.argwhere(event):
            found[g][order[i]].append(ToldEvent(int(a[g, i]), t))
    return found


def matches(told: Sequence[ToldEvent], marks: Sequence[MarkedMotion], frames: float) -> list[int]:
    """Return the delay in frames of each pair of an event and a mark of its class at most `frames` apart; each is in one pair at most."""
    delays = []
    for label in {e.label for e in marks}:
        left = [e.at for e in told if e.label == label]
        for point in (e.point for e in marks if e.label == label):
            near = next((at for at in left if abs(at - point) <= frames), None)
            if near is not None:
                left.remove(near)
                delays.append(near - point)
    return delays


def worth(on: float, told: Sequence[Sequence[ToldEvent]], streams: Sequence[MarkedStream], hz: float) -> Worth:
    """Return the figures of the events told in streams."""
    right = sum(len(matches(e, s.events, TOLERANCE * hz)) for e, s in zip(told, streams, strict=True))
    delays = [d for e, s in zip(told, streams, strict=True) for d in matches(e, s.events, DELAYED * hz)]
    events, marks = sum(map(len, told)), sum(len(s.events) for s in streams)
    minutes = sum(len(s.x) for s in streams) / hz / 60
    p50, p90 = np.percentile(delays, [50, 90]) if delays else (np.nan, np.nan)
    f1 = 2 * right / max(1, events + marks)
    return Worth(on, right / max(1, events), right / max(1, marks), f1, (events - right) / minutes, float(p50), float(p90))


@torch.no_grad()
def probabilities(net: DetectNet, streams: Sequence[MarkedStream]) -> list[NDArray[np.float32]]:
    """Return the scores [T, K] after each frame of each stream, from a zero state on."""
    order = sorted(range(len(streams)), key=lambda i: len(streams[i].x))
    found: list[list[NDArray[np.float32]]] = [[] for _ in streams]
    for begin in range(0, len(order), ROWS):
        block = order[begin : begin + ROWS]
        state = net.classifier.start(len(block))
        for t in range(0, len(streams[block[-1]].x), PIECE):
            x, lengths = padded([streams[i].x[t : t + PIECE] for i in block])
            logits, state = net.classifier(x, lengths, state)
            for i, row, n in zip(block, logits.softmax(2).numpy(), lengths.tolist(), strict=True):
                found[i].append(row[:n])
    return [np.concatenate(pieces) for pieces in found]


def grid() -> list[Thresholds]:
    """Return the hysteresis that `chosen` chooses among.

    least matters most: on joined streams of subject 7 the best F1 is 79 % with 1, 88 with 4, 92 with 8, 89 with 12.
    """
    ons, parts, leasts, pauses = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), (0.3, 0.6), (1, 2, 4, 6, 8, 10), (0, 15, 30)
    return [Thresholds(on, round(on * part, 3), least, pause) for on, part, least, pause in product(ons, parts, leasts, pauses)]


def chosen(
    found: Sequence[NDArray[np.float32]], streams: Sequence[MarkedStream], hz: float, rules: Sequence[Thresholds] | None = None
) -> Thresholds:
    """Return the hysteresis of the greatest F1 on streams, of those that keep to FALSE_ALARMS, or of all where none does."""
    rules = rules or grid()
    figures = [worth(r.on, told, streams, hz) for r, told in zip(rules, told_events(found, rules), strict=True)]
    kept = [i for i, w in enumerate(figures) if w.false_alarms <= FALSE_ALARMS and w.recall > 0] or list(range(len(rules)))
    return rules[max(kept, key=lambda i: (figures[i].f1, -figures[i].false_alarms))]


def curve(found: Sequence[NDArray[np.float32]], streams: Sequence[MarkedStream], hz: float, rules: Thresholds) -> list[Worth]:
    """Return the figures for each threshold `on` from 0.02 to 0.98, `off` in proportion, the rest as it is."""
    ons = np.round(np.arange(0.02, 0.99, 0.02), 2).tolist()
    many = [rules._replace(on=on, off=on * rules.off / rules.on) for on in ons]
    return [worth(r.on, told, streams, hz) for r, told in zip(many, told_events(found, many), strict=True)]


def as_json(points: Iterable[Worth]) -> list[dict[str, Any]]:
    """Return a curve's points as JSON has them: what is not a number is null."""
    return [{k: None if v != v else round(v, 5) for k, v in asdict(p).items()} for p in points]
