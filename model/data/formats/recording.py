"""One recorded clip as the file of some tool has it, before unit, axes and joint order are this project's; and the seats of its persons."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.float64]
Middle = NDArray[np.floating[Any]]

# Chosen without the data at hand: a walker's middle moves some 5 cm a frame, and two persons rarely stand nearer than 30 cm.
NEAR = 0.3  # metres that a body's middle may move from its slot's last place before its id is doubted
RETURNS = 15  # frames for which a slot is kept for the body that left it, if it comes back near


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
            except (json.JSONDecodeError, RecursionError):
                pass
        got = f"{error.msg} in line {error.lineno}" if text.strip() else "an empty file"
        raise FormatError(f"{path}: expected JSON, got {got}") from error


def numbers(found: Any, shape: tuple[int, ...], path: Path, what: str) -> Places:
    """Return a list of numbers as an array of that shape, -1 for any length; None is NaN. Raises FormatError."""
    try:
        a = np.asarray(found, np.float64)
        return a.reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        expected = " x ".join("any number of" if n < 0 else str(n) for n in shape)
        raise FormatError(f"{path}: {what}: expected {expected} numbers, got something else") from error


def rate(times: Sequence[float]) -> float | None:
    """Return the rate, Hz, of frames at these seconds; None where they do not rise."""
    steps = np.diff(np.asarray(times, np.float64))
    steps = steps[steps > 0]
    return float(np.round(1 / np.median(steps), 3)) if len(steps) and np.isfinite(steps).all() else None


class Seats:
    """Which id sits in which seat, where its body's middle was last, and in which frame."""

    def __init__(self, count: int) -> None:
        self.ident: list[str | None] = [None] * count
        self.last: list[Middle | None] = [None] * count
        self.when = [-1] * count

    def place(self, middles: dict[str, Middle], t: int) -> dict[str, int]:
        """Seats the bodies of frame t -> id -> slot."""
        seats = {ident: self.ident.index(ident) for ident in middles if ident in self.ident}
        if len(seats) == len(self.ident) and self._swapped(middles, seats):
            seats = {ident: 1 - slot for ident, slot in seats.items()}
        for ident in middles:
            if ident not in seats:
                seats[ident] = self._free(middles[ident], set(seats.values()), t)
        for ident, slot in seats.items():
            self.ident[slot], self.last[slot], self.when[slot] = ident, middles[ident], t
        return seats

    def _away(self, slot: int, middle: Middle) -> float:
        last = self.last[slot]
        return np.inf if last is None else float(np.linalg.norm(middle - last))

    def _swapped(self, middles: dict[str, Middle], seats: dict[str, int]) -> bool:
        """Return whether every body is far from its own slot's last place and near the other's."""
        return all(self._away(s, middles[i]) > NEAR >= self._away(1 - s, middles[i]) for i, s in seats.items())

    def _free(self, middle: Middle, taken: set[int], t: int) -> int:
        free = [s for s in range(len(self.ident)) if s not in taken]
        near = [s for s in free if self._away(s, middle) <= NEAR and t - self.when[s] <= RETURNS]
        if near:
            return min(near, key=lambda s: self._away(s, middle))
        return min(free, key=lambda s: self.when[s])


def _away(last: Places | None, middle: Places | None) -> float:
    return np.inf if last is None or middle is None else float(np.nansum((last - middle) ** 2))


def seats(frames: Sequence[Sequence[Places]], persons: int, ids: Sequence[Sequence[Any]] | None = None) -> tuple[Places, int]:
    """Bodies [J, D] of each frame, in any order -> x [T, persons, J, D], each body in the seat of who was last nearest, zeros where absent.

    ids: of the bodies, where a tracker has followed them: then a body keeps its id's seat, before others are seated. Seats are in the order
    of how long they were taken. Returned beside x is how many bodies found no seat.
    """
    shape = next((body.shape for frame in frames for body in frame), (1, 2))
    count = max(persons, 1)
    x = np.zeros((len(frames), count, *shape))
    last: list[Places | None] = [None] * count
    holder: list[Any] = [None] * count
    left_over = 0
    for t, frame in enumerate(frames):
        middles = [np.nanmean(np.where(np.isnan(b).all(-1, keepdims=True), np.nan, b), 0) if not np.isnan(b).all() else None for b in frame]
        order = sorted((i for i, m in enumerate(middles) if m is not None), key=lambda i: -int((~np.isnan(frame[i]).any(-1)).sum()))
        idents = [None] * len(frame) if ids is None else ids[t]
        seated = {holder.index(idents[i]): i for i in reversed(order) if idents[i] is not None and idents[i] in holder}
        for i in order:
            free = set(range(count)) - set(seated)
            if i in seated.values():
                continue
            if free:
                seated[min(free, key=lambda s: (_away(last[s], middles[i]), s))] = i
            else:
                left_over += 1
        for seat, i in seated.items():
            x[t, seat], last[seat], holder[seat] = frame[i], middles[i], idents[i]
    taken = np.argsort(-(~np.isnan(x) & (x != 0)).any((2, 3)).sum(0), kind="stable")
    return x[:, taken], left_over
