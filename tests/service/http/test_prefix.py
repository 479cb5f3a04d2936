"""Below a prefix that a proxy shows: it is taken from a path once, whoever would take it."""

from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from indrnn.service.app import create_app
from indrnn.service.settings import Settings
from indrnn.service.wire.http import Front, path_below

FORWARDED = "x-forwarded-prefix"


async def oip(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the path that it is asked for."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ("/at/nothing", "there is nothing at /nothing"),
        ("/nothing", "there is nothing at /nothing"),
        ("/at/at/nothing", "there is nothing at /at/nothing"),
        ("/at/at/health/live", "there is nothing at /at/health/live"),
        ("/at/at", "there is nothing at /at"),
        ("/at/stream/x", "there is a stream at /stream/x: expected a WebSocket's handshake, got GET"),
        ("/at/sessions/x/fork", "expected POST for /sessions/x/fork, got GET"),
    ],
)
async def test_a_prefix_is_taken_from_a_path_once(asked: str, detail: str) -> None:
    settings = Settings()
    for configured, headers in (("/at", {}), ("", {FORWARDED: "/at"})):
        transport = httpx.ASGITransport(Front(create_app(settings), oip, configured))
        async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as client:
            assert (await client.get(asked)).json()["detail"] == detail
            assert (await client.get("/at/health/live")).json() == {"status": "live"}
            assert (await client.get("/at/at/")).status_code == 404
            assert (await client.get("/at/")).status_code == (await client.get("/at")).status_code == 200
            assert (await client.get("/at/v1/at/nothing")).json()["error"]["message"] == "there is nothing at /v1/at/nothing"
            assert (await client.get("/at/v2/at/v2")).text == "/v2/at/v2"


async def test_a_path_that_ends_in_a_slash_is_shown_the_way_below_the_prefix() -> None:
    transport = httpx.ASGITransport(Front(create_app(Settings()), oip, "/at"))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/at/health/live/")).headers["location"] == "http://x/at/health/live"


@pytest.mark.parametrize(
    ("asked", "below"),
    [("/api/predict", "/predict"), ("/predict", "/predict"), ("/apis/predict", "/apis/predict"), ("/api", ""), ("/api/api/x", "/api/x")],
)
def test_a_path_without_the_prefix_is_left_whole(asked: str, below: str) -> None:
    assert path_below({"path": asked, "root_path": "/api"}) == below
    assert path_below({"path": asked, "root_path": ""}) == path_below({"path": asked}) == asked


async def test_a_host_may_have_the_prefix_in_root_path_alone() -> None:
    transport = httpx.ASGITransport(Front(create_app(Settings()), oip), root_path="/api")
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/nothing")).json()["detail"] == "there is nothing at /nothing"


async def test_a_handshake_for_no_stream_is_told_of_the_path_below_the_prefix() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {
        "type": "websocket",
        "path": "/at/at/streams/x",
        "headers": [],
        "query_string": b"",
        "extensions": {"websocket.http.response": {}},
    }
    await Front(create_app(Settings()), oip, "/at")(scope, receive, send)
    assert "there is no stream at /at/streams/x: expected" in sent[1]["body"].decode()
