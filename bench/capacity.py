"""What a step and a session cost the service and its store, and how much of both so many live sessions want.

python bench/capacity.py [--model action|chars] [--sessions 64] [--seconds 2] [--rounds 3] [--live 2000] [--store-folder FOLDER]

One process of the service on a Redis as docs/store.md wants it, and one on an SQLite file. Processor time is that of the service's process
and of Redis' main thread, for each step that 64 WebSockets take, each stored before its reply. `--live` sessions that were opened, stepped
once and left tell the bytes of one, and what counting them for /metrics costs. The plan of many sessions is worked out from these numbers,
by `wanted`, and not run. Without redis-server only SQLite is measured, and nothing is worked out.
"""

import argparse
import json
import math
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import orjson
import redis

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench import websocket_load
from bench.asked import OPEN, frames
from bench.engine_alone import processor_time
from bench.figure import Figure, table
from bench.server import Server, redis_server, service
from indrnn.service.http.metrics import CENSUS_AGE
from indrnn.service.store.redis import RedisStore

COUNTING = 0.05  # share of Redis' thread that a count for /metrics may take, once in CENSUS_AGE seconds
PLANS = ((1_000, 1.0), (1_000, 1 / 30), (100_000, 60.0), (100_000, 1.0), (10_000_000, 60.0), (10_000_000, 1.0))
"""live sessions, and seconds between the steps of one"""


class Cost(NamedTuple):
    """What was measured: microseconds of a step in the service and in Redis, bytes of a step in the log and of a session, and microseconds
    of Redis for each session that is counted."""

    service: float
    redis: float
    log: float
    session: float
    count: float


class Wanted(NamedTuple):
    """What many sessions want: steps and bytes of the log a second, services with a core each, groups, bytes of memory.

    A group is a Redis with its services.
    """

    steps: float
    services: int
    groups: int
    busy: float
    """share of Redis' thread in each group"""
    memory: float
    log: float
    first: str
    """what wants the most groups, where it is more than one"""


def wanted(live: int, every: float, cost: Cost) -> Wanted:
    """Return what so many live sessions want that step every so many seconds each."""
    steps = live / every
    threads = steps * cost.redis / 1e6
    counted = COUNTING * CENSUS_AGE * 1e6 / cost.count  # sessions of a group that has one service that is scraped
    by_steps, by_count = math.ceil(threads), math.ceil(live / counted)
    groups = max(1, by_steps, by_count)
    services = max(groups, math.ceil(steps * cost.service / 1e6))
    first = "none" if groups == 1 else "Redis' thread" if by_steps >= by_count else "the count for /metrics"
    return Wanted(steps, services, groups, threads / groups, live * cost.session, steps * cost.log, first)


def _message(model: str) -> websocket_load.Message:
    if model == "action":
        return websocket_load.steps(frames(1))
    return lambda n: websocket_load.text_frame(orjson.dumps({"type": "step", "step": n, "text": "e"}))


def _info(db: "redis.Redis") -> Mapping[str, Any]:
    """What Redis has done so far."""
    told: Any = db.info()
    commands: Any = db.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): numbers["calls"] for name, numbers in commands.items()}
    return {
        "cpu": told["used_cpu_user_main_thread"] + told["used_cpu_sys_main_thread"],
        "scripts": calls.get("evalsha", 0),
        "commands": sum(calls.values()) - calls.get("evalsha", 0),
        "sent": told["total_net_input_bytes"],
        "log": told["aof_current_size"],
        "memory": told["used_memory"],
    }


def _stepped(asked: argparse.Namespace, server: Server) -> tuple[int, float, float]:
    """Step for a round; the steps, how many a second, and the microseconds of the service's process for each."""
    before = processor_time(server.pid)
    path = f"/stream/{asked.model}"
    rate, tally = websocket_load.load(server.port, path, OPEN, _message(asked.model), asked.sessions, asked.seconds)
    assert not tally.errors, f"{tally.errors} errors"
    return tally.replies, rate, (processor_time(server.pid) - before) / tally.replies * 1e6


def _left(asked: argparse.Namespace, server: Server) -> None:
    """Open sessions, step each once, and leave them."""
    tally = websocket_load.visit(server.port, f"/stream/{asked.model}", OPEN, _message(asked.model), asked.live, asked.sessions)
    assert not tally.errors, f"{tally.errors} errors"


def on_redis(asked: argparse.Namespace) -> list[Figure]:
    """Measure a service on a Redis of its own."""
    found: dict[str, list[float]] = {}
    with redis_server(asked.store_folder) as address, closing(redis.Redis.from_url(address)) as db:
        with service(parent=asked.store_folder, env={"INDRNN_STORE": address}) as server:
            for _ in range(asked.rounds):
                before = _info(db)
                steps, rate, cost = _stepped(asked, server)
                after = _info(db)
                spent = {name: (after[name] - before[name]) / steps for name in before}
                found.setdefault("rate", []).append(rate)
                found.setdefault("service", []).append(cost)
                found.setdefault("redis", []).append(spent["cpu"] * 1e6)
                for name in ("scripts", "commands", "sent", "log"):
                    found.setdefault(name, []).append(spent[name])
            before = _info(db)
            _left(asked, server)
            found["session"] = [(_info(db)["memory"] - before["memory"]) / asked.live]
        with closing(RedisStore(address)) as store:
            for _ in range(asked.rounds):
                before, own = _info(db), time.process_time()
                counted = sum(one.sessions for one in store.census(time.time()))
                found.setdefault("counted_here", []).append((time.process_time() - own) / counted * 1e6)
                found.setdefault("counted", []).append((_info(db)["cpu"] - before["cpu"]) / counted * 1e6)
    return _figures("Redis", _OF_REDIS, found)


_OF_REDIS = {
    "rate": ("steps, one process", "steps/s"),
    "service": ("processor time of the service a step", "µs"),
    "redis": ("processor time of Redis' main thread a step", "µs"),
    "scripts": ("scripts a step", ""),
    "commands": ("commands a step, those in scripts among them", ""),
    "sent": ("bytes to Redis a step", "bytes"),
    "log": ("bytes of the append-only file a step", "bytes"),
    "session": ("bytes of memory a session", "bytes"),
    "counted": ("processor time of Redis a session counted", "µs"),
    "counted_here": ("… of the service", "µs"),
}
_OF_SQLITE = {
    "rate": ("steps, one process", "steps/s"),
    "service": ("processor time of the service a step", "µs"),
    "session": ("bytes of the file a session", "bytes"),
}


def on_sqlite(asked: argparse.Namespace) -> list[Figure]:
    """Measure a service on a file of its own."""
    found: dict[str, list[float]] = {"rate": [], "service": []}
    with service(parent=asked.store_folder) as server:
        for _ in range(asked.rounds):
            _, rate, cost = _stepped(asked, server)
            found["rate"].append(rate)
            found["service"].append(cost)
        before = _size(server.folder / "sessions.db")
        _left(asked, server)
        found["session"] = [(_size(server.folder / "sessions.db") - before) / asked.live]
    return _figures("SQLite", _OF_SQLITE, found)


def _size(path: Path) -> int:
    """Bytes of the file as it is once its log is copied into it."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
    return int((pages - free) * size)


def _figures(store: str, words: Mapping[str, tuple[str, str]], found: Mapping[str, Sequence[float]]) -> list[Figure]:
    more = {"rate"}
    return [Figure(f"{store}_{name}", f"{store}: {what}", unit, found[name], more=name in more) for name, (what, unit) in words.items()]


def plan(cost: Cost) -> str:
    """What live sessions want, for people."""
    head = f"of a core: the service {1e6 / cost.service:,.0f} steps/s, Redis {1e6 / cost.redis:,.0f}; worked out from these, not run:"
    lines = [head, "live sessions, each a step    steps/s  services  groups  a Redis    memory       log    first bottleneck"]
    for live, every in PLANS:
        w = wanted(live, every, cost)
        paced = f"{live:,} every {every:.3g} s"
        row = f"{paced:26} {w.steps:10,.0f} {w.services:9,} {w.groups:7,} {w.busy:8.0%} {w.memory / 1e9:6,.2f} GB {w.log / 1e6:7,.0f} MB/s"
        lines.append(f"{row}  {w.first}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("action", "chars"), default="action")
    parser.add_argument("--sessions", type=int, default=64, help="that step at a time")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--live", type=int, default=2_000, help="sessions that are opened, stepped once and left")
    parser.add_argument("--store-folder", type=Path, metavar="FOLDER", help="on which disk stores are made; the temporary folder's")
    asked = parser.parse_args()
    figures = on_sqlite(asked)
    on = on_redis(asked) if shutil.which("redis-server") else []
    print(table([*figures, *on]))
    by_name = {f.name: f for f in on}
    if on:
        cost = Cost(*(median(by_name[f"Redis_{name}"].rounds) for name in ("service", "redis", "log", "session", "counted")))
        print(plan(cost))
    print(json.dumps({"model": asked.model, "cores": os.cpu_count(), **{f.name: f.json() for f in (*figures, *on)}}))


if __name__ == "__main__":
    main()
