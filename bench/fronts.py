"""Steps a second of several ways to run the service, in turns, with the processor time of each process beside them.

python bench/fronts.py [--over websocket|http] [--seconds 1] [--rounds 6] [--sessions 64] [--fronts 0 1] [--shards 1] [--against FOLDER]

Over WebSockets, or as sequences of `/v2` over HTTP; one session alone (`--sessions 1`) tells what a step waits. Each way is a service of
its own, with a store of its own: so many fronts and shards, with commits on the engine thread and on the commit thread. The first of them,
another checkout's where a folder is given, is what the ratios are against. The client takes of the same cores.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench import http_load, websocket_load
from bench.asked import MODEL, OPEN, frames
from bench.engine_alone import processor_time
from bench.figure import Figure, say
from bench.serve_rows import SEQUENCE
from bench.server import Server, service


class Way:
    """A service that runs, what its rounds came to, and the processor time of its processes a step."""

    def __init__(self, what: str, server: Server) -> None:
        self.what = what
        self.rates: list[float] = []
        self.waits: list[float] = []  # median of a round, ms
        self.costs: dict[str, list[float]] = {}
        self._port = server.port
        self._processes = dict(_named([server.pid, *_children(server.pid)]))

    def round(self, over: str, sessions: int, seconds: float) -> None:
        """Step that many sessions for so long."""
        before = {name: processor_time(pid) for name, pid in self._processes.items()}
        if over == "http":
            asked = http_load.Requests(MODEL, np.asarray(frames(1), np.float32)[None, :, None], SEQUENCE)
            rate, tally = http_load.load(f"127.0.0.1:{self._port}", asked, sessions, seconds)
        else:
            rate, tally = websocket_load.load(self._port, f"/stream/{MODEL}", OPEN, websocket_load.steps(frames(1)), sessions, seconds)
        assert not tally.errors, f"{tally.errors} errors"
        self.rates.append(rate)
        self.waits.append(1e3 * median(tally.latencies))
        for name, pid in self._processes.items():
            self.costs.setdefault(name, []).append((processor_time(pid) - before[name]) / tally.replies * 1e6)


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def _named(pids: Sequence[int]) -> list[tuple[str, int]]:
    """Return processes by their names; the supervisor, which does nothing for a step, is left out."""
    if len(pids) == 1:
        return [("service", pids[0])]
    arguments = [(Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"), pid) for pid in pids[1:]]
    return [(words[words.index("indrnn.service.process") + 2], pid) for words, pid in arguments]


def figures_of(way: Way, first: Way) -> list[Figure]:
    """Return the figures of a way, and its ratio to the first."""
    costs = ", ".join(f"{name} {median(spent):.0f} µs" for name, spent in way.costs.items())
    found = [Figure(f"steps, {way.what}", way.what, "steps/s", way.rates, beside=f"processor time a step: {costs}")]
    if way is not first:
        ratios = [one / other for one, other in zip(way.rates, first.rates, strict=True)]
        found.append(Figure(f"ratio, {way.what}", f"… against {first.what}", "times", ratios))
        longer = [one / other for one, other in zip(way.waits, first.waits, strict=True)]
        found.append(Figure(f"wait, {way.what}", "… how long a step waits, p50", "times", longer, beside=f"{median(way.waits):.2f} ms"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--over", choices=("websocket", "http"), default="websocket")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--fronts", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--shards", type=int, nargs="+", default=[1], help="of services with fronts")
    parser.add_argument("--commit-thread", choices=("false", "true"), nargs="+", default=["false", "true"])
    parser.add_argument("--against", type=Path, help="a checkout that is measured in the same run, in as many ways as it has")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        ways = []
        for fronts in arguments.fronts:
            env = {"INDRNN_FRONTS": str(fronts)} if fronts else {}
            if arguments.against is not None and (not fronts or (arguments.against / "service" / "link").exists()):
                other = stack.enter_context(service(env=env, checkout=arguments.against))
                ways.append(Way(f"the other checkout, fronts {fronts}", other))
            for shards in arguments.shards if fronts else (1,):
                for aside in arguments.commit_thread:
                    more = {"INDRNN_SHARDS": str(shards), "INDRNN_COMMIT_THREAD": aside}
                    divided = f", shards {shards}" if shards > 1 else ""
                    ways.append(Way(f"fronts {fronts}{divided}, commit thread {aside}", stack.enter_context(service(env={**env, **more}))))
        for n in range(arguments.rounds):
            for way in ways if n % 2 == 0 else ways[::-1]:
                way.round(arguments.over, arguments.sessions, arguments.seconds)
    figures = [figure for way in ways for figure in figures_of(way, ways[0])]
    say(figures)


if __name__ == "__main__":
    main()
