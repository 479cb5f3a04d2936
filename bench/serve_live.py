"""bench/serve.py's row of live sessions: do they get their answers in time, and up to how many of them?"""

import time
from statistics import median

import numpy as np

from bench import paced_load
from bench.asked import MANY, MODEL, OPEN, Asked, frames
from bench.figure import Figure
from bench.server import Server, echo, service

RATE, MESSAGE = 30, 5  # frames a second of a session, and frames of its message
LATE = 0.050  # seconds: p99 at most


def live(asked: Asked) -> list[Figure]:
    seen, bare = [], []
    with service(parent=asked.folder, env={"INDRNN_MAX_CONNECTIONS": str(max(4_096, asked.most + MANY))}) as server:
        with echo() as peer:
            for _ in asked.turns():
                bare.append(_live(asked, peer, "/echo", None, asked.sessions).percentile(99) * 1e3)
                seen.append(_live(asked, server, f"/stream/{MODEL}", OPEN, asked.sessions))
        limit, why = _limit(asked, server, all(_keeps_up(s) for s in seen))
    client, server_cpu = median(s.cpu for s in seen), median(s.server_cpu for s in seen)
    late = median(float(np.percentile(s.lateness, 99)) for s in seen) * 1e3
    said = f"echo p99 {median(bare):.1f} ms; the client sends {late:.1f} ms late (p99)"
    said += f"; cores used: client {client:.2f}, server {server_cpu:.2f}"
    details: dict[str, object] = {
        "echo_p99_ms": median(bare),
        "client_late_p99_ms": late,
        "client_cores": client,
        "server_cores": server_cpu,
    }
    details |= {"p50_ms": median(s.percentile(50) for s in seen) * 1e3, "messages": sum(s.sent for s in seen)}
    what = f"{asked.sessions:,} WebSocket sessions of {RATE} frames/s in messages of {MESSAGE}"
    p99 = Figure(
        "live_p99", f"{what}: p99", "ms", [s.percentile(99) * 1e3 for s in seen], LATE * 1e3, more=False, beside=said, details=details
    )
    dropped = Figure("live_dropped", "… messages answered with an error or not at all", "", [s.dropped for s in seen], 0, more=False)
    most = f"{limit * RATE / MESSAGE:,.0f} messages/s; {why}"
    return [p99, dropped, Figure("live_limit", "… the most sessions that it keeps up with", "sessions", [limit], beside=most)]


def _live(asked: Asked, server: Server, path: str, opening: object | None, sessions: int) -> paced_load.Seen:
    plan = paced_load.Plan(server, path, opening, frames(MESSAGE), sessions, MESSAGE / RATE, asked.seconds)
    return paced_load.load(plan, asked.processes)


def _keeps_up(seen: paced_load.Seen) -> bool:
    return seen.dropped == 0 and seen.percentile(99) <= LATE


def _limit(asked: Asked, server: Server, good: bool) -> tuple[int, str]:
    """The most sessions that it keeps up with, to a tenth, and what happens beyond."""
    low, high = (asked.sessions, 0) if good else (0, asked.sessions)
    why = f"{asked.sessions} were too many"
    while not high or high - low > max(1, high // 10):
        sessions = (low + high) // 2 if high else min(asked.most, low * 3 // 2 + 1)
        if (not high and low >= asked.most) or time.monotonic() > asked.until:
            return low, "more were not tried"
        seen = _live(asked, server, f"/stream/{MODEL}", OPEN, sessions)
        if _keeps_up(seen):
            low = sessions
        else:
            high = sessions
            why = f"at {sessions:,}: p99 {seen.percentile(99) * 1e3:.0f} ms, {seen.dropped} dropped, client {seen.cpu:.2f} cores"
    return low, why
