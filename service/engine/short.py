"""The short way of plain steps through the engine thread: read, run and committed together, without a mailbox, a flight or a turn of each.

It takes the steps that the state machine would admit at once and that need nothing else: of sessions that are in nobody's hands, at their
next number, without options, content as the graph reads it; also those that begin or end a sequence of the Open Inference Protocol. With
those it does what the general way (loop.py, session/machine.py) does, in the same order: a reply leaves after its commit. Whatever is
otherwise in any point stays for the general way, which says what is wrong with it; so does what comes behind such a request of the same
session. What is left for the general way has changed nothing.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from indrnn.export.bundle import Manifest
from indrnn.service.engine.requests import ClientProtocol, Content, Delivery, Frames, Request, StepRequest, Ticket
from indrnn.service.engine.runtime import NOTHING, Engine, ModelFacts, Row, RowResult
from indrnn.service.engine.statistics import Happened, Statistics
from indrnn.service.errors import ServiceError
from indrnn.service.logs import about
from indrnn.service.session.machine import KEPT, Floats, Refused, Result, Scores, Session, Step
from indrnn.service.session.sampling import log_softmax
from indrnn.service.store.protocol import Change, Store

log = logging.getLogger(__name__)

new = tuple.__new__  # of a named tuple with all its fields: half of the time of the class's own call
LONGEST = 16  # time steps of a plain step; longer ones are cut into pieces, and others run between these


class Waiting(Protocol):
    """A request as the engine thread has it: who asked, what, since when and until when it may wait, of time.monotonic()."""

    @property
    def ticket(self) -> Ticket:
        """Return who asked."""

    @property
    def request(self) -> Request:
        """Return what is asked."""

    @property
    def since(self) -> float:
        """Return when it came."""

    @property
    def deadline(self) -> float:
        """Return when it is too late to begin."""


Q = TypeVar("Q", bound=Waiting)


class Plain(NamedTuple, Generic[Q]):
    """A step that goes the short way, its session before it, and what the store has: where a sequence begins the old one, or none."""

    waiting: Q
    request: StepRequest
    before: Session
    stored: Session | None


class Batch(NamedTuple, Generic[Q]):
    """Plain steps that have run, what is to be stored of each, and what is to be said then."""

    steps: Sequence[Plain[Q]]
    changes: Sequence[Change]
    replies: Sequence[Delivery]


class PlainCommit:
    """Stores what plain steps came to, and then lets their replies go, by `send`."""

    def __init__(self, store: Store, manifest: Manifest, statistics: Statistics, send: Callable[[Sequence[Delivery]], None]) -> None:
        self._store = store
        self._manifest = manifest
        self._statistics = statistics
        self._send = send

    def store(self, batch: Batch[Q]) -> list[Q]:
        """Store a batch and answer its steps; return those that are not answered, since others have moved their sessions."""
        s, begun = self._statistics, time.perf_counter_ns()
        try:
            lost = self._store.commit(batch.changes)
        except ServiceError as error:
            with s.lock:
                s.store_failures += 1
            log.error("a commit of %d sessions failed: %s", len(batch.changes), error, extra=about(self._manifest))
            self.refuse(batch, error)
            return []
        s.noted.append((s.store, time.perf_counter_ns() - begun))
        stored, replies = batch.steps, batch.replies
        if lost:
            kept = [i for i, one in enumerate(batch.steps) if one.before.id not in lost]
            stored, replies = [stored[i] for i in kept], [replies[i] for i in kept]
        counted: Counter[tuple[Happened, ClientProtocol]] = Counter([("step", request.protocol) for _, request, _, _ in stored])
        counted.update([("opened", request.protocol) for _, request, _, _ in stored if request.begin])
        with s.lock:
            s.happened.update(counted)
        self._send(replies)
        return [one.waiting for one in batch.steps if one.before.id in lost] if lost else []

    def refuse(self, batch: Batch[Q], error: ServiceError) -> None:
        """Answer every step of a batch with an error."""
        self._send([Delivery(reply.ticket, Refused(error)) for reply in batch.replies])


class ShortWay(Generic[Q]):
    """Takes plain steps out of what has come. ttl: seconds a session lives after a step.

    `put` takes what has run, to be stored and answered, and returns the steps that the general way has to offer again.
    """

    def __init__(
        self,
        engine: Engine,
        facts: ModelFacts,
        store: Store,
        max_batch: int,
        ttl: float,
        statistics: Statistics,
        put: Callable[[Batch[Q]], Sequence[Q]],
    ) -> None:
        self._engine = engine
        self._facts = facts
        self._store = store
        self._max_batch = max_batch
        self._ttl = ttl
        self._statistics = statistics
        self._put = put
        self._no_every = NOTHING.reshape(0, facts.last_logits.where.stop - facts.last_logits.where.start)
        frames = facts.frames
        self._open = facts.window == 1 and (frames is None or frames.last_frame is not None)

    def take(self, queued: Sequence[Q], elsewhere: Collection[str], clock: Callable[[], float]) -> Sequence[Q]:
        """Answer the plain steps among what has come, and return the others, in their order; elsewhere: sessions in other hands."""
        if not self._open or not queued:
            return queued
        candidates = self._candidates(queued, elsewhere)
        if not candidates:
            return queued
        try:
            found = self._store.load([request.session_id for _, request in candidates])
        except ServiceError:  # the general way finds out, and says so
            return queued
        now, by_length, plain_steps = clock(), dict[int, list[Plain[Q]]](), 0
        for q, request in candidates:
            before = stored = found.get(request.session_id)
            if request.begin:
                before = self._facts.fresh(request.session_id, request.owner, now, self._ttl) if self._begins(request, stored) else None
            if before is not None and (request.begin or self._advances(request, before, now)):
                by_length.setdefault(len(request.content.x), []).append(new(Plain, (q, request, before, stored)))
                plain_steps += 1
        left: set[Ticket] = set()
        ran = False
        for plain in by_length.values():
            for at in range(0, len(plain), self._max_batch):
                batch = plain[at : at + self._max_batch]
                if ran:  # a run takes time: who has waited too long by now is left for the general way, which says so
                    left.update(late := {one.waiting.ticket for one in batch if one.waiting.deadline < time.monotonic()})
                    batch = [one for one in batch if one.waiting.ticket not in late] if late else batch
                left.update(self._run(batch, clock) if batch else ())
                ran = True
        if plain_steps == len(queued) and not left:
            return ()
        taken = {one.waiting.ticket for plain in by_length.values() for one in plain} - left
        return [q for q in queued if q.ticket not in taken]

    def _candidates(self, queued: Sequence[Q], elsewhere: Collection[str]) -> list[tuple[Q, StepRequest]]:
        """Return the steps that look plain, at most one of a session, and none behind another request of its session."""
        named: set[str] = set()
        found: list[tuple[Q, StepRequest]] = []
        clock = time.monotonic()
        for q in queued:
            request = q.request
            if type(request) is StepRequest:
                ident = request.session_id
                if ident not in named and ident not in elsewhere and q.deadline >= clock and self._looks_plain(request):
                    found.append((q, request))
                named.add(ident)
            elif (other := getattr(request, "session_id", None)) is not None:
                named.add(other)
        return found

    def _looks_plain(self, request: StepRequest) -> bool:
        if request.every or request.watch:
            return False
        return len(request.content.x) <= LONGEST and len(request.content.x) > 0 and self._as_read(request.content)

    def _as_read(self, content: Content) -> bool:
        """Return whether content needs no preparation."""
        if type(content) is not Frames:
            return True
        frames = self._facts.frames
        return content.whole and content.t is None and frames is not None and content.hz in (None, frames.hz)

    def _advances(self, request: StepRequest, before: Session, now: float) -> bool:
        """Return whether the state machine would admit the step as the session's next, and say nothing else of it."""
        f, number = self._facts, request.number
        _, _, version, digest, owner, _, step, position, _, expires_at, last, carry, history, _ = before
        if owner != request.owner or digest != f.digest or version != f.version:
            return False
        if last is not None and (type(last.result) is not Scores or last.end):
            return False
        if number is not None and number != step + 1:
            return False
        if history is not None or carry is not None or now >= expires_at:
            return False
        return f.max_position is None or position + len(request.content.x) <= f.max_position

    def _begins(self, request: StepRequest, stored: Session | None) -> bool:
        """Return whether the state machine would let a sequence's first step begin, whatever is there, and say nothing else of it."""
        f = self._facts
        if request.number not in (None, 1) or (f.max_position is not None and len(request.content.x) > f.max_position):
            return False
        return stored is None or (stored.owner == request.owner and stored.step != 1)  # else it may be a repeat

    def _run(self, plain: Sequence[Plain[Q]], clock: Callable[[], float]) -> Collection[Ticket]:
        """Run steps of one length and put them to be stored and answered; return the tickets of those that the general way has to take."""
        begun, since, s = time.perf_counter_ns(), time.monotonic(), self._statistics
        rows: list[Row] = [new(Row, (request.content.x, before.state, None)) for _, request, before, _ in plain]
        prepared = time.perf_counter_ns()
        try:
            results = self._engine.run(rows)
        except Exception:  # the general way runs them again, and says of each what is wrong
            log.debug("a run of %d plain steps failed", len(rows), exc_info=True)
            return [one.waiting.ticket for one in plain]
        ran, now = time.perf_counter_ns(), clock()
        batch = self._advanced(plain, results, now)
        if not batch.steps:
            return [one.waiting.ticket for one in plain]
        ended = time.perf_counter_ns()
        s.noted_runs.append((len(rows), prepared - begun, ran - prepared, ended - ran, now))
        self._note(batch.steps, since, (ended - begun) * 1e-9)
        left = [q.ticket for q in self._put(batch)]
        if len(batch.steps) < len(plain):
            left += {one.waiting.ticket for one in plain}.difference([one.waiting.ticket for one in batch.steps])
        return left

    def _advanced(self, plain: Sequence[Plain[Q]], results: Sequence[RowResult], now: float) -> Batch[Q]:
        """Return what is to be stored and said of the steps after which the state is finite, and those steps."""
        where, no_every = self._facts.last_logits.where, self._no_every
        expires_at, ended_expires_at = now + self._ttl, now + min(KEPT, self._ttl)
        logprobs = self._scored(plain, results) if plain[0].request.content.x.dtype.kind == "i" else None
        changes: list[Change] = []
        replies: list[Delivery] = []
        sound: list[Plain[Q]] = []
        for i, (one, (_, state, is_sound, doubts)) in enumerate(zip(plain, results, strict=True)):
            if not is_sound:
                continue
            q, request, s, in_store = one
            ident, model, version, digest, owner, _, number, position, created_at, *_ = s
            number, position = number + 1, position + len(request.content.x)
            # the logits are a part of the state, which the session keeps anyway
            scores = new(Scores, (state[where], no_every, NOTHING if logprobs is None else logprobs[i], doubts))
            step = new(Step, (request.digest, scores, request.end))
            at = state, number, position, created_at, ended_expires_at if request.end else expires_at, step, None, None, None
            changes.append(new(Change, (in_store, new(Session, (ident, model, version, digest, owner, *at)), 0)))
            replies.append(new(Delivery, (q.ticket, new(Result, (number, position, scores, state)), None, True)))
            sound.append(one)
        return Batch(sound, changes, replies)

    def _scored(self, plain: Sequence[Plain[Q]], results: Sequence[RowResult]) -> Floats:
        """Return the log-probability [B, t] of each symbol before the model saw it, as Feeding has it."""
        last_logits = self._facts.last_logits
        first = np.stack([one.before.state[last_logits.where] for one in plain])[:, None]
        before = last_logits.closed(np.concatenate([first, np.stack([result.logits for result in results])[:, :-1]], 1))
        symbols = np.stack([one.request.content.x for one in plain])
        scored: Floats = np.take_along_axis(log_softmax(before), symbols[..., None], -1)[..., 0].astype(np.float32)
        return scored

    def _note(self, run: Sequence[Plain[Q]], since: float, took: float) -> None:
        """Note how long steps have waited, and how long they took in all."""
        s = self._statistics
        waits = [since - q.since for q, _, _, _ in run]
        s.noted.extend([(s.queue, int(waited * 1e9)) for waited in waits])
        s.noted.extend([(s.success, int((waited + took) * 1e9)) for waited in waits])
