"""uvicorn's HTTP with a short way for infer requests that come in one piece, as nearly all do.

They are read, queued and answered without an ASGI cycle, a task or a future: the engine's reply is written where it arrives. Measured with
Triton's load tool, the event loop's share of a step so falls to about a half. Whatever is out of the ordinary goes the long way, through
service/oip/http.py, and so does every other request; both ways answer with the same bytes.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from indrnn.service.errors import ModelGone, ServiceError
from indrnn.service.oip import message, rows
from indrnn.service.oip.ask import Ask, Wanted
from indrnn.service.oip.http import OpenInference, Reply, Target, failure, inferred, target_of
from indrnn.service.oip.inference import OF_THE_VERSION, Asked, Misread, answer
from indrnn.service.oip.rows import Rows
from indrnn.service.oip.tensors import Tensor
from indrnn.service.serving.models import ServedModel
from indrnn.service.session.machine import Refused, Result
from indrnn.service.wire.timed_http import TimedHttp

log = logging.getLogger(__name__)

LONGEST = 65_536  # bytes of a request that goes the short way
_LONG_WAY = frozenset({b"expect", b"content-encoding", b"accept-encoding", b"transfer-encoding", b"upgrade"})
_OF_OWNER = frozenset({b"authorization", b"x-api-key"})


class Form(NamedTuple):
    """The form that one connection's requests mostly have in common: one row of x in so many bytes, to one model, for these outputs."""

    model: ServedModel
    inputs: object
    outputs: object
    binary: bool
    shape: tuple[int, ...]
    size: int
    wanted: list[Wanted] | None


class _Busy:
    """Stands where uvicorn has the cycle of the request that is being answered."""

    __slots__ = ("body", "disconnected", "keep_alive", "leave", "message_event", "more_body", "response_complete", "target")

    def __init__(self, keep_alive: bool, target: Target) -> None:
        self.body = b""
        self.leave: Callable[[], None] = _NOBODY.set
        self.disconnected = False
        self.keep_alive = keep_alive
        self.message_event = _NOBODY
        self.more_body = False
        self.response_complete = False
        self.target = target


class _Nobody:
    """The event that nobody waits for."""

    def set(self) -> None:
        """Do nothing, as nobody waits."""


_NOBODY = _Nobody()


class InferHttp(TimedHttp):
    """One HTTP connection, whose plain infer requests take a shorter way."""

    oip: OpenInference
    _long_way = _LONG_WAY
    _target: Target | None = None
    _parts: list[bytes]
    _form: Form | None = None
    _owner: tuple[tuple[tuple[bytes, bytes], ...], str] | None = None

    @classmethod
    def of(cls, oip: OpenInference, seconds: float, patience: float, cors: bool) -> type["InferHttp"]:
        """The class for that application, and with those limits on headers and on answers. cors: browsers' requests go the long way."""
        long_way = _LONG_WAY | {b"origin"} if cors else _LONG_WAY
        return type("InferHttp", (cls,), {"oip": oip, "seconds": seconds, "patience": patience, "_long_way": long_way})

    def data_received(self, data: bytes) -> None:
        """Take a piece of the connection's bytes; a request that is not whole at its end goes the long way."""
        super().data_received(data)
        if self._target is not None:
            self._go_the_long_way()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what was asked for, as the connection is lost."""
        running = self._running
        if isinstance(running, _Busy) and not running.response_complete:
            leave, running.leave = running.leave, _NOBODY.set
            leave()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Decide which way the request goes."""
        target = _infer_target(self.url) if self.url.startswith(b"/v2/") else None
        busy = self.flow.write_paused or (self.cycle is not None and not self.cycle.response_complete)  # or the client does not read
        if target is None or busy or self.parser.get_method() != b"POST" or not self._long_way.isdisjoint(dict(self.headers)):
            super().on_headers_complete()
        else:
            self._in_head = False
            self._disarm()
            self._target, self._parts = target, []

    def on_body(self, body: bytes) -> None:
        """Take a piece of a request's body."""
        if self._target is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """Answer the request, which is whole."""
        if self._target is not None and self._went_the_short_way(self._target):
            self._target = None
            return
        if self._target is not None:
            self._go_the_long_way()
        super().on_message_complete()

    def _go_the_long_way(self) -> None:
        parts, self._target = self._parts, None
        super().on_headers_complete()
        for part in parts:
            super().on_body(part)

    def _went_the_short_way(self, target: Target) -> bool:
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if len(body) > LONGEST:
            return False
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        cycle, busy = self.cycle, _Busy(keep_alive, target)
        self.cycle = busy  # type: ignore[assignment]  # it has all that uvicorn asks of a cycle here
        try:
            if not self._infer(target, body, busy):
                self.cycle = cycle
                return False
        except ServiceError as error:
            self._write(failure(error, target.model), busy)
        except Exception as error:
            log.exception("an infer request failed")
            self._write(failure(ServiceError(f"internal error: {type(error).__name__}"), target.model), busy)
        return True

    def _infer(self, target: Target, body: bytes, busy: _Busy) -> bool:
        """Queue a request; False where it has to go the long way. Raises ServiceError."""
        headers = dict(self.headers)
        owner = self._owner_of(headers)
        length = message.header_length(self._length(headers), len(body))
        if length == 0 or not body:
            return False
        inference = self.oip.running()
        read, ask = None, None
        form = self._form
        if form is not None and length is not None and len(body) - length == form.size:
            ask, read = _of_form(form, body, length)
        if ask is None or read is None:
            ask = message.read(body, length)
        model = inference.route_at_once(ask, target.model, target.version, owner)
        if model is None:
            return False
        if read is not None and form is not None and form.model is not model:  # another version has taken over since
            ask, read = message.read(body, length), None
        try:
            if read is None or form is None:
                read = rows.read(ask, model.tensors, inference.bounds(model))
                if len(read.x) != 1:
                    return False
                self._form = _form(ask, read, model, body, length, inference.bounds(model).sequence_steps)
            else:
                rows.check_values(read.x, model.tensors)
        except OF_THE_VERSION:
            if not ask.goes_on or inference.models.only(target.model):
                raise
            return False  # the sequence may be on another version by now
        (job,) = inference.jobs(ask, read, model, owner)
        job.sink = partial(self._deliver, ask, read, model, busy)
        if job.session_id is None:  # nothing of it is to be kept: it ends with its client
            busy.leave = partial(model.batcher.detach, "", job.sink)
            self._running = busy  # type: ignore[assignment]
        self.oip.turn.add(model.batcher, job)
        return True

    def _deliver(self, ask: Ask, read: Rows, model: ServedModel, busy: _Busy, value: object, states: object) -> None:
        """Write the engine's reply, or ask again where the sequence is on another version."""
        if isinstance(value, Refused):
            if isinstance(value.error, ModelGone) and ask.goes_on:
                self._ask_again(ask, read, model, busy, value.error)
            else:
                self._write(failure(value.error, busy.target.model), busy)
            return
        assert isinstance(value, Result), "content is answered with Result"
        self._write(inferred(answer(ask, read, model, (value,))), busy)

    def _ask_again(self, ask: Ask, read: Rows, model: ServedModel, busy: _Busy, error: ServiceError) -> None:
        """The sequence is on another version than was remembered: the rest of the way is the long one."""
        if not ask.inputs:  # of a form that was known
            ask.inputs.append(Tensor("x", model.tensors.x.datatype, read.x.shape, read.x.tobytes()))
        owner = "" if self._owner is None else self._owner[1]  # the connection's request is still the same
        asked = Asked(ask, *busy.target[:2], owner, 0)
        task = asyncio.ensure_future(self._answer_again(Misread(asked, model, error), busy))
        self.oip.again.add(task)
        task.add_done_callback(self.oip.again.discard)

    async def _answer_again(self, refused: Misread, busy: _Busy) -> None:
        try:
            reply = inferred(await self.oip.running().answered(refused))
        except ServiceError as error:
            reply = failure(error, busy.target.model)
        except Exception as error:
            log.exception("an infer request failed")
            reply = failure(ServiceError(f"internal error: {type(error).__name__}"), busy.target.model)
        self._write(reply, busy)

    def _write(self, reply: Reply, busy: _Busy) -> None:
        busy.response_complete = True
        busy.leave = _NOBODY.set  # it leads back here: what was asked would stay until the garbage collector comes by
        if busy.disconnected or self.transport.is_closing():
            return
        head = [STATUS_LINE[reply.status]]
        for name, value in (*self.server_state.default_headers, *reply.headers):
            head += (name, b": ", value, b"\r\n")
        head.append(b"content-length: %d\r\n%s\r\n" % (len(reply.body), b"" if busy.keep_alive else b"connection: close\r\n"))
        head.append(reply.body)
        self.transport.write(b"".join(head))
        if not busy.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _owner_of(self, headers: Mapping[bytes, bytes]) -> str:
        keys = tuple((name, headers[name]) for name in _OF_OWNER if name in headers)
        if self._owner is None or self._owner[0] != keys:
            self._owner = keys, self.oip.owner_of({name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()})
        return self._owner[1]

    @staticmethod
    def _length(headers: Mapping[bytes, bytes]) -> str | None:
        value = headers.get(b"inference-header-content-length")
        return None if value is None else value.decode("latin-1")


@lru_cache(256)
def _infer_target(url: bytes) -> Target | None:
    """Return what a URL names if it is a plain one of an infer request, else None."""
    target = None if b"%" in url or b"?" in url else target_of(url.decode("latin-1"))
    return target if target is not None and target.operation == "infer" else None


def _of_form(form: Form, body: bytes, length: int) -> tuple[Ask | None, Rows | None]:
    """Return a request of a form that is known; None for another one. Its values are still to be checked. Raises BadInput."""
    try:
        head = orjson.loads(memoryview(body)[:length])
    except orjson.JSONDecodeError:
        return None, None
    if not isinstance(head, dict) or head.get("inputs") != form.inputs or head.get("outputs") != form.outputs:
        return None, None
    ident, parameters = head.get("id", ""), head.get("parameters", _NO_PARAMETERS)
    if not isinstance(ident, str) or not isinstance(parameters, dict):
        return None, None
    ask = Ask(ident, [], form.wanted)
    ask.take_parameters(parameters)
    if ask.binary != form.binary:
        return None, None
    x = np.frombuffer(body, form.model.tensors.x.dtype, offset=length).reshape(form.shape)
    return ask, Rows(x, None, None)


_NO_PARAMETERS: dict[str, object] = {}


def _form(ask: Ask, read: Rows, model: ServedModel, body: bytes, length: int | None, longest: int) -> Form | None:
    """The form of a request that has just been read and found good; None where it had more than x, or as much as not all may have."""
    if length is None or len(ask.inputs) != 1 or ask.inputs[0].raw is None or read.x.shape[1] > longest:
        return None
    head = orjson.loads(memoryview(body)[:length])
    return Form(model, head["inputs"], head.get("outputs"), ask.binary, read.x.shape, read.x.nbytes, ask.outputs)
