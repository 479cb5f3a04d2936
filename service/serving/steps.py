"""A step between a protocol and an engine: content and options become a request here, and nowhere else, and an answer finds who asked.

Two messages are the same step exactly when their digests agree. All digests are made here: were there a second place, and the two drifted
apart, a repeat over another protocol would silently become a conflict.
"""

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple, TypeVar, overload

import numpy as np
import orjson

from indrnn.service.engine.port import EnginePort, RegistryPort
from indrnn.service.engine.requests import (
    Asked,
    CancelRequest,
    ClientProtocol,
    Content,
    Created,
    CreateRequest,
    DeleteRequest,
    Delivery,
    ForkRequest,
    Frames,
    GenerateRequest,
    Generation,
    ImportRequest,
    InferRequest,
    Looked,
    LookRequest,
    MarkRequest,
    Reply,
    Request,
    ResetRequest,
    RewindRequest,
    States,
    StepRequest,
    Ticket,
)
from indrnn.service.errors import BadInput, ModelGone, Overloaded, ServiceError, said
from indrnn.service.serving.models import Models, ServedModel
from indrnn.service.session.machine import (
    Char,
    Deleted,
    Follow,
    Forked,
    Generated,
    Marked,
    Placed,
    Refused,
    Result,
    Rewound,
    Sampling,
    Scores,
)
from indrnn.service.tracing import Times, Tracing

log = logging.getLogger(__name__)

LAG = 1_024  # characters that may wait for a client to read them
ROUTES = 65_536  # sessions whose model is remembered, so that a step needs no look into the store to find its engine

R = TypeVar("R")

# --- content and options -> request -----------------------------------------------------------------------------------------------------


def same_version(wanted: object, model: ServedModel) -> None:
    """Raises BadInput where a client asks for another version than its session's."""
    if wanted not in (None, model.manifest.version):
        raise BadInput(f"expected {model.manifest.version!r}, the session's version, got {said(wanted)}", field="version")


class StepOptions(NamedTuple):
    """The options of a native step that are part of what it is: frames per second (None: the session's), names told, every time step."""

    hz: float | None = None
    top_k: int = 5
    every: bool = False


@lru_cache(1_024)
def options_key(kind: str, options: StepOptions) -> bytes:
    """Return a native step's kind and options as a key, [32] bytes. kind: the field that holds the content ("frames")."""
    hz, top_k, every = options
    return _key(kind, [hz, top_k, every] if kind == "frames" else [top_k, every])


def _key(kind: str, options: object) -> bytes:
    return hashlib.blake2b(orjson.dumps([kind, options], option=orjson.OPT_SORT_KEYS), digest_size=32).digest()


def replacing_key(key: bytes, replaced: str) -> bytes:
    """Return the key of a step in whose text characters were replaced: with others in their places it is another step."""
    return hashlib.blake2b(replaced.encode("utf-8", "surrogatepass"), digest_size=32, key=key).digest() if replaced else key


def native_step(
    session_id: str,
    owner: str,
    number: int | None,
    content: Content,
    key: bytes,
    every: bool = False,
    watch: bool = False,
    protocol: ClientProtocol = "http",
) -> StepRequest:
    """Return a step as the native protocols ask for it; key: `options_key`. Its digest is of key and decoded content."""
    data = content.x.tobytes()
    if isinstance(content, Frames) and content.t is not None:
        data += content.t.tobytes()
    digest = hashlib.blake2b(data, digest_size=16, key=key).digest()
    return StepRequest(session_id, owner, number, digest, content, every, watch, protocol=protocol, tell_state=False)


def native_generate(
    session_id: str, owner: str, number: int | None, sampling: Sampling, seed_sent: int | None, watch: bool = False
) -> GenerateRequest:
    """Return a generate as the native protocols ask for it; seed_sent: as the client sent it, since a repeat may have none."""
    s = sampling
    key = _key("generate", [s.max_chars, s.temperature, s.top_p, seed_sent, s.stop])
    return GenerateRequest(session_id, owner, number, hashlib.blake2b(b"", digest_size=16, key=key).digest(), sampling, watch)


def rewind_step(session_id: str, owner: str, number: int | None, to: int | str) -> RewindRequest:
    """Return a rewind to a step or a mark."""
    digest = hashlib.blake2b(b"", digest_size=16, key=_key("rewind", to)).digest()
    return RewindRequest(session_id, owner, number, digest, to)


def tensor_step(
    session_id: str,
    owner: str,
    number: int | None,
    content: Content,
    sent: int,
    begin: bool,
    end: bool,
    patience: float | None,
    protocol: ClientProtocol,
    tell_state: bool,
) -> StepRequest:
    """Return a step of a sequence of the Open Inference Protocol; sent: time steps of the tensor, of which the content may be fewer.

    One tensor with more than one step is answered after each.
    """
    digest = tensor_digest(content, sent, end)
    return StepRequest(session_id, owner, number, digest, content, sent > 1, False, begin, end, patience, protocol, tell_state)


def tensor_digest(content: Content, sent: int, end: bool) -> bytes:
    """Return the digest of a step of a sequence: of the time steps that count, and of whether the sequence ends there."""
    head = b"oip %d %d %d" % (sent, len(content.x), end)
    return hashlib.blake2b(np.ascontiguousarray(content.x).data, digest_size=16, key=head).digest()


# --- who asked --------------------------------------------------------------------------------------------------------------------------

Sink = Callable[[Reply, States | None], None]
"""Takes a reply, and the hidden neurons of a watched session; called on the event loop's thread."""


class Answered(NamedTuple):
    """A reply, and the hidden neurons [t, n] where they were asked for and the step was not a repeat."""

    reply: Reply
    states: States | None


class Stepped(NamedTuple):
    """A finished step, and the hidden neurons [t, n] where they were asked for and the step was not a repeat."""

    result: Result[Scores]
    states: States | None


class Tickets:
    """The requests of this process that wait for an answer, by ticket. Everything here but `answer` runs on the event loop's thread."""

    def __init__(self) -> None:
        self.epoch = secrets.randbits(63)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.trace: Tracing | None = None
        self._number = 0
        self._sinks: dict[int, Sink] = {}
        self._turn: dict[EnginePort, list[Asked]] = {}

    @property
    def waiting(self) -> int:
        """Return how many wait for an answer."""
        return len(self._sinks)

    def fail(self, error: ServiceError) -> None:
        """Refuse whatever waits: nobody will answer it any more."""
        self.tell([Delivery(Ticket(self.epoch, number), Refused(error)) for number in list(self._sinks)])

    def issue(self, sink: Sink) -> Ticket:
        """Return a new ticket, whose answers the sink will take."""
        self._number += 1
        self._sinks[self._number] = sink
        return Ticket(self.epoch, self._number)

    def answer(self, deliveries: Sequence[Delivery], times: Times | None = None) -> None:
        """Take an engine's deliveries, on any thread. Those of one commit come in one turn of the event loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            if self.loop is not None:
                self.loop.call_soon_threadsafe(self.tell, deliveries, times)

    def tell(self, deliveries: Sequence[Delivery], times: Times | None = None) -> None:
        """Take an engine's deliveries, on the event loop's thread; times: of its turn, where that is traced."""
        for ticket, reply, states, final in deliveries:
            if ticket.epoch != self.epoch:
                continue
            if final and self.trace is not None:
                self.trace.answered(ticket.number, reply, times)
            sink = self._sinks.pop(ticket.number, None) if final else self._sinks.get(ticket.number)
            if sink is None:
                continue  # whoever asked is gone
            try:
                sink(reply, states)
            except Exception:  # whatever it is: one client's must not keep the others' replies
                log.exception("a reply could not be delivered")

    def withdraw(self, port: EnginePort, tickets: Sequence[Ticket]) -> None:
        """Take tickets back, of which nobody waits for an answer any more."""
        for ticket in tickets:
            self._sinks.pop(ticket.number, None)
        if self.trace is not None:
            self.trace.left([ticket.number for ticket in tickets])
        port.withdraw(tickets)

    def submit_soon(self, port: EnginePort, asked: Asked) -> None:
        """Queue a request when this turn of the event loop is over, together with what else came in it.

        That is one lock and one wake-up of the engine, and fuller batches: sixty-four requests that were queued one by one ran as many
        small batches, each with a commit of its own.
        """
        if not self._turn:
            asyncio.get_running_loop().call_soon(self._submit)
        self._turn.setdefault(port, []).append(asked)

    def _submit(self) -> None:
        waiting, self._turn = self._turn, {}
        for port, asked in waiting.items():
            port.submit(asked)

    def ask_all(self, port: EnginePort, requests: Sequence[Request]) -> "asyncio.Future[list[Answered]]":
        """Queue requests, all or none; what comes back has each one's reply, or raises the first error.

        Cancelled, those without a session are dropped. A step is not: it was numbered, and can be repeated.
        """
        future: asyncio.Future[list[Answered]] = asyncio.get_running_loop().create_future()
        replies: list[Answered | None] = [None] * len(requests)
        left = len(requests)

        def sink(i: int, reply: Reply, states: States | None) -> None:
            nonlocal left
            left -= 1
            if future.done():
                return  # another one was refused, or whoever asked is gone
            if isinstance(reply, Refused):
                future.set_exception(_copy(reply.error))
                return
            replies[i] = Answered(reply, states)
            if left == 0:
                future.set_result([answered for answered in replies if answered is not None])

        if not requests:
            future.set_result([])
            return future
        asked = [Asked(self.issue(partial(sink, i)), request) for i, request in enumerate(requests)]
        if self.trace is not None:
            self.trace.asked([one.ticket.number for one in asked], port, requests[0])
        port.submit(asked, whole=True)
        future.add_done_callback(partial(self._drop_cancelled, port, asked))
        return future

    def _drop_cancelled(self, port: EnginePort, asked: Sequence[Asked], future: "asyncio.Future[list[Answered]]") -> None:
        if future.cancelled():
            self.withdraw(port, [one.ticket for one in asked if isinstance(one.request, InferRequest)])


def _copy(error: ServiceError) -> ServiceError:
    """One error may refuse a whole batch; each waiter raises its own, so that tracebacks do not pile up on it."""
    return type(error)(error.detail, field=error.field, **error.extra)


# --- steps of sessions, wherever they run -----------------------------------------------------------------------------------------------


class StepRouter:
    """Asks engines, and knows which model a session was last seen on. `owner` is whose key the client holds; without keys it is empty."""

    def __init__(self, models: Models, registry: RegistryPort, tickets: Tickets) -> None:
        self.registry = registry
        self.tickets = tickets
        self.charges = registry.quotas.counts_steps
        """whether steps are counted at all"""
        self._models = models
        self._routes: OrderedDict[str, tuple[ServedModel, str]] = OrderedDict()

    def charge(self, owner: str, steps: int = 1) -> None:
        """Charge steps before them. Raises RateLimited."""
        if self.charges:
            self.registry.quotas.step(owner, steps)

    def owe(self, owner: str, steps: int = 1) -> None:
        """Charge steps that were not known before, after them: paid before the next."""
        if self.charges:
            self.registry.quotas.owe(owner, steps)

    @overload
    async def ask(self, model: ServedModel, request: CreateRequest) -> Created: ...
    @overload
    async def ask(self, model: ServedModel, request: LookRequest) -> Looked: ...
    @overload
    async def ask(self, model: ServedModel, request: ForkRequest) -> Forked: ...
    @overload
    async def ask(self, model: ServedModel, request: ImportRequest | ResetRequest) -> Placed: ...
    @overload
    async def ask(self, model: ServedModel, request: RewindRequest) -> Rewound: ...
    @overload
    async def ask(self, model: ServedModel, request: MarkRequest) -> Marked: ...
    @overload
    async def ask(self, model: ServedModel, request: DeleteRequest) -> Deleted: ...
    @overload
    async def ask(self, model: ServedModel, request: CancelRequest) -> Result[Generated] | None: ...
    async def ask(self, model: ServedModel, request: Request) -> Reply:
        """Return the reply to a request. Raises the error of a refusal."""
        return (await self.tickets.ask_all(model.port, [request]))[0].reply

    async def step(self, model: ServedModel, request: StepRequest) -> Stepped:
        """Take one step. The reply is stored before this returns.

        Raises ServiceError; then nothing has moved, unless it is StoreFailed, or its detail says that nobody knows.
        """
        self.charge(request.owner)
        (answered,) = await self.tickets.ask_all(model.port, [request])
        return Stepped(*answered)  # type: ignore[arg-type]  # the reply to a step

    async def infer(self, model: ServedModel, contents: Sequence[Content], owner: str) -> list[Scores]:
        """Answer content without a session, in as few batches as fit; all is queued, or none. Cancelled, its work is dropped."""
        self.charge(owner, len(contents))
        requests = [InferRequest(content, model.modality.each_step, tell_state=False) for content in contents]
        answered = await self.tickets.ask_all(model.port, requests)
        return [Stepped(*one).result.result for one in answered]  # type: ignore[arg-type]  # the replies to content

    async def generate(self, model: ServedModel, request: GenerateRequest) -> AsyncGenerator[tuple[Generation, States | None], None]:
        """Characters as they are emitted, each stored before it comes out here; a repeat begins with Follow or is one Result.

        Ends after a Char with a reason or a Result. Closing the iterator before that cuts the generate. Raises ServiceError.
        """
        self.charge(request.owner)
        queue: asyncio.Queue[Answered] = asyncio.Queue(LAG)

        def sink(reply: Reply, states: States | None) -> None:
            if queue.full():
                return
            if queue.qsize() == LAG - 1 and isinstance(reply, Char) and reply.done is None:
                self.tickets.withdraw(model.port, [ticket])  # a client that does not read must not fill the memory
                reply = Refused(Overloaded(f"{LAG} characters wait to be read; repeat the number to go on"))
            queue.put_nowait(Answered(reply, states))

        ticket = self.tickets.issue(sink)
        if self.tickets.trace is not None:
            self.tickets.trace.asked([ticket.number], model.port, request)
        model.port.submit([Asked(ticket, request)])
        ended = False
        try:
            while not ended:
                reply, states = await queue.get()
                ended = isinstance(reply, Refused | Result) or (isinstance(reply, Char) and reply.done is not None)
                if isinstance(reply, Refused):
                    raise reply.error
                if isinstance(reply, Char):
                    self.owe(request.owner)  # each character is a run of the model
                if isinstance(reply, Follow | Char | Result):
                    yield reply, states  # type: ignore[misc]  # the result of a generate
        finally:
            if not ended:
                self.tickets.withdraw(model.port, [ticket])

    # --- which model a session is on ------------------------------------------------------------------------------------------------------

    def route(self, session_id: str) -> ServedModel | None:
        """Return the model that a session was last seen on, if that is still loaded."""
        known = self._routes.get(session_id)
        if known is None:
            return None
        m = known[0].manifest
        if self._models.by_key.get((m.name, m.version)) is not known[0]:
            del self._routes[session_id]
            return None
        return known[0]

    def remember(self, session_id: str, model: ServedModel, owner: str) -> None:
        """Remember which model the session's next step will go to."""
        self._routes[session_id] = model, owner
        self._routes.move_to_end(session_id)
        if len(self._routes) > ROUTES:
            self._routes.popitem(last=False)

    def leave_route(self, session_id: str, model: ServedModel | None = None) -> bool:
        """Forget where a session was last seen, if that was this model or none is named; return whether it was."""
        known = self.route(session_id)
        left = known is not None and (model is None or known is model)
        if left:
            del self._routes[session_id]
        return left

    def forget(self, model: ServedModel) -> None:
        """Forget a model that was unloaded: nothing here may keep it in memory."""
        for session_id in [i for i, (known, _) in self._routes.items() if known is model]:
            del self._routes[session_id]

    async def model_of(self, session_id: str, owner: str) -> ServedModel:
        """Return the loaded model an owner's session belongs to. Raises UnknownSession, Gone, ModelGone."""
        known = self._routes.get(session_id)
        if known is None or known[1] != owner or self.route(session_id) is None:
            session = await self.registry.find(session_id, owner)
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
        self.leave_route(session_id, model)
        found = await self.model_of(session_id, owner)
        return None if found is model else found
