"""An inference request on its way through the service, whatever carried it: which model, which jobs, and what its results answer."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import orjson

from service.body import aside
from service.errors import BadInput, NotReady, ServiceError, UnknownModel
from service.jobs import Job, unset
from service.models import Models, ServedModel
from service.oip import rows
from service.oip.ask import Ask
from service.oip.message import Answer
from service.oip.rows import Bounds, Rows
from service.repository import Repository
from service.session import Feed, Result, Session
from service.sessions import Replies, Sessions, ask_all
from service.settings import Settings


def sequence_owner(owner: str) -> str:
    """Whose a key's sequences are: not the key's own sessions, so that no native route lists, looks at or steps them."""
    return f"oip:{owner}"


@lru_cache(65_536)
def session_id(owner: str, model: str, sequence: int | str) -> str:
    """The session behind a correlation id: one per owner, model and id, of which 7 and "7" are two. No signed id has a colon."""
    return "seq:" + hashlib.blake2b(orjson.dumps([owner, model, sequence]), digest_size=20).hexdigest()


@dataclass(frozen=True, slots=True)
class Pending:
    """A queued request."""

    ask: Ask
    rows: Rows
    model: ServedModel
    replies: Replies

    async def answer(self) -> Answer:
        """The reply, when all of it is there. Raises ServiceError."""
        return answer(self.ask, self.rows, self.model, [r for r, _ in await self.replies if isinstance(r, Result)])


def answer(ask: Ask, read: Rows, model: ServedModel, results: Sequence[Result]) -> Answer:
    """What the results of a request's rows answer."""
    s = model.tensors
    outputs = rows.outputs(ask, s, read, results)
    if ask.sequence is None:
        return Answer(s.model, s.version, ask.id, outputs)
    return Answer(s.model, s.version, ask.id, outputs, results[0].number, results[0].position)


class Inference:
    """Answers inference requests. Everything a protocol needs besides reading and writing its own messages."""

    def __init__(self, models: Models, sessions: Sessions, settings: Settings, repository: Repository | None = None) -> None:
        self.models = models
        self.repository = repository
        self._sessions = sessions
        self._ttl = settings.session_ttl
        self._max_every = settings.max_every
        self._max_reply = settings.max_body
        self.max_rows = min(settings.max_sequences, settings.max_queue)
        """rows of a request without a sequence: they are queued all or none"""

    def model(self, name: str, version: str | None) -> ServedModel:
        """The version asked for, the highest for none. Raises UnknownModel."""
        try:
            model = self.models.exactly(name, version) if version else self.models.latest(name)
        except UnknownModel:
            raise self._unknown(name) from None
        if model is None:
            if not self.models.loaded(name):
                raise self._unknown(name)
            raise UnknownModel(f"Request for unknown model: '{name}' version {version} is not found")
        return model

    def _serving(self, name: str, version: str | None) -> ServedModel:
        """As model does, or the highest where none takes new sequences: those that it has go on. Raises UnknownModel."""
        try:
            return self.model(name, version)
        except UnknownModel:
            if version or not (loaded := self.models.loaded(name)):
                raise
            return loaded[-1]

    def _unknown(self, name: str) -> ServiceError:
        """In Triton's words, which tell a model that was never there from one that is not now."""
        states = {line.state for line in self.repository.index() if line.name == name} if self.repository else set()
        if states & {"LOADING", "UNLOADING"}:
            return NotReady(f"Request for unknown model: '{name}' is not at ready state")
        if states:
            return UnknownModel(f"Request for unknown model: '{name}' has no available versions")
        return UnknownModel(f"Request for unknown model: '{name[:80]}' is not found")

    def versions(self, name: str, version: str | None) -> list[ServedModel]:
        """The version asked for, all of a name's for none, all there are for no name. Raises UnknownModel."""
        if not name:
            return list(self.models)
        model = self.model(name, version)
        return [model] if version else self.models.versions(name)

    async def answer(self, ask: Ask, name: str, version: str | None, owner: str, size: int) -> Answer:
        """The reply to a request; of a sequence, its state is stored before this returns. Raises ServiceError; then nothing has moved."""
        return await (await self.begin(ask, await self.route(ask, name, version, owner), owner, size)).answer()

    async def route(self, ask: Ask, name: str, version: str | None, owner: str) -> ServedModel:
        """The model that is to answer: of a sequence that goes on, the one it began with. Raises ServiceError."""
        at_once = self.route_at_once(ask, name, version, owner)
        if at_once is not None:
            return at_once
        assert ask.sequence is not None, "what has no sequence goes anywhere"
        model, ident = self._serving(name, version), session_id(owner, name, ask.sequence)
        if ask.start:
            return await self._of_first_step(ident, self._sessions.route(ident), model, ask, owner)
        found = await self._sessions.model_of(ident, sequence_owner(owner))
        if version and found.manifest.version != version:
            raise BadInput(f"the sequence runs on version {found.manifest.version} of model '{name}', got a request for version {version}")
        return found

    def route_at_once(self, ask: Ask, name: str, version: str | None, owner: str) -> ServedModel | None:
        """As route does; None where the store has to be asked. Raises ServiceError."""
        model = self._serving(name, version)
        ask.check_sequence(name)
        if self.models.is_retired(model) and (ask.sequence is None or ask.start):
            raise UnknownModel(
                f"Request for unknown model: '{name}' version {model.manifest.version} is not at ready state: it takes nothing new"
            )
        if ask.sequence is None:
            return model
        if (ask.start or ask.end) and self._sessions.counts_sequences:
            return None
        known = self._sessions.route(session_id(owner, name, ask.sequence))
        return model if known is model or (known is None and self.models.only(name)) else None

    async def _of_first_step(self, ident: str, known: ServedModel | None, model: ServedModel, ask: Ask, owner: str) -> ServedModel:
        """Where a sequence begins whose id may be live on another version: there if it is the stored first step again, else anew.

        What was sent before it ends first. Nothing is removed: the new first step takes the old sequence's place in its one commit, and
        where it fails the old one goes on.
        """
        try:
            known = known or await self._sessions.model_of(ident, sequence_owner(owner))
            if known is model:
                return model
            session = await self._sessions.look(ident, sequence_owner(owner), in_order=True)
            digest = rows.read(ask, known.tensors, self.bounds(known)).digest(ask.end)
            if ask.step == session.step == 1 and session.last is not None and session.last.digest == digest:
                return known
        except ServiceError:
            pass  # it is not there any more, or cannot be had: the beginning says what is wrong
        return model

    async def begin(self, ask: Ask, model: ServedModel, owner: str, size: int) -> Pending:
        """Queues a request; `size` bytes of it are numbers that are still to be read. Raises ServiceError; then nothing is queued."""
        read = await aside(rows.read, size, ask, model.tensors, self.bounds(model))
        if ask.sequence is None or not (ask.start or ask.end):
            return Pending(ask, read, model, ask_all(model, self.jobs(ask, read, model, owner)))
        ident, holder = session_id(owner, model.manifest.name, ask.sequence), sequence_owner(owner)
        lasts = ask.start and not ask.end  # one that ends with its first step takes nobody's room
        counted = lasts and await self._sessions.count_sequence(ident, holder)
        try:
            replies = ask_all(model, self.jobs(ask, read, model, owner))
        except ServiceError:
            self._sessions.sequence_left(ident, holder, model, counted)
            raise
        replies.add_done_callback(partial(self._settled, ident, holder, model, ask, counted))
        return Pending(ask, read, model, replies)

    def _settled(self, ident: str, holder: str, model: ServedModel, ask: Ask, counted: bool, replies: Replies) -> None:
        """A sequence that has not begun, or has ended, is no longer where it was said to be, and counts no longer."""
        if replies.cancelled():
            return  # whoever asked has left: what was asked goes on
        failed = replies.exception() is not None
        if ask.start and (failed or ask.end):
            self._sessions.sequence_left(ident, holder, model, counted)
        elif ask.end and not failed:
            self._sessions.sequence_ended(ident, holder, model)

    def jobs(self, ask: Ask, read: Rows, model: ServedModel, owner: str) -> list[Job]:
        """What the engine is to do, charged to the owner; their sinks are still to be set. Raises RateLimited."""
        self._sessions.charge(owner, len(read.x))
        every = read.x.shape[1] > 1
        if ask.sequence is None:
            B = len(read.x)
            states = [None] * B if read.state is None else read.state
            return [
                Job(unset, content=read.content(b), every=every, state=states[b], patience=ask.timeout, protocol=ask.protocol)
                for b in range(B)
            ]
        content = read.content(0)
        ident = session_id(owner, model.manifest.name, ask.sequence)
        holder = sequence_owner(owner)
        fresh = self._fresh(ident, model, holder) if ask.start else None
        event = Feed(ask.step, read.digest(ask.end), content.length, model.manifest.limits.max_position, fresh, ask.end)
        if ask.start:
            self._sessions.remember(ident, model, holder)
        return [Job(unset, ident, holder, event, content=content, every=every, patience=ask.timeout, protocol=ask.protocol)]

    def _fresh(self, ident: str, model: ServedModel, holder: str) -> Session:
        now, m = time.time(), model.manifest
        return Session(ident, m.name, m.version, m.sha256, holder, np.zeros(m.state_size, np.float32), 0, 0, now, now + self._ttl)

    def bounds(self, model: ServedModel) -> Bounds:
        """How much a request to that model may hold."""
        steps = model.max_frames if model.manifest.kind == "action" else model.max_text
        return Bounds(self.max_rows, steps, min(steps, self._max_every), self._max_reply)
