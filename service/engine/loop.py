"""One engine thread per model: take what came, run it as one batch, commit once, reply.

Everything that changes a session of this model happens on this thread, so the state machine needs no locks. A reply leaves only after
the commit that holds its state. Whatever fails, every waiter gets an answer and the session stays where the store has it.

Other processes may share the store. A session is read from it when a request comes for it, and kept only while something of it is in
flight or waits here. Where a commit finds that somebody else has moved the session, nothing of it is answered: the session is read again,
and the requests are offered again to where it now stands, until their deadline.

    Inbox         what was handed over and nobody has looked at, and who still waits for an answer
    LiveSession   one session in the engine's hands: where it stands, its mailbox, what is in flight
    Ledger        what has changed and is not stored, and the replies that wait for it
    Runner        what is ready to run, which of it runs now, and what comes of a run
    Turns         a request's turn: its session's state machine is asked, and what that says is taken over
    Desk          requests come to their sessions, which are read first; what is late, gone or lost is seen to
    EngineLoop    the thread, and the order of all that; what others see of it is the engine port
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

import numpy as np

from indrnn.service.engine.commit import CommitThread
from indrnn.service.engine.port import EngineSnapshot
from indrnn.service.engine.requests import (
    Asked,
    CancelRequest,
    ClientProtocol,
    CompleteRequest,
    Created,
    CreateRequest,
    DeleteRequest,
    Delivery,
    Drawn,
    ForkRequest,
    Frames,
    GenerateRequest,
    ImportRequest,
    InferRequest,
    Looked,
    LookRequest,
    MarkRequest,
    Prompted,
    Reply,
    Request,
    ResetRequest,
    RewindRequest,
    SessionRequest,
    StatelessRequest,
    States,
    StepRequest,
    Text,
    Ticket,
    halves,
)
from indrnn.service.engine.runtime import (
    Drawing,
    Engine,
    Feeding,
    Generating,
    ModelFacts,
    Row,
    RowResult,
    groups,
    next_turn,
    prepare,
)
from indrnn.service.engine.short import PlainCommit, ShortWay
from indrnn.service.engine.statistics import Happened, Statistics
from indrnn.service.errors import (
    BadInput,
    Cancelled,
    EngineFailed,
    Gone,
    Late,
    ModelGone,
    Overflow,
    Overloaded,
    ServiceError,
    Stopping,
    StoreFailed,
    Unreadable,
    lacks_memory,
    not_known,
    unanswered,
    unexpected,
)
from indrnn.service.logs import about
from indrnn.service.session.ids import new_id, not_there
from indrnn.service.session.machine import (
    Cancel,
    Char,
    Consumed,
    Cut,
    Delete,
    Deleted,
    Effect,
    Emitted,
    Event,
    Feed,
    Floats,
    Follow,
    Fork,
    Forked,
    Generate,
    Generated,
    History,
    Import,
    Mark,
    Placed,
    Refused,
    Reset,
    Result,
    Rewind,
    Rewound,
    Session,
    Wait,
    handle,
)
from indrnn.service.session.machine import Reply as MachineReply
from indrnn.service.session.shard import UNDIVIDED, Shard
from indrnn.service.store.protocol import Change, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Bounds: rows of a run, tickets that may wait, seconds a request may wait, seconds a session lives after a step, frames of a step.

    short: whether plain steps go the short way (engine/short.py); commit_thread: whether they are stored on a thread of their own
    (engine/commit.py). shard: to which the ids of new sessions fall, forks too.
    """

    max_batch: int
    max_queue: int
    step_timeout: float
    session_ttl: float
    max_frames: int = 5_000
    short: bool = False
    commit_thread: bool = False
    shard: Shard = UNDIVIDED


# --- what is handed to the engine thread, and who still waits for an answer: the only part that two threads touch -------------------------

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
        self._woken = False
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

    def wake(self) -> None:
        """Have the engine thread look, though nothing has come."""
        with self._gate:
            self._woken = True
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
            while not (busy or self._queued or self._withdrawn or self.stopping or self._woken):
                self._gate.wait()
            self._woken = False
            handed = Handed(list(self._queued), list(self._withdrawn), self.stopping)
            self._queued.clear()
            self._withdrawn.clear()
            return handed

    def leave(self, tickets: Sequence[Ticket]) -> None:
        """Forget tickets: whoever was behind them hears nothing more."""
        with self._gate:
            self._open.difference_update(tickets)

    def tickets_of(self, epoch: int) -> list[Ticket]:
        """Return the tickets of one asker that wait."""
        with self._gate:
            return [ticket for ticket in self._open if ticket.epoch == epoch]

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


# --- one session ----------------------------------------------------------------------------------------------------------------------


class StoreRelation(Enum):
    """How a session in the engine's hands differs from what the store has."""

    NEW = "new"
    STORED = "stored"
    CHANGED = "changed"
    REMOVING = "removing"
    GONE = "gone"
    STALE = "stale"


@dataclass(slots=True, eq=False)
class LiveSession:
    """A session in the engine's hands: `base` as the store has it (None: not yet), `session` as it will be after the next commit.

        read ───────────────────────────────► STORED ◄──────────────┐ committed
        a sequence's first step ──► NEW         │ a step's result,  │
                                     │          │ a character, a    │
                                     │          ▼ move              │
        a session is made ───────────┴──────► CHANGED ──────────────┤
                                                │ deleted, expired  │ the commit failed, or somebody else has moved it
                                                ▼                   ▼
        read, and not there ──► GONE ◄────── REMOVING ───────────► STALE ──► read again: STORED or GONE
                                 │ committed
                                 └─► NEW, where a sequence begins under its id

    NEW: a sequence that is to begin, of which the store knows nothing; without anything in flight it is as good as not there.
    CHANGED, REMOVING: the next commit writes or removes it; from STORED a session may also go to REMOVING at once.
    STALE: it is read again before anything else is offered to it.

    What is in flight (`work`) is the second half: nothing, content, or a generate. Content is in flight while STORED or NEW, since what
    it changes is known at its end; a generate also while CHANGED, as each character changes the session. `tickets` hear of it.
    `mailbox` holds requests whose turn has not come, `pending` those whose outcome hangs on the next commit. `happened` counts once that
    has succeeded; `lost` is how often in a row another process was faster.
    """

    base: Session | None
    session: Session
    standing: StoreRelation
    work: Feeding | Generating | None = None
    tickets: list[Ticket] = field(default_factory=list)
    mailbox: deque[Queued] = field(default_factory=deque)
    pending: list[Queued] = field(default_factory=list)
    happened: list[tuple[Happened, ClientProtocol]] = field(default_factory=list)
    lost: int = 0

    @property
    def unsettled(self) -> bool:
        """Return whether the next commit writes or removes it."""
        return self.standing is StoreRelation.CHANGED or self.standing is StoreRelation.REMOVING

    @property
    def idle(self) -> bool:
        """Return whether nothing of it is in flight, waits, or is to be stored: the engine may forget it."""
        return self.work is None and not self.mailbox and not self.unsettled

    @property
    def there(self) -> bool:
        """Return whether it is a session that requests may find."""
        if self.standing is StoreRelation.NEW:
            return self.session.flight is not None  # else the step that was to begin it has failed
        return self.standing is not StoreRelation.GONE and self.standing is not StoreRelation.REMOVING

    def read(self, found: Session | None) -> None:
        """Take over what the store has of it."""
        self.base, self.session = found, found or self.session
        self.standing = StoreRelation.GONE if found is None else StoreRelation.STORED

    def begin_anew(self, fresh: Session) -> None:
        """A sequence begins in place of what was removed."""
        self.base, self.session, self.standing = None, fresh, StoreRelation.NEW

    def settled(self, after: Session, patience: float) -> None:
        """The commit has succeeded; of requests whose outcome is stored only those stay whose work goes on."""
        gone = self.standing is StoreRelation.REMOVING
        self.base, self.standing = (None, StoreRelation.GONE) if gone else (after, StoreRelation.STORED)
        self.lost = 0
        if self.pending:
            self.pending = [q for q in self.pending if q.ticket in self.tickets] if self.tickets else []
        so_far = after.unfinished if self.pending else None
        for q in self.pending if so_far is not None else ():
            if so_far is not None and isinstance(q.event, Generate):
                q.event = replace(q.event, number=after.step)  # taken: offered again, it is this step or none
                q.got_on(len(so_far.text), patience)


@dataclass(slots=True, eq=False)
class StatelessWork:
    """Content without a session on its way through the model, or a text that is being drawn after it."""

    work: Feeding | Drawing
    ticket: Ticket
    texts: tuple[Text, ...] | None = None

    @property
    def tickets(self) -> tuple[Ticket, ...]:
        """Return every ticket that waits for it."""
        return (self.ticket, *(text.ticket for text in self.texts or ()))


Work = LiveSession | StatelessWork

# --- what is to be stored, and said then ----------------------------------------------------------------------------------------------


class Held(NamedTuple):
    """A reply that waits for the commit of a session, or for none."""

    delivery: Delivery
    live: LiveSession | None


class Settling(NamedTuple):
    """What a commit came to: sessions that were not stored, and why; sessions that somebody else has moved."""

    failed: Sequence[LiveSession]
    error: ServiceError | None
    lost: Sequence[LiveSession]


class Ledger:
    """What has changed and is not stored, and the replies that wait for it."""

    def __init__(self, engine: Engine, store: Store, patience: float, statistics: Statistics, inbox: Inbox, answer: Answer) -> None:
        """patience: seconds that a generate may stand still."""
        self._engine = engine
        self._patience = patience
        self._store = store
        self.statistics = statistics
        self._inbox = inbox
        self._answer = answer
        self._unsettled: list[LiveSession] = []
        self._held: list[Held] = []

    def change(self, live: LiveSession, remove: bool = False) -> None:
        """Mark that the next commit writes or removes a session."""
        before = live.standing
        if before is StoreRelation.REMOVING:
            return
        if before is not StoreRelation.CHANGED:
            self._unsettled.append(live)
        live.standing = StoreRelation.REMOVING if remove else StoreRelation.CHANGED

    def reply(
        self, ticket: Ticket, reply: Reply, live: LiveSession | None = None, states: States | None = None, final: bool = True
    ) -> None:
        """Say something once the commit of `live`, if any, has succeeded."""
        self._held.append(Held(Delivery(ticket, reply, states, final), live))

    def reply_now(self, ticket: Ticket, reply: Reply, live: LiveSession, final: bool = True) -> None:
        """Say something with the next commit, if that has to do with the session at all."""
        self.reply(ticket, reply, live if live.unsettled else None, None, final)

    def refuse(self, tickets: Iterable[Ticket], error: ServiceError, live: LiveSession | None = None) -> None:
        """Refuse what was asked, whatever is stored."""
        for ticket in tickets:
            self.reply(ticket, Refused(error), live)

    def commit(self) -> Settling:
        """Store what has changed. Replies of what could not be stored are still held."""
        unsettled, self._unsettled = self._unsettled, []
        if not unsettled:
            return Settling((), None, ())
        begun = time.perf_counter_ns()
        landed = [live.session.landed for live in unsettled]  # these very objects come back as `before`: a store knows them again at sight
        try:
            lost = self._store.commit(
                [
                    Change(live.base, None if live.standing is StoreRelation.REMOVING else after, live.lost)
                    for live, after in zip(unsettled, landed, strict=True)
                ]
            )
        except ServiceError as error:
            with self.statistics.lock:
                self.statistics.store_failures += 1
            log.error("a commit of %d sessions failed: %s", len(unsettled), error, extra=about(self._engine.manifest))
            return Settling(self._leave_stale(unsettled), error, ())
        self.statistics.noted.append((self.statistics.store, time.perf_counter_ns() - begun))
        moved = [live for live in unsettled if live.session.id in lost] if lost else []
        happened: list[tuple[Happened, ClientProtocol]] = []
        for live, after in zip(unsettled, landed, strict=True):
            if live.session.id not in lost:
                happened += live.happened
                live.happened = []
                live.settled(after, self._patience)
        # Of a session that was to be made here nobody else knows the id: its place in the store is damaged, or, never yet, its id is taken.
        made = [live for live in moved if live.base is None and not live.pending]
        with self.statistics.lock:
            self.statistics.happened.update(happened)
            self.statistics.store_failures += bool(made)
        unmade = StoreFailed("the new session could not be stored: the store's log says why") if made else None
        return Settling(self._leave_stale(made), unmade, self._leave_stale([live for live in moved if live not in made]))

    @staticmethod
    def _leave_stale(lives: Sequence[LiveSession]) -> Sequence[LiveSession]:
        for live in lives:
            live.standing, live.happened = StoreRelation.STALE, []
        return lives

    def take_back(self, lives: Sequence[LiveSession]) -> set[Ticket]:
        """Drop the replies that waited for sessions which others have moved, and return the tickets that are still to be answered."""
        moved = {id(live) for live in lives}
        self._held = [h for h in self._held if id(h.live) not in moved]
        return self._inbox.unanswered({h.delivery.ticket for h in self._held if h.delivery.final})

    def turn_into_refusals(self, lives: Sequence[LiveSession], error: ServiceError) -> None:
        """Refuse instead whatever was to be said of sessions that could not be stored."""
        failed = {id(live) for live in lives}
        self._held = [
            Held(Delivery(h.delivery.ticket, Refused(error)), h.live) if h.live is not None and id(h.live) in failed else h
            for h in self._held
        ]
        told = {h.delivery.ticket for h in self._held}
        for live in lives:
            self.refuse([ticket for ticket in live.tickets if ticket not in told], error)

    def send(self) -> None:
        """Let the replies go. Who has had a last answer gets no other."""
        held, self._held = self._held, []
        if due := self._inbox.due([h.delivery for h in held]):
            self._answer(due)

    def clear(self, error: ServiceError, others: Collection[Ticket], error_of_others: ServiceError) -> None:
        """Forget everything; whoever waits for a request that was taken is told the error, others another one."""
        self._unsettled.clear()
        refused = [(ticket, error_of_others if ticket in others else error) for ticket in self._inbox.taken()]
        self._held = [Held(Delivery(ticket, Refused(said)), None) for ticket, said in refused]
        self.send()


# --- running --------------------------------------------------------------------------------------------------------------------------


class Runner:
    """What is ready to run, and what comes of it."""

    def __init__(
        self, engine: Engine, facts: ModelFacts, settings: EngineSettings, ledger: Ledger, statistics: Statistics, inbox: Inbox
    ) -> None:
        self.ready: deque[Work] = deque()
        self.freed: list[LiveSession] = []
        """sessions with mail, of which nothing is in flight any more"""
        self._engine = engine
        self._facts = facts
        self._settings = settings
        self._ledger = ledger
        self._statistics = statistics
        self._inbox = inbox

    def withdraw(self, live: LiveSession) -> None:
        """Stop what is in flight of a session."""
        if live in self.ready:
            self.ready.remove(live)
        self.land(live)

    def cut(self, live: LiveSession, now: float) -> None:
        """Stop what is in flight of a session, which stays as it was before."""
        live.session, _, _ = handle(live.session, Cut(), now)
        self.withdraw(live)

    def land(self, live: LiveSession) -> None:
        """Mark that nothing of a session is in flight any more."""
        live.work, live.tickets = None, []
        if live.mailbox and live not in self.freed:
            self.freed.append(live)

    def groups(self, now: float) -> list[list[Work]]:
        """Return what runs in this turn, in groups; who is gone, or came too late to begin, is left out."""
        chosen: list[Work] = []
        clock = time.monotonic()
        for item in next_turn(self.ready, self._settings.max_batch):
            work = item.work
            if isinstance(item, StatelessWork) and self._inbox.abandoned(item.tickets):
                continue
            if isinstance(work, Feeding) and work.at == 0 and work.deadline < clock:
                self._fail([item], late(work, "the step waited longer than"), now)
                continue
            chosen.append(item)
        return groups(chosen)

    def run(self, group: Sequence[Work], clock: Callable[[], float]) -> None:
        """Run a group once, and take up what comes of it."""
        begun = time.perf_counter_ns()
        now = clock()
        rows: list[Row] = []
        running: list[Work] = []
        for item in group:
            if isinstance(item.work, Feeding) and item.work.finished:  # resampling left no frame of the model's rate
                if self._facts.frames and self._facts.frames.watch:
                    item.work.doubts = self._facts.frames.watch.doubts(item.work.state)
                self._finish(item, item.work, now)
                continue
            rows.append(self._row(item))
            running.append(item)
        if not rows:
            return
        self._count_waits(running)
        prepared = time.perf_counter_ns()
        try:
            results = self._engine.run(rows)
        except Exception as error:  # the runtime's exceptions have no common base of their own
            log.exception("a run of %d rows failed", len(rows))
            if len(rows) == 1:
                self._fail(running, _not_run(error), now)
            else:
                self._run_apart(running, rows, clock)
            return
        ran, now = time.perf_counter_ns(), clock()
        for item, result in zip(running, results, strict=True):
            if not result.sound:
                self._fail([item], _unsound(item.work), now)
            else:
                self._advance(item, result, now)
        self._statistics.noted_runs.append((len(rows), prepared - begun, ran - prepared, time.perf_counter_ns() - ran, now))

    def _run_apart(self, running: Sequence[Work], rows: Sequence[Row], clock: Callable[[], float]) -> None:
        """Run each row alone after a run that failed: one of them may be at fault, as a number beyond an adopted file's table is."""
        for item, row in zip(running, rows, strict=True):
            begun = time.perf_counter_ns()
            try:
                (result,) = self._engine.run([row])
            except Exception as error:  # as in `run`, which has logged it
                self._fail([item], _not_run(error), clock())
                continue
            self._statistics.noted_runs.append((1, 0, time.perf_counter_ns() - begun, 0, clock()))
            if result.sound:
                self._advance(item, result, clock())
            else:
                self._fail([item], _unsound(item.work), clock())

    def _count_waits(self, running: Sequence[Work]) -> None:
        now, s = time.monotonic(), self._statistics
        began = [item.work.since for item in running if isinstance(item.work, Feeding) and item.work.at == 0]
        s.noted += [(s.queue, int((now - since) * 1e9)) for since in began]

    def _row(self, item: Work) -> Row:
        work = item.work
        if isinstance(work, Feeding):
            return work.next_row()
        if isinstance(work, Drawing):
            return work.draw_row()
        unfinished = item.session.unfinished if isinstance(item, LiveSession) else None
        assert work is not None, "what is ready has work"
        assert unfinished is not None, "a generate in flight is unfinished"
        return work.next_row(unfinished)

    def _advance(self, item: Work, result: RowResult, now: float) -> None:
        work, (logits, state, _, doubts) = item.work, result
        if isinstance(work, Feeding):
            work.take(logits, state, doubts)
            if work.finished:
                self._finish(item, work, now)
            else:
                self.ready.append(item)
        elif isinstance(item, StatelessWork) and isinstance(work, Drawing):
            self._draw(item, work, state)
        elif isinstance(item, LiveSession) and isinstance(work, Generating):
            self._emit(item, work, state, now)

    def _emit(self, live: LiveSession, work: Generating, state: Floats, now: float) -> None:
        self._statistics.characters += 1
        event = Emitted(self._facts.alphabet[work.symbol], work.logprob, state, self._settings.session_ttl)
        live.session, reply, _ = handle(live.session, event, now)
        self._ledger.change(live)
        work.state = state
        states = None if work.watch is None else halves(state[work.watch])[None]
        done = isinstance(reply, Char) and reply.done is not None
        for ticket in live.tickets:
            self._ledger.reply(ticket, _said(reply), live, states, final=done)
        if done:
            self.land(live)
        else:
            self.ready.append(live)

    def _draw(self, item: StatelessWork, work: Drawing, state: Floats) -> None:
        self._statistics.characters += 1
        char = self._facts.alphabet[work.symbol]
        work.so_far = work.so_far.grown(char, work.logprob)
        work.state = state
        reason = work.so_far.reason
        self._ledger.reply(item.ticket, Drawn(char, work.logprob, work.ranking, reason), final=reason is not None)
        if reason is None:
            self.ready.append(item)

    def _finish(self, item: Work, work: Feeding, now: float) -> None:
        s = self._statistics
        s.noted.append((s.success, int((time.monotonic() - work.since) * 1e9)))
        if isinstance(item, StatelessWork):
            s.answered[work.protocol] += 1
            if item.texts is None:
                self._ledger.reply(item.ticket, Result(0, work.length, work.result(), work.state), None, work.states())
                return
            self._ledger.reply(item.ticket, Prompted(work.result(), tuple(work.ranked)))
            self.ready += [StatelessWork(Drawing.after(work, text.sampling), text.ticket) for text in item.texts]
            return
        if item.session.flight is not None and item.session.flight.anew is not None:
            item.happened.append(("opened", work.protocol))
        item.happened.append(("step", work.protocol))
        event = Consumed(work.state, work.length, work.result(), work.carry, self._settings.session_ttl)
        item.session, reply, _ = handle(item.session, event, now)
        self._ledger.change(item)
        for ticket in item.tickets:
            self._ledger.reply(ticket, _said(reply), item, work.states())
        self.land(item)

    def _fail(self, items: Sequence[Work], error: ServiceError, now: float) -> None:
        s = self._statistics
        for item in items:
            s.failed[error.code] += 1
            flight = item.session.flight if isinstance(item, LiveSession) else None
            named = (item.session.id, flight.number) if flight is not None and isinstance(item, LiveSession) else ()
            level = logging.INFO if isinstance(error, BadInput) else logging.WARNING
            log.log(level, "a step failed: %s", error.detail, extra=about(self._engine.manifest, *named))
            if isinstance(item.work, Feeding):
                s.noted.append((s.fail, int((time.monotonic() - item.work.since) * 1e9)))
            if isinstance(item, StatelessWork):
                self._ledger.refuse(item.tickets, error)
                continue
            self._ledger.refuse(item.tickets, error, item if item.unsettled else None)
            self.cut(item, now)


# --- requests come to their sessions --------------------------------------------------------------------------------------------------


class Turns:
    """A request's turn: it is given to the state machine of its session, and what that says is taken over."""

    def __init__(
        self, engine: Engine, facts: ModelFacts, patience: float, ledger: Ledger, runner: Runner, lives: dict[str, LiveSession]
    ) -> None:
        """patience: seconds that a generate may stand still; lives: what is in the engine's hands, to which forks are added."""
        self.looked: dict[str, Session | None] = {}
        """what the store has, in this turn, of sessions that are looked at while something of theirs is in flight"""
        self._engine = engine
        self._facts = facts
        self._patience = patience
        self._ledger = ledger
        self._runner = runner
        self._statistics = ledger.statistics
        self._lives = lives

    def offer(self, live: LiveSession, q: Queued, now: float) -> bool:
        """Give one request to the state machine; False when it has to wait for what is in flight."""
        if q.event is None:
            return self._look(live, q, now)
        # what begins anew in place of what was removed, or copies what is stored, does so after this turn's commit
        if live.standing is StoreRelation.REMOVING or (live.standing is StoreRelation.CHANGED and isinstance(q.event, Fork)):
            live.mailbox.append(q)
            self._runner.freed.append(live)
            return False
        before = live.session
        session, reply, effects = handle(before, q.event, now)
        if isinstance(reply, Wait):
            live.mailbox.append(q)
            return False
        if isinstance(q.event, Feed) and Effect.RUN in effects:
            if self._start_feeding(live, q, (session.flight and session.flight.anew) or before):
                live.session = session
                live.pending.append(q)
        elif isinstance(reply, Forked):
            self.create(reply.session, q, reply, "forked")
        else:
            self._take_over(live, q, session, reply, effects)
        return True

    def _look(self, live: LiveSession, q: Queued, now: float) -> bool:
        assert isinstance(q.request, LookRequest), "the only request without an event"
        if q.request.in_order and live.session.flight is not None:
            live.mailbox.append(q)
            return False
        seen = live.session if live.unsettled else self.looked.get(live.session.id, live.base)
        gone = seen is None or (live.session.flight is None and now >= seen.expires_at)
        reply = Refused(Gone("the session has expired or was deleted")) if gone or seen is None else Looked(seen)
        self._ledger.reply_now(q.ticket, reply, live)
        if live.unsettled:
            live.pending.append(q)
        return True

    def _start_feeding(self, live: LiveSession, q: Queued, before: Session) -> bool:
        request, f = q.request, self._facts
        assert isinstance(request, StepRequest), "a feed is asked for by a step"
        try:
            prepared = prepare(request.content, before, f)
        except ServiceError as error:
            self.refuse(q, error)
            return False
        watch = f.hidden if request.watch else None
        work = live.work = Feeding(
            prepared.x, prepared.carry, len(request.content.x), before.state, f.last_logits, request.every, watch, q.deadline, q.since
        )
        work.protocol, work.lost, work.window = request.protocol, prepared.lost, f.window
        live.tickets.append(q.ticket)
        self._runner.ready.append(live)
        return True

    def _take_over(self, live: LiveSession, q: Queued, session: Session, reply: MachineReply | None, effects: Sequence[Effect]) -> None:
        """Take over what the state machine says of a request that is no content, or was content and is answered at once."""
        was_running = live.work is not None
        assert q.event is not None, "the machine has had it"
        live.session = session
        self._count(live, q, q.event, reply, effects)
        if Effect.COMMIT in effects or Effect.REMOVE in effects:
            self._ledger.change(live, Effect.REMOVE in effects)
        if live.unsettled or effects or isinstance(reply, Follow):
            live.pending.append(q)
        if Effect.RUN in effects:
            assert live.work is None, "one thing in flight"
            live.work = Generating(session.state, self._facts.last_logits, None)
            self._runner.ready.append(live)
        if isinstance(q.event, Generate) and (Effect.RUN in effects or isinstance(reply, Follow)):
            self._join(live, q, reply)
            return
        if was_running and session.flight is None:
            self._end_generate(live, reply)
        told = reply if q.heard is None else self._end_of_heard(live, q, reply)
        self._ledger.reply_now(q.ticket, _said(told), live)

    def _join(self, live: LiveSession, q: Queued, reply: MachineReply | None) -> None:
        """Hear a generate that begins, or one that is in flight already."""
        live.tickets.append(q.ticket)
        watched = isinstance(q.request, GenerateRequest) and q.request.watch
        if watched and isinstance(live.work, Generating):
            live.work.watch = self._facts.hidden
        if not isinstance(reply, Follow):
            return
        if q.heard is None:
            self._ledger.reply_now(q.ticket, reply, live, final=False)
        else:
            self._tell_missed(live, q, reply.generated)
        if not live.unsettled:
            q.heard = len(reply.generated.text)

    def _tell_missed(self, live: LiveSession, q: Queued, generated: Generated) -> None:
        """Tell the characters that another process has emitted since the asker last heard of any."""
        heard = q.heard or 0
        if len(generated.text) > heard:
            q.got_on(q.heard, self._patience)  # whoever wins
        first = live.session.position - len(generated.text) + 1
        for n in range(heard, len(generated.text)):
            char = Char(live.session.step, first + n, generated.text[n], float(generated.logprobs[n]), None)
            self._ledger.reply_now(q.ticket, char, live, final=False)

    def _end_of_heard(self, live: LiveSession, q: Queued, reply: MachineReply | None) -> MachineReply | None:
        """Return the last answer to somebody who has heard some of a generate, and lost it to another process."""
        if isinstance(reply, Result) and isinstance(reply.result, Generated):
            self._tell_missed(live, q, reply.result)
        if isinstance(reply, Refused):
            e = reply.error
            return Refused(type(e)(f"the session has gone on elsewhere: {e.detail}", field=e.field, **e.extra))
        return reply

    def _end_generate(self, live: LiveSession, reply: MachineReply | None) -> None:
        """Tell the followers of the generate in flight that a cancel or a delete has ended it."""
        told = reply if isinstance(reply, Result) else Refused(Gone("the session was deleted"))
        for ticket in live.tickets:
            self._ledger.reply(ticket, told, live)
        self._runner.withdraw(live)

    def create(self, session: Session, q: Queued, reply: Created | Forked, how: Happened) -> None:
        """Create a session that the next commit will make."""
        live = self._lives[session.id] = LiveSession(None, session, StoreRelation.NEW)
        live.happened.append((how, q.request.protocol))
        self._ledger.change(live)
        self._ledger.reply(q.ticket, reply, live)

    def _count(self, live: LiveSession, q: Queued, event: Event, reply: MachineReply | None, effects: Sequence[Effect]) -> None:
        """Note what will have happened to the session once the effects have. Content counts at its end."""
        happened: Happened | None = None
        if isinstance(reply, Placed):
            happened = "reset" if isinstance(event, Reset) else "imported"
        elif isinstance(reply, Rewound):
            happened = "rewound" if effects else None
            self._statistics.repeats[q.request.protocol] += not effects
        elif isinstance(reply, Deleted):
            happened = "deleted"
        elif isinstance(reply, Refused):
            happened = "expired" if Effect.REMOVE in effects else None
            self._count_refused(q, reply.error)
        elif Effect.RUN in effects and Effect.COMMIT in effects:
            happened = "step"
        elif q.heard is None and (isinstance(reply, Follow) or (isinstance(reply, Result) and not effects)):
            self._statistics.repeats[q.request.protocol] += 1  # answered, or at first, with what was stored before
        if happened:
            live.happened.append((happened, q.request.protocol))

    def refuse(self, q: Queued, error: ServiceError, live: LiveSession | None = None) -> None:
        """Refuse a request, which has moved nothing, and count that."""
        self._count_refused(q, error)
        self._ledger.refuse(tickets_of(q.ticket, q.request), error, live)

    def _count_refused(self, q: Queued, error: ServiceError) -> None:
        self._statistics.refused[error.code, q.request.protocol] += 1
        named = q.request.session_id if isinstance(q.request, SessionRequest) else None
        log.debug("refused: %s", error.detail, extra=about(self._engine.manifest, named, getattr(q.request, "number", None)))


class Desk:
    """Sessions that are in the engine's hands, and the requests that come for them."""

    def __init__(self, engine: Engine, facts: ModelFacts, store: Store, settings: EngineSettings, ledger: Ledger, runner: Runner) -> None:
        self.lives: dict[str, LiveSession] = {}
        self._facts = facts
        self._store = store
        self._settings = settings
        self._ledger = ledger
        self._runner = runner
        self._statistics = ledger.statistics
        self._turns = Turns(engine, facts, settings.step_timeout, ledger, runner, self.lives)

    # --- in: what came in this turn ----------------------------------------------------------------------------------------------------

    def take_in(self, queued: Sequence[Queued], now: float) -> None:
        """Offer what came to its sessions, which are read first where they are not here."""
        for q in self._read(queued):
            try:
                self._begin(q, now)
            except ServiceError as error:
                live = self.lives.get(q.request.session_id) if isinstance(q.request, SessionRequest) else None
                if live is None or not live.unsettled:
                    self._turns.refuse(q, error)
                    continue
                self._turns.refuse(q, error, live)
                live.pending.append(q)  # where the commit is lost to another process, it is offered again

    def _read(self, queued: Sequence[Queued]) -> Sequence[Queued]:
        """Read from the store what the requests need; those of them come back that can be offered."""
        self._turns.looked = {}
        stale = [live for live in self._runner.freed if live.standing is StoreRelation.STALE]
        named = {i for q in queued if (i := _session_of(q)) is not None and i not in self.lives}
        named.update(live.session.id for live in stale)
        looks = [q.request for q in queued if type(q.request) is LookRequest]
        looked = {request.session_id for request in looks if not request.in_order} - named
        named |= looked
        found: dict[str, Session] = {}
        while named:
            try:
                found = self._store.load(list(named))
                break
            except ServiceError as error:
                failed = (error.idents & named if isinstance(error, Unreadable) else None) or frozenset(named)
                queued = self._refuse_those_of(failed, queued, stale, error)
                stale = [live for live in stale if live.session.id not in failed]
                named, looked = named - failed, looked - failed
        self._turns.looked = {i: found.pop(i, None) for i in looked}
        for live in stale:
            live.read(found.pop(live.session.id, None))
        for session in found.values():
            self.lives[session.id] = LiveSession(session, session, StoreRelation.STORED)
        return queued

    def _refuse_those_of(
        self, failed: Collection[str], queued: Sequence[Queued], stale: Sequence[LiveSession], error: ServiceError
    ) -> Sequence[Queued]:
        """Refuse what was asked of sessions that could not be read, and return the rest."""
        with self._statistics.lock:
            self._statistics.store_failures += 1
        away = [q for q in queued if isinstance(q.request, SessionRequest) and q.request.session_id in failed]
        self._ledger.refuse([q.ticket for q in away], error)
        for live in stale:
            if live.session.id in failed:
                self._ledger.refuse([q.ticket for q in live.mailbox], error)
                live.mailbox.clear()
        return [q for q in queued if q not in away]

    def _begin(self, q: Queued, now: float) -> None:
        request = q.request
        if isinstance(request, StepRequest):  # nearly all there is: first, past the questions what else it may be
            begin = self._fresh(request.session_id, request.owner, now) if request.begin else None
            most = self._facts.max_position
            if isinstance(request.content, Frames):
                most = None  # counted in frames of the model's rate, which `prepare` knows
            q.event = Feed(request.number, request.digest, len(request.content.x), most, begin, request.end)
            self._come_to_session(q, request, False, now)
            return
        if isinstance(request, StatelessRequest):
            self._start_stateless(q, request)
            return
        if isinstance(request, CreateRequest):
            session = self._made(request, now)
            self._turns.create(session, q, Created(session), "imported" if session.step else "opened")
            return
        overtakes = isinstance(request, Overtaking) or (isinstance(request, LookRequest) and not request.in_order)
        q.event = self._event(request, now)
        self._come_to_session(q, request, overtakes, now)

    def _come_to_session(self, q: Queued, request: SessionRequest, overtakes: bool, now: float) -> None:
        """Offer a request to its session, or let it wait there for its turn."""
        known = self.lives.get(request.session_id)
        if known is not None and known.mailbox and known.session.owner == request.owner and not overtakes:
            known.mailbox.append(q)  # whose turn it is there then will say: a sequence may begin before, also on another version
            return
        live = self._find_or_begin(request.session_id, request.owner, q.event)
        if overtakes and isinstance(request, CancelRequest):
            self._cancel_waiting(live, request)
        self._turns.offer(live, q, now)

    def _event(self, request: SessionRequest, now: float) -> Event | None:
        """Return what the state machine gets of a request that is no step; None for a look."""
        ttl, most = self._settings.session_ttl, self._facts.max_position
        if isinstance(request, GenerateRequest):
            return Generate(request.number, request.digest, request.sampling, most)
        if isinstance(request, CancelRequest):
            return Cancel(request.number)
        if isinstance(request, DeleteRequest):
            return Delete()
        if isinstance(request, ForkRequest):
            return Fork(new_id(self._store.key, request.owner, self._settings.shard), ttl)
        if isinstance(request, ImportRequest):
            return Import(request.start, ttl)
        if isinstance(request, RewindRequest):
            return Rewind(request.number, request.digest, request.to, ttl)
        if isinstance(request, MarkRequest):
            return Mark(request.mark, request.remove)
        return Reset(ttl) if isinstance(request, ResetRequest) else None

    def _fresh(self, session_id: str, owner: str, now: float) -> Session:
        return self._facts.fresh(session_id, owner, now, self._settings.session_ttl)

    def _made(self, request: CreateRequest, now: float) -> Session:
        fresh, at = self._fresh(new_id(self._store.key, request.owner, self._settings.shard), request.owner, now), request.start
        if request.keep:
            fresh = fresh._replace(history=History(request.keep))
        return fresh if at is None else fresh._replace(state=at.state, step=at.step, position=at.position, carry=at.carry)

    def _cancel_waiting(self, live: LiveSession, request: CancelRequest) -> None:
        """Cancel the generate of that number if it has not begun."""
        if request.number is None:
            return
        for q in [q for q in live.mailbox if isinstance(q.event, Generate) and q.event.number == request.number]:
            live.mailbox.remove(q)
            why = Cancelled(f"step {request.number} was cancelled before it began", field="step")
            self._ledger.refuse([q.ticket], why)

    def _find(self, session_id: str, owner: str) -> LiveSession:
        live = self.lives.get(session_id)
        if live is None or not live.there:
            removed = live is not None and live.standing is not StoreRelation.NEW and live.session.owner == owner
            raise Gone("the session has expired or was deleted") if removed else not_there(self._store.key, session_id, owner)
        if live.session.owner != owner:
            raise not_there(self._store.key, session_id, owner, somebody_elses=True)
        flight, f = live.session.flight, self._facts
        coming = live.session if flight is None or flight.anew is None else flight.anew
        if coming.digest != f.digest or coming.version != f.version:
            raise ModelGone(f"the session's model {coming.model}/{coming.version} is not loaded")
        return live

    def _find_or_begin(self, session_id: str, owner: str, event: Event | None) -> LiveSession:
        """Return the session of a request; a sequence's first step needs none."""
        fresh = event.begin if isinstance(event, Feed) else None
        if fresh is None:
            return self._find(session_id, owner)
        live = self.lives.get(session_id)
        if live is None:
            live = self.lives[session_id] = LiveSession(None, fresh, StoreRelation.NEW)
        elif live.standing is StoreRelation.GONE:
            live.begin_anew(fresh)
        return live

    def _start_stateless(self, q: Queued, request: InferRequest | CompleteRequest) -> None:
        f = self._facts
        prepared = prepare(request.content, None, f)
        length = len(request.content.x)
        if isinstance(request, CompleteRequest):
            state, every, top, texts = None, False, request.top, request.texts
        else:
            state, every, top, texts = request.state, request.every, 0, None
        begin = np.zeros(f.state_size, np.float32) if state is None else state
        work = Feeding(prepared.x, None, length, begin, f.last_logits, every, None, q.deadline, q.since, top=top)
        work.protocol, work.lost, work.window, work.whole = request.protocol, prepared.lost, f.window, f.whole
        self._runner.ready.append(StatelessWork(work, q.ticket, texts))

    def offer_waiting(self, live: LiveSession, now: float) -> None:
        """Offer a session, of which nothing is in flight, the mail that waits for it."""
        waiting, live.mailbox = live.mailbox, deque()
        while waiting:
            q = waiting.popleft()
            try:
                self._find_or_begin(live.session.id, _owner(q), q.event)
            except ServiceError as error:
                self._turns.refuse(q, error)
                continue
            if not self._turns.offer(live, q, now):
                live.mailbox.extend(waiting)
                return

    # --- out: what is late, gone, lost or done -------------------------------------------------------------------------------------------

    def refuse_late(self) -> None:
        """Refuse what waits for its session too long: a later step may have less time than the one before it."""
        now = time.monotonic()
        for live in [live for live in self.lives.values() if live.mailbox]:
            for q in [q for q in live.mailbox if q.deadline < now]:
                live.mailbox.remove(q)
                self._turns.refuse(q, late(q, "the step waited for earlier ones of its session longer than"))

    def withdraw(self, tickets: Sequence[Ticket], now: float) -> None:
        """Let go of what was asked by those who are gone."""
        away = set(tickets)
        for live in self.lives.values():
            live.mailbox = deque(q for q in live.mailbox if q.ticket not in away)
            live.pending = [q for q in live.pending if q.ticket not in away]
            if isinstance(live.work, Generating) and not away.isdisjoint(live.tickets):
                live.tickets = [ticket for ticket in live.tickets if ticket not in away]
                if not live.tickets:
                    self._runner.cut(live, now)

    def cut_generating(self, why: ServiceError, now: float) -> None:
        """End what would go on for long: each generate is told to come back and repeat its number."""
        error = type(why)(f"{why.detail}; repeat the number to go on")
        for live in [w for w in self._runner.ready if isinstance(w, LiveSession) and isinstance(w.work, Generating)]:
            self._ledger.refuse(live.tickets, error, live if live.unsettled else None)
            self._runner.cut(live, now)

    def settle(self) -> None:
        """Commit what has changed, then let the replies go; where that fails, everybody is told and nothing here is believed."""
        settling = self._ledger.commit()
        if settling.error is not None:
            self._roll_back(settling.failed, settling.error)
        if settling.lost:
            self._offer_again(settling.lost)
        self._ledger.send()

    def _offer_again(self, lives: Sequence[LiveSession]) -> None:
        """Somebody else has moved these sessions: nothing of theirs is answered, and their requests come before what waits.

        So it is with a sequence that somebody else has begun too.
        """
        unanswered = self._ledger.take_back(lives)
        now = time.monotonic()
        for live in lives:
            live.lost += 1
            again = [q for q in live.pending if q.ticket in unanswered]
            tired = [q for q in again if q.deadline < now]
            self._ledger.refuse([q.ticket for q in tired], Overloaded("another process keeps moving the session: try again", retry_after=1))
            live.mailbox.extendleft(q for q in reversed(again) if q not in tired)
            live.pending = []
            self._runner.withdraw(live)

    def _roll_back(self, lives: Sequence[LiveSession], error: ServiceError) -> None:
        self._ledger.turn_into_refusals(lives, error)
        for live in lives:
            live.pending = []
            self._runner.withdraw(live)
            live.session = live.base or live.session

    def forget_idle(self) -> None:
        """Let go of the sessions of which nothing is in flight, waits or is to be stored."""
        for i in [i for i, live in self.lives.items() if live.work is None and live.idle]:
            del self.lives[i]


# --- the thread -----------------------------------------------------------------------------------------------------------------------


class EngineLoop:
    """The engine thread of one model: an engine port. `answer` hands deliveries to who asked; it is called on this thread and others."""

    def __init__(
        self, engine: Engine, store: Store, settings: EngineSettings, answer: Answer, clock: Callable[[], float] = time.time
    ) -> None:
        self.engine = engine
        self._statistics = Statistics()
        self.inbox = Inbox(settings.max_queue, settings.step_timeout, self._statistics, answer)
        self.submit, self.withdraw = self.inbox.submit, self.inbox.withdraw
        self._clock = clock
        self._answer = answer
        facts = ModelFacts.of(engine.manifest, settings.max_frames)
        self._ledger = Ledger(engine, store, settings.step_timeout, self._statistics, self.inbox, answer)
        self._runner = Runner(engine, facts, settings, self._ledger, self._statistics, self.inbox)
        self._desk = Desk(engine, facts, store, settings, self._ledger, self._runner)
        self._short: ShortWay[Queued] | None = None
        self._commits: CommitThread[Queued] | None = None
        if settings.short:
            commit = PlainCommit(store, engine.manifest, self._statistics, self._send)
            if settings.commit_thread:
                name = f"commit-{facts.name}-{facts.version}"
                self._commits = CommitThread(commit, settings.max_batch, self.inbox.wake, name)
            put = self._commits or commit
            self._short = ShortWay(engine, facts, store, settings.max_batch, settings.session_ttl, self._statistics, put.store)
        self._turned = time.monotonic()
        self._thread = threading.Thread(target=self._main, name=f"engine-{facts.name}-{facts.version}", daemon=True)
        self._thread.start()

    def drain(self, why: ServiceError | None = None, seconds: float = float("inf")) -> None:
        """Begin the end, as the inbox says; a commit is not waited for beyond its time either."""
        self.inbox.drain(why, seconds)
        if self._commits is not None:
            self._commits.give_up(self.inbox.until, self.inbox.why)

    def stop(self, timeout: float | None) -> None:
        """Drain, and wait for the thread's end, for ever without a timeout."""
        self.drain()
        self._thread.join(timeout)

    @property
    def stopping(self) -> bool:
        """Return whether it takes nothing new."""
        return self.inbox.stopping

    @property
    def ready(self) -> bool:
        """Return whether it would take something now."""
        return not self.inbox.stopping

    @property
    def alive(self) -> bool:
        """Return whether its thread has not ended."""
        return self._thread.is_alive()

    @property
    def lively(self) -> bool:
        """Return whether it waits for something to do, or has begun a turn lately, and no commit beside it stands still."""
        begun = self._turned if self._commits is None else min(self._turned, self._commits.begun)
        return not self.alive or self.inbox.waiting == 0 or time.monotonic() - begun < LONGEST_TURN

    def snapshot(self) -> EngineSnapshot:
        """Return what it has done."""
        self._statistics.fold()
        return EngineSnapshot(self._statistics, self.inbox.waiting)

    async def look(self) -> EngineSnapshot:
        """Return what it has done by now."""
        return self.snapshot()

    def leave(self, epoch: int) -> None:
        """Withdraw whatever waits for an asker that is gone, by its epoch."""
        self.withdraw(self.inbox.tickets_of(epoch))

    def _main(self) -> None:
        while True:
            handed = self.inbox.take(busy=bool(self._runner.ready or self._runner.freed))
            self._turned = time.monotonic()
            try:
                self._turn(*handed)
            except Exception as error:  # a bug must not leave anybody waiting
                log.exception("the engine thread failed")
                if self._commits is not None:
                    self._commits.settle()  # what has run is stored, and answered
                self._fail_everything(unanswered(error, EngineFailed))
            if handed.stopping and self._commits is not None:
                self._commits.settle()
            ended = self.inbox.empty and not self._runner.ready and (self._commits is None or self._commits.quiet)
            if handed.stopping and (time.monotonic() > self.inbox.until or ended):
                break
        self._fail_everything(self.inbox.why)
        if self._commits is not None:
            self._commits.end()

    def _turn(self, queued: Sequence[Queued], withdrawn: Sequence[Ticket], stopping: bool) -> None:
        now = self._clock()
        desk, runner = self._desk, self._runner
        if withdrawn:
            self.inbox.leave(withdrawn)
        desk.take_in(self._take_plain(queued, withdrawn), now)
        freed, runner.freed = runner.freed, []
        for live in freed:
            desk.offer_waiting(live, now)
        if withdrawn:
            desk.withdraw(withdrawn, now)
        desk.refuse_late()
        if stopping:
            desk.cut_generating(self.inbox.why, now)
        desk.settle()
        for group in runner.groups(now):
            runner.run(group, self._clock)
            desk.settle()
        desk.settle()
        desk.forget_idle()
        if len(self._statistics.noted) + len(self._statistics.noted_runs) > NOTED:
            self._statistics.fold()

    def _take_plain(self, queued: Sequence[Queued], withdrawn: Sequence[Ticket]) -> Sequence[Queued]:
        """Let plain steps go the short way, and return what goes the general one; what is asked of busy sessions waits."""
        lives, commits = self._desk.lives, self._commits
        if self._short is None:
            return queued
        if commits is None:
            return self._short.take(queued, lives, self._clock)
        if withdrawn:
            commits.withdraw(set(withdrawn))
        again, held = commits.release()
        left = commits.hold([*held, *queued] if held else queued)
        moved = {i for q in again if (i := _session_of(q)) is not None}
        left = commits.hold(self._short.take(left, lives.keys() | moved if moved else lives, self._clock))
        return [*again, *left] if again else left

    def _send(self, replies: Sequence[Delivery]) -> None:
        """Let replies go that wait for nothing. Any thread may call."""
        if due := self.inbox.due(replies):
            self._answer(due)

    def _fail_everything(self, error: ServiceError) -> None:
        """Everybody but those who came in after the failed turn began is told; the sessions are where the store has them.

        Of what is handed to the commit thread nobody knows where that is: whatever the error is, it may be stored yet.
        """
        self._desk.lives.clear()
        self._runner.ready.clear()
        self._runner.freed.clear()
        unsettled: Collection[Ticket] = ()
        if self._commits is not None:
            unsettled = self._commits.unsettled()
            self._commits.clear()
        self._ledger.clear(error, unsettled, not_known("the commit takes too long"))


LONGEST_TURN = 60.0  # seconds of one turn, beyond which a run or a commit is taken to have stopped for good
NOTED = 4_096  # durations and runs that wait to be counted, some seconds of a busy engine


def late(waited: Queued | Feeding, what: str) -> Late:
    """Return the error that names the time that it had, the client's own or the server's."""
    return Late(f"{what} {waited.deadline - waited.since:.6g} s", retry_after=1)


def _not_run(error: Exception) -> ServiceError:
    if lacks_memory(error):
        return unexpected(error)
    return EngineFailed(f"the model could not be run: {type(error).__name__}")


def _unsound(work: Feeding | Generating | None) -> ServiceError:
    """Return the error that says whose numbers led to a state that is not finite: those that were fed, or the model's own."""
    if isinstance(work, Feeding):
        return Overflow("expected numbers after which the model's state is finite: with these it would overflow")
    return EngineFailed("the state would no longer be finite")


def _said(reply: MachineReply | None) -> Reply:
    """Return what the state machine answers, as it is said: Wait, the only answer that is not, never comes here."""
    return None if isinstance(reply, Wait) else reply


def _session_of(q: Queued) -> str | None:
    """Return the id of the session that a request names, without asking for its kind: that costs ten comparisons."""
    ident: str | None = getattr(q.request, "session_id", None)
    return ident


Overtaking = CancelRequest | DeleteRequest
"""Requests that do not wait behind others of their session."""


def _owner(q: Queued) -> str:
    assert isinstance(q.request, SessionRequest), "what lies in a mailbox names its session"
    return q.request.owner
