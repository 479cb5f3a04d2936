"""The engine's process's side: fronts come by sockets, ask by tickets of their own, and are told what they asked, and nobody else.

All that the fronts share is here: the store and its lock, the engines, the registry, quotas, the repository, statistics and metrics.
"""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from indrnn.export.bundle import BundleError
from indrnn.service.engine import calls as c
from indrnn.service.engine.codec import CodecError, decode, encode
from indrnn.service.engine.loop import EngineLoop, tickets_of
from indrnn.service.engine.port import EnginePort
from indrnn.service.engine.quota import Quotas
from indrnn.service.engine.registry import Registry
from indrnn.service.engine.requests import ClientProtocol, Delivery, InferRequest, StepRequest, Ticket
from indrnn.service.engine.runtime import EngineError
from indrnn.service.engine.statistics import Totals
from indrnn.service.errors import SESSION, EngineFailed, ModelGone, ServiceError, Stopping, not_known, unanswered, unexpected
from indrnn.service.link.connection import Connection
from indrnn.service.link.message import FORMAT, TOGETHER, Kind, LinkError, framed, messages, parts, read_asked, times_part, told_parts
from indrnn.service.link.numbers import statistics_text, told_numbers
from indrnn.service.serving.backend import Backend
from indrnn.service.serving.models import Models, ServedModel
from indrnn.service.serving.repository import Loader, Repository, Rules
from indrnn.service.session.machine import Refused
from indrnn.service.store.protocol import Store
from indrnn.service.store.refreshed import StoreProbe
from indrnn.service.tracing import Times

log = logging.getLogger(__name__)

UNREAD = 2**26  # bytes of replies that a front may leave unread; then it is let go, and what it asked is withdrawn
TOLD = 0.25  # seconds between looks whether the repository's index has changed
TAKEN = 5.0  # seconds that fronts have to take up a roster before a model that is no longer on it is unloaded

Scrape = Callable[[str], Awaitable[tuple[bytes, str]]]


class FrontLink:
    """One front, as the engine's process knows it: its epoch, once it has said it, and who of it wants to be told the state.

    Replies are written on the threads of the engines, everything else is the event loop's.
    """

    def __init__(self, host: "Host", link: socket.socket) -> None:
        self.epoch: int | None = None
        self.streams: dict[ClientProtocol, int] = {"stream": 0, "oip_grpc": 0}
        self.roster = 0
        self._host = host
        self._wants: set[int] = set()
        self.connection = Connection(link, asyncio.get_running_loop(), self._took, self._lost, UNREAD)
        self.connection.write(framed(Kind.HELLO, encode(c.Hello(FORMAT, host.epoch))))
        self._calls: set[asyncio.Task[None]] = set()

    def tell(self, deliveries: Sequence[Delivery], times: Times | None = None) -> None:
        """Write deliveries: one message for those of one commit, if they have room in it; times: of their turn, where it is traced.

        One that cannot be written is told as a step of which it is not known whether it is stored, since nobody else would answer it.
        """
        wanted = self._wants.copy()
        try:
            message = self._told(deliveries, times)
        except Exception:
            log.exception("an answer could not be written")
            self._wants = wanted
            message = b"".join([self._told_alone(delivery) for delivery in deliveries])
        self.connection.write(message)
        if self._wants:
            self._wants.difference_update([d.ticket.number for d in deliveries if d.final])

    def _told(self, deliveries: Sequence[Delivery], times: Times | None = None) -> bytes:
        made = list(told_parts(deliveries, self._tells_state))
        if times is not None:
            made.insert(0, times_part(times))
        return b"".join(messages(Kind.TOLD, made))

    def _told_alone(self, delivery: Delivery) -> bytes:
        try:
            return self._told([delivery])
        except Exception:  # it has been logged
            return self._told([Delivery(delivery.ticket, Refused(not_known("its answer could not be written")))])

    def _tells_state(self, number: int) -> bool:
        if not self._wants or number not in self._wants:
            return False
        self._wants.discard(number)
        return True

    def note(self, note: c.Note) -> None:
        """Tell the front something that it does not answer."""
        self.connection.write(framed(Kind.NOTE, encode(note)))

    def _lost(self, why: str) -> None:
        log.log(logging.INFO if self._host.backend.stopping else logging.WARNING, "a front is gone: %s", why)
        self._host.left(self)

    # --- in -----------------------------------------------------------------------------------------------------------------------------

    def _took(self, kind: int, body: bytes) -> None:
        try:
            if kind == Kind.HELLO:
                self._hello(decode(body, c.Hello))
            elif self.epoch is None:
                raise LinkError(f"expected a hello first, got kind {kind}")
            elif kind == Kind.ASKED:
                self._asked(body, self.epoch)
            elif kind == Kind.WITHDRAWN:
                model, *numbers = (int.from_bytes(body[at : at + 8], "little") for at in range(0, len(body), 8))
                self._wants.difference_update(numbers)
                if port := self._host.port(model):
                    port.withdraw([Ticket(self.epoch, number) for number in numbers])
            elif kind == Kind.CALL:
                task = asyncio.create_task(self._answer(body[:8], decode(body[8:], tuple)))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
            elif kind == Kind.NOTE:
                self._note(decode(body, tuple))
            else:
                raise LinkError(f"expected what a front says, got kind {kind}")
        except (CodecError, ValueError) as error:
            raise LinkError(str(error)) from error

    def _hello(self, hello: c.Hello) -> None:
        if hello.format != FORMAT:
            raise LinkError(f"expected format {FORMAT}, got {hello.format}")
        self.epoch = hello.epoch
        self._host.came(self)

    def _asked(self, body: bytes, epoch: int) -> None:
        for part in parts(body):
            asked = read_asked(part, epoch)
            for ticket, request in asked:
                if type(request) in _TELLING and request.tell_state:  # type: ignore[union-attr]  # one of these
                    self._wants.add(ticket.number)
            port = self._host.port(part.model)
            if port is None:
                gone = ModelGone("the model was unloaded")
                self.tell([Delivery(ticket, Refused(gone)) for one in asked for ticket in tickets_of(*one)])
            else:
                port.submit(asked, bool(part.flags & TOGETHER))

    def _note(self, note: tuple[Any, ...]) -> None:
        if isinstance(note, c.RosterTaken):
            self.roster = max(self.roster, note.number)
        elif isinstance(note, c.Charged):
            self._host.relay(self, note)
        elif isinstance(note, c.SessionEnded):
            self._host.registry.quotas.session_ended(note.owner, note.weight)
        elif isinstance(note, c.StreamsOpen):
            self.streams = {"stream": note.websocket, "oip_grpc": note.grpc}
            self._host.tell_streams()
        elif isinstance(note, c.Resumed):
            self._host.totals.resumed[note.model, note.version] += note.times
        else:
            raise LinkError(f"expected a note of a front, got {type(note).__name__}")

    async def _answer(self, number: bytes, call: tuple[Any, ...]) -> None:
        try:
            message = framed(Kind.RETURNED, number + encode(c.CallAnswer(await self._host.answer_to(call))))
        except ServiceError as error:
            message = framed(Kind.RETURNED, number + encode(Refused(error)))
        except Exception as error:  # whatever it is, somebody waits
            log.exception("a call of a front failed: %s", type(call).__name__)
            removes = isinstance(call, c.RemoveSession)
            refused = Refused(unanswered(error, what=SESSION) if removes else unexpected(error))
            message = framed(Kind.RETURNED, number + encode(refused))
        self.connection.write(message)


_TELLING = (StepRequest, InferRequest)


class Host:
    """What the fronts of a service share. Everything here but `answer` runs on the event loop."""

    def __init__(self, backend: Backend) -> None:
        self.settled = backend.shard.number == 0
        """whether the fronts may be told what is loaded; a shard that is led says so when it has what the service has"""
        self.epoch = secrets.randbits(63)
        self.totals = Totals()
        self.backend = backend
        self.scrape: Scrape | None = None
        self.registry, self.repository = self.over(backend.store, Announced(self))
        self.probe = StoreProbe(backend.store)
        self._fronts: list[FrontLink] = []
        self._by_epoch: dict[int, FrontLink] = {}
        self._hosted: dict[EnginePort, c.Hosted] = {}
        self._ports: dict[int, EngineLoop] = {}
        self._number = 0
        self._said: c.Roster | None = None
        backend.models.follow(self.changed)
        self._number_models(backend.models)

    def over(self, store: Store, loader: Loader) -> tuple[Registry, Repository]:
        """Return the registry of a store's sessions, and the repository whose models are loaded by `loader`."""
        backend, s = self.backend, self.backend.settings
        registry = Registry(store, s.session_ttl, Quotas(s.max_sessions, s.max_steps_per_second, store.count))
        rules = Rules(s.bundles, s.versions, s.linger)
        repository = Repository(rules, backend.models, registry.census, loader, lambda model: None, self.totals)
        repository.began_with(backend.stamps, backend.skipped)
        return registry, repository

    @property
    def models(self) -> Models:
        """Return the table of what is loaded."""
        return self.backend.models

    @property
    def fronts(self) -> int:
        """Return how many fronts are connected."""
        return len(self._fronts)

    def streams(self) -> dict[ClientProtocol, int]:
        """Return the open streams of all fronts."""
        return {kind: sum(front.streams[kind] for front in self._fronts) for kind in ("stream", "oip_grpc")}

    def attach(self, link: socket.socket) -> None:
        """Begin to serve a front over a socket."""
        self._fronts.append(FrontLink(self, link))

    def close(self) -> None:
        """Let all fronts go."""
        for front in list(self._fronts):
            front.connection.close()
            self.left(front)

    def port(self, number: int) -> EngineLoop | None:
        """Return the engine of that number, which may have left the table of models a moment ago."""
        return self._ports.get(number)

    def answer(self, deliveries: Sequence[Delivery], times: Times | None = None) -> None:
        """Take an engine's deliveries, on any thread: each front is told what was asked in its epoch, and what nobody asked is dropped."""
        by_epoch = self._by_epoch
        if len(by_epoch) == 1:
            ((epoch, front),) = by_epoch.items()
            if all(d.ticket.epoch == epoch for d in deliveries):
                front.tell(deliveries, times)
                return
        groups: dict[int, list[Delivery]] = {}
        for delivery in deliveries:
            groups.setdefault(delivery.ticket.epoch, []).append(delivery)
        for epoch, of_front in groups.items():
            if found := by_epoch.get(epoch):
                found.tell(of_front, times)

    # --- fronts come and go ---------------------------------------------------------------------------------------------------------------

    def came(self, front: FrontLink) -> None:
        """A front has said who it is: it is told what is loaded. One that comes again in the same epoch is the only one of it."""
        assert front.epoch is not None, "it has said"
        before = self._by_epoch.get(front.epoch)
        if before is not None:
            before.connection.close()
            self.left(before)
        self._by_epoch = {**self._by_epoch, front.epoch: front}
        if self.settled:
            front.note(self._roster())
        self.tell_streams()

    def left(self, front: FrontLink) -> None:
        """A front is gone: its tickets go, what is in flight commits."""
        if front not in self._fronts:
            return
        self._fronts.remove(front)
        if front.epoch is not None and self._by_epoch.get(front.epoch) is front:
            self._by_epoch = {epoch: other for epoch, other in self._by_epoch.items() if other is not front}
            for engine in self.backend.engines:
                engine.leave(front.epoch)
        self.tell_streams()

    def tell_streams(self) -> None:
        """Tell each front how many streams the others have open."""
        total = self.streams()
        for front in self._by_epoch.values() if len(self._by_epoch) > 1 else ():
            elsewhere = [total[kind] - front.streams[kind] for kind in ("stream", "oip_grpc")]
            front.note(c.StreamsOpen(*elsewhere))

    def relay(self, sender: FrontLink, note: c.Charged) -> None:
        """Tell the other fronts what one has charged."""
        for front in self._by_epoch.values():
            if front is not sender:
                front.note(note)

    # --- what is loaded -------------------------------------------------------------------------------------------------------------------

    def _number_models(self, models: Models) -> None:
        for model in models:
            if model.port not in self._hosted and isinstance(model.port, EngineLoop):
                self._number += 1  # no other model gets it, as long as this process lives
                manifest = model.manifest.model_dump_json()
                self._hosted[model.port] = c.Hosted(self._number, manifest, model.provider, model.kernel, False)
                self._ports[self._number] = model.port

    def forget(self, port: EnginePort) -> None:
        """Forget an engine that has ended."""
        hosted = self._hosted.pop(port, None)
        if hosted is not None:
            del self._ports[hosted.number]

    def _roster(self) -> c.Roster:
        """Return what is loaded by now, under a new number where it is not what was said last."""
        lines = tuple(tuple(line) for line in self.repository.index())
        hosted = tuple(self._hosted[m.port]._replace(retired=self.models.is_retired(m)) for m in self.models)
        said = self._said
        if said is None or (said.models, said.lines) != (hosted, lines):
            self._said = said = c.Roster(1 if said is None else said.number + 1, hosted, lines)  # type: ignore[arg-type]  # lines have four fields
        return said

    def changed(self) -> None:
        """Tell the fronts that the table of models is another."""
        self._number_models(self.models)
        before = self._said
        roster = self._roster()
        if roster is not before and self.settled:
            for front in self._by_epoch.values():
                front.note(roster)

    async def announce(self) -> None:
        """Return when every front asks by what is loaded now, or has had its time to."""
        self.changed()
        number, until = self._roster().number, time.monotonic() + (TAKEN if self.settled else 0)
        while any(front.roster < number for front in self._by_epoch.values()) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    async def keep_telling(self) -> None:
        """Look every so often whether the repository's index is another, until this is cancelled."""
        while True:
            await asyncio.sleep(TOLD)
            self.changed()

    # --- calls ----------------------------------------------------------------------------------------------------------------------------

    async def answer_to(self, call: tuple[Any, ...]) -> Any:
        """Return the value of a call. Raises ServiceError."""
        if isinstance(call, c.FindSession):
            find = self.registry.find_living if call.living else self.registry.find
            return await find(call.session_id, call.owner)
        if isinstance(call, c.RemoveSession):
            return await self.registry.remove(call.session_id, call.owner)
        if isinstance(call, c.ListSessions):
            return tuple(await self.registry.list(call.owner, call.limit))
        if isinstance(call, c.CountSequence):
            return await self.registry.count_sequence(call.session_id, call.holder)
        if isinstance(call, c.MakeRoom):
            return await self.registry.quotas.new_session(call.owner, call.horizon, call.weight)
        if isinstance(call, c.ProbeStore):
            return await self._ready()
        if isinstance(call, c.LoadModel | c.UnloadModel):
            act = self.repository.load if isinstance(call, c.LoadModel) else self.repository.unload
            try:
                return await act(call.name)
            finally:
                await self.announce()
        if isinstance(call, c.TellStatistics):
            port = self.port(call.model)
            if port is None:
                raise ModelGone("the model was unloaded")
            return (statistics_text(port.snapshot().statistics),)
        if isinstance(call, c.Scrape) and self.scrape is not None:
            body, form = await self.scrape(call.accept)
            return body.decode(), form
        if isinstance(call, c.OfLeader):
            return await self._answer_to_leader(call)
        raise ServiceError(f"expected a call, got {type(call).__name__}")

    async def _answer_to_leader(self, call: c.OfLeader) -> Any:
        """Return the value of a call of the first shard. Raises ServiceError."""
        store = self.backend.store
        if isinstance(call, c.TellLoaded):
            return tuple(text for one in self._hosted.values() for text in (str(one.number), one.manifest))
        if isinstance(call, c.HostModel):
            return (str(await self._host(call)),)
        if isinstance(call, c.EndModel):
            return await self._end(call)
        if isinstance(call, c.Settle):
            return await self._settle()
        if isinstance(call, c.LoadSession):
            return (await asyncio.to_thread(store.load, [call.session_id])).get(call.session_id)
        if isinstance(call, c.CountSessions):
            return (str(await asyncio.to_thread(store.count, call.owner, call.until)),)
        if isinstance(call, c.TellCensus):
            return (orjson.dumps([list(one) for one in await asyncio.to_thread(store.census, call.now)]).decode(),)
        return (told_numbers(self.models, self.totals),)

    async def _host(self, call: c.HostModel) -> int:
        """Load a version that the first shard has, and return its number here. Raises EngineFailed."""
        self._number_models(self.models)
        for loaded in self.models:  # not among all that have numbers: some are ending
            hosted = self._hosted.get(loaded.port)
            if hosted is not None and hosted.manifest == call.manifest:
                return hosted.number
        try:
            model = await asyncio.to_thread(self.backend.load, self.backend.settings.bundles / call.name / call.version)
        except (BundleError, EngineError) as error:
            raise EngineFailed(str(error)) from error
        if model.manifest.model_dump_json() != call.manifest:
            await self.backend.unload(model, ModelGone("the model was unloaded"), 0)
            raise EngineFailed(f"{call.name}/{call.version}: its files have changed meanwhile")
        self.models.add(model)
        await self.announce()
        return self._hosted[model.port].number

    async def _end(self, call: c.EndModel) -> None:
        """Unload a version that the service has no longer; its number may be gone already."""
        port = self._ports.get(call.number)
        model = next((model for model in self.models if model.port is port), None)
        if model is not None:
            self.models.remove(model)
        if port is not None:
            await self.backend.end(port, ModelGone(call.why), call.seconds)
            self.forget(port)

    async def _settle(self) -> None:
        self.settled = True
        for front in self._by_epoch.values():
            front.note(self._roster())
        await self.announce()

    async def _ready(self) -> None:
        if self.backend.stopping:
            raise Stopping("the service is shutting down", retry_after=1)
        await self.probe.need_store()


class Announced:
    """Loads and unloads; before an engine ends, the fronts have been told that it does."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def load(self, folder: Path) -> ServedModel:
        """Read a bundle, warm it up and start its engine."""
        return self._host.backend.load(folder)

    async def unload(self, model: ServedModel, why: ServiceError, seconds: float) -> None:
        """Tell the fronts, then end the engine."""
        await self._host.announce()
        await self._host.backend.unload(model, why, seconds)
        self._host.forget(model.port)
