"""How long does a commit take, beside fdatasync of as many bytes, and how late are those that a checkpoint holds up?

python bench/commit.py [--rows 32] [--sessions 128 2000] [--commits 1500] [--folder FOLDER] [--against FOLDER]

One thread commits steps of sessions drawn at random to an SQLite file, its states of the size of `action`. After each commit as many bytes
as it wrote are written to a file that is long enough, and fdatasync'ed. The commits of another checkout are made in turns with these, by
a child, where a folder is given. Processor time is of the thread that commits, a row.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

sys.path.append(str(Path(__file__).parent.parent))  # last: a child's PYTHONPATH says whose code it commits with
from bench.figure import Figure, say
from indrnn.service.session.machine import Scores, Session, Step
from indrnn.service.store.protocol import Change
from indrnn.service.store.sqlite import SQLiteStore

HERE = Path(__file__).parent.parent
STATE, LOGITS = 1_528, 54  # numbers of a session of `action`
BLOCK = 100  # commits of one side before the other's
LAST = 400  # bytes of a row beside its state


def committed(store: SQLiteStore, sessions: list[Session], commits: int, rows: int, floor: Path) -> dict[str, list[float]]:
    """Commit so many times, and return the milliseconds of each commit, of fdatasync after it, and the processor time a row in µs."""
    rng = np.random.default_rng(secrets.randbits(32))
    took: list[float] = []
    synced: list[float] = []
    cost = 0.0
    some = rng.normal(size=STATE).astype(np.float32).tobytes()
    nothing = np.zeros(0, np.float32)
    size = rows * (len(some) + LAST)
    with floor.open("r+b") as file:
        for _ in range(commits):
            changes = []
            for i in rng.choice(len(sessions), rows, replace=False).tolist():
                before = sessions[i]
                state = np.frombuffer(secrets.token_bytes(8) + some[8:], np.float32)
                last = Step(secrets.token_bytes(16), Scores(state[-LOGITS:], nothing.reshape(0, LOGITS), nothing))
                sessions[i] = before._replace(state=state, step=before.step + 1, position=before.position + 1, last=last)
                changes.append(Change(before, sessions[i]))
            spent, begun = time.thread_time(), time.perf_counter()
            lost = store.commit(changes)
            took.append((time.perf_counter() - begun) * 1e3)
            cost += time.thread_time() - spent
            assert not lost
            begun = time.perf_counter()
            os.pwrite(file.fileno(), bytes(size), 0)
            os.fdatasync(file.fileno())
            synced.append((time.perf_counter() - begun) * 1e3)
    return {"commit": took, "fdatasync": synced, "cost": [cost / commits / rows * 1e6]}


def serve(folder: Path, count: int, rows: int) -> None:
    """Commit whenever a line with a number comes, and write what it took as a line of JSON."""
    store, floor = SQLiteStore(folder / "s.db"), folder / "floor"
    floor.write_bytes(bytes(rows * (4 * STATE + LAST)))
    now, zeros = time.time(), np.zeros(STATE, np.float32)
    sessions = [Session(secrets.token_urlsafe(21), "action", "1", "d" * 64, "", zeros, 0, 0, now + i, now + 9e4) for i in range(count)]
    for at in range(0, count, 50):
        store.commit([Change(None, one) for one in sessions[at : at + 50]])
    committed(store, sessions, max(2 * count, 9_000) // rows, rows, floor)  # each session has been stored, and the log has its length
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(committed(store, sessions, int(line), rows, floor)), flush=True)
    store.close()


class Side:
    """A process that commits with one checkout's code."""

    def __init__(self, code: Path, folder: str, count: int, rows: int) -> None:
        command = [sys.executable, __file__, "--child", folder, "--sessions", str(count), "--rows", str(rows)]
        env = {**os.environ, "PYTHONPATH": str(code)}
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.blocks: list[dict[str, list[float]]] = []

    def block(self, commits: int) -> None:
        """Have it commit so many times."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(commits, file=self.process.stdin, flush=True)
        self.blocks.append(json.loads(self.process.stdout.readline()))

    def all(self, what: str) -> list[float]:
        """Return what was found of one kind, of all blocks."""
        return [value for block in self.blocks for value in block[what]]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def figures_of(side: Side, title: str, rows: int, count: int) -> list[Figure]:
    """Return the figures of one side."""
    what = f"{title}: {rows} rows of {count:,} sessions"
    p99 = float(np.percentile(side.all("commit"), 99))
    ratios = [median(block["commit"]) / median(block["fdatasync"]) for block in side.blocks]
    said = f"p50 {median(side.all('commit')):.2f} ms; fdatasync of as many bytes {median(side.all('fdatasync')):.2f} ms"
    return [
        Figure(f"commit_{title}_{count}", what, "× fdatasync", ratios, 3.5, more=False, beside=said),
        Figure(f"commit_p99_{title}_{count}", "… p99 of a commit", "ms", [p99], 8, more=False),
        Figure(f"commit_cost_{title}_{count}", "… processor time a row", "µs", side.all("cost"), more=False),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--sessions", type=int, nargs="+", default=[128, 2_000])
    parser.add_argument("--commits", type=int, default=1_500)
    parser.add_argument("--folder", type=Path, help="where the files are made; the temporary folder's disk by default")
    parser.add_argument("--against", type=Path, help="a checkout whose store is measured in the same run")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        serve(arguments.child, arguments.sessions[0], arguments.rows)
        return
    figures: list[Figure] = []
    for count in arguments.sessions:
        figures += compare(arguments, count)
    say(figures)


def compare(arguments: argparse.Namespace, count: int) -> Sequence[Figure]:
    """Measure one number of sessions."""
    codes = {"here": HERE} if arguments.against is None else {"other": arguments.against, "here": HERE}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        sides = {}
        for title, code in codes.items():
            own = Path(folder) / title
            own.mkdir()
            sides[title] = Side(code, str(own), count, arguments.rows)
        for _ in range(-(-arguments.commits // BLOCK)):
            for side in sides.values():
                side.block(BLOCK)
        for side in sides.values():
            side.close()
    found = [figure for title, side in sides.items() for figure in figures_of(side, title, arguments.rows, count)]
    if "other" in sides:
        other, here = (sides[title].blocks for title in ("other", "here"))
        costs = [one["cost"][0] / two["cost"][0] for one, two in zip(here, other, strict=True)]
        found.append(Figure(f"commit_cost_ratio_{count}", "… processor time against the other checkout", "times", costs, more=False))
    return found


if __name__ == "__main__":
    main()
