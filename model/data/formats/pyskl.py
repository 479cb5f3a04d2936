"""Pickles of pyskl and mmaction2: {"split": {part: names}, "annotations": [{"frame_dir", "label", "keypoint" [P, T, J, D], …}]}.

Nothing in the pickle is run (model/data/formats/pickles.py). Each published part becomes a flag of its clips, an array that `--test` takes.
"""

from pathlib import Path
from typing import Any

import numpy as np

from indrnn.model.data import ntu
from indrnn.model.data.formats import pickles
from indrnn.model.data.formats.recording import FormatError, Recording

_ORDERS = {(17, 2): "coco17", (25, 3): "kinect25", (20, 3): "kinect20", (18, 2): "openpose18", (25, 2): "openpose25"}
_HEARD = {3: 30.0}  # Hz: three dimensions are NTU RGB+D's sensor


def read(path: Path, persons: int) -> list[Recording]:
    """Return the clips of a pickle. A joint of score 0 that stands at 0 was not seen. Raises FormatError."""
    told = pickles.load(path)
    annotations = told.get("annotations") if isinstance(told, dict) else told
    if not isinstance(annotations, list) or not annotations or not all(isinstance(a, dict) and "keypoint" in a for a in annotations):
        raise FormatError(f"{path}: expected annotations with keypoint, as pyskl and mmaction2 have them, got {_what(told)}")
    split = told.get("split") if isinstance(told, dict) else None
    parts = {str(part): {str(n) for n in names} for part, names in split.items()} if isinstance(split, dict) else {}
    return [_one(a, i, parts, persons, path) for i, a in enumerate(annotations)]


def _what(told: Any) -> str:
    if isinstance(told, dict):
        return f"a dict of {', '.join(map(str, list(told)[:8]))}"
    return f"a {type(told).__name__}"


def _one(a: dict[str, Any], i: int, parts: dict[str, set[str]], persons: int, path: Path) -> Recording:
    name = str(a.get("frame_dir", a.get("filename", f"clip {i}")))
    keypoint = a["keypoint"]
    if (
        not isinstance(keypoint, np.ndarray)
        or keypoint.dtype.kind not in "fiu"
        or keypoint.ndim not in (3, 4)
        or keypoint.shape[-1] not in (2, 3)
    ):
        raise FormatError(f"{path}: {name}: keypoint: expected numbers [P, T, J, 2 or 3]")
    x = np.array(keypoint if keypoint.ndim == 4 else keypoint[None], np.float64)  # [P, T, J, D]
    score = a.get("keypoint_score")
    if isinstance(score, np.ndarray) and score.shape == x.shape[:-1]:
        x[(score == 0) & (x == 0).all(-1)] = np.nan
    D = x.shape[-1]
    there = (np.nan_to_num(x) != 0).any((2, 3)).sum(1)
    kept = np.argsort(-there, kind="stable")[:persons]
    left_over = int((there[np.argsort(-there, kind="stable")[persons:]] > 0).sum())
    notes = (f"{name}: {left_over} persons beside the {persons} seen longest are left out (--persons takes more)",) if left_over else ()
    try:
        told = ntu.Name.of(name)
    except ntu.NtuError:
        told = None
    label = a.get("label")
    return Recording(
        np.moveaxis(x[kept], 0, 1),
        name,
        label=None if label is None else str(int(label)) if isinstance(label, int | np.integer) else str(label),
        subject=told.subject if told else None,
        view=told.camera if told else None,
        order=_ORDERS.get((x.shape[2], D), ""),
        hz=_HEARD.get(D),
        unit="px" if D == 2 else "m",
        flags={part: name in names for part, names in parts.items()},
        notes=notes,
    )
