"""Skeleton clips as they lie in a file: anybody's joints, one or more persons, two dimensions or three.

A file is an `.npz` with `x` (the frames of all clips one after another, [sum T, J, D] or [sum T, P, J, D], D 2 or 3), `off` (clip i is
x[off[i]:off[i + 1]]) and `y` (its class), and as far as it has them `classes`, `names`, `subject`, `view`, `test`, `joint_names`, `hz`.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indrnn.frames.joints import hold
from indrnn.model.data.sets import find

# UTD-MHAD's published protocol (Chen et al., 2015). Selection holds out one subject of the training half at a time; the published
# model learns from all four by the recipe selected.
SUBJECTS = {"train": (1, 3, 5, 7), "test": (2, 4, 6, 8)}
HZ = 30.0
PERSON = 0.5  # root mean square distance of a standing person's joints from their mean, metres: 0.43 in UTD-MHAD, 0.49 in NW-UCLA
IN_METRES = (0.25, 1.0)  # of that size: what is taken for metres as it is
SAMPLES = 10_000  # frames that sizes are told from: a large file holds millions

Frames = NDArray[np.float32]


class ClipFileError(Exception):
    """A file does not hold clips as expected; the message names the file, the array, what was expected and what came."""


@dataclass(frozen=True)
class Clip:
    """One recorded action: x [T, P, J, 3] metres (an absent person is all zeros), its class, who did it, from where it was seen.

    test: the file's own word on whether the clip is for testing, None when it says nothing.
    """

    x: Frames
    label: int
    subject: int
    name: str
    view: int | None = None
    test: bool | None = None


@dataclass(frozen=True)
class ClipSet:
    """The clips of a file. unit: metres in the file's unit of length. flat: the file had two dimensions, the third is 0."""

    clips: list[Clip]
    classes: tuple[str, ...]
    joint_names: tuple[str, ...] | None
    hz: float
    unit: float
    flat: bool

    @property
    def persons(self) -> int:
        """Return P, the number of persons in a frame."""
        return int(self.clips[0].x.shape[1])

    @property
    def joints(self) -> int:
        """Return J, the number of joints of a person."""
        return int(self.clips[0].x.shape[2])


def read(file: str | Path = "skeleton/utd_mhad.npz", unit: float | None = None) -> ClipSet:
    """Read every clip of a skeleton file; a name is looked for under INDRNN_DATA, a path is taken as it is.

    unit: metres in the file's unit of length; None finds it out: bodies of a person's size are taken for metres, others are scaled to
    one. Raises DataMissingError, ClipFileError.
    """
    path = find(file) if isinstance(file, str) else file
    try:
        with np.load(path, allow_pickle=False) as d:
            arrays = dict(d)
    except (OSError, ValueError) as error:
        raise ClipFileError(f"{path}: expected an .npz file of plain arrays: {error}") from error
    return clip_set(arrays, str(path), unit)


def clip_set(arrays: dict[str, Any], title: str, unit: float | None = None) -> ClipSet:
    """Read the clips from the arrays of a file; title is what errors call it. Raises ClipFileError."""
    x, pieces = _frames(arrays, title)
    flat = x.shape[-1] == 2
    if flat:
        x = np.concatenate([x, np.zeros_like(x[..., :1])], -1)
    N = len(pieces)
    y = _whole(arrays, "y", N, title)
    classes = tuple(str(c) for c in arrays["classes"]) if "classes" in arrays else tuple(map(str, range(int(y.max()) + 1)))
    if y.min() < 0 or y.max() >= len(classes):
        raise ClipFileError(f"{title}: y: expected classes 0..{len(classes) - 1}, got {y.min()}..{y.max()}")
    joints = tuple(str(j) for j in arrays["joint_names"]) if "joint_names" in arrays else None
    if joints is not None and len(joints) != x.shape[2]:
        raise ClipFileError(f"{title}: joint_names: expected {x.shape[2]} as x has joints, got {len(joints)}")
    if unit is None:
        unit = _unit(x)
    given = {k: _whole(arrays, k, N, title).tolist() if k in arrays else None for k in ("subject", "view", "test")}
    clips = [
        Clip(
            hold(_metres(x[piece], unit), np.zeros(x.shape[1:], np.float32)),
            int(y[i]),
            given["subject"][i] if given["subject"] else i,  # without a word on it, everybody is somebody else
            str(arrays["names"][i]) if "names" in arrays else f"clip {i}",
            given["view"][i] if given["view"] else None,
            bool(given["test"][i]) if given["test"] else None,
        )
        for i, piece in enumerate(pieces)
    ]
    return ClipSet(clips, classes, joints, float(arrays.get("hz", HZ)), float(unit), flat)


def _frames(arrays: dict[str, Any], title: str) -> tuple[NDArray[Any], list[slice]]:
    """Return all frames [sum T, P, J, D] and where the clips are."""
    for name in ("x", "off", "y"):
        if name not in arrays:
            raise ClipFileError(f"{title}: expected arrays x, off and y, found {', '.join(sorted(arrays)) or 'none'}")
    x, off = arrays["x"], arrays["off"]
    if x.ndim not in (3, 4) or x.shape[-1] not in (2, 3) or x.dtype.kind not in "fiu":
        raise ClipFileError(f"{title}: x: expected numbers [sum T, J, 2 or 3] or [sum T, P, J, 2 or 3], got {x.dtype} {x.shape}")
    if x.ndim == 3:
        x = x[:, None]
    if off.ndim != 1 or len(off) < 2 or off[0] != 0 or off[-1] != len(x) or (np.diff(off) < 1).any():
        got = f"{off.size} numbers from {off.flat[0]} to {off.flat[-1]}" if off.size else "none"
        raise ClipFileError(f"{title}: off: expected to rise from 0 to the {len(x)} frames of x, at least one a clip, got {got}")
    if np.isinf(x).any():
        raise ClipFileError(f"{title}: x: expected finite numbers, or NaN for a joint not seen, got infinity")
    return x, [slice(int(a), int(b)) for a, b in pairwise(off)]


def _whole(arrays: dict[str, Any], name: str, size: int, title: str) -> NDArray[np.int64]:
    a = arrays[name]
    if a.shape != (size,) or a.dtype.kind not in "iub":
        raise ClipFileError(f"{title}: {name}: expected {size} whole numbers, one a clip, got {a.dtype} {a.shape}")
    return np.asarray(a, np.int64)


def _metres(x: NDArray[Any], unit: float) -> Frames:
    """x in metres; itself, not a copy, where it is that already."""
    return x.astype(np.float32, copy=False) if unit == 1 else (x * unit).astype(np.float32)


def _unit(x: NDArray[Any]) -> float:
    """Metres in the unit of x [sum T, P, J, 3], told from the size of the bodies."""
    bodies = x[:: max(1, len(x) // SAMPLES)].reshape(-1, *x.shape[2:])
    bodies = bodies[~np.isnan(bodies).any((1, 2)) & bodies.any((1, 2))]
    if not len(bodies):
        return 1.0
    size = float(np.median(np.sqrt(((bodies - bodies.mean(1, keepdims=True)) ** 2).sum(2).mean(1))))
    return 1.0 if IN_METRES[0] <= size <= IN_METRES[1] or size == 0 else PERSON / size
