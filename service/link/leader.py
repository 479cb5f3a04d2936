"""The first shard's side where a service has several: it leads the engine's processes of the others.

There is one repository of models, one count of sessions for quotas, one census and one page of metrics, and all are here. A version is
loaded in every shard before the fronts are told of it, and is off their tables before it ends in any. A shard that was started again is
given what the service has before the fronts may ask it. The leader is asked nothing for a step: while it is started again the other
shards go on, and their numbers of models are as they were.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson

from indrnn.service.engine import calls as c
from indrnn.service.engine.port import EnginePort, EngineSnapshot
from indrnn.service.engine.runtime import EngineError
from indrnn.service.engine.statistics import Totals
from indrnn.service.errors import ModelGone, ServiceError, StoreFailed
from indrnn.service.link.engine import Announced, Host
from indrnn.service.link.front import LOAD_TIMEOUT, Link
from indrnn.service.link.numbers import Key, Numbers, added, beyond, flat, numbers_of, statistics_of
from indrnn.service.serving.models import ServedModel
from indrnn.service.serving.repository import UNLOAD_TIMEOUT
from indrnn.service.serving.steps import Tickets
from indrnn.service.session.machine import Session
from indrnn.service.session.shard import Shard, shard_of
from indrnn.service.store.protocol import Population, Store

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds for a shard's answer to what is asked of all
SCRAPED = 2.0  # seconds for a shard's numbers; then those of before are shown
AGAIN = 1.0  # seconds before a shard that could not be given what the service has is asked anew

Version = tuple[str, str]
R = TypeVar("R")


class FollowerLink(Link):
    """The leader's connection to another shard, which may be asked before it has said what it has loaded."""

    @property
    def up(self) -> bool:
        """Return whether there is an engine's process at the other end."""
        return self._connection is not None

    @property
    def epoch(self) -> int | None:
        """Return the epoch of the process at the other end, once it has said it."""
        return self._coming


# --- sessions of all shards -------------------------------------------------------------------------------------------------------------


class StoreOfAll:
    """The leader's store where it looks at the whole service: counted over all shards, each with files of its own.

    Every method may block, and none is called on the event loop.
    """

    def __init__(self, own: Store, shard: Shard, ask: Callable[[int, c.Call], Any]) -> None:
        """ask: returns the answer of another shard. Raises StoreFailed."""
        self.key, self.graphs = own.key, own.graphs
        self.commit, self.list, self.expire, self.check, self.close = own.commit, own.list, own.expire, own.check, own.close
        self._own = own
        self._shard = shard
        self._ask = ask

    def load(self, ids: Sequence[str]) -> dict[str, Session]:
        """Load sessions, wherever they are."""
        here = [ident for ident in ids if self._shard.has(ident)]
        found = self._own.load(here) if here else {}
        for ident in ids:
            if not self._shard.has(ident):
                session = self._ask(shard_of(ident, self._shard.of), c.LoadSession(ident))
                found |= {} if session is None else {ident: session}
        return found

    def count(self, owner: str, now: float) -> int:
        """Count an owner's living sessions."""
        return self._own.count(owner, now) + sum(int(count) for (count,) in self._ask_all(c.CountSessions(owner, now)))

    def census(self, now: float) -> tuple[Population, ...]:
        """Count the living sessions of each model version."""
        told = [Population(*one) for (text,) in self._ask_all(c.TellCensus(now)) for one in orjson.loads(text)]
        summed: dict[tuple[str, str, str], tuple[int, int]] = {}
        for model, version, digest, sessions, size in (*self._own.census(now), *told):
            before = summed.get((model, version, digest), (0, 0))
            summed[model, version, digest] = before[0] + sessions, before[1] + size
        return tuple(Population(*key, *summed[key]) for key in sorted(summed))

    def _ask_all(self, call: c.Call) -> list[Any]:
        return [self._ask(k, call) for k in range(self._shard.of) if k != self._shard.number]


# --- numbers of all shards --------------------------------------------------------------------------------------------------------------


@dataclass
class ShardNumbers:
    """The counts of another shard since this process began: they never go back, however often the other is started again.

    Where this process is started again the service's counts begin at zero, as those of a service do.
    """

    epoch: int | None = None
    waiting: dict[Version, int] = field(default_factory=dict)
    _start: dict[Version, Numbers] = field(default_factory=dict)
    _now: dict[Version, Numbers] = field(default_factory=dict)
    _ended: dict[Version, Numbers] = field(default_factory=dict)

    def take(self, epoch: int, told: Mapping[Version, Numbers]) -> None:
        """Take what the process of that epoch has counted."""
        if self.epoch is None:
            self._start = dict(told)
        elif epoch != self.epoch:
            self._ended = {version: self.total(version) for version in {*self._now, *self._ended}}
            self._start = {}
        self.epoch, self._now = epoch, dict(told)

    def forget(self, version: Version) -> None:
        """Forget a version that was unloaded: where it is loaded again its counts are new."""
        for counts in (self._start, self._now, self._ended):
            counts.pop(version, None)

    def total(self, version: Version) -> dict[Key, float]:
        """Return the counts of a version."""
        since = beyond(self._now.get(version, {}), self._start.get(version, {}))
        return added([self._ended.get(version, {}), since])


BESIDE = ("", "")
"""stands for no model's version: what a shard counts beside them"""


class SummedPort:
    """Stands for an engine where only the numbers are looked at."""

    def __init__(self, snapshot: EngineSnapshot) -> None:
        self._snapshot = snapshot

    def snapshot(self) -> EngineSnapshot:
        """Return what the engines of all shards have done."""
        return self._snapshot


# --- the leader -------------------------------------------------------------------------------------------------------------------------


class Leader:
    """Leads the other shards. Everything here runs on the event loop, but for what says otherwise.

    need: called with a shard to which there is no connection any more. divided: whether each shard has a store of its own.
    """

    def __init__(self, host: Host, shard: Shard, need: Callable[[int], None], divided: bool) -> None:
        self.totals = Totals()
        """of all shards, when they were last asked"""
        self._failures_summed = 0
        """of the store, as they were last written into the totals; what is there beyond it was counted by whoever shows them"""
        self._host = host
        self._need = need
        self._loop = asyncio.get_running_loop()
        self._links = {
            k: FollowerLink(Tickets(), lambda engine, roster: None, partial(need, k)) for k in range(shard.of) if k != shard.number
        }
        self._loaded = list(host.models)
        """what every shard has to have, also what has still to come into the table"""
        self._there: dict[int, dict[EnginePort, int]] = {k: {} for k in self._links}
        """the other shards' numbers of those"""
        self._counted = {k: ShardNumbers() for k in self._links}
        self._gate = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        store = host.backend.store
        host.registry, host.repository = host.over(StoreOfAll(store, shard, self._ask) if divided else store, LoaderOfAll(self, host))

    def attach(self, shard: int, link: socket.socket) -> None:
        """Begin to lead a shard over a socket."""
        self._links[shard].attach(link)
        task = self._loop.create_task(self._take_in(shard))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Let the other shards go."""
        for task in list(self._tasks):
            task.cancel()
        for link in self._links.values():
            link.close()

    def _ask(self, shard: int, call: c.Call) -> Any:
        """Return a shard's answer, on another thread. Raises ServiceError."""
        return self.wait(self._links[shard].call(call, object, PATIENCE))

    def wait(self, asked: Coroutine[Any, Any, R]) -> R:
        """Return what comes of something that runs on the event loop, on another thread."""
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()

    # --- a shard comes ------------------------------------------------------------------------------------------------------------------

    async def _take_in(self, shard: int) -> None:
        """Give a shard what the service has, then let it be asked."""
        link = self._links[shard]
        try:
            async with self._gate:
                left = await self._give(shard, link)
                self._take_numbers(shard, await link.call(c.TellNumbers(), tuple, PATIENCE))
                await link.call(c.Settle(), type(None), PATIENCE)
                if left:
                    await self._host.announce()  # the fronts ask by this process' table, not by that of one before it
                for number in left:  # still nobody else has a model loaded, who would be told of one that ends
                    await link.call(c.EndModel(number, "the session's model was unloaded", UNLOAD_TIMEOUT), type(None), LOAD_TIMEOUT)
        except ServiceError as error:
            log.error("shard %d cannot be led: %s", shard, error)
            self._begin_anew(shard)

    def _begin_anew(self, shard: int) -> None:
        """Let go a shard that is there and has not what it should: with the next connection it is given all."""
        if self._links[shard].up:
            self._links[shard].close()
            self._loop.call_later(AGAIN, self._need, shard)

    async def _give(self, shard: int, link: FollowerLink) -> list[int]:
        """Have a shard load what it lacks, and return the numbers of what the service does not have. Raises StoreFailed."""
        told = iter(await link.call(c.TellLoaded(), tuple, PATIENCE))
        there = {manifest: int(number) for number, manifest in zip(told, told, strict=True)}
        self._there[shard] = {}
        for model in self._loaded:
            try:
                await self._host_in(shard, model)
            except StoreFailed:
                raise
            except ServiceError as error:
                log.error("shard %d has no %s/%s: %s", shard, model.manifest.name, model.manifest.version, error)
        known = set(self._there[shard].values())
        return [number for number in there.values() if number not in known]

    async def _host_in(self, shard: int, model: ServedModel) -> None:
        m = model.manifest
        (number,) = await self._links[shard].call(c.HostModel(m.name, m.version, m.model_dump_json()), tuple, LOAD_TIMEOUT)
        self._there[shard][model.port] = int(number)

    # --- models -------------------------------------------------------------------------------------------------------------------------

    async def host_everywhere(self, model: ServedModel) -> None:
        """Load a model in every shard that is there; one that comes later gets it then. Raises ServiceError: then no shard has it."""
        async with self._gate:
            self._loaded.append(model)
            there = [k for k, link in self._links.items() if link.up]
            results = await asyncio.gather(*(self._host_in(k, model) for k in there), return_exceptions=True)
            wrong = [(k, e) for k, e in zip(there, results, strict=True) if e is not None and not isinstance(e, StoreFailed)]
            for k, error in zip(there, results, strict=True):
                if isinstance(error, StoreFailed):  # of one that is there yet: it gave no answer in time
                    self._begin_anew(k)
            if wrong:
                await self._end_everywhere(model, "the model was not loaded in every shard", 0)
        for shard, refusal in wrong:
            raise ServiceError(f"shard {shard}: {refusal}")

    async def end_everywhere(self, model: ServedModel, why: str, seconds: float) -> None:
        """Unload a model that the fronts no longer have."""
        async with self._gate:
            await self._end_everywhere(model, why, seconds)

    async def _end_everywhere(self, model: ServedModel, why: str, seconds: float) -> None:
        self._loaded = [one for one in self._loaded if one is not model]
        ended = []
        for shard, numbers in self._there.items():
            number = numbers.pop(model.port, None)
            if number is not None and number not in numbers.values():  # one that is loaded again has the same, and goes on
                ended.append(self._links[shard].call(c.EndModel(number, why, seconds), type(None), LOAD_TIMEOUT))
        version = model.manifest.name, model.manifest.version
        if all((one.manifest.name, one.manifest.version) != version for one in self._loaded):
            for counted in self._counted.values():
                counted.forget(version)
        for error in await asyncio.gather(*ended, return_exceptions=True):
            if isinstance(error, BaseException):
                log.error("a shard could not unload a model: %s", error)

    # --- numbers ------------------------------------------------------------------------------------------------------------------------

    async def gather(self) -> None:
        """Ask every shard for its numbers; of one that does not answer those of before stay."""

        async def asked(shard: int, link: FollowerLink) -> None:
            try:
                self._take_numbers(shard, await link.call(c.TellNumbers(), tuple, SCRAPED))
            except ServiceError as error:
                log.warning("shard %d does not tell its numbers: %s", shard, error)

        await asyncio.gather(*(asked(k, link) for k, link in self._links.items()))
        own = self._host.totals
        beside = added([counted.total(BESIDE) for counted in self._counted.values()])
        self.totals.loads, self.totals.load_failures, self.totals.resumed = own.loads, own.load_failures, own.resumed
        self.totals.swept = own.swept + int(beside.get(("swept",), 0))
        own.store_failures += self.totals.store_failures - self._failures_summed
        self.totals.store_failures = self._failures_summed = own.store_failures + int(beside.get(("store_failures",), 0))

    def _take_numbers(self, shard: int, told: tuple[str, ...]) -> None:
        epoch = self._links[shard].epoch
        if epoch is None:
            return
        said, counted = orjson.loads(told[0]), self._counted[shard]
        numbers: dict[Version, Numbers] = {(name, version): numbers_of(text) for name, version, _, text in said["models"]}
        numbers[BESIDE] = {(name,): n for name, n in said["beside"].items()}
        counted.take(epoch, numbers)
        counted.waiting = {(name, version): waiting for name, version, waiting, _ in said["models"]}

    def summed(self) -> Iterable[ServedModel]:
        """Return the models with the numbers of all shards. Any thread may call."""
        for model in self._host.models:
            version = model.manifest.name, model.manifest.version
            own = model.port.snapshot()
            every = added([flat(own.statistics), *(counted.total(version) for counted in self._counted.values())])
            waiting = own.waiting + sum(counted.waiting.get(version, 0) for counted in self._counted.values())
            port: Any = SummedPort(EngineSnapshot(statistics_of(every), waiting))
            yield replace(model, port=port)


class LoaderOfAll:
    """Loads and unloads in every shard, as the repository says."""

    def __init__(self, leader: Leader, host: Host) -> None:
        self._leader = leader
        self._host = host
        self._here = Announced(host)

    def load(self, folder: Path) -> ServedModel:
        """Read a bundle, warm it up and start its engine, here and in every other shard. On a worker thread."""
        model = self._here.load(folder)
        try:
            self._leader.wait(self._leader.host_everywhere(model))
        except BaseException as error:
            gone = ModelGone("the model was not loaded in every shard")
            self._leader.wait(self._host.backend.unload(model, gone, 0))
            raise EngineError(str(error)) from error
        return model

    async def unload(self, model: ServedModel, why: ServiceError, seconds: float) -> None:
        """Tell the fronts, then end the engines."""
        await self._host.announce()
        await self._leader.end_everywhere(model, str(why), seconds)
        await self._here.unload(model, why, seconds)
