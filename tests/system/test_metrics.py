"""/metrics after known requests of every protocol, and the log lines about them."""

import json
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from conftest import Server
from prometheus_client.parser import text_string_to_metric_families
from test_inference import Client, free_port
from test_stream import ask, hear_all

Start = Callable[..., Server]
SPOKEN = ("model", "protocol")


def scrape(server: Server, **headers: str) -> dict[str, list[Any]]:
    """The samples by name."""
    reply = httpx.get(f"{server.url}/metrics", headers=headers, timeout=60)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(reply.text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def table(samples: list[Any], *labels: str) -> dict[Any, float]:
    """Sums by labels, without the zeros."""
    sums: dict[Any, float] = {}
    for s in samples:
        key = tuple(s.labels[name] for name in labels)
        sums[key] = sums.get(key, 0) + s.value
    return {key: value for key, value in sums.items() if value}


def test_every_protocol_is_counted_by_model_and_what_was_repeated_or_refused_apart(own_server: Start, walk: list[Any]) -> None:
    server = own_server(INDRNN_GRPC_PORT=free_port())
    frames = np.array(walk, np.float32)[None, :, None]
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    for step in (1, 1, 2, 4):  # a repeat and a gap
        server.post("/predict", {"sequences": [walk[:3]], "session_id": ident, "step": step})
    server.post("/predict", {"sequences": [walk[:4]], "session_id": ident, "step": 2})  # a conflict
    server.post("/predict", {"sequences": [walk, walk]})
    state = server.get(f"/sessions/{ident}/state").content
    moved = httpx.post(f"{server.url}/sessions", content=state, headers={"Content-Type": "application/octet-stream"}).json()["session_id"]
    server.post(f"/sessions/{ident}/fork", None)
    server.post(f"/sessions/{ident}/reset", None)
    httpx.delete(f"{server.url}/sessions/{moved}")
    with server.socket("chars") as ws:
        session = ask(ws, type="open")["session_id"]
        for step in (1, 2, 2):
            ask(ws, type="step", step=step, text="ab")
        ws.send(json.dumps({"type": "generate", "step": 3, "max_chars": 7, "seed": 1}))
        hear_all(ws)
        open_streams = table(scrape(server)["indrnn_connections"], "protocol")
    with server.socket("chars") as ws:
        ask(ws, type="open", session_id=session)
    for kind in ("http", "grpc"):
        client = Client(kind, server)
        for step in (1, 2, 2):
            client.infer(x=frames[:, :1], sequence_id=f"q{kind}", sequence_start=step == 1, step=step)
        client.infer(x=frames[:, :2])
        client.close()
    server.post("/v1/completions", {"model": "chars", "prompt": "To be", "max_tokens": 5})

    found = scrape(server)
    assert open_streams == {("stream",): 1}
    assert table(found["indrnn_steps_total"], *SPOKEN) == {
        ("action", "http"): 2,
        ("action", "oip_http"): 2,
        ("action", "oip_grpc"): 2,
        ("chars", "stream"): 3,
    }
    assert table(found["indrnn_steps_repeated_total"], *SPOKEN) == {
        ("action", "http"): 1,
        ("action", "oip_http"): 1,
        ("action", "oip_grpc"): 1,
        ("chars", "stream"): 1,
    }
    assert table(found["indrnn_steps_refused_total"], *SPOKEN, "code") == {
        ("action", "http", "step_gap"): 1,
        ("action", "http", "step_conflict"): 1,
    }
    assert table(found["indrnn_stateless_total"], *SPOKEN) == {
        ("action", "http"): 2,
        ("action", "oip_http"): 1,
        ("action", "oip_grpc"): 1,
        ("chars", "openai"): 1,
    }
    assert table(found["indrnn_sessions_opened_total"], *SPOKEN) == {
        ("action", "http"): 1,
        ("action", "oip_http"): 1,
        ("action", "oip_grpc"): 1,
        ("chars", "stream"): 1,
    }
    for kind in ("imported", "forked", "reset", "deleted"):
        assert table(found[f"indrnn_sessions_{kind}_total"], *SPOKEN) == {("action", "http"): 1}, kind
    assert table(found["indrnn_sessions_resumed_total"], "model") == {("chars",): 1}
    assert table(found["indrnn_characters_total"], "model") == {("chars",): 12}
    runs = table(found["indrnn_batch_size_sum"], "model")
    assert runs[("chars",)] == 2 + 7 + 1 + 5
    for name in ("batch_size", "queue_wait_seconds", "engine_seconds", "store_seconds"):
        infinite = [s for s in found[f"indrnn_{name}_bucket"] if s.labels["le"] == "+Inf"]
        assert table(infinite, "model") == table(found[f"indrnn_{name}_count"], "model")
        counts = [s.value for s in found[f"indrnn_{name}_bucket"] if s.labels["model"] == "chars"]
        assert counts == sorted(counts), "buckets are cumulated"
    ready = server.get("/health/ready").json()
    assert {(s.labels["model"], s.labels["kernel"], s.value) for s in found["indrnn_model_info"]} == {
        (m["name"], m["kernel"], 1.0) for m in ready["models"]
    }
    assert found["process_resident_memory_bytes"][0].value > 1e7


def test_living_sessions_and_their_bytes_are_those_of_the_store(own_server: Start) -> None:
    server = own_server()
    size = server.get("/models/chars").json()["versions"][0]["state_size"]
    for _ in range(3):
        server.post("/sessions", {"model": "chars"})
    found = scrape(server)
    assert table(found["indrnn_sessions_active"], "model") == {("chars",): 3}
    assert table(found["indrnn_state_bytes"], "model") == {("chars",): 3 * 4 * size}


def test_a_store_that_fails_is_counted_and_its_steps_are_not(own_server: Start, walk: list[Any]) -> None:
    server = own_server()
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    assert server.process is not None
    log_size = (server.folder / "sessions.db-wal").stat().st_size
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (log_size, resource.RLIM_INFINITY))
    body = {"sequences": [walk], "session_id": ident, "step": 1}
    assert server.post("/predict", body).json()["code"] == "store_failed"
    found = scrape(server)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert table(found["indrnn_store_failures_total"], "model") == {("action",): 1}
    assert "indrnn_steps_total" not in found
    assert server.post("/predict", body).status_code == 200
    assert table(scrape(server)["indrnn_steps_total"], "model") == {("action",): 1}


def test_metrics_want_a_key_where_the_setting_says_so(own_server: Start, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("me:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n")  # sha256 of "secret"
    server = own_server(INDRNN_KEYS=str(tmp_path / "keys"), INDRNN_METRICS_OPEN="false")
    assert server.get("/metrics").status_code == 401
    assert scrape(server, Authorization="Bearer secret")
    del server.env["INDRNN_METRICS_OPEN"]
    server.restart(15)
    assert scrape(server)


def test_log_lines_are_objects_that_name_session_step_and_model_and_give_nothing_away(own_server: Start, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("me:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n")
    server = own_server(INDRNN_KEYS=str(tmp_path / "keys"), INDRNN_LOG_FORMAT="json", INDRNN_LOG_LEVEL="debug")
    with server.socket("chars") as ws:
        ident = ask(ws, type="open", api_key="secret")["session_id"]
        ask(ws, type="step", step=1, text="Mississippi")
        ask(ws, type="step", step=9, text="Mississippi")
    httpx.post(f"{server.url}/predict?q=1", headers={"Authorization": "Bearer secret"}, json={"sequences": 1})
    server.stop()
    log = server.log()
    lines = [json.loads(line) for line in log.splitlines()]
    (refused,) = [line for line in lines if line["message"].startswith("refused: expected step 2")]
    assert (refused["level"], refused["model"], refused["step"]) == ("debug", "chars/2", 9)
    assert refused["session"] == f"{ident[:10]}…"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", refused["time"])
    for told in ("secret", "Mississippi", ident):
        assert told not in log
