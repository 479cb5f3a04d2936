"""Clips of one rate as frames of another, causally and in pieces: what training and serving both do with a camera of its own rate."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

HZ_RANGE = (1.0, 1_000.0)
LATEST = 1e11  # seconds on anybody's clock, ±: microseconds can still be told there


@dataclass(frozen=True, slots=True)
class Carry:
    """The rest that resampling has left over: the last frame as the client sent it, and where between frames the next one falls.

    frame [P, J, 3]; phase = numerator / denominator in client frames after `frame`; `hz` cannot change within a session.
    Of frames that say when they were taken, hz is 0 and there is no phase: start and last are seconds on the client's clock of the first
    frame and of `frame`, count the frames of the model so far.
    """

    hz: float
    frame: Floats
    numerator: int
    denominator: int
    start: float = 0.0
    last: float = 0.0
    count: int = 0

    @property
    def timed(self) -> bool:
        """Return whether the frames say when they were taken."""
        return self.hz == 0


def resample(x: Floats, hz: float, own_hz: float, carry: Carry | None) -> tuple[Floats, Carry]:
    """Frames [T, P, J, 3] at the client's rate -> frames at the model's, by straight lines between neighbours, causally.

    The first frame of a sequence is a frame of the model; what is left over after the last one is in the carry. Exact in time: the phase
    is a fraction, so that any split gives the same frames. A person who comes or goes between two frames takes the later frame's place.
    A joint that is NaN is NaN in every frame that it has a part in.
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
    between = _between(frames, index, np.minimum(index + (rest > 0), last), rest / unit)  # what is a frame is not mixed with the next one
    left_over = phase + count * step - last
    return between, Carry(hz, frames[-1], left_over.numerator, left_over.denominator)


def _between(frames: Floats, left: NDArray[np.int64], right: NDArray[np.int64], part: NDArray[np.float64]) -> Floats:
    """Return frames on the straight lines from frames[left] to frames[right], part of the way (0 to 1) along."""
    first, second, share = frames[left], frames[right], part.astype(np.float32)[:, None, None, None]
    both = np.logical_and(first.any((-1, -2)), second.any((-1, -2)))[..., None, None]
    between = np.where(both, first + (second - first) * share, np.where(share > 0, second, first))
    return between.astype(np.float32)


ALMOST = 1e-6  # frames of the model; a moment that misses a frame by less has it


class Timed(NamedTuple):
    """Frames of the model's rate, what is left over, and for each the client's frame at or after it, counted in the piece."""

    frames: Floats
    carry: Carry
    after: NDArray[np.int64]


def due(t: NDArray[np.float64], own_hz: float, carry: Carry | None) -> int:
    """Return how many frames of the model's rate fall up to the last of the moments t."""
    start, count = (carry.start, carry.count) if carry else (float(t[0]), 0)
    last = float(t[-1])
    return max(0, math.floor((last - start) * own_hz + almost(last, own_hz)) + 1 - count)


def almost(moment: float, own_hz: float) -> float:
    """Return by how much of a frame a moment may miss one: ALMOST, or what seconds of its size cannot tell (7e-6 of a frame in 2026)."""
    return max(ALMOST, 4 * math.ulp(moment) * own_hz)


def resample_at(x: Floats, t: NDArray[np.float64], own_hz: float, carry: Carry | None) -> Timed:
    """Frames [T, P, J, 3] taken at the moments t [T], rising seconds -> frames at the model's rate, by straight lines, causally.

    The first frame of a sequence is a frame of the model; the others follow it at its rate, however unevenly the client's come.
    """
    n = due(t, own_hz, carry)
    frames = x if carry is None else np.concatenate([carry.frame[None], x])
    times = t if carry is None else np.concatenate([[carry.last], t])
    start, count = (float(t[0]), 0) if carry is None else (carry.start, carry.count)
    at = start + (count + np.arange(n)) / own_hz
    right = np.minimum(np.searchsorted(times, at), len(times) - 1)
    left = np.maximum(right - 1, 0)
    apart = times[right] - times[left]
    part = np.clip(np.where(apart > 0, (at - times[left]) / np.where(apart > 0, apart, 1), 1.0), 0, 1)
    rest = Carry(0.0, frames[-1], 1, 1, start, float(t[-1]), count + n)
    return Timed(_between(frames, left, right, part), rest, np.maximum(right - (carry is not None), 0))


def may_be_left_over(carry: Carry, own_hz: float) -> bool:
    """Return whether resampling to the model's rate leaves such a phase: for carries that come from outside."""
    if carry.timed:
        next_one = carry.start + carry.count / own_hz - carry.last
        near = 2 * almost(carry.last, own_hz)
        return carry.count > 0 and carry.last >= carry.start and -near < next_one * own_hz <= 1 + near
    step, phase = _stride(carry.hz, own_hz), Fraction(carry.numerator, carry.denominator)
    return 0 < phase <= step and step.denominator % phase.denominator == 0


def _stride(hz: float, own_hz: float) -> Fraction:
    """Client frames per frame of the model."""
    return Fraction(hz).limit_denominator(1_000) / Fraction(own_hz).limit_denominator(1_000)
