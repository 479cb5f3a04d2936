"""An inference request on its way through the service, whatever carried it: which model, what its engine is asked, and what is answered."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import orjson

from indrnn.service.engine.requests import Content, Frames, InferRequest, StepRequest
from indrnn.service.errors import BadInput, ModelGone, NotReady, Overloaded, ServiceError, TooLarge, UnknownModel
from indrnn.service.oip import rows
from indrnn.service.oip.message import Ask, InferAnswer
from indrnn.service.oip.rows import InferLimits, Rows
from indrnn.service.serving.modality import innermost, more_options
from indrnn.service.serving.models import ServedModel, need_stream
from indrnn.service.serving.request import aside
from indrnn.service.serving.services import Services
from indrnn.service.serving.signature import Array
from indrnn.service.serving.skeleton import SkeletonModality, warned
from indrnn.service.serving.steps import Answered, tensor_digest, tensor_step
from indrnn.service.session.machine import Result, Scores


def sequence_owner(owner: str) -> str:
    """Return the owner of a key's sequences: not the key's own sessions, so that no native route lists, looks at or steps them."""
    return f"oip:{owner}"


@lru_cache(65_536)
def session_id(owner: str, model: str, sequence: int | str) -> str:
    """Return the session behind a correlation id: one per owner, model and id, of which 7 and "7" are two. No signed id has a colon."""
    return "seq:" + hashlib.blake2b(orjson.dumps([owner, model, sequence]), digest_size=20).hexdigest()


OF_THE_VERSION = (ModelGone, BadInput, TooLarge)
"""Errors that another version might not make: a sequence may have been begun anew on one, by another service."""


class InferAsked(NamedTuple):
    """A request, the model and version that it names, and whose it is; `size` bytes of it are numbers that are still to be read."""

    ask: Ask
    name: str
    version: str | None
    owner: str
    size: int


@dataclass(frozen=True, slots=True)
class QueuedInfer:
    """A request whose rows are queued."""

    asked: InferAsked
    rows: Rows
    model: ServedModel
    requests: Sequence[StepRequest | InferRequest]
    replies: asyncio.Future[list[Answered]]

    @property
    def refused(self) -> bool:
        """Return whether the version it was sent to is known to refuse it as none of its own."""
        done = self.replies.done() and not self.replies.cancelled()
        return done and isinstance(self.replies.exception(), ModelGone)

    def leave(self) -> None:
        """Nobody will read the answer."""
        self.replies.cancel()

    async def answer(self) -> InferAnswer:
        """Return the reply, when all of it is there. Raises ServiceError."""
        results = [a.reply for a in await self.replies if isinstance(a.reply, Result)]
        return answer(self.asked.ask, self.rows, self.model, self.requests, results)  # type: ignore[arg-type]  # of content


@dataclass(frozen=True, slots=True)
class Misread:
    """A step of a sequence that could not be queued: it is wrong, or it is for another version."""

    asked: InferAsked
    model: ServedModel
    error: ServiceError

    refused = True

    def leave(self) -> None:
        """Nothing of it waits."""

    async def answer(self) -> InferAnswer:
        """Raise the error for which the step could not be queued."""
        raise self.error


def answer(
    ask: Ask, read: Rows, model: ServedModel, requests: Sequence[StepRequest | InferRequest], results: Sequence[Result[Scores]]
) -> InferAnswer:
    """Return what the results of a request's rows answer."""
    s = model.tensors
    outputs = rows.outputs(ask, s, read, results)
    warnings = warnings_of(requests, results)
    if ask.sequence is None:
        return InferAnswer(s.model, s.version, ask.id, outputs, warnings=warnings)
    return InferAnswer(s.model, s.version, ask.id, outputs, results[0].number, results[0].position, warnings)


MOST_WARNINGS = 16  # of one reply


def content_of(ask: Ask, read: Rows, model: ServedModel, row: int) -> Content:
    """Return the content of one row as the model's modality has it. Raises BadInput."""
    content = read.content(row)
    if not ask.more and nothing_at_zero(content.x):
        return content  # as it is
    modality = innermost(model.modality)
    if isinstance(modality, SkeletonModality):
        return modality.of_tensor(content.x, ask.more, "indrnn_")
    more_options(modality, {f"indrnn_{name}": value for name, value in ask.more.items()}, "indrnn_")  # it has none
    return content


def nothing_at_zero(x: Array) -> bool:
    """Return whether no joint of x [..., J, 3] stands at 0 on all axes, but for those of absent persons; symbols are no joints."""
    if x.dtype.kind == "i" or x.ndim < 2:
        return True
    raw, zero = x.tobytes(), bytes(x.itemsize)
    if 3 * zero not in raw and zero[1:] + b"\x80" not in raw:  # no three zeros, no -0: a twentieth of the time of what follows
        return True
    seen = x.any(-1)
    return bool(seen.all() or (seen.all(-1) | ~seen.any(-1)).all())


def warnings_of(requests: Sequence[StepRequest | InferRequest], results: Sequence[Result[Scores]]) -> str:
    """Return what the client should be told of its rows, a line each; empty where there is nothing."""
    told: list[str] = []
    for b, (request, r) in enumerate(zip(requests, results, strict=True)):
        content, doubts = request.content, r.result.doubts
        if doubts or (type(content) is Frames and content.warnings):
            texts = warned(content, doubts)["warnings"]
            told += [f"row {b}: {text}" for text in texts] if len(results) > 1 else texts
    return "\n".join(told[:MOST_WARNINGS])


class Inference:
    """Answers inference requests. Everything a protocol needs besides reading and writing its own messages."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self.models = services.models
        self.steps = services.steps
        self._repository = services.repository
        self._sessions = services.sessions
        self._registry = services.registry
        self._max_every = settings.max_every
        self._max_reply = settings.max_body
        self.max_rows = min(settings.max_sequences, settings.max_queue)
        """rows of a request without a sequence: they are queued all or none"""

    def model(self, name: str, version: str | None) -> ServedModel:
        """Return the version asked for, the highest for none. Raises UnknownModel."""
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
        """Return what `model` does, or the highest where none takes new sequences: those that it has go on. Raises UnknownModel."""
        try:
            return self.model(name, version)
        except UnknownModel:
            if version or not (loaded := self.models.loaded(name)):
                raise
            return loaded[-1]

    def _unknown(self, name: str) -> ServiceError:
        """In Triton's words, which tell a model that was never there from one that is not now."""
        states = {line.state for line in self._repository.index() if line.name == name}
        if states & {"LOADING", "UNLOADING"}:
            return NotReady(f"Request for unknown model: '{name}' is not at ready state")
        if states:
            return UnknownModel(f"Request for unknown model: '{name}' has no available versions")
        return UnknownModel(f"Request for unknown model: '{name[:80]}' is not found")

    def versions(self, name: str, version: str | None) -> list[ServedModel]:
        """Return the version asked for, all of a name's for none, all there are for no name. Raises UnknownModel."""
        if not name:
            return list(self.models)
        model = self.model(name, version)
        return [model] if version else self.models.versions(name)

    async def answer(self, asked: InferAsked) -> InferAnswer:
        """The reply to a request; of a sequence, its state is stored before this returns. Raises as `StepRouter.step` does."""
        return await self.answered(await self.begin(asked, await self.route(asked)))

    async def answered(self, pending: QueuedInfer | Misread) -> InferAnswer:
        """The reply to what was begun, from where its sequence is now if that is elsewhere. Raises as `StepRouter.step` does."""
        try:
            return await pending.answer()
        except OF_THE_VERSION as error:
            if not (pending.asked.ask.goes_on and pending.refused):
                raise
            other = await self.moved(pending.asked, pending.model, error)
            if other is None:
                raise
        return await (await self.begin(pending.asked, other, paid=True)).answer()

    async def moved(self, asked: InferAsked, model: ServedModel, error: ServiceError) -> ServedModel | None:
        """Return another model that a sequence is on than the one that made an error of its step; None where the error is the answer.

        Of content that could not be read, that model's engine says whose it is: it knows what is about to be stored. What waits there is
        charged as a step is, and where no other version is loaded there is nothing to ask. Raises ServiceError.
        """
        ident, holder = session_id(asked.owner, asked.name, asked.ask.sequence or ""), sequence_owner(asked.owner)
        if not isinstance(error, ModelGone):
            if self.models.only(asked.name):
                return None
            self.steps.charge(asked.owner)
            if await self._sessions.runs_on(model, ident, holder):
                return None
        return await self.steps.moved(ident, holder, model)

    async def route(self, asked: InferAsked) -> ServedModel:
        """Return the model that is to answer: of a sequence that goes on, the one it was last seen on. Raises ServiceError."""
        ask, name, version, owner, _ = asked
        at_once = self.route_at_once(ask, name, version, owner)
        if at_once is not None:
            return at_once
        assert ask.sequence is not None, "what has no sequence goes anywhere"
        model, ident = self._serving(name, version), session_id(owner, name, ask.sequence)
        if ask.start:
            return await self._of_first_step(ident, self.steps.route(ident), model, asked)
        return await self.steps.model_of(ident, sequence_owner(owner))

    def route_at_once(self, ask: Ask, name: str, version: str | None, owner: str) -> ServedModel | None:
        """Return the model that `route` does, or None where the store has to be asked. Raises ServiceError."""
        model = self._serving(name, version)
        ask.check_sequence(name)
        if self.models.is_retired(model) and (ask.sequence is None or ask.start):
            raise UnknownModel(
                f"Request for unknown model: '{name}' version {model.manifest.version} is not at ready state: it takes nothing new"
            )
        if ask.sequence is None:
            return model
        need_stream(model.manifest)
        if (ask.start or ask.end) and self._registry.quotas.counts_sessions:
            return None
        if ask.start and ask.step == 1 and version is None and not self.models.only(name):
            return None  # it may be stored on another version than that which is remembered
        known = self.steps.route(session_id(owner, name, ask.sequence))
        return model if known is model or (known is None and self.models.only(name)) else None

    async def _of_first_step(self, ident: str, known: ServedModel | None, model: ServedModel, asked: InferAsked) -> ServedModel:
        """Return where a sequence begins whose id may live on another version: there if it is the stored first step again, else anew.

        One that names another version than the stored one's is no repeat. What was sent before it ends first. Nothing is removed: the new
        first step takes the old sequence's place in its one commit, and where it fails the old one goes on.
        """
        ask, holder = asked.ask, sequence_owner(asked.owner)
        try:
            known = known or await self.steps.model_of(ident, holder)
            may_repeat = ask.step == 1 and asked.version is None
            if known is model and not may_repeat:
                return model
            session = await self._sessions.look(ident, holder, in_order=True)
            known = self.models.exactly(session.model, session.version)  # by now, or all along: what was known may have been wrong
            if known is None or not may_repeat or session.step != 1 or session.last is None:
                return model
            read = rows.read(ask, known.tensors, self.bounds(known))
            if session.last.digest == tensor_digest(content_of(ask, read, known, 0), read.x.shape[1], ask.end):
                return known
        except Overloaded:
            raise  # only what is known is full: a beginning elsewhere would overtake what waits there, or be made twice
        except ServiceError:
            pass  # it is not there any more, or cannot be had: the beginning says what is wrong
        return model

    async def begin(self, asked: InferAsked, model: ServedModel, paid: bool = False) -> QueuedInfer | Misread:
        """Queue a request. Raises ServiceError where nothing is queued, and no other model could do it."""
        try:
            return await self._begin(asked, model, paid)
        except OF_THE_VERSION as error:
            if not asked.ask.goes_on:
                raise
            return Misread(asked, model, error)

    async def _begin(self, asked: InferAsked, model: ServedModel, paid: bool) -> QueuedInfer:
        ask, name, version, owner, size = asked
        if ask.goes_on and version and model.manifest.version != version:
            raise BadInput(f"the sequence runs on version {model.manifest.version} of model '{name}', got a request for version {version}")
        read = await aside(rows.read, size, ask, model.tensors, self.bounds(model))
        if ask.sequence is None or not (ask.start or ask.end):
            requests = self.requests(ask, read, model, owner, paid)
            return QueuedInfer(asked, read, model, requests, self._queue(model, requests))
        ident, holder = session_id(owner, model.manifest.name, ask.sequence), sequence_owner(owner)
        lasts = ask.start and not ask.end  # one that ends with its first step takes nobody's room
        counted = lasts and await self._registry.count_sequence(ident, holder)
        try:
            requests = self.requests(ask, read, model, owner, paid)
            replies = self._queue(model, requests)
        except ServiceError:
            self._sessions.sequence_left(ident, holder, model, counted)
            raise
        replies.add_done_callback(partial(self._settled, ident, holder, model, ask, counted))
        return QueuedInfer(asked, read, model, requests, replies)

    def _settled(
        self, ident: str, holder: str, model: ServedModel, ask: Ask, counted: bool, replies: asyncio.Future[list[Answered]]
    ) -> None:
        """A sequence that has not begun, or has ended, is no longer where it was said to be, and counts no longer."""
        if replies.cancelled():
            return  # whoever asked has left: what was asked goes on
        failed = replies.exception() is not None
        if ask.start and (failed or ask.end):
            self._sessions.sequence_left(ident, holder, model, counted)
        elif ask.end and not failed:
            self._sessions.sequence_ended(ident, holder, model)

    def _queue(self, model: ServedModel, requests: Sequence[StepRequest | InferRequest]) -> asyncio.Future[list[Answered]]:
        return self.steps.tickets.ask_all(model.port, requests)

    def requests(self, ask: Ask, read: Rows, model: ServedModel, owner: str, paid: bool = False) -> Sequence[StepRequest | InferRequest]:
        """Return what the engine is asked, charged to the owner. Raises RateLimited."""
        contents = [content_of(ask, read, model, b) for b in range(len(read.x))]
        if not paid:
            self.steps.charge(owner, len(read.x))
        T, tell_state = read.x.shape[1], rows.tells_state(ask, read)
        if ask.sequence is None:
            states = [None] * len(contents) if read.state is None else read.state
            return [InferRequest(contents[b], T > 1, states[b], ask.timeout, ask.protocol, tell_state) for b in range(len(contents))]
        ident, holder = session_id(owner, model.manifest.name, ask.sequence), sequence_owner(owner)
        if ask.start:
            self.steps.remember(ident, model, holder)
        return [tensor_step(ident, holder, ask.step, contents[0], T, ask.start, ask.end, ask.timeout, ask.protocol, tell_state)]

    def bounds(self, model: ServedModel) -> InferLimits:
        """Return how much a request to that model may hold."""
        steps = model.modality.max_steps
        return InferLimits(self.max_rows, steps, min(steps, self._max_every * model.tensors.window), self._max_reply)
