"""Where there is no memory, a request is told to come again, and what was answered is sent as it is."""

import errno
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from indrnn.service.app import create_application
from indrnn.service.errors import NO_THREAD, EngineFailed, Overloaded, ServiceError, StoreFailed, unanswered, unexpected
from indrnn.service.http import routes
from indrnn.service.oip import http as oip_http
from indrnn.service.serving.backend import Backend
from indrnn.service.serving.sessions import Sessions
from indrnn.service.settings import Settings

ROOT = Path(__file__).parents[2]
X = {"name": "x", "datatype": "FP32", "shape": [1, 1, 1, 20, 3], "data": [0.5] * 60}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(store=str(tmp_path / "s.db"), bundles=ROOT / "bundles", poll=0)
    application = create_application(settings, Backend.open(settings))
    transport = httpx.ASGITransport(application.asgi, raise_app_exceptions=False)
    async with application.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://x") as made:
        yield made


def nothing_left(*_: Any, **__: Any) -> Any:
    raise MemoryError("Can't allocate memory for compression object")


LACKS = [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), RuntimeError("can't start new thread")]
BUGS = [KeyError("x"), OSError(errno.EIO, "x"), RuntimeError("dictionary changed size during iteration")]


def test_only_a_lack_of_memory_passes() -> None:
    for kind in (ServiceError, EngineFailed):
        for error in LACKS:
            assert isinstance(unexpected(error, kind), Overloaded)
            assert isinstance(unanswered(error, kind), StoreFailed)
        for error in BUGS:
            said = unexpected(error, kind)
            assert (type(said), said.detail) == (kind, f"internal error: {type(error).__name__}")
            assert type(unanswered(error, kind)) is kind


def test_python_says_so_where_no_thread_begins() -> None:
    limited = "import resource, threading; resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28)); threading.stack_size(2**29)"
    done = subprocess.run([sys.executable, "-c", f"{limited}; threading.Thread(target=print).start()"], capture_output=True, text=True)
    assert f"RuntimeError: {NO_THREAD}" in done.stderr


async def test_an_answer_that_cannot_be_compressed_goes_as_it_is(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"inputs": [X], "parameters": {"sequence_id": 7, "sequence_start": True}}
    monkeypatch.setattr(oip_http, "compress", nothing_left)
    reply = await client.post("/v2/models/action/infer", json=asked, headers={"accept-encoding": "gzip"})
    assert reply.status_code == 200
    assert "content-encoding" not in reply.headers
    assert reply.json()["outputs"][0]["name"] == "logits"


async def test_a_request_without_memory_is_asked_to_come_again(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oip_http.OpenInference, "_answer", nothing_left)
    monkeypatch.setattr("indrnn.service.http.routes.only", nothing_left)
    infer = await client.get("/v2/models/action")
    predict = await client.post("/predict", json={"sequences": []})
    assert [(r.status_code, r.headers["retry-after"]) for r in (infer, predict)] == [(503, "1")] * 2
    assert "out of memory" in infer.json()["error"]
    assert (predict.json()["code"], predict.json()["detail"]) == ("overloaded", "the service is out of memory")


@pytest.mark.parametrize("step", [None, 1])
async def test_a_step_whose_answer_finds_no_memory_is_to_be_repeated_with_its_number(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, step: int | None
) -> None:
    """It is stored: told that nothing had moved, a client without numbers would apply it twice."""
    ident = (await client.post("/sessions", json={"model": "action"})).json()["session_id"]
    monkeypatch.setattr("indrnn.service.http.routes._predict_in_session", after(routes._predict_in_session))
    asked = {"session_id": ident, "sequences": [[[[0.5] * 3] * 20]], **({} if step is None else {"step": step})}
    told = await client.post("/predict", json=asked)
    assert (told.status_code, told.json()["code"], told.headers["retry-after"]) == (503, "store_failed", "1")
    assert (await client.get(f"/sessions/{ident}")).json()["step"] == 1


async def test_an_infer_whose_answer_finds_no_memory_is_not_told_that_nothing_moved(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oip_http.OpenInference, "_answer", after(oip_http.OpenInference._answer))
    asked = {"inputs": [X], "parameters": {"sequence_id": 7, "sequence_start": True}}
    told = await client.post("/v2/models/action/infer", json=asked)
    assert told.status_code == 503
    assert "whether the step is stored is not known" in told.json()["error"]


def after(way: Any, error: type[Exception] = MemoryError) -> Any:
    """Returns what goes that way, and finds no memory then."""

    async def wrapped(*asked: Any, **more: Any) -> Any:
        await way(*asked, **more)
        raise error

    return wrapped


NOT_KNOWN = "whether the session was changed is not known"


async def test_what_is_done_to_a_session_is_not_told_to_have_moved_nothing(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ident = (await client.post("/sessions", json={"model": "action", "keep": 1})).json()["session_id"]
    state = (await client.get(f"/sessions/{ident}/state")).content
    asked = {
        "open": client.build_request("POST", "/sessions", json={"model": "action"}),
        "reset": client.build_request("POST", f"/sessions/{ident}/reset"),
        "rewind": client.build_request("POST", f"/sessions/{ident}/rewind", json={"step": 0}),
        "mark": client.build_request("POST", f"/sessions/{ident}/mark", json={"mark": "here"}),
        "fork": client.build_request("POST", f"/sessions/{ident}/fork"),
        "put": client.build_request("PUT", f"/sessions/{ident}/state", content=state),
        "delete": client.build_request("DELETE", f"/sessions/{ident}"),
    }
    for way, request in asked.items():
        whole = getattr(Sessions, way)
        for error, status, code in ((MemoryError, 503, "store_failed"), (KeyError, 500, "internal"))[: 1 if way == "delete" else 2]:
            monkeypatch.setattr(Sessions, way, after(whole, error))
            told = await client.send(request)
            assert (way, told.status_code, told.json()["code"]) == (way, status, code)
            assert NOT_KNOWN in told.json()["detail"]
    assert (await client.get(f"/sessions/{ident}")).status_code == 410


async def test_where_nothing_is_changed_a_lack_of_memory_passes(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sessions, "look", nothing_left)
    told = await client.get("/sessions/x")
    assert (told.status_code, told.json()["code"], told.json()["detail"]) == (503, "overloaded", "the service is out of memory")


async def test_a_step_whose_answer_meets_a_bug_may_be_stored(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    ident = (await client.post("/sessions", json={"model": "action"})).json()["session_id"]
    monkeypatch.setattr("indrnn.service.http.routes._predict_in_session", after(routes._predict_in_session, KeyError))
    told = await client.post("/predict", json={"session_id": ident, "sequences": [[[[0.5] * 3] * 20]]})
    assert (told.status_code, told.json()["code"]) == (500, "internal")
    assert "internal error: KeyError: whether the step is stored is not known" in told.json()["detail"]


def test_a_lack_of_memory_after_a_step_says_that_nobody_knows() -> None:
    assert isinstance(unanswered(MemoryError(), EngineFailed), StoreFailed)
    assert isinstance(unanswered(KeyError("x"), EngineFailed), EngineFailed)
    assert "whether the step is stored is not known" in unanswered(KeyError("x"), EngineFailed).detail
