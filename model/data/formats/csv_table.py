"""Tables of text with a header, CSV by any delimiter: a row a frame with columns such as `left_wrist_x`, or a row a joint.

Told from the names of columns, whatever their case: coordinates (`x_head`, `head.x`, `HeadX`, `X1`), the frame or the time, the joint (in a
row a joint), the person, the clip, the label. A number that is not there is a joint not seen.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from indrnn.model.data.formats.recording import NO_PLACES, FormatError, Places, Recording, moments, rate_of, time_unit, words

ROLES = {
    "label": ("label", "class", "action", "activity", "gesture"),
    "clip": ("clip", "video", "sequence", "seq", "file", "filename", "recording", "sample", "trial"),
    "person": ("person", "body", "body id", "person id", "track", "track id", "player"),
    "subject": ("subject", "subject id", "actor", "participant"),
    "view": ("view", "camera"),
    "frame": ("frame", "frame id", "frame number", "frame no", "frameno", "index", "frame index"),
    "joint": ("joint", "joint name", "landmark", "keypoint", "marker", "joint id", "landmark id", "keypoint id"),
}
_UNITS = {
    **{unit: unit for unit in ("m", "cm", "mm", "dm", "in", "ft", "px")},
    **dict.fromkeys(("metre", "metres", "meter", "meters"), "m"),
    **dict.fromkeys(("pixel", "pixels"), "px"),
}
_PLACES = ("", "position", "pos", "p", "translation", "t")
_COMMA = re.compile(r"\s*[+-]?(\d+|\d{1,3}(\.\d{3})+)?,\d*([eE][+-]?\d+)?\s*")  # a number with a decimal comma


@dataclass(frozen=True)
class _Columns:
    """Which column is what. places: joint -> axis -> column; unit: of the places, where the columns' names state it."""

    roles: dict[str, int]
    places: dict[str, dict[str, int]]
    unit: str | None = None
    notes: tuple[str, ...] = ()


def read(path: Path, persons: int) -> list[Recording]:
    """Return the clips of a table. Raises FormatError."""
    header, rows = _rows(path)
    columns = _columns(header, path)
    if "joint" in columns.roles and set(columns.places) == {""}:
        header, rows, columns = _row_a_frame(header, rows, columns, path)
    if not columns.places or "" in columns.places:
        raise FormatError(
            f"{path}: expected columns with the coordinates of joints, such as left_wrist_x, left_wrist_y, or joint, x, y, z; "
            f"got {', '.join(header[:8])}{', …' if len(header) > 8 else ''}"
        )
    axes = "xyz" if all("z" in a for a in columns.places.values()) else "xy"
    lacking = [j for j, a in columns.places.items() if not set(axes) <= set(a)]
    if lacking:
        raise FormatError(f"{path}: expected {' and '.join(axes)} of each joint, {lacking[0]} lacks one")
    order = [columns.places[j][a] for j in columns.places for a in axes]
    clips: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        clips.setdefault(_cell(row, columns.roles.get("clip")) or path.stem, []).append(i)
    values = _numbers(rows, order, header, path).reshape(len(rows), len(columns.places), len(axes))
    names = tuple(j.strip() for j in columns.places)
    found = [_recording(name, at, rows, values[at], names, columns.roles, header, persons, path) for name, at in clips.items()]
    return [replace(r, unit=columns.unit, notes=(*columns.notes, *r.notes)) for r in found]


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1" if set(raw) & {0x81, 0x8D, 0x8F, 0x90, 0x9D} else "cp1252")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) < 2 or "\0" in text:
        got = "an empty file" if not lines else "no text" if "\0" in text else "one line"
        raise FormatError(f"{path}: expected a table with a header and rows, got {got}")
    stated = re.fullmatch(r'"?sep=(.)"?[,;\t|]*', lines[0].strip(), re.IGNORECASE)  # Excel's
    delimiter = stated[1] if stated else max(",;\t|", key=lines[0].count)
    lines = lines[1:] if stated else lines
    try:
        table = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise FormatError(f"{path}: expected a table: {error}") from error
    header = [h.strip() for h in table[0]]
    if all(_is_number(h) for h in header if h):
        raise FormatError(f"{path}: expected a header, a first line with the names of the columns, got numbers")
    while header and not header[-1]:
        header.pop()
    table = [row if any(cell.strip() for cell in row[len(header) :]) else row[: len(header)] for row in table]
    if delimiter != ",":
        table = [[cell.replace(".", "").replace(",", ".") if _COMMA.fullmatch(cell) else cell for cell in row] for row in table]
    wrong = next((i for i, row in enumerate(table[1:], 2) if len(row) != len(header)), None)
    if wrong is not None:
        raise FormatError(
            f"{path}: expected {len(header)} columns in each row as the header has, got {len(table[wrong - 1])} in row {wrong}"
        )
    return header, table[1:]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _columns(header: Sequence[str], path: Path) -> _Columns:
    roles: dict[str, int] = {}
    places: dict[str, dict[str, int]] = {}
    units = set()
    for i, column in enumerate(header):
        name = words(column)
        role = next((r for r, known in ROLES.items() if name in known), "time" if time_unit(name) is not None else None)
        if role is not None and role not in roles:
            roles[role] = i
            continue
        name, unit = _with_unit(column)
        for pattern in (r"(?P<joint>.*?)\s?(?P<axis>[xyz])", r"(?P<axis>[xyz])\s?(?P<joint>.*)"):
            found = re.fullmatch(pattern, name)
            if found and (found["joint"] != "" or name in "xyz"):
                joint = f"joint {found['joint']}" if found["joint"].isdigit() else found["joint"]
                places.setdefault(joint, {}).setdefault(found["axis"], i)
                units |= {unit} - {None}
                break
    if len(units) > 1:
        raise FormatError(f"{path}: expected one unit of all columns, got {' and '.join(sorted(map(str, units)))}")
    places = {j: a for j, a in places.items() if {"x", "y"} <= set(a)}
    others = [j for j in places if _is_beside_a_place(j, places)]
    which = f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}"
    notes = (f"columns that tell no places are left out: {which}",) if others else ()
    return _Columns(roles, {j: a for j, a in places.items() if j not in others}, units.pop() if units else None, notes)


def _with_unit(column: str) -> tuple[str, str | None]:
    """Return the name of a column as plain words, and the unit at its end: `head_x (mm)`, `head x [m]`, `HeadX_mm`."""
    name, _, last = words(column).rpartition(" ")
    if last in _UNITS and (column.rstrip()[-1] in ")]" or re.search(r"(^|\s|\d)[xyz]$", name)):
        return name, _UNITS[last]
    return words(column), None


def _is_beside_a_place(joint: str, places: Mapping[str, object]) -> bool:
    """Return whether a joint is none, but the turn or speed of one, such as `head q` beside `head`; `hip r` beside `hip l` is one."""
    said = joint.split()
    ends = [(said[-1], said[:-1], [*said[:-1], "l"]), (said[0], said[1:], ["l", *said[1:]])] if said else []
    rests = [" ".join(rest) for end, rest, left in ends if end in NO_PLACES and not (end == "r" and " ".join(left) in places)]
    return any(f"{rest} {word}".strip() in places or f"{word} {rest}".strip() in places for rest in rests for word in _PLACES)


def _row_a_frame(header: list[str], rows: list[list[str]], columns: _Columns, path: Path) -> tuple[list[str], list[list[str]], _Columns]:
    """Turn a table with a row a joint into one with a row a frame."""
    keys = [i for r, i in columns.roles.items() if r != "joint"]
    if "frame" not in columns.roles and "time" not in columns.roles:
        raise FormatError(f"{path}: expected a column frame or time beside joint")
    axes = columns.places[""]
    joints = list(dict.fromkeys(row[columns.roles["joint"]].strip() for row in rows))
    told = [i for r, i in columns.roles.items() if r != "joint" and (r != "time" or "frame" not in columns.roles)]
    frames: dict[tuple[str, ...], dict[str, list[str]]] = {}
    heads: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        frame = tuple(row[i] for i in told)
        heads.setdefault(frame, [row[i] for i in keys])  # the time of a frame is that of its first joint
        at = frames.setdefault(frame, {})
        at[row[columns.roles["joint"]].strip()] = [row[i] for i in axes.values()]
    wide = [header[i] for i in keys] + [f"{j} {a}" for j in joints for a in axes]
    out = [[*heads[frame], *(cell for j in joints for cell in found.get(j, [""] * len(axes)))] for frame, found in frames.items()]
    names = [words(j) if not j.isdigit() else f"joint {j}" for j in joints]
    places = {n: {a: len(keys) + len(axes) * k + m for m, a in enumerate(axes)} for k, n in enumerate(names)}
    roles = {r: keys.index(i) for r, i in columns.roles.items() if r != "joint"}
    return wide, out, replace(columns, roles=roles, places=places)


def _cell(row: Sequence[str], column: int | None) -> str:
    return "" if column is None else row[column].strip()


def _numbers(rows: Sequence[Sequence[str]], order: Sequence[int], header: Sequence[str], path: Path) -> Places:
    out = np.full((len(rows), len(order)), np.nan)
    for i, row in enumerate(rows):
        for k, column in enumerate(order):
            cell = row[column].strip()
            if cell and cell.lower() not in ("nan", "na", "null", "none", "-"):
                try:
                    out[i, k] = float(cell)
                except ValueError:
                    raise FormatError(f"{path}: {header[column]}: expected a number in row {i + 2}, got {cell[:20]!r}") from None
    return out


def _recording(
    name: str,
    at: Sequence[int],
    rows: Sequence[Sequence[str]],
    values: Places,
    names: tuple[str, ...],
    roles: dict[str, int],
    header: Sequence[str],
    persons: int,
    path: Path,
) -> Recording:
    """Return one clip: its rows are frames, or, where there is a column of persons, the persons of frames."""
    own = [rows[i] for i in at]
    who = [_cell(r, roles.get("person")) for r in own]
    people = sorted(dict.fromkeys(who), key=lambda p: -who.count(p))
    if len(people) > 1 and not {"frame", "time"} & set(roles):
        raise FormatError(f"{path}: expected a column frame or time beside that of persons")
    left_out = f"{len(people) - persons} persons beside the {persons} seen longest are left out (--persons takes more)"
    notes = [f"{name}: {left_out}"] * (len(people) > persons)
    role, at_which = _moments(own, roles)
    frames, said = _frames(at_which, len(people) > 1)
    notes += [f"{name}: {header[roles[role]]}: {n}" for n in said]
    seat = {p: k for k, p in enumerate(people[:persons])}
    x = np.zeros((max(frames) + 1, len(seat), *values.shape[1:]))
    for t, p, v in zip(frames, who, values, strict=True):
        if p in seat:
            x[t, seat[p]] = v
    first = {t: i for i, t in reversed(list(enumerate(frames)))}
    order = [first[t] for t in sorted(first)]  # a row of each frame
    if role == "frame":
        x, said = _with_gaps(x, [at_which[i] for i in order])
        notes += [f"{name}: {header[roles[role]]}: {n}" for n in said]
    labels = {_cell(r, roles.get("label")) for r in own} - {""}
    if len(labels) > 1:
        raise FormatError(
            f"{path}: {name}: expected one label a clip, got {', '.join(sorted(labels)[:5])}: a column clip tells clips apart"
        )
    times = [_cell(own[i], roles["time"]) for i in order] if "time" in roles else []
    hz, said = rate_of(times, header[roles["time"]]) if any(times) else (None, [])
    notes += [f"{name}: {n}" for n in said]
    return Recording(
        x,
        name,
        label=next(iter(labels), None),
        subject=_whole(_cell(own[0], roles.get("subject"))),
        view=_whole(_cell(own[0], roles.get("view"))),
        joint_names=names,
        hz=hz,
        notes=tuple(notes),
    )


def _moments(own: Sequence[Sequence[str]], roles: dict[str, int]) -> tuple[str, list[Any]]:
    """Return "frame" or "time", whichever of the columns has numbers, and what it has in each row; texts where neither has."""
    there = [role for role in ("frame", "time") if role in roles]
    for role in there:
        if (found := moments([_cell(r, roles[role]) for r in own])) is not None:
            return role, found[0]
    return (there[0], [_cell(r, roles[there[0]]) for r in own]) if there else ("", [""] * len(own))


def _frames(at: Sequence[Any], shared: bool) -> tuple[list[int], list[str]]:
    """Return which frame each row is of, in the order of numbers, and notes. shared: rows of one moment are persons of one frame."""
    texts = isinstance(at[0], str)
    if shared:
        place = {m: t for t, m in enumerate(dict.fromkeys(at) if texts else sorted(set(at)))}
        return [place[m] for m in at], []
    steps = np.array([]) if texts else np.diff(np.array(at, np.float64))
    if (steps >= 0).all():
        return list(range(len(at))), []
    if len(set(at)) < len(at):
        return list(range(len(at))), ["neither rises nor tells all rows apart: they stay in the order of the file"]
    return np.argsort(np.argsort(np.array(at, np.float64))).tolist(), []


def _with_gaps(x: Places, numbers: Sequence[Any]) -> tuple[Places, list[str]]:
    """Return x with frames in which no joint is seen where numbers of frames are missing, and notes."""
    if isinstance(numbers[0], str) or len(numbers) < 3:
        return x, []
    at = np.array(numbers, np.float64)
    step = np.median(np.diff(at))
    places = (at - at[0]) / step if step > 0 else at
    if (np.diff(places) < 1).any() or (places % 1).any() or len(places) == places[-1] + 1:
        return x, []
    gap = int(np.argmax(np.diff(places)))
    missing = f"{int(places[-1]) + 1 - len(places):,} frames are missing, most of them from {at[gap]:g} to {at[gap + 1]:g}"
    if places[-1] + 1 > 2 * len(places):
        return x, [f"{missing}; what is there follows on without them"]
    whole = np.full((int(places[-1]) + 1, *x.shape[1:]), np.nan)
    whole[places.astype(np.int64)] = x
    return whole, [f"{missing}; joints are not seen in them"]


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else None
