"""The commit thread: plain steps are stored on a thread of their own, where that is wanted.

What a batch came to is stored while the next batch, of other sessions, runs. A session goes through

    FREE ── its step has run ──► HANDED ── the thread takes all that is handed ──► COMMITTING
      ▲                                                                               │
      ├── stored: the reply goes ◄────────────────────────────────────────────────────┤
      ├── the commit failed, as far as is known: Refused goes ◄───────────────────────┤
      └── read again by the general way, which the step goes now: ◄───────────────────┘ another process has moved the session

FREE       in nobody's hands, or in the general way's: what is known of it is what the store has
HANDED, COMMITTING   busy: whatever is asked of it waits here, in the order in which it came, until its batch is done and its reply has gone

No request sees a state that is not stored, and a session is never both busy and in the general way's hands. So a commit that fails takes
nothing back but its own batches: no other step was run from what they came to. At most `most` rows are handed over; then the engine thread
waits, and the thread stores them together, in one commit. When the service ends, nobody waits for a commit beyond the moment that `give_up`
names: what finds no room by then is refused, and of what is handed over is said that nobody knows whether it is stored.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import Generic

from indrnn.service.engine.requests import Ticket
from indrnn.service.engine.short import Batch, PlainCommit, Q
from indrnn.service.errors import EngineFailed, ServiceError, unanswered

log = logging.getLogger(__name__)


class CommitThread(Generic[Q]):
    """Stores batches on a thread of its own. `wake` has the engine thread take another turn; most: rows that may wait here."""

    def __init__(self, commit: PlainCommit, most: int, wake: Callable[[], None], name: str) -> None:
        self.held: list[Q] = []
        """what was asked of busy sessions; the engine thread's"""
        self._busy: set[str] = set()
        self._commit = commit
        self._most = most
        self._wake = wake
        self._gate = threading.Condition()
        self._handed: list[Batch[Q]] = []
        self._rows = 0
        self._committing = False
        self._taken: Sequence[Batch[Q]] = ()
        """what is being committed"""
        self.begun = float("inf")
        """when the commit that runs began, of time.monotonic()"""
        self._done: list[str] = []
        self._again: list[Q] = []
        self._wanted = False
        self._ended = False
        self._until, self._why = float("inf"), ServiceError("")
        threading.Thread(target=self._main, name=name, daemon=True).start()

    # --- the engine thread's side -----------------------------------------------------------------------------------------------------

    def store(self, batch: Batch[Q]) -> Sequence[Q]:
        """Hand a batch over, as soon as there is room for it; nothing is known of its steps yet. Where none comes in time, refuse them."""
        with self._gate:
            while self._rows >= self._most and self._patient():
                pass
            if taken := self._rows < self._most:
                self._busy.update([one.before.id for one in batch.steps])
                self._handed.append(batch)
                self._rows += len(batch.steps)
                self._gate.notify_all()
        if not taken:
            self._commit.refuse(batch, self._why)
        return ()

    def release(self) -> tuple[Sequence[Q], Sequence[Q]]:
        """Free the sessions whose batch is done, and return the steps that go the general way now, and all that has waited.

        What still has to wait is to be held again.
        """
        with self._gate:
            done, self._done, again, self._again = self._done, [], self._again, []
        self._busy.difference_update(done)
        held, self.held = self.held, []
        return again, held

    def hold(self, queued: Sequence[Q]) -> Sequence[Q]:
        """Keep what is asked of busy sessions, and return the rest."""
        if not self._busy or not queued:
            return queued
        busy = self._busy
        free = [q for q in queued if getattr(q.request, "session_id", None) not in busy]
        if len(free) < len(queued):
            self.held += [q for q in queued if getattr(q.request, "session_id", None) in busy]
            with self._gate:
                self._wanted = True
                if self._done:  # since `release`
                    self._wake()
        return free

    def withdraw(self, tickets: Collection[Ticket]) -> None:
        """Let go of what was asked by those who are gone."""
        self.held = [q for q in self.held if q.ticket not in tickets]

    @property
    def quiet(self) -> bool:
        """Return whether there is nothing here that has to be stored, or offered to a session."""
        with self._gate:
            return not (self._handed or self._committing or self._again or self.held)

    def unsettled(self) -> set[Ticket]:
        """Return the tickets of the steps that will be stored if the store takes them: it may have done so already."""
        with self._gate:
            return {reply.ticket for batch in (*self._taken, *self._handed) for reply in batch.replies}

    def settle(self) -> None:
        """Wait until all that is handed over is stored, but not beyond the moment of `give_up`."""
        with self._gate:
            while (self._handed or self._committing) and self._patient():
                pass

    def give_up(self, until: float, why: ServiceError) -> None:
        """Let nobody wait for a commit beyond that moment of time.monotonic(); what finds no room by then is refused so.

        Any thread may call.
        """
        with self._gate:
            self._until, self._why = until, why
            self._gate.notify_all()

    def _patient(self) -> bool:
        """Wait for news, within the gate; return False once it is too late to wait."""
        left = self._until - time.monotonic()
        if left > 0:
            self._gate.wait(min(left, threading.TIMEOUT_MAX))
        return left > 0

    def clear(self) -> None:
        """Forget whatever waits here for its turn."""
        self.release()

    def end(self) -> None:
        """Let the thread end when it has stored what it has."""
        with self._gate:
            self._ended = True
            self._gate.notify_all()

    # --- its own ------------------------------------------------------------------------------------------------------------------------

    def _main(self) -> None:
        while (batch := self._take()) is not None:
            self._store(batch)

    def _take(self) -> Batch[Q] | None:
        """Return what is handed over, all of it as one batch; wait for some; None at the end."""
        with self._gate:
            while not self._handed and not self._ended:
                self._gate.wait()
            if not self._handed:
                return None
            handed, self._handed, self._rows, self._committing = self._handed, [], 0, True
            self._taken = handed
            self.begun = time.monotonic()
            self._gate.notify_all()
        if len(handed) == 1:
            return handed[0]
        steps, changes, replies = zip(*handed, strict=True)
        return Batch([*chain(*steps)], [*chain(*changes)], [*chain(*replies)])

    def _store(self, batch: Batch[Q]) -> None:
        """Store a batch, answer it, and let go of its sessions."""
        again: list[Q] = []
        try:
            again = self._commit.store(batch)
        except Exception as error:  # a bug must not leave anybody waiting
            log.exception("the commit thread failed")
            self._commit.refuse(batch, unanswered(error, EngineFailed))
        with self._gate:
            self._committing, self._taken, self.begun = False, (), float("inf")
            self._done += [one.before.id for one in batch.steps]
            self._again += again
            wanted, self._wanted = self._wanted or bool(again), False
            self._gate.notify_all()
        if wanted:
            self._wake()
