"""Sessions as every protocol sees them: coroutines over the engine threads and the store."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from indrnn.service.engine.jobs import Created, Job, Loaded, unset
from indrnn.service.engine.quota import Quotas
from indrnn.service.engine.statistics import Protocol
from indrnn.service.engine.work import Content
from indrnn.service.errors import Gone, ModelGone, Overloaded, SequenceLimit, ServiceError, SessionLimit, StoreFailed, UnknownSession
from indrnn.service.serving.models import Models, ServedModel
from indrnn.service.session.ids import issued, new_id
from indrnn.service.session.machine import (
    KEPT,
    Cancel,
    Char,
    Delete,
    Deleted,
    Feed,
    Follow,
    Fork,
    Forked,
    Generate,
    Import,
    Placed,
    Refused,
    Reset,
    Result,
    Scores,
    Session,
    Snapshot,
)
from indrnn.service.store.protocol import Change, Store

LAG = 1_024  # characters that may wait for a client to read them
ROUTES = 65_536  # sessions whose model is remembered, so that a step needs no look into the store to find its engine
DELETE_TRIES = 16  # of a session that another process keeps moving; the fifth has always won

R = TypeVar("R")
States = NDArray[np.float16]
Replies = asyncio.Future[list[tuple[object, States | None]]]


@dataclass(frozen=True, slots=True)
class Answered:
    """A finished step, and the watched neurons [t, n] where they were asked for and the step was not a repeat."""

    result: Result
    states: States | None


def digest_key(kind: str, options: object) -> bytes:
    """Return a message's kind and options as a key, [32] bytes, for `content_digest`."""
    return hashlib.blake2b(orjson.dumps([kind, options], option=orjson.OPT_SORT_KEYS), digest_size=32).digest()


def content_digest(key: bytes, data: bytes) -> bytes:
    """Return a digest that two messages share exactly when they ask for the same: their decoded content and options (`digest_key`)."""
    return hashlib.blake2b(data, digest_size=16, key=key).digest()


class Sessions:
    """Opens, steps, generates, looks, moves and deletes. `owner` is whose key the client holds; without keys it is empty."""

    def __init__(self, models: Models, store: Store, ttl: float, quotas: Quotas) -> None:
        self._models = models
        self._store = store
        self._ttl = ttl
        self._quotas = quotas
        self._routes: OrderedDict[str, tuple[ServedModel, str]] = OrderedDict()

    def charge(self, owner: str, steps: int = 1) -> None:
        """Charge steps that do not go through here, before them. Raises RateLimited."""
        self._quotas.step(owner, steps)

    def owe(self, owner: str, steps: int) -> None:
        """Charge steps that were not known before, after them: paid before the next."""
        self._quotas.owe(owner, steps)

    @property
    def charges(self) -> bool:
        """Return whether steps are counted at all."""
        return self._quotas.counts_steps

    @property
    def counts_sequences(self) -> bool:
        """Return whether sequences have a limit."""
        return self._quotas.counts_sessions

    async def count_sequence(self, session_id: str, holder: str) -> bool:
        """Before a sequence begins: whether it is one more. Raises SequenceLimit, StoreFailed; one that lives may always begin anew.

        The store is asked, since elsewhere it may have ended: what is remembered here would let it in beside as many as are allowed.
        """
        if not self.counts_sequences:
            return False
        there = (await asyncio.to_thread(self._store.load, [session_id])).get(session_id)
        if there is not None and not there.ended and there.expires_at > time.time():
            return False
        horizon = KEPT if self._ttl > 2 * KEPT else 0.0  # the ended ones, which are kept for so long, do not count
        try:
            await self._quotas.new_session(holder, horizon)
        except SessionLimit as error:
            raise SequenceLimit(error.detail, retry_after=error.extra.get("retry_after")) from None
        return True

    def sequence_left(self, session_id: str, holder: str, model: ServedModel, counted: bool) -> None:
        """After a sequence has not begun, or has ended with its first step: where it is, if anywhere, is for the store to say."""
        self._leave_route(session_id, model)
        if counted:
            self._quotas.session_ended(holder)

    def sequence_ended(self, session_id: str, holder: str, model: ServedModel) -> None:
        """After the answer to a step that ends one, of which only the first makes room: a repeat finds no route."""
        if self._leave_route(session_id, model):
            self._quotas.session_ended(holder)

    def _leave_route(self, session_id: str, model: ServedModel) -> bool:
        known = self.route(session_id) is model
        if known:
            del self._routes[session_id]
        return known

    async def open(self, model: ServedModel, owner: str, at: Snapshot | None = None, protocol: Protocol = "http") -> Session:
        """Open a new session, stored: at the start of a sequence, or where a downloaded one stood. Raises SessionLimit."""
        now = time.time()
        m = model.manifest
        start = at or Snapshot(np.zeros(m.state_size, np.float32), 0, 0, None)
        session = Session(
            new_id(self._store.key, owner),
            m.name,
            m.version,
            m.sha256,
            owner,
            start.state,
            start.step,
            start.position,
            now,
            now + self._ttl,
            carry=start.carry,
        )
        reply = await self._make(model, owner, Job(unset, create=session, protocol=protocol))
        assert isinstance(reply, Created), "a creation is answered with Created"
        self.remember(session.id, model, owner)
        return reply.session

    async def fork(self, session_id: str, owner: str) -> Session:
        """Make a second session that stands where this one does, stored. Waits for what is in flight. Raises SessionLimit, ModelGone."""
        model = await self.model_of(session_id, owner)
        reply = await self._make(model, owner, Job(unset, session_id, owner, Fork(new_id(self._store.key, owner), self._ttl)))
        assert isinstance(reply, Forked), "a fork is answered with Forked"
        self.remember(reply.session.id, self.route(session_id) or model, owner)
        return reply.session

    async def _make(self, model: ServedModel, owner: str, job: Job) -> object:
        """Return the job that makes a session, where its owner may have one more."""
        await self._quotas.new_session(owner)
        try:
            return await self._ask(model, job)
        except BaseException:
            self._quotas.session_ended(owner)
            raise

    async def reset(self, session_id: str, owner: str) -> Session:
        """Put the session back at the start of a sequence, stored. Waits for what is in flight. Raises ModelGone."""
        return await self._place(session_id, owner, Reset(self._ttl))

    async def put(self, session_id: str, owner: str, at: Snapshot) -> Session:
        """Put the session where a downloaded one stood, stored. Waits for what is in flight. Raises ModelGone."""
        return await self._place(session_id, owner, Import(at, self._ttl))

    async def _place(self, session_id: str, owner: str, event: Import | Reset) -> Session:
        model = await self.model_of(session_id, owner)
        reply = await self._ask(model, Job(unset, session_id, owner, event))
        assert isinstance(reply, Placed), "a session that is moved is answered with Placed"
        return reply.session

    async def look(self, session_id: str, owner: str, in_order: bool = False) -> Session:
        """Return the session as it stands; in order: after what is in flight or waits. Raises UnknownSession, Gone."""
        try:
            model = await self.model_of(session_id, owner)
            reply = await self._ask(model, Job(unset, session_id, owner, in_order=in_order))
        except ModelGone:
            return await self._orphan(session_id, owner)  # it cannot step, but it is still the client's
        assert isinstance(reply, Loaded), "a look is answered with Loaded"
        return reply.session

    async def feed(
        self,
        model: ServedModel,
        session_id: str,
        owner: str,
        event: Feed,
        content: Content,
        every: bool = False,
        watch: bool = False,
        protocol: Protocol = "http",
    ) -> Answered:
        """Feed one step of content. The reply is stored before this returns. Raises ServiceError; then nothing has moved."""
        self._quotas.step(owner)
        watched = model.hidden if watch else None
        job = Job(unset, session_id, owner, event, content=content, every=every, watch=watched, protocol=protocol)
        reply, states = await _ask(model, job)
        assert isinstance(reply, Result), "a feed is answered with Result"
        return Answered(reply, states)

    async def predict(self, model: ServedModel, contents: Sequence[Content], owner: str) -> list[Scores]:
        """Content without a session, in as few batches as fit; all of it is queued, or none. Cancelled, its work is dropped."""
        self._quotas.step(owner, len(contents))
        replies = await ask_all(model, [Job(unset, content=c) for c in contents])
        return [r.result for r, _ in replies if isinstance(r, Result) and isinstance(r.result, Scores)]

    async def generate(
        self, model: ServedModel, session_id: str, owner: str, event: Generate, watch: bool
    ) -> AsyncGenerator[tuple[Follow | Char | Result, States | None], None]:
        """Characters as they are emitted, each stored before it comes out here; a repeat begins with Follow or is one Result.

        Ends after a Char with a reason or a Result. Closing the iterator before that cuts the generate. Raises ServiceError.
        """
        self._quotas.step(owner)
        queue: asyncio.Queue[tuple[object, States | None]] = asyncio.Queue(LAG)

        def sink(value: object, states: States | None) -> None:
            if queue.full():
                return
            if queue.qsize() == LAG - 1 and isinstance(value, Char) and value.done is None:
                model.batcher.detach(session_id, sink)  # a client that does not read must not fill the memory
                value = Refused(Overloaded(f"{LAG} characters wait to be read; repeat the number to go on"))
            queue.put_nowait((value, states))

        model.batcher.submit(Job(sink, session_id, owner, event, watch=model.hidden if watch else None, protocol="stream"))
        ended = False
        try:
            while not ended:
                value, states = await queue.get()
                ended = isinstance(value, Refused | Result) or (isinstance(value, Char) and value.done is not None)
                if isinstance(value, Refused):
                    raise value.error
                assert isinstance(value, Follow | Char | Result), "a generate is answered with these"
                if isinstance(value, Char):
                    self._quotas.owe(owner)  # each character is a run of the model
                yield value, states
        finally:
            if not ended:
                model.batcher.detach(session_id, sink)

    async def cancel(self, model: ServedModel, session_id: str, owner: str, number: int | None) -> Result | None:
        """End a generate; None where there was none to end."""
        reply, _ = await _ask(model, Job(unset, session_id, owner, Cancel(number)))
        return reply if isinstance(reply, Result) else None

    async def delete(self, session_id: str, owner: str) -> None:
        """End a session. Raises UnknownSession, Gone."""
        try:
            model = await self.model_of(session_id, owner)
            reply = await self._ask(model, Job(unset, session_id, owner, Delete()))
        except ModelGone:
            for lost in range(DELETE_TRIES):
                session = await self._orphan(session_id, owner)
                if not await asyncio.to_thread(self._store.commit, [Change(session, None, lost)]):
                    self._quotas.session_ended(owner)
                    return
            raise Overloaded("another process keeps moving the session: try again") from None
        assert isinstance(reply, Deleted), "a delete is answered with Deleted"
        self._routes.pop(session_id, None)
        self._quotas.session_ended(owner)

    async def list(self, owner: str, limit: int) -> list[Session]:
        """Return an owner's living sessions, newest first."""
        return await asyncio.to_thread(self._store.list, owner, time.time(), limit)

    def route(self, session_id: str) -> ServedModel | None:
        """Return the model that a session was last seen on, if that is still loaded."""
        known = self._routes.get(session_id)
        if known is None:
            return None
        model = known[0]
        if self._models.exactly(model.manifest.name, model.manifest.version) is not model:
            del self._routes[session_id]
            return None
        return model

    async def model_of(self, session_id: str, owner: str) -> ServedModel:
        """Return the loaded model an owner's session belongs to. Raises UnknownSession, Gone, ModelGone."""
        known = self._routes.get(session_id)
        if known is None or known[1] != owner or self.route(session_id) is None:
            session = await self._stored(session_id, owner)
            model = self._models.exactly(session.model, session.version)
            if model is None:
                raise ModelGone(f"the session's model {session.model}/{session.version} is not loaded")
            if session.ended:
                return model  # not remembered: its end makes room once, however often it is sent
            known = model, owner
        self.remember(session_id, *known)
        return known[0]

    async def where_it_runs(self, session_id: str, owner: str, model: ServedModel, act: Callable[[ServedModel], Awaitable[R]]) -> R:
        """Return what `act` on a session gives with `model`, where it was last seen, or else with the model that the store says it is on.

        What raises ModelGone has moved nothing. Raises what `act` does, UnknownSession, Gone.
        """
        try:
            return await act(model)
        except ModelGone:
            other = await self.moved(session_id, owner, model)
            if other is None:
                raise
        return await act(other)

    async def moved(self, session_id: str, owner: str, model: ServedModel) -> ServedModel | None:
        """Return another model that a session runs on than `model`, which said that it was not its own; None where there is none.

        What was remembered is a hint, which others may have made wrong: it is dropped, and the store asked. Raises UnknownSession, Gone,
        ModelGone.
        """
        if self.route(session_id) is model:
            del self._routes[session_id]
        found = await self.model_of(session_id, owner)
        return None if found is model else found

    async def runs_on(self, model: ServedModel, session_id: str, owner: str) -> bool:
        """Whether a session runs on a model, or will by what is in flight or waits there; also where there is none. Raises StoreFailed."""
        try:
            await _ask(model, Job(unset, session_id, owner, in_order=True))
        except StoreFailed:
            raise
        except ServiceError as error:
            return not isinstance(error, ModelGone)
        return True

    async def _ask(self, model: ServedModel, job: Job) -> object:
        """Return the reply to a job, of a session from where that runs. Raises the error of a refusal."""
        if job.session_id is None:
            return (await _ask(model, job))[0]
        return (await self.where_it_runs(job.session_id, job.owner, model, partial(_ask, job=job)))[0]

    async def _stored(self, session_id: str, owner: str) -> Session:
        """Return the session as the store has it. To whom it does not belong it is not there."""
        session = (await asyncio.to_thread(self._store.load, [session_id])).get(session_id)
        if session is not None and session.owner == owner:
            return session
        if session is None and issued(self._store.key, session_id, owner):
            raise Gone("the session has expired or was deleted")
        raise UnknownSession(f"there is no session {session_id[:64]!r}")

    async def _orphan(self, session_id: str, owner: str) -> Session:
        """Return a session that no engine owns, as the store has it."""
        session = await self._stored(session_id, owner)
        if session.expires_at <= time.time():
            raise Gone("the session has expired")
        return session

    def forget(self, model: ServedModel) -> None:
        """Forget a model that was unloaded: nothing here may keep it in memory."""
        for session_id in [i for i, (known, _) in self._routes.items() if known is model]:
            del self._routes[session_id]

    def remember(self, session_id: str, model: ServedModel, owner: str) -> None:
        """Remember which model the session's next step will go to."""
        self._routes[session_id] = model, owner
        self._routes.move_to_end(session_id)
        if len(self._routes) > ROUTES:
            self._routes.popitem(last=False)


def ask_all(model: ServedModel, jobs: Sequence[Job]) -> Replies:
    """Queue jobs, all or none; what comes back has each one's reply, with the watched states, or raises the first error.

    Cancelled, those without a session are dropped. A step is not: it was numbered, and can be repeated.
    """
    future: Replies = asyncio.get_running_loop().create_future()
    replies: list[tuple[object, States | None]] = [(None, None)] * len(jobs)
    left = len(jobs)

    def sink(i: int, value: object, states: States | None) -> None:
        nonlocal left
        left -= 1
        if future.done():
            return  # another one was refused, or whoever asked is gone
        if isinstance(value, Refused):
            future.set_exception(_copy(value.error))
            return
        replies[i] = value, states
        if left == 0:
            future.set_result(replies)

    if not jobs:
        future.set_result([])
    for i, job in enumerate(jobs):
        job.sink = partial(sink, i)
    model.batcher.submit(*jobs)
    future.add_done_callback(partial(_drop_cancelled, model, jobs))
    return future


def _drop_cancelled(model: ServedModel, jobs: Sequence[Job], future: Replies) -> None:
    if future.cancelled():
        for job in jobs:
            if job.session_id is None:
                model.batcher.detach("", job.sink)


async def _ask(model: ServedModel, job: Job) -> tuple[object, States | None]:
    """Submit a job and wait for its one reply. Raises the error of a refusal."""
    return (await ask_all(model, [job]))[0]


def _copy(error: ServiceError) -> ServiceError:
    """One error may refuse a whole batch; each waiter raises its own, so that tracebacks do not pile up on it."""
    return type(error)(error.detail, field=error.field, **error.extra)
