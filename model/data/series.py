"""Sequences of numbers as they lie in a file: anybody's sensors, with a class or values to be told of each step or of the whole.

A file is an `.npz` of plain arrays, in one of two forms:

    alike      x [N, T, F], N sequences of T steps of F numbers; where they are shorter, lengths [N] says how many steps count
    one after  x [sum T, F], the steps of all sequences, and off [N + 1]: sequence i is x[off[i]:off[i + 1]]
    another

What is to be told is `y` or `labels`. Whole numbers and `labels` (texts) are classes, fractional numbers are values: one a sequence, [N] or
[N, D], told at its end; or one a step, of the first form [N, T] or [N, T, D], of the second [sum T] or [sum T, D]. As far as it has
them: `classes` (names of classes 0, 1, ...), `features` [F] and `units` [F], `outputs` [D] and `output_units` [D], `hz`, and, one a
sequence, whole numbers `subject`, `view`, `test`, and `names`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from indrnn.model.data.formats import npz
from indrnn.model.data.sets import find

Answer = Literal["step", "end"]
ANSWERS = ("auto", "step", "end")
OWN = frozenset(
    ("x", "off", "lengths", "classes", "features", "units", "outputs", "output_units", "hz", "subject", "view", "test", "names")
)  # arrays that are read by name
MOST_CLASSES = 1000  # more different whole numbers are taken for a count that was meant as a value


class SeriesFileError(Exception):
    """A file does not hold sequences as expected; the message names the file, the array, what was expected and what came."""


@dataclass(frozen=True)
class Series:
    """One sequence: x [T, F], and what is to be told, a class [] or [T] int64, or values [D] or [T, D] float32.

    label: the class of the whole, 0 where there is none. test: the file's own word on whether it is for testing, None when it says nothing.
    more: what its other arrays say of the sequence.
    """

    x: NDArray[np.float32]
    y: NDArray[Any]
    label: int
    subject: int
    name: str
    view: int | None = None
    test: bool | None = None
    more: dict[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class SeriesSet:
    """The sequences of a file. classes: their names, or None, and then values: the names of the D numbers. units: None where not stated."""

    series: list[Series]
    answer: Answer
    features: tuple[str, ...]
    units: tuple[str | None, ...]
    classes: tuple[str, ...] | None
    values: tuple[str, ...]
    value_units: tuple[str | None, ...]
    hz: float | None


def delayed(s: Series, steps: int) -> Series:
    """Return the sequence with answers that many steps later: x goes on with its last row, y begins with its first.

    Schuster and Paliwal, 1997, section II.A: the network has then seen that many steps of the future of what it is asked for. s.y is of
    steps.
    """
    x, y = np.concatenate([s.x, np.repeat(s.x[-1:], steps, 0)]), np.concatenate([np.repeat(s.y[:1], steps, 0), s.y])
    return replace(s, x=x, y=y)


def read(file: str | Path, answer: str = "auto") -> SeriesSet:
    """Read every sequence of a file; a name is looked for under INDRNN_DATA, a path is taken as it is.

    answer: whether y is of steps or of sequences, where its shape leaves it open. Raises DataMissingError, SeriesFileError.
    """
    path = find(file) if isinstance(file, str) else file
    try:
        arrays = npz.load(Path(path))
    except npz.ArraysError as error:
        raise SeriesFileError(str(error)) from error
    return series_set(arrays, str(path), answer)


def series_set(arrays: dict[str, Any], title: str, answer: str = "auto") -> SeriesSet:
    """Read the sequences from the arrays of a file; title is what errors call it. Raises SeriesFileError."""
    return _Reader(arrays, title).read(answer)


class _Reader:
    """The arrays of a file, and how its sequences lie in them."""

    def __init__(self, arrays: dict[str, Any], title: str) -> None:
        self.arrays, self.title = {name: np.asarray(a) for name, a in arrays.items()}, title
        if "x" not in arrays or ("y" in arrays) == ("labels" in arrays):
            raise self.wrong("", f"expected arrays x and either y or labels, found {', '.join(sorted(arrays)) or 'none'}")
        self.laid = "off" in arrays  # one after another
        self.x = self._steps()
        self.cut: Callable[[NDArray[Any]], list[NDArray[Any]]] = self._offsets() if self.laid else self._rows()
        self.xs = self.cut(self.x)
        self.N = len(self.xs)

    def wrong(self, name: str, said: str) -> SeriesFileError:
        return SeriesFileError(f"{self.title}: {name}{': ' if name else ''}{said}")

    def _steps(self) -> NDArray[np.float32]:
        x, form = self.arrays["x"], "[sum T, F] beside off" if self.laid else "[N, T, F], or [sum T, F] with an array off"
        if x.ndim != (2 if self.laid else 3) or x.dtype.kind not in "fiub":
            raise self.wrong("x", f"expected numbers {form}, got {x.dtype} {list(x.shape)}")
        if not x.size:
            raise self.wrong("x", f"expected a sequence, a step and a number at least, got {list(x.shape)}")
        with np.errstate(over="ignore"):
            return np.asarray(x, np.float32)

    def _offsets(self) -> Callable[[NDArray[Any]], list[NDArray[Any]]]:
        off, total = self.arrays["off"], len(self.x)
        ends = npz.whole(off)
        if ends is None or len(ends) < 2 or ends[0] != 0 or ends[-1] != total or (np.diff(ends) < 1).any():
            got = f"{off.size} of {off.dtype} from {off.flat[0]} to {off.flat[-1]}" if off.size else "none"
            raise self.wrong(
                "off", f"expected whole numbers that rise from 0 to the {total} steps of x, at least one a sequence, got {got}"
            )
        places = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        return lambda a: [a[place] for place in places]

    def _rows(self) -> Callable[[NDArray[Any]], list[NDArray[Any]]]:
        N, T = self.x.shape[:2]
        lengths = self.whole("lengths", N) if "lengths" in self.arrays else [T] * N
        if min(lengths) < 1 or max(lengths) > T:
            raise self.wrong("lengths", f"expected steps from 1 to the {T} of x, got {min(lengths)} to {max(lengths)}")
        return lambda a: [row[:n] for row, n in zip(a, lengths, strict=True)]

    def whole(self, name: str, size: int) -> list[int]:
        a = self.arrays[name]
        found = npz.whole(a, size)
        if found is None:
            raise self.wrong(name, f"expected {size} whole numbers, one a sequence, got {a.dtype} {list(a.shape)}")
        return [int(n) for n in found]

    def names(self, name: str, size: int, of: str) -> tuple[str, ...] | None:
        if name not in self.arrays:
            return None
        found = npz.texts(self.arrays[name])
        if len(found) != size:
            raise self.wrong(name, f"expected {size} names, one for each {of}, got {list(self.arrays[name].shape)}")
        return found

    def different(self, name: str, size: int, of: str) -> tuple[str, ...] | None:
        found = self.names(name, size, of)
        if found is not None and (len(set(found)) != size or not all(found)):
            raise self.wrong(name, f"expected different names for each {of}, got {', '.join(found)}")
        return found

    def finite(self, name: str, pieces: Sequence[NDArray[Any]]) -> None:
        for i, piece in enumerate(pieces):
            if not np.isfinite(piece).all():
                place = tuple(map(int, np.argwhere(~np.isfinite(piece))[0]))
                at = f"sequence {i}" + (f", place {list(place)}" if place else "")
                raise self.wrong(
                    name, f"expected finite float32 numbers, got {piece[place]} in {at}: fill gaps, or leave such sequences out"
                )

    def read(self, answer: str) -> SeriesSet:
        self.finite("x", self.xs)
        F = self.x.shape[-1]
        features = self.different("features", F, "number of a step") or tuple(f"feature {i}" for i in range(F))
        units = self.names("units", F, "number of a step")
        y, found = self._answers(answer)
        values: tuple[str, ...] = ()
        value_units: tuple[str | None, ...] = ()
        classes = None
        if y[0].dtype.kind == "f":
            D = y[0].shape[-1]
            values = self.different("outputs", D, "number of y") or (("value",) if D == 1 else tuple(f"value {i}" for i in range(D)))
            value_units = _stated(self.names("output_units", D, "number of y"), D)
        else:
            classes, y = self._classes(y)
        given = {k: self.whole(k, self.N) if k in self.arrays else None for k in ("subject", "view", "test")}
        named = self.names("names", self.N, "sequence")
        more = npz.of_each(self.arrays, self.N, OWN)
        series = [
            Series(
                x,
                target,
                int(target) if classes is not None and target.ndim == 0 else 0,
                given["subject"][i] if given["subject"] else i,  # without a word on it, everybody is somebody else
                named[i] if named else f"sequence {i}",
                given["view"][i] if given["view"] else None,
                bool(given["test"][i]) if given["test"] else None,
                {name: values[i] for name, values in more.items()},
            )
            for i, (x, target) in enumerate(zip(self.xs, y, strict=True))
        ]
        return SeriesSet(series, found, features, _stated(units, F), classes, values, value_units, self._hz())

    def _hz(self) -> float | None:
        if "hz" not in self.arrays:
            return None
        hz = npz.number(self.arrays["hz"])
        if hz is None or hz <= 0:
            got = self.arrays["hz"]
            raise self.wrong("hz", f"expected one number above 0, steps a second, got {got.dtype} {got.reshape(-1)[:4].tolist()}")
        return hz

    def _answers(self, answer: str) -> tuple[list[NDArray[Any]], Answer]:
        """What is to be told of each sequence, values [D] or [T, D] float32, classes as they are in the file; and whether of each step."""
        name = "y" if "y" in self.arrays else "labels"
        y = self.arrays[name]
        value = y.dtype.kind == "f" and name == "y"
        if y.dtype.kind not in ("fiub" if name == "y" else "USiub"):
            wanted = "whole or fractional numbers" if name == "y" else "texts"
            raise self.wrong(name, f"expected {wanted}, got {y.dtype}")
        axes = {"step": 1 if self.laid else 2, "end": 1}  # those before D
        begins = {"step": self.x.shape[: axes["step"]], "end": (self.N,)}
        # [N, T] may be a number a step or T values a sequence, [N] of sequences of one step either: taken for the first of these that fits
        order: tuple[Answer, ...] = ("end", "step") if self.laid else ("step", "end")
        more = (0, 1) if value else (0,)
        fits = [k for k in order if answer in ("auto", k) and y.shape[: axes[k]] == begins[k] and y.ndim - axes[k] in more and y.size]
        if not fits:
            steps = ", ".join(map(str, begins["step"]))
            rows = ", each a number or a row of D," if value else ""
            only = "" if answer == "auto" else f" (--answer {answer})"
            raise self.wrong(
                name, f"expected [{self.N}], one a sequence, or [{steps}], one a step{rows} as x has them, got {list(y.shape)}{only}"
            )
        found = fits[0]
        pieces = self.cut(y) if found == "step" else list(y)
        if not value:
            return [np.asarray(p) for p in pieces], found
        with np.errstate(over="ignore"):
            values = [np.asarray(p, np.float32) for p in pieces]
        if y.ndim == axes[found]:
            values = [v[..., None] for v in values]
        self.finite(name, values)
        return values, found

    def _classes(self, y: list[NDArray[Any]]) -> tuple[tuple[str, ...], list[NDArray[Any]]]:
        """Names of the classes, and each y as places among them: of whole numbers with names their own, of all else in sorted order."""
        name = "y" if "y" in self.arrays else "labels"
        every = np.concatenate([np.ravel(p) for p in y])
        found, place = np.unique(np.array(npz.texts(every)) if every.dtype.kind in "US" else every, return_inverse=True)
        ends = np.cumsum([p.size for p in y])[:-1]
        classes = npz.texts(found)
        if "classes" in self.arrays:
            named = self.different("classes", self.arrays["classes"].size, "class") or ()
            if name == "y" and int(found[0]) == 1 and int(found[-1]) == len(named):  # counted from 1
                found = found.astype(np.int64) - 1
            if name == "y" and (int(found[0]) < 0 or int(found[-1]) >= len(named)):
                raise self.wrong("y", f"expected classes 0..{len(named) - 1}, as there are names in classes, got {found[0]}..{found[-1]}")
            if name == "labels" and set(classes) - set(named):
                raise self.wrong("labels", f"expected names in classes, got {', '.join(sorted(set(classes) - set(named)))}")
            at = found.astype(np.int64) if name == "y" else np.array([named.index(c) for c in classes])
            classes, place = named, at[place]
        if not 2 <= len(classes) <= MOST_CLASSES:
            raise self.wrong(
                name, f"expected 2 to {MOST_CLASSES:,} classes, got {len(classes):,}: numbers to be predicted are fractional ones"
            )
        pieces = np.split(np.ravel(place).astype(np.int64), ends)
        return classes, [p.reshape(q.shape) for p, q in zip(pieces, y, strict=True)]


def _stated(names: tuple[str, ...] | None, size: int) -> tuple[str | None, ...]:
    return tuple(n or None for n in names) if names else (None,) * size
