"""What an engine thread has done since the model was loaded, in counts and nanoseconds. One thread writes, any may read."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Runs:
    """Runs of one batch size, and the time they took: preparing rows, the model itself, taking up its results."""

    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


@dataclass(slots=True)
class Duration:
    """How often something happened, and how long it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Once more."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class Statistics:
    """One model version. success: from a step's arrival to its result, before the commit; queue: from arrival to the first run.

    A step that is answered from the stored result, or refused before it runs, is in none of these.
    """

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    runs: dict[int, Runs] = field(default_factory=dict)
    last_inference: float = 0.0
    """Unix seconds"""

    def ran(self, rows: int, input_ns: int, infer_ns: int, output_ns: int, now: float) -> None:
        """One run of the model over so many rows."""
        runs = self.runs.get(rows)
        if runs is None:
            runs = Runs()
            self.runs = {**self.runs, rows: runs}  # whoever reads goes through a dictionary that does not change
        runs.count += 1
        runs.input_ns += input_ns
        runs.infer_ns += infer_ns
        runs.output_ns += output_ns
        self.last_inference = now

    @property
    def executions(self) -> int:
        """Runs of the model."""
        return sum(r.count for r in self.runs.values())

    @property
    def rows(self) -> int:
        """Rows of all runs: divided by the executions, how well steps of different sessions share a run."""
        return sum(size * r.count for size, r in self.runs.items())

    @property
    def batch_sizes(self) -> Counter[int]:
        """How many runs there were of each number of rows."""
        return Counter({size: r.count for size, r in self.runs.items()})
