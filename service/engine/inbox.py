"""What is handed to an engine thread, and who still waits for an answer: the only part of an engine that two threads touch."""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from indrnn.service.engine.requests import (
    Asked,
    CancelRequest,
    CompleteRequest,
    DeleteRequest,
    Delivery,
    InferRequest,
    LookRequest,
    Request,
    StepRequest,
    Ticket,
)
from indrnn.service.engine.statistics import Statistics
from indrnn.service.errors import Overloaded, ServiceError, Stopping
from indrnn.service.session.machine import Event, Refused

Answer = Callable[[Sequence[Delivery]], None]
"""Hands deliveries to who asked; called on any thread."""


@dataclass(slots=True, eq=False)
class Queued:
    """A request on the engine's side. `event` is what the session's state machine gets, once the request has come to its session.

    since, deadline: of time.monotonic(); heard: characters of its generate that the asker has been told of, once it has been told any.
    """

    ticket: Ticket
    request: Request
    since: float
    deadline: float
    event: Event | None = None
    heard: int | None = None

    def got_on(self, heard: int | None, patience: float) -> None:
        """Note that its generate has got on. That lasts longer than a step may wait: what it must not do is stand still that long."""
        self.heard, self.since = heard, time.monotonic()
        self.deadline = self.since + patience


PATIENT = (StepRequest, InferRequest)
"""Requests that may say how long they wait. A tuple, since a union takes three times as long to ask."""


class Handed(NamedTuple):
    """The news since the last look: requests, tickets that were taken back, and whether the end is near."""

    queued: list[Queued]
    withdrawn: list[Ticket]
    stopping: bool


class Inbox:
    """Requests that nobody has looked at, and every ticket without a last answer, of which there are at most so many.

    max_queue: tickets; step_timeout: seconds that a request may wait for its turn.
    """

    def __init__(self, max_queue: int, step_timeout: float, statistics: Statistics, answer: Answer) -> None:
        self.stopping = False
        """whether it takes nothing new"""
        self.why: ServiceError = Stopping("the server is shutting down")
        """what is said to those who come then"""
        self.until = float("inf")
        """when whoever still waits is refused, too; of time.monotonic()"""
        self._max_queue = max_queue
        self._step_timeout = step_timeout
        self._statistics = statistics
        self._answer = answer
        self._gate = threading.Condition()
        self._queued: deque[Queued] = deque()
        self._withdrawn: deque[Ticket] = deque()
        self._open: set[Ticket] = set()

    @property
    def waiting(self) -> int:
        """Return the number of tickets that have not had their last answer."""
        return len(self._open)

    @property
    def empty(self) -> bool:
        """Return whether no request lies here that nobody has looked at."""
        return not self._queued

    # --- the asker's side -------------------------------------------------------------------------------------------------------------

    def submit(self, asked: Sequence[Asked], whole: bool = False) -> None:
        """Queue requests, as the engine port says."""
        refused: list[Delivery] = []
        now = time.monotonic()
        with self._gate:
            for group in [asked] if whole or self._takes(asked) else [(one,) for one in asked]:
                try:
                    self._admit(group, now)
                except ServiceError as error:
                    refused += [Delivery(ticket, Refused(error)) for one in group for ticket in tickets_of(*one)]
            self._gate.notify()
        if refused:
            self._answer(refused)

    def _takes(self, asked: Sequence[Asked]) -> bool:
        """Return whether there is room for all, however many tickets each has."""
        if self.stopping or any(type(one.request) is CompleteRequest for one in asked):
            return False
        return len(self._open) + len(asked) <= self._max_queue

    def _admit(self, asked: Sequence[Asked], now: float) -> None:
        """Admit all or none, within the gate. Raises Overloaded or Stopping."""
        if self.stopping:
            raise self.why
        tickets = [ticket for one in asked for ticket in tickets_of(*one)]
        if len(self._open) + len(tickets) > self._max_queue and any(_is_work(one.request) for one in asked):
            self._statistics.turned_away[Overloaded.code, asked[0].request.protocol] += len(asked)
            raise Overloaded(f"{len(self._open)} of {self._max_queue} places are taken", retry_after=1)
        deadline = now + self._step_timeout
        for ticket, request in asked:
            patience = request.patience if isinstance(request, PATIENT) else None
            self._queued.append(Queued(ticket, request, now, deadline if patience is None else min(deadline, now + patience)))
        self._open.update(tickets)

    def withdraw(self, tickets: Sequence[Ticket]) -> None:
        """Take tickets back, as the engine port says."""
        with self._gate:
            self._withdrawn.extend(tickets)
            self._gate.notify()

    def drain(self, why: ServiceError | None = None, seconds: float = float("inf")) -> None:
        """From now on finish what is in flight, cut what is generating, and refuse the rest with `why`; then the thread ends.

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
            while not (busy or self._queued or self._withdrawn or self.stopping):
                self._gate.wait()
            handed = Handed(list(self._queued), list(self._withdrawn), self.stopping)
            self._queued.clear()
            self._withdrawn.clear()
            return handed

    def leave(self, tickets: Sequence[Ticket]) -> None:
        """Forget tickets: whoever was behind them hears nothing more."""
        with self._gate:
            self._open.difference_update(tickets)

    def abandoned(self, tickets: Sequence[Ticket]) -> bool:
        """Return whether everybody who waited is gone."""
        with self._gate:
            return self._open.isdisjoint(tickets)

    def unanswered(self, answered: Collection[Ticket]) -> set[Ticket]:
        """Return the tickets that wait, but for those that are about to have their last answer."""
        with self._gate:
            return self._open.difference(answered)

    def taken(self) -> set[Ticket]:
        """Return the tickets that wait for a request which was taken from here."""
        with self._gate:
            return self._open - {ticket for q in self._queued for ticket in tickets_of(q.ticket, q.request)}

    def due(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Return the deliveries that still have a hearer, in their order. Who has had a last answer gets no other."""
        due: list[Delivery] = []
        with self._gate:
            for d in deliveries:
                if d.ticket in self._open:
                    due.append(d)
                    if d.final:
                        self._open.remove(d.ticket)
        return due


def tickets_of(ticket: Ticket, request: Request) -> tuple[Ticket, ...]:
    """Return every ticket that waits for an answer to a request."""
    return (ticket, *(text.ticket for text in request.texts)) if isinstance(request, CompleteRequest) else (ticket,)


def _is_work(request: Request) -> bool:
    """Return whether it needs the model, makes or moves a session, or waits for what does."""
    if isinstance(request, LookRequest):
        return request.in_order
    return not isinstance(request, CancelRequest | DeleteRequest)
