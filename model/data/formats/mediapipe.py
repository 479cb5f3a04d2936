"""MediaPipe Pose's landmarks as JSON, however they were dumped: a list of frames, or lines, with 33 landmarks of x, y and z in each.

Landmarks of the world are metres from the hips' middle and preferred; those of the picture are parts of its width and height, two numbers,
and tell who is who of several persons.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from indrnn.frames.rate import HZ_RANGE
from indrnn.model.data.formats.recording import RATES, FormatError, Places, Recording, load_json, rate_of, seats, time_unit, words

JOINTS = 33
_DEEPEST = 6
_PERSONS = {"person", "persons", "body", "pose", "player", "track", "id", "people", "subject", "human", "skeleton"}


def is_one(told: Any) -> bool:
    """Return whether there are lists of 33 landmarks in what a JSON file holds."""
    return _has_landmarks(_frames(told))


def read(path: Path, persons: int) -> list[Recording]:
    """Return the one clip of a file. Raises FormatError."""
    told = load_json(path)
    frames = _frames(told)
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
    hz, said = _rate(frames)
    notes += said
    if not world:
        notes.append("landmarks of the picture: parts of its width and height, of which one may be longer; those of the world are metres")
    order = "mediapipe33"
    return [Recording(x, path.stem, order=order, hz=hz or _stated_rate(told), unit="m" if world else "px", notes=tuple(notes))]


def _frames(told: Any, depth: int = 0) -> list[Any]:
    """Return what stands for the frames: a list, or what is under names with numbers, in their order, wherever in the file it is."""
    if isinstance(told, list):
        return [told] if _is_body(told) else told
    if not isinstance(told, dict) or depth > _DEEPEST:
        return []
    if numbered := _numbered(told):
        return numbered
    lists = {n: v for n, v in told.items() if isinstance(v, list) and not _is_body(v) and _has_landmarks(v)}
    if lists:
        name, found = max(lists.items(), key=lambda item: (len(item[1]), "world" in item[0].lower()))
        return [f if isinstance(f, dict) else {name: f} for f in found] if len(found) > 1 else [told]
    inner = max((_frames(v, depth + 1) for v in told.values() if isinstance(v, dict) and _has_landmarks(v)), key=len, default=[])
    return inner if len(inner) > 1 else [told]


def _has_landmarks(found: Any) -> bool:
    return any(
        next(_landmarks(f, ""), None) is not None for f in (found[:50] if isinstance(found, list) and not _is_body(found) else [found])
    )


def _numbered(told: dict[str, Any]) -> list[Any]:
    """Return what is under names that differ in a number alone, such as `frame_10`, in the order of the numbers; persons are none."""
    found: dict[tuple[str, str], dict[float, Any]] = {}
    for name, value in told.items():
        met = re.fullmatch(r"(.*?)([0-9]{1,18}(?:\.[0-9]{1,18})?)(\D*)", name)
        if met and isinstance(value, dict | list) and not _PERSONS & set(words(met[1]).split()):
            found.setdefault((met[1], met[3]), {})[float(met[2])] = value
    most = max(found.values(), key=len, default={})
    return [most[n] for n in sorted(most)] if any(map(_has_landmarks, most.values())) else []


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
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{path}: expected numbers as x, y and z of landmarks, got something else") from error
    return a if world else a[:, :2]


def _rate(frames: list[Any]) -> tuple[float | None, list[str]]:
    """Return the rate by the frames' times, of which one that names its unit is preferred, and notes."""
    first = frames[0] if isinstance(frames[0], dict) else {}
    notes: list[str] = []
    for name in sorted((n for n in first if time_unit(n) is not None), key=lambda n: not time_unit(n)):
        times = [f.get(name) if isinstance(f, dict) else None for f in frames]
        hz, said = rate_of(times, name)
        if hz is not None:
            return hz, []
        notes += said
    return None, notes


def _stated_rate(told: Any, depth: int = 0) -> float | None:
    """Return the rate that a file states beside its frames, such as `"fps": 25`."""
    if not isinstance(told, dict) or depth > 2:
        return None
    for name, value in told.items():
        if words(name) in RATES and isinstance(value, int | float) and HZ_RANGE[0] <= value <= HZ_RANGE[1]:
            return float(value)
    return next((hz for value in told.values() if (hz := _stated_rate(value, depth + 1)) is not None), None)
