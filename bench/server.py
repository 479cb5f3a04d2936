"""A service of one's own for a benchmark: started on a free port with a store that is thrown away."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, **env: str) -> Iterator[None]:
    """A server process that answers /health/live on this port."""
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise SystemExit("the server did not start")
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def service(**env: str) -> Iterator[int]:
    """The service; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"PORT": str(port), "INDRNN_STORE": f"{folder}/sessions.db", "INDRNN_LOG_LEVEL": "warning", **env}
        with running([sys.executable, "-m", "service"], port, **settings):
            yield port
