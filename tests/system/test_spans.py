"""Spans of a running service, as a collector gets them: one for each request, whichever way it came, and the client's span above it."""

import importlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from conftest import ROOT, Server
from redis_process import free_port
from websockets.sync.client import connect

from indrnn.service.settings import SettingsError, read_settings
from indrnn.service.tracing import digest, open_tracing

TRACE, ABOVE = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = {"traceparent": f"00-{TRACE}-{ABOVE}-01"}
FRAME = [[0.01 * j, 0.5, 2.0] for j in range(20)]


class Collector:
    """An OpenTelemetry collector, OTLP over HTTP: the spans that came, each with its attributes and its resource's."""

    def __init__(self) -> None:
        decoded = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2").ExportTraceServiceRequest
        self.spans: list[dict[str, Any]] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = decoded.FromString(self.rfile.read(int(self.headers["content-length"])))
                for of_resource in sent.resource_spans:
                    resource = {a.key: a.value.string_value for a in of_resource.resource.attributes}
                    for of_scope in of_resource.scope_spans:
                        spans.extend(_span(span, resource) for span in of_scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def named(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """The spans of that name, when there are so many."""
        deadline = time.monotonic() + 20
        while len(found := [span for span in self.spans if span["name"] == name]) < count:
            assert time.monotonic() < deadline, (name, [span["name"] for span in self.spans])
            time.sleep(0.02)
        return found


def _span(span: Any, resource: dict[str, str]) -> dict[str, Any]:
    values = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}
    above = {"trace": span.trace_id.hex(), "above": span.parent_span_id.hex()}
    return {
        "name": span.name,
        "resource": resource,
        "seconds": (span.end_time_unix_nano - span.start_time_unix_nano) * 1e-9,
        **above,
        **values,
    }


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs indrnn[otel]")
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module", params=["0", "1"], ids=["one process", "a front"])
def traced(request: pytest.FixtureRequest, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    collector.spans.clear()
    env = {"INDRNN_OTEL": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50", "INDRNN_POLL": "0"}
    env |= {"OTEL_SERVICE_NAME": "motions", "INDRNN_FRONTS": request.param, "INDRNN_GRPC_PORT": str(free_port())}
    server = Server(tmp_path_factory.mktemp("traced"), env).start()
    yield server
    server.stop()
    assert "Traceback" not in server.log()


def check_step(span: dict[str, Any], ident: str, step: int, protocol: str) -> None:
    """A step's span says what it was and how long it waited, ran and was stored, and no more of the session than a digest."""
    assert (span["trace"], span["above"]) == (TRACE, ABOVE)
    assert span["resource"]["service.name"] == "motions"
    assert (span["indrnn.model"], span["indrnn.protocol"], span["indrnn.step"]) == ("action", protocol, step)
    assert span["indrnn.length"] == 1
    assert span["indrnn.position"] == step
    assert span["indrnn.session"] == digest(ident)
    assert ident not in repr(span)
    parts = [span[f"indrnn.{name}_seconds"] for name in ("queue", "run", "store")]
    assert min(parts) >= 0
    assert span["indrnn.run_seconds"] > 0
    assert span["indrnn.store_seconds"] > 0
    assert sum(parts) == pytest.approx(span["indrnn.engine_seconds"])
    assert span["indrnn.engine_seconds"] <= span["seconds"] + 1e-3


def test_a_request_over_http_is_a_span(traced: Server, collector: Collector) -> None:
    with httpx.Client(base_url=traced.url, headers=PARENT) as client:
        ident = client.post("/sessions", json={"model": "action"}).json()["session_id"]
        for step in (1, 2):
            client.post("/predict", json={"sequences": [[FRAME]], "session_id": ident, "step": step}).raise_for_status()
        client.get(f"/sessions/{ident}")
        assert client.post("/predict", json={"sequences": [[FRAME]], "session_id": ident, "step": 9}).status_code == 409
        client.get("/health/live")
        client.get("/metrics")
    first, second, refused = collector.named("POST /predict", 3)[-3:]
    check_step(first, ident, 1, "http")
    check_step(second, ident, 2, "http")
    assert (second["http.response.status_code"], second["http.route"]) == (200, "/predict")
    assert (refused["http.response.status_code"], refused["error.type"]) == (409, "step_gap")
    (opened,) = collector.named("POST /sessions")[-1:]
    assert opened["indrnn.session"] == digest(ident)
    collector.named("GET /sessions/{session_id}")
    assert not [span for span in collector.spans if "health" in span["name"] or "metrics" in span["name"]]


def test_a_step_of_a_websocket_is_a_span_under_its_handshake(traced: Server, collector: Collector) -> None:
    url = f"ws://127.0.0.1:{traced.port}/stream/action"
    with connect(url, additional_headers=PARENT, compression=None) as stream:
        stream.send(orjson.dumps({"type": "open"}).decode())
        ident = orjson.loads(stream.recv())["session_id"]
        for step in (1, 2, 3):
            stream.send(orjson.dumps({"type": "step", "step": step, "frames": [FRAME]}).decode())
            assert orjson.loads(stream.recv())["step"] == step
    for step, span in enumerate(collector.named("stream step", 3)[-3:], 1):
        check_step(span, ident, step, "stream")


def test_a_request_of_the_short_way_of_v2_is_a_span(traced: Server, collector: Collector) -> None:
    x = {"name": "x", "datatype": "FP32", "shape": [1, 1, 1, 20, 3], "parameters": {"binary_data_size": 240}}
    head = orjson.dumps({"inputs": [x], "parameters": {"sequence_id": 7, "sequence_start": True}})
    body = head + np.array(FRAME, np.float32).tobytes()
    lines = [b"POST /v2/models/action/infer HTTP/1.1", b"host: x", b"content-length: %d" % len(body)]
    lines += [b"inference-header-content-length: %d" % len(head), b"traceparent: " + PARENT["traceparent"].encode(), b"", body]
    with socket.create_connection(("127.0.0.1", traced.port)) as connection:
        connection.sendall(b"\r\n".join(lines))  # in one piece: what comes in several goes the long way
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    (span,) = collector.named("oip_http step")[-1:]
    assert (span["trace"], span["above"], span["indrnn.step"], span["indrnn.request"]) == (TRACE, ABOVE, 1, "step")


def test_a_call_over_grpc_is_a_span_and_so_is_each_request_of_a_stream(traced: Server, collector: Collector) -> None:
    grpc = pytest.importorskip("tritonclient.grpc")
    client = grpc.InferenceServerClient(f"127.0.0.1:{traced.env['INDRNN_GRPC_PORT']}")
    x = grpc.InferInput("x", [1, 1, 1, 20, 3], "FP32")
    x.set_data_from_numpy(np.array(FRAME, np.float32)[None, None, None])
    answers: list[Any] = []
    try:
        client.infer("action", [x], sequence_id=8, sequence_start=True, headers=PARENT)
        client.start_stream(lambda result, error: answers.append(error or result), headers=PARENT)
        client.async_stream_infer("action", [x], sequence_id=9, sequence_start=True)
        client.stop_stream()
    finally:
        client.close()
    (call,) = collector.named("inference.GRPCInferenceService/ModelInfer")[-1:]
    assert (call["trace"], call["above"], call["rpc.method"], call["indrnn.step"]) == (TRACE, ABOVE, "ModelInfer", 1)
    (streamed,) = collector.named("oip_grpc step")[-1:]
    assert (streamed["trace"], streamed["above"], streamed["indrnn.step"]) == (TRACE, ABOVE, 1)


def test_what_is_asked_again_and_what_is_generated_end_their_spans(traced: Server, collector: Collector) -> None:
    with connect(f"ws://127.0.0.1:{traced.port}/stream/chars", compression=None) as stream:
        stream.send(orjson.dumps({"type": "open"}).decode())
        ident = orjson.loads(stream.recv())["session_id"]
        stream.send(orjson.dumps({"type": "generate", "step": 1, "max_chars": 5, "seed": 1}).decode())
        while orjson.loads(stream.recv())["type"] == "char":
            pass
    (span,) = [span for span in collector.named("stream generate") if span["indrnn.session"] == digest(ident)]
    assert (span["above"], span["indrnn.step"], span["indrnn.position"]) == ("", 1, 5)
    done = httpx.post(f"{traced.url}/v1/completions", json={"model": "chars", "prompt": ["a", "b"], "max_tokens": 3, "n": 2})
    assert done.status_code == 200
    (completed,) = collector.named("POST /v1/completions")[-1:]
    assert completed["indrnn.model"] == "chars"


def test_nothing_of_it_is_imported_where_it_is_off() -> None:
    """The redis package imports the API by itself, where that is there; the SDK and the exporter are ours to import."""
    ask = "import sys, indrnn.service.process; print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exp'))])"
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_without_the_packages_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INDRNN_OTEL", "1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"INDRNN_OTEL: .* is missing: pip install 'indrnn\[otel\]'"):
        open_tracing(read_settings())
