"""How many of our files one step enters on its way from the socket to its reply."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from conftest import ROOT, Server

FRAME = [[0.01 * j, 0.5, 2.0] for j in range(20)]
X = {"name": "x", "datatype": "FP32", "shape": [1, 1, 1, 20, 3]}


class TracedServer(Server):
    """The real service, which says what it enters."""

    def start(self) -> "TracedServer":
        self.arguments = [sys.executable, str(ROOT / "tests" / "system" / "traced.py"), str(self.folder / "entered")]
        super().start()
        return self

    def entered(self, step: Callable[[int], Any]) -> list[str]:
        """The files that the fourth of some steps enters; before it everything is loaded and known."""
        assert self.process is not None
        for n in (1, 2, 3):
            step(n)
        time.sleep(0.2)  # what those have left over
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(0.1)
        step(4)
        time.sleep(0.1)
        file = self.folder / "entered"
        file.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR2)
        end = time.monotonic() + 20
        while not file.exists() or not file.read_text():
            assert time.monotonic() < end
            time.sleep(0.01)
        return file.read_text().split("\n")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TracedServer]:
    made = TracedServer(tmp_path_factory.mktemp("traced"), {"PYTHONPATH": os.fspath(ROOT), "INDRNN_POLL": "0"})
    made.start()
    yield made
    made.stop()


def test_predict_in_a_session_enters_fewer_than_twelve_files(server: TracedServer) -> None:
    with httpx.Client(base_url=server.url) as client:
        ident = client.post("/sessions", json={"model": "action"}).json()["session_id"]

        def step(n: int) -> None:
            reply = client.post("/predict", json={"sequences": [[FRAME]], "session_id": ident, "step": n})
            assert reply.json()["session"]["step"] == n

        found = server.entered(step)
    assert len(found) < 12, found


def test_a_step_of_the_stream_enters_fewer_than_twelve_files(server: TracedServer) -> None:
    with server.socket("action") as stream:
        stream.send(orjson.dumps({"type": "open"}).decode())
        stream.recv()

        def step(n: int) -> None:
            stream.send(orjson.dumps({"type": "step", "step": n, "frames": [FRAME]}).decode())
            assert orjson.loads(stream.recv())["step"] == n

        found = server.entered(step)
    assert len(found) < 12, found


def test_a_step_of_the_open_inference_protocol_enters_fewer_than_fourteen_files(server: TracedServer) -> None:
    body = orjson.loads((ROOT / "examples" / "wave.json").read_bytes())["sequences"][0][0]  # of nobody there would be a warning to word
    raw = np.array(body, "<f4").tobytes()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:

        def step(n: int) -> None:
            """In one piece and without compression, as Triton's load tool sends it."""
            parameters = {"sequence_id": 7, "sequence_start": n == 1, "indrnn_step": n}
            head = orjson.dumps({"inputs": [{**X, "parameters": {"binary_data_size": len(raw)}}], "parameters": parameters})
            lines = [b"POST /v2/models/action/infer HTTP/1.1", b"host: x", b"content-length: %d" % (len(head) + len(raw))]
            lines += [b"inference-header-content-length: %d" % len(head), b"", head + raw]
            connection.sendall(b"\r\n".join(lines))
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")

        found = server.entered(step)
    assert len(found) < 14, found


def test_the_trace_sees_what_is_entered(server: TracedServer) -> None:
    """A tracer that saw nothing would let every count pass."""
    found = server.entered(lambda n: server.get("/models/action"))
    assert {"service/http/routes.py", "service/wire/http.py"} <= set(found)
    assert Path(ROOT / found[0]).exists()
