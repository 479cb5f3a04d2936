"""python bench/_timed_service.py REPORT: the service, with a watch on its store and on the way of each message through it.

For every step over WebSocket: the time from the bytes that completed it being read to its reply being written, and how much of that time
the engine thread was in the store, for this step's batch or for the one before that it had to wait for. So the store's share is of what
a client waits for and not of what the machine does, and waiting for another's commit counts. What is added is two readings of a clock.

The engine thread's time in `load` and `commit` is by the wall: waiting for the disk, or for the interpreter lock after it, is the store's.
Of two models that step at once the times would mix; a benchmark steps one. The report is written, as JSON, when the store is closed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson

sys.path.insert(0, str(Path(__file__).parent.parent))
from indrnn.service import command, process
from indrnn.service.serving import backend
from indrnn.service.session.machine import Session
from indrnn.service.session.shard import UNDIVIDED, Shard
from indrnn.service.store.address import open_store
from indrnn.service.store.protocol import Change, Durability, Store
from indrnn.service.wire.websocket import Wire

Moment = tuple[int, int]  # nanoseconds in the store so far; since when it is in there, or 0: one tuple, which another thread reads whole


class Watch:
    """What has been seen so far. The engine thread writes `_moment`, `commits` and `own`; the event loop writes the rest."""

    def __init__(self) -> None:
        self._moment: Moment = (0, 0)
        self.commits: list[tuple[int, int]] = []
        """rows and nanoseconds of each commit of steps"""
        self.own = 0
        """nanoseconds of loads and commits, times the steps that waited for each as their own"""
        self.latencies: list[int] = []
        self.in_store: list[int] = []

    def enter(self) -> None:
        self._moment = self._moment[0], time.perf_counter_ns()

    def leave(self) -> int:
        before, since = self._moment
        took = time.perf_counter_ns() - since
        self._moment = before + took, 0
        return took

    def in_store_until(self, now: int) -> int:
        before, since = self._moment
        return before + (max(0, now - since) if since else 0)

    def report(self) -> dict[str, object]:
        return {"commits": self.commits, "own_ns": self.own, "latencies_ns": self.latencies, "in_store_ns": self.in_store}


WATCH = Watch()


class TimedStore:
    """A store whose loads and commits of steps are timed."""

    def __init__(self, store: Store, report: Path) -> None:
        self._store, self._report = store, report

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def load(self, ids: Sequence[str]) -> dict[str, Session]:
        WATCH.enter()
        try:
            return self._store.load(ids)
        finally:
            WATCH.own += WATCH.leave() * len(ids)

    def commit(self, changes: Sequence[Change]) -> frozenset[str]:
        if any(c.before is None for c in changes):  # sessions that are opened
            return self._store.commit(changes)
        WATCH.enter()
        try:
            return self._store.commit(changes)
        finally:
            took = WATCH.leave()
            WATCH.own += took * len(changes)
            WATCH.commits.append((len(changes), took))

    def close(self) -> None:
        self._report.write_bytes(orjson.dumps(WATCH.report()))
        self._store.close()


class TimedWire(Wire):
    """A connection with at most one message on its way."""

    _read: tuple[int, int] = (0, 0)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter_ns()
        self._read = now, WATCH.in_store_until(now)
        super().data_received(data)

    def write_text(self, payload: bytes) -> None:
        super().write_text(payload)
        now = time.perf_counter_ns()
        began, in_store = self._read
        WATCH.latencies.append(now - began)
        WATCH.in_store.append(WATCH.in_store_until(now) - in_store)


def main() -> int:
    report = Path(sys.argv.pop())

    def timed(address: str, durability: Durability = "strict", shard: Shard = UNDIVIDED) -> Any:
        return TimedStore(open_store(address, durability, shard), report)

    with patch.object(backend, "open_store", timed), patch.object(process, "Wire", TimedWire):
        return command.run("serve", argparse.Namespace(), [])


if __name__ == "__main__":
    sys.exit(main())
