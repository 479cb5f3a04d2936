"""What a benchmark found: a figure for each round, the bar it had to clear, and what stands beside it."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One line of the table. more: more is better. beside: the peer or the floor, for people; details: for programs.

    An error among the answers (`errors` in details) misses any bar.
    """

    name: str
    what: str
    unit: str
    rounds: Sequence[float]
    bar: float | None = None
    more: bool = True
    beside: str = ""
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def best(self) -> float:
        return (max if self.more else min)(self.rounds)

    @property
    def median(self) -> float:
        return median(self.rounds)

    @property
    def met(self) -> bool | None:
        """Whether the median clears the bar; None where there is none."""
        if self.bar is None:
            return None
        cleared = self.median >= self.bar if self.more else self.median <= self.bar
        return cleared and not self.details.get("errors")

    def json(self) -> dict[str, object]:
        shown = {"best": self.best, "median": self.median, "rounds": list(self.rounds), "unit": self.unit, "bar": self.bar}
        return {**shown, "met": self.met, **self.details}


VERDICTS = {None: "", True: "met", False: "missed"}


def table(figures: Sequence[Figure]) -> str:
    """For people: a line for each, and what stands beside it below."""
    lines = [f"{'':66} {'best':>9} {'median':>9} {'unit':9} {'bar':>9}"]
    for f in figures:
        bar = "" if f.bar is None else f"{'≥' if f.more else '≤'} {_short(f.bar)}"
        lines.append(f"{f.what:66} {_short(f.best):>9} {_short(f.median):>9} {f.unit:9} {bar:>9} {VERDICTS[f.met]}")
        if f.beside:
            lines.append(f"    {f.beside}")
    return "\n".join(lines)


def say(figures: Sequence[Figure]) -> None:
    """Print the table, and as the last line the figures as JSON."""
    print(table(figures))
    print(json.dumps({"cores": os.cpu_count(), "python": sys.version.split()[0], **{f.name: f.json() for f in figures}}))


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
