"""The real service in a process of its own, and real recordings to send it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from redis_process import free_port
from replica_process import clean_environment, until_ready
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).parent.parent.parent
# Of what shows the same in several ways one is enough where time is short.
thorough = pytest.mark.skipif(os.environ.get("INDRNN_TEST_PAGE") == "some", reason="needs time: INDRNN_TEST_PAGE=some leaves it out")
VERSION = max((path.name for path in (ROOT / "bundles/action").iterdir()), key=int)  # of `action` where nobody asks for one
FRONTS = os.environ.get(
    "INDRNN_TEST_FRONTS", ""
)  # so many fronts, and a commit thread, for every service here, whose tests know nothing of them
SHARDS = os.environ.get("INDRNN_TEST_SHARDS", "1")  # so many shards, where there are fronts
CLASSES = len(json.loads((ROOT / "bundles/action" / VERSION / "manifest.json").read_text())["labels"])


@dataclass
class Server:
    """A running service; `restart` may be asked to kill it first."""

    folder: Path
    env: dict[str, str]
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    sockets: ExitStack = field(default_factory=ExitStack)
    arguments: tuple[str, ...] | list[str] = (sys.executable, "-m", "indrnn", "serve")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Server":
        self.port = free_port()
        log = (self.folder / "log").open("ab")
        fronts = {"INDRNN_FRONTS": FRONTS, "INDRNN_SHARDS": SHARDS, "INDRNN_COMMIT_THREAD": "true"} if FRONTS else {}
        own = {"INDRNN_STORE": str(self.folder / "sessions.db"), "INDRNN_PAGE": str(self.folder / "page")}  # not what `make page` left
        settings = {"PORT": str(self.port), **own, **fronts, **self.env}
        self.process = subprocess.Popen(self.arguments, cwd=ROOT, env=clean_environment(**settings), stderr=log, stdout=log)
        log.close()
        until_ready(self.url, self.process, self.log)
        return self

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def stop(self, how: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(30)
        self.sockets.close()
        return code

    def restart(self, how: int) -> "Server":
        self.stop(how)
        return self.start()

    def post(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60)

    def socket(self, model: str) -> AbstractContextManager[ClientConnection]:
        return connect(f"ws://127.0.0.1:{self.port}/stream/{model}", max_size=2**26, compression=None)

    def held_socket(self, model: str) -> ClientConnection:
        """A connection that stays open until it is dropped or the server stops."""
        return self.sockets.enter_context(self.socket(model))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One service for all tests that do not hurt it."""
    made = Server(tmp_path_factory.mktemp("server"), {}).start()
    yield made
    assert made.stop() in (0, -signal.SIGTERM), made.log()
    assert "Traceback" not in made.log()
    assert " ERROR " not in made.log(), "no client's doing is an error of the service"


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A service of the test's own, with settings."""
    made: list[Server] = []

    def start(**env: str) -> Server:
        made.append(Server(tmp_path, env).start())
        return made[-1]

    yield start
    for s in made:
        if s.process and s.process.poll() is None:
            s.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def clips() -> list[list[Any]]:
    """Some clips of UTD-MHAD's training subjects, as JSON lists."""
    path = Path(os.environ.get("INDRNN_DATA", "data")) / "skeleton" / "utd_mhad.npz"
    if not path.is_file():
        pytest.skip(f"needs {path} (set INDRNN_DATA)")
    with np.load(path) as data:
        mine = np.flatnonzero(np.isin(data["subject"], [1, 3, 5, 7]))[::37]
        return [data["x"][data["off"][i] : data["off"][i + 1]].tolist() for i in mine]


@pytest.fixture(scope="session")
def walk() -> list[Any]:
    """Sixty made-up frames of twenty joints that sway: for tests that need frames but no meaning."""
    rng = np.random.default_rng(0)
    body = rng.uniform(-0.8, 0.8, (20, 3)) + np.array([0, 0, 2.8])
    sway = 0.05 * np.sin(np.arange(60)[:, None, None] / 5 + rng.uniform(0, 6, (20, 3)))
    frames: list[Any] = (body + sway).round(4).tolist()
    return frames


def scores(prediction: dict[str, Any]) -> dict[str, float]:
    """Label -> score of a prediction that was asked for all of them."""
    return {t["label"]: t["score"] for t in prediction["top"]}
