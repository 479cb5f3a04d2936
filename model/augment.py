"""What a body could also have looked like: other proportions, another camera, another speed, sensor noise.

Everything here keeps a clip causal: output frame t is made of input frames up to the moment it shows.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.layouts import UTD20_PARENTS, UTD20_ROOT

Frames = NDArray[np.float32]

# Chosen, not searched: the first values tried left 3 of 108 clips of held-out subject 7 wrong. Angles in radians, lengths in metres.
TURN, TILT = 0.5, 0.12
SPEED = 0.35
BODY_SCALE, BONE_SCALE = 0.1, 0.08
NOISE = 0.005


def rotation(turn: float, tilt: float, roll: float) -> NDArray[np.float32]:
    """Turn about y (up), then tilt about x, then roll about z: [3, 3], to be applied as x @ R.T."""
    c, s = np.cos([turn, tilt, roll]), np.sin([turn, tilt, roll])
    about_y = np.array([[c[0], 0, s[0]], [0, 1, 0], [-s[0], 0, c[0]]])
    about_x = np.array([[1, 0, 0], [0, c[1], -s[1]], [0, s[1], c[1]]])
    about_z = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    turned: NDArray[np.float32] = (about_z @ about_x @ about_y).astype(np.float32)
    return turned


def resize(x: Frames, bones: NDArray[np.float32]) -> Frames:
    """The same motion of another body: each bone of x [T, 20, 3] (utd20) times bones [20], joints placed anew from the hip centre."""
    out = np.empty_like(x)
    done = {UTD20_ROOT}
    out[:, UTD20_ROOT] = x[:, UTD20_ROOT]
    while len(done) < x.shape[1]:
        for j, parent in enumerate(UTD20_PARENTS):
            if j not in done and parent in done:
                out[:, j] = out[:, parent] + (x[:, j] - x[:, parent]) * bones[j]
                done.add(j)
    return out


def warp(x: Frames, speed: float, sway: float, phase: float) -> Frames:
    """x [T, J, 3] played at about `speed` times its speed, which sways by ±sway over the clip; linear between frames."""
    T = len(x)
    n = max(2, round(T / speed))
    s = np.linspace(0, 1, n)
    s = s + sway / (2 * np.pi) * (np.sin(2 * np.pi * s + phase) - np.sin(phase))
    at = np.clip(s, 0, 1) * (T - 1)
    low = np.minimum(at.astype(np.int64), T - 2)
    part = (at - low).astype(np.float32)[:, None, None]
    played: Frames = x[low] * (1 - part) + x[low + 1] * part
    return played


def symmetric_bones(rng: Generator) -> NDArray[np.float32]:
    """Random bone lengths [20] (utd20), alike on both sides of the body."""
    bones: NDArray[np.float32] = 1 + np.float32(BONE_SCALE) * rng.standard_normal(20, dtype=np.float32).clip(-2, 2)
    bones[8:12], bones[16:20] = bones[4:8], bones[12:16]
    bones *= np.float32(1 + rng.uniform(-BODY_SCALE, BODY_SCALE))
    return bones


def joined(clips: list[Frames], rng: Generator) -> list[Frames]:
    """Clips of one person [T, 20, 3] as another person could have done them one after another before another camera."""
    bones = symmetric_bones(rng)
    turn = rotation(rng.uniform(-TURN, TURN), *rng.uniform(-TILT, TILT, 2))
    out = []
    for x in clips:
        speed = float(np.exp(rng.uniform(-SPEED, SPEED)))
        y = resize(warp(x, speed, rng.uniform(0, 0.3), rng.uniform(0, 2 * np.pi)), bones) @ turn.T
        y = y + rng.uniform(0, NOISE) * rng.standard_normal(y.shape, dtype=np.float32)
        out.append(y.astype(np.float32))
    return out
