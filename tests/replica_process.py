"""A service on a port of its own that is killed and started again there, as one of several on one Redis."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from redis_process import free_port

ROOT = Path(__file__).parent.parent
SERVE = ("-m", "indrnn", "serve")


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment without settings of the service, but with these."""
    return {k: v for k, v in os.environ.items() if not k.startswith("INDRNN_") and k not in ("HOST", "PORT")} | settings


def until_ready(url: str, process: "subprocess.Popen[bytes]", log: Callable[[], str]) -> None:
    """Wait until a service that was started is ready."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health/ready", timeout=5).status_code == 200:
                return
        time.sleep(0.02)  # asking without a rest takes a processor from the service that starts
    raise AssertionError(f"the service did not start:\n{log()}")


@dataclass
class Replica:
    """A process of the service; `command` and `checkout` may be another release's."""

    folder: Path
    env: Mapping[str, str]
    command: Sequence[str] = SERVE
    checkout: Path = ROOT
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, wait: bool = True) -> "Replica":
        """Start it, and wait until it is ready."""
        settings = {"PORT": str(self.port), "INDRNN_POLL": "0", "PYTHONPATH": str(self.checkout), **self.env}
        env = clean_environment(**settings)
        with (self.folder / f"log-{self.port}").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, *self.command], cwd=self.checkout, env=env, stdout=log, stderr=log)
        return self.ready() if wait else self

    def ready(self) -> "Replica":
        """Wait until it is ready."""
        assert self.process is not None
        until_ready(self.url, self.process, self.log)
        return self

    def stop(self, how: int = signal.SIGTERM) -> int:
        """End it by a signal."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(30)

    def kill(self) -> None:
        """End it, whatever it does, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)

    def log(self) -> str:
        return (self.folder / f"log-{self.port}").read_text()
