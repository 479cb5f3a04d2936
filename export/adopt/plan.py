"""How a file is fed: where the batch, the time and the window lie in each of its tensors, and where each state lies in the packed one."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from indrnn.export.adopt.packing import PIECES

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Axes:
    """The shape of a tensor of the file at one row and one step, and which of its axes are batch, time and window; None: no such axis."""

    shape: tuple[int, ...]
    batch: int | None = None
    time: int | None = None
    window: int | None = None

    @property
    def own(self) -> tuple[int, ...]:
        """Return the sizes of the other axes."""
        return tuple(n for i, n in enumerate(self.shape) if i not in (self.batch, self.time, self.window))

    @property
    def size(self) -> int:
        """Return how many numbers of the window's one step it has: the product of `own`."""
        return math.prod(self.own)

    def at(self, rows: int, steps: int) -> tuple[int, ...]:
        """Return the shape at that many rows and steps."""
        return tuple(rows if i == self.batch else steps if i == self.time else n for i, n in enumerate(self.shape))

    def said(self) -> list[int | str]:
        """Return the shape with letters: B, T, W."""
        letters = {self.batch: "B", self.time: "T", self.window: "W"}
        return [letters.get(i, n) for i, n in enumerate(self.shape)]


@dataclass(frozen=True)
class State:
    """A state of the file. initial: [1, ...] packed numbers of its start, None where it starts from zeros."""

    name: str
    output: str
    dtype: str
    axes: Axes
    how: str
    initial: NDArray[np.float32] | None = None

    @property
    def size(self) -> int:
        """Return how many float32 numbers it is packed into."""
        return self.axes.size * PIECES[self.dtype]


@dataclass(frozen=True)
class Fed:
    """An input that gets something new at each step."""

    name: str
    dtype: str
    axes: Axes


@dataclass(frozen=True)
class Answer:
    """An output that is returned; last: it has an answer for the last step alone, whatever comes in."""

    name: str
    dtype: str
    axes: Axes


@dataclass(frozen=True)
class Plan:
    """All that was found out about a file. window, context: samples of an answer, 0 where each step has one. alone: a row at a time.
    whole: the file runs over several steps itself.
    """

    states: tuple[State, ...]
    fed: tuple[Fed, ...]
    answers: tuple[Answer, ...]
    constants: dict[str, Array] = field(default_factory=dict)
    window: int = 0
    context: int = 0
    whole: bool = False
    alone: bool = False
    notes: tuple[str, ...] = ()

    @property
    def features(self) -> int:
        """Return F, the numbers of a step."""
        return sum(f.axes.size for f in self.fed)

    @property
    def numbers(self) -> int:
        """Return how many numbers an answer has."""
        return sum(a.axes.size for a in self.answers)

    @property
    def logit_size(self) -> int:
        """Return the length of a row of logits: with a window one more, which says whether a window ends there."""
        return self.numbers + (self.window > 0)

    @property
    def started(self) -> bool:
        """Return whether a state starts from something else than zeros."""
        return any(s.initial is not None for s in self.states)

    @property
    def carried(self) -> int:
        """Return how many numbers the file's own states are packed into."""
        return sum(s.size for s in self.states)

    @property
    def buffer(self) -> int:
        """Return how many numbers of earlier samples are kept: the context, and all but one of a window."""
        return (self.context + self.window - 1) * self.features if self.window else 0

    @property
    def state_size(self) -> int:
        """Return the length of a row of state: states, samples and how many of them are new, started, the last answer."""
        return self.carried + (self.buffer + 1 if self.window else 0) + self.started + self.logit_size

    def table(self) -> str:
        """Return what was found, for people."""
        rows = [("", "name", "type", "shape", "batch axis", "found by")]
        for s in self.states:
            start = "" if s.initial is None else ", starts from its own values"
            rows.append(("state", f"{s.name} -> {s.output}", s.dtype, _shape(s.axes), _axis(s.axes), s.how + start))
        rows += [("input", f.name, f.dtype, _shape(f.axes), _axis(f.axes), _how(f, self)) for f in self.fed]
        rows += [
            ("constant", name, str(v.dtype), str(list(v.shape)), "", str(v.reshape(-1)[:4].tolist())) for name, v in self.constants.items()
        ]
        rows += [("output", a.name, a.dtype, _shape(a.axes), _axis(a.axes), "") for a in self.answers]
        widths = [max(len(row[i]) for row in rows) for i in range(6)]
        return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows)


def _shape(axes: Axes) -> str:
    return f"[{', '.join(map(str, axes.said()))}]"


def _axis(axes: Axes) -> str:
    return "none" if axes.batch is None else str(axes.batch)


def _how(fed: Fed, plan: Plan) -> str:
    if plan.window:
        return f"window of {plan.window}" + (f" after {plan.context} of context" if plan.context else "")
    return "running it, whole" if plan.whole else "running it, a step at a time"
