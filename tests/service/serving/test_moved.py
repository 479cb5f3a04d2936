"""Two services in one process on one store, each with two versions whose engines can be held up: where and when a sequence is asked for."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_loop import FakeEngine, K, N

from indrnn.service.engine.loop import EngineLoop, EngineSettings
from indrnn.service.engine.quota import Quotas
from indrnn.service.engine.registry import Registry
from indrnn.service.engine.requests import Exact, StepRequest
from indrnn.service.errors import BadInput, ModelGone, Overflow, Overloaded, RateLimited, StoreFailed
from indrnn.service.oip.grpc_stream import UnderWay
from indrnn.service.oip.inference import InferAsked, Inference, QueuedInfer, sequence_owner, session_id
from indrnn.service.oip.message import Ask, InferAnswer, SentTensor
from indrnn.service.serving.models import Models
from indrnn.service.serving.sessions import Sessions
from indrnn.service.serving.signature import Signature, Spec
from indrnn.service.serving.steps import StepRouter, Tickets
from indrnn.service.session.machine import Snapshot
from indrnn.service.store.sqlite import SQLiteStore

SETTINGS: Any = SimpleNamespace(session_ttl=60.0, max_every=100, max_body=10_000, max_sequences=8, max_queue=100)
NO_REPOSITORY = SimpleNamespace(index=list)
IDENT = session_id("", "m", 7)


@dataclass
class Service:
    """One service; its engines by version. Version 2 takes as many as it has symbols, version 1 one less."""

    store: SQLiteStore
    engines: dict[str, FakeEngine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        models = Models()
        self.tickets = Tickets()
        self.tickets.loop = asyncio.get_running_loop()
        for version in ("1", "2"):
            models.add(self._model(version))
        self.models = models
        registry = Registry(self.store, 60, Quotas(None, None, self.store.count))
        self.steps = StepRouter(models, registry, self.tickets)
        self.sessions = Sessions(self.steps)
        services: Any = SimpleNamespace(
            settings=SETTINGS, models=models, steps=self.steps, sessions=self.sessions, registry=registry, repository=NO_REPOSITORY
        )
        self.inference = Inference(services)

    def _model(self, version: str) -> Any:
        engine = self.engines[version] = FakeEngine()
        more = {"version": version, "sha256": f"d{version}", "kind": "chars", "limits": SimpleNamespace(max_position=None)}
        engine.manifest = SimpleNamespace(**{**vars(engine.manifest), **more})
        port = EngineLoop(engine, self.store, EngineSettings(8, 100, 30, 60), self.tickets.answer)  # type: ignore[arg-type]
        classes = K if version == "2" else K - 1
        inputs = {"x": Spec("x", "INT64", (-1, -1)), "lengths": Spec("lengths", "INT64", (-1, 1), True)}
        outputs = {"logits": Spec("logits", "FP32", (-1, -1, classes))}
        tensors = Signature("m", version, inputs, outputs, classes, N)
        return SimpleNamespace(manifest=engine.manifest, engine=engine, port=port, tensors=tensors, modality=SimpleNamespace(max_steps=100))

    async def step(self, symbol: int, number: int | None = None, **more: Any) -> InferAnswer:
        return await self.inference.answer(asked(symbol, number, **more))

    async def begin(self, version: str, symbol: int = 0) -> InferAnswer:
        told = await self.step(symbol, start=True, version=version)
        assert (told.version, told.step) == (version, 1)
        return told

    def stop(self) -> None:
        for model in self.models:
            model.engine.gate.set()  # type: ignore[attr-defined]
            model.port.stop(10)  # type: ignore[attr-defined]


def asked(
    symbol: int, number: int | None = None, start: bool = False, end: bool = False, version: str | None = None, sequence: int = 7
) -> InferAsked:
    x = np.array([[symbol]])
    ask = Ask("", [SentTensor("x", "INT64", x.shape, x.tobytes())], None, sequence, start, end, number)
    return InferAsked(ask, "m", version, "", 0)


async def load_again(service: Service, version: str = "1") -> None:
    """As the repository does it for the same file."""
    old = service.models.exactly("m", version)
    assert old is not None
    service.models.remove(old)
    old.port.drain(ModelGone("it was unloaded"))
    await asyncio.to_thread(old.port.stop, 10)
    service.models.add(service._model(version))


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Service, Service]]:
    store = SQLiteStore(tmp_path / "s.db")
    made = Service(store), Service(store)
    yield made
    for service in made:
        await asyncio.to_thread(service.stop)
    store.close()


def state(service: Service) -> list[float]:
    """What the stored sequence has consumed: the sum of symbols and ones, and how many."""
    return service.store.load([IDENT])[IDENT].state[:2].tolist()


async def waiting(service: Service, version: str, jobs: int) -> None:
    """Until an engine that is held up has a run in its hands, and so many jobs wait behind it."""
    model = service.models.exactly("m", version)
    assert model is not None
    deadline = time.monotonic() + 10
    while len(model.port.inbox._queued) != jobs or not model.port._desk.lives:
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


async def unanswered(service: Service, version: str, jobs: int) -> None:
    """Until so many jobs wait for an answer there."""
    model = service.models.exactly("m", version)
    assert model is not None
    deadline = time.monotonic() + 10
    while model.port.inbox.waiting != jobs:
        assert time.monotonic() < deadline, f"expected {jobs} that wait, got {model.port.inbox.waiting}"
        await asyncio.sleep(0)


async def test_a_step_that_has_to_be_asked_again_is_charged_and_applied_once(pair: tuple[Service, Service]) -> None:
    here, there = pair
    charged: list[int] = []
    await here.begin("1")
    await there.begin("2")
    here.steps.charge = lambda owner, steps=1: charged.append(steps)  # type: ignore[method-assign]
    told = await here.step(1, 2)
    assert (told.version, told.step, charged) == ("2", 2, [1])
    assert len(here.engines["1"].runs) == 1, "its own beginning"
    assert state(here) == [3, 2]
    await there.begin("1")
    charged.clear()
    assert (await here.step(1, 2)).version == "1"
    await here.begin("1")
    await there.begin("2")
    charged.clear()
    assert (await here.step(2, 2)).version == "2", "a symbol that version 1 does not know"
    assert charged == [1]


async def test_it_is_asked_once_again_and_where_a_sequence_is_then_is_remembered(
    pair: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    await here.begin("1")
    await there.begin("2")
    looks: list[Any] = []
    stored = here.steps.registry.find

    async def counted(ident: str, owner: str) -> Any:
        looks.append(ident)
        return await stored(ident, owner)

    monkeypatch.setattr(here.steps.registry, "find", counted)
    for n in (2, 3, 4):
        assert (await here.step(1, n)).step == n
    assert looks == [IDENT]


async def test_where_the_store_cannot_be_asked_again_the_client_hears_that(
    pair: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not that its model were gone, or its content wrong."""
    here, there = pair

    async def fail(ident: str, owner: str) -> Any:
        raise StoreFailed("no answer")

    for symbol in (1, 2):
        await here.begin("1")
        await there.begin("2")
        with monkeypatch.context() as patch:
            patch.setattr(here.steps.registry, "find", fail)
            with pytest.raises(StoreFailed):
                await here.step(symbol, 2)
        assert (await here.step(symbol, 2)).step == 2


async def test_a_version_that_is_not_loaded_here_is_gone_here_and_forgotten_when_the_sequence_comes_back(
    pair: tuple[Service, Service],
) -> None:
    here, there = pair
    await here.begin("1")
    await there.begin("2")
    (second,) = [m for m in here.models if m.manifest.version == "2"]
    here.models.remove(second)
    with pytest.raises(ModelGone, match="m/2 is not loaded"):
        await here.step(1, 2)
    await there.begin("1")
    assert (await here.step(1, 2)).version == "1"
    second.port.stop(10)


async def test_what_is_wrong_on_every_version_stays_wrong_and_moves_nothing(pair: tuple[Service, Service]) -> None:
    here, there = pair
    await here.begin("1")
    await there.begin("2")
    with pytest.raises(BadInput, match="symbols from 0 to 2"):
        await here.step(9, 2)
    assert state(here) == [1, 1]
    with pytest.raises(BadInput, match="symbols from 0 to 2"):
        await here.step(9, 2)


async def test_wrong_content_that_waits_behind_a_step_takes_places_as_steps_do(pair: tuple[Service, Service]) -> None:
    """A client that sends it all the time would else hold more than the queue has, and nobody is let in beside it."""
    here, _ = pair
    await here.begin("1")
    here.engines["1"].gate.clear()
    step = asyncio.create_task(here.step(1, 2))
    await unanswered(here, "1", 1)
    wrong = [asyncio.create_task(here.step(9, 3)) for _ in range(SETTINGS.max_queue + 20)]
    await unanswered(here, "1", SETTINGS.max_queue)
    for _ in range(100):
        await asyncio.sleep(0)
    await unanswered(here, "1", SETTINGS.max_queue)
    here.engines["1"].gate.set()
    assert (await step).step == 2
    for told in await asyncio.gather(*wrong, return_exceptions=True):
        assert isinstance(told, BadInput)


async def test_wrong_content_is_charged_where_an_engine_is_asked_whose_it_is(pair: tuple[Service, Service]) -> None:
    """And no engine is where there is one version; what an engine has refused was charged before."""
    here, _ = pair
    charged: list[int] = []

    def charge(owner: str, steps: int = 1) -> None:
        charged.append(steps)
        if len(charged) > 1:
            raise RateLimited("too many")

    await here.begin("1")
    here.steps.charge = charge  # type: ignore[method-assign]
    with pytest.raises(BadInput):
        await here.step(9, 2)
    with pytest.raises(RateLimited):
        await here.step(9, 2)
    charged.clear()
    here.engines["1"].poison = True
    with pytest.raises(Overflow):
        await here.step(1, 2)
    assert charged == [1]
    (second,) = [m for m in here.models if m.manifest.version == "2"]
    here.models.remove(second)
    charged.clear()
    for _ in range(3):
        with pytest.raises(BadInput):
            await here.step(9, 2)
    assert charged == []
    second.port.stop(10)


async def test_a_start_does_not_begin_on_another_version_because_the_queue_before_it_is_full(pair: tuple[Service, Service]) -> None:
    """Of a first step that may be stored there already, and is then answered from there when it comes again."""
    here, _ = pair
    first = await here.step(1, 1, start=True, version="1")
    here.engines["1"].gate.clear()
    others = [asyncio.create_task(here.step(1, start=True, version="1", sequence=8))]
    await unanswered(here, "1", 1)
    others += [asyncio.create_task(here.step(1, sequence=8)) for _ in range(SETTINGS.max_queue - 1)]
    await unanswered(here, "1", SETTINGS.max_queue)
    with pytest.raises(Overloaded):
        await here.step(1, 1, start=True)
    here.engines["1"].gate.set()
    await asyncio.gather(*others)
    again = await here.step(1, 1, start=True)
    assert (again.version, again.step, again.position) == (first.version, 1, 1)


async def test_wrong_content_behind_a_beginning_in_flight_is_not_taken_to_the_sequence_that_it_replaces(
    pair: tuple[Service, Service],
) -> None:
    """The store still has version 2, which would take the symbol; what is in flight says that the sequence is on version 1."""
    here, _ = pair
    await here.begin("2")
    here.engines["1"].gate.clear()
    beginning = asyncio.create_task(here.step(1, start=True, version="1"))
    await waiting(here, "1", 0)
    wrong = asyncio.create_task(here.step(2, 2))
    await waiting(here, "1", 1)
    here.engines["1"].gate.set()
    assert (await beginning).version == "1"
    with pytest.raises(BadInput, match="symbols from 0 to 1"):
        await wrong
    assert state(here) == [2, 1]


async def test_what_follows_a_beginning_on_another_version_waits_for_it(pair: tuple[Service, Service]) -> None:
    here, _ = pair
    await here.begin("1")
    here.engines["2"].gate.clear()
    other = asyncio.create_task(here.step(1, start=True, version="2", sequence=8))
    await waiting(here, "2", 0)
    beginning = asyncio.create_task(here.step(2, 1, start=True, version="2"))
    await waiting(here, "2", 1)
    following = [asyncio.create_task(here.step(2, n)) for n in (2, 3)]
    await waiting(here, "2", 3)
    here.engines["2"].gate.set()
    answers = [await beginning, *[await f for f in following], await other]
    assert [(a.version, a.step) for a in answers] == [("2", 1), ("2", 2), ("2", 3), ("2", 1)]
    assert state(here) == [9, 3]


async def test_what_follows_a_beginning_that_fails_goes_to_the_sequence_that_stays(pair: tuple[Service, Service]) -> None:
    here, _ = pair
    await here.begin("1")
    engine = here.engines["2"]
    engine.poison = True
    engine.gate.clear()
    beginning = asyncio.create_task(here.step(1, 1, start=True, version="2"))
    await waiting(here, "2", 0)
    following = asyncio.create_task(here.step(1, 2))
    await waiting(here, "2", 1)
    engine.gate.set()
    with pytest.raises(Overflow):
        await beginning
    assert (await following).version == "1"
    assert state(here) == [3, 2]


async def test_a_step_that_lost_its_commit_to_a_new_beginning_elsewhere_is_offered_to_that(pair: tuple[Service, Service]) -> None:
    here, there = pair
    await here.begin("1")
    here.engines["1"].gate.clear()
    late = asyncio.create_task(here.step(1, 2))
    await waiting(here, "1", 0)
    await there.begin("2", 2)
    here.engines["1"].gate.set()
    told = await late
    assert (told.version, told.step, told.position) == ("2", 2, 2)
    assert state(here) == [3 + 2, 2]


async def test_of_a_stream_nothing_overtakes_what_came_back_and_is_asked_again(pair: tuple[Service, Service]) -> None:
    """The steps have no numbers, so that any order would do for the engines."""
    here, there = pair
    await here.begin("1")
    await there.begin("2")
    stream = UnderWay(here.inference)
    begun = [await stream.begin(asked(s)) for s in (0, 1)]
    assert isinstance(begun[-1], QueuedInfer)
    await asyncio.wait([begun[-1].replies])
    assert begun[-1].refused
    answers = [await stream.answer(begun[0])]  # from now on it is known where the sequence is
    third = asyncio.create_task(stream.begin(asked(2)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not third.done()
    answers += [await stream.answer(begun[1]), await stream.answer(await third)]
    assert [(a.version, a.step) for a in answers] == [("2", 2), ("2", 3), ("2", 4)]
    np.testing.assert_allclose([float(a.outputs[0].array[0, 0, 0]) for a in answers], np.sin([2, 4, 7]), atol=1e-5)
    assert not stream._last


async def test_of_a_stream_what_follows_steps_that_may_still_come_back_is_sent_after_them(pair: tuple[Service, Service]) -> None:
    """Also where another client's step has found out meanwhile that the sequence has moved."""
    here, there = pair
    old, new = (here.models.exactly("m", version) for version in ("1", "2"))
    assert new is not None
    await here.begin("1")
    await there.begin("2")
    here.engines["1"].gate.clear()
    other = asyncio.create_task(here.step(1, start=True, version="1", sequence=8))
    await waiting(here, "1", 0)
    stream = UnderWay(here.inference)
    begun = [await stream.begin(asked(0))]
    here.steps.remember(IDENT, new, sequence_owner(""))
    begun.append(await stream.begin(asked(1)))
    assert [b.model for b in begun] == [old, old]
    here.engines["1"].gate.set()
    answers = [await stream.answer(b) for b in begun]
    assert [(a.version, a.step) for a in answers] == [("2", 2), ("2", 3)]
    await other


async def test_a_start_in_a_stream_does_not_overtake_a_step_that_has_to_be_asked_again(pair: tuple[Service, Service]) -> None:
    here, there = pair
    await here.begin("1")
    await there.begin("2")
    stream = UnderWay(here.inference)
    step = await stream.begin(asked(1))
    start = asyncio.create_task(stream.begin(asked(1, start=True, version="1")))
    told = await stream.answer(step)
    assert (told.version, told.step) == ("2", 2)
    begun = await stream.answer(await start)
    assert (begun.version, begun.step) == ("1", 1)


async def test_the_end_of_a_sequence_that_has_moved_makes_room_once(pair: tuple[Service, Service]) -> None:
    here, there = pair
    ended: list[str] = []
    here.steps.registry.quotas.session_ended = ended.append  # type: ignore[method-assign]
    await here.begin("1")
    await there.begin("2")
    for _ in range(3):
        assert (await here.step(1, 2, end=True)).step == 2
    assert ended == [sequence_owner("")]


async def test_a_session_of_another_graph_can_be_looked_at_and_deleted_though_not_stepped(pair: tuple[Service, Service]) -> None:
    here, _ = pair
    model = here.models.exactly("m", "1")
    assert model is not None
    opened = await here.sessions.open(model, "")
    desk = model.port._desk  # type: ignore[attr-defined]
    desk._facts = desk._facts._replace(digest="changed")
    assert (await here.sessions.look(opened.id, "")).digest == "d1"
    with pytest.raises(ModelGone):
        await here.steps.step(model, StepRequest(opened.id, "", 1, b"d", Exact(np.array([1]))))
    with pytest.raises(ModelGone):
        await here.sessions.reset(opened.id, "")
    await here.sessions.delete(opened.id, "")
    assert here.store.load([opened.id]) == {}


async def test_what_is_asked_of_a_session_while_its_model_is_loaded_again_is_asked_of_the_new_engine(
    pair: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look for the model and the job: whatever the job is, it is done once."""
    here, _ = pair
    sessions, steps = here.sessions, here.steps
    model = here.models.exactly("m", "1")
    assert model is not None
    opened = await sessions.open(model, "")
    found = steps.model_of
    overtaken = 0

    async def model_of(ident: str, owner: str) -> Any:
        nonlocal overtaken
        known = await found(ident, owner)
        overtaken += 1
        if overtaken == 1:
            await load_again(here)
        return known

    async def fed(by: Any) -> int:
        return (await steps.step(by, StepRequest(opened.id, "", 1, b"d", Exact(np.array([1]))))).result.number

    def again() -> None:
        nonlocal overtaken
        overtaken = 0

    monkeypatch.setattr(steps, "model_of", model_of)
    assert await steps.where_it_runs(opened.id, "", await steps.model_of(opened.id, ""), fed) == 1
    again()
    assert (await sessions.look(opened.id, "")).step == 1
    again()
    twin = await sessions.fork(opened.id, "")
    again()
    assert (await sessions.reset(opened.id, "")).step == 0
    again()
    assert (await sessions.put(opened.id, "", Snapshot(twin.state, 5, 9, None))).position == 9
    again()
    await sessions.delete(opened.id, "")
    assert list(here.store.load([opened.id, twin.id])) == [twin.id]
