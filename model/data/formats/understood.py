"""Recordings of any format -> the arrays of a file of clips, y up and in metres where they are known, and what was understood, in words."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from statistics import median, median_low

import numpy as np
from numpy.typing import NDArray

from indrnn.frames import layouts
from indrnn.frames.layouts import JointOrder
from indrnn.frames.rate import HZ_RANGE
from indrnn.model.data import clips
from indrnn.model.data.camera import resample
from indrnn.model.data.formats.lost import seen_only
from indrnn.model.data.formats.recording import FormatError, Places, Recording, words

METRES = layouts.UNITS | {"dm": 0.1, "in": 0.0254, "ft": 0.3048}
UNEVEN = 0.1  # of the rate: cameras that take so much more or less are of one rate
UNLIKE = 8.0  # times: bodies that are so much larger than others are in another unit; who crouches is a third of who stands
SAMPLES = 20  # frames of a recording that its bodies' size is told from
AXES = re.compile(r"[+-]?[xyz](?:[\s,]+[+-]?[xyz]){1,2}")
# axis that is up, its sign -> where x, y, z of this project lie in the file's, a turn and no mirror
_TURNS = {(0, 1): "-y x z", (0, -1): "y -x z", (1, -1): "-x -y z", (2, 1): "x z -y", (2, -1): "x -z y"}


@dataclass(frozen=True)
class Stated:
    """What the user says of the recordings; None: to be told from them. zero: a joint at 0 on all axes was not seen."""

    layout: str | None = None
    unit: str | None = None
    axes: str | None = None
    hz: float | None = None
    zero: bool = False


@dataclass(frozen=True)
class Understood:
    """arrays: those of the file to be written. x [F, P, J, D] as written there. lines: (what, in words); notes: what was made of it."""

    arrays: dict[str, NDArray[np.generic]]
    x: Places
    names: tuple[str, ...]
    lines: list[tuple[str, str]]
    notes: list[str]


def understand(found: Sequence[Recording], asked: Stated) -> Understood:
    """Return all recordings as one file of clips. Raises FormatError where they do not belong together or say too little."""
    _check_shapes(found)
    found = [_laid_out(_numbered(r), asked.layout) for r in found]
    first = found[0]
    if asked.layout is None:
        _check_joints(found)
    if asked.axes is None:
        _check_axes(found)
    if asked.unit is None:
        _check_units(found)
    P = max(r.x.shape[1] for r in found)
    x = np.concatenate([np.pad(r.x, ((0, 0), (0, P - r.x.shape[1]), (0, 0), (0, 0))) for r in found])
    if np.isinf(x).any():
        x = np.where(np.isinf(x), np.nan, x)
    x, notes = seen_only(x, asked.zero)
    found = [replace(r, x=part) for r, part in zip(found, np.split(x, np.cumsum([len(r.x) for r in found])[:-1]), strict=True)]
    if asked.unit is None:
        _check_sizes(found)
    hz, hz_line = _rate(found, asked)
    if asked.hz is None and not all(r.hz is None or _alike(r.hz, hz) for r in found):
        found = [_at_rate(r, hz) for r in found]
        x = np.concatenate([r.x for r in found])
    order_name, order, names, x, said = _order(first, x, asked)
    x, axes = _axes(x, names, first.axes or (order.axes if order is not None else "x y z"), asked)
    x, unit_line, unit_note = _unit(x, first, order, asked)
    lines = [
        ("clips", _lengths(found)),
        ("classes", _classes(found)),
        ("persons", f"{P} in a frame" + _subjects(found)),
        ("joints", f"{x.shape[2]}: {said}"),
        ("unit", unit_line),
        ("rate", hz_line),
        ("axes", axes),
        ("lost", _lost(x)),
    ]
    collected = [n for r in found for n in r.notes]
    told = [*notes, *dict.fromkeys(collected), *unit_note]
    return Understood(_arrays(found, x, names, hz, order_name), x, names, lines, told)


def _check_shapes(found: Sequence[Recording]) -> None:
    """Raise FormatError where a recording has no frames, or other joints than the first in number."""
    first = found[0]
    for r in found:
        if r.x.shape[2:] != first.x.shape[2:]:
            raise FormatError(f"{r.name}: expected {_shape(first)} as {first.name} has, got {_shape(r)}")
        if not len(r.x):
            raise FormatError(f"{r.name}: expected frames, got none")


def _shape(r: Recording) -> str:
    return f"{r.x.shape[2]} joints of {r.x.shape[3]} numbers"


def _check_joints(found: Sequence[Recording]) -> None:
    """Raise FormatError where a recording has other joints than the first, or the same in another order."""
    kinds: dict[object, Recording] = {}
    for r in found:
        kinds.setdefault((r.order, r.joint_names), r)
    first = found[0]
    for r in kinds.values():
        for j, (expected, got) in enumerate(zip_longest(_names(first), _names(r))):
            if expected != got:
                raise FormatError(
                    f"{r.name}: expected joint {j} {_joint(expected, first)} as {first.name} has, got {_joint(got, r)}: "
                    "convert them apart, or say --layout"
                )


def _numbered(r: Recording) -> Recording:
    """Return a recording with its joints in the order of their numbers, where their names are numbers."""
    told = [re.fullmatch(r"(.*?)\s*([0-9]{1,9})", words(n)) for n in r.joint_names or ()]
    numbers = [int(t[2]) for t in told if t is not None]
    if not told or len(set(numbers)) < len(told) or len({t[1] for t in told if t is not None}) > 1:
        return r
    return _moved(r, sorted(range(len(told)), key=lambda j: numbers[j]))


def _moved(r: Recording, index: Sequence[int]) -> Recording:
    """Return a recording with its joints, and their names, in another order."""
    if list(index) == list(range(r.x.shape[2])):
        return r
    return replace(r, x=r.x[:, :, index], joint_names=tuple((r.joint_names or ())[j] for j in index))


def _laid_out(r: Recording, layout: str | None) -> Recording:
    """Return a recording with its joints in the order of the layout that is asked for, by their names where they are its.

    Raises FormatError where a joint is called as another of the layout is.
    """
    order = layouts.order(layout) if layout else None
    if order is None or r.joint_names is None or len(order.names) != r.x.shape[2]:
        return r
    expected, got = [words(n) for n in order.names], _names(r)
    if sorted(got) == sorted(expected):
        return _moved(r, [got.index(n) for n in expected])
    for j, name in enumerate(got):
        if name in expected and expected[j] != name:
            raise FormatError(
                f"{r.name}: expected the joints of {layout}, whose joint {j} is {expected[j]!r}, got {name!r} by the file's own names, "
                "which are not all of that layout: leave out --layout, or rename them"
            )
    return r


def _names(r: Recording) -> tuple[str, ...]:
    """Return the names of the joints as plain words, by the layout where one is stated; none where nothing says any."""
    order = layouts.order(r.order) if r.order else None
    return tuple(words(n) for n in (order.names if order is not None else r.joint_names or ()))


def _joint(name: str | None, r: Recording) -> str:
    return "no name" if name is None else f"{name!r} ({r.order})" if r.order else repr(name)


def _order(r: Recording, x: Places, asked: Stated) -> tuple[str, JointOrder | None, tuple[str, ...], Places, str]:
    """Return the order's name, itself, the joints' names, x with its joints in that order, and what is said of it."""
    joints, dims = x.shape[2:]
    name = asked.layout or r.order
    if name:
        order = layouts.order(name)
        if order is None:
            raise FormatError(f"expected --layout as one of {', '.join(layouts.ORDERS)}, got {name!r}")
        if len(order.names) != joints:
            like = layouts.likely(joints, dims)
            hint = f"; {joints} joints have {', '.join(like)}" if like else ""
            raise FormatError(f"{r.name}: {name} has {len(order.names)} joints, the recording has {joints}{hint}")
        by_names = _names(replace(r, order="")) == tuple(words(n) for n in order.names)
        return name, order, order.names, x, f"{name}, {order.told}{', by the names of the joints' if by_names else ''}"
    if r.joint_names is not None:
        plain = [words(n) for n in r.joint_names]
        for name, order in sorted(
            layouts.ORDERS.items(), key=lambda item: [words(n) for n in item[1].names] != plain
        ):  # the same joints in their order first
            if sorted(plain) == sorted(expected := [words(n) for n in order.names]):
                index = [plain.index(n) for n in expected]
                moved = ", its joints put into that order" if index != list(range(joints)) else ""
                return name, order, order.names, x[:, :, index], f"{name} by the names of the joints{moved}"
        return "", None, r.joint_names, x, f"{', '.join(r.joint_names[:6])}{', ...' if joints > 6 else ''}: by their own names"
    like = layouts.likely(joints, dims)
    hint = f"; is it {' or '.join(like)}? say --layout {like[0]}" if like else ""
    return "", None, tuple(f"joint {j}" for j in range(joints)), x, f"without names{hint}"


def _check_axes(found: Sequence[Recording]) -> None:
    """Raise FormatError where the files say of their axes what is not so of all, or no axes at all."""
    axes = found[0].axes
    for r in found:
        if r.axes != axes:
            raise FormatError(f"{r.name}: expected axes {axes!r} as {found[0].name} has, got {r.axes!r}: convert them apart, or say --axes")
    if axes is not None and not _is_axes(axes, found[0].x.shape[-1]):
        raise FormatError(f"{found[0].name}: expected axes such as '-x -y z', got {axes[:40]!r}: --axes says others")


def _check_units(found: Sequence[Recording]) -> None:
    """Raise FormatError where the files state different units, or some state none."""
    first = found[0]
    for r in found:
        if _unit_of(r) != _unit_of(first):
            raise FormatError(
                f"{r.name}: expected {f'the unit {first.unit}' if first.unit else 'no unit'} as {first.name} has, got {r.unit or 'none'}: "
                "convert them apart, or say --unit"
            )


def _unit_of(r: Recording) -> str | None:
    return r.unit or ("px" if r.x.shape[-1] == 2 else None)


def _check_sizes(found: Sequence[Recording]) -> None:
    """Raise FormatError where files that state no unit have bodies of sizes that are not those of people in one."""
    if _unit_of(found[0]) is not None:
        return
    sizes = []
    for r in found:
        bodies = r.x[:: max(1, len(r.x) // SAMPLES)]
        if size := _size(bodies[np.isnan(bodies).any(-1).mean(-1) <= 0.5][None]):  # of a few joints the size is not the body's
            sizes.append((r.name, size))
    for name, size in sizes:
        first, expected = sizes[0]
        if not 1 / UNLIKE < size / expected < UNLIKE:
            raise FormatError(
                f"{name}: expected bodies about as large as those of {first}, {expected:.3g}, got {size:.3g}: "
                "convert them apart, or say --unit"
            )


def _is_axes(axes: str, dims: int) -> bool:
    parts = axes.replace(",", " ").split()
    return bool(AXES.fullmatch(axes.strip())) and len({p[-1] for p in parts}) == len(parts) >= dims


def _axes(x: Places, names: tuple[str, ...], usual: str, asked: Stated) -> tuple[Places, str]:
    """Return x with y up, and which axes of the file its own are, in words."""
    if asked.axes is not None:
        parts = asked.axes.replace(",", " ").split()
        if not _is_axes(asked.axes, x.shape[-1]):
            raise FormatError(f"expected --axes such as '-x -y z', where x, y and z of the result lie in the file, got {asked.axes!r}")
        return _turned(x, asked.axes), f"x, y, z are {', '.join(parts)} of the file, as --axes says"
    turned = _turned(x, usual)
    said = (
        "as they are in the file"
        if usual == "x y z"
        else f"x, y, z are {', '.join(usual.split()[: x.shape[-1]])} of the file, as it is usual for this layout"
    )
    up = _up(turned, names)
    if up is None:
        return turned, f"{said}; which of them is up cannot be told from the joints' names and places: look at the picture"
    if up == (1, 1) or (x.shape[-1] == 2 and up not in _TURNS):
        return turned, f"{said}; y is up"
    again = _TURNS[up]
    letter = f"{'-' if up[1] < 0 else ''}{'xyz'[up[0]]}"
    return _turned(
        turned, again
    ), f"{said}; {letter} was up there, turned so that y is (x, y, z from {', '.join(again.split()[: x.shape[-1]])}; --axes says otherwise)"


def _turned(x: Places, axes: str) -> Places:
    parts = axes.replace(",", " ").split()[: x.shape[-1]]
    index = ["xyz".index(p[-1]) for p in parts]
    if max(index) >= x.shape[-1]:
        raise FormatError(f"expected axes of two numbers, x and y, got {axes!r}")
    signs = np.array([-1.0 if p.startswith("-") else 1.0 for p in parts])
    turned: Places = x[..., index] * signs + 0.0  # no -0
    return turned


def _up(x: Places, names: tuple[str, ...]) -> tuple[int, int] | None:
    """Return the axis and sign that lead from the hips to the head; None where the names do not say which joints those are, or both lie."""
    low = [words(n) for n in names]

    def mean(*parts: str) -> Places | None:
        index = [j for j, n in enumerate(low) if any(p in n.split() or p == n for p in parts)]
        if not index:
            return None
        return np.nanmedian(np.where((x[:, :, index] == 0).all(-1, keepdims=True), np.nan, x[:, :, index]), axis=(1, 2))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of frames without the joints
        top, low_end = mean("head", "nose", "neck"), mean("hip", "hips", "pelvis", "root")
        if top is None or low_end is None:
            return None
        way = np.nanmedian(top - low_end, 0)
    if not np.isfinite(way).all() or not way.any():
        return None
    axis = int(np.argmax(np.abs(way)))
    if np.abs(way[axis]) < 1.5 * np.delete(np.abs(way), axis).max():
        return None  # who lies or bends says nothing
    return axis, 1 if way[axis] > 0 else -1


def _unit(x: Places, r: Recording, order: JointOrder | None, asked: Stated) -> tuple[Places, str, list[str]]:
    """Return x in metres, or in the file's pixels, what is said of that, and notes."""
    name = asked.unit or r.unit or (order.unit if order is not None and r.order == "" and asked.layout else None)
    flat = x.shape[-1] == 2
    size = _size(x)
    if name == "px" or (name is None and flat):
        what = "pixels, or parts of a picture" if name is None else "pixels"
        return x, f"{what}, kept: training scales a body to {clips.PERSON} m and keeps the factor; a body is {size:.4g} large", []
    if name is None:
        told = clips._unit(x, flat)
        known = next((n for n, u in METRES.items() if u == told), None)
        if known is None:
            return x * told, f"none that is known: a body is {size:.4g} large, times {told:.4g} it is {clips.PERSON} m", []
        return x * told, f"{known}, told from the bodies: one is {size * told:.2f} m large (root mean square from its middle)", []
    try:
        factor = METRES[name] if name in METRES else float(name)
    except ValueError:
        raise FormatError(f"expected --unit as one of {', '.join(METRES)}, px, or metres in one of it, got {name!r}") from None
    if not 0 < factor < np.inf:
        raise FormatError(f"expected --unit above 0, got {name!r}")
    size *= factor
    notes = []
    if size and not clips.IN_METRES[0] <= size <= clips.IN_METRES[1]:
        notes.append(
            f"warning: by the unit {name} a body is {size:.3g} m large, where people are {clips.GROWN[0]} to {clips.GROWN[1]} m: say --unit"
        )
    return x * factor, f"{name}, written as metres: a body is {size:.2f} m large (root mean square from its middle)", notes


def _size(x: Places) -> float:
    seen = ~np.isnan(x).any(-1) & (x != 0).any(-1)
    whole = seen.sum(-1) > 1
    if not whole.any():
        return 0.0
    bodies, there = x[whole][:: max(1, int(whole.sum()) // 10_000)], seen[whole][:: max(1, int(whole.sum()) // 10_000)]
    n = there.sum(1)
    middle = np.where(there[..., None], bodies, 0).sum(1, keepdims=True) / n[:, None, None]
    return float(np.median(np.sqrt(np.where(there, ((bodies - middle) ** 2).sum(2), 0).sum(1) / n)))


def _rate(found: Sequence[Recording], asked: Stated) -> tuple[float, str]:
    """Return the rate of the file: that of about half of the recordings and more, and how it was told."""
    stated = sorted(r.hz for r in found if r.hz is not None)
    if asked.hz is not None:
        hz, said = asked.hz, "as --hz says"
    elif not stated:
        hz, said = clips.HZ, "taken, for the files say none: --hz says another"
    else:
        middle = median_low(stated)
        hz = median([one for one in stated if _alike(one, middle)])
        hz = float(round(hz)) if abs(hz - round(hz)) < 0.02 * hz else round(hz, 2)
        said = "by the files"
        if others := [one for one in stated if not _alike(one, hz)]:
            span = f"{others[0]:g}" if others[0] == others[-1] else f"{others[0]:g} to {others[-1]:g}"
            said += f"; {len(others)} of {span} Hz {'is' if len(others) == 1 else 'are'} brought to it"
        if silent := len(found) - len(stated):
            said += f"; {silent} that {'says none is' if silent == 1 else 'say none are'} taken to be of it"
    if not HZ_RANGE[0] <= hz <= HZ_RANGE[1]:
        raise FormatError(f"expected a rate from {HZ_RANGE[0]:g} to {HZ_RANGE[1]:g} Hz, got {hz:g}: --hz says another")
    return hz, f"{hz:g} Hz, {said}"


def _alike(hz: float, other: float) -> bool:
    return abs(hz - other) <= UNEVEN * other


def _at_rate(r: Recording, hz: float) -> Recording:
    """Return a recording with its frames brought to this rate, where its own is another."""
    if r.hz is None or _alike(r.hz, hz):
        return r
    if not HZ_RANGE[0] <= r.hz <= HZ_RANGE[1]:
        raise FormatError(f"{r.name}: expected a rate from {HZ_RANGE[0]:g} to {HZ_RANGE[1]:g} Hz, got {r.hz:g}: --hz says that of all")
    return replace(r, x=resample(r.x.astype(np.float32), r.hz, hz).astype(np.float64))


def _lengths(found: Sequence[Recording]) -> str:
    lengths = [len(r.x) for r in found]
    return f"{len(found):,}, {sum(lengths):,} frames, {min(lengths)} to {max(lengths)} a clip"


def _classes(found: Sequence[Recording]) -> str:
    labels = [r.label or "" for r in found]
    each = [f"{label} {labels.count(label)}" for label in sorted(set(labels))]
    return f"{len(each)}: {', '.join(each[:12])}{', ...' if len(each) > 12 else ''}"


def _subjects(found: Sequence[Recording]) -> str:
    subjects = {r.subject for r in found if r.subject is not None}
    return f"; {len(subjects)} subjects" if subjects else "; who they are is not told: clips of each class are held out in turn"


def _lost(x: Places) -> str:
    there = (np.nan_to_num(x) != 0).any((2, 3))
    lost, count = int(np.isnan(x[there]).any(-1).sum()), int(there.sum()) * x.shape[2]
    return f"{lost:,} of {count:,} joints were not seen" + (f" ({100 * lost / count:.1f} %)" if lost else "")


def _arrays(found: Sequence[Recording], x: Places, names: tuple[str, ...], hz: float, order: str) -> dict[str, NDArray[np.generic]]:
    labels = [r.label or "" for r in found]
    numbered = all(re.fullmatch(r"\d+", label) for label in labels)
    classes = sorted(set(labels), key=int if numbered else str)
    arrays: dict[str, NDArray[np.generic]] = {
        "x": (x[:, 0] if x.shape[1] == 1 else x).astype(np.float32),
        "off": np.cumsum([0, *(len(r.x) for r in found)]),
        "y": np.array([classes.index(label) for label in labels], np.int64),
        "classes": np.array(classes),
        "names": np.array([r.name for r in found]),
        "hz": np.array(hz),
        "joint_names": np.array(names),
    }
    if order:
        arrays["layout"] = np.array(order)
    for name in ("subject", "view"):
        told = [getattr(r, name) for r in found]
        if all(v is not None for v in told):
            arrays[name] = np.array(told, np.int64)
    flags = dict.fromkeys(f for r in found for f in r.flags)
    arrays |= {name: np.array([r.flags.get(f, False) for r in found]) for f in flags if (name := re.sub(r"\W", "_", f)) not in arrays}
    return arrays
