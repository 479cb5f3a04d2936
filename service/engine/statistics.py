"""What an engine thread has done since the model was loaded, in counts and nanoseconds. The engine thread writes, and the
commit thread, what both write under a lock; any may read.

These are plain numbers, since they are written on the hot path; service/http/metrics.py words them when somebody asks. Durations are only
noted there, and counted in their buckets when somebody asks, or when many are noted.
"""

import threading
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Literal

from indrnn.service.engine.requests import ClientProtocol

BOUNDS_NS = tuple(
    int(seconds * 1e9) for seconds in (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
)
"""upper bounds of the histograms' buckets"""


Happened = Literal["step", "opened", "imported", "forked", "reset", "rewound", "deleted", "expired"]
"""what was done to a session, and stored"""


@dataclass(slots=True)
class Runs:
    """Runs of one batch size, and the time they took: preparing rows, the model itself, taking up its results."""

    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


@dataclass(slots=True)
class Duration:
    """A count of how often something happened, and the time that it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count one more event, which took `ns` nanoseconds."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class Spread(Duration):
    """Durations with how often they fell between which bounds: `buckets[i]` counts those up to BOUNDS_NS[i], the last the rest."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_NS) + 1))

    def add(self, ns: int) -> None:
        """Count one more event, which took `ns` nanoseconds, in its bucket too. The call takes 0.3 µs."""
        self.count += 1
        self.ns += ns
        self.buckets[bisect_left(BOUNDS_NS, ns)] += 1


@dataclass(slots=True)
class Statistics:
    """One model version. success: from a step's arrival to its result, before the commit; queue: from arrival to the first run.

    A step that is answered from the stored result, or refused before it runs, is in neither.
    """

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Spread = field(default_factory=Spread)
    engine: Spread = field(default_factory=Spread)
    """each run of the model"""
    store: Spread = field(default_factory=Spread)
    """each commit that succeeded"""
    store_failures: int = 0
    runs: dict[int, Runs] = field(default_factory=dict)
    last_inference: float = 0.0
    """Unix seconds"""
    happened: Counter[tuple[Happened, ClientProtocol]] = field(default_factory=Counter)
    """what has been stored"""
    repeats: Counter[ClientProtocol] = field(default_factory=Counter)
    """steps that were answered from the stored result, and generates that were followed"""
    refused: Counter[tuple[str, ClientProtocol]] = field(default_factory=Counter)
    """by the error's code; where nothing had been run"""
    failed: Counter[str] = field(default_factory=Counter)
    """steps that the engine began and could not end, by the error's code"""
    answered: Counter[ClientProtocol] = field(default_factory=Counter)
    """contents without a session"""
    characters: int = 0
    """generated"""
    turned_away: Counter[tuple[str, ClientProtocol]] = field(default_factory=Counter)
    """by the error's code: what found no place in the queue; the askers' thread writes this"""
    noted: deque[tuple[Duration, int]] = field(default_factory=deque)
    """durations that `fold` has still to add: to which they belong, and nanoseconds"""
    noted_runs: deque[tuple[int, int, int, int, float]] = field(default_factory=deque)
    """runs that `fold` has still to count, as `ran` has them"""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """held by who folds, or writes what the engine thread and the commit thread both count"""

    def fold(self) -> None:
        """Count what has been noted. Any thread may call."""
        with self.lock:
            while self.noted:
                duration, ns = self.noted.popleft()
                duration.add(ns)
            while self.noted_runs:
                self.ran(*self.noted_runs.popleft())

    def ran(self, rows: int, input_ns: int, infer_ns: int, output_ns: int, now: float) -> None:
        """Count one run of the model over so many rows."""
        runs = self.runs.get(rows)
        if runs is None:
            runs = Runs()
            self.runs = {**self.runs, rows: runs}  # whoever reads goes through a dictionary that does not change
        runs.count += 1
        runs.input_ns += input_ns
        runs.infer_ns += infer_ns
        runs.output_ns += output_ns
        self.engine.add(infer_ns)
        self.last_inference = now

    @property
    def executions(self) -> int:
        """Return the number of runs of the model."""
        return sum(r.count for r in self.runs.values())

    @property
    def rows(self) -> int:
        """Rows of all runs: divided by the executions, how well steps of different sessions share a run."""
        return sum(size * r.count for size, r in self.runs.items())

    @property
    def batch_sizes(self) -> Counter[int]:
        """Return how many runs there were of each number of rows."""
        return Counter({size: r.count for size, r in self.runs.items()})


@dataclass(slots=True)
class Totals:
    """The counts that belong to no model. The event loop's thread writes it."""

    swept: int = 0
    """expired sessions that were removed without having been asked for"""
    store_failures: int = 0
    """of sweeps and counts"""
    loads: int = 0
    """bundles loaded"""
    load_failures: int = 0
    """bundles that could not be loaded"""
    resumed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """sessions that a stream went on with, by model and version"""
