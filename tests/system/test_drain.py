"""SIGTERM while clients are at work: nothing that was stored goes unanswered, everybody is told to come back, and it ends in time."""

import contextlib
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import ROOT, Server, scores
from test_inference import Client, Failed, free_port
from test_stream import ask, hear
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

Start = Callable[..., Server]
STEPS, FRAMES = 150, 2


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"


def close_of(ws: ClientConnection) -> tuple[list[dict[str, Any]], ConnectionClosed]:
    """All that comes until the connection is closed."""
    heard: list[dict[str, Any]] = []
    while True:
        try:
            heard.append(hear(ws))
        except ConnectionClosed as closed:
            return heard, closed


class Streaming:
    """A stream that sends numbered steps until it is told to come back; it never sends one twice that was answered."""

    def __init__(self, server: Server, walk: list[Any]) -> None:
        self.server, self.walk = server, walk
        self.ident: str | None = None
        self.answered = 0
        self.closed: ConnectionClosed | None = None
        self.told: list[str] = []
        self.last: dict[str, Any] = {}

    def run(self) -> None:
        try:
            with self.server.socket("action") as ws:
                opened = ask(ws, type="open", session_id=self.ident, top_k=99)
                assert opened["type"] == "opened", opened
                assert opened["step"] == self.answered, "a step was stored and not answered, or answered and not stored"
                self.ident = opened["session_id"]
                while self.answered < STEPS:
                    at = self.answered * FRAMES
                    reply = ask(ws, type="step", step=self.answered + 1, frames=self.walk[at : at + FRAMES])
                    if reply["type"] == "error":
                        self.told.append(reply["code"])
                        hear(ws)
                        continue
                    assert (reply["step"], reply["position"]) == (self.answered + 1, at + FRAMES)
                    self.answered, self.last = self.answered + 1, reply["predictions"][0]
        except ConnectionClosed as error:
            self.closed = error

    def final(self) -> dict[str, float]:
        return scores(self.last)


class Asking:
    """The same by requests: over HTTP, or Triton's gRPC client with a sequence. A request that fails is sent again later."""

    def __init__(self, server: Server, walk: list[Any], grpc: bool, name: str) -> None:
        self.server, self.walk, self.grpc, self.name = server, walk, grpc, name
        self.ident: str | None = None
        self.answered = 0
        self.told: list[str] = []
        self.position = 0

    def run(self) -> None:
        with contextlib.suppress(httpx.TransportError):
            self._run_grpc() if self.grpc else self._run_http()

    def _run_http(self) -> None:
        if self.ident is None:
            self.ident = self.server.post("/sessions", {"model": "action"}).json()["session_id"]
        while self.answered < STEPS:
            at = self.answered * FRAMES
            body = {"sequences": [self.walk[at : at + FRAMES]], "session_id": self.ident, "step": self.answered + 1}
            reply = self.server.post("/predict", body)
            if reply.status_code != 200:
                self.told.append(reply.json()["code"])
                return
            self.answered, self.position = self.answered + 1, reply.json()["session"]["position"]

    def _run_grpc(self) -> None:
        client = Client("grpc", self.server)
        x = np.array(self.walk, np.float32)[None, :, None]
        try:
            while self.answered < STEPS:
                at = self.answered * FRAMES
                first = self.answered == 0
                reply = client.infer(x=x[:, at : at + FRAMES], sequence_id=self.name, sequence_start=first, step=self.answered + 1)
                self.answered, self.position = self.answered + 1, reply.parameters["indrnn_position"]
        except Failed as error:
            self.told.append(error.status)
        finally:
            client.close()


def test_under_load_no_step_is_lost_or_doubled_and_streams_are_told_to_resume(own_server: Start, walk: list[Any]) -> None:
    server = own_server(INDRNN_GRPC_PORT=free_port())
    walk = walk * (STEPS * FRAMES // len(walk))  # long enough for every signal to come in the middle
    streams = [Streaming(server, walk) for _ in range(12)]
    askers = [Asking(server, walk, grpc=i % 2 == 0, name=f"s{i}") for i in range(6)]
    for turn in range(3):
        clients: list[Any] = [*streams, *askers]
        threads = [threading.Thread(target=c.run) for c in clients]
        for t in threads:
            t.start()
        if turn < 2:
            until(lambda: all(c.answered > 4 * turn for c in clients))  # noqa: B023  # called at once
            assert server.stop(signal.SIGTERM) == -signal.SIGTERM
        for t in threads:
            t.join(60)
            assert not t.is_alive()
        if turn < 2:
            interrupted = [s for s in streams if s.closed is not None]
            assert interrupted, "all were done before the signal"
            for s in interrupted:
                assert s.closed is not None
                assert s.closed.rcvd is not None, "closed without a word"
                assert s.closed.rcvd.code == 1012
                s.closed = None
            assert {code for s in streams for code in s.told} <= {"stopping"}
            # gRPC itself cancels a call that comes in as its listener ends: unanswered, and repeated by its number
            assert {code for a in askers for code in a.told} <= {"stopping", "UNAVAILABLE", "CANCELLED"}
            server.start()
    assert [c.answered for c in clients] == [STEPS] * len(clients)
    assert {a.position for a in askers} == {STEPS * FRAMES}
    whole = server.post("/predict", {"sequences": [walk], "top_k": 99}).json()["predictions"][0]
    for s in streams:
        assert s.final() == pytest.approx(scores(whole), abs=1e-4)
    assert "Traceback" not in server.log()


@pytest.fixture
def busy(own_server: Start) -> tuple[Server, ClientConnection]:
    """A service that has some seconds of one step before it, and the stream that waits for it."""
    server = own_server(INDRNN_DRAIN_TIMEOUT="50", INDRNN_GRPC_PORT=free_port())
    ws = server.held_socket("chars")
    ask(ws, type="open")
    ws.send(json.dumps({"type": "step", "step": 1, "text": "to be or not " * 5_000}))
    until(lambda: 'indrnn_waiting{model="chars",version="2"} 1.0' in server.get("/metrics").text)
    return server, ws


def test_while_it_drains_it_is_not_ready_and_takes_nothing_new_but_ends_what_it_began(busy: tuple[Server, ClientConnection]) -> None:
    server, ws = busy
    assert server.process is not None
    idle = server.held_socket("action")
    assert ask(idle, type="open")["type"] == "opened"
    server.process.send_signal(signal.SIGTERM)
    until(lambda: server.get("/health/ready").status_code == 503)
    assert server.get("/health/ready").json()["code"] == "stopping"
    assert server.get("/health/live").status_code == 200
    assert server.get("/v2/health/ready").status_code == 400
    refused = server.post("/sessions", {"model": "action"})
    assert (refused.status_code, refused.json()["code"]) == (503, "stopping")
    assert int(refused.headers["retry-after"]) >= 1
    grpc = Client("grpc", server)
    status, _ = grpc.refused(x=np.zeros((1, 1, 1, 20, 3), np.float32))
    assert status == "UNAVAILABLE"
    grpc.close()
    with server.socket("chars") as late:
        assert ask(late, type="open")["code"] == "stopping"
    result = hear(ws)
    assert (result["type"], result["position"]) == ("result", 65_000)
    for socket_of in (ws, idle):
        heard, closed = close_of(socket_of)
        assert [m["code"] for m in heard] == ["stopping"]
        assert closed.rcvd is not None
        assert closed.rcvd.code == 1012
        assert "open again" in closed.rcvd.reason
    assert server.process.wait(20) == -signal.SIGTERM


def test_a_second_signal_ends_at_once(busy: tuple[Server, ClientConnection]) -> None:
    server, ws = busy
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    until(lambda: server.get("/health/ready").status_code == 503)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(2) == -signal.SIGTERM
    with pytest.raises(ConnectionClosed):
        hear(ws)


def test_what_cannot_be_finished_in_time_is_refused_and_has_not_moved(own_server: Start) -> None:
    server = own_server(INDRNN_DRAIN_TIMEOUT="1")
    ws = server.held_socket("chars")
    ident = ask(ws, type="open")["session_id"]
    ws.send(json.dumps({"type": "step", "step": 1, "text": "to be or not " * 7_600}))
    until(lambda: 'indrnn_waiting{model="chars",version="2"} 1.0' in server.get("/metrics").text)
    begun = time.monotonic()
    server.stop(signal.SIGTERM)
    assert time.monotonic() - begun < 2
    heard, _ = close_of(ws)
    assert {m["code"] for m in heard} == {"stopping"}
    server.start()
    assert server.get(f"/sessions/{ident}").json()["step"] == 0


def test_a_step_of_a_version_that_is_being_unloaded_is_stored_also_where_its_client_has_left(own_server: Start, tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    for name in ("action", "chars"):
        shutil.copytree(ROOT / "bundles" / name, bundles / name)
    server = own_server(INDRNN_DRAIN_TIMEOUT="25", INDRNN_BUNDLES=str(bundles), INDRNN_POLL="0.05", INDRNN_LINGER="0")
    text = "to be or not " * 5_000
    with server.socket("chars") as ws:
        ident = ask(ws, type="open")["session_id"]
        ws.send(json.dumps({"type": "step", "step": 1, "text": text}))
        until(lambda: 'indrnn_waiting{model="chars",version="2"} 1.0' in server.get("/metrics").text)
        shutil.rmtree(bundles / "chars")
        until(lambda: "UNLOADING" in [m["state"] for m in server.post("/v2/repository/index", {}).json()])
        ws.socket.close()
    server.stop(signal.SIGTERM)
    server.start()
    assert server.get(f"/sessions/{ident}").json()["position"] == len(text)


def test_a_generate_is_cut_where_it_can_be_resumed(own_server: Start) -> None:
    server = own_server()
    wish = {"type": "generate", "step": 1, "max_chars": 4_000, "seed": 3}
    ws = server.held_socket("chars")
    ident = ask(ws, type="open")["session_id"]
    ws.send(json.dumps(wish))
    hear(ws)
    server.stop(signal.SIGTERM)
    heard, closed = close_of(ws)
    assert {m["code"] for m in heard if m["type"] == "error"} == {"stopping"}
    sent = 1 + sum(m["type"] == "char" for m in heard)
    assert closed.rcvd is not None
    assert closed.rcvd.code == 1012
    server.start()
    with server.socket("chars") as again:
        opened = ask(again, type="open", session_id=ident)
        assert len(opened["pending"]["text"]) == opened["position"] == sent


def test_clients_that_are_stuck_do_not_hold_up_the_end(own_server: Start) -> None:
    server = own_server(INDRNN_DRAIN_TIMEOUT="3", INDRNN_GRPC_PORT=free_port())
    deaf = server.held_socket("chars")
    ask(deaf, type="open")
    ask(deaf, type="watch", neurons=True)
    deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.recv_bufsize = 1
    half = socket.create_connection(("127.0.0.1", server.port))
    half.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    quiet = Client("grpc", server)
    answers: list[Any] = []
    quiet.client.start_stream(lambda result, error: answers.append(error))
    silent = server.held_socket("action")
    deaf.send(json.dumps({"type": "generate", "max_chars": 4_000, "seed": 1}))
    until(lambda: "indrnn_characters_total" in server.get("/metrics").text)
    begun = time.monotonic()
    code = server.stop(signal.SIGTERM)
    took = time.monotonic() - begun
    assert (code, took < 3.5) == (-signal.SIGTERM, True), (code, took, server.log())
    quiet.client.stop_stream()
    quiet.close()
    half.close()
    heard, _ = close_of(silent)
    assert [m["code"] for m in heard] == ["stopping"]
