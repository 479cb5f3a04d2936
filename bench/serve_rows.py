"""The rows of bench/serve.py: each starts what it measures, and says what it found."""

import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import orjson

from bench import http_load, load_tool, websocket_load
from bench.asked import MANY, MODEL, OPEN, Asked, frames
from bench.figure import Figure
from bench.server import Server, echo, redis_server, service
from indrnn.service.engine.runtime import Engine, Row
from indrnn.service.store.record import CACHED_SESSIONS

SEQUENCE = 20  # steps of a sequence
CLIENTS = (1, 16, 64)
MEBI = 2**20


def milliseconds(latencies: Sequence[float]) -> dict[str, object]:
    p50, p99 = (np.percentile(latencies, [50, 99]) * 1e3).tolist() if latencies else (None, None)
    return {"p50_ms": p50, "p99_ms": p99}


# --- inference -----------------------------------------------------------------------------------------------------------------------


def inference(asked: Asked) -> list[Figure]:
    ours: dict[int, list[load_tool.Said]] = defaultdict(list)
    theirs: dict[int, list[load_tool.Said]] = defaultdict(list)
    errors = 0
    with service(parent=asked.folder) as server:
        for _ in asked.turns():
            for clients in CLIENTS:
                said, wrong = _infer(asked, f"127.0.0.1:{server.port}", clients)
                ours[clients].append(said)
                errors += wrong
                if asked.peer:
                    theirs[clients].append(_infer(asked, asked.peer, clients)[0])
    if asked.peer:
        asked.peer_at_many = median(s.per_second for s in theirs[MANY])
    return [_inferred(asked, clients, ours[clients], theirs[clients], errors) for clients in CLIENTS]


def _infer(asked: Asked, address: str, clients: int) -> tuple[load_tool.Said, int]:
    """What the load tool, or else our client, saw; and how many answers were errors (the tool stops at its first)."""
    if asked.load_tool:
        shape = "x:1,1,20,3"
        tool, libraries = asked.load_tool, asked.library_path
        return load_tool.measure(tool, libraries, address, MODEL, shape, clients, SEQUENCE, asked.seconds), 0
    x = np.array(frames(1), np.float32)[None, :, None]
    rate, tally = http_load.load(address, http_load.Requests(MODEL, x, SEQUENCE), clients, asked.seconds)
    p50, p99 = np.percentile(tally.latencies or [np.inf], [50, 99]).tolist()
    return load_tool.Said(rate, p50, p99), tally.errors


def _inferred(asked: Asked, clients: int, ours: list[load_tool.Said], theirs: list[load_tool.Said], errors: int) -> Figure:
    best = max(ours, key=lambda s: s.per_second)
    details = {"p50_ms": best.p50 * 1e3, "p99_ms": best.p99 * 1e3, "errors": errors}
    peer = median(s.per_second for s in theirs) if theirs else None
    said = f"p50 {best.p50 * 1e3:.2f} ms, p99 {best.p99 * 1e3:.2f} ms; "
    if peer is None:
        said += "no --peer to compare with"
    else:
        rival = max(theirs, key=lambda s: s.per_second)
        details |= {"peer": peer, "peer_p50_ms": rival.p50 * 1e3, "peer_p99_ms": rival.p99 * 1e3}
        said += f"peer {peer:,.0f}, p50 {rival.p50 * 1e3:.2f} ms, p99 {rival.p99 * 1e3:.2f} ms"
    said += f"; asked by {asked.load_tool.name if asked.load_tool else 'bench/http_load.py'}"
    what = f"Open Inference Protocol, HTTP, sequences of {SEQUENCE}, {clients} at a time"
    bar = peer if clients > 1 else None
    return Figure(f"inference_{clients}", what, "steps/s", [s.per_second for s in ours], bar, beside=said, details=details)


# --- stream --------------------------------------------------------------------------------------------------------------------------


def stream(asked: Asked) -> list[Figure]:
    message = websocket_load.steps(frames(1))
    echoed: list[float] = []
    served: list[float] = []
    best: list[float] = []
    errors, cpu = 0, []
    with echo() as bare, service(parent=asked.folder) as server:
        for _ in asked.turns():
            echoed.append(websocket_load.load(bare.port, "/echo", None, message, MANY, asked.seconds)[0])
            before = time.perf_counter(), time.process_time(), server.cpu_seconds()
            rate, tally = websocket_load.load(server.port, f"/stream/{MODEL}", OPEN, message, MANY, asked.seconds)
            after = time.perf_counter(), time.process_time(), server.cpu_seconds()
            cpu.append([(after[i] - before[i]) / (after[0] - before[0]) for i in (1, 2)])
            best = tally.latencies if rate > max(served, default=0) else best
            served.append(rate)
            errors += tally.errors
    floor = median(echoed)
    client, server_cpu = np.median(cpu, axis=0).tolist()
    bar = None if asked.peer_at_many is None else 2 * asked.peer_at_many
    said = f"a bare FastAPI echo {floor:,.0f}; " + ("no peer in this run" if bar is None else "bar: 2 × the peer's HTTP at 64")
    said += f"; cores used: client {client:.2f}, server {server_cpu:.2f}"
    details = {**milliseconds(best), "echo": floor, "client_cores": client, "server_cores": server_cpu, "errors": errors}
    what = f"WebSocket, {MANY} sessions, one frame a step, stored"
    return [Figure("stream_64", what, "steps/s", served, bar, beside=f"{said}; p99 {details['p99_ms']:.2f} ms", details=details)]


# --- batch ---------------------------------------------------------------------------------------------------------------------------


def batch(asked: Asked) -> list[Figure]:
    engine = Engine(asked.bundle, "cpu", threads=1, max_batch=MANY)
    x, N = np.array(frames(1), np.float32)[:, None], asked.bundle.manifest.state_size
    rows = [Row(x, np.full(N, 1e-3 * b, np.float32)) for b in range(MANY)]
    feeds = {"x": np.stack([r.x for r in rows]), "lengths": np.ones(MANY, np.int64), "state": np.stack([r.state for r in rows])}

    def one_by_one() -> None:
        for row in rows:
            engine.run([row])

    acts: list[Callable[[], object]] = [lambda: engine.run(rows), one_by_one, lambda: engine._session.run(None, feeds)]
    rates = [[MANY / _least(act, asked.seconds / len(acts)) for act in acts] for _ in asked.turns()]
    together, alone, bare = np.median(rates, axis=0).tolist()
    said = f"{together:,.0f} against {alone:,.0f} steps/s; the bare runtime with its inputs in place: {bare:,.0f}; one thread"
    details: dict[str, object] = {"batch": together, "alone": alone, "bare_runtime": bare, "kernel": engine.kernel}
    what = f"the engine, one batch of {MANY} against {MANY} runs of one"
    return [Figure("batch_64", what, "×", [r[0] / r[1] for r in rates], 5, beside=said, details=details)]


def _least(act: Callable[[], object], seconds: float) -> float:
    """Seconds of one call, the least seen: the machine may be shared."""
    act()
    end, least = time.perf_counter() + seconds, float("inf")
    while (start := time.perf_counter()) < end:
        act()
        least = min(least, time.perf_counter() - start)
    return least


# --- store ---------------------------------------------------------------------------------------------------------------------------


def store(asked: Asked) -> list[Figure]:
    kinds = ["SQLite", "Redis"] if shutil.which("redis-server") else ["SQLite"]
    return [_stored(asked, kind) for kind in kinds]


def _stored(asked: Asked, kind: str) -> Figure:
    seen = [_watched(asked, kind) for _ in asked.turns()]
    share = [100 * sum(r.in_store_ns) / sum(r.latencies_ns) for r in seen]
    own = [100 * r.own_ns / sum(r.latencies_ns) for r in seen]
    commits = np.array([c for r in seen for c in r.commits])
    p50, p99 = (np.percentile(commits[:, 1], [50, 99]) * 1e-6).tolist()
    rows = float(commits[:, 0].mean())
    floor = written(asked.folder, int(rows * asked.state_bytes), 100) * 1e3
    latency = median(float(np.median(r.latencies_ns)) for r in seen) * 1e-6
    said = (
        f"of {latency:.2f} ms (p50); its own batch's alone {median(own):.0f} %; commits of {rows:.0f} rows: p50 {p50:.2f}, p99 {p99:.2f} ms"
    )
    said += f"; writing as many bytes and fdatasync {floor:.2f} ms"
    details: dict[str, object] = {"own_percent": median(own), "commit_p50_ms": p50, "commit_p99_ms": p99, "rows_per_commit": rows}
    details |= {"fdatasync_ms": floor, "latency_in_server_p50_ms": latency, "errors": sum(r.errors for r in seen)}
    what = f"the store's share of received to replied, {MANY} sessions, {kind}"
    return Figure(f"store_{kind.lower()}", what, "%", share, 25, more=False, beside=said, details=details)


@dataclass(frozen=True)
class Watched:
    """The report of bench/_timed_service.py, where the fields are described, and errors among the answers."""

    commits: list[tuple[int, int]]
    own_ns: int
    latencies_ns: list[int]
    in_store_ns: list[int]
    errors: int


def _watched(asked: Asked, kind: str) -> Watched:
    """One run of the service that watches its store."""
    with tempfile.TemporaryDirectory() as folder, redis_server(asked.folder) if kind == "Redis" else nullcontext() as address:
        report = Path(folder) / "report"
        env = {} if address is None else {"INDRNN_STORE": address}
        with service("bench/_timed_service.py", str(report), parent=asked.folder, env=env) as server:
            message = websocket_load.steps(frames(1))
            _, tally = websocket_load.load(server.port, f"/stream/{MODEL}", OPEN, message, MANY, asked.seconds)
        seen = Watched(**orjson.loads(report.read_bytes()), errors=tally.errors)
    if len(seen.latencies_ns) != tally.replies:
        raise SystemExit(f"expected every answer to be timed: {len(seen.latencies_ns)} of {tally.replies} were")
    return seen


def written(parent: Path | None, size: int, times: int) -> float:
    """Seconds, the median, to append so many bytes to a file and have them on the disk."""
    with tempfile.NamedTemporaryFile(dir=parent) as file:
        took = []
        for _ in range(times):
            start = time.perf_counter()
            os.write(file.fileno(), bytes(size))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - start)
    return median(took)


# --- idle ----------------------------------------------------------------------------------------------------------------------------


def idle(asked: Asked) -> list[Figure]:
    """Memory is looked at three times.

    A process grows at first whatever comes (measured: 7 MB with the first 64 sessions, 3 MB with the next 64, evenly from 1,000 on), so
    the first look is after that; the second while the store's cache still takes every session, and the third far beyond.
    """
    message = websocket_load.steps(frames(1))
    errors, memory = 0, []
    with service(parent=asked.folder) as server:
        for before, upto in pairwise((0, *asked.idle)):
            errors += websocket_load.visit(server.port, f"/stream/{MODEL}", OPEN, message, upto - before, MANY).errors
            memory.append(_settled(server))
    grown = [(memory[i + 1] - memory[i]) / (asked.idle[i + 1] - asked.idle[i]) / asked.state_bytes for i in (0, 1)]
    said = ", ".join(f"{m / MEBI:.0f}" for m in memory) + f" MiB; its state is {asked.state_bytes:,} bytes"
    cached = f"the {CACHED_SESSIONS:,} sessions used last are kept in memory beside the store"
    first, few, many = asked.idle
    details: dict[str, object] = {"memory_bytes": memory, "state_bytes": asked.state_bytes, "errors": errors}
    what = f"memory per idle session without connection, from {first:,} to {few:,}"
    return [
        Figure("idle_few", what, "× state", grown[:1], 2, more=False, beside=said, details=details),
        Figure("idle_many", f"… from {few:,} to {many:,}", "× state", grown[1:], 2, more=False, beside=cached, details={"errors": errors}),
    ]


def _settled(server: Server) -> int:
    """Its memory once the last connections have been taken down."""
    before, end = 0, time.monotonic() + 5
    while (now := server.memory()) != before and time.monotonic() < end:
        before = now
        time.sleep(0.3)
    return now
