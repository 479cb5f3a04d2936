"""A front's side: the engine port, the registry, the repository and the store's probe, all of which are in the engine's process.

A front has no engine, no store and no weights. Where its connection is lost, whatever waits is refused, and what comes is refused at once,
until there is another: the models stay in the table, so that nobody is told that they do not exist.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from indrnn.export.bundle import Manifest
from indrnn.service.engine import calls as c
from indrnn.service.engine.codec import CodecError, decode, encode
from indrnn.service.engine.loop import tickets_of
from indrnn.service.engine.port import EnginePort, EngineSnapshot
from indrnn.service.engine.quota import Quotas
from indrnn.service.engine.requests import Asked, Delivery, Ticket
from indrnn.service.engine.statistics import Statistics, Totals
from indrnn.service.errors import EngineAway, Overloaded, ServiceError, Stopping, StoreFailed, TooLarge
from indrnn.service.link.connection import Connection
from indrnn.service.link.message import (
    FORMAT,
    WHOLE,
    Kind,
    LinkError,
    PartForm,
    asked_parts,
    framed,
    messages,
    parts,
    read_times,
    read_told,
)
from indrnn.service.link.numbers import read_statistics
from indrnn.service.serving.connections import Places
from indrnn.service.serving.modalities import StepLimits, served
from indrnn.service.serving.models import Models, ServedModel
from indrnn.service.serving.repository import Listed
from indrnn.service.serving.steps import Tickets
from indrnn.service.session.machine import Refused, Session
from indrnn.service.settings import Settings
from indrnn.service.tracing import Times

log = logging.getLogger(__name__)

UNSENT = 2**26  # bytes that may wait for an engine that does not read; more requests are refused
CALL_TIMEOUT = 60.0  # seconds for the answer to a call; a model that is loaded by command may take longer
LOAD_TIMEOUT = 600.0
TALLY = 0.25  # seconds between tellings of open streams and of what a front alone counts

R = TypeVar("R")


class FrontPort:
    """The engine port of one model, as a front has it. number: the engine's of it."""

    number: int
    stopping: bool


class RemotePort(FrontPort):
    """The engine port of one model, over the front's connection. Everything here runs on the event loop."""

    def __init__(self, link: "Link", number: int) -> None:
        self.number = number
        self.stopping = False
        self._link = link
        self._known = Statistics()

    @property
    def ready(self) -> bool:
        """Return whether the engine would take something now."""
        return not self.stopping and self._link.up

    def submit(self, asked: Sequence[Asked], whole: bool = False) -> None:
        """Queue requests, as the engine port says; they leave when this turn of the event loop is over."""
        if asked:
            self._link.submit(self, asked, whole)

    def withdraw(self, tickets: Sequence[Ticket]) -> None:
        """Take tickets back, as the engine port says."""
        self._link.withdraw(self.number, tickets)

    def snapshot(self) -> EngineSnapshot:
        """Return what the engine had done when it was last asked."""
        return EngineSnapshot(self._known, self._link.tickets.waiting)

    async def look(self) -> EngineSnapshot:
        """Return what the engine has done by now. Raises Unavailable."""
        value = await self._link.call(c.TellStatistics(self.number), tuple)
        self._known = read_statistics(value[0])
        return self.snapshot()


class Link:
    """The front's end of the connection to an engine's process: requests of one turn leave together, and replies find who asked.

    `roster` is given each list of what the engine has loaded; `need` is called when there is no connection any more.
    """

    def __init__(self, tickets: Tickets, roster: Callable[[int, c.Roster], None], need: Callable[[], None]) -> None:
        self.tickets = tickets
        self.stopping = False
        self.noted: Callable[[c.Note], None] = lambda note: None
        self._roster = roster
        self._need = need
        self._connection: Connection | None = None
        self._engine: int | None = None
        self._coming: int | None = None
        self._outgoing: list[bytes] = []
        self._scheduled = False
        self._calls: dict[int, asyncio.Future[object]] = {}
        self._number = 0

    @property
    def up(self) -> bool:
        """Return whether there is an engine at the other end, which has said what it has loaded."""
        return self._connection is not None and self._engine is not None

    def attach(self, link: socket.socket) -> None:
        """Begin to talk over a socket."""
        if self._connection is not None:
            self._connection.close()
            self._lose("it was replaced")
        self._connection = Connection(link, asyncio.get_running_loop(), self._took, self._lost, 2 * UNSENT)
        self._connection.write(framed(Kind.HELLO, encode(c.Hello(FORMAT, self.tickets.epoch))))

    def close(self) -> None:
        """End the connection; whatever waits is refused."""
        if self._connection is not None:
            self._connection.close()
            self._lose("the front stops")

    # --- out ----------------------------------------------------------------------------------------------------------------------------

    def submit(self, port: RemotePort, asked: Sequence[Asked], whole: bool) -> None:
        """Send requests when this turn of the event loop is over, or refuse them."""
        error = self._refusal(port)
        if error is not None:
            self._tell([Delivery(ticket, Refused(error)) for one in asked for ticket in tickets_of(*one)])
            return
        made = list(asked_parts(port.number, asked, whole))
        if any(len(part) > WHOLE for part in made):
            error = TooLarge(f"expected requests of at most {WHOLE} bytes in memory")
            self._tell([Delivery(ticket, Refused(error)) for one in asked for ticket in tickets_of(*one)])
            return
        self._outgoing += made
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _refusal(self, port: RemotePort) -> ServiceError | None:
        if port.stopping or self.stopping:
            return Stopping("the server is shutting down" if self.stopping else "the model was unloaded")
        if not self.up or self._connection is None:
            return Overloaded("the engine is being started again", retry_after=1)
        if self._connection.waiting > UNSENT:
            return Overloaded(f"{self._connection.waiting} bytes wait for the engine", retry_after=1)
        return None

    def _flush(self) -> None:
        self._scheduled = False
        outgoing, self._outgoing = self._outgoing, []
        if self._connection is not None and outgoing:
            self._connection.write(b"".join(messages(Kind.ASKED, outgoing)))

    def withdraw(self, model: int, tickets: Sequence[Ticket]) -> None:
        """Tell the engine that nobody waits for tickets."""
        if self.up:
            self._flush()  # what is withdrawn may not come after it
            self._write(Kind.WITHDRAWN, b"".join(n.to_bytes(8, "little") for n in (model, *(t.number for t in tickets))))

    def note(self, note: c.Note) -> None:
        """Tell the engine something that it does not answer."""
        self._write(Kind.NOTE, encode(note))

    def _write(self, kind: Kind, body: bytes) -> None:
        if self._connection is not None:
            self._connection.write(framed(kind, body))

    async def call(self, call: c.Call, kind: type[R], seconds: float = CALL_TIMEOUT) -> R:
        """Return the answer to a call, of that type. Raises the error of a refusal, StoreFailed without an engine."""
        if not self.up:
            raise EngineAway("the engine is being started again", retry_after=1)
        self._number += 1
        number = self._number
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        self._write(Kind.CALL, number.to_bytes(8, "little") + encode(call))
        try:
            async with asyncio.timeout(seconds):
                value = await future
        except TimeoutError:
            raise EngineAway(f"the engine did not answer within {seconds:g} s", retry_after=1) from None
        finally:
            self._calls.pop(number, None)
        if not isinstance(value, kind):
            raise StoreFailed(f"expected {kind.__name__} of the engine, got {type(value).__name__}")
        return value

    # --- in -----------------------------------------------------------------------------------------------------------------------------

    def _took(self, kind: int, body: bytes) -> None:
        try:
            if kind == Kind.TOLD:
                times = None  # a message that has no room for them goes without
                for part in parts(body):
                    if part.form == PartForm.TIMES:
                        times = read_times(part)
                    else:
                        self._tell(read_told(part, self.tickets.epoch), times)
            elif kind == Kind.RETURNED:
                self._returned(body)
            elif kind == Kind.HELLO:
                hello = decode(body, c.Hello)
                if hello.format != FORMAT:
                    raise LinkError(f"expected format {FORMAT}, got {hello.format}")
                self._engine = None  # until it has said what it has
                self._coming = hello.epoch
            elif kind == Kind.NOTE:
                self._note(body)
            else:
                raise LinkError(f"expected what an engine says, got kind {kind}")
        except CodecError as error:
            raise LinkError(str(error)) from error

    def _tell(self, deliveries: Sequence[Delivery], times: Times | None = None) -> None:
        self.tickets.tell(deliveries, times)

    def _note(self, body: bytes) -> None:
        note = decode(body, tuple)
        if isinstance(note, c.Roster):
            if self._coming is None:
                raise LinkError("expected a hello first, got a note")
            self._engine = self._coming
            self._roster(self._engine, note)
            self.note(c.RosterTaken(note.number))
        elif isinstance(note, c.Charged | c.StreamsOpen):
            self.noted(note)
        else:
            raise LinkError(f"expected a note of an engine, got {type(note).__name__}")

    def _returned(self, body: bytes) -> None:
        future = self._calls.get(int.from_bytes(body[:8], "little"))
        answer: object = decode(body[8:], object)
        if future is None or future.done():
            return
        if isinstance(answer, Refused):
            future.set_exception(answer.error)
        elif isinstance(answer, c.CallAnswer):
            future.set_result(answer.value)
        else:
            raise LinkError(f"expected the answer to a call, got {type(answer).__name__}")

    def _lost(self, why: str) -> None:
        log.error("the connection to the engine is lost: %s", why)
        self._lose(why)
        self._need()

    def _lose(self, why: str) -> None:
        self._connection, self._engine = None, None
        self._outgoing = []
        error = StoreFailed(f"the engine was lost ({why}): whether it has stored the step is not known; repeat it with its number")
        self._fail(error)
        for future in self._calls.values():
            if not future.done():
                future.set_exception(EngineAway(f"the engine was lost ({why})", retry_after=1))

    def _fail(self, error: ServiceError) -> None:
        """Refuse whatever waits for this engine."""
        self.tickets.fail(error)


class AskedEngines(Protocol):
    """The way to the engine's process, or to those of all shards, for what is asked beside steps."""

    noted: Callable[[c.Note], None]
    stopping: bool

    @property
    def up(self) -> bool:
        """Return whether what counts for the service can be told."""

    def note(self, note: c.Note) -> None:
        """Tell something that is not answered."""

    async def call(self, call: c.Call, kind: type[R], seconds: float = CALL_TIMEOUT) -> R:
        """Return the answer to a call, of that type. Raises the error of a refusal, StoreFailed without an engine."""

    def close(self) -> None:
        """End the connections; whatever waits is refused."""


@dataclass(eq=False)
class FrontBackend:
    """The engines as a front has them: the table of models, which follows what the engine says, and the way to it."""

    settings: Settings
    need: Callable[[], None]
    models: Models = field(default_factory=Models)
    tickets: Tickets = field(default_factory=Tickets)
    lines: list[Listed] = field(default_factory=list)
    stopping: bool = False
    forget: Callable[[ServedModel], None] = lambda model: None
    _engine: int | None = None
    _ports: dict[int, tuple[c.Hosted, ServedModel]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known = asyncio.Event()
        self.engines: AskedEngines = Link(self.tickets, self.follow, self.need)

    @property
    def link(self) -> Link:
        """Return the connection to the only engine's process."""
        assert isinstance(self.engines, Link), "there are no shards"
        return self.engines

    def attach(self, shard: int, link: socket.socket) -> None:
        """Begin to talk to the engine's process of a shard over a socket."""
        self.link.attach(link)

    def follow(self, engine: int, roster: c.Roster) -> None:
        """Take over what an engine has loaded. One that was started again has other numbers for the same models."""
        before = self._ports if engine == self._engine else {}
        others = {} if engine == self._engine else {_text(hosted): model for hosted, model in self._ports.values()}
        now: dict[int, tuple[c.Hosted, ServedModel]] = {}
        for hosted in roster.models:
            known = before.get(hosted.number)
            model = known[1] if known is not None else others.pop(_text(hosted), None)
            if model is not None and isinstance(model.port, FrontPort):
                model.port.number = hosted.number
            else:
                model = self._served(hosted)
            now[hosted.number] = hosted, model
        gone = [model for _, model in self._ports.values() if all(model is not other for _, other in now.values())]
        for _, model in now.values():
            if self.models.exactly(model.manifest.name, model.manifest.version) is not model:
                self.models.add(model)
        for model in gone:
            self.models.remove(model)
            self.forget(model)
            if isinstance(model.port, FrontPort):
                model.port.stopping = True
        kept = {hosted.number for hosted in roster.models if hosted.retired}
        self.models.retire((m.manifest.name, m.manifest.version) for number, (_, m) in now.items() if number in kept)
        self.lines = [Listed(*line) for line in roster.lines]
        self._engine, self._ports = engine, now
        self._settle()

    def _settle(self) -> None:
        """Take note that the table is what the engines have."""
        self.known.set()

    def _served(self, hosted: c.Hosted) -> ServedModel:
        m, s = Manifest.model_validate_json(hosted.manifest), self.settings
        limits = StepLimits(s.max_frames, s.max_text, s.max_every)
        return ServedModel(m, self._port(hosted), served(m, limits), hosted.provider, hosted.kernel)

    def _port(self, hosted: c.Hosted) -> EnginePort:
        return RemotePort(self.link, hosted.number)

    def drain(self, seconds: float) -> None:
        """Take nothing new: the engine, which is told too, finishes what is in flight."""
        self.stopping = self.engines.stopping = True
        for model in self.models:
            if isinstance(model.port, FrontPort):
                model.port.stopping = True

    @property
    def busy(self) -> bool:
        """Return whether somebody waits for an answer."""
        return self.tickets.waiting > 0 and self.engines.up

    def close(self) -> None:
        """Do nothing: the connection ends with the process, and the engine's process has the rest."""


def _text(hosted: c.Hosted) -> str:
    return f"{hosted.provider}\n{hosted.kernel}\n{hosted.manifest}"


class RemoteQuotas:
    """The limits of every owner, of which the engine's process counts the sessions; steps each front counts, and tells the others."""

    def __init__(self, settings: Settings, link: AskedEngines) -> None:
        self._steps = Quotas(None, settings.max_steps_per_second, lambda owner, horizon: 0)
        self._link = link
        self.counts_sessions = settings.max_sessions is not None
        self.counts_steps = self._steps.counts_steps

    def step(self, owner: str, count: int = 1) -> None:
        """Charge steps before them. Raises RateLimited."""
        self._steps.step(owner, count)
        if self.counts_steps:
            self._link.note(c.Charged(owner, count))

    def owe(self, owner: str, count: int = 1) -> None:
        """Charge characters after they were emitted."""
        self._steps.owe(owner, count)
        if self.counts_steps:
            self._link.note(c.Charged(owner, count))

    def charged_elsewhere(self, charged: c.Charged) -> None:
        """Charge what another front has charged."""
        self._steps.owe(charged.owner, charged.steps)

    async def new_session(self, owner: str, horizon: float = 0.0, weight: int = 1) -> None:
        """Before a session is made. Raises SessionLimit, StoreFailed."""
        if self.counts_sessions:
            await self._link.call(c.MakeRoom(owner, horizon, weight), type(None))

    def session_ended(self, owner: str, weight: int = 1) -> None:
        """Take note that a session was deleted."""
        if self.counts_sessions:
            self._link.note(c.SessionEnded(owner, weight))


class RemoteRegistry:
    """Every session of the service, which the engine's process knows."""

    def __init__(self, link: AskedEngines, quotas: RemoteQuotas) -> None:
        self.quotas = quotas
        self._link = link

    async def find(self, session_id: str, owner: str) -> Session:
        """Return an owner's session as the store has it. Raises UnknownSession, Gone, StoreFailed."""
        return await self._link.call(c.FindSession(session_id, owner, False), Session)

    async def find_living(self, session_id: str, owner: str) -> Session:
        """Return a session that no engine owns. Raises UnknownSession, Gone, StoreFailed."""
        return await self._link.call(c.FindSession(session_id, owner, True), Session)

    async def remove(self, session_id: str, owner: str) -> Session:
        """End a session that no engine owns, and return it. Raises UnknownSession, Gone, StoreFailed, Overloaded."""
        return await self._link.call(c.RemoveSession(session_id, owner), Session)

    async def list(self, owner: str, limit: int) -> list[Session]:
        """Return an owner's living sessions, newest first. Raises StoreFailed."""
        return list(await self._link.call(c.ListSessions(owner, limit), tuple))

    async def count_sequence(self, session_id: str, holder: str) -> bool:
        """Return whether a sequence that begins is one more. Raises SequenceLimit, StoreFailed."""
        return self.quotas.counts_sessions and await self._link.call(c.CountSequence(session_id, holder), bool)


class RemoteRepository:
    """The model repository, which the engine's process watches."""

    def __init__(self, backend: FrontBackend) -> None:
        self._backend = backend

    async def load(self, name: str) -> None:
        """Load the newest versions of a model by command. Raises BadInput."""
        await self._backend.engines.call(c.LoadModel(name), type(None), LOAD_TIMEOUT)

    async def unload(self, name: str) -> None:
        """Unload every version of a model by command. Raises UnknownModel."""
        await self._backend.engines.call(c.UnloadModel(name), type(None), LOAD_TIMEOUT)

    def index(self, ready_only: bool = False) -> list[Listed]:
        """Return every version that is loaded, and every one that is not and why."""
        return [line for line in self._backend.lines if line.state == "READY" or not ready_only]

    def unavailable(self) -> list[tuple[str, str]]:
        """Return the versions that are not served."""
        return [(line.name, line.version) for line in self._backend.lines if line.state == "UNAVAILABLE"]


class RemoteProbe:
    """Whether the store takes commits, which the engine's process asks it."""

    def __init__(self, link: AskedEngines) -> None:
        self._link = link

    async def need_store(self) -> None:
        """Raises StoreFailed while commits would fail, also for want of an engine."""
        await self._link.call(c.ProbeStore(), type(None))


class Tally:
    """What a front alone can count, told to the engine's process, which has the numbers of the service."""

    def __init__(self, link: AskedEngines, places: Places, totals: Totals) -> None:
        self._link = link
        self._places = places
        self._totals = totals
        self._said: c.StreamsOpen | None = None

    async def keep(self) -> None:
        """Tell it every so often, until this is cancelled."""
        while True:
            await asyncio.sleep(TALLY)
            self.tell()

    def tell(self) -> None:
        """Tell what has changed since it was last told."""
        if not self._link.up:
            self._said = None
            return
        streams = c.StreamsOpen(self._places.taken["stream"], self._places.taken["oip_grpc"])
        if streams != self._said:
            self._link.note(streams)
            self._said = streams
        resumed = dict(self._totals.resumed)
        self._totals.resumed.clear()
        for (model, version), times in resumed.items():
            self._link.note(c.Resumed(model, version, times))

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics of the service. Raises StoreFailed."""
        self.tell()
        body, form = await self._link.call(c.Scrape(accept), tuple)
        return body.encode(), form
