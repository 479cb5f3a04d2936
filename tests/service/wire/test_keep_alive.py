"""An idle connection is closed, by one timer for all of its requests; not so one that is asked or answered, even after its last request."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from indrnn.service.wire.http import Busy, ShortHttp, TimedHttp

IDLE = 0.4  # seconds


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer after as many seconds as the path says."""
    await asyncio.sleep(float(scope["path"][1:]))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def connected(kind: type[TimedHttp], app: Any = app) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(app, timeout_keep_alive=IDLE, log_config=None, lifespan="off")  # type: ignore[arg-type]  # uvicorn takes any number
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(lambda: kind(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()


def ask(writer: asyncio.StreamWriter, seconds: float) -> None:
    writer.write(b"GET /%.2f HTTP/1.1\r\nhost: x\r\n\r\n" % seconds)


async def answer(reader: asyncio.StreamReader) -> bool:
    return (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("before", [1, 4])  # the timer of the first answer is due after the last one, or between them
@pytest.mark.parametrize("kind", [TimedHttp, ShortHttp])
async def test_a_connection_is_closed_so_long_after_its_last_answer(kind: type[TimedHttp], before: int) -> None:
    async with connected(kind) as (reader, writer), asyncio.timeout(10):
        for _ in range(before):
            ask(writer, 0)
            assert await answer(reader)
            await asyncio.sleep(IDLE / 2)
        ask(writer, 0)
        assert await answer(reader)
        last = time.monotonic()
        assert await reader.read() == b""
        assert 0.9 * IDLE < time.monotonic() - last < IDLE + 2


@pytest.mark.parametrize("kind", [TimedHttp, ShortHttp])
async def test_a_connection_is_not_closed_while_it_is_answered(kind: type[TimedHttp]) -> None:
    async with connected(kind) as (reader, writer), asyncio.timeout(10):
        ask(writer, 0)
        assert await answer(reader)
        ask(writer, 2 * IDLE)
        assert await answer(reader)
        ask(writer, 0)
        ask(writer, 2 * IDLE)  # one behind the other: an answer is no idle time where the next is being made
        assert await answer(reader)
        assert await answer(reader)
        last = time.monotonic()
        assert await reader.read() == b""
        assert 0.9 * IDLE < time.monotonic() - last < IDLE + 2


async def test_a_connection_that_is_half_asked_is_left_to_the_limits_on_requests() -> None:
    async with connected(TimedHttp) as (reader, writer), asyncio.timeout(10):
        ask(writer, 0)
        assert await answer(reader)
        writer.write(b"GET /0 HTTP/1.1\r\n")
        await asyncio.sleep(2 * IDLE)
        writer.write(b"host: x\r\n\r\n")
        assert await answer(reader)


@pytest.mark.parametrize("kind", [TimedHttp, ShortHttp])
async def test_a_client_that_says_no_more_is_answered_all_that_it_asked(kind: type[TimedHttp]) -> None:
    async with connected(kind) as (reader, writer), asyncio.timeout(10):
        ask(writer, 0.1)
        ask(writer, 0.1)
        writer.write_eof()
        assert (await reader.read()).count(b"HTTP/1.1 200") == 2, "and the connection is closed then"


async def test_a_client_that_says_no_more_may_have_left_and_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimedHttp, "grace", 0.05)
    async with connected(TimedHttp) as (reader, writer), asyncio.timeout(10):
        ask(writer, 9)
        writer.write_eof()
        assert await reader.read() == b""


async def test_a_step_of_who_says_no_more_is_not_waited_for_behind_an_answer_of_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(ShortHttp):
        def target_of(self, url: bytes) -> object:
            return url

        def answer(self, busy: Busy, body: bytes) -> bool:
            return True

    monkeypatch.setattr(TimedHttp, "grace", 0.05)
    async with connected(Silent) as (reader, writer), asyncio.timeout(5):
        ask(writer, 0)
        assert await answer(reader)
        writer.write(b"POST /v2/x HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        writer.write_eof()
        assert await reader.read() == b""


async def test_a_client_that_leaves_in_the_middle_of_a_request_is_let_go() -> None:
    for part in (b"", b"GET /0 HTTP/1.1\r\n", b"POST /0 HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf"):
        async with connected(TimedHttp) as (reader, writer), asyncio.timeout(10):
            writer.write(part)
            writer.write_eof()
            assert b"200" not in await reader.read()
