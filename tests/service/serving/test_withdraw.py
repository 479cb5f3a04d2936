"""A client that leaves takes its work along, where nothing of it is to be kept."""

import asyncio
import gc
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.requests import ClientDisconnect, Request
from test_loop import FakeEngine

from indrnn.service.engine.loop import EngineLoop, EngineSettings
from indrnn.service.engine.quota import Quotas
from indrnn.service.engine.registry import Registry
from indrnn.service.engine.requests import Delivery, Exact, InferRequest
from indrnn.service.engine.runtime import PIECE
from indrnn.service.errors import BadInput
from indrnn.service.oip.http import Target
from indrnn.service.oip.infer_http import InferHttp
from indrnn.service.oip.message import Ask
from indrnn.service.serving.request import while_there
from indrnn.service.serving.steps import StepRouter, Tickets
from indrnn.service.session.machine import Refused, Result
from indrnn.service.store.sqlite import SQLiteStore
from indrnn.service.wire.http import Busy, TimedHttp


def tickets() -> Tickets:
    asking = Tickets()
    asking.loop = asyncio.get_running_loop()
    return asking


def request(leaves: asyncio.Event) -> Request:
    async def receive() -> dict[str, Any]:
        await leaves.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


async def test_work_is_cancelled_when_its_client_leaves() -> None:
    leaves, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        leaves.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(ClientDisconnect):
        await while_there(request(leaves).receive, work())
    await asyncio.wait_for(cancelled.wait(), 20)


async def test_work_of_a_client_that_stays_is_answered_and_its_errors_told() -> None:
    async def work(error: Exception | None) -> int:
        await asyncio.sleep(0)
        if error:
            raise error
        return 7

    assert await while_there(request(asyncio.Event()).receive, work(None)) == 7
    with pytest.raises(BadInput):
        await while_there(request(asyncio.Event()).receive, work(BadInput("x")))


async def test_clips_of_a_cancelled_request_are_not_run_to_their_end(tmp_path: Path) -> None:
    engine, store = FakeEngine(), SQLiteStore(tmp_path / "s.db")
    steps = StepRouter(None, Registry(store, 60, Quotas(None, None, store.count)), tickets())  # type: ignore[arg-type]
    port = EngineLoop(engine, store, EngineSettings(8, 10, 30, 60), steps.tickets.answer)  # type: ignore[arg-type]
    model: Any = SimpleNamespace(port=port, modality=SimpleNamespace(each_step=False))
    engine.gate.clear()
    asking = asyncio.create_task(steps.infer(model, [Exact(np.zeros(PIECE * 50, np.int64))] * 3, ""))
    await asyncio.sleep(0)
    assert port.inbox.waiting == 3
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    engine.gate.set()
    assert len(await steps.infer(model, [Exact(np.zeros(1, np.int64))], "")) == 1
    assert port.inbox.waiting == 0
    assert sum(len(r.x) for run in engine.runs for r in run) <= 3 * PIECE + 1
    port.stop(10)
    store.close()


async def test_rows_of_a_cancelled_request_are_not_run_to_their_end(tmp_path: Path) -> None:
    engine, store = FakeEngine(), SQLiteStore(tmp_path / "s.db")
    asking = tickets()
    port = EngineLoop(engine, store, EngineSettings(8, 10, 30, 60), asking.answer)  # type: ignore[arg-type]
    engine.gate.clear()
    asked = asking.ask_all(port, [InferRequest(Exact(np.zeros(PIECE * 50, np.int64))) for _ in range(3)])
    assert port.inbox.waiting == 3
    asked.cancel()
    await asyncio.wait([asked])
    engine.gate.set()
    assert len(await asking.ask_all(port, [InferRequest(Exact(np.zeros(1, np.int64)))])) == 1
    assert port.inbox.waiting == 0
    assert sum(len(r.x) for run in engine.runs for r in run) <= 3 * PIECE + 1
    port.stop(10)
    store.close()


async def test_no_content_at_all_is_answered_with_nothing_and_not_waited_for() -> None:
    steps = StepRouter(None, Registry(None, 60, Quotas(None, None, lambda owner, now: 0)), tickets())  # type: ignore[arg-type]
    port = SimpleNamespace(submit=lambda asked, whole: None)
    model: Any = SimpleNamespace(port=port, modality=SimpleNamespace(each_step=False))
    async with asyncio.timeout(5):
        assert await steps.infer(model, [], "") == []


def test_what_was_asked_over_a_connection_is_let_go_of_with_its_answer_and_with_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not when the garbage collector comes by: a request may have 64 KB, and an idle connection none."""
    monkeypatch.setattr(TimedHttp, "on_response_complete", lambda self: None)
    monkeypatch.setattr(TimedHttp, "connection_lost", lambda self, error: None)
    for ends in ("answer", "leave"):
        connection: Any = InferHttp.__new__(InferHttp)
        connection.transport = SimpleNamespace(is_closing=lambda: False, write=lambda data: None)
        connection.server_state = SimpleNamespace(default_headers=[])
        asked, port, asking = Symbols(), SimpleNamespace(withdraw=lambda tickets: None), Tickets()
        target = Target("m", None, "infer")
        busy = connection.cycle = connection._running = Busy(keep_alive=True, target=target)
        ticket = asking.issue(partial(connection._deliver, Ask("", [], None), asked, None, None, target, busy))
        connection.leaves_with(busy, partial(asking.withdraw, port, [ticket]))
        known = weakref.ref(asked)
        if ends == "answer":
            asking.tell([Delivery(ticket, Refused(BadInput("no")))])
        else:
            connection.connection_lost(None)
        gc.disable()
        try:
            del asked, busy
            assert known() is None, ends
        finally:
            gc.enable()


def test_an_infer_whose_reply_cannot_be_worded_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimedHttp, "on_response_complete", lambda self: None)
    written: list[bytes] = []
    connection: Any = InferHttp.__new__(InferHttp)
    connection.transport = SimpleNamespace(is_closing=lambda: False, write=written.append)
    connection.server_state = SimpleNamespace(default_headers=[])
    target, asking = Target("m", None, "infer"), Tickets()
    busy = connection.cycle = Busy(keep_alive=True, target=target)
    ticket = asking.issue(partial(connection._deliver, Ask("", [], None), None, None, None, target, busy))  # no model that could word it
    result: Any = Result(1, 1, None, None)  # type: ignore[arg-type]
    asking.tell([Delivery(ticket, result)])
    assert b" 503 " in written[0]
    assert b"whether the step is stored is not known" in written[0]


class Symbols:
    """Something a request was read into."""
