"""Many WebSocket sessions that send on their own clock, whatever the server does: does it keep up, and how late are its answers?

The sessions' phases are spread evenly over a period. A latency counts from the moment a message was due, not from when this client came
round to sending it: a server that stalls must not be asked less meanwhile. `lateness` says how much of that is the client's own.
"""

import asyncio
import multiprocessing
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import orjson
import uvloop
from numpy.typing import NDArray

from bench.server import Server, many_files
from bench.websocket_load import Connection, Message, steps, text_frame

PATIENCE = 5.0  # seconds after the last message; who has had no answer then gets none
BURST = 32  # messages sent in a row when it is late, before it looks at what came back
OPENING = 50  # connections that are being opened at a time


@dataclass(frozen=True)
class Plan:
    """What one process does. opening: the first message, None for a server without sessions; period: seconds between messages."""

    server: Server
    path: str
    opening: object | None
    frames: object
    sessions: int
    period: float
    seconds: float


@dataclass(frozen=True)
class Seen:
    """latencies and lateness in seconds; errors: answers that say so; missing: messages without an answer. Where a process found no place
    for all of its sessions it has sent nothing, and the sessions without one are among the errors.

    cpu, server_cpu: seconds of a core used per second, by the client and by the server's process, while messages were sent.
    """

    sent: int
    errors: int
    missing: int
    latencies: NDArray[np.float32]
    lateness: NDArray[np.float32]
    cpu: float
    server_cpu: float

    @property
    def dropped(self) -> int:
        return self.errors + self.missing

    def percentile(self, q: float) -> float:
        """Seconds; infinite where nothing was answered."""
        return float(np.percentile(self.latencies, q)) if len(self.latencies) else float("inf")

    @property
    def late(self) -> float:
        """Seconds that the client itself was late, p99; 0 where nothing was sent."""
        return float(np.percentile(self.lateness, 99)) if len(self.lateness) else 0.0


class NoPlace(Exception):
    """The server has no place for another session now: it has more than it keeps up with."""


class Session(Connection):
    """One connection; answers come in the order of the messages."""

    def __init__(self, path: str, opening: bytes | None, message: Message) -> None:
        super().__init__(path, opening)
        self._message = message
        self._due: deque[float] = deque()
        self.sent = self.errors = 0
        self.latencies: list[float] = []
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def opened(self) -> None:
        self.ready.set_result(None)

    def refused(self, expected: str, got: bytes) -> None:
        if b'"overloaded"' not in got:
            super().refused(expected, got)
        self.ready.set_exception(NoPlace(got[:200].decode("utf-8", "replace")))
        self.close()

    def answered(self, payload: bytes) -> None:
        self.errors += payload.startswith(b'{"type":"error"')
        self.latencies.append(time.perf_counter() - self._due.popleft())

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.ready.done():
            self.ready.set_exception(SystemExit(f"a connection was closed before it was open: {exc}"))

    def step(self, due: float) -> None:
        self.sent += 1
        self._due.append(due)
        if not self.ended.done():
            self.send(self._message(self.sent))

    @property
    def waits(self) -> bool:
        return bool(self._due) and not self.ended.done()


def load(plan: Plan, processes: int = 1) -> Seen:
    """The plan's sessions shared out among processes of their own."""
    shares = [plan.sessions // processes + (i < plan.sessions % processes) for i in range(processes)]
    plans = [Plan(**{**vars(plan), "sessions": share}) for share in shares if share]
    with ProcessPoolExecutor(len(plans), mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(_run, plans))
    return Seen(
        sum(p.sent for p in parts),
        sum(p.errors for p in parts),
        sum(p.missing for p in parts),
        np.concatenate([p.latencies for p in parts]),
        np.concatenate([p.lateness for p in parts]),
        sum(p.cpu for p in parts),
        max(p.server_cpu for p in parts),
    )


def _run(plan: Plan) -> Seen:
    many_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_follow(plan))


async def _follow(plan: Plan) -> Seen:
    sessions, without = await _open(plan)
    if without:
        for s in sessions:
            s.close()
        await asyncio.gather(*(s.ended for s in sessions))
        nothing = np.empty(0, np.float32)
        return Seen(0, without, 0, nothing, nothing, 0.0, 0.0)
    start, cpu, server_cpu = time.perf_counter(), time.process_time(), plan.server.cpu_seconds()
    lateness = await _pace(sessions, plan)
    took = time.perf_counter() - start
    shares = (time.process_time() - cpu) / took, (plan.server.cpu_seconds() - server_cpu) / took
    await _hear_out(sessions)
    seen = [len(s.latencies) for s in sessions]
    for s in sessions:
        s.close()
    await asyncio.gather(*(s.ended for s in sessions))
    sent = sum(s.sent for s in sessions)
    latencies = np.array([t for s, n in zip(sessions, seen, strict=True) for t in s.latencies[:n]], np.float32)
    return Seen(sent, sum(s.errors for s in sessions), sent - sum(seen), latencies, np.array(lateness, np.float32), *shares)


async def _hear_out(sessions: Sequence[Session]) -> None:
    """Waits for the last answers."""
    end = time.perf_counter() + PATIENCE
    while any(s.waits for s in sessions) and time.perf_counter() < end:  # noqa: ASYNC110  # events would cost every answer something
        await asyncio.sleep(0.01)


async def _open(plan: Plan) -> tuple[list[Session], int]:
    """Returns the plan's sessions, and for how many there was no place; after the first of these no more are tried."""
    loop = asyncio.get_running_loop()
    first = None if plan.opening is None else text_frame(orjson.dumps(plan.opening))
    message = steps(plan.frames)
    sessions: list[Session] = []
    while len(sessions) < plan.sessions:
        some = min(OPENING, plan.sessions - len(sessions))
        made = [
            await loop.create_connection(lambda: Session(plan.path, first, message), "127.0.0.1", plan.server.port) for _ in range(some)
        ]
        results = await asyncio.gather(*(s.ready for _, s in made), return_exceptions=True)
        if other := [e for e in results if e is not None and not isinstance(e, NoPlace)]:
            raise other[0]
        sessions += [s for (_, s), error in zip(made, results, strict=True) if error is None]
        if any(results):
            return sessions, plan.sessions - len(sessions)
    return sessions, 0


async def _pace(sessions: Sequence[Session], plan: Plan) -> list[float]:
    """Sends each message when it is due; how late each was sent."""
    gap = plan.period / len(sessions)
    lateness: list[float] = []
    start = time.perf_counter()
    for k in range(max(1, round(plan.seconds / plan.period)) * len(sessions)):
        due = start + k * gap
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        elif k % BURST == 0:
            await asyncio.sleep(0)
        lateness.append(time.perf_counter() - due)
        sessions[k % len(sessions)].step(due)
    return lateness
