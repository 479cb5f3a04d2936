"""One recorded clip as the file of some tool has it, before unit, axes and joint order are this project's; and the seats of its persons."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.float64]
Middle = NDArray[np.floating[Any]]

# Chosen without the data at hand: a walker's middle moves some 5 cm a frame, and two persons rarely stand nearer than 30 cm.
NEAR = 0.3  # metres that a body's middle may move from its seat's last place before its id is doubted
RETURNS = 15  # frames for which a seat is kept for the body that left it, if it comes back near


_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs", "μs", "usec", "micros", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanosecond", "nanoseconds"), 1e-9),
}
_TIMES = frozenset({"t", "time", "timestamp", "time stamp", "elapsed", "elapsed time"})
RATES = {"fps", "hz", "rate", "frame rate", "framerate", "frames per second", "sample rate", "sampling rate", "video fps"}
SLOWEST = 2.0  # seconds: of a time that names no unit, steps below 2 are seconds, below 2,000 milliseconds, and so on

NO_PLACES = {  # what beside its place is told of a joint on three axes
    *("q", "quat", "quaternion", "r", "rot", "rotation", "orientation", "euler", "angle", "w", "omega", "gyro"),
    *("v", "vel", "velocity", "speed", "a", "acc", "accel", "acceleration"),
}


class FormatError(Exception):
    """A file is not in the format that it is read as; the message names it, what was expected and what came."""


@dataclass(frozen=True)
class Recording:
    """x [T, P, J, D], D 2 or 3: as the file has it, NaN a joint not seen, an absent person all zeros or all NaN.

    order: a name in frames/layouts.py, "" where the format says none; joint_names: the file's own, in its order. hz, unit ("m", "cm", "mm",
    "px"), axes (where this project's x, y and z lie in the file's: "-x -y z"), label, subject, view: None where the file says nothing.
    flags: what else it says of the clip, such as in which parts of published splits it is. notes: what the reader made of the file beyond
    its words.
    """

    x: Places
    name: str
    label: str | None = None
    subject: int | None = None
    view: int | None = None
    order: str = ""
    joint_names: tuple[str, ...] | None = None
    hz: float | None = None
    unit: str | None = None
    axes: str | None = None
    flags: dict[str, bool] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def words(name: str) -> str:
    """Return the name of a column or a joint as lower-case words: `LeftWrist`, `left-wrist` and `LEFT_WRIST` are `left wrist`."""
    name = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    name = re.sub(r"[\s_.\-:/\[\]()]+", " ", name).strip().lower()
    return name.replace("center", "centre")


def by_number(path: Path) -> list[tuple[list[str | int], str]]:
    """Return a path as what sorts it: numbers in its names count as numbers, so that `frame_10` comes after `frame_2`."""
    return [([int(p) if k % 2 else p for k, p in enumerate(re.split(r"([0-9]+)", name))], name) for name in path.parts]


def load_json(path: Path) -> Any:
    """Return what a JSON file holds; of JSON lines a list. Raises FormatError."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: expected JSON in UTF-8, got other bytes at {error.start}") from error
    try:
        return json.loads(text)
    except RecursionError as error:
        raise FormatError(f"{path}: expected JSON of a recording, got brackets within brackets without end") from error
    except json.JSONDecodeError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1:
            try:
                return [json.loads(line) for line in lines]
            except (ValueError, RecursionError):
                pass
        got = f"{error.msg} in line {error.lineno}" if text.strip() else "an empty file"
        raise FormatError(f"{path}: expected JSON, got {got}") from error
    except ValueError as error:  # of Python: thousands of digits
        raise FormatError(f"{path}: expected JSON of a recording, got a number that is too long") from error


def numbers(found: Any, shape: tuple[int, ...], path: Path, what: str) -> Places:
    """Return a list of numbers as an array of that shape, -1 for any length; None is NaN. Raises FormatError."""
    try:
        a = np.asarray(found, np.float64)
        return a.reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        expected = " x ".join("any number of" if n < 0 else str(n) for n in shape)
        raise FormatError(f"{path}: {what}: expected {expected} numbers, got something else") from error


def rate(times: Sequence[float]) -> float | None:
    """Return the rate, Hz, of frames at these seconds; None where they do not rise.

    It is by the mean step, for whole milliseconds have no step of 120 Hz; steps that are far from the median, as where frames are missing,
    are left out. Of a clock that stands still for frames, those from its first tick to its last are counted.
    """
    at = np.asarray(times, np.float64)
    steps = np.diff(at)
    rising = np.flatnonzero(steps > 0)
    if not len(rising) or not np.isfinite(steps).all():
        return None
    if len(rising) > 1 and (steps == 0).sum() > len(rising) and (steps >= 0).all():
        step = (at[rising[-1]] - at[rising[0]]) / (rising[-1] - rising[0])
        return float(np.round(1 / step, 3))
    steps = steps[rising]
    usual = np.median(steps)
    return float(np.round(1 / np.mean(steps[np.abs(steps - usual) <= usual / 2]), 3))


def time_unit(name: str) -> float | None:
    """Return the seconds of the unit that the name of a time ends with, 0 where it names none; None of a name that is no time's."""
    first, _, last = words(name).rpartition(" ")
    if last in _UNITS and (not first or first in _TIMES):
        return _UNITS[last]
    return 0.0 if words(name) in _TIMES else None


def moments(told: Sequence[Any]) -> tuple[list[float], bool] | None:
    """Return times as numbers, and whether they are seconds by a clock, as `0:12.5` and 2026-01-31T12:00:00.5 are; None of other things."""
    try:
        found = [float("nan" if isinstance(t, bool) else t) for t in told]
        return (found, False) if np.isfinite(found).all() else None
    except OverflowError:
        return None
    except (TypeError, ValueError):
        by_clock = [_clock(t) if isinstance(t, str) else None for t in told]
        seconds = [t for t in by_clock if t is not None]
        return (seconds, True) if len(seconds) == len(told) else None


def _clock(text: str) -> float | None:
    if met := re.fullmatch(r"\s*(?:(\d{1,6}):)?(\d{1,6}):(\d{1,2}(?:[.,]\d{1,18})?)\s*", text):
        return 3600 * int(met[1] or 0) + 60 * int(met[2]) + float(met[3].replace(",", "."))
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def rate_of(told: Sequence[Any], name: str) -> tuple[float | None, list[str]]:
    """Return the rate, Hz, of frames at these times, in the unit that their name states, else told from their steps, and notes.

    Steps of 333,333, of which no unit is known, are Kinect's of 100 ns.
    """
    found = moments(told)
    if found is None:
        got = next((t for t in told if moments([t]) is None), told[0])
        return None, [f"{name}: expected times as numbers, or as 12:34:56.7, got {str(got)[:20]!r}: not used, --hz says the rate"]
    times, by_clock = found
    unit = 1.0 if by_clock else time_unit(name)
    if not unit:
        steps = np.diff(times)
        step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
        unit = next((u for u in (1.0, 1e-3, 1e-6) if step * u < SLOWEST), 1e-9)
        if any(abs(step * 1e-7 * hz - 1) < 0.05 for hz in (30, 15)):
            unit = 1e-7
    hz = rate([t * unit for t in times])
    return hz, [f"{name}: times that do not rise are not used: --hz says the rate"] if hz is None and len(times) > 1 else []


class Seats:
    """Which id sits in which seat, where its body's middle was last, and in which frame.

    near: how far the middle of a body that has an id may move in a frame, in the unit of the middles.
    """

    def __init__(self, count: int, near: float = np.inf) -> None:
        self.ident: list[Any] = [None] * count
        self.last: list[Middle | None] = [None] * count
        self.when = [-1] * count
        self.near = near

    def place(self, bodies: Sequence[tuple[Any, Middle]], t: int) -> list[int | None]:
        """Seat the bodies (id, None: not known; middle) of frame t -> the seat of each, None where all are taken.

        Whose id has a seat keeps it. When both ids of two seats stay but the bodies change places at once, the ids were swapped, and the
        bodies keep their seats. A new id takes the free seat whose body was last near, else one that nobody had, else the one left longest
        ago; who has no id the one whose body was last nearest.
        """
        seat: list[int | None] = [None] * len(bodies)
        for i, (ident, _) in enumerate(bodies):
            if ident is not None and ident in self.ident and self.ident.index(ident) not in seat:
                seat[i] = self.ident.index(ident)
        if len(self.ident) == 2 and set(seat) == {0, 1} and self._swapped(bodies, seat):
            seat = [None if s is None else 1 - s for s in seat]
        for i, (ident, middle) in enumerate(bodies):
            if seat[i] is None:
                seat[i] = self._free(ident, middle, set(seat), t)
        for (ident, middle), s in zip(bodies, seat, strict=True):
            if s is not None:
                self.ident[s], self.last[s], self.when[s] = ident, middle, t
        return seat

    def _away(self, seat: int, middle: Middle) -> float:
        last = self.last[seat]
        return np.inf if last is None else float(np.linalg.norm(np.nan_to_num(middle - last)))  # NaN: an axis that is never seen

    def _swapped(self, bodies: Sequence[tuple[Any, Middle]], seat: Sequence[int | None]) -> bool:
        """Return whether every body is far from its own seat's last place and near the other's."""
        return all(self._away(s, m) > self.near >= self._away(1 - s, m) for (_, m), s in zip(bodies, seat, strict=True) if s is not None)

    def _free(self, ident: Any, middle: Middle, taken: set[int | None], t: int) -> int | None:
        free = [s for s in range(len(self.ident)) if s not in taken]
        left = [s for s in free if self.when[s] >= 0]
        near = [s for s in left if ident is None or (self._away(s, middle) <= self.near and t - self.when[s] <= RETURNS)]
        if near:
            return min(near, key=lambda s: self._away(s, middle))
        return min(free, key=lambda s: self.when[s], default=None)


def seats(
    frames: Sequence[Sequence[Places]],
    persons: int,
    ids: Sequence[Sequence[Any]] | None = None,
    near: float = np.inf,
    where: Sequence[Sequence[Places]] | None = None,
) -> tuple[Places, int]:
    """Bodies [J, D] of each frame, in any order -> x [T, persons, J, D], each body in the seat that `Seats` gives it, zeros where absent.

    ids: of the bodies, where a tracker has followed them; near: as in `Seats`; where: joints that tell where each body stands, of bodies
    whose own places are from their middle. Seats are in the order of how long they were taken. Returned beside x is how many bodies
    found no seat.
    """
    shape = next((body.shape for frame in frames for body in frame), (1, 2))
    x = np.zeros((len(frames), max(persons, 1), *shape))
    room = Seats(max(persons, 1), near)
    left_over = 0
    for t, frame in enumerate(frames):
        seen = [(~np.isnan(body)).all(-1).sum() for body in frame]
        order = [i for i in np.argsort(-np.array(seen, np.int64), kind="stable") if not np.isnan(frame[i]).all()]
        bodies = [(ids[t][i] if ids is not None else None, _middle((where or frames)[t][i])) for i in order]
        for i, seat in zip(order, room.place(bodies, t), strict=True):
            if seat is None:
                left_over += 1
            else:
                x[t, seat] = frame[i]
    taken = np.argsort(-(~np.isnan(x) & (x != 0)).any((2, 3)).sum(0), kind="stable")
    return x[:, taken], left_over


def _middle(body: Places) -> Places:
    """Return the mean of the joints that were seen; an axis on which none was is NaN."""
    there = ~np.isnan(body)
    middle: Places = np.where(there, body, 0).sum(0) / np.where(there.any(0), there.sum(0), np.nan)
    return middle
