"""bench/serve.py's row of live sessions: do they get their answers in time, and up to how many of them?"""

import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from statistics import median

from bench import paced_load
from bench.asked import MANY, MODEL, OPEN, Asked, frames
from bench.figure import Figure
from bench.server import ROOT, Server, echo, service

RATE, MESSAGE = 30, 5  # frames a second of a session, and frames of its message
LATE = 0.050  # seconds: p99 at most


def live(asked: Asked) -> list[Figure]:
    """The row; with another checkout its service is measured too, in turns with this one."""
    seen, bare, others = [], [], []
    with ExitStack() as stack:
        server = stack.enter_context(_service(asked))
        other = None if asked.against is None else stack.enter_context(_service(asked, asked.against))
        with echo() as peer:
            for _ in asked.turns():
                bare.append(_live(asked, peer, "/echo", None, asked.sessions).percentile(99) * 1e3)
                seen.append(_on(asked, server, asked.sessions))
                if other is not None:
                    others.append(_on(asked, other, asked.sessions))
        search = Search(asked, server, all(_keeps_up(s) for s in seen))
        against = None if other is None else Search(asked, other, all(_keeps_up(s) for s in others))
        while not search.ended or (against is not None and not against.ended):
            search.look()
            if against is not None:
                against.look()
    figures = _figures(asked, seen, bare, search)
    return figures if against is None else [*figures, *_compared(seen, others, search, against)]


def _service(asked: Asked, checkout: Path = ROOT) -> AbstractContextManager[Server]:
    return service(parent=asked.folder, env={"INDRNN_MAX_CONNECTIONS": str(max(4_096, asked.most + MANY))}, checkout=checkout)


def _figures(asked: Asked, seen: list[paced_load.Seen], bare: list[float], search: "Search") -> list[Figure]:
    client, server_cpu = median(s.cpu for s in seen), median(s.server_cpu for s in seen)
    late = median(s.late for s in seen) * 1e3
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
    most = f"{search.low * RATE / MESSAGE:,.0f} messages/s; {search.why}"
    return [p99, dropped, Figure("live_limit", "… the most sessions that it keeps up with", "sessions", [search.low], beside=most)]


def _compared(seen: list[paced_load.Seen], others: list[paced_load.Seen], search: "Search", against: "Search") -> list[Figure]:
    beside = f"the other checkout: {against.low:,} sessions; {against.why}"
    limit = Figure("live_limit_ratio", "… against the other checkout's", "times", [search.low / max(1, against.low)], beside=beside)
    p99 = [one.percentile(99) / other.percentile(99) for one, other in zip(seen, others, strict=True)]
    return [limit, Figure("live_p99_ratio", "p99 against the other checkout's", "times", p99, more=False)]


def _on(asked: Asked, server: Server, sessions: int) -> paced_load.Seen:
    return _live(asked, server, f"/stream/{MODEL}", OPEN, sessions)


def _live(asked: Asked, server: Server, path: str, opening: object | None, sessions: int) -> paced_load.Seen:
    plan = paced_load.Plan(server, path, opening, frames(MESSAGE), sessions, MESSAGE / RATE, asked.seconds)
    return paced_load.load(plan, asked.processes)


def _keeps_up(seen: paced_load.Seen) -> bool:
    return seen.dropped == 0 and seen.percentile(99) <= LATE


class Search:
    """Looks for the most sessions that a service keeps up with, to a tenth: `low`, and `why` not more."""

    def __init__(self, asked: Asked, server: Server, good: bool) -> None:
        self.low, self._high = (asked.sessions, 0) if good else (0, asked.sessions)
        self.why = f"{asked.sessions} were too many"
        self.ended = False
        self._asked, self._server = asked, server

    def look(self) -> None:
        """Try another number of sessions, unless it is known."""
        low, high = self.low, self._high
        if self.ended or (high and high - low <= max(1, high // 10)):
            self.ended = True
            return
        if (not high and low >= self._asked.most) or time.monotonic() > self._asked.until:
            self.why, self.ended = "more were not tried", True
            return
        sessions = (low + high) // 2 if high else min(self._asked.most, low * 3 // 2 + 1)
        seen = _on(self._asked, self._server, sessions)
        if _keeps_up(seen):
            self.low = sessions
        else:
            self._high = sessions
            self.why = f"at {sessions:,}: p99 {seen.percentile(99) * 1e3:.0f} ms, {seen.dropped} dropped, client {seen.cpu:.2f} cores"
            if not seen.sent:
                self.why = f"at {sessions:,}: there was no place for {seen.errors} of them"
