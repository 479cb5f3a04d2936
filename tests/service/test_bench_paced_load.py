"""The bench of live sessions: a service that has no place for one does not keep up, and the bench goes on."""

import asyncio
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from bench import paced_load, serve_live
from bench.server import Server

FULL = '{"type":"error","code":"overloaded","detail":"1024 of 1024 places are taken","retry_after":1}'


async def seen(places: int) -> paced_load.Seen:
    """What five sessions of a service with so many places see."""
    taken = 0

    async def answer(connection: ServerConnection) -> None:
        nonlocal taken
        async for message in connection:
            opens = '"open"' in str(message)
            taken += opens
            await connection.send(FULL if opens and taken > places else '{"type":"opened"}' if opens else '{"type":"result"}')

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        async with serve(answer, sock=listening, compression=None), asyncio.timeout(20):
            plan = paced_load.Plan(Server(port, os.getpid(), Path()), "/stream/m", {"type": "open"}, [], 5, 0.05, 0.05)
            return await paced_load._follow(plan)


async def test_a_service_without_a_place_does_not_keep_up() -> None:
    full = await seen(3)
    assert (full.sent, full.errors, full.late) == (0, 2, 0.0)
    assert full.percentile(99) == float("inf")
    enough = await seen(5)
    assert (enough.sent, enough.dropped) == (5, 0)


def test_the_search_goes_on_below_where_there_was_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.empty(0, np.float32)

    def on(asked: Any, server: Server, sessions: int) -> paced_load.Seen:
        good, places = np.full(sessions, 0.01, np.float32), 170
        if sessions > places:
            return paced_load.Seen(0, sessions - places, 0, nothing, nothing, 0, 0)
        return paced_load.Seen(sessions, 0, 0, good, good, 0, 0)

    monkeypatch.setattr(serve_live, "_on", on)
    asked = cast(Any, SimpleNamespace(sessions=100, most=1_000, until=float("inf")))
    search = serve_live.Search(asked, cast(Any, None), True)
    while not search.ended:
        search.look()
    assert 150 <= search.low <= 170
    assert "there was no place for" in search.why
