"""MediaPipe Pose's landmarks as JSON, however they were dumped: a list of frames, or lines, with 33 landmarks of x, y and z in each.

Landmarks of the world are metres from the hips' middle and preferred; those of the picture are parts of its width and height, two numbers,
and tell who is who of several persons.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from indrnn.model.data.formats.recording import FormatError, Places, Recording, load_json, rate_of, seats, time_unit

JOINTS = 33
_DEEPEST = 6


def is_one(told: Any) -> bool:
    """Return whether there are lists of 33 landmarks in what a JSON file holds."""
    return any(next(_landmarks(frame, ""), None) is not None for frame in _frames(told)[:50])


def read(path: Path, persons: int) -> list[Recording]:
    """Return the one clip of a file. Raises FormatError."""
    frames = _frames(load_json(path))
    found = [list(_landmarks(frame, "")) for frame in frames]
    world = any("world" in where.lower() for bodies in found for where, _ in bodies)
    bodies = [[_places(b, path, world) for where, b in frame if ("world" in where.lower()) == world] for frame in found]
    if not any(bodies):
        raise FormatError(f"{path}: expected frames with {JOINTS} landmarks of x, y and z, as MediaPipe Pose gives them")
    places = [[_places(b, path, False) for where, b in frame if "world" not in where.lower()] for frame in found] if world else bodies
    if all(len(p) == len(b) for p, b in zip(places, bodies, strict=True) if b):
        x, left_over = seats(bodies, persons, where=places)
    else:
        x, left_over = seats(bodies, persons, [list(range(len(frame))) for frame in bodies])  # by where they stand in the list
    notes = [f"{left_over:,} bodies beside the {persons} of a frame are left out (--persons takes more)"] if left_over else []
    if not world:
        notes.append("landmarks of the picture: parts of its width and height, of which one may be longer; those of the world are metres")
    order = "mediapipe33"
    return [Recording(x, path.stem, order=order, hz=_rate(frames), unit="m" if world else "px", notes=tuple(notes))]


def _frames(told: Any) -> list[Any]:
    """Return what stands for the frames: a list at the top, or the longest list under a name."""
    if isinstance(told, dict):
        lists = [v for v in told.values() if isinstance(v, list) and not _is_body(v)]
        told = max(lists, key=len, default=[told])
    if isinstance(told, list) and _is_body(told):
        return [told]
    return told if isinstance(told, list) else []


def _is_body(found: Any) -> bool:
    if not isinstance(found, list) or len(found) != JOINTS:
        return False
    return all(_is_place(p) for p in found)


def _is_place(p: Any) -> bool:
    if isinstance(p, dict):
        return "x" in p and "y" in p
    return isinstance(p, list) and 2 <= len(p) <= 5 and all(isinstance(n, int | float) for n in p)


def _landmarks(found: Any, where: str, depth: int = 0) -> Iterator[tuple[str, list[Any]]]:
    """Yield (names on the way, 33 landmarks) for all that are in a frame."""
    if depth > _DEEPEST:
        return
    if _is_body(found):
        yield where, found
    elif isinstance(found, dict):
        for name, value in found.items():
            yield from _landmarks(value, f"{where}.{name}", depth + 1)
    elif isinstance(found, list):
        for value in found:
            yield from _landmarks(value, where, depth + 1)


def _places(body: list[Any], path: Path, world: bool) -> Places:
    rows = [[p.get(k, np.nan) for k in "xyz"] if isinstance(p, dict) else (p[:3] if len(p) > 2 else [*p, np.nan]) for p in body]
    try:
        a = np.array(rows, np.float64)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: expected numbers as x, y and z of landmarks, got something else") from error
    return a if world else a[:, :2]


def _rate(frames: list[Any]) -> float | None:
    """Return the rate by the frames' times, of which one that names its unit is preferred."""
    first = frames[0] if isinstance(frames[0], dict) else {}
    for name in sorted((n for n in first if time_unit(n) is not None), key=lambda n: not time_unit(n)):
        times = [f[name] for f in frames if isinstance(f, dict) and isinstance(f.get(name), int | float)]
        if len(times) > 1 and len(times) == len(frames):
            return rate_of(times, name)
    return None
