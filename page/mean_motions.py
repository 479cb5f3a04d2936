"""Makes the page's motions that are means of recordings: INDRNN_DATA=… python page/mean_motions.py > page/public/hdm05.json

Of each motion that HDM05 has and nobody drew, the training clips (actors bd, bk and dg) are turned to face one way, brought to one size,
and averaged: each clip is warped to the mean, and the mean taken anew (Petitjean, Ketterlin, Gançarski 2011: DTW barycenter averaging). The
bones get their lengths back, which averaging takes from them. HDM05 is under CC BY-SA 3.0, and so is what this makes; hdm05.txt beside the
file says so.
"""

import json
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indrnn.frames.layouts import UTD20
from indrnn.model.data import vocabulary
from indrnn.model.data.bodies import kinect

Motion = NDArray[np.float64]
"""Frames of a body, [T, 20, 3] in metres."""

SET = "hdm05"
DRAWN = {"basketball shoot", "jog", "squat"}  # by hand, for the page: the one demo of each, which version 1 of the model names too
BODY = kinect(UTD20)
LEFT, RIGHT = UTD20.index("left hip"), UTD20.index("right hip")
AWAY = 2.9  # metres from the camera, as the drawn motions stand
ROUNDS = 6  # of warping and averaging; later ones move no joint by a centimetre
SMOOTH = 1.0  # frames, the deviation of the bell that takes the steps of the warping from the mean
REACH = 4  # of the bell, in frames to each side
SOURCE = (
    "M. Müller, T. Röder, M. Clausen, B. Eberhardt, B. Krüger, A. Weber: Documentation Mocap Database HDM05. Universität Bonn, CG-2007-2."
)
LICENCE = "CC BY-SA 3.0, https://creativecommons.org/licenses/by-sa/3.0/"


def bones(x: Motion) -> NDArray[np.float64]:
    """Return the mean length of the bone that ends in each joint [20], 0 for the root."""
    return np.asarray(np.linalg.norm(x - x[:, list(BODY.parents)], axis=-1).mean(0))


def faced(x: Motion) -> Motion:
    """Turn a motion so that it begins facing the camera, its hips at the place where drawn motions begin."""
    across = (x[:3, RIGHT] - x[:3, LEFT]).mean(0)
    turn = np.arctan2(across[2], across[0])
    c, s = np.cos(turn), np.sin(turn)
    turned = x @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    return np.asarray(turned - turned[0, BODY.root] + np.array([0, 0, AWAY]))


def stretched(x: Motion, length: int) -> Motion:
    """Return the motion in so many frames, evenly paced."""
    at = np.linspace(0, len(x) - 1, length)
    before = np.minimum(at.astype(int), len(x) - 2)
    share = (at - before)[:, None, None]
    return np.asarray(x[before] * (1 - share) + x[before + 1] * share)


def apart(a: Motion, b: Motion) -> NDArray[np.float64]:
    """Return how far each frame of the one is from each of the other, m²: the joints from the hips, and the hips [Ta, Tb]."""
    one, two = (np.concatenate([x - x[:, BODY.root, None], x[:, BODY.root, None]], 1).reshape(len(x), -1) for x in (a, b))
    return np.asarray(((one[:, None] - two[None]) ** 2).sum(-1))


def warp(cost: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return which frames of two motions belong together at the least cost.

    Neither stands still for more than a frame (Sakoe and Chiba 1978, slope 1/2 to 2), so the mean keeps its pace.
    """
    n, m = cost.shape
    total = np.full((n, m), np.inf)
    total[0, 0] = cost[0, 0]
    ways = {(1, 1): [(0, 0)], (1, 2): [(0, 0), (0, -1)], (2, 1): [(0, 0), (-1, 0)]}  # a step back, and what it passes
    best: dict[tuple[int, int], tuple[int, int]] = {}
    for i in range(1, n):
        for j in range(max(1, (i - 1) // 2), min(m, 2 * i + 2)):
            for (di, dj), passed in ways.items():
                if i < di or j < dj or total[i - di, j - dj] == np.inf:
                    continue
                sum_ = total[i - di, j - dj] + sum(cost[i + a, j + b] for a, b in passed)
                if sum_ < total[i, j]:
                    total[i, j], best[i, j] = sum_, (di, dj)
    i, j, pairs = n - 1, m - 1, []
    while (i, j) != (0, 0):
        di, dj = best[i, j]
        pairs += [(i + a, j + b) for a, b in ways[di, dj]]
        i, j = i - di, j - dj
    return [*pairs, (0, 0)][::-1]


def mean(motions: Sequence[Motion]) -> Motion:
    """Return the aligned mean of motions, as long as the middle one of them is."""
    length = int(np.median([len(x) for x in motions]))
    even = [stretched(x, length) for x in motions]
    middle = np.mean(even, 0)
    found = min(even, key=lambda x: float(((x - middle) ** 2).sum()))
    for _ in range(ROUNDS):
        total, count = np.zeros_like(found), np.zeros(length)
        for x in even:
            for i, j in warp(apart(found, x)):
                total[i] += x[j]
                count[i] += 1
        found = total / count[:, None, None]
    return smoothed(found)


def smoothed(x: Motion) -> Motion:
    """Take what trembles from frame to frame out of a motion."""
    bell = np.exp(-(np.arange(-REACH, REACH + 1) ** 2) / (2 * SMOOTH**2))
    held = np.pad(x, ((REACH, REACH), (0, 0), (0, 0)), mode="edge")
    return np.asarray(sum(w * held[i : i + len(x)] for i, w in enumerate(bell / bell.sum())))


def whole(x: Motion, lengths: NDArray[np.float64]) -> Motion:
    """Give bones these lengths and leave their directions."""
    y = x.copy()
    for joint in BODY.order:
        parent = BODY.parents[joint]
        bone = x[:, joint] - x[:, parent]
        y[:, joint] = y[:, parent] + bone / np.linalg.norm(bone, axis=-1, keepdims=True) * lengths[joint]
    return y


def means(only: Sequence[str] = ()) -> dict[str, tuple[int, Motion]]:
    """Return each motion that is made, or those named: of how many training clips, and their mean. Raises DataMissingError."""
    words = vocabulary.read()
    by: dict[str, list[Motion]] = {}
    for clip in vocabulary.joined(words, [SET]).clips:
        if not clip.test:
            by.setdefault(words.motions[clip.label], []).append(clip.x[:, 0].astype(np.float64))
    lengths = np.mean([bones(x) for motions in by.values() for x in motions], 0)

    def one(motions: Sequence[Motion]) -> Motion:
        return whole(mean([faced(x * (lengths.sum() / bones(x).sum())) for x in motions]), lengths)

    return {name: (len(motions), one(motions)) for name, motions in by.items() if name in (only or by.keys() - DRAWN)}


def packed(x: Motion) -> list[list[int]]:
    """Return millimetres [T][60], each frame's as the difference from the one before, which packs to half."""
    flat = np.round(1000 * x).astype(int).reshape(len(x), -1)
    return [list(map(int, row)) for row in np.diff(flat, axis=0, prepend=0)]


def main() -> None:
    """Write the file."""
    motions = [{"name": name, "clips": clips, "frames": packed(x)} for name, (clips, x) in means().items()]
    json.dump(
        {"source": SOURCE, "licence": LICENCE, "joints": "utd20", "hz": 30, "unit": "mm", "motions": motions},
        sys.stdout,
        ensure_ascii=False,
        separators=(",", ":"),
    )
    print()


if __name__ == "__main__":
    main()
