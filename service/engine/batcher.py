"""One engine thread per model: drain what waits, run it as one batch, commit once, reply.

Everything that changes a session of this model happens on this thread, so the state machine needs no locks. A reply leaves only after
the commit that holds its state. Whatever fails, every waiter gets an answer and the session stays where the store has it.

Other processes may share the store. A session is read from it when a job comes for it, and kept only while something of it is in flight
or waits here. Where a commit finds that somebody else has moved the session, nothing of it is answered: the session is read again, and
the jobs are offered again to where it now stands, until their deadline.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from indrnn.service.engine.jobs import Created, Drawn, Job, Live, Loaded, Prompted, Reply, Stateless
from indrnn.service.engine.mailbox import Inbox, tell
from indrnn.service.engine.outcome import repeated, stored
from indrnn.service.engine.runtime import Engine, Row
from indrnn.service.engine.schedule import groups, next_turn
from indrnn.service.engine.statistics import Happened, Protocol, Statistics
from indrnn.service.engine.work import Drawing, Feeding, Generating, Sink
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
    StoreFailed,
    UnknownSession,
)
from indrnn.service.logs import about
from indrnn.service.session.ids import issued
from indrnn.service.session.machine import (
    Cancel,
    Char,
    Consumed,
    Cut,
    Delete,
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
    Refused,
    Result,
    Session,
    Wait,
    handle,
)
from indrnn.service.session.machine import Reply as Answered
from indrnn.service.store.protocol import Change, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatcherSettings:
    """Bounds: rows of a run, jobs that may wait, seconds a job may wait, seconds a session lives after its last step."""

    max_batch: int
    max_queue: int
    step_timeout: float
    session_ttl: float


class Batcher:
    """The engine thread of one model. `post` hands a list of replies to the event loop."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        settings: BatcherSettings,
        post: Callable[[Callable[[], None]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.engine = engine
        self.statistics = Statistics()
        self.inbox = Inbox(settings.max_queue, settings.step_timeout, self.statistics)
        self.submit, self.submit_each = self.inbox.submit, self.inbox.submit_each
        self.detach, self.drain = self.inbox.detach, self.inbox.drain
        self._store = store
        self._settings = settings
        self._post = post
        self._clock = clock
        part = engine.manifest.part("last_logits")
        assert part is not None, "every manifest has last_logits"
        self._last_logits = slice(part.offset, part.offset + part.size)
        self._lives: dict[str, Live] = {}
        self._ready: deque[Live | Stateless] = deque()
        self._freed: list[Live] = []
        self._looked: dict[str | None, Session | None] = {}
        """what the store has, in this turn, of sessions that are looked at while something of theirs is in flight"""
        self._dirty: list[Live] = []
        self._replies: list[Reply] = []
        self._thread = threading.Thread(target=self._main, name=f"engine-{engine.manifest.name}-{engine.manifest.version}", daemon=True)
        self._thread.start()

    # --- the event loop's side, beside the inbox's --------------------------------------------------------------------------------------

    def stop(self, timeout: float | None) -> None:
        """Drain, and wait for the thread's end, for ever without a timeout."""
        self.drain()
        self._thread.join(timeout)

    @property
    def stopping(self) -> bool:
        """Return whether it takes nothing new."""
        return self.inbox.stopping

    @property
    def alive(self) -> bool:
        """Return whether its thread has not ended."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Return the number of jobs that have not had their last answer."""
        return self.inbox.waiting

    # --- the engine thread ------------------------------------------------------------------------------------------------------------

    def _main(self) -> None:
        while True:
            handed = self.inbox.take(busy=bool(self._ready or self._freed))
            try:
                self._turn(*handed)
            except Exception as error:  # a bug must not leave anybody waiting
                log.exception("the engine thread failed")
                self._fail_everything(EngineFailed(f"internal error: {type(error).__name__}"))
            if handed.stopping and (time.monotonic() > self.inbox.until or (self.inbox.empty and not self._ready)):
                self._fail_everything(self.inbox.why)
                return

    def _turn(self, jobs: list[Job], detached: list[tuple[str, Sink]], stopping: bool) -> None:
        now = self._clock()
        self._take_in(jobs, now)
        freed, self._freed = self._freed, []
        for live in freed:
            self._offer_waiting(live, now)
        self._detach(detached)
        self._refuse_late()
        if stopping:
            why = self.inbox.why
            self._cut_generating(type(why)(f"{why.detail}; repeat the number to go on"))
        self._settle()
        for group in self._groups():
            self._run(group)
            self._settle()
        self._settle()
        self._forget_idle()

    def _take_in(self, jobs: list[Job], now: float) -> None:
        stale = [live for live in self._freed if live.stale]
        named = {j.session_id for j in jobs if j.session_id is not None and j.session_id not in self._lives}
        named.update(live.session.id for live in stale)
        looked = {j.session_id for j in jobs if j.looks and j.session_id in self._lives} - named
        named |= looked
        try:
            found = self._store.load(list(named)) if named else {}
        except ServiceError as error:
            self.statistics.store_failures += 1
            self._replies += [Reply(j.sink, Refused(error)) for j in jobs if j.session_id in named]
            self._replies += [Reply(j.sink, Refused(error)) for live in stale for j in live.mailbox]
            jobs = [j for j in jobs if j.session_id not in named]
            for live in stale:
                live.mailbox.clear()
        else:
            self._looked = {i: found.pop(i, None) for i in looked}
            self._know(found, stale)
        for job in jobs:
            try:
                self._begin(job, now)
            except ServiceError as error:
                self._count_refused(job, error)
                removing = self._lives.get(job.session_id or "")
                self._replies += [Reply(sink, Refused(error), removing if removing and removing.dirty else None) for sink in job.sinks]

    def _know(self, found: dict[str, Session], stale: Iterable[Live]) -> None:
        """Take over what the store has of the sessions that were asked for."""
        for live in stale:
            session = found.pop(live.session.id, None)
            live.base, live.session, live.removed, live.stale = session, session or live.session, session is None, False
        for session in found.values():
            self._lives[session.id] = Live(session, session)

    def _begin(self, job: Job, now: float) -> None:
        if job.create is not None:
            self._create(job.create, job, Created(job.create), "imported" if job.create.step else "opened")
        elif job.session_id is None:
            assert job.content is not None, "a job without a session has content"
            self._start_stateless(job)
        else:
            overtakes = (job.event is None and not job.in_order) or isinstance(job.event, Cancel | Delete)
            known = self._lives.get(job.session_id)
            if known is not None and known.mailbox and known.session.owner == job.owner and not overtakes:
                known.mailbox.append(job)  # whose turn it is there then will say: a sequence may begin before, also on another version
                return
            live = self._find_or_begin(job.session_id, job)
            if isinstance(job.event, Cancel):
                self._cancel_waiting(live, job.event)
            self._offer(live, job, now)

    def _create(self, session: Session, job: Job, reply: object, how: Happened) -> None:
        """Create a session that the next commit will make."""
        live = self._lives[session.id] = Live(None, session)
        live.happened.append((how, job.protocol))
        self._soil(live)
        self._replies.append(Reply(job.sink, reply, live))

    def _cancel_waiting(self, live: Live, event: Cancel) -> None:
        """Cancel the generate of that number if it has not begun."""
        if event.number is None:
            return
        waiting = [j for j in live.mailbox if isinstance(j.event, Generate) and j.event.number == event.number]
        for job in waiting:
            live.mailbox.remove(job)
            self._replies.append(Reply(job.sink, Refused(Cancelled(f"step {event.number} was cancelled before it began", field="step"))))

    def _find(self, session_id: str, owner: str) -> Live:
        live = self._lives.get(session_id)
        if live is not None and live.base is None and not live.dirty and live.session.flight is None:
            live = None  # the step that was to begin it failed
        if live is None or live.removed:
            removed = live is not None and live.session.owner == owner
            if removed or issued(self._store.key, session_id, owner):
                raise Gone("the session has expired or was deleted")
            raise UnknownSession(f"there is no session {session_id[:64]!r}")
        if live.session.owner != owner:
            raise UnknownSession(f"there is no session {session_id[:64]!r}")
        flight, m = live.session.flight, self.engine.manifest
        coming = live.session if flight is None or flight.anew is None else flight.anew
        if coming.digest != m.sha256 or coming.version != m.version:
            raise ModelGone(f"the session's model {coming.model}/{coming.version} is not loaded")
        return live

    def _find_or_begin(self, session_id: str, job: Job) -> Live:
        """Return the session of a job; a sequence's first step needs none."""
        fresh = job.event.begin if isinstance(job.event, Feed) else None
        if fresh is None:
            return self._find(session_id, job.owner)
        live = self._lives.get(session_id)
        if live is None:
            live = self._lives[session_id] = Live(None, fresh)
        elif live.removed and not live.dirty:
            live.base, live.session, live.removed = None, fresh, False
        return live

    def _start_stateless(self, job: Job) -> None:
        assert job.content is not None, "a job without a session has content"
        prepared = job.content.prepare(None)
        state = np.zeros(self.engine.manifest.state_size, np.float32) if job.state is None else job.state
        work = Feeding(
            prepared.x, None, job.content.length, state, self._last_logits, job.every, job.watch, job.deadline, job.since, top=job.top
        )
        work.protocol = job.protocol
        self._ready.append(Stateless(work, job.sink, job.draws))

    def _offer(self, live: Live, job: Job, now: float) -> bool:
        """Give one job to the state machine; False when it has to wait for what is in flight."""
        if job.event is None:
            if job.in_order and live.session.flight is not None:
                live.mailbox.append(job)
                return False
            seen = live.session if live.dirty else self._looked.get(live.session.id, live.session)
            gone = seen is None or (live.session.flight is None and now >= seen.expires_at)
            reply_now = Refused(Gone("the session has expired or was deleted")) if gone or seen is None else Loaded(seen)
            self._replies.append(Reply(job.sink, reply_now, live if live.dirty else None))
            if live.dirty:
                live.pending.append(job)
            return True
        # what begins anew in place of what was removed, or copies what is stored, does so after this turn's commit
        if live.dirty and (live.removed or isinstance(job.event, Fork)):
            live.mailbox.append(job)
            self._freed.append(live)
            return False
        before = live.session
        was_running = live.work is not None
        session, reply, effects = handle(before, job.event, now)
        if isinstance(reply, Wait):
            live.mailbox.append(job)
            return False
        if Effect.RUN in effects and isinstance(job.event, Feed):
            if self._start_feeding(live, job, (session.flight and session.flight.anew) or before):
                live.session = session
                live.pending.append(job)
            return True
        if isinstance(reply, Forked):
            self._create(reply.session, job, reply, "forked")
            return True
        live.session = session
        self._count(live, job, job.event, reply, effects)
        live.removed |= Effect.REMOVE in effects
        if Effect.COMMIT in effects or Effect.REMOVE in effects:
            self._soil(live)
        if live.dirty or effects or isinstance(reply, Follow):
            live.pending.append(job)
        if Effect.RUN in effects:
            assert live.work is None, "one thing in flight"
            live.work = Generating(session.state, self._last_logits, job.watch)
            self._ready.append(live)
        if isinstance(job.event, Generate) and (Effect.RUN in effects or isinstance(reply, Follow)):
            live.sinks.append(job.sink)
            if live.work is not None and job.watch is not None:
                live.work.watch = job.watch
            if isinstance(reply, Follow):
                self._follow(live, job, reply)
            return True
        if was_running and session.flight is None:
            self._end_generate(live, reply)
        told = reply if job.heard is None else self._end_of_generate(live, job, reply)
        self._replies.append(Reply(job.sink, told, live if live.dirty else None))
        return True

    def _count(self, live: Live, job: Job, event: Event, reply: Answered | None, effects: Sequence[Effect]) -> None:
        if happened := stored(event, reply, effects):
            live.happened.append((happened, job.protocol))
        if isinstance(reply, Refused):
            self._count_refused(job, reply.error)
        elif repeated(reply, effects) and job.heard is None:
            self.statistics.repeats[job.protocol] += 1

    def _count_refused(self, job: Job, error: ServiceError) -> None:
        self.statistics.refused[error.code, job.protocol] += 1
        log.debug("refused: %s", error.detail, extra=about(self.engine.manifest, job.session_id, getattr(job.event, "number", None)))

    def _follow(self, live: Live, job: Job, reply: Follow) -> None:
        """Tell what is stored of a generate to somebody who has heard none of it, or some, before another process went on with it."""
        if job.heard is None:
            self._replies.append(Reply(job.sink, reply, live if live.dirty else None, final=False))
        else:
            self._tell_missed(live, job, reply.generated)
        if not live.dirty:
            job.heard = len(reply.generated.text)

    def _tell_missed(self, live: Live, job: Job, generated: Generated) -> None:
        """Tell the characters that another process has emitted since the sink last heard of any."""
        if len(generated.text) > (job.heard or 0):
            self._got_on(job, job.heard)  # whoever wins
        first = live.session.position - len(generated.text) + 1
        for n in range(job.heard or 0, len(generated.text)):
            char = Char(live.session.step, first + n, generated.text[n], float(generated.logprobs[n]), None)
            self._replies.append(Reply(job.sink, char, live if live.dirty else None, final=False))

    def _end_of_generate(self, live: Live, job: Job, reply: object) -> object:
        """Return the last answer to somebody who has heard some of a generate, and lost it to another process."""
        if isinstance(reply, Result) and isinstance(reply.result, Generated):
            self._tell_missed(live, job, reply.result)
        if isinstance(reply, Refused):
            e = reply.error
            return Refused(type(e)(f"the session has gone on elsewhere: {e.detail}", field=e.field, **e.extra))
        return reply

    def _end_generate(self, live: Live, reply: object) -> None:
        """Tell the followers of the generate in flight that a cancel or a delete has ended it."""
        told = reply if isinstance(reply, Result) else Refused(Gone("the session was deleted"))
        self._replies += [Reply(sink, told, live) for sink in live.sinks]
        self._withdraw(live)
        self._land(live)

    def _start_feeding(self, live: Live, job: Job, before: Session) -> bool:
        assert job.content is not None, "a feed has content"
        try:
            prepared = job.content.prepare(before)
        except ServiceError as error:
            self._count_refused(job, error)
            self._replies.append(Reply(job.sink, Refused(error)))
            return False
        work = live.work = Feeding(
            prepared.x, prepared.carry, job.content.length, before.state, self._last_logits, job.every, job.watch, job.deadline, job.since
        )
        work.protocol = job.protocol
        live.sinks.append(job.sink)
        self._ready.append(live)
        return True

    def _offer_waiting(self, live: Live, now: float) -> None:
        waiting, live.mailbox = live.mailbox, deque()
        while waiting:
            job = waiting.popleft()
            try:
                self._find_or_begin(live.session.id, job)
            except ServiceError as error:
                self._count_refused(job, error)
                self._replies.append(Reply(job.sink, Refused(error)))
                continue
            if not self._offer(live, job, now):
                live.mailbox.extend(waiting)
                return

    def _refuse_late(self) -> None:
        """Refuse the late jobs among those that wait for their session: a later step may have less time than the one before it."""
        now = time.monotonic()
        for live in self._lives.values():
            late = [job for job in live.mailbox if job.deadline < now]
            for job in late:
                live.mailbox.remove(job)
                error = _late(job, "the step waited for earlier ones of its session longer than")
                self._count_refused(job, error)
                self._replies.append(Reply(job.sink, Refused(error)))

    def _detach(self, detached: Iterable[tuple[str, Sink]]) -> None:
        for session_id, sink in detached:
            live = self._lives.get(session_id)
            self.inbox.leave(sink)
            if live is None:
                continue
            live.mailbox = deque(job for job in live.mailbox if job.sink is not sink)
            live.pending = [job for job in live.pending if job.sink is not sink]
            if sink in live.sinks and isinstance(live.work, Generating):
                live.sinks.remove(sink)
                if not live.sinks:
                    self._cut(live)

    def _cut(self, live: Live) -> None:
        live.session, _, _ = handle(live.session, Cut(), self._clock())
        self._withdraw(live)
        self._land(live)

    def _withdraw(self, live: Live) -> None:
        if live in self._ready:
            self._ready.remove(live)

    def _soil(self, live: Live) -> None:
        """Mark that the session differs from what the store has."""
        if not live.dirty:
            live.dirty = True
            self._dirty.append(live)

    def _cut_generating(self, why: ServiceError) -> None:
        for live in [w for w in self._ready if isinstance(w, Live) and isinstance(w.work, Generating)]:
            self._replies += [Reply(sink, Refused(why), live if live.dirty else None) for sink in live.sinks]
            self._cut(live)

    def _land(self, live: Live) -> None:
        """Mark that nothing of this session is in flight any more."""
        live.work = None
        live.sinks = []
        if live.mailbox and live not in self._freed:
            self._freed.append(live)

    # --- a batch ----------------------------------------------------------------------------------------------------------------------

    def _groups(self) -> list[list[Live | Stateless]]:
        """Return what runs in this turn, in groups; who is gone, or came too late to begin, is left out."""
        chosen: list[Live | Stateless] = []
        now = time.monotonic()
        for item in next_turn(self._ready, self._settings.max_batch):
            work = item.work
            if isinstance(item, Stateless) and self.inbox.abandoned(item.sinks):
                continue
            if isinstance(work, Feeding) and work.at == 0 and work.deadline < now:
                self._fail([item], _late(work, "the step waited longer than"))
                continue
            chosen.append(item)
        return groups(chosen)

    def _run(self, group: list[Live | Stateless]) -> None:
        begun = time.perf_counter_ns()
        rows: list[Row] = []
        running: list[Live | Stateless] = []
        for item in group:
            if isinstance(item.work, Feeding) and item.work.finished:  # resampling left no frame of the model's rate
                self._finish(item)
                continue
            rows.append(self._row(item))
            running.append(item)
        if not rows:
            return
        self._count_waits(running)
        prepared = time.perf_counter_ns()
        try:
            answers = self.engine.run(rows)
        except Exception as error:  # the runtime's exceptions have no common base of their own
            log.exception("a run of %d rows failed", len(rows))
            self._fail(running, EngineFailed(f"the model could not be run: {type(error).__name__}"))
            return
        ran = time.perf_counter_ns()
        for item, (logits, state, sound) in zip(running, answers, strict=True):
            if not sound:
                self._fail([item], _unsound(item.work))
            else:
                self._advance(item, logits, state)
        self.statistics.ran(len(rows), prepared - begun, ran - prepared, time.perf_counter_ns() - ran, self._clock())

    def _count_waits(self, running: Sequence[Live | Stateless]) -> None:
        now = time.monotonic()
        for item in running:
            if isinstance(item.work, Feeding) and item.work.at == 0:
                self.statistics.queue.add(int((now - item.work.since) * 1e9))

    def _row(self, item: Live | Stateless) -> Row:
        if isinstance(item, Live) and isinstance(item.work, Generating):
            unfinished = item.session.unfinished
            assert unfinished is not None, "a generate in flight"
            return item.work.next_row(unfinished)
        if isinstance(item.work, Drawing):
            return item.work.draw_row()
        assert isinstance(item.work, Feeding), "what is ready has work"
        return item.work.next_row()

    def _advance(self, item: Live | Stateless, logits: Floats, state: Floats) -> None:
        if isinstance(item, Live) and isinstance(item.work, Generating):
            self._emit(item, item.work, state)
            return
        if isinstance(item, Stateless) and isinstance(item.work, Drawing):
            self._draw(item, item.work, state)
            return
        assert isinstance(item.work, Feeding), "what is ready has work"
        item.work.take(logits, state)
        if item.work.finished:
            self._finish(item)
        else:
            self._ready.append(item)

    def _emit(self, live: Live, work: Generating, state: Floats) -> None:
        alphabet = self.engine.manifest.alphabet or ""
        self.statistics.characters += 1
        event = Emitted(alphabet[work.symbol], work.logprob, state, self._settings.session_ttl)
        live.session, reply, _ = handle(live.session, event, self._clock())
        self._soil(live)
        assert isinstance(reply, Char), "Emitted is answered with Char"
        work.state = state
        states = None if work.watch is None else state[work.watch].astype(np.float16)[None]
        self._replies += [Reply(sink, reply, live, states, final=reply.done is not None) for sink in live.sinks]
        if reply.done is None:
            self._ready.append(live)
        else:
            self._land(live)

    def _draw(self, item: Stateless, work: Drawing, state: Floats) -> None:
        self.statistics.characters += 1
        char = (self.engine.manifest.alphabet or "")[work.symbol]
        work.so_far = work.so_far.grown(char, work.logprob)
        work.state = state
        reason = work.so_far.reason
        self._replies.append(Reply(item.sink, Drawn(char, work.logprob, work.ranking, reason), final=reason is not None))
        if reason is None:
            self._ready.append(item)

    def _finish(self, item: Live | Stateless) -> None:
        work = item.work
        assert isinstance(work, Feeding), "only content finishes"
        self.statistics.success.add(int((time.monotonic() - work.since) * 1e9))
        if isinstance(item, Stateless):
            self.statistics.answered[work.protocol] += 1
        if isinstance(item, Stateless) and item.draws is not None:
            self._replies.append(Reply(item.sink, Prompted(work.result(), tuple(work.ranked))))
            self._ready += [Stateless(Drawing.after(work, d.sampling), d.sink) for d in item.draws]
            return
        if isinstance(item, Stateless):
            self._replies.append(Reply(item.sink, Result(0, work.length, work.result(), work.state), None, work.states()))
            return
        if item.session.flight is not None and item.session.flight.anew is not None:
            item.happened.append(("opened", work.protocol))
        item.happened.append(("step", work.protocol))
        event = Consumed(work.state, work.length, work.result(), work.carry, self._settings.session_ttl)
        item.session, reply, _ = handle(item.session, event, self._clock())
        self._soil(item)
        self._replies += [Reply(sink, reply, item, work.states()) for sink in item.sinks]
        self._land(item)

    # --- commit, reply, forget --------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Commit what has changed, then let the replies go; when the commit fails, everybody is told and nothing here is believed."""
        dirty, self._dirty = self._dirty, []
        if dirty:
            begun = time.perf_counter_ns()
            landed = [live.session.landed for live in dirty]  # these very objects come back as `before`: a store knows them again at sight
            try:
                lost = self._store.commit(
                    [Change(live.base, None if live.removed else after, live.lost) for live, after in zip(dirty, landed, strict=True)]
                )
            except ServiceError as error:
                self.statistics.store_failures += 1
                log.error("a commit of %d sessions failed: %s", len(dirty), error, extra=about(self.engine.manifest))
                self._roll_back(dirty, error)
            else:
                self.statistics.store.add(time.perf_counter_ns() - begun)
                if lost:
                    self._offer_again([live for live in dirty if live.session.id in lost])
            happened: list[tuple[Happened, Protocol]] = []
            for live, after in zip(dirty, landed, strict=True):
                live.dirty = False
                if not live.stale:
                    happened += live.happened
                    live.base = after
                    self._drop_answered(live)
                live.happened = []
            self.statistics.happened.update(happened)
        self._send()

    def _drop_answered(self, live: Live) -> None:
        """Drop the jobs whose outcome has been stored, but for those whose work goes on."""
        live.pending = [job for job in live.pending if job.sink in live.sinks]
        live.lost = 0
        so_far = live.session.unfinished
        for job in live.pending:
            if so_far is not None and isinstance(job.event, Generate):
                self._got_on(job, len(so_far.text))

    def _got_on(self, job: Job, heard: int | None) -> None:
        """A generate lasts longer than a step may wait: what it must not do is stand still that long."""
        job.heard = heard
        job.since = time.monotonic()
        job.deadline = job.since + self._settings.step_timeout

    def _offer_again(self, lives: Sequence[Live]) -> None:
        """Somebody else has moved these sessions: nothing of theirs is answered, and their jobs come before what waits.

        So it is with a sequence that somebody else has begun too. Of one that was to be made here nobody else knows the id.
        """
        made = [live for live in lives if live.base is None and not live.pending]
        self._roll_back(made, StoreFailed("the new session's id is taken: try again"))
        lives = [live for live in lives if live not in made]
        moved = {id(live) for live in lives}
        self._replies = [r for r in self._replies if id(r.live) not in moved]
        unanswered = self.inbox.unanswered({r.sink for r in self._replies if r.final})
        now = time.monotonic()
        for live in lives:
            live.lost += 1
            again = [job for job in live.pending if job.sink in unanswered]
            tired = [job for job in again if job.deadline < now]
            late = Overloaded("another process keeps moving the session: try again", retry_after=1)
            self._replies += [Reply(job.sink, Refused(late)) for job in tired]
            live.mailbox.extendleft(job for job in reversed(again) if job not in tired)
            self._evict(live)

    def _evict(self, live: Live) -> None:
        """Stop what is in flight of the session, and have it read again before anything else is offered to it."""
        live.pending = []
        live.stale = True
        self._withdraw(live)
        self._land(live)

    def _roll_back(self, dirty: Sequence[Live], error: ServiceError) -> None:
        failed = {id(live) for live in dirty}
        self._replies = [
            r._replace(value=Refused(error), states=None, final=True) if r.live is not None and id(r.live) in failed else r
            for r in self._replies
        ]
        told = {id(r.sink) for r in self._replies}
        for live in dirty:
            self._replies += [Reply(sink, Refused(error)) for sink in live.sinks if id(sink) not in told]
            self._evict(live)
            live.removed = live.base is None
            live.session = live.base or live.session

    def _fail(self, items: Sequence[Live | Stateless], error: ServiceError) -> None:
        for item in items:
            self.statistics.failed[error.code] += 1
            step = item.session.flight if isinstance(item, Live) else None
            named = (item.session.id, step.number) if step is not None and isinstance(item, Live) else ()
            level = logging.INFO if isinstance(error, BadInput) else logging.WARNING
            log.log(level, "a step failed: %s", error.detail, extra=about(self.engine.manifest, *named))
            if isinstance(item.work, Feeding):
                self.statistics.fail.add(int((time.monotonic() - item.work.since) * 1e9))
            if isinstance(item, Stateless):
                self._replies += [Reply(sink, Refused(error)) for sink in item.sinks]
                continue
            self._replies += [Reply(sink, Refused(error), item if item.dirty else None) for sink in item.sinks]
            self._cut(item)

    def _send(self) -> None:
        """Let the replies go. Who has had a last answer gets no other."""
        replies, self._replies = self._replies, []
        due = self.inbox.due(replies)
        if not due:
            return

        def deliver() -> None:
            for r in due:
                tell(r.sink, r.value, r.states)

        self._post(deliver)

    def _forget_idle(self) -> None:
        idle = [i for i, live in self._lives.items() if live.work is None and not live.mailbox and not live.dirty]
        for i in idle:
            del self._lives[i]

    def _fail_everything(self, error: ServiceError) -> None:
        """Everybody but those who came in after the failed turn began is told; the sessions are where the store has them."""
        self._replies = [Reply(sink, Refused(error)) for sink in self.inbox.taken()]
        self._lives.clear()
        self._ready.clear()
        self._freed.clear()
        self._dirty.clear()
        self._send()


def _late(waited: Job | Feeding, what: str) -> Late:
    """Return the error that names the time that it had, the client's own or the server's."""
    return Late(f"{what} {waited.deadline - waited.since:.6g} s", retry_after=1)


def _unsound(work: Feeding | Generating | None) -> ServiceError:
    """Return the error that says whose numbers led to a state that is not finite: those that were fed, or the model's own."""
    if isinstance(work, Feeding):
        return Overflow("expected numbers after which the model's state is finite: with these it would overflow")
    return EngineFailed("the state would no longer be finite")
