"""What the event loop hands to an engine thread, and who still waits for an answer: the only part of an engine that two threads touch."""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence, Set
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indrnn.service.engine.jobs import Job, Reply
from indrnn.service.engine.statistics import Statistics
from indrnn.service.engine.work import Sink
from indrnn.service.errors import Overloaded, ServiceError, Stopping
from indrnn.service.session.machine import Refused

log = logging.getLogger(__name__)


class Handed(NamedTuple):
    """The news since the last look: jobs, sinks that were taken back with their sessions' ids, and whether the end is near."""

    jobs: list[Job]
    detached: list[tuple[str, Sink]]
    stopping: bool


class Inbox:
    """Jobs that nobody has looked at, and every sink without a last answer, of which there are at most so many.

    max_queue: sinks; step_timeout: seconds that a job may wait for its turn.
    """

    def __init__(self, max_queue: int, step_timeout: float, statistics: Statistics) -> None:
        self.stopping = False
        """whether it takes nothing new"""
        self.why: ServiceError = Stopping("the server is shutting down")
        """what is said to those who come then"""
        self.until = float("inf")
        """when whoever still waits is refused, too; of time.monotonic()"""
        self._max_queue = max_queue
        self._step_timeout = step_timeout
        self._statistics = statistics
        self._gate = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._detached: deque[tuple[str, Sink]] = deque()
        self._open: set[Sink] = set()

    @property
    def waiting(self) -> int:
        """Return the number of sinks that have not had their last answer."""
        return len(self._open)

    @property
    def empty(self) -> bool:
        """Return whether no job lies here that nobody has looked at."""
        return not self._jobs

    # --- the event loop's side --------------------------------------------------------------------------------------------------------

    def submit(self, *jobs: Job) -> None:
        """Queue jobs, all or none; each sink will be called at least once. Raises Overloaded or Stopping.

        Cancels, deletes and looks that wait for nothing are taken also where the queue is full: two of them make room.
        """
        with self._gate:
            self._admit(jobs, time.monotonic())
            self._gate.notify()

    def submit_each(self, jobs: Sequence[Job]) -> None:
        """Queue those of some jobs that find a place, and tell the others' sinks why not. On the event loop's thread."""
        refused: list[tuple[Job, ServiceError]] = []
        now = time.monotonic()
        with self._gate:
            for job in jobs:
                try:
                    self._admit((job,), now)
                except ServiceError as error:
                    refused.append((job, error))
            self._gate.notify()
        for job, why in refused:
            tell(job.sink, Refused(why), None)

    def _admit(self, jobs: Sequence[Job], now: float) -> None:
        """Admit all or none, within the gate. Raises Overloaded or Stopping."""
        if self.stopping:
            raise self.why
        sinks = [sink for job in jobs for sink in job.sinks]
        if len(self._open) + len(sinks) > self._max_queue and any(j.is_work for j in jobs):
            self._statistics.turned_away[Overloaded.code, jobs[0].protocol] += len(jobs)
            raise Overloaded(f"{len(self._open)} of {self._max_queue} places are taken", retry_after=1)
        deadline = now + self._step_timeout
        for job in jobs:
            job.since = now
            job.deadline = deadline if job.patience is None else min(deadline, now + job.patience)
        self._open.update(sinks)
        self._jobs.extend(jobs)

    def detach(self, session_id: str, sink: Sink) -> None:
        """Take back a sink whose connection was lost; a generate that nobody follows any more is cut.

        Of content without a session and of what is drawn after it, the id is empty.
        """
        with self._gate:
            self._detached.append((session_id, sink))
            self._gate.notify()

    def drain(self, why: ServiceError | None = None, seconds: float = float("inf")) -> None:
        """From now on finishes what is in flight, cuts what is generating, and refuses the rest with `why`; then the thread ends.

        What is still in flight after so many seconds is refused too: its session stays where the store has it.
        """
        with self._gate:
            self.stopping = True
            self.why = why or self.why
            self.until = min(self.until, time.monotonic() + seconds)
            self._gate.notify()

    # --- the engine thread's side -----------------------------------------------------------------------------------------------------

    def take(self, busy: bool) -> Handed:
        """Return all that has come; wait for something unless the engine has something else to do."""
        with self._gate:
            while not (busy or self._jobs or self._detached or self.stopping):
                self._gate.wait()
            handed = Handed(list(self._jobs), list(self._detached), self.stopping)
            self._jobs.clear()
            self._detached.clear()
            return handed

    def leave(self, sink: Sink) -> None:
        """Forget a sink: whoever was behind it hears nothing more."""
        with self._gate:
            self._open.discard(sink)

    def abandoned(self, sinks: Sequence[Sink]) -> bool:
        """Return whether everybody who waited is gone."""
        with self._gate:
            return self._open.isdisjoint(sinks)

    def unanswered(self, answered: Set[Sink]) -> set[Sink]:
        """Whoever waits, but for those who are about to have their last answer."""
        with self._gate:
            return self._open - answered

    def taken(self) -> set[Sink]:
        """Whoever waits for a job that was taken from here."""
        with self._gate:
            return self._open - {sink for job in self._jobs for sink in job.sinks}

    def due(self, replies: Sequence[Reply]) -> list[Reply]:
        """Return the replies that still have a hearer, in their order. Who has had a last answer gets no other."""
        due: list[Reply] = []
        with self._gate:
            for r in replies:
                if r.sink in self._open:
                    due.append(r)
                    if r.final:
                        self._open.remove(r.sink)
        return due


def tell(sink: Sink, value: object, states: NDArray[np.float16] | None) -> None:
    """Tell one answer. A sink that fails is logged: one client's must not keep the others' replies."""
    try:
        sink(value, states)
    except Exception:  # whatever it is
        log.exception("a reply could not be delivered")
