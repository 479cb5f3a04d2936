"""Clips of one rate as frames of another, causally and in pieces: what training and serving both do with a camera of its own rate."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

HZ_RANGE = (1.0, 1_000.0)


@dataclass(frozen=True, slots=True)
class Carry:
    """The rest that resampling has left over: the last frame as the client sent it, and where between frames the next one falls.

    frame [P, J, 3]; phase = numerator / denominator in client frames after `frame`; `hz` cannot change within a session.
    """

    hz: float
    frame: Floats
    numerator: int
    denominator: int


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
    """Return whether resampling to the model's rate leaves such a phase: for carries that come from outside."""
    step, phase = _stride(carry.hz, own_hz), Fraction(carry.numerator, carry.denominator)
    return 0 < phase <= step and step.denominator % phase.denominator == 0


def _stride(hz: float, own_hz: float) -> Fraction:
    """Client frames per frame of the model."""
    return Fraction(hz).limit_denominator(1_000) / Fraction(own_hz).limit_denominator(1_000)
