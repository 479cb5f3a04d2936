"""What a body could also have looked like: other proportions, another camera, another speed, sensor noise, joints out of sight.

Everything here keeps a clip causal: output frame t is made of input frames up to the moment it shows. Absent persons (zeros) stay absent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from indrnn.frames.joints import hold
from indrnn.model.data.bodies import Body
from indrnn.model.data.camera import lose, resample, seen_at

Frames = NDArray[np.float32]


@dataclass(frozen=True)
class Augment:
    """The limits of how far clips are changed. Angles in radians, lengths in metres, shares of 1.

    turn, tilt: about the vertical and the two other axes, ±. speed: log of the pace, ±. sway: of the pace within a clip. body, bones: size
    of the whole and of each bone. noise: of a place. mirror: odds of left and right swapped. lost: largest share of places lost, in
    `lossy` of the streams; slowest, fastest: a camera's rate in Hz, in `other_rate` of them. cut: largest part of a clip that its beginning
    and its end lose, each. drift: metres a second that a body glides over the ground at most, in half of the clips; half of the others are
    held in place. misplaced: how far a tracker's joint is from where another tracker has it, those of head and trunk twice as far. trunk:
    of the length from hips to shoulders, its logarithm, a deviation, and half as much again of the width of hips and of shoulders.
    """

    turn: float = field(default=0.5, metadata={"help": "about the vertical, up to so many radians"})
    tilt: float = field(default=0.12, metadata={"help": "about the other axes, up to so many radians"})
    speed: float = field(default=0.35, metadata={"help": "of the pace, its logarithm at most"})
    sway: float = field(default=0.3, metadata={"help": "of the pace within a clip"})
    body: float = field(default=0.1, metadata={"help": "of the whole size, at most"})
    bones: float = field(default=0.08, metadata={"help": "of each bone's length, at most"})
    noise: float = field(default=0.005, metadata={"help": "of a place, metres"})
    mirror: float = field(default=0.0, metadata={"help": "odds of left and right swapped"})
    lost: float = field(
        default=0.5,
        metadata={"help": "largest part of places lost; or zero: a joint at exactly 0 was not seen", "words": {"zero": "zeros"}},
    )
    lossy: float = field(default=0.0, metadata={"help": "part of the streams that lose joints"})
    slowest: float = field(default=10.0, metadata={"help": "slowest camera, Hz"})
    fastest: float = field(default=60.0, metadata={"help": "fastest camera, Hz"})
    other_rate: float = field(default=0.0, metadata={"help": "part of the streams from a camera of another rate"})
    cut: float = field(default=0.0, metadata={"help": "largest part of a clip that its beginning and its end lose"})
    drift: float = field(default=0.0, metadata={"help": "metres a second that a body glides over the ground, at most"})
    misplaced: float = field(default=0.0, metadata={"help": "metres from where another tracker has a joint, a deviation"})
    trunk: float = field(default=0.0, metadata={"help": "of the trunk's length, its logarithm, a deviation"})


def rotation(turn: float, tilt: float, roll: float) -> NDArray[np.float32]:
    """Turn about y (up), then tilt about x, then roll about z: [3, 3], to be applied as x @ R.T."""
    c, s = np.cos([turn, tilt, roll]), np.sin([turn, tilt, roll])
    about_y = np.array([[c[0], 0, s[0]], [0, 1, 0], [-s[0], 0, c[0]]])
    about_x = np.array([[1, 0, 0], [0, c[1], -s[1]], [0, s[1], c[1]]])
    about_z = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    turned: NDArray[np.float32] = (about_z @ about_x @ about_y).astype(np.float32)
    return turned


def resize(x: Frames, bones: NDArray[np.float32], body: Body) -> Frames:
    """Return the same motion of another body: each bone of x [..., J, 3] times bones [J], joints placed anew from the root."""
    out = np.empty_like(x)
    out[..., body.root, :] = x[..., body.root, :]
    for j in body.order:
        p = body.parents[j]
        out[..., j, :] = out[..., p, :] + (x[..., j, :] - x[..., p, :]) * bones[j]
    return out


def warp(x: Frames, speed: float, sway: float, phase: float) -> Frames:
    """x [T, P, J, 3] played at about `speed` times its speed, which sways by ±sway over the clip; linear between frames."""
    T = len(x)
    if T < 2:
        return x
    n = max(2, round(T / speed))
    s = np.linspace(0, 1, n)
    s = s + sway / (2 * np.pi) * (np.sin(2 * np.pi * s + phase) - np.sin(phase))
    at = np.clip(s, 0, 1) * (T - 1)
    low = np.minimum(at.astype(np.int64), T - 2)
    part = (at - low).astype(np.float32).reshape(-1, *[1] * (x.ndim - 1))
    played: Frames = x[low] * (1 - part) + x[low + 1] * part
    return played


def mirrored(x: Frames, body: Body) -> Frames:
    """x [..., J, 3] as a mirror shows it: the first axis negated, twins swapped."""
    index = np.arange(x.shape[-2])
    for a, b in body.twins:
        index[a], index[b] = b, a
    out: Frames = x[..., index, :] * np.array([-1, 1, 1], np.float32)
    return out


def symmetric_bones(body: Body, a: Augment, rng: Generator) -> NDArray[np.float32]:
    """Return random bone lengths [J], alike on both sides of the body."""
    bones: NDArray[np.float32] = 1 + np.float32(a.bones) * rng.standard_normal(len(body.parents), dtype=np.float32).clip(-2, 2)
    for left, right in body.twins:
        bones[right] = bones[left]
    bones *= np.float32(1 + rng.uniform(-a.body, a.body))
    return bones * trunk(body, a.trunk, rng) if a.trunk else bones


def trunk(body: Body, deviation: float, rng: Generator) -> NDArray[np.float32]:
    """Return random factors of bones [J]: of the spine as one, of the hips' width and of the shoulders', of all others 1."""
    bones = np.ones(len(body.parents), np.float32)
    long, hips, shoulders = np.exp(deviation * rng.standard_normal(3).clip(-2, 2) * (1, 1.5, 1.5))
    sides = {j for pair in body.across for j in pair}
    for j in sides:
        bones[j] = hips if body.parents[j] == body.root else shoulders
    for j in {j for side in sides for j in body.way(side)} - sides - {body.root}:
        bones[j] = long
    return bones


def shortened(x: Frames, most: float, rng: Generator) -> Frames:
    """Return x [T, P, J, 3] without up to `most` of its frames at its beginning, and without as many at its end."""
    T = len(x)
    first, last = (int(part) for part in rng.uniform(0, most, 2) * T)
    return x[first : max(first + 2, T - last)]


def glided(x: Frames, body: Body, metres: float, rng: Generator) -> Frames:
    """Return x [T, P, J, 3] moved over the ground: in half of the cases by up to so many metres a frame, in a quarter held in place.

    Most bodies glide to where they face: who walks in one place in one set walks about in another.
    """
    chance = rng.random()
    if chance > 0.75:
        return x
    moved = np.zeros((len(x), 1, 1, 3), np.float32)
    if chance < 0.5:
        c, s = across_line(x[len(x) // 2], body)[0] if body.across else (1.0, 0.0)
        angle = np.arctan2(s, c) - np.pi / 2 + rng.normal(0, 0.7)  # forward is a quarter of a turn before a body's right
        speed = rng.uniform(0, metres)
        moved[:, 0, 0, 0::2] = np.arange(len(x))[:, None] * speed * np.array([np.cos(angle), np.sin(angle)])
    else:
        middle = x[:, 0, body.root]
        moved[:, 0, 0, 0::2] = (middle[:1] - middle)[:, 0::2]
    return x + moved


def across_line(x: Frames, body: Body) -> Frames:
    """Return the line from left to right across bodies x [..., J, 3] as they are seen from above, at length 1: [..., 2], x and z."""
    left, right = (list(side) for side in zip(*body.across, strict=True))
    line = (x[..., right, :] - x[..., left, :]).sum(-2)[..., 0::2]
    across: Frames = line / np.maximum(np.linalg.norm(line, axis=-1, keepdims=True), 1e-6)
    return across


def misplacement(body: Body, metres: float, rng: Generator) -> NDArray[np.float32]:
    """Return how far another tracker's joints are off, [J, 3], to a body's right, up and behind it, alike on both sides."""
    off: NDArray[np.float32] = np.float32(metres) * rng.standard_normal((len(body.parents), 3), dtype=np.float32).clip(-2, 2)
    sides = {j for pair in body.twins for j in pair}
    for j in set(range(len(off))) - sides:
        off[j] *= (0, 2, 2)
    for left, right in body.twins:
        off[right] = off[left] * (-1, 1, 1)
    return off


def seen_by(x: Frames, off: NDArray[np.float32], body: Body) -> Frames:
    """Return x [T, P, J, 3] with joints off [J, 3] from where they are, as the body says right, up and behind."""
    if not body.across:
        return x + off
    c, s = np.moveaxis(across_line(x, body)[..., None, :], -1, 0)  # each [T, P, 1]
    seen: Frames = x + np.stack(
        [c * off[:, 0] - s * off[:, 2], np.broadcast_to(off[:, 1], x.shape[:-1]), s * off[:, 0] + c * off[:, 2]], -1
    )
    return seen


def joined(
    clips: list[Frames], body: Body, a: Augment, hz: float, rng: Generator, flat: bool = False, paces: Sequence[float] = ()
) -> list[Frames]:
    """Return clips of one person or pair [T, P, J, 3] as others could have done them one after another before another camera.

    hz: rate of the clips and of the network. flat: two dimensions, where a camera can only roll. paces: what each clip is slowed down by
    before all else, 1 without.
    """
    bones = symmetric_bones(body, a, rng)
    angles = (rng.uniform(-a.turn, a.turn), *rng.uniform(-a.tilt, a.tilt, 2))
    turn = rotation(0, 0, angles[2]) if flat else rotation(*angles)
    mirror = rng.random() < a.mirror
    share = rng.uniform(0, a.lost) if rng.random() < a.lossy else 0.0
    rate = float(np.exp(rng.uniform(np.log(a.slowest), np.log(a.fastest)))) if rng.random() < a.other_rate else hz
    off = misplacement(body, a.misplaced, rng) * ((1, 1, 0) if flat else 1) if a.misplaced else None
    out = []
    for x, pace in zip(clips, paces or [1.0] * len(clips), strict=True):
        x = shortened(x, a.cut, rng) if a.cut else x
        speed = float(np.exp(rng.uniform(-a.speed, a.speed))) / pace
        y = warp(x, speed, rng.uniform(0, a.sway), rng.uniform(0, 2 * np.pi))
        there = y.any((2, 3), keepdims=True)
        y = resize(mirrored(y, body) if mirror else y, bones, body)
        y = y if off is None else seen_by(y, off, body)
        y = (glided(y, body, a.drift / hz, rng) if a.drift else y) @ turn.T
        noise = rng.uniform(0, a.noise) * rng.standard_normal(y.shape, dtype=np.float32)
        if flat:
            noise[..., 2] = 0
        y = np.where(there, y, 0).astype(np.float32)
        sent = seen_at(y, hz, rate, rng.uniform(0, 1) if rate != hz else 0.0)
        if len(noise) < len(sent):
            noise = np.concatenate([noise] * (1 + len(sent) // len(noise)))
        sent = np.where(sent.any((2, 3), keepdims=True), sent + noise[: len(sent)], 0).astype(np.float32)
        if share:
            sent = hold(lose(sent, share, rng), np.zeros(sent.shape[1:], np.float32))
        out.append(resample(sent, rate, hz))
    return out
