"""What was sent to `POST /predict`, kept as a file: a body of JSON, or one a line. Each of its sequences is a clip.

`null` is a joint not seen, and with `"lost": "zero"` so is one at 0. Bodies of one session are pieces of one clip, in the order of their
steps; one that was sent twice counts once. Rows of numbers are no clips.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from indrnn.frames import layouts
from indrnn.frames.rate import HZ_RANGE
from indrnn.model.data.formats.recording import FormatError, Places, Recording, load_json, rate

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}  # of which every service knows how many metres they are
UNEVEN = 0.1  # of the median step; what differs by more is no steady rate
DEEPEST = 6  # axes of anything that is looked at


def is_one(told: Any) -> bool:
    """Return whether what a JSON file holds is such a body, or some."""
    bodies = told if isinstance(told, list) else [told]
    return bool(bodies) and all(isinstance(b, dict) and "sequences" in b for b in bodies)


def read(path: Path, persons: int) -> list[Recording]:
    """Return the clips of a file. Raises FormatError."""
    told = load_json(path)
    if not is_one(told):
        raise FormatError(f"{path}: expected what was sent to POST /predict, an object with sequences, or one a line")
    bodies = told if isinstance(told, list) else [told]
    found: list[Recording] = []
    sessions: dict[str, dict[Any, Recording]] = {}
    for n, body in enumerate(bodies):
        where = f"{path}: line {n + 1}: sequences" if len(bodies) > 1 else f"{path}: sequences"
        clips = _clips(body, where, persons)
        session = body.get("session_id")
        if session is None:
            found += clips
        else:
            step = body.get("step")
            sessions.setdefault(str(session), {}).setdefault(n if step is None else f"step {step}", clips[0])
    found += [_joined(list(pieces.values()), path) for pieces in sessions.values()]
    return [replace(r, name=path.stem if len(found) == 1 else f"{path.stem} {i}") for i, r in enumerate(found)]


@dataclass(frozen=True)
class _Body:
    """What a body says of its sequences. flat: a joint has two numbers, and a third says how sure it is."""

    order: str
    hz: float | None
    unit: str | None
    axes: str
    zero: bool
    flat: bool
    notes: tuple[str, ...]


def _clips(body: dict[str, Any], where: str, persons: int) -> list[Recording]:
    said = _said(body, where)
    sequences = body["sequences"]
    if not isinstance(sequences, list) or not sequences:
        raise FormatError(f"{where}: expected a list of clips, got {'an empty one' if sequences == [] else 'something else'}")
    if body.get("session_id") is not None and len(sequences) != 1:
        raise FormatError(f"{where}: expected one clip, as a session takes, got {len(sequences)}")
    found = []
    for i, clip in enumerate(sequences):
        x, left = _places(clip, f"{where}[{i}]", persons)
        x = x[..., :2] if said.flat else x
        if said.zero:
            x = np.where((x == 0).all(-1, keepdims=True) & (x != 0).any((2, 3), keepdims=True), np.nan, x)
        hz, timed = _rate(body.get("t"), i, len(sequences), len(x))
        notes = (*said.notes, *timed)
        if left:
            notes += (f"{left} persons beside the {persons} of a frame are left out (--persons takes more)",)
        found.append(Recording(x, "", order=said.order, hz=hz or said.hz, unit=said.unit, axes=said.axes, notes=notes))
    return found


def _said(body: dict[str, Any], where: str) -> _Body:
    """Return the options of a body; of those that cannot be read, a note says which."""
    notes = []
    layout, unit, axes, hz = (body.get(name) for name in ("layout", "unit", "axes", "hz"))
    order = layouts.order(layout) if isinstance(layout, str) else None
    unit = None if unit is None else str(unit)
    if layout is not None and order is None:
        notes.append(f"layout {str(layout)[:40]!r} is none that is known here: --layout says another")
    if unit is not None and unit not in UNITS:
        notes.append(f"unit {unit[:40]!r} is the model's own: --unit says how many metres it is")
    if axes is not None and not isinstance(axes, str):
        raise FormatError(f"{where}: axes: expected a text such as '-x -y z'")
    if isinstance(hz, bool) or not isinstance(hz, int | float) or not HZ_RANGE[0] <= hz <= HZ_RANGE[1]:
        hz = None
    return _Body(
        str(layout) if order is not None else "",
        hz,
        unit if unit in UNITS else None,
        axes or "x y z",
        body.get("lost") == "zero",
        order is not None and order.dims == 2,
        tuple(notes),
    )


def _rate(times: Any, i: int, sequences: int, frames: int) -> tuple[float | None, tuple[str, ...]]:
    """Return the rate of the frames' times, where a body has some, and what is to be said of them."""
    if times is None:
        return None, ()
    try:
        t = np.asarray(times if sequences == 1 and not isinstance(times[0], list) else times[i], np.float64)
    except (TypeError, ValueError, LookupError, OverflowError):
        t = np.zeros(0)
    if t.shape != (frames,) or frames < 2 or not np.isfinite(t).all():
        return None, ("times (t) that do not fit the frames are not used: --hz says the rate",)
    steps = np.diff(t)
    if not (steps > 0).all():
        return None, ("times (t) that do not rise are not used: --hz says the rate",)
    even = (np.abs(steps - np.median(steps)) <= UNEVEN * np.median(steps)).all()
    return rate(t.tolist()), () if even else ("frames at uneven times are taken as steady, at their median rate",)


def _depth(value: Any) -> int:
    """Return how many lists are within each other, by the first that is no null."""
    depth = 0
    while isinstance(value, list) and depth < DEEPEST:
        depth, value = depth + 1, next((v for v in value if v is not None), None)
    return depth


def _places(clip: Any, where: str, persons: int) -> tuple[Places, int]:
    """Return a clip [T][J][D] or [T][P][J][D] as [T, P, J, D], NaN where a joint is null, and how many persons are left out."""
    depth = max((_depth(frame) for frame in clip), default=0) + 1 if isinstance(clip, list) else 0
    if depth == 2:
        raise FormatError(f"{where}: expected a clip of joints, got rows of numbers: `indrnn train tensor` reads them from an .npz")
    if depth not in (3, 4):
        raise FormatError(
            f"{where}: expected a clip [T][J][3] or [T][P][J][3], got {'a text' if isinstance(clip, str) else 'something else'}"
        )
    frames = [frame if depth == 4 else [frame] for frame in clip]
    odd = next(
        (t for t, frame in enumerate(frames) if not isinstance(frame, list) or not all(p is None or isinstance(p, list) for p in frame)), -1
    )
    if odd >= 0:
        raise FormatError(f"{where}[{odd}]: expected {'persons' if depth == 4 else 'joints'}, got something else")
    P = max(len(frame) for frame in frames)
    joint = next((j for frame in frames for person in frame for j in person or () if isinstance(j, list)), [])
    J, D = max(len(person or ()) for frame in frames for person in frame), len(joint)
    if D not in (2, 3):
        raise FormatError(f"{where}: expected joints of 2 or 3 numbers, got {D}")
    x = np.zeros((len(frames), min(P, persons), J, D))
    lost = [np.nan] * D
    for t, frame in enumerate(frames):
        for p, person in enumerate(frame[:persons]):
            if person is None:
                continue
            try:
                x[t, p] = np.array([lost if j is None else j for j in person], np.float64)
            except (TypeError, ValueError, OverflowError) as error:
                raise FormatError(
                    f"{where}[{t}]: expected {J} joints of {D} numbers or null as in the others, got something else"
                ) from error
    return x, max(0, P - persons)


def _joined(pieces: list[Recording], path: Path) -> Recording:
    """Return the pieces of a session as one clip."""
    P = max(r.x.shape[1] for r in pieces)
    if len({r.x.shape[2:] for r in pieces}) > 1:
        raise FormatError(f"{path}: expected the same joints in all steps of a session")
    x = np.concatenate([np.pad(r.x, ((0, 0), (0, P - r.x.shape[1]), (0, 0), (0, 0))) for r in pieces])
    notes = tuple(dict.fromkeys(n for r in pieces for n in r.notes))
    return replace(pieces[0], x=x, hz=next((r.hz for r in pieces if r.hz is not None), None), notes=notes)
