"""A front and an engine's process over a real socket, in one event loop: who hears what, and what is left when one of them is gone."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_loop import FakeEngine

import indrnn.service.link.engine as engine_side
from indrnn.export.bundle import Manifest
from indrnn.service.engine import calls as c
from indrnn.service.engine.loop import EngineLoop, EngineSettings
from indrnn.service.engine.requests import (
    Asked,
    CompleteRequest,
    CreateRequest,
    Delivery,
    Exact,
    InferRequest,
    LookRequest,
    StepRequest,
    Text,
    Ticket,
)
from indrnn.service.errors import (
    EngineAway,
    ModelGone,
    Overloaded,
    RateLimited,
    ServiceError,
    SessionLimit,
    Stopping,
    StoreFailed,
    TooLarge,
    UnknownSession,
)
from indrnn.service.link.engine import Host
from indrnn.service.link.front import FrontBackend, RemoteQuotas, RemoteRegistry
from indrnn.service.link.message import HEAD, Kind, TellsState, framed, told_parts
from indrnn.service.serving.backend import Backend
from indrnn.service.serving.modalities import StepLimits, served
from indrnn.service.serving.models import ServedModel
from indrnn.service.session.machine import Refused, Result, Sampling, Session
from indrnn.service.settings import Settings
from indrnn.service.store.sqlite import SQLiteStore

BUNDLE = Path(__file__).parents[3] / "bundles" / "chars" / "2"


class Pair:
    """An engine's process with a made-up engine, and its fronts."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.settings = Settings(store=str(folder / "s.db"), poll=0, **changes)
        self.engine: Any = FakeEngine()
        self.engine.close = lambda: None
        self.manifest = Manifest.model_validate_json((BUNDLE / "manifest.json").read_text())
        self.backend = Backend(self.settings, SQLiteStore(folder / "s.db"), answer=lambda deliveries: self.host.answer(deliveries))
        self.loop = self.load()
        self.host = Host(self.backend)
        self.fronts: list[FrontBackend] = []

    async def close(self) -> None:
        self.engine.gate.set()
        self.host.close()
        for front in self.fronts:
            front.link.close()
        await asyncio.to_thread(self.backend.close)

    def load(self) -> EngineLoop:
        bounds = EngineSettings(max_batch=8, max_queue=100, step_timeout=30, session_ttl=60)
        loop = EngineLoop(self.engine, self.backend.store, bounds, self.backend.answer)
        self.backend.engines.append(loop)
        self.backend.models.add(ServedModel(self.manifest, loop, served(self.manifest, StepLimits(100, 100, 100)), "cpu", "fused"))
        return loop

    async def front(self, again: FrontBackend | None = None) -> FrontBackend:
        needed: list[None] = []
        front = again or FrontBackend(self.settings, lambda: needed.append(None))
        self.fronts.append(front)
        one, other = socket.socketpair()
        self.host.attach(one)
        front.link.attach(other)
        await until(lambda: front.link.up)
        return front


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    made = Pair(tmp_path)
    yield made
    await made.close()


def step(session_id: str, number: int, symbol: int = 1, **changes: Any) -> StepRequest:
    return StepRequest(session_id, "", number, bytes([symbol]) * 16, Exact(np.array([symbol])), **changes)


async def ask(front: FrontBackend, *requests: Any) -> list[Any]:
    (model,) = front.models
    return [answered.reply for answered in await front.tickets.ask_all(model.port, requests)]


async def opened(front: FrontBackend) -> Session:
    (created,) = await ask(front, CreateRequest(""))
    session: Session = created.session
    return session


async def test_what_is_asked_of_a_front_is_answered_by_the_engine(pair: Pair) -> None:
    front = await pair.front()
    ident = (await opened(front)).id
    (first,) = await ask(front, step(ident, 1))
    (again,) = await ask(front, step(ident, 1, tell_state=False))
    assert isinstance(first, Result)
    assert (first.number, first.position, first.result.logits.tolist()) == (again.number, again.position, again.result.logits.tolist())
    assert first.state is not None
    assert again.state is None
    (looked,) = await ask(front, LookRequest(ident, ""))
    assert looked.session.step == 1
    with pytest.raises(UnknownSession):
        await ask(front, step("nobody's", 1))
    answers = await ask(front, *[InferRequest(Exact(np.array([n])), tell_state=False) for n in range(3)])
    assert [a.position for a in answers] == [1, 1, 1]


async def test_nobody_is_told_what_was_asked_in_another_epoch(pair: Pair) -> None:
    """A front dies with steps in flight, another takes its place and issues the same numbers: it hears nothing of the first's."""
    first = await pair.front()
    ident = (await opened(first)).id
    pair.engine.gate.clear()
    (model,) = first.models
    requests = [step(ident, 1), *(InferRequest(Exact(np.array([n]))) for n in range(3))]
    asked = [Asked(first.tickets.issue(lambda *_: None), request) for request in requests]
    model.port.submit(asked)
    await until(lambda: pair.loop.snapshot().waiting == 4)
    first.link.close()
    second = await pair.front()
    heard: list[Any] = []
    (model,) = second.models
    mine = [second.tickets.issue(lambda reply, states: heard.append(reply)) for _ in range(4)]
    assert len({ticket.number for ticket in mine} & {one.ticket.number for one in asked}) == 3
    pair.engine.gate.set()
    await until(lambda: pair.loop.snapshot().waiting == 0)
    await asyncio.sleep(0.05)
    assert heard == []
    (repeated,) = await ask(second, step(ident, 1))
    assert repeated.number == 1
    (looked,) = await ask(second, LookRequest(ident, ""))
    assert (looked.session.step, looked.session.position) == (1, 1), "the step was applied once"


async def test_a_delivery_to_an_epoch_that_nobody_has_is_dropped(pair: Pair) -> None:
    front = await pair.front()
    pair.host.answer([Delivery(Ticket(front.tickets.epoch + 1, 1), None), Delivery(Ticket(5, 1), None)])
    await opened(front)


async def test_a_request_too_long_for_a_message_is_refused_alone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    front = await pair.front()
    ident = (await opened(front)).id
    monkeypatch.setattr("indrnn.service.link.front.WHOLE", 4_000)
    long, short = (
        asyncio.create_task(ask(front, InferRequest(Exact(np.zeros(5_000, np.int64))))),
        asyncio.create_task(ask(front, step(ident, 1))),
    )
    with pytest.raises(TooLarge):
        await long
    (taken,) = await short
    assert taken.number == 1


async def test_a_client_that_wants_a_state_and_is_refused_leaves_nothing(pair: Pair) -> None:
    front = await pair.front()
    ident = (await opened(front)).id
    for _ in range(3):
        with pytest.raises(ServiceError):
            await ask(front, step(ident, 99))
    assert not next(iter(pair.host._fronts))._wants


async def test_whoever_waits_for_a_model_that_is_gone_is_refused_each_text_of_a_completion_too(pair: Pair) -> None:
    front = await pair.front()
    (model,) = front.models
    pair.host._ports.clear()
    told: list[Any] = []
    texts = tuple(Text(front.tickets.issue(lambda reply, states: told.append(reply)), Sampling(4, 1.0, 1.0, i, ())) for i in range(2))
    prompt = front.tickets.issue(lambda reply, states: told.append(reply))
    model.port.submit([Asked(prompt, CompleteRequest(Exact(np.array([1])), texts))])
    await until(lambda: len(told) == 3)
    assert all(isinstance(reply, Refused) and isinstance(reply.error, ModelGone) for reply in told)
    assert front.tickets.waiting == 0


async def test_what_waits_is_refused_when_the_engine_is_lost_and_all_goes_on_with_the_next(pair: Pair, tmp_path: Path) -> None:
    front = await pair.front()
    ident = (await opened(front)).id
    (model,) = front.models
    pair.engine.gate.clear()
    waiting = asyncio.create_task(ask(front, step(ident, 1)))
    await until(lambda: pair.loop.snapshot().waiting == 1)
    calling = asyncio.create_task(front.link.call(c.ProbeStore(), type(None)))
    await asyncio.sleep(0)  # it is asked, and nobody has read it
    for one in list(pair.host._fronts):
        one.connection.close()
    with pytest.raises(StoreFailed, match="repeat it with its number"):
        await waiting
    with pytest.raises(ServiceError):
        await calling
    assert not model.port.ready
    assert not model.port.stopping
    with pytest.raises(Overloaded):
        await ask(front, step(ident, 1))
    with pytest.raises(EngineAway):
        await front.link.call(c.ProbeStore(), type(None))
    pair.engine.gate.set()
    pair.host.epoch += 1  # as if it had been started again
    pair.host._hosted = {port: one._replace(number=one.number + 1) for port, one in pair.host._hosted.items()}
    pair.host._ports = {number + 1: port for number, port in pair.host._ports.items()}
    pair.host._said = None
    await pair.front(front)
    assert list(front.models) == [model], "streams go on with the model that they have"
    (repeated,) = await ask(front, step(ident, 1))
    assert repeated.number == 1


async def test_a_front_that_does_not_read_is_let_go_and_others_are_not_kept_waiting(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_side, "UNREAD", 2**16)
    front = await pair.front()
    stalled, theirs = socket.socketpair()
    pair.host.attach(theirs)
    stalled.sendall(framed(Kind.HELLO, engine_side.encode(c.Hello(1, 99))))
    await until(lambda: 99 in pair.host._by_epoch)
    for _ in range(3):
        pair.host.answer([Delivery(Ticket(99, n), Refused(Overloaded("x" * 1_000))) for n in range(2_000)])
    await until(lambda: 99 not in pair.host._by_epoch)
    await opened(front)
    stalled.close()


async def test_bytes_that_are_no_message_cost_a_front_its_connection_and_nobody_else(pair: Pair) -> None:
    front = await pair.front()
    broken, theirs = socket.socketpair()
    pair.host.attach(theirs)
    broken.sendall(framed(Kind.HELLO, engine_side.encode(c.Hello(1, 98))))
    await until(lambda: 98 in pair.host._by_epoch)
    broken.sendall(HEAD.pack(8, Kind.ASKED, 0) + b"\xff" * 8)
    await until(lambda: 98 not in pair.host._by_epoch)
    await opened(front)
    broken.close()


async def test_a_bug_at_the_engines_side_leaves_nobody_waiting(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    front = await pair.front()
    ident = (await opened(front)).id
    with monkeypatch.context() as broken:
        broken.setattr(pair.host, "port", lambda number: 1 / 0)
        with pytest.raises(StoreFailed):
            await ask(front, step(ident, 1))
    await pair.front(front)
    (reply,) = await ask(front, step(ident, 1))
    assert (reply.number, reply.position) == (1, 1)


async def test_an_answer_that_cannot_be_written_is_told_as_not_known_and_the_others_as_they_are(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await pair.front()
    (model,) = front.models
    ident = (await opened(front)).id

    def broken(deliveries: Sequence[Delivery], tells_state: TellsState) -> Any:
        if any(isinstance(d.reply, Result) and d.reply.position == 2 for d in deliveries):
            raise ValueError("too wide to write")
        return told_parts(deliveries, tells_state)

    monkeypatch.setattr("indrnn.service.link.engine.told_parts", broken)
    two = StepRequest(ident, "", 1, bytes(16), Exact(np.array([1, 2])))
    asked: list[tuple[StepRequest | InferRequest, list[Any]]] = [(two, []), (InferRequest(Exact(np.array([1]))), [])]
    tickets = [front.tickets.issue(lambda reply, states, into=into: into.append(reply)) for _, into in asked]
    model.port.submit([Asked(ticket, request) for ticket, (request, _) in zip(tickets, asked, strict=True)])
    await until(lambda: all(into for _, into in asked))
    (refused,), (answered,) = (into for _, into in asked)
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, StoreFailed)
    assert answered.position == 1
    assert answered.state is not None
    assert front.tickets.waiting == 0
    monkeypatch.undo()
    (again,) = await ask(front, two)
    assert (again.number, again.position) == (1, 2), "it was stored, and is answered from there"


@pytest.mark.parametrize("hello", [c.Hello(2, 97), c.RosterTaken(1)], ids=["another format", "no hello"])
async def test_who_speaks_another_format_is_let_go(pair: Pair, hello: Any) -> None:
    other, theirs = socket.socketpair()
    pair.host.attach(theirs)
    other.sendall(framed(Kind.HELLO, engine_side.encode(hello)))
    await until(lambda: pair.host.fronts == 0)
    other.close()


async def test_a_model_that_is_loaded_again_is_told_before_the_old_one_ends(pair: Pair) -> None:
    front = await pair.front()
    (old,) = front.models
    (before,) = pair.backend.models
    pair.load()
    ended = asyncio.create_task(pair.host.repository._end(before))
    await until(lambda: next(iter(front.models)) is not old)
    (new,) = front.models
    assert old.port.stopping
    assert new.port.ready
    await ended
    assert (await opened(front)).step == 0
    with pytest.raises(Stopping):
        await front.tickets.ask_all(old.port, [CreateRequest("")])


async def test_limits_are_the_services_and_no_longer_a_processs(tmp_path: Path) -> None:
    pair = Pair(tmp_path, max_sessions=2, max_steps_per_second=5)
    fronts = [await pair.front(), await pair.front()]
    quotas = [RemoteQuotas(pair.settings, front.link) for front in fronts]
    for front, quota in zip(fronts, quotas, strict=True):
        front.link.noted = lambda note, quota=quota: quota.charged_elsewhere(note) if isinstance(note, c.Charged) else None  # type: ignore[misc]
    for quota in quotas:
        await quota.new_session("me")
    with pytest.raises(SessionLimit):
        await quotas[0].new_session("me")
    quotas[1].session_ended("me")
    await asyncio.sleep(0.05)
    await quotas[0].new_session("me")
    quotas[0].step("me", 5)
    await until(lambda: quotas[1]._steps._bucket("me").tokens < 1)
    with pytest.raises(RateLimited):
        quotas[1].step("me")
    registry = RemoteRegistry(fronts[0].link, quotas[0])
    assert await registry.list("me", 10) == []
    with pytest.raises(UnknownSession):
        await registry.find("nobody's", "me")
    await pair.close()


@pytest.mark.parametrize("error", [MemoryError, KeyError])
async def test_a_removal_whose_answer_is_lost_is_not_told_to_have_moved_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Of a look nothing can have moved."""
    front = await pair.front()
    session = await opened(front)
    registry = pair.host.registry
    remove = registry.remove

    async def broken(*asked: Any) -> Any:
        if asked[0] == session.id:
            await remove(*asked)
        raise error

    monkeypatch.setattr(registry, "remove", broken)
    monkeypatch.setattr(registry, "list", broken)
    asked = RemoteRegistry(front.engines, RemoteQuotas(pair.settings, front.engines))
    with pytest.raises(ServiceError, match="whether the session was changed is not known") as told:
        await asked.remove(session.id, "")
    assert isinstance(told.value, StoreFailed) == (error is MemoryError)
    with pytest.raises(ServiceError) as told:
        await asked.list("", 1)
    assert isinstance(told.value, Overloaded) == (error is MemoryError)
