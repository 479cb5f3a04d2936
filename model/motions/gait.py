"""Walking and jogging made of a standing body: people and trackers of every set go, where most sets show nobody who does.

Hips, knees, shoulders and elbows swing about the line across the body by what textbooks say of gait: thighs by 20° to 30° to either side
and knees by up to 60° in walking, by more in jogging, with elbows bent; the lower foot stays on the ground.
"""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from indrnn.frames.layouts import UTD20
from indrnn.model.data.augment import across_line
from indrnn.model.data.bodies import Body
from indrnn.model.data.clips import Frames

WALK, JOG = "walk", "jog"
UPRIGHT = 0.8  # least share of a standing leg's length that is between hip and ankle, from above to below
Angles = NDArray[np.float64]


def _at(*names: str) -> list[int]:
    return [UTD20.index(name) for name in names]


HIPS = _at("left hip", "right hip")
UPPER = [j for j in range(len(UTD20)) if not any(part in UTD20[j] for part in ("hip", "knee", "ankle", "foot"))]
LEGS = tuple(_at(*(f"{side} {joint}" for joint in ("hip", "knee", "ankle", "foot"))) for side in ("left", "right"))
ARMS = tuple(_at(*(f"{side} {joint}" for joint in ("shoulder", "elbow", "wrist", "hand"))) for side in ("left", "right"))


def stands(pose: Frames) -> bool:
    """Return whether the body [20, 3] stands: legs below hips and straight, hands below shoulders."""
    for hip, knee, ankle, _ in LEGS:
        long = np.linalg.norm(pose[knee] - pose[hip]) + np.linalg.norm(pose[ankle] - pose[knee])
        if pose[hip, 1] - pose[ankle, 1] < UPRIGHT * long or long < 0.1:
            return False
    return all(pose[wrist, 1] < pose[elbow, 1] < pose[shoulder, 1] for shoulder, elbow, wrist, _ in ARMS)


def going(pose: Frames, body: Body, jogs: bool, hz: float, rng: Generator) -> Frames:
    """Return a body [20, 3] that walks or jogs for one to three seconds, in place or about: [T, 1, 20, 3]."""
    T = int(hz * rng.uniform(1, 3))
    strides = rng.uniform(1.2, 1.6) if jogs else rng.uniform(0.75, 1.1)  # a second
    phase = 2 * np.pi * (rng.random() + strides * np.arange(T) / hz)
    swing, lift, least = _radians(rng, *(((12, 42), (40, 105), (10, 25)) if jogs else ((15, 32), (40, 70), (3, 12))))
    arm, elbow, lean = _radians(rng, *(((15, 45), (60, 105), (0, 15)) if jogs else ((5, 35), (5, 35), (-3, 8))))
    marches = rng.random() < 0.4  # in place: the thigh is lifted, and does not go back
    swing, lift = (part * (rng.uniform(0.2, 1) if marches else 1) for part in (swing, lift))
    c, s = across_line(pose[None], body)[0]
    axes = np.array([[c, 0, s], [0, 1, 0], [s, 0, -c]])  # right, up, forward
    own = (pose - pose[HIPS].mean(0)) @ axes.T
    out = np.broadcast_to(own, (T, *own.shape)).copy()
    out[:, UPPER] = _swung(own[UPPER], np.full(T, -lean))
    for side, (leg, limb) in enumerate(zip(LEGS, ARMS, strict=True)):
        at = phase + np.pi * side
        thigh = swing * (np.maximum(np.sin(at), -0.2) * 1.3 if marches else np.sin(at)) + swing / 4
        knee = least + lift * np.maximum(np.cos(at + (-0.6 if marches else 0.4)), 0) ** 2
        _chain(out, own, leg, [thigh, thigh - knee, thigh - knee / 2])
        upper = -arm * np.sin(at)
        _chain(out, own, limb, [upper, upper + elbow, upper + elbow])
    lowest = out[:, [leg[2] for leg in LEGS], 1].min(1)
    flight = np.abs(np.sin(phase)) * (rng.uniform(0, 0.05) if jogs else 0)
    out[..., 1] += (own[[leg[2] for leg in LEGS], 1].min() - lowest + flight)[:, None]
    speed = 0.0 if marches else strides * rng.uniform(1.0, 2.0 if jogs else 1.5) * float(rng.random() < 0.7)
    turn = rng.uniform(-1.2, 1.2) * float(rng.random() < 0.5) * np.arange(T) / hz
    way = np.stack([np.sin(turn), np.zeros(T), np.cos(turn)], 1) * (speed / hz)
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    out = np.stack([cos * out[..., 0] + sin * out[..., 2], out[..., 1], cos * out[..., 2] - sin * out[..., 0]], -1)
    placed: Frames = ((out + np.cumsum(way, 0)[:, None]) @ axes + pose[HIPS].mean(0)).astype(np.float32)
    return placed[:, None]


def _radians(rng: Generator, *degrees: tuple[float, float]) -> list[float]:
    return [float(np.deg2rad(rng.uniform(*between))) for between in degrees]


def _swung(v: NDArray[np.floating], angle: Angles) -> NDArray[np.floating]:
    """Vectors v [n, 3] (right, up, forward) about the line across, what hangs down to the front: angle [T] -> [T, n, 3]."""
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([np.broadcast_to(v[:, 0], (len(angle), len(v))), c * v[:, 1] + s * v[:, 2], c * v[:, 2] - s * v[:, 1]], -1)


def _chain(out: NDArray[np.floating], own: NDArray[np.floating], joints: Sequence[int], angles: Sequence[Angles]) -> None:
    """Places the joints of a limb in out [T, J, 3] behind its first one, each bone of the body own [J, 3] swung by its angle."""
    for first, second, angle in zip(joints, joints[1:], angles, strict=False):
        out[:, second] = out[:, first] + _swung((own[second] - own[first])[None], angle)[:, 0]
