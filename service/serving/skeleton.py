"""Models that read skeletons: clips as clients send them -> frames as the graph reads them, and answers in words.

A clip is [T][J][3] or [T][P][J][3] in metres, y up; `null` stands for a joint not seen, which holds its last place. Nothing here looks
ahead, so a clip in pieces becomes the same frames as in one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import OTHER, Layout, Manifest
from indrnn.frames.joints import FARTHEST
from indrnn.frames.rate import HZ_RANGE
from indrnn.service.engine.requests import Content, Frames
from indrnn.service.errors import BadInput, OutOfRange, TooLarge, said
from indrnn.service.serving.modality import Options, Words
from indrnn.service.session.machine import Floats, Scores

_NOT_SEEN = [math.nan] * 3


class SkeletonModality:
    """What a service knows of a model that reads skeletons. max_frames: of a clip, or of one step."""

    field = "frames"
    old_field: str | None = None
    each_step = False

    def __init__(self, manifest: Manifest, max_frames: int) -> None:
        self.reader = ClipReader.of(manifest, max_frames)
        self.max_steps = max_frames
        self._labels = manifest.labels or ()
        self._other_below = manifest.other_below

    def check_options(self, layout: object, hz: object) -> Options:
        """Check the options of a stream or a request. Raises BadInput."""
        self.reader.check_layout(layout)
        return Options(layout if isinstance(layout, str) else None, self.reader.check_hz(hz))

    def read(self, value: object, layout: object, hz: object, field: str) -> Frames:
        """Return a client's clip as content. Raises BadInput and its kin."""
        known = self.reader.check_layout(layout)
        rate = self.reader.check_hz(hz)
        x = self.reader.read(value, known, field)
        return Frames(x, rate, whole=not np.isnan(x).any())

    def read_alike(self, values: Sequence[object], layout: str | None, rates: Sequence[float | None]) -> list[Content | None]:
        """Return clips of plain numbers [T][J][3] as contents, all at once; None for those that take a closer look (`read`).

        There must be no true or false and no text in them; layout and rates are checked already.
        """
        together = self._read_all(values, layout, rates)
        if together is not None:
            return together
        alone = [self._read_all([value], layout, [hz]) for value, hz in zip(values, rates, strict=True)]
        return [None if one is None else one[0] for one in alone]

    def _read_all(self, values: Sequence[object], layout: str | None, rates: Sequence[float | None]) -> list[Content | None] | None:
        lists = [clip for clip in values if isinstance(clip, list)]
        found = self.reader.read_alike(lists, self.reader.check_layout(layout)) if len(lists) == len(values) else None
        return None if found is None else [Frames(x, hz, whole=True) for x, hz in zip(found, rates, strict=True)]

    def word(self, answers: Sequence[tuple[Scores, Content]], top_k: int) -> list[Words]:
        """Return each answer as the native protocols word it: the best label, its score (softmax), the others, frames as they were sent.

        The label is `other` where the bundle says that so low a score means none.
        """
        logits = np.stack([scores.logits for scores, _ in answers])
        odds = softmax(logits)
        order = np.argsort(-odds, axis=-1, kind="stable")[:, :top_k]
        values = np.take_along_axis(odds, order, -1).tolist()
        return [
            {"predictions": [self._prediction(ks, vs, len(content.x))]}
            for ks, vs, (_, content) in zip(order.tolist(), values, answers, strict=True)
        ]

    def _prediction(self, best: Sequence[int], scores: Sequence[float], frames: int) -> Words:
        top = [{"label": self._labels[k], "score": score} for k, score in zip(best, scores, strict=True)]
        below = self._other_below
        label = OTHER if below is not None and scores[0] < below else self._labels[best[0]]
        return {"label": label, "score": scores[0], "top": top, "frames": frames}


@dataclass(frozen=True)
class ClipReader:
    """Reads clips for one model: its layouts, persons, rate and the longest clip it takes."""

    layouts: Mapping[str, Layout]
    layout: str
    persons: int
    hz: float
    max_frames: int

    @classmethod
    def of(cls, manifest: Manifest, max_frames: int) -> "ClipReader":
        """Return the reader of an action bundle."""
        assert manifest.layout is not None, "an action bundle"
        assert manifest.persons is not None, "an action bundle"
        assert manifest.hz is not None, "an action bundle"
        return cls(manifest.layouts, manifest.layout, manifest.persons, manifest.hz, max_frames)

    @cached_property
    def joints(self) -> int:
        """Joints of the model's own layout."""
        return self.layouts[self.layout].joints

    def check_layout(self, layout: object) -> Layout:
        """Return the layout by name, the model's own for None. Raises BadInput."""
        name = self.layout if layout is None else layout
        found = self.layouts.get(name) if isinstance(name, str) else None
        if found is None:
            raise BadInput(f"expected one of {', '.join(self.layouts)}, got {said(name)}", field="layout")
        return found

    def check_hz(self, hz: object) -> float | None:
        """Return the client's rate in frames per second; None is the session's own. Raises BadInput."""
        if hz is None:
            return None
        low, high = HZ_RANGE
        if isinstance(hz, bool) or not isinstance(hz, int | float) or not low <= hz <= high:
            raise BadInput(f"expected frames per second from {low:g} to {high:g}, got {said(hz)}", field="hz")
        return float(hz)

    def read(self, clip: object, layout: Layout, field: str) -> Floats:
        """Read a decoded JSON clip -> [T, P, J, 3] in the model's own layout; a joint not seen is NaN.

        Raises BadInput naming the element (field is where the clip stands, "sequences[0]"), OutOfRange, TooLarge.
        """
        if not isinstance(clip, list) or not clip:
            raise BadInput(f"expected a list of frames, got {said(clip)}", field=field)
        if len(clip) > self.max_frames:
            raise TooLarge(f"expected at most {self.max_frames} frames, got {len(clip)}", field=field)
        sent = self._dense(clip, layout, field)
        return self._to_own(sent, layout)

    def read_alike(self, clips: Sequence[list[object]], layout: Layout) -> list[Floats] | None:
        """Read many clips [T][J][3] at once, each as `read` reads it; None where one of them is not plain, and `read` says what it is.

        The caller has made sure that there is no true or false in them, which NumPy takes for numbers, and no text, of which one would
        make an array of texts as long.
        """
        lengths = [len(clip) for clip in clips]
        try:
            x = np.asarray([frame for clip in clips for frame in clip])
        except ValueError:
            return None  # ragged
        if x.dtype.kind not in "fi" or x.shape[1:] != (len(layout.joint_names), 3) or min(lengths) < 1 or max(lengths) > self.max_frames:
            return None
        if not ((x >= -FARTHEST) & (x <= FARTHEST)).all():  # the least integer has no absolute value
            return None
        sent = x[:, None].astype(np.float64, copy=False)
        if self.persons > 1:
            sent = np.pad(sent, [(0, 0), (0, self.persons - 1), (0, 0), (0, 0)])
        own = self._to_own(sent, layout)
        return np.split(own, np.cumsum(lengths[:-1])) if len(clips) > 1 else [own]

    def _dense(self, clip: list[object], layout: Layout, field: str) -> NDArray[np.float64]:
        """[T, P, J, 3] as sent, missing persons zero."""
        x = _fast(clip)
        if x is None:
            x = _fast([_without_nulls(frame) for frame in clip])
        if x is None:
            x = _walk(clip, len(layout.joint_names), self.persons, field)
        if x.ndim == 3:
            x = x[:, None]
        _, P, J, D = x.shape
        if J != len(layout.joint_names) or D != 3 or P > self.persons:
            _walk(clip, len(layout.joint_names), self.persons, field)  # says where
        x = x.astype(np.float64, copy=False)
        if np.isinf(x).any() or (np.abs(x) > FARTHEST).any():
            t, p, j, d = np.argwhere(np.isinf(x) | (np.abs(x) > FARTHEST))[0]
            person = f"[{p}]" if P > 1 else ""
            raise OutOfRange(f"expected metres within ±{FARTHEST:g}, got {x[t, p, j, d]:g}", field=f"{field}[{t}]{person}[{j}][{d}]")
        return np.pad(x, [(0, 0), (0, self.persons - P), (0, 0), (0, 0)]) if P < self.persons else x

    def _to_own(self, x: NDArray[np.float64], layout: Layout) -> Floats:
        """Own joint j is the mean of the seen ones among the sent joints table[j]."""
        if layout is self.layouts[self.layout]:
            return x.astype(np.float32)
        if all(len(sources) == 1 for sources in layout.table):
            return x[:, :, [s[0] for s in layout.table]].astype(np.float32)
        own = np.empty((*x.shape[:2], len(layout.table), 3), np.float32)
        for j, sources in enumerate(layout.table):
            group = x[:, :, list(sources)]
            seen = ~np.isnan(group)
            count = seen.sum(2)
            total = np.where(seen, group, 0).sum(2)
            own[:, :, j] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return own


def _fast(clip: list[object]) -> NDArray[np.float64] | None:
    """Return the clip as an array, or None where it is not one of plain numbers."""
    try:
        x = np.asarray(clip, object)  # else one text among n numbers made n texts of that length
        plain = x.ndim in (3, 4) and set(map(type, x.ravel().tolist())) <= {int, float}
        return x.astype(np.float64) if plain else None
    except (ValueError, OverflowError):
        return None  # ragged, or beyond float64


def _without_nulls(frame: object) -> object:
    """Return the frame with NaN for joints that are null."""
    if not isinstance(frame, list):
        return frame
    return [
        _NOT_SEEN if joint is None else [_NOT_SEEN if j is None else j for j in joint] if _is_person(joint) else joint for joint in frame
    ]


def _is_person(value: object) -> bool:
    return isinstance(value, list) and any(joint is None or isinstance(joint, list) for joint in value)


def _walk(clip: Sequence[object], joints: int, persons: int, field: str) -> NDArray[np.float64]:
    """Read slowly, every element looked at; null joints become NaN. Raises BadInput at the first that does not fit."""
    with_persons = _has_persons(clip[0], joints)
    frames = []
    for t, frame in enumerate(clip):
        where = f"{field}[{t}]"
        if not with_persons:
            frames.append([_person(frame, joints, where)])
            continue
        people = _list(frame, where, "persons")
        if len(people) > persons:
            raise BadInput(f"expected at most {persons} persons, got {len(people)}", field=where)
        if t and len(people) != len(frames[0]):
            raise BadInput(f"expected {len(frames[0])} persons as in the first frame, got {len(people)}", field=where)
        frames.append([_person(p, joints, f"{where}[{i}]") for i, p in enumerate(people)])
    return np.array(frames, np.float64)


def _has_persons(frame: object, joints: int) -> bool:
    """Return whether a frame is [P][J][3] rather than [J][3], also where joints are null."""
    first = frame[0] if isinstance(frame, list) and frame else None
    if not isinstance(first, list):
        return False
    seen = next((joint for joint in first if joint is not None), None)
    return isinstance(seen, list) or (seen is None and len(first) == joints != 3)


def _person(person: object, joints: int, where: str) -> list[list[float]]:
    found = _list(person, where, "joints")
    if len(found) != joints:
        raise BadInput(f"expected {joints} joints, got {len(found)}", field=where)
    return [_joint(j, f"{where}[{i}]") for i, j in enumerate(found)]


def _joint(joint: object, where: str) -> list[float]:
    if joint is None:
        return [math.nan] * 3
    numbers = _list(joint, where, "x, y and z, or null")
    if len(numbers) != 3:
        raise BadInput(f"expected x, y and z, or null, got {len(numbers)} elements", field=where)
    for k, number in enumerate(numbers):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise BadInput(f"expected a number, got {said(number)}", field=f"{where}[{k}]")
        if abs(number) > FARTHEST:
            raise OutOfRange(f"expected metres within ±{FARTHEST:g}, got {said(number)}", field=f"{where}[{k}]")
    return [float(n) for n in numbers if isinstance(n, int | float)]


def _list(value: object, where: str, of: str) -> list[object]:
    if not isinstance(value, list):
        raise BadInput(f"expected a list of {of}, got {said(value)}", field=where)
    return value


def softmax(logits: Floats) -> Floats:
    """Return the scores of logits [n, K], which add up to 1."""
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    scores: Floats = odds / odds.sum(-1, keepdims=True)
    return scores
