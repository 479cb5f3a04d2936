"""Skeleton clips as they lie in a file: anybody's joints, one or more persons, two dimensions or three.

A file is an `.npz` with `x` (the frames of all clips one after another, [sum T, J, D] or [sum T, P, J, D], D 2 or 3), `off` (clip i is
x[off[i]:off[i + 1]]) and `y` (its class, or `labels`, its name), and as far as it has them `classes`, `names`, `subject`, `view`, `test`,
`joint_names`, `hz`.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indrnn.frames.joints import hold
from indrnn.frames.rate import HZ_RANGE
from indrnn.model.data.formats import npz
from indrnn.model.data.formats.lost import seen_only
from indrnn.model.data.sets import find

# UTD-MHAD's published protocol (Chen et al., 2015). Selection holds out one subject of the training half at a time; the published
# model learns from all four by the recipe selected.
SUBJECTS = {"train": (1, 3, 5, 7), "test": (2, 4, 6, 8)}
HZ = 30.0
PERSON = 0.5  # root mean square distance of a standing person's joints from their mean, metres: 0.43 in UTD-MHAD, 0.49 in NW-UCLA
IN_METRES = (0.25, 1.0)  # of that size: what is taken for metres as it is
UNITS = (1e-3, 1e-2)  # metres in a millimetre, a centimetre: what is taken for one of them comes out as the same clips in metres do
GROWN = (0.3, 0.6)  # of that size in metres; medians of UTD-MHAD, NW-UCLA, MSR-Action3D and Florence 3D: 0.49, 0.50, 0.53, 0.47
OWN = frozenset({"x", "off", "classes", "subject", "view", "test", "names", "joint_names", "hz", "layout"})  # arrays that are read by name
SAMPLES = 10_000  # frames that sizes are told from: a large file holds millions

Frames = NDArray[np.float32]


class ClipFileError(Exception):
    """A file does not hold clips as expected; the message names the file, the array, what was expected and what came."""


@dataclass(frozen=True)
class Clip:
    """One recorded action: x [T, P, J, 3] metres (an absent person is all zeros), its class, who did it, from where it was seen.

    test: the file's own word on whether the clip is for testing, None when it says nothing. more: what its other arrays say of the clip.
    """

    x: Frames
    label: int
    subject: int
    name: str
    view: int | None = None
    test: bool | None = None
    more: dict[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClipSet:
    """The clips of a file. unit: metres in the file's unit of length. flat: the file had two dimensions, the third is 0.

    notes: what was made of the file beyond its words, such as joints that a number stood for; a warning begins with "warning:".
    """

    clips: list[Clip]
    classes: tuple[str, ...]
    joint_names: tuple[str, ...] | None
    hz: float
    unit: float
    flat: bool
    notes: tuple[str, ...] = ()

    @property
    def persons(self) -> int:
        """Return P, the number of persons in a frame."""
        return int(self.clips[0].x.shape[1])

    @property
    def joints(self) -> int:
        """Return J, the number of joints of a person."""
        return int(self.clips[0].x.shape[2])


def read(file: str | Path = "skeleton/utd_mhad.npz", unit: float | None = None, zero: bool = False) -> ClipSet:
    """Read every clip of a skeleton file; a name is looked for under INDRNN_DATA, a path is taken as it is.

    unit: metres in the file's unit of length; None finds it out: bodies of a person's size are taken for metres, those of a person's size
    in millimetres or centimetres for such, others are scaled to a person. zero: a joint at exactly 0 on all axes was not seen. Raises
    DataMissingError, ClipFileError.
    """
    return clip_set(*load(file), unit, zero)


def load(file: str | Path) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the arrays of a file and its path, as errors shall call it; a name is looked for under INDRNN_DATA.

    Raises DataMissingError, ClipFileError.
    """
    path = find(file) if isinstance(file, str) else file
    try:
        return npz.load(path), str(path)
    except npz.ArraysError as error:
        raise ClipFileError(str(error)) from error


def clip_set(arrays: dict[str, Any], title: str, unit: float | None = None, zero: bool = False) -> ClipSet:
    """Read the clips from the arrays of a file; title is what errors call it. Raises ClipFileError."""
    arrays = {name: np.asarray(a) for name, a in arrays.items()}
    x, pieces = _frames(arrays, title)
    flat = x.shape[-1] == 2
    x, notes = seen_only(x, zero)
    if not np.any(x[~np.isnan(x).any(-1)]):
        raise ClipFileError(f"{title}: x: expected bodies, got no joint that is seen and not at 0")
    if flat:
        x = np.concatenate([x, np.zeros_like(x[..., :1])], -1)
    N = len(pieces)
    y, classes, told = _classes(arrays, N, title)
    joints = _texts(arrays, "joint_names", x.shape[2], "as x has joints", title)
    if unit is None:
        unit = _unit(x, flat)
    given = {k: _whole(arrays, k, N, title).tolist() if k in arrays else None for k in ("subject", "view", "test")}
    names = _texts(arrays, "names", N, "one a clip", title)
    more = npz.of_each(arrays, N, OWN)
    clips = [
        Clip(
            hold(_metres(x[piece], unit), np.zeros(x.shape[1:], np.float32)),
            int(y[i]),
            given["subject"][i] if given["subject"] else i,  # without a word on it, everybody is somebody else
            names[i] if names else f"clip {i}",
            given["view"][i] if given["view"] else None,
            bool(given["test"][i]) if given["test"] else None,
            {name: values[i] for name, values in more.items()},
        )
        for i, piece in enumerate(pieces)
    ]
    notes = (*notes, *told, *_empty(clips))
    return ClipSet(clips, classes, joints, _hz(arrays, title), float(unit), flat, notes)


def _frames(arrays: dict[str, Any], title: str) -> tuple[NDArray[Any], list[slice]]:
    """Return all frames [sum T, P, J, D] and where the clips are."""
    for name in ("x", "off", "y"):
        if name not in arrays and not (name == "y" and "labels" in arrays):
            raise ClipFileError(f"{title}: expected arrays x, off and y, found {', '.join(sorted(arrays)) or 'none'}")
    x = arrays["x"]
    if x.ndim not in (3, 4) or x.shape[-1] not in (2, 3) or x.dtype.kind not in "fiu":
        raise ClipFileError(f"{title}: x: expected numbers [sum T, J, 2 or 3] or [sum T, P, J, 2 or 3], got {x.dtype} {x.shape}")
    if not x.size:
        raise ClipFileError(f"{title}: x: expected frames, persons and joints, at least one of each, got {x.dtype} {x.shape}")
    if x.ndim == 3:
        x = x[:, None]
    off = npz.whole(arrays["off"])
    if off is None or len(off) < 2 or off[0] != 0 or off[-1] != len(x) or (np.diff(off) < 1).any():
        raw = arrays["off"]
        got = f"{raw.size} numbers from {raw.flat[0]} to {raw.flat[-1]}" if raw.size else "none"
        raise ClipFileError(f"{title}: off: expected to rise from 0 to the {len(x)} frames of x, at least one a clip, got {got}")
    if np.isinf(x).any():
        raise ClipFileError(f"{title}: x: expected finite numbers, or NaN for a joint not seen, got infinity")
    return x, [slice(int(a), int(b)) for a, b in pairwise(off)]


def _classes(arrays: dict[str, Any], N: int, title: str) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[str, ...]]:
    """Return the class [N] of each clip, the names of the classes, and what was made of the file's numbers, in words."""
    named = None if "classes" not in arrays else npz.texts(arrays["classes"])
    if named is not None and (len(set(named)) < len(named) or not all(named)):
        raise ClipFileError(f"{title}: classes: expected a different name for each class, got {', '.join(named)}")
    if "y" not in arrays:
        labels = _texts(arrays, "labels", N, "one a clip", title) or ()
        classes = named or tuple(sorted(set(labels)))
        if strange := sorted(set(labels) - set(classes)):
            raise ClipFileError(f"{title}: labels: expected names in classes, got {', '.join(strange)}")
        return np.array([classes.index(label) for label in labels]), classes, ()
    y = _whole(arrays, "y", N, title)
    found = np.unique(y)
    if named is None:
        if y.min() < 0:
            raise ClipFileError(f"{title}: y: expected classes from 0, got {y.min()}..{y.max()}")
        none = found[-1] + 1 - len(found)  # numbers that no clip has: classes that nothing could be learned of
        said = f"y: {len(found)} classes, {found[0]} to {found[-1]}; no clip has any of the {none} other numbers up to there"
        return np.searchsorted(found, y), tuple(map(str, found.tolist())), (said,) if none else ()
    told: tuple[str, ...] = ()
    if y.min() == 1 and y.max() == len(named):
        y, told = y - 1, (f"y: counted from 1: 1 is {named[0]!r}, {len(named)} is {named[-1]!r}",)
    if y.min() < 0 or y.max() >= len(named):
        raise ClipFileError(f"{title}: y: expected classes 0..{len(named) - 1}, got {y.min()}..{y.max()}")
    if unseen := [c for k, c in enumerate(named) if k not in set(y.tolist())]:
        which = f"{', '.join(map(repr, unseen[:10]))}{', ...' if len(unseen) > 10 else ''}"
        told = (*told, f"warning: no clip is of {which}: nothing is learned of them")
    return y, named, told


def _whole(arrays: dict[str, Any], name: str, size: int, title: str) -> NDArray[np.int64]:
    a = arrays[name]
    found = npz.whole(a, size)
    if found is None:
        raise ClipFileError(f"{title}: {name}: expected {size} whole numbers, one a clip, got {a.dtype} {a.shape}")
    return found


def _texts(arrays: dict[str, Any], name: str, size: int, why: str, title: str) -> tuple[str, ...] | None:
    if name not in arrays:
        return None
    found = npz.texts(arrays[name])
    if len(found) != size:
        raise ClipFileError(f"{title}: {name}: expected {size} {why}, got {len(found)}")
    return found


def _hz(arrays: dict[str, Any], title: str) -> float:
    if "hz" not in arrays:
        return HZ
    hz = npz.number(arrays["hz"])
    if hz is None or not HZ_RANGE[0] <= hz <= HZ_RANGE[1]:
        got = arrays["hz"].reshape(-1)[:4].tolist()
        got = got[0] if len(got) == 1 else got
        raise ClipFileError(f"{title}: hz: expected one number from {HZ_RANGE[0]:g} to {HZ_RANGE[1]:g}, frames a second, got {got}")
    return hz


def _empty(clips: list[Clip]) -> tuple[str, ...]:
    names = [c.name for c in clips if not c.x.any()]
    more = ", ..." if len(names) > 5 else ""
    return (f"warning: {len(names)} clips show nobody: {', '.join(names[:5])}{more}",) if names else ()


def _metres(x: NDArray[Any], unit: float) -> Frames:
    """x in metres; itself, not a copy, where it is that already."""
    x = x.astype(np.float32, copy=False)  # first: a float16 has no room for the product, nor has a whole number
    return x if unit == 1 else (x * np.float32(unit)).astype(np.float32)


def _unit(x: NDArray[Any], flat: bool = False) -> float:
    """Metres in the unit of x [sum T, P, J, 3], told from the size of the bodies. flat: centimetres and pixels cannot be told apart."""
    bodies = x[:: max(1, len(x) // SAMPLES)].reshape(-1, *x.shape[2:]).astype(np.float64)  # squares of float16 overflow
    seen: NDArray[np.bool_] = np.logical_not(np.logical_or.reduce(np.isnan(bodies), axis=-1))
    bodies, seen = bodies[seen.any(1)], seen[seen.any(1)]
    most = seen.sum(1) >= min(seen.shape[1], max(2, seen.sum(1).max(initial=0) // 2))  # of a few joints the size is not the body's
    bodies, seen = bodies[most], seen[most]
    n = seen.sum(1)
    middle = np.where(seen[..., None], bodies, 0).sum(1, keepdims=True) / n[:, None, None]
    sizes = np.sqrt(np.where(seen, ((bodies - middle) ** 2).sum(2), 0).sum(1) / n)
    sizes = sizes[np.logical_and(np.any(bodies, 2), seen).any(1)]
    size = float(np.median(sizes)) if len(sizes) else 0.0
    if size == 0 or IN_METRES[0] <= size <= IN_METRES[1]:
        return 1.0
    return next((u for u in (() if flat else UNITS) if GROWN[0] <= size * u <= GROWN[1]), PERSON / size)
