"""A front's side where a service has several engine's processes: a connection to each, and one engine port of each model over all of them.

What names a session goes to the session's shard, anything else to the shard where the fewest wait. What counts for the whole service is
asked of the first shard, which leads the others (service/link/leader.py): its table of models is the front's, the others have the same
models under numbers of their own. Where one engine's process is lost, only what waits for it is refused.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from indrnn.service.engine import calls as c
from indrnn.service.engine.loop import tickets_of
from indrnn.service.engine.port import EnginePort, EngineSnapshot
from indrnn.service.engine.requests import Asked, Delivery, Request, Ticket
from indrnn.service.engine.statistics import Statistics
from indrnn.service.errors import ModelGone, ServiceError
from indrnn.service.link.front import CALL_TIMEOUT, FrontBackend, FrontPort, Link, RemotePort
from indrnn.service.link.numbers import added, flat, statistics_of
from indrnn.service.serving.steps import Tickets
from indrnn.service.session.machine import Refused, Session
from indrnn.service.session.shard import shard_of
from indrnn.service.settings import Settings
from indrnn.service.tracing import Times

log = logging.getLogger(__name__)

NOWHERE = 0  # number of a model that a shard has not loaded; theirs begin at 1

R = TypeVar("R")


class ShardLink(Link):
    """The connection to the engine's process of one shard, which knows which tickets wait for that one."""

    def __init__(self, tickets: Tickets, roster: Callable[[int, c.Roster], None], need: Callable[[], None]) -> None:
        super().__init__(tickets, roster, need)
        self.open: set[int] = set()

    def submit(self, port: RemotePort, asked: Sequence[Asked], whole: bool) -> None:
        """Send requests when this turn of the event loop is over, or refuse them."""
        self.open.update([ticket.number for one in asked for ticket in tickets_of(*one)])
        super().submit(port, asked, whole)

    def _refusal(self, port: RemotePort) -> ServiceError | None:
        if port.number == NOWHERE and self.up and not port.stopping:
            return ModelGone("the model is not loaded in the session's shard")
        return super()._refusal(port)

    def withdraw(self, model: int, tickets: Sequence[Ticket]) -> None:
        """Tell the engine that nobody waits for those of the tickets that it has."""
        mine = [ticket for ticket in tickets if ticket.number in self.open]
        self.open.difference_update([ticket.number for ticket in mine])
        if mine:
            super().withdraw(model, mine)

    def _tell(self, deliveries: Sequence[Delivery], times: Times | None = None) -> None:
        self.open.difference_update([ticket.number for ticket, _, _, final in deliveries if final])
        super()._tell(deliveries, times)

    def _fail(self, error: ServiceError) -> None:
        self._tell([Delivery(Ticket(self.tickets.epoch, number), Refused(error)) for number in list(self.open)])


class Shards:
    """The connections of a front to the engine's processes of all shards, for what is asked beside steps."""

    def __init__(self, links: Sequence[ShardLink]) -> None:
        self.links = links
        self._noted: Callable[[c.Note], None] = lambda note: None
        for k, link in enumerate(links):
            link.noted = partial(self._note, k)

    @property
    def noted(self) -> Callable[[c.Note], None]:
        """Return what takes the notes of the engine's processes."""
        return self._noted

    @noted.setter
    def noted(self, noted: Callable[[c.Note], None]) -> None:
        self._noted = noted

    def _note(self, shard: int, note: c.Note) -> None:
        if shard == 0 or isinstance(note, c.Charged):  # open streams are counted by the leader
            self._noted(note)

    @property
    def stopping(self) -> bool:
        """Return whether nothing new is asked."""
        return self.links[0].stopping

    @stopping.setter
    def stopping(self, stopping: bool) -> None:
        for link in self.links:
            link.stopping = stopping

    @property
    def up(self) -> bool:
        """Return whether the leader is there."""
        return self.links[0].up

    def close(self) -> None:
        """End the connections; whatever waits is refused."""
        for link in self.links:
            link.close()

    def note(self, note: c.Note) -> None:
        """Tell the leader something; what a key was charged, any that hands it on to the other fronts."""
        there = [link for link in self.links if link.up]
        to = there[0] if isinstance(note, c.Charged) and there else self.links[0]
        to.note(note)

    async def call(self, call: c.Call, kind: type[R], seconds: float = CALL_TIMEOUT) -> R:
        """Return the answer of the shard of a session, of all shards, or of the leader. Raises as Link.call."""
        if isinstance(call, c.FindSession | c.RemoveSession):
            return await self.links[shard_of(call.session_id, len(self.links))].call(call, kind, seconds)
        if isinstance(call, c.ListSessions):
            return newest(await self._call_all(call, tuple, seconds), call.limit)  # type: ignore[return-value]  # a tuple, as is asked for
        if isinstance(call, c.ProbeStore):
            return (await self._call_all(call, kind, seconds))[0]
        return await self.links[0].call(call, kind, seconds)

    async def _call_all(self, call: c.Call, kind: type[R], seconds: float) -> list[R]:
        """Return the answers of all shards. Raises the error of the first that has one."""
        answers = await asyncio.gather(*(link.call(call, kind, seconds) for link in self.links), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers  # type: ignore[return-value]  # none of them is an error


def newest(lists: Sequence[tuple[Session, ...]], limit: int) -> tuple[Session, ...]:
    """Return the newest sessions of several lists, newest first; those of shards that share a store are in all of them."""
    every = {session.id: session for listed in lists for session in listed}
    return tuple(sorted(every.values(), key=lambda session: session.created_at, reverse=True)[:limit])


class ShardedPort(FrontPort):
    """The engine port of one model over all shards. Everything here runs on the event loop."""

    def __init__(self, links: Sequence[ShardLink], number: int) -> None:
        self.ports = [RemotePort(link, NOWHERE) for link in links]
        self.ports[0].number = number
        self._links = links
        self._turn = 0

    @property
    def number(self) -> int:
        """Return the leader's number of the model."""
        return self.ports[0].number

    @number.setter
    def number(self, number: int) -> None:
        self.ports[0].number = number

    @property
    def stopping(self) -> bool:
        """Return whether nothing new is taken."""
        return self.ports[0].stopping

    @stopping.setter
    def stopping(self, stopping: bool) -> None:
        for port in self.ports:
            port.stopping = stopping

    @property
    def ready(self) -> bool:
        """Return whether some shard would take something now."""
        return any(port.ready and port.number != NOWHERE for port in self.ports)

    def submit(self, asked: Sequence[Asked], whole: bool = False) -> None:
        """Queue requests, as the engine port says. Those that are taken all or none name no session, or one shard's."""
        if len(asked) == 1:
            self.ports[self._shard_of(asked[0].request)].submit(asked, whole)
            return
        if whole:
            named = {self._shard_of(one.request) for one in asked if _session(one.request) is not None}
            if len(named) > 1:
                raise ValueError("expected requests of one shard, where all or none are taken")
            self.ports[named.pop() if named else self._idlest()].submit(asked, whole)
            return
        groups: dict[int, list[Asked]] = {}
        for one in asked:
            groups.setdefault(self._shard_of(one.request, groups), []).append(one)
        for shard, of_shard in groups.items():
            self.ports[shard].submit(of_shard)

    def _shard_of(self, request: Request, groups: "dict[int, list[Asked]] | None" = None) -> int:
        session_id = _session(request)
        return self._idlest(groups or {}) if session_id is None else shard_of(session_id, len(self.ports))

    def _idlest(self, groups: "dict[int, list[Asked]] | None" = None) -> int:
        """Return the shard where the fewest wait, of those that would take something; groups: what is about to be asked of each.

        Where as many wait in several it is another one each time: sessions that are opened one by one are parted too.
        """
        about, shards = groups or {}, len(self.ports)
        self._turn += 1

        def waiting(shard: int) -> tuple[bool, int, int]:
            port = self.ports[shard]
            waits = len(self._links[shard].open) + len(about.get(shard, ()))
            return not port.ready or port.number == NOWHERE, waits, (shard - self._turn) % shards

        return min(range(shards), key=waiting)

    def withdraw(self, tickets: Sequence[Ticket]) -> None:
        """Take tickets back, as the engine port says."""
        for port in self.ports:
            port.withdraw(tickets)

    def snapshot(self) -> EngineSnapshot:
        """Return what the engines had done when they were last asked, and how many tickets of this front wait."""
        seen = [port.snapshot() for port in self.ports]
        return EngineSnapshot(_summed([one.statistics for one in seen]), seen[0].waiting)

    async def look(self) -> EngineSnapshot:
        """Return what the engines have done by now. Raises StoreFailed where one of them is not there."""
        await asyncio.gather(*(port.look() for port in self.ports if port.number != NOWHERE))
        return self.snapshot()


def _session(request: Request) -> str | None:
    """Return the session that a request names."""
    named: str | None = getattr(request, "session_id", None)
    return named


def _summed(statistics: Sequence[Statistics]) -> Statistics:
    return statistics_of(added([flat(one) for one in statistics]))


class ShardedBackend(FrontBackend):
    """The engines of all shards as a front has them. need: called with the shard to which there is no connection any more."""

    def __init__(self, settings: Settings, need: Callable[[int], None], shards: int) -> None:
        self._need_shard = need
        self._numbers: list[dict[str, int] | None] = [None] * shards
        """by manifest, the number of each model that a shard has loaded; None until it has said"""
        super().__init__(settings, lambda: None)

    def __post_init__(self) -> None:
        self.known = asyncio.Event()
        self.shards = Shards(
            [
                ShardLink(self.tickets, partial(self._follow_shard, k), partial(self._need_shard, k))  # the leader's is the table
                for k in range(len(self._numbers))
            ]
        )
        self.engines = self.shards

    def attach(self, shard: int, link: socket.socket) -> None:
        """Begin to talk to the engine's process of a shard over a socket."""
        self.shards.links[shard].attach(link)

    def _follow_shard(self, shard: int, engine: int, roster: c.Roster) -> None:
        self._numbers[shard] = {hosted.manifest: hosted.number for hosted in roster.models}
        if shard == 0:
            self.follow(engine, roster)
        else:
            self._settle()

    def _settle(self) -> None:
        """Give every model the number that each shard has for it."""
        for hosted, model in self._ports.values():
            if isinstance(model.port, ShardedPort):
                for port, numbers in list(zip(model.port.ports, self._numbers, strict=True))[1:]:
                    port.number = NOWHERE if numbers is None else numbers.get(hosted.manifest, NOWHERE)
        if self._numbers[0] is not None:  # a front may begin though another shard is being started again
            self.known.set()

    def _port(self, hosted: c.Hosted) -> EnginePort:
        return ShardedPort(self.shards.links, hosted.number)

    @property
    def busy(self) -> bool:
        """Return whether somebody waits for an answer of an engine that is there."""
        return any(link.up and link.open for link in self.shards.links)
