"""Servers of one's own for a benchmark: started on a free port, their files thrown away."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

ROOT = Path(__file__).parent.parent
START_TIMEOUT = 60.0  # seconds
NONE: Mapping[str, str] = {}
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A process that answers on this port of 127.0.0.1. `folder`: where its files are while it runs."""

    port: int
    pid: int
    folder: Path

    def cpu_seconds(self) -> float:
        """Processor time of all its threads so far, in user mode and in the kernel."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> int:
        """Bytes of memory that it has in use (resident set)."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def many_files() -> None:
    """Lets this process, and those it starts, have as many connections as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def running(
    command: list[str],
    port: int,
    folder: Path,
    answers: Callable[[], bool] | None = None,
    env: Mapping[str, str] = NONE,
    checkout: Path = ROOT,
) -> Iterator[Server]:
    """A server process that answers /health/live on this port, or whatever `answers` asks; of another checkout's code if one is given."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=checkout, env={**os.environ, **env}, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not (answers or (lambda: _lives(port)))():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command[:3])} did not start:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield Server(port, process.pid, folder)
    finally:
        process.terminate()
        process.wait(30)


def _lives(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def service(*program: str, parent: Path | None = None, env: Mapping[str, str] = NONE, checkout: Path = ROOT) -> Iterator[Server]:
    """The service, or a program that is the service and something more; its store is in a new folder of `parent`.

    checkout: whose code it is; `-m` looks for modules in its folder first. Version 0.1.0 is started by a name of its own.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        settings = {"PORT": str(port), "INDRNN_STORE": f"{folder}/sessions.db", "INDRNN_LOG_LEVEL": "warning", **env}
        begin = ("-m", "indrnn", "serve") if (checkout / "indrnn").exists() else ("-m", "service")
        with running([sys.executable, *(program or begin)], port, Path(folder), env=settings, checkout=checkout) as server:
            yield server


@contextmanager
def echo() -> Iterator[Server]:
    """FastAPI without anything of ours: a WebSocket at /echo that sends back each text."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, running([sys.executable, "bench/_echo.py", str(port)], port, Path(folder)) as server:
        yield server


@contextmanager
def redis_server(parent: Path | None = None) -> Iterator[str]:
    """The address of a Redis as docs/store.md wants it. Needs redis-server."""
    program = shutil.which("redis-server")
    assert program, "asked for only where it is"
    port = free_port()
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        options = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--auto-aof-rewrite-min-size", "1gb", "--dir", folder]
        with running([program, "--port", str(port), "--bind", "127.0.0.1", *options], port, Path(folder), lambda: _pings(port)):
            yield f"redis://127.0.0.1:{port}/0"


def _pings(port: int) -> bool:
    try:
        with redis.Redis(port=port) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
