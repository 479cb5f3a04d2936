"""What a kill, a restart, a burst and a full disk may cost a session: nothing that was answered."""

import contextlib
import json
import random
import resource
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Server, scores
from test_stream import ask, hear, hear_all, text_of
from websockets.exceptions import ConnectionClosed

Start = Callable[..., Server]


def test_kill_between_and_during_steps_loses_nothing(own_server: Start, walk: list[Any]) -> None:
    server = own_server()
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    rng = random.Random(1)
    step, replies = 1, {}
    while step <= 30:
        body = {"sequences": [walk[2 * step - 2 : 2 * step]], "session_id": ident, "step": step, "top_k": 99}
        if step % 6 == 0 and step not in replies:  # during: the kill races the step
            replies[step] = None
            threading.Timer(rng.uniform(0, 0.004), server.process.kill).start()  # type: ignore[union-attr]
        try:
            reply = server.post("/predict", body)
        except httpx.TransportError:
            server.process.wait(10)  # type: ignore[union-attr]
            server.start()
            continue
        assert reply.status_code == 200, reply.text
        step += 1
        if step % 10 == 0:  # between
            server.restart(signal.SIGKILL)
            assert server.get(f"/sessions/{ident}").json()["step"] == step - 1
            assert server.post("/predict", body).content == reply.content
    assert reply.json()["session"]["position"] == 60
    whole = server.post("/predict", {"sequences": [walk], "top_k": 99}).json()["predictions"][0]
    assert scores(reply.json()["predictions"][0]) == pytest.approx(scores(whole), abs=1e-4)


def test_kill_during_a_generate_keeps_every_character_that_was_sent(own_server: Start) -> None:
    server = own_server()
    wish = {"type": "generate", "step": 1, "max_chars": 600, "seed": 5}
    with server.socket("chars") as ws:
        ask(ws, type="open")
        ws.send(json.dumps(wish))
        undisturbed = hear_all(ws)
    ws = server.held_socket("chars")
    ident = ask(ws, type="open")["session_id"]
    ws.send(json.dumps(wish))
    sent = [hear(ws) for _ in range(25)]
    assert server.process is not None
    server.process.kill()
    with contextlib.suppress(ConnectionClosed):
        while True:
            sent.append(hear(ws))
    server.process.wait(10)
    server.start()
    with server.socket("chars") as ws:
        opened = ask(ws, type="open", session_id=ident)
        assert opened["step"] == 1
        assert opened["pending"]["text"].startswith(text_of(sent))
        assert opened["position"] == len(opened["pending"]["text"])
        ws.send(json.dumps(wish))
        heard = hear_all(ws)
    assert text_of(heard) == text_of(undisturbed)
    assert heard[: len(sent)] == sent


def test_sigterm_finishes_the_steps_in_flight_and_the_next_process_goes_on(own_server: Start, walk: list[Any]) -> None:
    server = own_server()
    with server.socket("action") as ws:
        ident = ask(ws, type="open")["session_id"]
        ask(ws, type="step", step=1, frames=walk[:30])
        server.restart(signal.SIGTERM)
    with server.socket("action") as ws:
        opened = ask(ws, type="open", session_id=ident)
        assert (opened["step"], opened["position"]) == (1, 30)
        assert ask(ws, type="step", step=2, frames=walk[30:])["position"] == 60


def test_many_clients_at_once_get_their_own_answers(server: Server, walk: list[Any]) -> None:
    rng = np.random.default_rng(3)
    clips = [(np.array(walk) + rng.normal(0, 0.05, (1, 20, 3))).round(4).tolist() for _ in range(24)]
    expected = server.post("/predict", {"sequences": clips, "top_k": 99}).json()["predictions"]
    got: list[Any] = [None] * len(clips)

    def client(i: int) -> None:
        with server.socket("action") as ws:
            ask(ws, type="open", top_k=99)
            for step, at in enumerate(range(0, 60, 3), 1):
                reply = ask(ws, type="step", step=step, frames=clips[i][at : at + 3])
            got[i] = reply["predictions"][0]

    threads = [threading.Thread(target=client, args=(i,)) for i in range(len(clips))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    for mine, theirs in zip(got, expected, strict=True):
        assert scores(mine) == pytest.approx(scores(theirs), abs=1e-4)


def test_racing_repeats_of_one_step_advance_once_and_agree(server: Server, walk: list[Any]) -> None:
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    body = {"sequences": [walk], "session_id": ident, "step": 1}
    replies: list[bytes] = []
    threads = [threading.Thread(target=lambda: replies.append(server.post("/predict", body).content)) for _ in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert len(replies) == 16
    assert len(set(replies)) == 1
    assert server.get(f"/sessions/{ident}").json()["step"] == 1


def test_a_full_queue_is_503_with_retry_after_and_comes_back(own_server: Start, walk: list[Any]) -> None:
    server = own_server(INDRNN_MAX_QUEUE="2", INDRNN_MAX_FRAMES="5000")
    long = (walk * 84)[:5000]
    seen: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: seen.append(server.post("/predict", {"sequences": [long, long]}))) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    refused = [r for r in seen if r.status_code == 503]
    assert refused
    assert all(r.json()["code"] == "overloaded" and int(r.headers["retry-after"]) >= 1 for r in refused)
    assert any(r.status_code == 200 for r in seen)
    assert server.post("/predict", {"sequences": [walk]}).status_code == 200


def test_capacity_comes_back_after_abrupt_disconnects(own_server: Start) -> None:
    server = own_server(INDRNN_MAX_QUEUE="20", INDRNN_MAX_CONNECTIONS="20")
    for _ in range(5):
        sockets = [server.held_socket("chars") for _ in range(20)]
        for ws in sockets:
            ask(ws, type="open")
            ws.send(json.dumps({"type": "generate", "max_chars": 4000, "seed": 1}))
        assert hear(server.held_socket("chars"))["code"] == "overloaded"
        for ws in sockets:
            ws.close_socket()
        for _ in range(200):
            with contextlib.suppress(ConnectionClosed), server.socket("chars") as ws:
                opened = ask(ws, type="open")
                if opened["type"] == "opened" and ask(ws, type="step", text="x")["type"] == "result":
                    break
        else:
            pytest.fail("the capacity did not come back")


def test_sessions_expire_by_their_time_to_live(own_server: Start, walk: list[Any]) -> None:
    server = own_server(INDRNN_SESSION_TTL="1.5")
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    assert server.get(f"/sessions/{ident}").status_code == 200
    for _ in range(100_000):
        reply = server.get(f"/sessions/{ident}")  # reading does not prolong it
        if reply.status_code != 200:
            break
    assert (reply.status_code, reply.json()["code"]) == (410, "session_expired")
    assert server.post("/predict", {"sequences": [walk], "session_id": ident}).status_code == 410


def test_a_store_that_cannot_write_is_503_and_nothing_has_moved(own_server: Start, walk: list[Any]) -> None:
    server = own_server()
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    assert server.process is not None
    log_size = (server.folder / "sessions.db-wal").stat().st_size
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (log_size, resource.RLIM_INFINITY))  # as a full disk would
    reply = server.post("/predict", {"sequences": [walk], "session_id": ident, "step": 1})
    assert (reply.status_code, reply.json()["code"]) == (503, "store_failed")
    assert ready_becomes(server, 503)["code"] == "store_failed"
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert server.get(f"/sessions/{ident}").json()["step"] == 0
    assert server.post("/predict", {"sequences": [walk], "session_id": ident, "step": 1}).json()["session"]["step"] == 1
    assert ready_becomes(server, 200)["status"] == "ready"


def test_a_store_whose_file_is_gone_is_503_and_not_ready_until_it_is_back(own_server: Start, walk: list[Any]) -> None:
    server = own_server()
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    file = server.folder / "sessions.db"
    file.rename(server.folder / "aside.db")
    reply = server.post("/predict", {"sequences": [walk], "session_id": ident, "step": 1})
    assert (reply.status_code, reply.json()["code"]) == (503, "store_failed")
    assert str(file) in ready_becomes(server, 503)["detail"]
    (server.folder / "aside.db").rename(file)
    assert ready_becomes(server, 200)["status"] == "ready"
    assert server.post("/predict", {"sequences": [walk], "session_id": ident, "step": 1}).json()["session"]["step"] == 1


def ready_becomes(server: Server, status: int) -> dict[str, Any]:
    """What /health/ready says once it has that status; its answer may be a second old."""
    deadline = time.monotonic() + 20
    while (reply := server.get("/health/ready")).status_code != status:
        assert time.monotonic() < deadline, reply.text
    body: dict[str, Any] = reply.json()
    return body
