"""Where there is no memory, a request is told to come again, and what was answered is sent as it is."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from indrnn.service.app import create_application
from indrnn.service.errors import EngineFailed, Overloaded, ServiceError, unexpected
from indrnn.service.oip import http as oip_http
from indrnn.service.serving.backend import Backend
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


def test_only_a_lack_of_memory_passes() -> None:
    assert isinstance(unexpected(MemoryError()), Overloaded)
    assert isinstance(unexpected(MemoryError(), EngineFailed), Overloaded)
    for kind in (ServiceError, EngineFailed):
        error = unexpected(KeyError("x"), kind)
        assert (type(error), error.detail) == (kind, "internal error: KeyError")


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
