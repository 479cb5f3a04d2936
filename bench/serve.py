"""What does the service do on this machine, clients included, beside its peers and the floor?

python bench/serve.py [--only inference|stream|batch|store|live|idle …] [--seconds 5] [--rounds 3] [--max-time 900]
                      [--peer HOST:PORT] [--against FOLDER] [--load-tool PATH/perf_analyzer [--library-path FOLDER]]

inference  steps per second over the Open Inference Protocol: HTTP, binary tensors, sequences of 20, one frame per step, each stored
           before it is answered; 1, 16 and 64 at a time. --peer: a running server of that protocol with the same file as model `action`,
           measured in turns. Asked by Triton's load tool where --load-tool names it, else by bench/http_load.py
stream     steps per second of 64 WebSocket sessions, one numbered frame per step, stored; beside it a bare FastAPI echo of the messages
batch      one batch of 64 sessions against 64 runs of one, in the engine alone
store      the store's share of the time from message received to reply sent, 64 sessions, SQLite and (if redis-server is there) Redis:
           time during which the engine thread was in the store, for this step or for another it waited for (bench/_timed_service.py);
           and how long a commit takes. Beside it a write and fdatasync of as many bytes
live       sessions of 30 frames a second in messages of 5, phases spread, sent on their own clock from processes of their own: p99 of
           the latency from when a message was due, answers that are errors or missing; then more sessions until p99 > 50 ms, one is, or
           there is no place for one. --against: another checkout's service in turns with this one, and the ratios
idle       memory of the process per session that was opened, stepped once and left, in multiples of its state: while the store's cache
           takes all of them, and beyond

Best and median of the rounds; the median has to clear the bar. A row that would begin after --max-time is left out, and says so.
"""

import argparse
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench import serve_live, serve_rows
from bench.asked import MODEL, Asked
from bench.figure import Figure, table
from bench.server import many_files
from indrnn.kernels.registered import registered

ROWS: dict[str, Callable[[Asked], list[Figure]]] = {
    "inference": serve_rows.inference,
    "stream": serve_rows.stream,
    "batch": serve_rows.batch,
    "store": serve_rows.store,
    "live": serve_live.live,
    "idle": serve_rows.idle,
}


def environment(folder: Path | None) -> dict[str, object]:
    """What the figures depend on."""
    redis = shutil.which("redis-server")
    said = subprocess.run([redis, "--version"], capture_output=True, text=True, check=True).stdout.split() if redis else []
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in ("onnxruntime", "uvicorn", "websockets", "redis") if _there(name)},
        "sqlite": sqlite3.sqlite_version,
        "redis_server": next((word[2:] for word in said if word.startswith("v=")), None),
        "kernel": "fused" if registered() else "loop",
        "store_filesystem": file_system(folder or Path(tempfile.gettempdir())),
    }


def _there(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:  # onnxruntime-gpu in its place
        return False


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def file_system(folder: Path) -> str:
    """Its kind: a commit on tmpfs reaches no disk, and its time means nothing."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max((m for m in mounts if folder.resolve().is_relative_to(m[0])), key=lambda m: len(m[0]))[1]


def measure(asked: Asked, rows: Sequence[str], max_time: float) -> tuple[list[Figure], list[str]]:
    """The figures, and the rows that there was no time for. What is left of the time is shared out evenly among the rows to come."""
    end = time.monotonic() + max_time
    figures: list[Figure] = []
    for i, row in enumerate(rows):
        left = end - time.monotonic()
        if left <= 0:
            return figures, list(rows[i:])
        asked.until = time.monotonic() + left / (len(rows) - i)
        print(f"{row} …", file=sys.stderr, flush=True)
        figures += ROWS[row](asked)
    return figures, []


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seconds", type=float, default=5, help="of one measurement; with --load-tool of one of its windows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-time", type=float, default=900, help="seconds after which nothing more is begun")
    parser.add_argument("--peer", metavar="HOST:PORT", help="another server of the Open Inference Protocol with a model `action`")
    parser.add_argument("--load-tool", type=Path, metavar="PATH", help="Triton's perf_analyzer")
    parser.add_argument("--library-path", type=Path, metavar="FOLDER", help="where the load tool finds its libraries (libcudart)")
    parser.add_argument("--store-folder", type=Path, metavar="FOLDER", help="on which disk stores are made; the temporary folder's")
    parser.add_argument("--sessions", type=int, default=1_000, help="of live; the bar is for 1,000")
    parser.add_argument("--most-sessions", type=int, default=8_000, help="that live goes up to")
    parser.add_argument("--processes", type=int, default=1, help="that the client of live has")
    parser.add_argument("--idle", type=int, nargs=3, default=(1_000, 4_000, 20_000), metavar="N", help="sessions after which idle looks")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout, whose service live measures too, in turns")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    many_files()
    about = environment(args.store_folder)
    rows = [row for row in ROWS if row in args.only]
    asked = Asked(
        args.seconds,
        args.rounds,
        0,
        args.store_folder,
        args.peer,
        args.load_tool,
        args.library_path,
        args.sessions,
        args.most_sessions,
        args.processes,
        (args.idle[0], args.idle[1], args.idle[2]),
        args.against,
    )
    figures, left_out = measure(asked, rows, args.max_time)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"client and server share the cores; up to {args.rounds} rounds of {args.seconds:g} s; model {MODEL}, one thread a run")
    print(table(figures))
    if left_out:
        print(f"no time for: {', '.join(left_out)}")
    found = {f.name: f.json() for f in figures}
    options = {"seconds": args.seconds, "rounds": args.rounds, "load_tool": args.load_tool and args.load_tool.name}
    print(orjson.dumps({"serve": {"figures": found, "left_out": left_out, "environment": about, "options": options}}).decode())


if __name__ == "__main__":
    main()
