"""A load client of the Open Inference Protocol over HTTP that costs little: sequences of binary steps, replies counted and not parsed.

Each of its connections sends its next step as soon as the last one was answered. One process, one uvloop.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import cast

import numpy as np
import orjson
import uvloop
from numpy.typing import NDArray

from bench.websocket_load import Tally

FIRST_ID = 10**9  # ids of ten digits, so that every request of a kind has the same length


class Requests:
    """The three kinds of step: a sequence's first, its last, and those in between. x [1, 1, ...] goes as raw bytes, logits come so."""

    def __init__(self, model: str, x: NDArray[np.float32], length: int) -> None:
        self._length = length
        self._kinds = {(start, end): _halves(model, x, start, end) for start in (True, False) for end in (True, False)}
        self._ids = itertools.count(FIRST_ID)

    def __iter__(self) -> Iterator[bytes]:
        """One connection's steps, sequence after sequence."""
        while True:
            ident = b"%d" % next(self._ids)
            for step in range(self._length):
                before, after = self._kinds[step == 0, step == self._length - 1]
                yield before + ident + after


def _halves(model: str, x: NDArray[np.float32], start: bool, end: bool) -> tuple[bytes, bytes]:
    """A request before and after the sequence's id."""
    head = {
        "parameters": {"sequence_id": FIRST_ID, "sequence_start": start, "sequence_end": end},
        "inputs": [{"name": "x", "shape": x.shape, "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
    }
    body = orjson.dumps(head)
    lines = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {len(body)}\r\nContent-Length: {len(body) + x.nbytes}\r\n\r\n"
    )
    before, _, after = (lines.encode() + body + x.tobytes()).partition(b"%d" % FIRST_ID)
    return before, after


class Client(asyncio.Protocol):
    """One connection, kept alive."""

    def __init__(self, requests: Requests, tally: Tally, until: float) -> None:
        self._requests, self._tally, self._until = iter(requests), tally, until
        self._buffer = b""
        self._sent_at = 0.0
        self._enough = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tally.errors += not self._enough
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _content_length(head):
            return
        self._buffer = b""  # one request at a time: nothing can follow
        now = time.perf_counter()
        self._tally.replies += 1
        self._tally.errors += not head.startswith(b"HTTP/1.1 200")
        self._tally.latencies.append(now - self._sent_at)
        if now < self._until:
            self._next()
        else:
            self._enough = True
            self._transport.close()

    def _next(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._requests))


def _content_length(head: bytes) -> int:
    return int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])


def load(address: str, requests: Requests, clients: int, seconds: float) -> tuple[float, Tally]:
    """Steps answered per second by `clients` connections at a time, and what they saw."""
    host, _, port = address.rpartition(":")

    async def run() -> tuple[float, Tally]:
        tally, loop, start = Tally(), asyncio.get_running_loop(), time.perf_counter()
        made = [await loop.create_connection(lambda: Client(requests, tally, start + seconds), host, int(port)) for _ in range(clients)]
        await asyncio.gather(*(protocol.ended for _, protocol in made))
        return tally.replies / (time.perf_counter() - start), tally

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())
