"""A WebSocket load client that costs little: prebuilt frames, replies counted and not parsed. One process, one uvloop.

Each of its connections sends its next message as soon as the last one was answered.
"""

import asyncio
import base64
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import orjson
import uvloop

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
Message = Callable[[int], bytes]
"""A connection's n-th message, from 1 on, as the frame that is sent."""


def text_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """A client's frame, masked with zeros: the server unmasks it all the same, and the bytes need no work here."""
    n = len(payload)
    first = 0x80 | opcode
    head = bytes([first, 0x80 | n]) if n < 126 else bytes([first, 0xFE]) + n.to_bytes(2, "big")
    return (head if n < 65536 else bytes([first, 0xFF]) + n.to_bytes(8, "big")) + bytes(4) + payload


def steps(frames: object) -> Message:
    """Numbered steps, all of the same frames: only a step with a number can be repeated safely, so these are what counts."""
    tail = b',"frames":' + orjson.dumps(frames) + b"}"
    return lambda n: text_frame(b'{"type":"step","step":%d' % n + tail)


@dataclass
class Tally:
    """What all connections together have seen. errors: replies that say so, and connections that were lost; latencies in seconds."""

    replies: int = 0
    errors: int = 0
    latencies: list[float] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One WebSocket. `opening` is sent first; `opened` is called when that, or else the handshake, was answered."""

    def __init__(self, path: str, opening: bytes | None) -> None:
        self._path, self._opening = path, opening
        self._buffer = b""
        self._upgraded = self._is_open = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def opened(self) -> None:
        """From now on `answered` gets every text."""

    def answered(self, payload: bytes) -> None:
        """One text from the server."""

    def refused(self, expected: str, got: bytes) -> None:
        """The server has said something else in place of opening it."""
        raise SystemExit(f"expected {expected}, got {got[:200]!r}")

    def send(self, frame: bytes) -> None:
        self._transport.write(frame)

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        key = base64.b64encode(os.urandom(16)).decode()
        self.send(
            f"GET {self._path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded and not self._upgrade():
            return
        while (frame := self._take()) is not None:
            self._received(*frame)

    def _upgrade(self) -> bool:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        if b" 101 " not in head:
            self.refused(f"101 for {self._path}", head)
            return False
        self._upgraded, self._buffer = True, rest
        if self._opening is not None:
            self.send(self._opening)
        else:
            self._open()
        return True

    def _open(self) -> None:
        self._is_open = True
        self.opened()

    def _take(self) -> tuple[int, bytes] | None:
        """Opcode and payload of the next whole frame."""
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
        return b[0] & 0x0F, b[at : at + n]

    def _received(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.send(text_frame(payload, PONG))
        elif opcode == CLOSE:
            self.close()
        elif self._is_open:
            self.answered(payload)
        else:
            if payload.startswith(b'{"type":"opened"'):
                self._open()
            else:
                self.refused("opened", payload)


class Client(Connection):
    """Sends the next message as soon as the last one was answered, at most so many."""

    def __init__(self, path: str, opening: bytes | None, message: Message, tally: Tally, until: float, most: int | None) -> None:
        super().__init__(path, opening)
        self._message, self._tally, self._until, self._most = message, tally, until, most
        self._sent = 0
        self._sent_at = 0.0
        self._enough = False

    def opened(self) -> None:
        self._next()

    def answered(self, payload: bytes) -> None:
        now = time.perf_counter()
        self._tally.replies += 1
        self._tally.errors += payload.startswith(b'{"type":"error"')
        self._tally.latencies.append(now - self._sent_at)
        if now < self._until and self._sent != self._most:
            self._next()
        else:
            self._enough = True
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tally.errors += not self._enough
        super().connection_lost(exc)

    def _next(self) -> None:
        self._sent += 1
        self._sent_at = time.perf_counter()
        self.send(self._message(self._sent))


def load(port: int, path: str, opening: object | None, message: Message, clients: int, seconds: float) -> tuple[float, Tally]:
    """Messages answered per second by `clients` connections at a time, and what they saw."""

    async def run() -> tuple[float, Tally]:
        tally = Tally()
        start = time.perf_counter()
        await _converse(port, path, opening, message, clients, tally, start + seconds, None)
        return tally.replies / (time.perf_counter() - start), tally

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def visit(port: int, path: str, opening: object, message: Message, visitors: int, at_a_time: int) -> Tally:
    """So many connections, some at a time, of one message each."""

    async def run() -> Tally:
        tally = Tally()
        for at in range(0, visitors, at_a_time):
            await _converse(port, path, opening, message, min(at_a_time, visitors - at), tally, float("inf"), 1)
        return tally

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


async def _converse(
    port: int, path: str, opening: object | None, message: Message, clients: int, tally: Tally, until: float, most: int | None
) -> None:
    """Some clients at a time, until they have had enough."""
    loop = asyncio.get_running_loop()
    first = None if opening is None else text_frame(orjson.dumps(opening))
    made = [
        await loop.create_connection(lambda: Client(path, first, message, tally, until, most), "127.0.0.1", port) for _ in range(clients)
    ]
    await asyncio.gather(*(protocol.ended for _, protocol in made))
