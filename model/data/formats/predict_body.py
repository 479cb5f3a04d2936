"""What was sent to `POST /predict`, kept as a file: a body of JSON, or one a line. Each of its sequences is a clip.

`null` is a joint not seen, and with `"lost": "zero"` so is one at 0. Bodies of one session are pieces of one clip, in the order of their
steps where they are numbered, and one that was sent twice counts once. Rows of numbers are no clips.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indrnn.frames import layouts
from indrnn.frames.rate import HZ_RANGE
from indrnn.model.data.formats.recording import FormatError, Places, Recording, load_json, rate

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
    sessions: dict[str, dict[Any, _Clip]] = {}
    for n, body in enumerate(bodies):
        where = f"{path}: line {n + 1}: sequences" if len(bodies) > 1 else f"{path}: sequences"
        clips = _clips(body, where, persons)
        session = body.get("session_id")
        if session is None:
            found += [_timed(clip) for clip in clips]
        else:
            step = body.get("step")
            sessions.setdefault(str(session), {}).setdefault(n if step is None else f"step {step}", clips[0])
    found += [_timed(_joined(list(pieces.values()), path)) for pieces in sessions.values()]
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


class _Clip(NamedTuple):
    """A clip of a body. t: seconds of its frames, None where the body has none, empty where they cannot be read; asked: the body's own
    layout, unit and axes."""

    recording: Recording
    step: Any
    t: NDArray[np.float64] | None
    asked: dict[str, Any]


def _clips(body: dict[str, Any], where: str, persons: int) -> list[_Clip]:
    said = _said(body, where)
    sequences = body["sequences"]
    if not isinstance(sequences, list) or not sequences:
        raise FormatError(f"{where}: expected a list of clips, got {'an empty one' if sequences == [] else 'something else'}")
    if body.get("session_id") is not None and len(sequences) != 1:
        raise FormatError(f"{where}: expected one clip, as a session takes, got {len(sequences)}")
    asked = {"layout": body.get("layout"), "unit": body.get("unit"), "axes": said.axes}
    found = []
    for i, clip in enumerate(sequences):
        x, left = _places(clip, f"{where}[{i}]", persons)
        x = x[..., :2] if said.flat else x
        if said.zero:
            x = np.where((x == 0).all(-1, keepdims=True) & (x != 0).any((2, 3), keepdims=True), np.nan, x)
        notes = said.notes
        if left:
            notes += (f"{left} persons beside the {persons} of a frame are left out (--persons takes more)",)
        recording = Recording(x, "", order=said.order, hz=said.hz, unit=said.unit, axes=said.axes, notes=notes)
        found.append(_Clip(recording, body.get("step"), _times(body.get("t"), i, len(sequences)), asked))
    return found


def _said(body: dict[str, Any], where: str) -> _Body:
    """Return the options of a body; of those that cannot be read, a note says which."""
    notes = []
    layout, unit, axes, hz = (body.get(name) for name in ("layout", "unit", "axes", "hz"))
    order = layouts.order(layout) if isinstance(layout, str) else None
    unit = None if unit is None else str(unit)
    if layout is not None and order is None:
        notes.append(f"layout {str(layout)[:40]!r} is none that is known here: --layout says another")
    if unit is not None and unit not in layouts.UNITS:
        notes.append(f"unit {unit[:40]!r} is the model's own: --unit says how many metres it is")
    if axes is not None and not isinstance(axes, str):
        raise FormatError(f"{where}: axes: expected a text such as '-x -y z'")
    if isinstance(hz, bool) or not isinstance(hz, int | float) or not HZ_RANGE[0] <= hz <= HZ_RANGE[1]:
        hz = None
    return _Body(
        str(layout) if order is not None else "",
        hz,
        unit if unit in layouts.UNITS else None,
        axes or "x y z",
        body.get("lost") == "zero",
        order is not None and order.dims == 2,
        tuple(notes),
    )


def _times(times: Any, i: int, sequences: int) -> NDArray[np.float64] | None:
    """Return the seconds of a clip's frames, where a body has some; nothing but an empty array where they are no numbers."""
    if times is None:
        return None
    try:
        told = times if sequences == 1 and not isinstance(times[0], list) else times[i]
        return np.array(told, np.float64).reshape(-1) if _are_numbers(told) else np.zeros(0)
    except (TypeError, ValueError, LookupError, OverflowError):
        return np.zeros(0)


def _timed(clip: _Clip) -> Recording:
    """Return a clip with the rate of its frames' times, where it has some, and what is to be said of them."""
    hz, notes = _rate(clip.t, len(clip.recording.x))
    return replace(clip.recording, hz=hz or clip.recording.hz, notes=(*clip.recording.notes, *notes))


def _rate(t: NDArray[np.float64] | None, frames: int) -> tuple[float | None, tuple[str, ...]]:
    if t is None:
        return None, ()
    if t.shape != (frames,) or frames < 2 or not np.isfinite(t).all():
        return None, ("times (t) that do not fit the frames are not used: --hz says the rate",)
    steps = np.diff(t)
    if not (steps > 0).all():
        return None, ("times (t) that do not rise are not used: --hz says the rate",)
    even = (np.abs(steps - np.median(steps)) <= UNEVEN * np.median(steps)).all()
    return rate(t.tolist()), () if even else ("frames at uneven times are taken as steady, at their usual rate",)


def _are_numbers(values: Any) -> bool:
    """Return whether these are JSON's numbers, and no booleans or texts, which NumPy would take for some. Raises TypeError."""
    return {type(v) for v in values} <= {int, float}


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
                if not all(j is None or _are_numbers(j) for j in person):
                    raise TypeError
                x[t, p] = np.array([lost if j is None else j for j in person], np.float64)
            except (TypeError, ValueError, OverflowError) as error:
                raise FormatError(
                    f"{where}[{t}]: expected {J} joints of {D} numbers or null as in the others, got something else"
                ) from error
    return x, max(0, P - persons)


def _joined(pieces: list[_Clip], path: Path) -> _Clip:
    """Return the pieces of a session as one clip. Raises FormatError where one is not as the first."""
    if all(type(piece.step) is int for piece in pieces):
        pieces = sorted(pieces, key=lambda piece: piece.step)
    first = pieces[0]
    found = [piece.recording for piece in pieces]
    P = max(r.x.shape[1] for r in found)
    if len({r.x.shape[2:] for r in found}) > 1:
        raise FormatError(f"{path}: expected the same joints in all steps of a session")
    rates = [r.hz for r in found if r.hz is not None]
    for piece in pieces:
        differing = [(name, first.asked[name], value) for name, value in piece.asked.items() if value != first.asked[name]]
        differing += [("hz", rates[0], piece.recording.hz)] if piece.recording.hz not in (None, *rates[:1]) else []
        for name, expected, got in differing:
            raise FormatError(f"{path}: expected {name} {_word(expected)} in all steps of a session as in its first, got {_word(got)}")
    x = np.concatenate([np.pad(r.x, ((0, 0), (0, P - r.x.shape[1]), (0, 0), (0, 0))) for r in found])
    times = [piece.t for piece in pieces]
    t = None if all(one is None for one in times) else np.concatenate([np.zeros(0) if one is None else one for one in times])
    notes = tuple(dict.fromkeys(n for r in found for n in r.notes))
    return first._replace(recording=replace(first.recording, x=x, hz=rates[0] if rates else None, notes=notes), t=t)


def _word(value: Any) -> str:
    """Return an option's value in words."""
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)[:40]
