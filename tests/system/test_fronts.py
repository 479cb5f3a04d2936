"""A service of two fronts and an engine's process, each killed under load: nothing is lost, nothing comes twice."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import orjson
import pytest
from conftest import Server

from indrnn.service.store.protocol import StoreError
from indrnn.service.store.sqlite import SQLiteStore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
CLIENTS, STEPS = 6, 40
HANG = 4.0


def until(true: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


class Processes(Server):
    """The service, whose processes can be told apart."""

    def pids(self) -> dict[str, int]:
        """Every child, by its name."""
        assert self.process is not None
        found = {}
        for child in _children(self.process.pid):
            try:
                arguments = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
            except FileNotFoundError:  # it has ended since
                continue
            if "indrnn.service.process" in arguments:
                found[arguments[arguments.index("indrnn.service.process") + 2]] = child
        return found

    def kill(self, name: str, how: int = signal.SIGKILL) -> int:
        pid = self.pids()[name]
        os.kill(pid, how)
        return pid

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def is_whole(self) -> bool:
        """Whether all processes are there, and the service is ready."""
        return set(self.pids()) == {"engine", "front-0", "front-1"} and self.ready()

    def whole(self) -> Self:
        """The service, started again where a test has ended it, with all its processes."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        until(self.is_whole)
        return self

    @contextmanager
    def to_the_end(self) -> Iterator[Self]:
        """The service for all tests of a file, in whatever order they run."""
        yield self
        if self.process is not None and self.process.poll() is None:
            self.stop()
        assert "Traceback" not in self.log()


def state_of(pid: int) -> str:
    """What a process does, as the system says it: T stands still, Z has ended; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    settings = {"INDRNN_FRONTS": "2", "INDRNN_COMMIT_THREAD": "true", "INDRNN_HANG_TIMEOUT": str(HANG), "INDRNN_POLL": "0"}
    with Processes(tmp_path_factory.mktemp("fronts"), settings).to_the_end() as made:
        yield made


@pytest.fixture
def server(service: Processes) -> Processes:
    return service.whole()


class Client(threading.Thread):
    """Steps one session with numbers, each sent again until it is answered, and keeps every answer."""

    def __init__(self, server: Server, texts: list[str]) -> None:
        super().__init__()
        self.server, self.texts = server, texts
        self.answers: list[dict[str, Any]] = []
        self.again = 0
        self.session: str = server.post("/sessions", {"model": "chars"}).json()["session_id"]

    def run(self) -> None:
        until_then = time.monotonic() + 120
        while len(self.answers) < len(self.texts):
            assert time.monotonic() < until_then
            n = len(self.answers)
            try:
                self._converse(n)
            except (OSError, EOFError):
                self.again += 1
                time.sleep(0.02)

    def _converse(self, n: int) -> None:
        from websockets.exceptions import WebSocketException

        try:
            with self.server.socket("chars") as ws:
                ws.send(orjson.dumps({"type": "open", "session_id": self.session}).decode())
                opened = orjson.loads(ws.recv(timeout=10))
                assert opened["type"] == "opened" or opened["code"] in ("store_failed", "overloaded", "stopping"), opened
                if opened["type"] != "opened":
                    raise EOFError
                while len(self.answers) < len(self.texts):
                    n = len(self.answers)
                    ws.send(orjson.dumps({"type": "step", "step": n + 1, "text": self.texts[n]}).decode())
                    reply = orjson.loads(ws.recv(timeout=10))
                    if reply["type"] == "error":
                        assert reply["code"] in ("store_failed", "overloaded"), reply
                        raise EOFError
                    assert reply["step"] == n + 1
                    self.answers.append(reply)
        except (WebSocketException, TimeoutError) as error:
            raise EOFError from error


def check(server: Processes, clients: list[Client]) -> None:
    """Each session stands where its client's numbers say, and its answers are those to its own texts and to nobody else's."""
    for client in clients:
        looked = server.get(f"/sessions/{client.session}").json()
        assert (looked["step"], looked["position"]) == (len(client.texts), sum(map(len, client.texts)))
    for client in clients:
        alone = Client(server, client.texts)
        alone.run()
        assert [told(reply) for reply in client.answers] == [pytest.approx(told(reply), abs=1e-4) for reply in alone.answers]


def told(reply: dict[str, Any]) -> list[float]:
    """The numbers that an answer says of its text."""
    return [reply["step"], reply["position"], *(one["logprob"] for one in (*reply["chars"], *reply["next"]))]


def load(server: Server) -> list[Client]:
    texts = ["the cat", "a dog", "many words", "of one", "small town", "and so on"]
    clients = [Client(server, [f"{texts[i]} {n}"[: 3 + (n + i) % 6] for n in range(STEPS)]) for i in range(CLIENTS)]
    for client in clients:
        client.start()
    return clients


def answered(clients: list[Client]) -> int:
    return sum(len(client.answers) for client in clients)


def counted(server: Server, name: str) -> float:
    lines = [line for line in server.get("/metrics").text.splitlines() if line.startswith(name) and "chars" in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_a_front_that_is_killed_costs_no_step_and_brings_nobody_anothers_answer(server: Processes) -> None:
    before = counted(server, "indrnn_steps_total")
    clients = load(server)
    for name in ("front-0", "front-1", "front-0"):
        so_far = answered(clients)
        until(lambda n=so_far: answered(clients) > n + 10 or not any(c.is_alive() for c in clients))
        old = server.kill(name)
        until(lambda n=name, pid=old: server.pids().get(n, pid) != pid)
    for client in clients:
        client.join(120)
    assert answered(clients) == CLIENTS * STEPS
    assert sum(client.again for client in clients) > 0, "nobody was on a front that was killed"
    until(server.is_whole)
    assert counted(server, "indrnn_steps_total") == before + CLIENTS * STEPS, "the numbers are the service's, and each step counts once"
    check(server, clients)


def test_an_engine_that_is_killed_is_started_again_and_sessions_go_on(server: Processes) -> None:
    clients = load(server)
    until(lambda: answered(clients) > CLIENTS * 3)
    old = server.kill("engine")
    until(lambda: httpx.get(f"{server.url}/health/ready", timeout=10).status_code == 503, 5)
    assert httpx.get(f"{server.url}/health/live", timeout=10).status_code == 200
    assert httpx.get(f"{server.url}/v2/health/ready", timeout=10).status_code == 400
    until(lambda: server.pids().get("engine", old) != old)
    for client in clients:
        client.join(120)
    assert answered(clients) == CLIENTS * STEPS
    until(server.is_whole)
    check(server, clients)


def test_a_front_that_stands_still_keeps_nobody_elses_steps_waiting(server: Processes) -> None:
    """It has asked for much that it does not read. Later it goes on, or is taken for dead and started again."""
    held = [server.held_socket("chars") for _ in range(16)]
    for ws in held:
        ws.send(orjson.dumps({"type": "open"}).decode())
        ws.recv(timeout=10)
    pid = server.kill("front-1", signal.SIGSTOP)
    for ws in held:
        ws.send(orjson.dumps({"type": "step", "step": 1, "text": "x" * 1_000}).decode())
    client = Client(server, ["ab"] * 40)
    client.run()
    assert state_of(pid) == "T", "the steps were answered while it stood still"
    assert client.again == 0
    os.kill(pid, signal.SIGCONT)
    assert [orjson.loads(ws.recv(timeout=20))["step"] for ws in held] == [1] * 16


@pytest.mark.parametrize("name", ["front-1", "engine"])
def test_what_gives_no_sign_of_life_is_killed_and_started_again(server: Processes, name: str) -> None:
    client = Client(server, ["ab", "cd"])
    old = server.kill(name, signal.SIGSTOP)
    until(lambda: server.pids().get(name, old) != old, HANG * 5)
    until(server.is_whole)
    client.run()
    assert len(client.answers) == 2


def test_at_the_end_every_process_is_gone_and_the_store_is_free(server: Processes) -> None:
    pids = list(server.pids().values())
    ident = server.post("/sessions", {"model": "chars"}).json()["session_id"]
    assert server.stop() in (0, -signal.SIGTERM)
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    store = SQLiteStore(server.folder / "sessions.db")
    assert ident in store.load([ident])
    store.close()
    assert len(re.findall(rf"the service answers at http://\S+:{server.port}$", server.log(), re.M)) == 1


def test_a_supervisor_that_is_killed_leaves_no_children_and_no_lock(server: Processes) -> None:
    pids = list(server.pids().values())
    server.stop(signal.SIGKILL)
    until(lambda: all(state_of(pid) in ("", "Z") for pid in pids), 10)
    until(lambda: is_free(server.folder / "sessions.db"), 10)  # once its last thread has ended, too


def is_free(path: Path) -> bool:
    """Whether no process holds a store."""
    try:
        SQLiteStore(path).close()
    except StoreError:
        return False
    return True


def test_what_cannot_begin_says_why_and_ends(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("INDRNN_")}
    settings = {"PORT": "0", "INDRNN_FRONTS": "1", "INDRNN_STORE": str(tmp_path / "s.db"), "INDRNN_BUNDLES": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "indrnn", "serve"], env={**env, **settings}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "no bundle found" in done.stderr
    assert "Traceback" not in done.stderr


UNSHARED = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def test_the_first_process_of_a_container_ends_in_time_and_reaps_what_others_left(tmp_path: Path) -> None:
    try:
        subprocess.run([*UNSHARED, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a namespace of its own (unshare)")
    server = Processes(tmp_path, {"INDRNN_FRONTS": "1"}, arguments=(*UNSHARED, sys.executable, "-m", "indrnn", "serve"))
    server.start()
    assert server.process is not None
    (first,) = _children(server.process.pid)
    assert Path(f"/proc/{first}/status").read_text().split("NSpid:")[1].split()[1] == "1"
    orphan = ["nsenter", "-t", str(first), "-p", "-m", "sh", "-c", "sleep 0.2 & exec sleep 0"]
    subprocess.run(orphan, check=True, capture_output=True)
    until(lambda: all(state_of(pid) != "Z" for pid in _children(first)))
    time.sleep(0.5)
    assert [state_of(pid) for pid in _children(first) if state_of(pid) == "Z"] == []
    os.kill(first, signal.SIGTERM)
    assert server.process.wait(15) == 0
