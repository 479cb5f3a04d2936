"""The short way of infer requests (service/wire/http.py): read, queued and answered without an ASGI cycle, a task or a future.

Whatever is out of the ordinary goes the long way, through service/oip/http.py; both ways answer with the same bytes.
"""

import asyncio
import logging
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import orjson

from indrnn.service.engine.requests import Asked, InferRequest, Reply, StepRequest
from indrnn.service.errors import ModelGone, ServiceError, not_known, unanswered, unexpected
from indrnn.service.oip import message, rows
from indrnn.service.oip.http import OpenInference, Target, failure, target_of
from indrnn.service.oip.inference import OF_THE_VERSION, InferAsked, Misread, answer
from indrnn.service.oip.message import Ask, HttpReply, SentTensor, Wanted, inferred
from indrnn.service.oip.rows import Rows
from indrnn.service.serving.models import ServedModel
from indrnn.service.session.machine import Refused, Result
from indrnn.service.tracing import CARRIED
from indrnn.service.wire.http import LONG_WAY, Busy, ShortHttp

log = logging.getLogger(__name__)

_LENGTH = message.LENGTH.decode()


class Form(NamedTuple):
    """The form that one connection's requests mostly have in common: one row of x in so many bytes, to one model, for these outputs."""

    model: ServedModel
    inputs: object
    outputs: object
    binary: bool
    shape: tuple[int, ...]
    size: int
    wanted: list[Wanted] | None


class InferHttp(ShortHttp):
    """One HTTP connection, whose plain infer requests take a shorter way: the engine's reply is written where it arrives."""

    oip: OpenInference
    _form: Form | None = None
    _of_named: tuple[dict[bytes, bytes], int, str, str | None] | None = None
    """headers and the generation of keys, and what they say: whose the request is, and how much of it is JSON"""

    @classmethod
    def of(cls, oip: OpenInference, seconds: float, patience: float, cors: bool) -> type["InferHttp"]:
        """The class for that application, and with those limits on headers and on answers. cors: browsers' requests go the long way."""
        long_way = LONG_WAY | {b"origin"} if cors else LONG_WAY
        return type("InferHttp", (cls,), {"oip": oip, "seconds": seconds, "patience": patience, "long_way": long_way})

    def target_of(self, url: bytes) -> Target | None:
        """Return what a URL names if it is a plain one of an infer request, else None."""
        return _infer_target(url)

    def answer(self, busy: Busy, body: bytes) -> bool:
        """Queue a request. False where it has to go the long way."""
        target = busy.target
        assert isinstance(target, Target), "as target_of has it"
        try:
            return self._infer(target, body, busy)
        except ServiceError as error:
            self._write(failure(error, target.model), busy)
        except Exception as error:
            log.exception("an infer request failed")
            self._write(failure(unexpected(error), target.model), busy)
        return True

    def _infer(self, target: Target, body: bytes, busy: Busy) -> bool:
        """Queue a request; False where it has to go the long way. Raises ServiceError."""
        owner, told = self._said()
        length = message.header_length(told, len(body))
        if length == 0 or not body:
            return False
        inference = self.oip.inference
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
        (request,) = inference.requests(ask, read, model, owner)
        tickets = inference.steps.tickets
        ticket = tickets.issue(partial(self._deliver, ask, read, model, request, target, busy))
        if tickets.trace is not None:
            carried = {name: self.named.get(name.encode(), b"").decode("latin-1") for name in CARRIED}
            tickets.trace.asked([ticket.number], model.port, request, tickets.trace.parent(carried))
        if isinstance(request, InferRequest):
            self.leaves_with(busy, partial(tickets.withdraw, model.port, [ticket]))
        tickets.submit_soon(model.port, Asked(ticket, request))
        return True

    def _deliver(
        self,
        ask: Ask,
        read: Rows,
        model: ServedModel,
        request: StepRequest | InferRequest,
        target: Target,
        busy: Busy,
        reply: Reply,
        states: object,
    ) -> None:
        """Write the engine's reply, or ask again where the sequence is on another version."""
        if isinstance(reply, Result):
            try:
                said = inferred(answer(ask, read, model, (request,), (reply,)))  # type: ignore[arg-type]  # of content
            except Exception as error:  # whatever it is, somebody waits, and the step is stored
                log.exception("an infer request's reply could not be worded")
                said = failure(not_known(f"internal error: {type(error).__name__}"), target.model, ask.sequence)
            self._write(said, busy)
        elif isinstance(reply, Refused):
            if isinstance(reply.error, ModelGone) and ask.goes_on:
                self._ask_again(ask, read, model, target, busy, reply.error)
            else:
                self._write(failure(reply.error, target.model, ask.sequence), busy)

    def _ask_again(self, ask: Ask, read: Rows, model: ServedModel, target: Target, busy: Busy, error: ServiceError) -> None:
        """The sequence is on another version than was remembered: the rest of the way is the long one."""
        if not ask.inputs:  # of a form that was known
            ask.inputs.append(SentTensor("x", model.tensors.x.datatype, read.x.shape, read.x.tobytes()))
        owner = "" if self._of_named is None else self._of_named[2]  # the connection's request is still the same
        asked = InferAsked(ask, *target[:2], owner, 0)
        task = asyncio.ensure_future(self._answer_again(Misread(asked, model, error), target, busy))
        self.oip.again.add(task)
        task.add_done_callback(self.oip.again.discard)

    async def _answer_again(self, refused: Misread, target: Target, busy: Busy) -> None:
        try:
            reply = inferred(await self.oip.inference.answered(refused))
        except ServiceError as error:
            reply = failure(error, target.model, refused.asked.ask.sequence)
        except Exception as error:
            log.exception("an infer request failed")
            reply = failure(unanswered(error), target.model)
        self._write(reply, busy)

    def _write(self, reply: HttpReply, busy: Busy) -> None:
        self.write(busy, reply.status, reply.headers, reply.body)

    def _said(self) -> tuple[str, str | None]:
        """Return whose the request is, and Inference-Header-Content-Length. Raises ServiceError."""
        known, headers, generation = self._of_named, self.named, self.oip.access.generation
        if known is None or known[0] is not headers or known[1] != generation:
            text = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
            known = headers, generation, self.oip.owner_of(text), text.get(_LENGTH)
            self._of_named = known
        return known[2], known[3]


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
    if ask.binary != form.binary or ask.flush:
        return None, None
    x = np.frombuffer(body, form.model.tensors.x.dtype, offset=length).reshape(form.shape)
    return ask, Rows(x, None, None)


_NO_PARAMETERS: dict[str, object] = {}


def _form(ask: Ask, read: Rows, model: ServedModel, body: bytes, length: int | None, longest: int) -> Form | None:
    """The form of a request that has just been read and found good; None where it had more than x, or as much as not all may have."""
    plain = len(ask.inputs) == 1 and ask.inputs[0].raw is not None and not read.named and not ask.flush
    if length is None or not plain or read.x.shape[1] > longest:
        return None
    head = orjson.loads(memoryview(body)[:length])
    return Form(model, head["inputs"], head.get("outputs"), ask.binary, read.x.shape, read.x.nbytes, ask.outputs)
