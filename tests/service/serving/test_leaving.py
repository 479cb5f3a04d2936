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
from test_batcher import FakeEngine
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from indrnn.service.engine.batcher import Batcher, BatcherSettings
from indrnn.service.engine.jobs import Job, unset
from indrnn.service.engine.quota import Quotas
from indrnn.service.engine.runtime import PIECE
from indrnn.service.engine.work import Text
from indrnn.service.errors import BadInput
from indrnn.service.oip.http import Target
from indrnn.service.oip.infer_http import InferHttp, _Busy
from indrnn.service.serving.disconnect import while_there
from indrnn.service.serving.sessions import Sessions, ask_all
from indrnn.service.session.machine import Refused
from indrnn.service.store.sqlite import SQLiteStore
from indrnn.service.wire.timed_http import TimedHttp


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
    loop = asyncio.get_running_loop()
    batcher = Batcher(engine, store, BatcherSettings(8, 10, 30, 60), loop.call_soon_threadsafe)  # type: ignore[arg-type]
    sessions = Sessions(None, store, 60, Quotas(None, None, store.count))  # type: ignore[arg-type]
    model: Any = SimpleNamespace(batcher=batcher)
    engine.gate.clear()
    asking = asyncio.create_task(sessions.predict(model, [Text(np.zeros(PIECE * 50, np.int64))] * 3, ""))
    await asyncio.sleep(0)
    assert batcher.waiting == 3
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    engine.gate.set()
    assert len(await sessions.predict(model, [Text(np.zeros(1, np.int64))], "")) == 1
    assert batcher.waiting == 0
    assert sum(len(r.x) for run in engine.runs for r in run) <= 3 * PIECE + 1
    batcher.stop(10)
    store.close()


async def test_rows_of_a_cancelled_request_are_not_run_to_their_end(tmp_path: Path) -> None:
    engine, store = FakeEngine(), SQLiteStore(tmp_path / "s.db")
    loop = asyncio.get_running_loop()
    batcher = Batcher(engine, store, BatcherSettings(8, 10, 30, 60), loop.call_soon_threadsafe)  # type: ignore[arg-type]
    model: Any = SimpleNamespace(batcher=batcher)
    engine.gate.clear()
    asked = ask_all(model, [Job(unset, content=Text(np.zeros(PIECE * 50, np.int64))) for _ in range(3)])
    assert batcher.waiting == 3
    asked.cancel()
    await asyncio.wait([asked])
    engine.gate.set()
    assert len(await ask_all(model, [Job(unset, content=Text(np.zeros(1, np.int64)))])) == 1
    assert batcher.waiting == 0
    assert sum(len(r.x) for run in engine.runs for r in run) <= 3 * PIECE + 1
    batcher.stop(10)
    store.close()


async def test_no_content_at_all_is_answered_with_nothing_and_not_waited_for() -> None:
    sessions = Sessions(None, None, 60, Quotas(None, None, lambda owner, now: 0))  # type: ignore[arg-type]
    model: Any = SimpleNamespace(batcher=SimpleNamespace(submit=lambda *jobs: None))
    async with asyncio.timeout(5):
        assert await sessions.predict(model, [], "") == []


def test_what_was_asked_over_a_connection_is_let_go_of_with_its_answer_and_with_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not when the garbage collector comes by: a request may have 64 KB, and an idle connection none."""
    monkeypatch.setattr(HttpToolsProtocol, "on_response_complete", lambda self: None)
    monkeypatch.setattr(TimedHttp, "connection_lost", lambda self, error: None)
    for ends in ("answer", "leave"):
        connection: Any = InferHttp.__new__(InferHttp)
        connection.transport = SimpleNamespace(is_closing=lambda: False, write=lambda data: None)
        connection.server_state = SimpleNamespace(default_headers=[])
        asked, batcher = Symbols(), SimpleNamespace(detach=lambda ident, sink: None)
        busy = connection.cycle = connection._running = _Busy(keep_alive=True, target=Target("m", None, "infer"))
        sink = partial(connection._deliver, None, asked, None, busy)
        busy.leave = partial(batcher.detach, "", sink)
        known = weakref.ref(asked)
        if ends == "answer":
            sink(Refused(BadInput("no")), None)
        else:
            connection.connection_lost(None)
        gc.disable()
        try:
            del asked, sink, busy
            assert known() is None, ends
        finally:
            gc.enable()


class Symbols:
    """Something a request was read into."""
