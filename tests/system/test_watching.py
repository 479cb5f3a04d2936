"""Versions that come and go while the service is at work, with real bundles."""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from conftest import ROOT, Server, scores
from test_inference import Client, Failed, free_port
from test_stream import ask, hear_all

Start = Callable[..., Server]


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "bundles" / "action" / "1", tmp_path / "bundles" / "action" / "1")
    return tmp_path / "bundles"


def new_version(bundles: Path, version: str) -> tuple[Path, bytes]:
    """A folder with the same graph under another number, and its manifest, which is not there yet."""
    folder = shutil.copytree(bundles / "action" / "1", bundles / "action" / version, ignore=lambda *_: ["manifest.json"])
    manifest = json.loads((bundles / "action" / "1" / "manifest.json").read_text())
    return folder, json.dumps({**manifest, "version": version}).encode()


def without_bounds(graph: Path) -> str:
    """Lets the graph take places of any size, under which its state can overflow; its new SHA-256."""
    model = onnx.load(graph)
    (clip,) = [n for n in model.graph.node if n.op_type == "Clip" and n.input[0] == "x"]
    clip.CopyFrom(onnx.helper.make_node("Identity", ["x"], clip.output))
    graph.write_bytes(model.SerializeToString())
    return hashlib.sha256(graph.read_bytes()).hexdigest()


def index(server: Server) -> dict[str, tuple[str, str]]:
    return {m["version"]: (m["state"], m["reason"]) for m in server.post("/v2/repository/index", {}).json()}


def states(server: Server) -> dict[str, str]:
    return {version: state for version, (state, _) in index(server).items()}


def opened(server: Server) -> dict[str, Any]:
    reply: dict[str, Any] = server.post("/sessions", {"model": "action"}).json()
    return reply


def status(server: Server, field: str) -> int:
    assert server.process is not None
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def test_a_half_copied_bundle_changes_nothing_and_a_whole_one_takes_new_sessions_while_old_ones_finish(
    own_server: Start, bundles: Path, walk: list[Any]
) -> None:
    server = own_server(INDRNN_BUNDLES=str(bundles), INDRNN_POLL="0.1")
    stop, replies, failures = threading.Event(), [], []

    def stream() -> None:
        with server.socket("action") as ws:
            ident = ask(ws, type="open", top_k=99)["session_id"]
            replies.append(ident)
            step = 0
            while not stop.is_set() or step < 30:
                step += 1
                reply = ask(ws, type="step", step=step, frames=walk[2 * (step - 1) % 60 :][:2])
                if reply["type"] != "result":
                    failures.append(reply)
                    return
                if step <= 30:
                    replies.append(reply)

    at_work = threading.Thread(target=stream)
    at_work.start()
    folder, manifest = new_version(bundles, "2")
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "manifest.json").write_bytes(manifest)
    until(lambda: index(server).get("2", ("", ""))[0] == "UNAVAILABLE")
    assert "model.onnx: expected sha256" in index(server)["2"][1]
    assert 'indrnn_model_unavailable{model="action",version="2"} 1.0' in server.get("/metrics").text
    assert opened(server)["version"] == "1"
    (folder / "model.onnx").write_bytes(whole)
    until(lambda: states(server) == {"1": "READY", "2": "READY"})
    assert opened(server)["version"] == "2"
    assert server.post("/predict", {"sequences": [walk]}).json()["version"] == "2"
    assert server.post("/predict", {"sequences": [walk], "version": "1"}).status_code == 404, "it takes nothing new"
    stop.set()
    at_work.join(60)
    assert failures == []
    alone = server.post("/predict", {"sequences": [walk], "top_k": 99}).json()["predictions"][0]
    assert scores(replies[30]["predictions"][0]) == pytest.approx(scores(alone), abs=1e-4)
    for session in server.get("/sessions").json()["sessions"]:
        if session["version"] == "1":
            assert states(server)["1"] == "READY"
            assert httpx.delete(f"{server.url}/sessions/{session['session_id']}").status_code == 204
    until(lambda: states(server) == {"1": "UNAVAILABLE", "2": "READY"})
    assert "Traceback" not in server.log()


def test_sessions_of_a_version_that_was_unloaded_can_still_be_downloaded_and_go_on_elsewhere(
    own_server: Start, bundles: Path, walk: list[Any]
) -> None:
    server = own_server(INDRNN_BUNDLES=str(bundles), INDRNN_POLL="0.1", INDRNN_LINGER="0.3")
    with server.socket("action") as ws:
        ident = ask(ws, type="open")["session_id"]
        ask(ws, type="step", step=1, frames=walk[:30])
        before = server.get(f"/sessions/{ident}/state").content
        assert b'"bodies"' in before  # of a model that watches them: beside the state, not in it
        folder, manifest = new_version(bundles, "2")
        (folder / "manifest.json").write_bytes(manifest)
        until(lambda: states(server) == {"1": "UNAVAILABLE", "2": "READY"})
        assert ask(ws, type="step", step=2, frames=walk[30:])["code"] == "model_gone"
    body = {"sequences": [walk[30:]], "session_id": ident, "step": 2}
    assert server.post("/predict", body).json()["code"] == "model_gone"
    state = server.get(f"/sessions/{ident}/state")
    assert state.status_code == 200
    assert state.content == before
    moved = httpx.post(f"{server.url}/sessions", content=state.content, headers={"Content-Type": "application/octet-stream"}).json()
    assert (moved["version"], moved["step"]) == ("2", 1)
    assert server.post("/predict", {**body, "session_id": moved["session_id"]}).json()["session"]["position"] == 60


def test_a_new_beginning_on_a_new_version_takes_the_old_sequences_place_or_leaves_it_where_it_was(
    own_server: Start, bundles: Path, walk: list[Any]
) -> None:
    server = own_server(INDRNN_BUNDLES=str(bundles), INDRNN_POLL="0.1")
    client, x = Client("http", server), np.array(walk, np.float32)[None, :, None]
    client.infer(x=x[:, :5], sequence_id=7, sequence_start=True, step=1)
    folder, manifest = new_version(bundles, "2")
    (folder / "manifest.json").write_bytes(json.dumps({**json.loads(manifest), "sha256": without_bounds(folder / "model.onnx")}).encode())
    until(lambda: states(server).get("2") == "READY")
    too_large = np.full_like(x[:, :2], 3e38)
    too_large[:, 1] *= -1
    assert "would overflow" in client.refused(x=too_large, sequence_id=7, sequence_start=True)[1]
    assert client.infer(x=x[:, 5:6], sequence_id=7).parameters == {"indrnn_step": 2, "indrnn_position": 6}
    assert client.infer(x=x[:, :3], sequence_id=7, sequence_start=True, step=1).parameters["indrnn_position"] == 3
    assert client.infer(x=x[:, :3], sequence_id=7, sequence_start=True, step=1).parameters["indrnn_position"] == 3
    assert client.infer(x=x[:, 3:4], sequence_id=7, step=2).parameters["indrnn_position"] == 4
    until(lambda: states(server)["1"] == "UNAVAILABLE")
    assert client.infer(x=x[:, 4:5], sequence_id=7, step=3).parameters["indrnn_position"] == 5
    client.close()


def test_a_restart_loads_an_old_version_only_where_a_session_needs_it(own_server: Start, bundles: Path) -> None:
    server = own_server(INDRNN_BUNDLES=str(bundles))
    ident = opened(server)["session_id"]
    folder, manifest = new_version(bundles, "2")
    (folder / "manifest.json").write_bytes(manifest)
    server.restart(15)
    assert server.get(f"/sessions/{ident}").json()["version"] == "1"
    assert states(server) == {"1": "READY", "2": "READY"}
    assert opened(server)["version"] == "2"
    httpx.delete(f"{server.url}/sessions/{ident}")
    server.restart(15)
    assert states(server) == {"1": "UNAVAILABLE", "2": "READY"}


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritons_clients_load_and_unload_where_they_may(own_server: Start, bundles: Path, kind: str) -> None:
    grpc_port = free_port()
    server = own_server(INDRNN_BUNDLES=str(bundles), INDRNN_POLL="0", INDRNN_MODEL_CONTROL="true", INDRNN_GRPC_PORT=grpc_port)
    client = Client(kind, server)
    x = np.zeros((1, 1, 1, 20, 3), np.float32)
    client.infer(x=x, sequence_id=7, sequence_start=True, step=1)
    client.ask("unload_model", "action")
    said = client.refused(x=x)
    assert said == (client.status("404", "NOT_FOUND"), "Request for unknown model: 'action' has no available versions")
    assert client.refused(model="other", x=x)[1] == "Request for unknown model: 'other' is not found"
    assert client.ask("is_model_ready", "action") is False
    assert states(server) == {"1": "UNAVAILABLE"}
    assert server.get("/health/ready").json()["models"] == []
    client.ask("load_model", "action")
    assert client.infer(x=x, sequence_id=7, step=2).parameters["indrnn_step"] == 2, "its sequence goes on: the file is the same"
    (bundles / "action" / "1" / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(Failed) as caught:
        client.ask("load_model", "action")
    assert caught.value.status == client.status("400", "INVALID_ARGUMENT")
    assert caught.value.text.startswith("failed to load 'action', bundle action/1: model.onnx: expected sha256")
    client.infer(x=x)
    client.close()


@pytest.mark.parametrize("every", [False, True], ids=["in the fast lane", "in the stream's task"])
def test_an_open_stream_goes_on_when_its_model_has_been_loaded_again(
    own_server: Start, bundles: Path, walk: list[Any], every: bool
) -> None:
    """The engine that it knew is no more, but its session is where it was, and its graph is served."""
    shutil.copytree(ROOT / "bundles" / "chars", bundles / "chars")
    server = own_server(INDRNN_BUNDLES=str(bundles), INDRNN_POLL="0", INDRNN_MODEL_CONTROL="true")

    def load_again(name: str) -> None:
        for command in ("unload", "load"):
            assert server.post(f"/v2/repository/models/{name}/{command}", None).status_code == 200

    with server.socket("action") as ws:
        ident = ask(ws, type="open", every=every)["session_id"]
        for step in range(1, 4):
            reply = ask(ws, type="step", step=step, frames=walk[step : step + 1])
            assert (reply["type"], reply["step"], reply["position"]) == ("result", step, step), reply
            load_again("action")
        assert ask(ws, type="watch", neurons=True)["type"] == "watching"
        assert ask(ws, type="step", step=3, frames=walk[3:4])["position"] == 3, "a repeat"
        assert server.post("/v2/repository/models/action/unload", None).status_code == 200
        assert ask(ws, type="step", step=4, frames=walk[4:5])["code"] == "model_gone"
        assert server.post("/v2/repository/models/action/load", None).status_code == 200
        body = {"sequences": [walk[4:5]], "session_id": ident, "step": 4}
        assert server.post("/predict", body).json()["session"] == {"session_id": ident, "step": 4, "position": 4}
        assert ask(ws, type="step", step=5, frames=walk[5:6])["position"] == 5
    with server.socket("chars") as ws:
        ask(ws, type="open", every=every)
        for step in (1, 2):
            load_again("chars")
            ws.send(json.dumps({"type": "generate", "step": step, "max_chars": 5, "seed": 1}))
            assert hear_all(ws)[-1]["position"] == 5 * step


def test_loading_and_unloading_leaves_no_thread_and_no_graph_behind(own_server: Start, bundles: Path, walk: list[Any]) -> None:
    # One arena of memory: with several, each thread of the event loop's pool that has loaded a model once keeps some.
    server = own_server(INDRNN_BUNDLES=str(bundles), INDRNN_POLL="0", INDRNN_MODEL_CONTROL="true", MALLOC_ARENA_MAX="1")
    ws = server.held_socket("action")  # a stream that stays, and still holds the first model
    ask(ws, type="open")
    sizes = []
    for turn in range(12):
        assert server.post("/v2/repository/models/action/unload", None).status_code == 200
        if turn == 2:
            threads = status(server, "Threads")
        assert server.post("/v2/repository/models/action/load", None).status_code == 200
        assert server.post("/predict", {"sequences": [walk]}).status_code == 200
        sizes.append(status(server, "VmRSS"))
    assert server.post("/v2/repository/models/action/unload", None).status_code == 200
    # The event loop's own pool may have grown from one to six by what came at once; a thread left by each load would be nine more.
    assert status(server, "Threads") <= threads + 5
    graph = (bundles / "action" / "1" / "model.onnx").stat().st_size / 1024
    assert sizes[-1] - sizes[3] < 8 * graph, (graph, sizes)  # kilobytes; eight more graphs have come and gone


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_connection_that_was_used_for_one_version_goes_on_with_the_next(own_server: Start, bundles: Path, kind: str) -> None:
    server = own_server(INDRNN_BUNDLES=str(bundles), INDRNN_POLL="0.1", INDRNN_GRPC_PORT=free_port())
    client = Client(kind, server)
    x = np.zeros((1, 1, 1, 20, 3), np.float32)
    client.infer(x=x)
    old = [client.infer(x=x, sequence_id=1, sequence_start=True, step=1).logits]
    folder, manifest = new_version(bundles, "2")
    (folder / "manifest.json").write_bytes(manifest)
    until(lambda: states(server) == {"1": "READY", "2": "READY"})
    new = [client.infer(x=x, sequence_id=2, sequence_start=True, step=1).logits]
    for step in (2, 3):
        old.append(client.infer(x=x, sequence_id=1, step=step, sequence_end=step == 3).logits)
        new.append(client.infer(x=x, sequence_id=2, step=step).logits)
    np.testing.assert_allclose(new, old, atol=1e-5)
    versions = {s["version"]: s["inference_count"] for s in client_statistics(server)}
    assert versions == {"1": 4, "2": 3}
    client.close()


def client_statistics(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("/v2/models/stats").json()["model_stats"]
    return found
