"""OpenPose's JSON: a clip is a folder with a file a frame, `…_keypoints.json`; x, y and confidence of each joint in pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indrnn.model.data.formats.recording import FormatError, Places, Recording, by_number, load_json, numbers, seats

_ORDERS = {25: "openpose25", 18: "openpose18", 17: "coco17", 15: ""}
SUFFIX = "_keypoints.json"


def is_one(path: Path) -> bool:
    """Return whether a folder is a clip of OpenPose's."""
    return path.is_dir() and next(path.glob(f"*{SUFFIX}"), None) is not None


def read(path: Path, persons: int) -> list[Recording]:
    """Return the one clip of a folder. A joint of confidence 0, which stands at 0, was not seen. Raises FormatError."""
    files = sorted(path.glob(f"*{SUFFIX}"), key=by_number)
    found = [_bodies(file) for file in files]
    shapes = {body.shape for frame in found for body in frame}
    if len(shapes) != 1:
        got = " and ".join(f"{j} joints of {d}" for j, d in sorted(shapes)) or "nobody in any frame"
        raise FormatError(f"{path}: expected people of one number of joints, got {got}")
    joints, dims = shapes.pop()
    x, left_over = seats(found, persons)
    notes = (f"{left_over:,} bodies beside the {persons} of a frame are left out (--persons takes more)",) if left_over else ()
    return [Recording(x, path.name, order=_ORDERS.get(joints, ""), unit="px" if dims == 2 else None, notes=notes)]


def _bodies(file: Path) -> Sequence[Places]:
    told = load_json(file)
    people = told.get("people") if isinstance(told, dict) else None
    if not isinstance(people, list) or not all(isinstance(p, dict) for p in people):
        raise FormatError(f"{file}: expected an object with people, a list of objects, as OpenPose writes it")
    found = []
    for person in people:
        deep = person.get("pose_keypoints_3d") or ()
        a = (
            numbers(deep, (-1, 4), file, "pose_keypoints_3d")
            if deep
            else numbers(person.get("pose_keypoints_2d"), (-1, 3), file, "pose_keypoints_2d")
        )
        body = a[:, :-1].copy()
        body[(a[:, -1] <= 0) | (body == 0).all(1)] = np.nan
        if len(body) and not np.isnan(body).all():
            found.append(body)
    return found
