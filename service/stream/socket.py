"""WS /stream/{model}: JSON messages to and from sessions.py.

One socket drives one session. Its messages run in order; only `cancel` overtakes, because it ends the generate that is in flight. An
error is a message; the connection stays open.
"""

import asyncio
import base64
import logging
import secrets
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import orjson
from starlette.responses import Response
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from indrnn.export.bundle import Manifest
from indrnn.service.engine.requests import Content, GenerateRequest, States
from indrnn.service.engine.runtime import frames_of
from indrnn.service.errors import (
    BadInput,
    ForbiddenOrigin,
    NotFound,
    Overloaded,
    ServiceError,
    Stopping,
    TooLarge,
    Unauthorized,
    problem_document,
    said,
    status,
    unanswered,
)
from indrnn.service.logs import about
from indrnn.service.serving.modality import (
    NO_MORE,
    READ_OPTIONS,
    STEP_CONTENT,
    EventModality,
    Place,
    at_times,
    content_of_step,
    more_options,
    with_more,
)
from indrnn.service.serving.models import Models, ServedModel
from indrnn.service.serving.request import aside, boolean, integer, number, only, parse_object, size_of, step_number
from indrnn.service.serving.services import Services
from indrnn.service.serving.steps import StepOptions, native_generate, native_step, options_key, replacing_key, same_version
from indrnn.service.serving.text import TextModality, replaced, replaces, stop_texts
from indrnn.service.session.machine import Char, Follow, Generated, Reason, Result, Sampling
from indrnn.service.session.sampling import log_softmax
from indrnn.service.settings import Settings
from indrnn.service.stream.plain_steps import FastPath, Intake, worded
from indrnn.service.wire.http import path_below
from indrnn.service.wire.websocket import EXTENSION, Wire

log = logging.getLogger(__name__)

BACKLOG = 64  # messages read ahead while a generate is in flight
WATCHED_STEPS = 64  # time steps of one message of a watched session
STOPPING = Stopping("the service stops: open again with the session's id, and repeat by number what was not answered", retry_after=1)
MAX_SEED = 2**63 - 1


class _Closed(Exception):
    """The client is gone."""


@dataclass(slots=True)
class _Options:
    """The options that `open` chose for the life of the connection."""

    layout: str | None
    hz: float | None
    top_k: int
    every: bool
    events: bool = False
    key: bytes = b""
    more: Mapping[str, object] = field(default_factory=lambda: NO_MORE)
    replace: bool = False
    rate: float | None = None
    """the session's frames per second, which hz need not say of one that goes on"""


class Channel:
    """One connection's messages, in and out."""

    def __init__(self, socket: WebSocket, settings: Settings) -> None:
        self.wire: Wire | None = socket.scope.get("extensions", {}).get(EXTENSION, {}).get("wire")
        self.fast: FastPath | None = None
        """the way of plain steps past the stream's task, once the stream is open"""
        self.watched = False
        """whether the fast path stays shut"""
        self.idle = asyncio.Event()
        """set while nothing that came is without its answer"""
        self.reading: asyncio.Task[str | bytes] | None = None
        """a message that is waited for while a generate is in flight"""
        self.opened = False
        """whether the session is known: before that a client has to hurry"""
        self._socket = socket
        self._settings = settings

    async def receive(self) -> str | bytes:
        """Receive the next message, also one that was being waited for while a generate was in flight. Meanwhile the fast path is open."""
        self.idle.set()
        try:
            return await self.receive_one()
        finally:
            self.idle.clear()

    async def receive_one(self) -> str | bytes:
        """Receive the next message, whatever else is in flight."""
        reading, self.reading = self.reading, None
        if self.fast is None or reading is not None:
            return await (self.next() if reading is None else reading)
        self.fast.open = not self.watched
        try:
            raw = await self.next()
        finally:
            self.fast.open = False
        await self.fast.clear()
        return raw

    async def next(self) -> str | bytes:
        """Receive a message from the socket itself. Raises _Closed when the client is gone."""
        message = await (self._socket.receive() if self.opened else self._first())
        if message["type"] == "websocket.disconnect":
            raise _Closed
        text = message.get("text")
        return text if text is not None else message.get("bytes") or b""

    async def _first(self) -> Message:
        """Return a message before `open`: who says nothing may not keep the place."""
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                return await self._socket.receive()
        except TimeoutError:
            await self._socket.close(1008, "expected an open message")
            raise _Closed from None

    async def send(self, body: dict[str, object]) -> None:
        """Send a message. Raises _Closed when the client is gone, or does not read."""
        if self._socket.application_state is not WebSocketState.CONNECTED:
            raise _Closed
        text = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY).decode()
        try:
            async with asyncio.timeout(self._settings.send_timeout):
                await self._socket.send({"type": "websocket.send", "text": text})
        except TimeoutError:
            raise _Closed from None  # a client that does not read may not keep its place

    async def parsed(self, raw: str | bytes) -> dict[str, object]:
        """Return what a message says. Raises NotJson, NotFinite, BadInput, TooLarge."""
        return await aside(self._parse, len(raw), raw)

    def _parse(self, raw: str | bytes) -> dict[str, object]:
        size = len(raw)
        if isinstance(raw, str) and size <= self._settings.max_body < 4 * size:
            size = len(raw.encode("utf-8", "surrogatepass"))
        if size > self._settings.max_body:
            raise TooLarge(f"expected a message of at most {self._settings.max_body} bytes, got {size}")
        return parse_object(raw, "message")

    def abandon(self) -> None:
        """Drop the connection of a client that does not read."""
        if self.wire is not None:
            self.wire.transport.abort()


class Stream:
    """One connection of a client that streams to a model."""

    def __init__(self, socket: WebSocket, model: ServedModel, services: Services, intake: Intake) -> None:
        self._socket = socket
        self._channel = Channel(socket, services.settings)
        self._services = services
        self._access = services.access
        self._owner = ""  # nobody's until `open`
        self._intake = intake
        self._model = model
        self._sessions = services.sessions
        self._steps = services.steps
        self._settings = services.settings
        self._session_id: str | None = None
        self._options = _Options(None, None, 5, False)
        self._backlog: deque[tuple[dict[str, object], int]] = deque()  # messages read ahead, and their sizes

    async def run(self) -> None:
        """Answer messages until the client goes."""
        try:
            while True:
                try:
                    waiting = self._backlog.popleft()[0] if self._backlog else None
                    await self._answer(await self._channel.parsed(await self._channel.receive()) if waiting is None else waiting)
                except ServiceError as error:
                    await self._channel.send({"type": "error", **error.body()})
                except (_Closed, WebSocketDisconnect, OSError):
                    raise
                except Exception as error:  # a bug: told and logged, and the connection stays open
                    log.exception("a message could not be answered", extra=about(self._model.manifest, self._session_id))
                    await self._channel.send({"type": "error", **unanswered(error).body()})
        except (_Closed, WebSocketDisconnect, OSError):
            return
        finally:
            if self._channel.reading is not None:
                self._channel.reading.cancel()

    def abandon(self) -> None:
        """Drop the connection of a client that does not read."""
        self._channel.abandon()

    # --- messages ---------------------------------------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Tell the client, once all that came has been answered, to come back, and close: the service stops."""
        await self._channel.idle.wait()
        if self._channel.fast is not None:
            await self._channel.fast.clear()
        await self._channel.send({"type": "error", **STOPPING.body()})
        await self._socket.close(1012, "the service stops: open again with the session's id")
        while self._channel.wire is not None and not self._channel.wire.disconnected:  # noqa: ASYNC110  # until the client has closed too; uvicorn says so here
            await asyncio.sleep(0.01)

    async def _answer(self, message: dict[str, object]) -> None:
        kind = message.get("type")
        if kind == "step":
            await self._step(message)
        elif kind == "open":
            await self._open(message)
        elif kind == "generate":
            await self._generate(message)
        elif kind == "cancel":
            ended = await self._cancel(message)
            if ended is not None and ended.result.reason is not None:
                await self._send_done(ended.number, ended.position, ended.result.reason)
        elif kind == "watch":
            await self._start_watching(message)
        else:
            raise BadInput(f"expected open, step, generate, cancel or watch, got {said(kind)}", field="type")

    def _need_session(self) -> str:
        if self._session_id is None:
            raise BadInput("expected an open message first", field="type")
        return self._session_id

    async def _open(self, message: dict[str, object]) -> None:
        only(
            message,
            ("type", "session_id", "layout", "hz", *READ_OPTIONS, "top_k", "every", "api_key", "version", "keep", "unknown", "events"),
        )
        if self._session_id is not None:
            raise BadInput("expected one open message per connection, got a second", field="type")
        key = message.get("api_key")
        self._owner = self._access.owner_of(self._socket.headers) if key is None else self._access.owner_of_key(key)
        wanted = message.get("session_id")
        if wanted is None:
            self._model = self._services.models.choose(self._model.manifest.name, message.get("version"))
            options = self._read_options(message)
            keep = integer(message.get("keep"), "keep", 0, self._services.settings.max_keep, 0)
            session = await self._sessions.open(self._model, self._owner, protocol="stream", keep=keep)
        elif isinstance(wanted, str):
            self._model = await self._same_model(wanted)
            same_version(message.get("version"), self._model)
            options = self._read_options(message)
            session = await self._sessions.look(wanted, self._owner)
            self._services.totals.resumed[self._model.manifest.name, self._model.manifest.version] += 1
        else:
            raise BadInput(f"expected a session's id or null, got {said(wanted)}", field="session_id")
        options.rate = options.hz or (session.carry.hz if session.carry is not None else None)
        self._session_id, self._options = session.id, options
        self._channel.opened = True
        if self._channel.wire is not None:
            self._channel.wire.opened()
        self._open_fast_path(session.id, options)
        cut = session.unfinished
        pending = None if cut is None else {"step": session.step, "text": cut.text}
        standing = {"session_id": session.id, "step": session.step, "position": session.position}
        await self._channel.send({"type": "opened", **standing, "model": session.model, "version": session.version, "pending": pending})

    def _open_fast_path(self, session_id: str, o: _Options) -> None:
        if self._channel.wire is None or o.every or o.more or o.events or self._steps.charges:
            return
        s = self._settings
        limits = s.send_timeout, s.max_body
        self._channel.fast = FastPath(
            self._channel.wire, self._intake, self._model, session_id, self._owner, o.layout, o.hz, o.top_k, o.key, *limits
        )
        if (trace := self._steps.tickets.trace) is not None:
            self._channel.fast.parent = trace.here
        self._channel.wire.taker = self._channel.fast.offer

    def _read_options(self, message: dict[str, object]) -> _Options:
        every = boolean(message.get("every"), "every")
        top_k = integer(message.get("top_k"), "top_k", 1, 2**31, 5)
        modality, m = self._model.modality, self._model.manifest
        if every:
            _need_scores(m)
        given = with_more(more_options(modality, message))
        layout, hz, more = modality.check_options(message.get("layout"), message.get("hz"), **given)
        replace = replaces(modality, message.get("unknown"))
        events = boolean(message.get("events"), "events")
        if events and not isinstance(modality, EventModality):
            raise BadInput(f"expected false: model {m.name} tells no events", field="events")
        key = options_key(modality.field, StepOptions(hz, top_k, every))
        return _Options(layout, hz, top_k, every, events, key, more, replace)

    async def _same_model(self, session_id: str) -> ServedModel:
        model = await self._steps.model_of(session_id, self._owner)
        if model.manifest.name != self._model.manifest.name:
            raise BadInput(f"expected a session of {self._model.manifest.name}, got one of {model.manifest.name}", field="session_id")
        return model

    async def _find_model(self, session_id: str) -> None:
        """The session's model may have been unloaded and loaded again: then its engine is another one. Raises ServiceError."""
        if not self._model.port.stopping:
            return
        self._model = await self._steps.model_of(session_id, self._owner)
        if self._channel.fast is not None:
            self._channel.fast.model = self._model

    async def _start_watching(self, message: dict[str, object]) -> None:
        only(message, ("type", "neurons"))
        self._need_session()
        self._channel.watched = boolean(message.get("neurons"), "neurons")
        parts = [p.model_dump(include={"layer", "size", "activation"}) for p in self._model.watched_parts] if self._channel.watched else []
        await self._channel.send({"type": "watching", "parts": parts})

    # --- step -------------------------------------------------------------------------------------------------------------------------

    async def _step(self, message: dict[str, object]) -> None:
        session_id = self._need_session()
        await self._find_model(session_id)
        o, modality = self._options, self._model.modality
        field, value = content_of_step(modality, message, self._model.manifest)
        only({name: sent for name, sent in message.items() if name not in STEP_CONTENT}, ("type", "step", field, "t"))
        unread: str | None = None
        content: Content
        if o.replace and isinstance(modality, TextModality):
            content, unread = await aside(modality.read_replacing, size_of(value), value, field)
        else:
            read = partial(modality.read, **with_more(at_times(modality, o.more, message.get("t"), "t")))
            content = await aside(read, size_of(value), value, o.layout, o.hz, field)
        length = max(len(content.x), frames_of(content, self._model.manifest.hz))
        _check_length(length, field, o.every and self._settings.max_every, self._channel.watched)
        await self._feed(session_id, step_number(message.get("step")), content, unread)

    async def _feed(self, session_id: str, number: int | None, content: Content, unread: str | None) -> None:
        o = self._options
        every = o.every or self._model.modality.each_step
        key = replacing_key(o.key, unread or "")
        request = native_step(session_id, self._owner, number, content, key, every, self._channel.watched, "stream")
        result, states = await self._steps.step(self._model, request)
        modality, scores = self._model.modality, result.result
        reply = worded(result, modality.word([(scores, content)], o.top_k)[0])
        if isinstance(modality, EventModality):
            if o.events:
                for event in modality.events(result.result, Place(result.position, o.rate)):
                    await self._channel.send({"type": "event", "step": result.number, **event})
            scores = modality.scored(scores)
        if o.every:
            reply["scores"] = np.ascontiguousarray(np.exp(log_softmax(scores.every)))
        if unread:
            reply["replaced"] = replaced(unread)
        await self._channel.send({**reply, **_states(states)})

    # --- generate ---------------------------------------------------------------------------------------------------------------------

    async def _generate(self, message: dict[str, object]) -> None:
        session_id = self._need_session()
        await self._find_model(session_id)
        only(message, ("type", "step", "max_chars", "temperature", "top_p", "seed", "stop"))
        request = self._read_generate(session_id, message)
        emitting = asyncio.create_task(self._emit(request))
        try:
            await asyncio.sleep(0)  # the generate is queued now, before any cancel of it
            await self._cancel_if_asked_before(request.number)
            while not emitting.done():
                if self._channel.reading is None:
                    self._channel.reading = asyncio.create_task(self._channel.next())
                tasks = {emitting} if self._channel.reading is None else {emitting, self._channel.reading}
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if self._channel.reading is not None and self._channel.reading.done():
                    await self._read_ahead(await self._channel.receive_one(), request.number)
            await emitting
        finally:
            emitting.cancel()  # a lost connection cuts the generate
            await asyncio.gather(emitting, return_exceptions=True)

    def _read_generate(self, session_id: str, message: dict[str, object]) -> GenerateRequest:
        if not isinstance(self._model.modality, TextModality):
            raise BadInput(f"model {self._model.manifest.name} reads no text and generates nothing", field="type")
        number_sent = step_number(message.get("step"))
        max_chars = integer(message.get("max_chars"), "max_chars", 1, self._settings.max_generate, 200)
        temperature = number(message.get("temperature"), "temperature", 0, 10, 1)
        top_p = number(message.get("top_p"), "top_p", 0, 1, 1)
        stop = stop_texts(message.get("stop"))
        seed = message.get("seed")
        sent = None if seed is None else integer(seed, "seed", 0, MAX_SEED)
        sampling = Sampling(max_chars, temperature, top_p, secrets.randbelow(MAX_SEED) if sent is None else sent, stop)
        return native_generate(session_id, self._owner, number_sent, sampling, sent, self._channel.watched)

    async def _read_ahead(self, raw: str | bytes, running: int | None) -> None:
        """A message that came while a generate is in flight: a cancel of it counts now, anything else waits its turn."""
        try:
            message = await self._channel.parsed(raw)
            if message.get("type") == "cancel" and (running is None or message.get("step") in (None, running)):
                await self._cancel(message)
                return
            waiting = sum(size for _, size in self._backlog)
            if len(self._backlog) >= BACKLOG or waiting + len(raw) > self._settings.max_body:
                raise Overloaded(f"{len(self._backlog)} messages of {waiting} bytes wait for the generate already")
        except ServiceError as error:
            await self._channel.send({"type": "error", **error.body()})
            return
        self._backlog.append((message, len(raw)))

    async def _cancel_if_asked_before(self, number: int | None) -> None:
        """A cancel of this generate may have been read while an earlier one was in flight."""
        asked = [item for item in self._backlog if number is not None and item[0].get("type") == "cancel" and item[0].get("step") == number]
        for item in asked:
            self._backlog.remove(item)
            await self._cancel(item[0])

    async def _cancel(self, message: dict[str, object]) -> Result[Generated] | None:
        """End the generate of that number; its `done` goes to whoever follows it. One that has ended already stays as it is: None.

        So is one that could not be ended: an error would be taken for the answer to the generate, or to the next message.
        """
        only(message, ("type", "step"))
        session_id, step = self._need_session(), step_number(message.get("step"))
        try:
            await self._find_model(session_id)
            return await self._sessions.cancel(self._model, session_id, self._owner, step)
        except ServiceError as error:
            log.info("a cancel failed: %s", error.detail, extra=about(self._model.manifest, session_id, step))
            return None

    async def _emit(self, request: GenerateRequest) -> None:
        """Characters as they come. A repeat begins with those that are stored; what then comes is new."""
        sent = False
        async with aclosing(self._steps.generate(self._model, request)) as emissions:
            async for value, states in emissions:
                if isinstance(value, Char):
                    await self._send_char(value.number, value.char, value.logprob, states if self._channel.watched else None)
                    if value.done:
                        await self._send_done(value.number, value.position, value.done)
                elif isinstance(value, Follow):
                    await self._replay(value.number, value.generated)
                else:
                    await self._send_end(value, replay=not sent)
                sent = True

    async def _send_end(self, result: Result[Generated], replay: bool) -> None:
        assert result.result.reason is not None, "it has ended"
        if replay:
            await self._replay(result.number, result.result)
        await self._send_done(result.number, result.position, result.result.reason)

    async def _replay(self, step: int, generated: Generated) -> None:
        for char, logprob in zip(generated.text, generated.logprobs.tolist(), strict=True):
            await self._send_char(step, char, logprob, None)

    async def _send_char(self, step: int, char: str, logprob: float, states: States | None) -> None:
        shown = float(np.float32(logprob))  # as it is stored, so that a repeat says the same
        await self._channel.send({"type": "char", "step": step, "char": char, "logprob": shown, **_states(states)})

    async def _send_done(self, step: int, position: int, reason: Reason) -> None:
        await self._channel.send({"type": "done", "step": step, "position": position, "reason": reason.value})


def _states(states: States | None) -> dict[str, object]:
    """Return the watched neurons [t, n] as base64 float16, little-endian."""
    return {} if states is None else {"states": base64.b64encode(states.astype("<f2").tobytes()).decode(), "shape": states.shape}


def _need_scores(m: Manifest) -> None:
    """Raise BadInput where a model has no scores of each time step."""
    if m.words is not None:
        raise BadInput("expected false: each question is answered with its scores, and a sentence that is told has none", field="every")
    if m.labels is None and m.alphabet is None:
        raise BadInput("expected false: the model answers values, which have no scores", field="every")


def _check_length(length: int, field: str, scored: int, watched: bool) -> None:
    """scored: time steps that may be scored one by one, 0 where none is. Raises TooLarge."""
    if scored and length > scored:
        raise TooLarge(f"expected at most {scored} time steps in a message where every one is scored, got {length}", field=field)
    if watched and length > WATCHED_STEPS:
        raise TooLarge(f"expected at most {WATCHED_STEPS} time steps in a message of a watched session, got {length}", field=field)


class Connections:
    """The open streams, and the route that opens them."""

    def __init__(self, services: Services, intake: Intake) -> None:
        self._services = services
        self._intake = intake
        self._streams: set[Stream] = set()
        self._leaving = False

    async def accept(self, socket: WebSocket) -> None:
        """Serve one connection to WS /stream/{model}."""
        try:
            self._check(socket)
        except ServiceError as error:
            await _deny(socket, error)
            return
        await socket.accept()
        if self._leaving:
            await socket.send_text(orjson.dumps({"type": "error", **STOPPING.body()}).decode())
            await socket.close(1012)
            return
        with ExitStack() as stack:
            try:
                stack.enter_context(self._services.places.one("stream"))
            except Overloaded as error:
                await socket.send_text(orjson.dumps({"type": "error", **error.body()}).decode())
                await socket.close(1013)
                return
            await self._serve(socket)

    async def deny(self, socket: WebSocket) -> None:
        """Answer a handshake for a path where there is no stream."""
        await _deny(socket, NotFound(f"there is no stream at {path_below(socket.scope)[:200]}: expected /stream/MODEL"))

    def _check(self, socket: WebSocket) -> None:
        """Raises ServiceError where a handshake is not to be accepted."""
        access = self._services.access
        if not access.allows_origin(socket.headers):
            origin = said(socket.headers["origin"])
            raise ForbiddenOrigin(f"expected a page of this host or one that INDRNN_ORIGINS names, got one of {origin}")
        access.check_named_key(socket.headers)

    async def leave(self, seconds: float) -> None:
        """Tell every client to come back, once its last message has been answered; who does not read by then is dropped."""
        self._leaving = True
        going = {asyncio.create_task(stream.leave()): stream for stream in self._streams}
        if not going:
            return
        done, stuck = await asyncio.wait(going, timeout=seconds)
        for task in stuck:
            task.cancel()
            going[task].abandon()
        for task in done:
            task.exception()  # a client that has left meanwhile needs no goodbye

    async def _serve(self, socket: WebSocket) -> None:
        model = await _model_of(socket, self._services.models)
        if model is None:
            return
        stream = Stream(socket, model, self._services, self._intake)
        self._streams.add(stream)
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)


async def _deny(socket: WebSocket, error: ServiceError) -> None:
    """Answer a handshake with an error, as a request over HTTP is."""
    log.info("a stream was refused: %s", error.detail)
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else {}
    body = orjson.dumps(problem_document(error))
    await socket.send_denial_response(Response(body, status(error), headers, "application/problem+json"))


async def _model_of(socket: WebSocket, models: Models) -> ServedModel | None:
    """Return the model that the address names; None where the client was sent away."""
    try:
        name = socket.path_params["model"]
        model = (models.loaded(name) or models.versions(name))[-1]  # retired ones go on with theirs
    except ServiceError as error:
        await socket.send_text(orjson.dumps({"type": "error", **error.body()}).decode())
        await socket.close(1008)
        return None
    return model
