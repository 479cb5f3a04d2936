"""The formats that recordings come in: a name, how a file of it is known, its reader. A new one is a file beside this and a line here."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from indrnn.frames import layouts
from indrnn.frames.rate import HZ_RANGE
from indrnn.model.data import ntu
from indrnn.model.data.formats import azure, csv_table, matlab, mediapipe, npz, openpose, predict_body, pyskl
from indrnn.model.data.formats.recording import NO_PLACES, RATES, FormatError, Recording, by_number, load_json, words


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
    x = ntu.align(frames, max(persons, ntu.PERSONS))[:, :persons]  # of one person the one who is seen longest, in all frames
    if not len(x):
        raise FormatError(f"{path}: expected somebody in a frame, found nobody")
    notes: tuple[str, ...] = (
        (f"{path.name}: {len(frames) - len(x)} frames with nobody in them are left out",) if len(x) < len(frames) else ()
    )
    if beside := ntu.left_over(frames, x):
        notes += (f"{path.name}: {beside:,} bodies beside the {persons} of a frame are left out (--persons takes more)",)
    found = Recording(x.astype(np.float64), path.stem, order="kinect25", hz=ntu.HZ, unit="m", notes=notes)
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
    told = _flattened(found, {})
    clips = [(where, x, said) for where, v, said in told if (x := _joints(v)) is not None]
    if not clips:
        shapes = ", ".join(f"{where} {list(v.shape)}" for where, v, _ in told[:6])
        raise FormatError(f"{path}: expected an array [joints, 3, frames], or x, off and y, got {shapes or 'no array of numbers'}")
    utd = _UTD.search(path.stem)
    if utd and (x := next((x for where, x, _ in clips if where == "d_skel"), None)) is not None:
        return [Recording(x, path.stem, f"a{int(utd[1]):02}", int(utd[2]), order="utd20" if x.shape[2] == 20 else "", hz=30.0, unit="m")]
    turns = [where for where, _, _ in clips if {w for w in words(where).split() if len(w) > 2} & NO_PLACES]
    turns = turns if len(turns) < len(clips) else []
    clips = [clip for clip in clips if clip[0] not in turns]
    notes = (f"{path.name}: arrays that tell no places are left out: {', '.join(turns[:3])}{', ...' * (len(turns) > 3)}",) if turns else ()
    names = [path.stem if len(clips) == 1 else f"{path.stem} {where}" for where, _, _ in clips]
    return [Recording(x, name, **said, notes=notes) for name, (_, x, said) in zip(names, clips, strict=True)]


def _texts(v: Any) -> bool:
    return isinstance(v, str) or all(isinstance(t, str) for t in v)


def _flattened(found: Any, said: dict[str, Any], where: str = "") -> list[tuple[str, Any, dict[str, Any]]]:
    """Return every array of numbers within structs and cells: its way, itself, and what is said of it beside it, or in as many cells."""
    if isinstance(found, np.ndarray):
        return [(where, found, said)]
    if isinstance(found, list):
        return [one for i, v in enumerate(found) for one in _flattened(v, said, f"{where}.{i}")]
    if not isinstance(found, dict):
        return []
    told = {role: values for name, v in found.items() if (role := _role(name)) is not None and (values := _values(v, role))}
    said = said | {role: values[0] for role, values in told.items() if len(values) == 1}
    out = []
    for name, v in found.items():
        way = f"{where}.{name}" if where else name
        if isinstance(v, list) and _role(name) is None:
            for i, one in enumerate(v):
                out += _flattened(one, said | {r: values[i] for r, values in told.items() if len(values) == len(v)}, f"{way}.{i}")
        else:
            out += _flattened(v, said, way)
    return out


def _role(name: str) -> str | None:
    """Return what a variable or field of this name says of clips, as `Recording` calls it; None of another name."""
    plain = words(name)
    known = {role: csv_table.ROLES[role] for role in ("label", "subject", "view")} | {"hz": tuple(RATES)}
    singular = plain.removesuffix("es") if plain.endswith("sses") else plain.removesuffix("s")
    return next((role for role, names in known.items() if {plain, singular} & set(names)), "label" if plain == "y" else None)


def _values(v: Any, role: str) -> list[Any]:
    """Return what a text, texts or numbers say, one for each clip; nothing where they cannot say that."""
    if isinstance(v, str | list):
        cells: list[Any] = [v] if isinstance(v, str) else v
        if all(isinstance(c, np.ndarray) and c.size == 1 for c in cells):
            return _values(np.array([c.reshape(-1)[0] for c in cells]), role)
        texts = [c if isinstance(c, str) else "" for c in cells]
        return [t.strip() for t in texts] if role == "label" and all(texts) else []
    if not isinstance(v, np.ndarray) or v.dtype.kind not in "fiu" or v.size != max(v.shape, default=0) or not np.isfinite(v).all():
        return []
    numbers = v.reshape(-1).tolist()
    if role == "hz":
        return [float(n) if HZ_RANGE[0] <= n <= HZ_RANGE[1] else None for n in numbers]
    whole = npz.whole(v.reshape(-1))
    return [] if whole is None else [str(n) if role == "label" else n for n in whole.tolist()]


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
