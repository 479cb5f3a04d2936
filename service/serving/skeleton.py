"""Models that read skeletons: clips as clients send them -> frames as the graph reads them, and answers in words.

A clip is [T][J][3] or [T][P][J][3] in metres, y up; `null` stands for a joint not seen, which holds its last place. Nothing here looks
ahead, so a clip in pieces becomes the same frames as in one.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import OTHER, Layout, Manifest
from indrnn.frames.joints import FARTHEST
from indrnn.frames.layouts import UNITS, likely, offered
from indrnn.frames.rate import HZ_RANGE, LATEST
from indrnn.service.engine.requests import Content, Frames
from indrnn.service.errors import BadInput, OutOfRange, TooLarge, said
from indrnn.service.serving.modality import NO_MORE, READ_OPTIONS, Options, Words
from indrnn.service.session.machine import Floats, Scores


class SkeletonModality:
    """What a service knows of a model that reads skeletons. max_frames: of a clip, or of one step."""

    field = "frames"
    old_field: str | None = None
    each_step = False
    more = (*READ_OPTIONS, "t")

    def __init__(self, manifest: Manifest, max_frames: int) -> None:
        self.reader = ClipReader.of(manifest, max_frames)
        self.max_steps = max_frames
        self._labels = manifest.labels or ()
        self._other_below = manifest.other_below

    @property
    def layouts(self) -> Mapping[str, Layout]:
        """Return every layout that clips may come in."""
        return self.reader.layouts

    def check_options(self, layout: object, hz: object, more: Mapping[str, object] = NO_MORE) -> Options:
        """Check the options of a stream or a request. Raises BadInput."""
        self.reader.check_layout(layout)
        self.reader.check_sent(more)
        return Options(layout if isinstance(layout, str) else None, self.reader.check_hz(hz), more)

    def read(self, value: object, layout: object, hz: object, field: str, more: Mapping[str, object] = NO_MORE) -> Frames:
        """Return a client's clip as content. Raises BadInput and its kin."""
        known = self.reader.check_layout(layout)
        rate = self.reader.check_hz(hz)
        x, warnings = self.reader.read_warned(value, known, field, self.reader.check_sent(more))
        t = None if more.get("t") is None else _times(more["t"], len(x), str(more.get("t_field", "t")))
        return Frames(x, rate, not np.isnan(x).any(), warnings, t)

    def of_tensor(self, x: NDArray[np.generic], more: Mapping[str, object], prefix: str = "") -> Frames:
        """Return a tensor [T, P, J, 3] in the model's own layout as content. Raises BadInput."""
        sent = self.reader.check_sent(more, prefix)
        if not more and x.all():
            return Frames(x.astype(np.float32, copy=False), None, whole=True)
        placed = sent.placed(x.astype(np.float64))
        found, warnings = _zeros(placed, self.reader.layouts[self.reader.layout].joint_names, sent.lost)
        return Frames(found.astype(np.float32), None, not np.isnan(found).any(), warnings)

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
        lists = [clip for clip in values if isinstance(clip, list | np.ndarray)]
        known = self.reader.check_layout(layout)
        found = self.reader.read_alike(lists, known) if len(lists) == len(values) else None
        whole = all(known.table)  # each own joint has one that was sent, and these are numbers
        return None if found is None else [Frames(x, hz, whole) for x, hz in zip(found, rates, strict=True)]

    def word(self, answers: Sequence[tuple[Scores, Content]], top_k: int) -> list[Words]:
        """Return each answer as the native protocols word it: the best label, its score (softmax), the others, frames as they were sent.

        The label is `other` where the bundle says that so low a score means none, and where what the model saw can be no body; warnings
        say why.
        """
        logits = np.stack([scores.logits for scores, _ in answers])
        odds = softmax(logits)
        order = np.argsort(-odds, axis=-1, kind="stable")[:, :top_k]
        values = np.take_along_axis(odds, order, -1).astype(np.float64).round(DECIMALS).tolist()
        return [
            {"predictions": [self._prediction(ks, vs, len(content.x), bool(answered.doubts))], **warned(content, answered.doubts)}
            for ks, vs, (answered, content) in zip(order.tolist(), values, answers, strict=True)
        ]

    def _prediction(self, best: Sequence[int], scores: Sequence[float], frames: int, doubted: bool) -> Words:
        top = [{"label": self._labels[k], "score": score} for k, score in zip(best, scores, strict=True)]
        below = self._other_below
        label = OTHER if doubted or (below is not None and scores[0] < below) else self._labels[best[0]]
        return {"label": label, "score": scores[0], "top": top, "frames": frames}


DECIMALS = 6  # of a score: what two runs agree on

DOUBTS = {
    "size": 'this is not of a person\'s size: expected metres, or the unit of what is sent ("unit": "mm")',
    "shape": "the lengths between the joints are not those of a body: expected the joints in the order of the layout",
    "change": "the lengths between the joints change as no body's do",
    "upright": 'the head is not above the hips: expected y up, or where the axes lie ("axes": "x -y z")',
    "sides": "hands and feet point backwards: expected the left hand of who faces the camera at negative x, and z away from it",
    "nobody": "nobody is seen: expected joints with places, of a body or of most of one",
    "flat": "the body has no depth: expected places in three dimensions",
}
"""What a reply says of each check in frames/anatomy.py that fails."""


def warned(content: Content, doubts: Sequence[str]) -> Words:
    """Return the `warnings` of a reply, if there are any."""
    told = [*getattr(content, "warnings", ()), *(DOUBTS.get(name, name) for name in doubts)]
    return {"warnings": told} if told else {}


class Sent(NamedTuple):
    """How places are sent: scale, metres in one of their unit; order and signs: where the model's x, y and z lie in them; lost: exact zeros
    are joints not seen."""

    scale: float = 1.0
    order: tuple[int, ...] = (0, 1, 2)
    signs: tuple[float, ...] = (1.0, 1.0, 1.0)
    lost: bool = False

    def placed(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return places [..., 3] in the model's unit and axes."""
        if self.order == (0, 1, 2) and self.signs == (1.0, 1.0, 1.0):
            return x if self.scale == 1 else x * self.scale
        return x[..., list(self.order)] * (np.array(self.signs) * self.scale)


AS_IT_IS = Sent()
_AXIS = re.compile(r"([+-]?)([xyz])")


@dataclass(frozen=True)
class ClipReader:
    """Reads clips for one model: its layouts, persons, rate and the longest clip it takes.

    dims: numbers of a joint; unit, metres: of the data that the network learned from, and what one of it is in the network's.
    """

    layouts: Mapping[str, Layout]
    layout: str
    persons: int
    hz: float
    max_frames: int
    dims: int = 3
    unit: str | None = None
    metres: float = 1.0

    @classmethod
    def of(cls, manifest: Manifest, max_frames: int) -> "ClipReader":
        """Return the reader of an action bundle."""
        assert manifest.layout is not None, "an action bundle"
        assert manifest.persons is not None, "an action bundle"
        assert manifest.hz is not None, "an action bundle"
        own = manifest.layouts[manifest.layout]
        more = {k: Layout(joint_names=n, table=t) for k, (n, t) in offered(own.joint_names, manifest.layout).items()}
        m = manifest
        return cls(
            {**m.layouts, **{k: v for k, v in more.items() if k not in m.layouts}},
            manifest.layout,
            manifest.persons,
            manifest.hz,
            max_frames,
            m.dims or 3,
            m.unit,
            m.metres or 1.0,
        )

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

    @property
    def units(self) -> dict[str, float]:
        """Return the units that places may come in, and what one of each is in the network's."""
        return UNITS | ({} if self.unit is None or self.unit in UNITS else {self.unit: self.metres})

    def check_sent(self, more: Mapping[str, object], prefix: str = "") -> Sent:
        """Return how places are sent, by the options lost, unit and axes. Raises BadInput."""
        if not more:
            return AS_IT_IS
        lost, unit, axes = more.get("lost"), more.get("unit"), more.get("axes")
        if lost not in (None, "zero"):
            raise BadInput(f"expected zero or null, got {said(lost)}", field=f"{prefix}lost")
        units = self.units
        if unit is not None and (not isinstance(unit, str) or unit not in units):
            raise BadInput(f"expected one of {', '.join(units)}, got {said(unit)}", field=f"{prefix}unit")
        found = [_AXIS.fullmatch(word) for word in axes.replace(",", " ").split()] if isinstance(axes, str) else []
        order = tuple("xyz".index(one[2]) for one in found if one)
        if self.dims == 2 and sorted(order) == [0, 1]:
            order, found = (*order, 2), [*found, _AXIS.fullmatch("z")]
        if axes is not None and (not all(found) or sorted(order) != [0, 1, 2]):
            raise BadInput(
                f"expected x, y and z in the order they have in what is sent, as in '-x -y z', got {said(axes)}", field=f"{prefix}axes"
            )
        signs = tuple(-1.0 if one and one[1] == "-" else 1.0 for one in found)
        return Sent(units.get(str(unit), 1.0), order or (0, 1, 2), signs or (1.0, 1.0, 1.0), lost == "zero")

    def read(self, clip: object, layout: Layout, field: str) -> Floats:
        """Read a decoded JSON clip -> [T, P, J, 3] in the model's own layout; a joint not seen is NaN.

        Raises BadInput naming the element (field is where the clip stands, "sequences[0]"), OutOfRange, TooLarge.
        """
        return self.read_warned(clip, layout, field, AS_IT_IS)[0]

    def read_warned(self, clip: object, layout: Layout, field: str, sent: Sent) -> tuple[Floats, tuple[str, ...]]:
        """Read as `read` does what comes in another unit or other axes, or with zeros for lost joints; and what the client should know."""
        if not isinstance(clip, list) or not clip:
            raise BadInput(f"expected a list of frames, got {said(clip)}", field=field)
        if len(clip) > self.max_frames:
            raise TooLarge(f"expected at most {self.max_frames} frames, got {len(clip)}", field=field)
        x, warnings = _zeros(self._dense(clip, layout, field, sent), layout.joint_names, sent.lost)
        return self._to_own(sent.placed(x), layout), warnings

    def read_alike(self, clips: Sequence[list[object] | NDArray[np.generic]], layout: Layout) -> list[Floats] | None:
        """Read many clips [T][J][3] at once, lists or all of them arrays, each as `read` reads it; None where one of them is not plain, and
        `read` says what it is.

        The caller has made sure that there is no true or false in them, which NumPy takes for numbers, and no text, of which one would
        make an array of texts as long.
        """
        lengths = [len(clip) for clip in clips]
        try:
            arrays = [clip for clip in clips if isinstance(clip, np.ndarray)]
            x = np.concatenate(arrays) if len(arrays) == len(clips) else np.asarray([frame for clip in clips for frame in clip])
        except ValueError:
            return None  # ragged
        if x.dtype.kind not in "fi" or x.shape[1:] != (len(layout.joint_names), 3) or min(lengths) < 1 or max(lengths) > self.max_frames:
            return None
        if not ((x >= -FARTHEST) & (x <= FARTHEST)).all():  # the least integer has no absolute value
            return None
        sent = x[:, None].astype(np.float64, copy=False)
        if self.dims == 2 or (not x.all() and _zeros(sent, layout.joint_names, False)[1]):
            return None
        if self.persons > 1:
            sent = np.pad(sent, [(0, 0), (0, self.persons - 1), (0, 0), (0, 0)])
        own = self._to_own(sent, layout)
        return [own[end - n : end] for n, end in zip(lengths, accumulate(lengths), strict=True)]

    def _dense(self, clip: list[object], layout: Layout, field: str, sent: Sent) -> NDArray[np.float64]:
        """[T, P, J, 3] as sent, missing persons zero."""
        walker = Walker(self, layout, sent)
        x = _fast(clip)
        if x is None:
            x = _fast([_without_nulls(frame, self.dims) for frame in clip])
        if x is None:
            x = walker.walk(clip, field)
        if x.ndim == 3:
            x = x[:, None]
        _, P, J, D = x.shape
        if J != len(layout.joint_names) or D not in (3, self.dims) or P > self.persons:
            walker.walk(clip, field)  # says where
        x = x.astype(np.float64, copy=False)
        far = np.isinf(x) | (np.abs(x) > walker.farthest)
        if far.any():
            t, p, j, d = np.argwhere(far)[0]
            person = f"[{p}]" if P > 1 else ""
            raise OutOfRange(walker.within(f"{x[t, p, j, d]:g}"), field=f"{field}[{t}]{person}[{j}][{d}]")
        if self.dims == 2:  # a third number is none of a place: OpenPose's is how sure it is
            x = np.concatenate([x[..., :2], np.where(np.isnan(x[..., :1]), np.nan, 0.0)], -1)
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


def _without_nulls(frame: object, dims: int) -> object:
    """Return the frame with NaN for joints that are null, of as many numbers as its other joints have.

    Each has a list of its own: of one that stands at several places in what is ragged, NumPy reads memory that is not its own.
    """
    if not isinstance(frame, list):
        return frame
    numbers = [joint for one in frame if isinstance(one, list) for joint in (one if _is_person(one) else [one]) if isinstance(joint, list)]
    unseen = [math.nan] * (len(numbers[0]) if numbers else dims)
    return [
        [*unseen] if joint is None else [[*unseen] if j is None else j for j in joint] if _is_person(joint) else joint for joint in frame
    ]


def _is_person(value: object) -> bool:
    return isinstance(value, list) and any(joint is None or isinstance(joint, list) for joint in value)


class Walker:
    """Reads a clip slowly, every element looked at, and says of the first that does not fit what was expected."""

    def __init__(self, reader: ClipReader, layout: Layout, sent: Sent) -> None:
        self._joints, self._persons, self._dims = len(layout.joint_names), reader.persons, reader.dims
        self._reader, self._layout = reader, layout
        self.farthest = FARTHEST / sent.scale
        self._scale = sent.scale

    def within(self, got: str) -> str:
        """Return the words for a place too far away."""
        if self._scale != 1:
            return f"expected places within ±{self.farthest:g} ({FARTHEST:g} m), got {got}"
        hint = "" if self._reader.dims == 2 else ' (of millimetres say "unit": "mm")'
        return f"expected metres within ±{FARTHEST:g}, got {got}{hint}"

    def walk(self, clip: Sequence[object], field: str) -> NDArray[np.float64]:
        """Return the places [T, P, J, 3]; null joints become NaN. Raises BadInput at the first that does not fit."""
        with_persons = has_persons(clip[0], self._joints)
        frames = []
        for t, frame in enumerate(clip):
            where = f"{field}[{t}]"
            if not with_persons:
                frames.append([self._person(frame, where)])
                continue
            people = a_list(frame, where, "persons")
            if len(people) > self._persons:
                raise BadInput(f"expected at most {self._persons} persons, got {len(people)}", field=where)
            if t and len(people) != len(frames[0]):
                raise BadInput(f"expected {len(frames[0])} persons as in the first frame, got {len(people)}", field=where)
            frames.append([self._person(p, f"{where}[{i}]") for i, p in enumerate(people)])
        return np.array(frames, np.float64)

    def _person(self, person: object, where: str) -> list[list[float]]:
        found = a_list(person, where, "joints")
        if len(found) != self._joints:
            raise BadInput(f"expected {self._joints} joints, got {len(found)}{self._meant(found)}", field=where)
        return [self._joint(j, f"{where}[{i}]") for i, j in enumerate(found)]

    def _meant(self, found: list[object]) -> str:
        """Return the layouts that have as many joints, as a question."""
        dims = next((len(joint) for joint in found if isinstance(joint, list)), 3)
        names = [
            name for name in likely(len(found), dims) if name in self._reader.layouts and self._reader.layouts[name] is not self._layout
        ]
        return f"; did you mean layout {' or '.join(names)}?" if names else ""

    def _joint(self, joint: object, where: str) -> list[float]:
        expected = "x, y and z, or null" if self._dims == 3 else "x and y, or null"
        if joint is None:
            return [math.nan] * 3
        numbers = a_list(joint, where, expected)
        if len(numbers) not in (3, self._dims):
            raise BadInput(f"expected {expected}, got {len(numbers)} elements", field=where)
        for k, number in enumerate(numbers):
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise BadInput(f"expected a number, got {said(number)}", field=f"{where}[{k}]")
            if abs(number) > self.farthest:
                raise OutOfRange(self.within(said(number)), field=f"{where}[{k}]")
        return [*(float(n) for n in numbers if isinstance(n, int | float)), 0.0][:3]


def has_persons(frame: object, joints: int) -> bool:
    """Return whether a frame is [P][J][3] rather than [J][3], also where joints are null."""
    first = frame[0] if isinstance(frame, list) and frame else None
    if not isinstance(first, list):
        return False
    seen = next((joint for joint in first if joint is not None), None)
    return isinstance(seen, list) or (seen is None and len(first) == joints != 3)


def a_list(value: object, where: str, of: str) -> list[object]:
    """Return a value that is a list, as is expected there. Raises BadInput."""
    if not isinstance(value, list):
        raise BadInput(f"expected a list of {of}, got {said(value)}", field=where)
    return value


def _times(value: object, frames: int, field: str) -> NDArray[np.float64]:
    """Return the seconds [T] at which frames were taken. Raises BadInput."""
    times = a_list(value, field, "seconds, one for each frame")
    if len(times) != frames:
        raise BadInput(f"expected {frames} seconds, one for each frame, got {len(times)}", field=field)
    for i, one in enumerate(times):
        if isinstance(one, bool) or not isinstance(one, int | float) or not abs(one) <= LATEST:
            raise BadInput(f"expected seconds, got {said(one)}", field=f"{field}[{i}]")
    t = np.array(times, np.float64)
    wrong = np.flatnonzero(np.diff(t) <= 0)
    if len(wrong):
        i = int(wrong[0]) + 1
        raise BadInput(f"expected a time after {t[i - 1]:.6f}, that of the frame before, got {t[i]:.6f}", field=f"{field}[{i}]")
    return t


MOST_NAMES = 3  # joints that a warning names


def _zeros(x: NDArray[np.float64], names: Sequence[str], lost: bool) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Look for joints at exactly 0 in all axes, of a person who is there: x [T, P, J, 3] -> x where they are NaN if `lost` says so, and
    else a warning if they stand far from their body, as where a recorder has lost them.

    One joint at 0 with others near it is the root of centred data. An absent person is all zeros.
    """
    if x.all():
        return x, ()
    at_zero: NDArray[np.bool_] = np.logical_and.reduce(x == 0, axis=-1)  # [T, P, J]
    zero: NDArray[np.bool_] = at_zero & ~np.logical_and.reduce(at_zero, axis=-1)[..., None]
    if not zero.any():
        return x, ()
    if lost:
        return np.where(zero[..., None], np.nan, x), ()
    t, p = np.nonzero(zero.any(-1))
    some = x[t, p]
    there = ~at_zero[t, p] & ~np.isnan(some).any(-1)  # [n, J]
    count = np.maximum(there.sum(-1), 1)
    away = np.sqrt((some**2).sum(-1))
    nearest = np.where(there, away, np.inf).min(-1)
    mean = np.where(there[..., None], some, 0).sum(1) / count[:, None]
    size = np.sqrt(np.where(there, ((some - mean[:, None]) ** 2).sum(-1), 0).sum(-1) / count)
    strange = (zero[t, p].sum(-1) > 1) | ((nearest > size) & np.isfinite(nearest))
    if not strange.any():
        return x, ()
    joints = np.flatnonzero(zero[t, p][strange].any(0)).tolist()
    told = ", ".join(names[j] for j in joints[:MOST_NAMES]) + (f" and {len(joints) - MOST_NAMES} more" if len(joints) > MOST_NAMES else "")
    frames = len(np.unique(t[strange]))
    places = f"{told} at exactly 0, 0, 0 in {frames} of {len(x)} frames, away from the body"
    return x, (f'{places}: expected null for a joint not seen, or "lost": "zero"',)


def softmax(logits: Floats) -> Floats:
    """Return the scores of logits [n, K], which add up to 1."""
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    scores: Floats = odds / odds.sum(-1, keepdims=True)
    return scores
