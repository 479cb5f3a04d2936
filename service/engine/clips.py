"""Skeleton clips as clients send them -> frames as the graph reads them.

A clip is [T][J][3] or [T][P][J][3] in metres, y up; `null` stands for a joint not seen, which holds its last place. Nothing here looks
ahead, so a clip in pieces becomes the same frames as in one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import Layout, Manifest
from indrnn.service.errors import BadInput, OutOfRange, TooLarge, said
from indrnn.service.session.machine import Carry, Floats

FARTHEST = 50.0  # metres from the camera; what lies beyond is centimetres or millimetres, and would be answered wrongly and surely
HZ_RANGE = (1.0, 1_000.0)
_NOT_SEEN = [math.nan] * 3


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
        """The reader of an action bundle."""
        assert manifest.layout is not None, "an action bundle"
        assert manifest.persons is not None, "an action bundle"
        assert manifest.hz is not None, "an action bundle"
        return cls(manifest.layouts, manifest.layout, manifest.persons, manifest.hz, max_frames)

    @cached_property
    def joints(self) -> int:
        """Joints of the model's own layout."""
        return self.layouts[self.layout].joints

    def check_layout(self, layout: object) -> Layout:
        """The layout by name, the model's own for None. Raises BadInput."""
        name = self.layout if layout is None else layout
        found = self.layouts.get(name) if isinstance(name, str) else None
        if found is None:
            raise BadInput(f"expected one of {', '.join(self.layouts)}, got {said(name)}", field="layout")
        return found

    def check_hz(self, hz: object) -> float | None:
        """The client's rate in frames per second; None is the session's own. Raises BadInput."""
        if hz is None:
            return None
        low, high = HZ_RANGE
        if isinstance(hz, bool) or not isinstance(hz, int | float) or not low <= hz <= high:
            raise BadInput(f"expected frames per second from {low:g} to {high:g}, got {said(hz)}", field="hz")
        return float(hz)

    def read(self, clip: object, layout: Layout, field: str) -> Floats:
        """A decoded JSON clip -> [T, P, J, 3] in the model's own layout; a joint not seen is NaN.

        Raises BadInput naming the element (field is where the clip stands, "sequences[0]"), OutOfRange, TooLarge.
        """
        if not isinstance(clip, list) or not clip:
            raise BadInput(f"expected a list of frames, got {said(clip)}", field=field)
        if len(clip) > self.max_frames:
            raise TooLarge(f"expected at most {self.max_frames} frames, got {len(clip)}", field=field)
        sent = self._dense(clip, layout, field)
        return self._to_own(sent, layout)

    def read_alike(self, clips: Sequence[list[object]], layout: Layout) -> list[Floats] | None:
        """Many decoded clips [T][J][3] at once, each as `read` reads it; None where one of them is not plain, and `read` says what it is.

        The caller has made sure that there is no true or false in them, which NumPy takes for numbers, and no text, of which one would
        make an array of texts as long.
        """
        lengths = [len(clip) for clip in clips]
        try:
            x = np.asarray([frame for clip in clips for frame in clip])
        except ValueError:
            return None  # ragged
        if x.dtype.kind not in "fi" or x.shape[1:] != (layout.joints, 3) or min(lengths) < 1 or max(lengths) > self.max_frames:
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
            x = _walk(clip, layout.joints, self.persons, field)
        if x.ndim == 3:
            x = x[:, None]
        _, P, J, D = x.shape
        if J != layout.joints or D != 3 or P > self.persons:
            _walk(clip, layout.joints, self.persons, field)  # says where
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


def hold(x: Floats, last: Floats) -> Floats:
    """Fills joints not seen (NaN) in x [T, P, J, 3] with their last place, starting from last [P, J, 3].

    A joint of a present person that was never seen stands where the mean of the person's first seen joints was; a person none of whose
    joints is seen, or all at the origin, is absent: all zeros, and starts anew when coming back.
    """
    missing: NDArray[np.bool_] = np.logical_or.reduce(np.isnan(x), axis=-1)
    if not missing.any():
        return x
    x = np.where(missing[..., None], np.float32(0), x)
    t = np.arange(len(x))[:, None, None]
    absent = np.logical_not(x.any((-1, -2)))[..., None]
    began = np.maximum.accumulate(np.where(absent, t, -1)) + 1  # [T, P, 1]: since when the person has been there
    seen = np.maximum.accumulate(np.where(missing, -1, t))  # [T, P, J]: when the joint was last seen
    first = np.minimum(began, len(x) - 1)
    count = (~missing).sum(-1)
    mean = x.sum(2) / np.maximum(count, 1)[..., None]  # of the seen joints, [T, P, 3]
    there_before = np.count_nonzero(last, axis=(-1, -2)) > 0  # [P]
    from_before = np.logical_and(began == 0, there_before[None, :, None])
    never = np.where(from_before[..., None], last, np.take_along_axis(mean, first, 0)[:, :, None])
    held = np.where((seen >= began)[..., None], np.take_along_axis(x, np.maximum(seen, 0)[..., None], 0), never)
    filled: Floats = np.where(absent[..., None], np.float32(0), held).astype(np.float32)
    return filled


def resample(x: Floats, hz: float, own_hz: float, carry: Carry | None) -> tuple[Floats, Carry]:
    """Frames [T, P, J, 3] at the client's rate -> frames at the model's, by straight lines between neighbours, causally.

    The first frame of a sequence is a frame of the model; what is left over after the last one is in the carry. Exact in time: the phase
    is a fraction, so that any split gives the same frames. A person who comes or goes between two frames takes the later frame's place.
    """
    step = _stride(hz, own_hz)
    if carry is None:
        frames, phase = x, Fraction(0)
    else:
        frames, phase = np.concatenate([carry.frame[None], x]), Fraction(carry.numerator, carry.denominator)
    last = len(frames) - 1
    unit = math.lcm(step.denominator, phase.denominator)
    stride, offset = int(step * unit), int(phase * unit)
    count = max(0, (last * unit - offset) // stride + 1)
    index, rest = np.divmod(offset + stride * np.arange(count, dtype=np.int64), unit)
    part = (rest / unit).astype(np.float32)[:, None, None, None]
    left = frames[index]
    right = frames[np.minimum(index + 1, last)]
    both = np.logical_and(left.any((-1, -2)), right.any((-1, -2)))[..., None, None]
    between = np.where(both, left + (right - left) * part, np.where(part > 0, right, left))
    left_over = phase + count * step - last
    return between.astype(np.float32), Carry(hz, frames[-1], left_over.numerator, left_over.denominator)


def may_be_left_over(carry: Carry, own_hz: float) -> bool:
    """Whether resampling to the model's rate leaves such a phase: for carries that come from outside."""
    step, phase = _stride(carry.hz, own_hz), Fraction(carry.numerator, carry.denominator)
    return 0 < phase <= step and step.denominator % phase.denominator == 0


def _stride(hz: float, own_hz: float) -> Fraction:
    """Client frames per frame of the model."""
    return Fraction(hz).limit_denominator(1_000) / Fraction(own_hz).limit_denominator(1_000)


def _fast(clip: list[object]) -> NDArray[np.float64] | None:
    """The clip as an array, or None where it is not one of plain numbers."""
    try:
        x = np.asarray(clip, object)  # else one text among n numbers made n texts of that length
        plain = x.ndim in (3, 4) and set(map(type, x.ravel().tolist())) <= {int, float}
        return x.astype(np.float64) if plain else None
    except (ValueError, OverflowError):
        return None  # ragged, or beyond float64


def _without_nulls(frame: object) -> object:
    """The frame with NaN for joints that are null."""
    if not isinstance(frame, list):
        return frame
    return [
        _NOT_SEEN if joint is None else [_NOT_SEEN if j is None else j for j in joint] if _is_person(joint) else joint for joint in frame
    ]


def _is_person(value: object) -> bool:
    return isinstance(value, list) and any(joint is None or isinstance(joint, list) for joint in value)


def _walk(clip: Sequence[object], joints: int, persons: int, field: str) -> NDArray[np.float64]:
    """The slow reader: every element looked at; null joints become NaN. Raises BadInput at the first that does not fit."""
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
    """Whether a frame is [P][J][3] rather than [J][3], also where joints are null."""
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
