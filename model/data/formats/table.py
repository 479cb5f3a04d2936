"""The formats that recordings come in: a name, how a file of it is known, its reader. A new one is a file beside this and a line here."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from indrnn.frames import layouts
from indrnn.model.data import ntu
from indrnn.model.data.formats import azure, csv_table, matlab, mediapipe, npz, openpose, predict_body, pyskl
from indrnn.model.data.formats.recording import FormatError, Recording, by_number, load_json


@dataclass(frozen=True)
class Format:
    """told: in words. suffixes: of its files; of a format whose clips are folders, none. read: (file, most persons) -> its clips."""

    told: str
    suffixes: tuple[str, ...]
    read: Callable[[Path, int], list[Recording]]


def _ntu(path: Path, persons: int) -> list[Recording]:
    try:
        frames = ntu.read(path)
    except ntu.NtuError as error:
        raise FormatError(f"{path}: {error}") from error
    x = ntu.align(frames)
    if not len(x):
        raise FormatError(f"{path}: expected somebody in a frame, found nobody")
    notes = (f"{path.name}: {len(frames) - len(x)} frames with nobody in them are left out",) if len(x) < len(frames) else ()
    found = Recording(x[:, :persons].astype(np.float64), path.stem, order="kinect25", hz=ntu.HZ, unit="m", notes=notes)
    try:
        name = ntu.Name.of(path.stem)
    except ntu.NtuError:
        return [found]
    return [replace(found, label=f"A{name.action:03}", subject=name.subject, view=name.camera)]


_COUNTS = {len(order.names) for order in layouts.ORDERS.values()}
_UTD = re.compile(r"a(\d+)_s(\d+)_t(\d+)_skeleton")


def _matlab(path: Path, persons: int) -> list[Recording]:
    """Return the clips of a .mat file: x, off and y as an .npz has them, or the arrays of joints in it, each a clip."""
    found = matlab.load(path)
    arrays: dict[str, Any] = {
        name: np.asarray(v) for name, v in found.items() if isinstance(v, np.ndarray) or (isinstance(v, str | list) and _texts(v))
    }
    if {"x", "off", "y"} <= set(arrays):
        return _own(arrays, str(path), persons)
    flat = dict(_flattened(found))
    clips = {name: x for name, v in flat.items() if (x := _joints(v)) is not None}
    if not clips:
        shapes = ", ".join(f"{name} {list(v.shape)}" for name, v in list(flat.items())[:6])
        raise FormatError(f"{path}: expected an array [joints, 3, frames], or x, off and y, got {shapes or 'no array of numbers'}")
    utd = _UTD.search(path.stem)
    if utd and "d_skel" in clips:
        x = clips["d_skel"]
        return [Recording(x, path.stem, f"a{int(utd[1]):02}", int(utd[2]), order="utd20" if x.shape[2] == 20 else "", hz=30.0, unit="m")]
    return [Recording(x, path.stem if len(clips) == 1 else f"{path.stem} {name}") for name, x in clips.items()]


def _texts(v: Any) -> bool:
    return isinstance(v, str) or all(isinstance(t, str) for t in v)


def _flattened(found: Any, where: str = "") -> list[tuple[str, Any]]:
    """Return every array of numbers within structs and cells, by its way."""
    if isinstance(found, np.ndarray):
        return [(where, found)]
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    return [pair for name, v in inner for pair in _flattened(v, f"{where}.{name}" if where else str(name))]


def _joints(v: Any) -> Any:
    """Return an array of joints as [T, 1, J, D]; None where it is none. MATLAB's order is [J, D, T] or [T, J, D]."""
    if v.dtype.kind not in "fiu":
        return None
    if v.ndim == 2 and v.shape[0] > 1 and v.shape[1] % 3 == 0 and v.shape[1] // 3 in _COUNTS:
        return v.astype(np.float64).reshape(len(v), 1, -1, 3)
    if v.ndim != 3 or min(v.shape) < 2:
        return None
    at = next((a for a in (1, 2, 0) if v.shape[a] == 3), next((a for a in (1, 2, 0) if v.shape[a] == 2), None))
    if at is None:
        return None
    joints, frames = {0: (1, 2), 1: (0, 2), 2: (1, 0)}[at]
    if v.shape[frames] in _COUNTS and v.shape[joints] not in _COUNTS:
        joints, frames = frames, joints
    return v.transpose(frames, joints, at)[:, None].astype(np.float64)


def _npz(path: Path, persons: int) -> list[Recording]:
    try:
        return _own(npz.load(path), str(path), persons)
    except npz.ArraysError as error:
        raise FormatError(str(error)) from error


def _own(arrays: dict[str, Any], title: str, persons: int) -> list[Recording]:
    """Return the clips of a file in this project's form; its x is not scaled, nor its lost joints held."""
    off = npz.whole(arrays["off"]) if "off" in arrays else None
    x = arrays.get("x")
    if x is None or x.dtype.kind not in "fiu" or x.ndim not in (3, 4) or x.shape[-1] not in (2, 3) or not x.size:
        raise FormatError(
            f"{title}: expected an array x [sum T, J, 2 or 3] or [sum T, P, J, 2 or 3], found {', '.join(sorted(arrays)) or 'none'}"
        )
    off = np.array([0, len(x)]) if off is None else off
    if len(off) < 2 or off[0] != 0 or off[-1] != len(x) or (np.diff(off) < 1).any():
        raise FormatError(f"{title}: off: expected to rise from 0 to the {len(x)} frames of x, at least one a clip")
    x = (x[:, None] if x.ndim == 3 else x)[:, :persons]
    N = len(off) - 1
    y = npz.whole(arrays["y"], N) if "y" in arrays else None
    classes = npz.texts(arrays["classes"]) if "classes" in arrays else ()
    labels = npz.texts(arrays["labels"]) if "labels" in arrays else ()
    names = npz.texts(arrays["names"]) if "names" in arrays else ()
    first = 1 if y is not None and y.min() == 1 and y.max() == len(classes) else 0
    joints = npz.texts(arrays["joint_names"]) if "joint_names" in arrays else ()
    whole: dict[str, Any] = {k: npz.whole(arrays[k], N) for k in ("subject", "view") if k in arrays}
    flags = {k: a for k in arrays if k not in _OWN and (a := npz.whole(arrays[k], N)) is not None and set(a.tolist()) <= {0, 1}}
    hz = npz.number(arrays["hz"]) if "hz" in arrays else None

    def label(i: int) -> str | None:
        if len(labels) == N:
            return labels[i]
        if y is None:
            return None
        k = int(y[i]) - first
        return classes[k] if 0 <= k < len(classes) else str(y[i])

    def number(k: str, i: int) -> int | None:
        a = whole.get(k)
        return None if a is None else int(a[i])

    return [
        Recording(
            np.asarray(x[off[i] : off[i + 1]], np.float64),
            names[i] if len(names) == N else f"{Path(title).stem} {i}",
            label(i),
            number("subject", i),
            number("view", i),
            joint_names=joints if len(joints) == x.shape[2] else None,
            hz=hz,
            flags={k: bool(a[i]) for k, a in flags.items()},
        )
        for i in range(N)
    ]


_OWN = {"x", "off", "y", "classes", "labels", "names", "subject", "view", "joint_names", "hz"}


def _npy(path: Path, persons: int) -> list[Recording]:
    try:
        with path.open("rb") as file:
            x = np.load(file, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # what NumPy raises for broken files has no base of its own
        raise FormatError(f"{path}: expected an array of numbers (.npy), got a file that is damaged or of Python objects") from error
    return _own({"x": np.asarray(x)}, str(path), persons)


def _json(path: Path, persons: int) -> list[Recording]:
    told = load_json(path)
    if predict_body.is_one(told):
        return predict_body.read(path, persons)
    if azure.is_one(told):
        return azure.read(path, persons)
    if isinstance(told, dict) and "people" in told:
        return openpose.read(path.parent, persons)
    return mediapipe.read(path, persons)


FORMATS = {
    "matlab": Format("MATLAB, version 5 to 7", (".mat",), _matlab),
    "ntu": Format("NTU RGB+D's .skeleton", (".skeleton",), _ntu),
    "openpose": Format("OpenPose's JSON, a folder a clip", (), openpose.read),
    "json": Format("JSON of MediaPipe, Azure Kinect or OpenPose, or sent to POST /predict", (".json", ".jsonl"), _json),
    "csv": Format("a table with a header", (".csv", ".tsv", ".txt"), csv_table.read),
    "pyskl": Format("a pickle of pyskl or mmaction2, of which nothing is run", (".pkl", ".pickle"), pyskl.read),
    "npz": Format("this project's arrays", (".npz",), _npz),
    "npy": Format("one array", (".npy",), _npy),
}


def read(paths: Sequence[Path], name: str | None, persons: int, pattern: str | None = None) -> tuple[list[Recording], list[str]]:
    """Return the clips of files and folders, and the names of the formats met.

    name: a format, None to tell it from each file. A clip without a label has its folder's name, where the folder lies within one that was
    given, else its file's, without the number at its end. pattern: an expression searched for in the file's path, whose groups label,
    subject and view say more. Raises FormatError, OSError.
    """
    found: list[Recording] = []
    met: list[str] = []
    for path in paths:
        files = _files(path)
        if not files:
            known = " ".join(s for f in FORMATS.values() for s in f.suffixes)
            raise FormatError(f"{path}: expected files that end in one of {known}, found none")
        for file in files:
            one = name or _format(file)
            if one not in met:
                met.append(one)
            found += [_named(r, file, path, pattern) for r in FORMATS[one].read(file, persons)]
    return found, met


def _files(path: Path) -> list[Path]:
    """Return the clips' files below a path, itself where it is one; a folder of OpenPose's frames is one."""
    if not path.is_dir() or openpose.is_one(path):
        return [path]
    suffixes = {s for f in FORMATS.values() for s in f.suffixes}
    folders = {p.parent for p in path.rglob(f"*{openpose.SUFFIX}")}
    files = {p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file() and p.parent not in folders}
    return sorted(files | folders, key=by_number)


def _format(file: Path) -> str:
    if file.is_dir():
        return "openpose"
    for name, one in FORMATS.items():
        if file.suffix.lower() in one.suffixes:
            return name
    known = " ".join(s for f in FORMATS.values() for s in f.suffixes)
    raise FormatError(f"{file}: expected a name that ends in one of {known}, or --format")


def _named(r: Recording, file: Path, given: Path, pattern: str | None) -> Recording:
    label, subject, view = r.label, r.subject, r.view
    if pattern is not None and (met := re.search(pattern, str(file))):
        groups = met.groupdict()
        label = groups.get("label") or label
        subject = _number(groups.get("subject"), subject)
        view = _number(groups.get("view"), view)
    if label is None:
        label = (
            file.parent.name
            if file.parent != given and given.is_dir() and file != given
            else re.sub(r"[\s_\-.(]*\d+\)?$", "", file.stem) or file.stem
        )
    return replace(r, label=label, subject=subject, view=view)


def _number(text: str | None, other: int | None) -> int | None:
    digits = re.sub(r"\D", "", text or "")
    if len(digits) > 18:
        raise FormatError(f"expected subject and view of at most 18 digits, got {digits}: --label says which part of the path they are")
    return int(digits) if digits else other
