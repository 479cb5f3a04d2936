"""A front and the engine's processes of three shards over real sockets, in one event loop: who has a session, who is lost, who leads."""

import asyncio
import shutil
import socket
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_link import BUNDLE, ask, step, until
from test_loop import FakeEngine

from indrnn.export.bundle import Manifest
from indrnn.service.engine.loop import EngineLoop, EngineSettings
from indrnn.service.engine.requests import Asked, CreateRequest, Exact, ForkRequest, InferRequest
from indrnn.service.engine.runtime import EngineError
from indrnn.service.engine.statistics import Statistics
from indrnn.service.errors import EngineAway, Overloaded, SequenceLimit, SessionLimit, Stopping, StoreFailed, UnknownSession
from indrnn.service.http.metrics import Metrics, Sources
from indrnn.service.link.engine import Host
from indrnn.service.link.front import RemoteProbe, RemoteQuotas, RemoteRegistry, RemoteRepository
from indrnn.service.link.leader import BESIDE, Leader, ShardNumbers
from indrnn.service.link.numbers import added, flat, read_statistics, statistics_of, statistics_text
from indrnn.service.link.shards import ShardedBackend, ShardedPort, newest
from indrnn.service.serving.backend import Backend
from indrnn.service.serving.modalities import StepLimits, served
from indrnn.service.serving.models import ServedModel
from indrnn.service.session.machine import Session
from indrnn.service.session.shard import Shard, shard_of
from indrnn.service.settings import Settings
from indrnn.service.store.sqlite import SQLiteStore

SHARDS = 3


class MadeBackend(Backend):
    """A backend whose engines are made up."""

    fails = False

    def load(self, folder: Path) -> ServedModel:
        if self.fails:
            raise EngineError("no memory")
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
        engine: Any = FakeEngine()
        engine.close = lambda: None
        bounds = EngineSettings(max_batch=8, max_queue=100, step_timeout=30, session_ttl=60, shard=self.shard)
        assert self.answer is not None
        loop = EngineLoop(engine, self.store, bounds, self.answer)
        self.engines.append(loop)
        return ServedModel(manifest, loop, served(manifest, StepLimits(100, 100, 100)), "cpu", "fused")


class Engine:
    """An engine's process of one shard."""

    def __init__(self, folder: Path, settings: Settings, number: int) -> None:
        self.shard = Shard(number, SHARDS)
        store = SQLiteStore(folder / f"s-{number}.db", key=b"k" * 32)
        self.backend = MadeBackend(settings, store, answer=lambda deliveries: self.host.answer(deliveries), shard=self.shard)
        self.backend.models.add(self.backend.load(settings.bundles / "chars" / "2"))
        self.host = Host(self.backend)

    @property
    def gate(self) -> asyncio.Event:
        gate: Any = self.backend.engines[0].engine.gate  # type: ignore[attr-defined]  # a made-up one's
        return gate  # type: ignore[no-any-return]

    async def close(self) -> None:
        for engine in self.backend.engines:
            engine.engine.gate.set()  # type: ignore[attr-defined]  # a made-up one's
        self.host.close()
        await asyncio.to_thread(self.backend.close)


class Service:
    """Three shards, the first of which leads, and fronts. What asks for a new connection is noted, and gets none by itself."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.bundles = folder / "bundles"
        shutil.copytree(BUNDLE, self.bundles / "chars" / "2")
        self.settings = Settings(store=str(folder / "s.db"), bundles=self.bundles, poll=0, **changes)
        self.engines = [Engine(folder, self.settings, k) for k in range(SHARDS)]
        self.fronts: list[ShardedBackend] = []
        self.needed: list[int] = []
        self.lead()

    def lead(self) -> None:
        first = self.engines[0]
        self.leader = Leader(first.host, first.shard, self.needed.append, divided=True)
        for k in range(1, SHARDS):
            self.led(k)

    def led(self, shard: int) -> None:
        one, other = socket.socketpair()
        self.engines[shard].host.attach(one)
        self.leader.attach(shard, other)

    def linked(self, front: ShardedBackend, shard: int) -> None:
        one, other = socket.socketpair()
        self.engines[shard].host.attach(one)
        front.attach(shard, other)

    async def front(self) -> ShardedBackend:
        made = ShardedBackend(self.settings, self.needed.append, SHARDS)
        self.fronts.append(made)
        for k in range(SHARDS):
            self.linked(made, k)
        await asyncio.wait_for(made.known.wait(), 20)
        await until(lambda: all(link.up for link in made.shards.links))
        return made

    async def restart(self, shard: int) -> None:
        """Have the engine's process of a shard die and start again; nobody has a connection to it yet."""
        if shard == 0:
            self.leader.close()
        await self.engines[shard].close()
        self.engines[shard] = Engine(self.folder, self.settings, shard)

    async def close(self) -> None:
        self.leader.close()
        for front in self.fronts:
            front.engines.close()
        for engine in self.engines:
            await engine.close()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    made = Service(tmp_path)
    yield made
    await made.close()


async def opened(front: ShardedBackend, shard: int) -> Session:
    """A session in that shard."""
    while True:
        (created,) = await ask(front, CreateRequest(""))  # type: ignore[arg-type]  # it has models and tickets
        session: Session = created.session
        if shard_of(session.id, SHARDS) == shard:
            return session


async def asked(front: ShardedBackend, *requests: Any) -> list[Any]:
    return await ask(front, *requests)  # type: ignore[arg-type]  # it has models and tickets


def port_of(front: ShardedBackend) -> ShardedPort:
    (model,) = front.models
    assert isinstance(model.port, ShardedPort)
    return model.port


async def test_each_shard_has_its_sessions_and_new_ones_are_parted(service: Service) -> None:
    front = await service.front()
    idents = [created.session.id for _ in range(6) for created in await asked(front, CreateRequest(""))]
    assert sorted(shard_of(ident, SHARDS) for ident in idents) == [0, 0, 1, 1, 2, 2], "one after another, in turns"
    for ident in idents:
        (result,) = await asked(front, step(ident, 1))
        assert result.number == 1
        (forked,) = await asked(front, ForkRequest(ident, ""))
        assert shard_of(forked.session.id, SHARDS) == shard_of(ident, SHARDS)
        for engine in service.engines:
            there = engine.backend.store.load([ident, forked.session.id])
            assert len(there) == 2 * engine.shard.has(ident)
    registry = RemoteRegistry(front.engines, RemoteQuotas(service.settings, front.engines))
    listed = await registry.list("", 100)
    assert len(listed) == 12
    assert [s.created_at for s in listed] == sorted((s.created_at for s in listed), reverse=True)
    assert [s.id for s in await registry.list("", 3)] == [s.id for s in listed[:3]]
    assert (await registry.find(idents[1], "")).step == 1
    await registry.remove(idents[1], "")
    with pytest.raises(UnknownSession):
        await registry.find("nobody's", "")


async def test_many_requests_of_one_turn_go_to_their_shards_in_order(service: Service) -> None:
    front = await service.front()
    idents = [(await opened(front, k)).id for k in range(SHARDS)]
    heard: list[tuple[str, int]] = []

    def issued(ident: str) -> Any:
        return front.tickets.issue(lambda reply, states: heard.append((ident, reply.number)))

    port_of(front).submit([Asked(issued(ident), step(ident, n)) for n in (1, 2, 3) for ident in idents])
    port_of(front).submit([Asked(issued(""), InferRequest(Exact(np.array([1])))) for _ in range(7)])
    await until(lambda: len(heard) == 16)
    for ident in idents:
        assert [n for who, n in heard if who == ident] == [1, 2, 3]
    answers = await asked(front, *[InferRequest(Exact(np.array([n % 3]))) for n in range(5)])
    assert [a.position for a in answers] == [1] * 5
    assert not any(link.open for link in front.shards.links), "nothing waits any more"
    with pytest.raises(ValueError, match="one shard"):
        port_of(front).submit([Asked(issued(ident), step(ident, 4)) for ident in idents], whole=True)


async def test_what_names_no_session_goes_where_the_fewest_wait(service: Service) -> None:
    front = await service.front()
    busy = await opened(front, 1)
    service.engines[1].gate.clear()
    waiting = asyncio.create_task(asked(front, step(busy.id, 1)))
    await until(lambda: len(front.shards.links[1].open) == 1)
    for _ in range(6):
        (created,) = await asked(front, CreateRequest(""))
        assert shard_of(created.session.id, SHARDS) != 1
    service.engines[1].gate.set()
    await waiting


async def test_a_shard_that_is_lost_costs_its_own_sessions_alone(service: Service) -> None:
    front = await service.front()
    sessions = [await opened(front, k) for k in range(SHARDS)]
    service.engines[1].gate.clear()
    service.engines[2].gate.clear()
    lost, kept = (asyncio.create_task(asked(front, step(sessions[k].id, 1))) for k in (1, 2))
    await until(lambda: all(len(front.shards.links[k].open) == 1 for k in (1, 2)))
    service.engines[1].gate.set()
    await service.restart(1)
    with pytest.raises(StoreFailed, match="repeat it with its number"):
        await lost
    assert not kept.done()
    service.engines[2].gate.set()
    ((result,),) = [await kept]
    assert result.number == 1
    with pytest.raises(Overloaded, match="being started again"):
        await asked(front, step(sessions[1].id, 1))
    for _ in range(4):
        (created,) = await asked(front, CreateRequest(""))
        assert shard_of(created.session.id, SHARDS) != 1
    with pytest.raises(StoreFailed):
        await RemoteProbe(front.engines).need_store()
    assert sorted(service.needed) == [1, 1], "the front's connection, and the leader's"
    other = ShardedBackend(service.settings, service.needed.append, SHARDS)
    service.fronts.append(other)
    for k in range(SHARDS):
        service.linked(other, k)
    service.linked(front, 1)
    await asyncio.wait_for(other.known.wait(), 20)
    (result,) = await asked(other, step(sessions[2].id, 2))
    assert result.number == 2, "a front may begin without that shard"
    assert not front.shards.links[1].up, "the leader has not said that it has what the service has"
    service.led(1)
    await until(lambda: front.shards.links[1].up)
    (again,) = await asked(front, step(sessions[1].id, 1))
    assert again.number == 1
    await RemoteProbe(front.engines).need_store()


async def test_where_the_leader_is_lost_the_others_go_on_and_follow_the_next(service: Service) -> None:
    front = await service.front()
    sessions = [await opened(front, k) for k in range(SHARDS)]
    await service.restart(0)
    await until(lambda: not front.engines.up)
    for session in sessions[1:]:
        (result,) = await asked(front, step(session.id, 1))
        assert result.number == 1
    service.lead()
    service.linked(front, 0)
    await until(lambda: front.engines.up)
    (result,) = await asked(front, step(sessions[0].id, 1))
    assert result.number == 1
    await RemoteRepository(front).unload("chars")
    assert list(front.models) == []
    await until(lambda: all(not list(engine.backend.models) for engine in service.engines))


async def test_sessions_count_for_the_service_wherever_they_are(tmp_path: Path) -> None:
    service = Service(tmp_path, max_sessions=5)
    try:
        front = await service.front()
        await until(lambda: all(engine.host.settled for engine in service.engines))
        quotas = RemoteQuotas(service.settings, front.engines)
        registry = RemoteRegistry(front.engines, quotas)
        idents = [(await opened(front, k)).id for k in (1, 2)]
        there = sum(len(engine.backend.store.list("", 0, 100)) for engine in service.engines)
        for _ in range(5 - there):
            await quotas.new_session("")
        with pytest.raises(SessionLimit):
            await quotas.new_session("")
        with pytest.raises(SequenceLimit):
            await registry.count_sequence("a sequence", "")
        assert not await registry.count_sequence(idents[0], ""), "it lives, in another shard"
        assert not await registry.count_sequence(idents[1], "")
        assert sum(p.sessions for p in await service.engines[0].host.registry.census.take(0)) == there
        await service.restart(2)
        await until(lambda: 2 in service.needed)
        with pytest.raises(EngineAway):
            await quotas.new_session("another")
        with pytest.raises(EngineAway):
            await service.engines[0].host.registry.census.take(0)
    finally:
        await service.close()


async def test_a_version_is_everywhere_before_a_front_hears_of_it_and_nowhere_after(service: Service) -> None:
    """While it is loaded and the old one goes, whoever asks for the name finds one of both in each shard."""
    front = await service.front()
    old = (await opened(front, 1)).id
    new = service.bundles / "chars" / "3"
    shutil.copytree(service.bundles / "chars" / "2", new)
    text = (new / "manifest.json").read_text()
    (new / "manifest.json").write_text(text.replace('"version": "2"', '"version": "3"'))
    found: list[str] = []
    ended = asyncio.Event()

    async def keep_asking() -> None:
        while not ended.is_set():
            model = front.models.latest("chars")  # raises where there is none
            answers = await front.tickets.ask_all(model.port, [CreateRequest("")])
            found.append(model.manifest.version)
            assert answers
            await asyncio.sleep(0)

    asking = asyncio.create_task(keep_asking())
    await until(lambda: len(found) > 3)
    await RemoteRepository(front).load("chars")
    await until(lambda: "3" in found[-4:])
    ended.set()
    await asking
    assert sorted(found) == found
    assert all(len(list(engine.backend.models)) == 2 for engine in service.engines)
    (retired,) = [model for model in front.models if front.models.is_retired(model)]
    (looked,) = [a.reply for a in await front.tickets.ask_all(retired.port, [step(old, 1)])]
    assert looked.number == 1, "the session of the old version goes on"
    await service.restart(2)
    for link in (lambda: service.linked(front, 2), lambda: service.led(2)):
        link()
    await until(lambda: front.shards.links[2].up)
    assert len(list(service.engines[2].backend.models)) == 2, "what it has not loaded by itself it is given"
    newer = front.models.latest("chars")
    made = [await front.tickets.ask_all(newer.port, [CreateRequest("")]) for _ in range(SHARDS)]
    assert sorted(shard_of(answered.reply.session.id, SHARDS) for (answered,) in made) == [0, 1, 2]  # type: ignore[union-attr]  # made
    await RemoteRepository(front).unload("chars")
    assert list(front.models) == []
    assert all(not list(engine.backend.models) for engine in service.engines)
    with pytest.raises(Stopping, match="was unloaded"):
        await front.tickets.ask_all(newer.port, [CreateRequest("")])


async def test_a_version_that_one_shard_cannot_load_is_loaded_in_none(service: Service) -> None:
    front = await service.front()
    new = service.bundles / "chars" / "3"
    shutil.copytree(service.bundles / "chars" / "2", new)
    (new / "manifest.json").write_text((new / "manifest.json").read_text().replace('"version": "2"', '"version": "3"'))
    service.engines[2].backend.fails = True  # type: ignore[attr-defined]  # a made-up one's
    with pytest.raises(Exception, match="shard 2: no memory"):
        await RemoteRepository(front).load("chars")
    assert [model.manifest.version for model in front.models] == ["2"]
    for engine in service.engines:
        assert [model.manifest.version for model in engine.backend.models] == ["2"]
    (line,) = [line for line in front.lines if line.version == "3"]
    assert "no memory" in line.reason


def new_version(service: Service) -> None:
    new = service.bundles / "chars" / "3"
    shutil.copytree(service.bundles / "chars" / "2", new)
    (new / "manifest.json").write_text((new / "manifest.json").read_text().replace('"version": "2"', '"version": "3"'))


async def test_a_version_that_a_shard_is_ending_for_a_leader_that_is_gone_is_loaded_anew(service: Service) -> None:
    front = await service.front()
    await until(lambda: all(engine.host.settled for engine in service.engines))
    new_version(service)
    await RemoteRepository(front).load("chars")
    model, ending = front.models.latest("chars"), service.engines[1]
    while True:
        (made,) = await front.tickets.ask_all(model.port, [CreateRequest("")])
        ident: str = made.reply.session.id  # type: ignore[union-attr]  # made
        if shard_of(ident, SHARDS) == 1:
            break
    ending.backend.engines[-1].engine.gate.clear()  # type: ignore[attr-defined]  # a made-up one's
    flying = asyncio.ensure_future(front.tickets.ask_all(model.port, [step(ident, 1)]))
    await until(lambda: len(front.shards.links[1].open) == 1)
    await service.restart(0)  # and the next one begins with version 2 alone
    service.lead()
    service.linked(front, 0)
    await until(lambda: len(list(ending.backend.models)) == 1)
    loading = asyncio.create_task(RemoteRepository(front).load("chars"))
    await asyncio.sleep(0.1)
    ending.backend.engines[-1].engine.gate.set()  # type: ignore[attr-defined]  # a made-up one's
    await asyncio.wait_for(loading, 20)
    await flying
    assert [[model.manifest.version for model in engine.backend.models] for engine in service.engines] == [["2", "3"]] * SHARDS
    found = await front.tickets.ask_all(front.models.latest("chars").port, [step(ident, 2)])
    assert found[0].reply.number == 2, "the shard has it"  # type: ignore[union-attr]  # stepped


async def test_a_shard_that_does_not_load_a_version_in_time_is_given_it_anew(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    front = await service.front()
    await until(lambda: all(engine.host.settled for engine in service.engines))
    new_version(service)
    monkeypatch.setattr("indrnn.service.link.leader.LOAD_TIMEOUT", 0.2)
    monkeypatch.setattr("indrnn.service.link.leader.AGAIN", 0)
    slow, load = service.engines[2].backend, MadeBackend.load
    monkeypatch.setattr(slow, "load", lambda folder: (time.sleep(0.5), load(slow, folder))[1])
    await RemoteRepository(front).load("chars")
    await until(lambda: service.needed == [2])


def steps_counted(text: bytes) -> float:
    lines = [line for line in text.decode().splitlines() if line.startswith(("indrnn_steps_total", "indrnn_sessions_opened_total"))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


async def test_the_metrics_are_the_services_and_never_go_back(service: Service) -> None:
    front = await service.front()
    await until(lambda: all(engine.host.settled for engine in service.engines))

    async def scraped() -> bytes:
        leader, host = service.leader, service.engines[0].host
        await leader.gather()
        numbers = Metrics(Sources(leader.summed, leader.totals, host.registry.census, host.streams, host.repository.unavailable, "r"))
        return (await numbers.text(""))[0]

    sessions = [await opened(front, k) for k in range(SHARDS)]
    begun = steps_counted(await scraped())
    for session in sessions:
        await asked(front, step(session.id, 1))
    text = await scraped()
    assert steps_counted(text) == begun + 3
    there = sum(len(engine.backend.store.list("", 0, 100)) for engine in service.engines)
    assert f'indrnn_sessions_active{{model="m",version="1"}} {there}.0' in text.decode()
    await service.restart(1)
    assert steps_counted(await scraped()) == begun + 3, "it does not answer: its numbers are those of before"
    service.linked(front, 1)
    service.led(1)
    await until(lambda: front.shards.links[1].up)
    assert steps_counted(await scraped()) == begun + 3
    await asked(front, step(sessions[1].id, 2))
    assert steps_counted(await scraped()) == begun + 4
    service.leader.totals.store_failures += 2  # as the page of metrics does where the store cannot be counted
    for _ in range(2):
        assert b'indrnn_store_failures_total{model="",version=""} 2.0' in await scraped()
    (model,) = front.models
    assert (await model.port.look()).statistics.executions >= 1


def test_counts_of_a_shard_begin_where_the_leader_does() -> None:
    one, other = ShardNumbers(), ("m", "1")
    told: Sequence[tuple[int, int]] = [(7, 100), (7, 103), (8, 2), (8, 5), (9, 0)]
    seen = []
    for epoch, n in told:
        one.take(epoch, {other: {("characters",): n}, BESIDE: {("swept",): 2 * n}})
        seen.append((one.total(other)["characters",], one.total(BESIDE)["swept",]))
    assert seen == [(0, 0), (3, 6), (5, 10), (8, 16), (8, 16)]
    one.forget(other)
    one.take(9, {other: {("characters",): 1}})
    assert one.total(other)["characters",] == 1
    one.take(10, {})  # started again, and has not loaded it yet
    one.take(11, {other: {("characters",): 2}})
    assert one.total(other)["characters",] == 3


def test_statistics_come_back_as_they_were_and_add_up() -> None:
    s = Statistics()
    s.ran(4, 10, 20, 30, 1.5)
    s.ran(8, 1, 2, 3, 2.5)
    s.success.add(5)
    s.queue.add(70_000)
    s.happened["step", "http"] += 3
    s.refused["step_gap", "stream"] += 1
    s.failed["overflow"] += 2
    s.repeats["http"] += 4
    s.characters = 9
    back = read_statistics(statistics_text(s))
    assert flat(back) == flat(s)
    twice = statistics_of(added([flat(s), flat(back)]))
    assert (twice.executions, twice.rows, twice.characters, twice.last_inference) == (4, 24, 18, 2.5)
    assert twice.happened == {("step", "http"): 6}
    assert twice.queue.buckets == [2 * n for n in s.queue.buckets]


def test_listed_sessions_are_merged_by_age_and_named_once() -> None:
    made = [Session(f"s{n}", "m", "1", "d", "", np.zeros(1, np.float32), 0, 0, float(n), 99.0) for n in range(6)]
    assert [s.id for s in newest([tuple(made[::-2]), tuple(made[::-1])], 4)] == ["s5", "s4", "s3", "s2"]
