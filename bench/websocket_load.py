"""A WebSocket load client that costs little: prebuilt frames, replies counted and not parsed. One process, one uvloop."""

import asyncio
import base64
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import orjson
import uvloop


def text_frame(payload: bytes) -> bytes:
    """A client's text frame, masked with zeros: the server unmasks it all the same, and the bytes need no work here."""
    n = len(payload)
    head = bytes([0x81, 0x80 | n]) if n < 126 else bytes([0x81, 0xFE]) + n.to_bytes(2, "big")
    return (head if n < 65536 else bytes([0x81, 0xFF]) + n.to_bytes(8, "big")) + bytes(4) + payload


@dataclass
class Tally:
    """What all clients together have seen."""

    replies: int = 0
    errors: int = 0
    latencies: list[float] = field(default_factory=list)


class Client(asyncio.Protocol):
    """Sends the same message again as soon as the last one was answered."""

    def __init__(self, path: str, opening: bytes | None, message: bytes, tally: Tally, running: Callable[[], bool]) -> None:
        self._path, self._opening, self._message = path, opening, message
        self._tally, self._running = tally, running
        self._buffer = b""
        self._started = False
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._started:
            head, found, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if not found:
                self._buffer = head
                return
            assert b" 101 " in head, head
            self._started = True
            self._transport.write(self._opening or self._next())
        while (payload := self._take()) is not None:
            self._answered(payload)

    def _take(self) -> bytes | None:
        b = self._buffer
        if len(b) < 2:
            return None
        n, at = b[1] & 0x7F, 2
        if n == 126:
            n, at = int.from_bytes(b[2:4], "big"), 4
        elif n == 127:
            n, at = int.from_bytes(b[2:10], "big"), 10
        if len(b) < at + n:
            return None
        self._buffer = b[at + n :]
        return b[at : at + n]

    def _answered(self, payload: bytes) -> None:
        if self._opening is not None:
            self._opening = None
            assert payload.startswith(b'{"type":"opened"'), payload[:200]
        else:
            self._tally.replies += 1
            self._tally.errors += payload.startswith(b'{"type":"error"')
            self._tally.latencies.append(time.perf_counter() - self._sent_at)
        if self._running():
            self._transport.write(self._next())
        else:
            self._transport.close()

    def _next(self) -> bytes:
        self._sent_at = time.perf_counter()
        return self._message


def load(port: int, path: str, opening: object | None, message: object, clients: int, seconds: float) -> tuple[float, Tally]:
    """Messages answered per second by `clients` connections at a time, and what they saw."""

    async def run() -> tuple[float, Tally]:
        tally = Tally()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        first = None if opening is None else text_frame(orjson.dumps(opening))
        frame = text_frame(orjson.dumps(message))
        start = time.perf_counter()
        made = [
            await loop.create_connection(lambda: Client(path, first, frame, tally, lambda: loop.time() < end), "127.0.0.1", port)
            for _ in range(clients)
        ]
        await asyncio.gather(*(protocol.done for _, protocol in made))
        return tally.replies / (time.perf_counter() - start), tally

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())
