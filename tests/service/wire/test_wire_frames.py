"""Cutting a connection's bytes into frames, and messages of many streams that are read together."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from indrnn.service.engine.requests import Exact
from indrnn.service.serving.steps import Tickets
from indrnn.service.session.machine import Result
from indrnn.service.stream.plain_steps import Done, Intake, Taken
from indrnn.service.wire.websocket import Wire


def test_a_long_frame_in_many_small_pieces_is_not_copied_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[int] = []
    monkeypatch.setattr(WebSocketsSansIOProtocol, "data_received", lambda self, data: got.append(len(data)))
    wire: Any = Wire.__new__(Wire)
    wire.handshake_initiated, wire._too_long, wire._fragments, wire._held, wire._rest = True, False, False, None, bytearray()
    wire.taker, wire.config, wire.conn, wire._waits = None, SimpleNamespace(ws_max_size=2**27), SimpleNamespace(), False
    wire._yielded, wire._pieces = False, 0
    wire.opened()
    size = 2**26
    wire.data_received(b"\x82\xff" + size.to_bytes(8, "big") + b"\0" * 4 + bytes(size - 1000))
    begun = time.perf_counter()
    for _ in range(999):
        wire.data_received(b"\0")
    assert time.perf_counter() - begun < 1, "each byte cost a copy of all that came before"
    assert got == []
    wire.data_received(b"\0")
    assert got == [14 + size]


class Pretended:
    """A stream whose connection may be broken."""

    layout = hz = form = None
    forms = 0
    top_k = 1
    options_key = b"k"

    def __init__(self, model: Any, broken: bool) -> None:
        self.model, self.broken = model, broken
        self.said: list[str] = []

    def ask(self, number: int | None, content: object, tickets: object) -> object:
        if self.broken:
            raise RuntimeError("broken on purpose")
        return SimpleNamespace(stream=self)

    def decline(self, frame: bytes) -> None:
        if self.broken:
            raise RuntimeError("broken on purpose")
        self.said.append("declined")

    def fail(self, error: Exception) -> None:
        self.said.append("failed")


@pytest.mark.parametrize(("message", "said"), [(b'{"type":"step","text":"a"}', "queued"), (b"no JSON", "declined")])
async def test_a_broken_connection_leaves_the_messages_that_are_read_with_its_own_alone(message: bytes, said: str) -> None:
    queued: list[Any] = []
    model = SimpleNamespace(
        modality=SimpleNamespace(field="text", read_alike=lambda texts, layout, rates: [Exact(np.zeros(1, np.int64))] * len(texts)),
        port=SimpleNamespace(submit=queued.extend),
    )
    streams = [Pretended(model, broken) for broken in (False, True, False)]
    intake = Intake(Tickets())
    for stream in streams:
        intake.take(Taken(stream, b"", message))  # type: ignore[arg-type]  # pretended
    await asyncio.sleep(0)
    for job in queued:
        job.stream.said.append("queued")
    assert [streams[0].said, streams[2].said] == [[said]] * 2


@pytest.mark.parametrize("broken", [False, True])
async def test_steps_whose_replies_cannot_be_worded_are_answered_and_their_connections_go_on(broken: bool) -> None:
    def word(answers: Any, top_k: int) -> Any:
        if broken:
            raise MemoryError
        return [{"text": "a"}] * len(answers)

    told: list[Any] = []
    model = SimpleNamespace(modality=SimpleNamespace(word=word))
    stream: Any = SimpleNamespace(model=model, top_k=1, answer=told.append)
    intake = Intake(Tickets())
    for number in (1, 2):
        intake.done(Done(stream, Result(number, number, cast(Any, None), cast(Any, None)), cast(Any, None)))
    await asyncio.sleep(0)
    assert [one["type"] for one in told] == ["error" if broken else "result"] * 2
    assert [one.get("code") for one in told] == ["store_failed" if broken else None] * 2
