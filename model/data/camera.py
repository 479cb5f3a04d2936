"""What lies between a body and the network: a camera of its own rate that loses joints. Training puts clips through it."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from indrnn.frames import rate

Frames = NDArray[np.float32]


def sample(x: Frames, start: float, step: float) -> Frames:
    """x [T, P, J, 3] at the moments start, start + step, ... up to T - 1, in frames, by straight lines between neighbours.

    A person who comes or goes between two frames takes the later frame's place.
    """
    last = len(x) - 1
    at = start + step * np.arange(int(np.floor((last - start) / step + 1e-9)) + 1)
    low = np.minimum((at + 1e-9).astype(np.int64), last)
    part = np.clip(at - low, 0, 1).astype(np.float32)[:, None, None, None]
    left, right = x[low], x[np.minimum(low + 1, last)]
    both = (left.any((2, 3)) & right.any((2, 3)))[..., None, None]
    between: Frames = np.where(both, left + (right - left) * part, np.where(part > 1e-6, right, left)).astype(np.float32)
    return between


def resample(x: Frames, hz: float, own_hz: float) -> Frames:
    """Return frames [T, P, J, 3] of a camera of rate hz as the network of rate own_hz gets them, the first frame first."""
    return x if hz == own_hz else rate.resample(x, hz, own_hz, None)[0]


def seen_at(x: Frames, own_hz: float, hz: float, start: float = 0.0) -> Frames:
    """Return what a camera of rate hz would send of x [T, P, J, 3], recorded at own_hz; its first frame comes start (0 to 1) frames in."""
    return x if hz == own_hz and start == 0 else sample(x, min(start, len(x) - 1), own_hz / hz)


def lose(x: Frames, share: float, rng: Generator, stretch: float = 10.0) -> Frames:
    """x [T, P, J, 3] with about `share` of its joints' places lost (NaN), each for some `stretch` frames in a row, of every joint alike."""
    T, P, J, _ = x.shape
    begins = share / (stretch * (1 - share)) if share < 1 else 1.0  # odds of losing a joint that is seen, so that `share` are lost
    lost = np.empty((T, P, J), np.bool_)
    lost[0] = rng.random((P, J)) < share
    turns = rng.random((T, P, J), dtype=np.float32)
    for t in range(1, T):
        lost[t] = np.where(lost[t - 1], turns[t] >= 1 / stretch, turns[t] < begins)
    return np.where(lost[..., None], np.float32(np.nan), x)
