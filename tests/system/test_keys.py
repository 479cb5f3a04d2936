"""Who may come in, how often, from which page, and what they find."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.grpc as triton
from conftest import ROOT, VERSION, Server
from test_stream import ask, hear_all
from tritonclient.utils import InferenceServerException
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from indrnn.service.app import create_app
from indrnn.service.settings import Settings

Start = Callable[..., Server]
OPEN = {"/", "/health/live", "/health/ready", "/docs", "/openapi.json", "/metrics"}
BYTES = {"Content-Type": "application/octet-stream"}


def add_key(file: Path, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "indrnn", "key", name],
        cwd=ROOT,
        env={"INDRNN_KEYS": str(file), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@dataclass
class Guarded:
    """A service with two keys."""

    server: Server
    ann: httpx.Client
    bob: httpx.Client
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    secrets = {name: add_key(folder / "keys", name).stdout.strip() for name in ("ann", "bob")}
    server = Server(folder, {"INDRNN_KEYS": str(folder / "keys"), "INDRNN_GRPC_PORT": free_port()}).start()
    with (
        httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {secrets['ann']}"}, timeout=60) as ann,
        httpx.Client(base_url=server.url, headers={"X-API-Key": secrets["bob"]}, timeout=60) as bob,
    ):
        yield Guarded(server, ann, bob, secrets)
    server.stop()
    log = server.log()
    assert "Traceback" not in log
    assert not any(secret in log for secret in secrets.values())


def test_a_key_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    made = add_key(tmp_path / "keys", "ann")
    secret = made.stdout.strip()
    assert re.fullmatch(r"indrnn_[\w-]{43}", secret)
    assert re.fullmatch(r"ann:[0-9a-f]{64}\n", (tmp_path / "keys").read_text())
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0
    assert secret not in made.stderr
    assert add_key(tmp_path / "keys", "ann").stdout.strip() != secret
    assert len((tmp_path / "keys").read_text().splitlines()) == 2
    assert add_key(tmp_path / "keys", "a:b").returncode == 1


def test_a_service_with_a_broken_file_of_keys_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("ann:123\n")
    env = {"INDRNN_KEYS": str(tmp_path / "keys"), "INDRNN_STORE": str(tmp_path / "s.db"), "PORT": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "indrnn", "serve"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "keys: line 1: expected name:sha256" in done.stderr


def every_route(routes: Iterable[Any]) -> Iterator[tuple[str, set[str]]]:
    """Path and methods, also of the routers that FastAPI includes without flattening them."""
    for route in routes:
        if hasattr(route, "path"):
            yield route.path, getattr(route, "methods", None) or set()
        else:
            yield from every_route(route.original_router.routes)


def test_no_route_but_the_open_ones_answers_without_a_key(guarded: Guarded) -> None:
    asked = 0
    for path, methods in every_route(create_app(Settings()).routes):
        url = guarded.server.url + re.sub(r"\{[^}]+\}", "x", path)
        for method in methods - {"HEAD", "OPTIONS"}:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}):
                reply = httpx.request(method, url, headers=headers, timeout=60)
                if path in OPEN:
                    assert reply.status_code == 200, path
                    continue
                assert reply.status_code == 401, (method, path, reply.status_code)
                assert reply.headers["www-authenticate"] == "Bearer"
                asked += 1
    assert asked >= 3 * 10


def test_a_session_is_there_for_its_own_key_alone(guarded: Guarded, walk: list[Any]) -> None:
    ann, bob = guarded.ann, guarded.bob
    ident = ann.post("/sessions", json={"model": "action"}).json()["session_id"]
    body = {"sequences": [walk[:10]], "session_id": ident, "step": 1}
    assert ann.post("/predict", json=body).status_code == 200
    data = ann.get(f"/sessions/{ident}/state").content

    def strangers() -> Iterator[httpx.Response]:
        yield bob.get(f"/sessions/{ident}")
        yield bob.get(f"/sessions/{ident}/state")
        yield bob.put(f"/sessions/{ident}/state", content=data, headers=BYTES)
        yield bob.post(f"/sessions/{ident}/fork")
        yield bob.post(f"/sessions/{ident}/reset")
        yield bob.delete(f"/sessions/{ident}")
        yield bob.post("/predict", json=body)
        yield bob.post("/predict", json={**body, "model": "chars"})

    never_was = bob.get("/sessions/" + "A" * 28).json()
    for reply in strangers():
        assert (reply.status_code, reply.json()["code"]) == (404, "unknown_session")
        assert reply.json() == {**never_was, "detail": never_was["detail"].replace("A" * 28, ident)}
    assert ident not in [s["session_id"] for s in bob.get("/sessions").json()["sessions"]]
    assert ident in [s["session_id"] for s in ann.get("/sessions").json()["sessions"]]
    assert ann.post("/predict", json=body).json()["session"]["step"] == 1
    assert bob.post("/sessions", content=data, headers=BYTES).json()["step"] == 1  # who has the file has the state
    assert ann.delete(f"/sessions/{ident}").status_code == 204
    assert ann.get(f"/sessions/{ident}").status_code == 410
    for reply in strangers():
        assert reply.json()["code"] == "unknown_session"


def stream(guarded: Guarded, **more: Any) -> Any:
    return connect(f"ws://127.0.0.1:{guarded.server.port}/stream/chars", compression=None, **more)


def test_a_browser_sends_its_key_in_open(guarded: Guarded) -> None:
    with stream(guarded) as ws:
        assert ask(ws, type="open")["code"] == "unauthorized"
        assert ask(ws, type="open", api_key="wrong")["code"] == "unauthorized"
        assert ask(ws, type="step", step=1, text="x")["code"] == "invalid_input"
        ident = ask(ws, type="open", api_key=guarded.secrets["ann"])["session_id"]
        assert ask(ws, type="step", step=1, text="x")["step"] == 1
        ws.send(json.dumps({"type": "generate", "step": 2, "max_chars": 3, "seed": 1}))
        assert hear_all(ws)[-1]["type"] == "done"
    with stream(guarded) as ws:
        assert ask(ws, type="open", session_id=ident, api_key=guarded.secrets["bob"])["code"] == "unknown_session"
        assert ask(ws, type="open", session_id=ident, api_key=guarded.secrets["ann"])["step"] == 2
    with stream(guarded, additional_headers={"X-API-Key": guarded.secrets["ann"]}) as ws:
        assert ask(ws, type="open", session_id=ident)["step"] == 2


def symbols(**parameters: Any) -> dict[str, Any]:
    """A step of chars in the Open Inference Protocol."""
    x = {"name": "x", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]}
    return {"inputs": [x], "outputs": [{"name": "logits"}], "parameters": parameters}


def test_the_other_protocols_know_the_keys_too(guarded: Guarded) -> None:
    url, infer = guarded.server.url, "/v2/models/chars/infer"
    for path in ("/v2", "/v2/models/chars", "/v2/models/chars/config", "/v2/models/stats", "/v2/nope"):
        assert (httpx.get(url + path).status_code, "error" in httpx.get(url + path).json()) == (401, True)
    assert httpx.post(url + "/v2/repository/index", json={}).status_code == 401
    assert httpx.post(url + infer, json=symbols()).status_code == 401
    assert httpx.get(url + "/v2/health/ready").status_code == 200
    assert guarded.ann.post(infer, json=symbols(sequence_id=5, sequence_start=True, indrnn_step=1)).status_code == 200
    assert guarded.ann.post(infer, json=symbols(sequence_id=5, indrnn_step=2)).status_code == 200
    strange = guarded.bob.post(infer, json=symbols(sequence_id=5, indrnn_step=3))
    assert (strange.status_code, "START" in strange.json()["error"]) == (400, True)
    assert httpx.get(url + "/v1/models").json()["error"]["code"] == "unauthorized"
    assert guarded.bob.get("/v1/models").json()["data"][0]["id"] == "chars"


def test_grpc_knows_the_keys_in_its_metadata(guarded: Guarded) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{guarded.server.env['INDRNN_GRPC_PORT']}")
    assert client.is_server_live()
    for headers in (None, {"x-api-key": "wrong"}):
        with pytest.raises(InferenceServerException) as caught:
            client.get_model_metadata("chars", headers=headers)
        assert "UNAUTHENTICATED" in str(caught.value.status())
    assert client.get_model_metadata("chars", headers={"authorization": f"Bearer {guarded.secrets['ann']}"}).name == "chars"
    client.close()


def test_a_rate_is_one_for_all_protocols(own_server: Start) -> None:
    server = own_server(INDRNN_MAX_STEPS_PER_SECOND="0.01")
    with server.socket("chars") as ws:
        ask(ws, type="open")
        assert ask(ws, type="step", step=1, text="x")["type"] == "result"
        assert ask(ws, type="step", step=2, text="x")["code"] == "rate_limited"
        assert ask(ws, type="generate", step=2)["code"] == "rate_limited"
    for path, body in (
        ("/predict", {"sequences": [[[[0, 0, 0]] * 20]]}),
        ("/v2/models/chars/infer", symbols()),
        ("/v2/models/chars/infer", symbols(sequence_id=5, sequence_start=True)),
        ("/v1/completions", {"model": "chars", "prompt": "x", "max_tokens": 1}),
    ):
        refused = server.post(path, body)
        assert (path, refused.status_code) == (path, 429)
        assert int(refused.headers["retry-after"]) >= 1


def test_a_stream_is_opened_by_pages_of_this_host_and_allowed_ones(own_server: Start) -> None:
    server = own_server(INDRNN_ORIGINS="https://front.example")
    url = f"ws://127.0.0.1:{server.port}/stream/chars"
    for origin in (None, server.url, "https://front.example"):
        with connect(url, origin=origin, compression=None) as ws:  # type: ignore[arg-type]
            assert ask(ws, type="open")["type"] == "opened"
    for origin in ("https://evil.example", "null", f"http://localhost:{server.port}"):
        with pytest.raises(InvalidStatus, match="403"), connect(url, origin=origin):  # type: ignore[arg-type]
            pass


PAGE = "https://front.example"
SYMBOL = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [1]}]}


def asks(server: Server, method: str, path: str, origin: str | None, **more: Any) -> httpx.Response:
    headers = {"Origin": origin} if origin else {}
    if method == "OPTIONS":
        headers |= {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    return httpx.request(method, server.url + path, headers=headers, timeout=30, **more)


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("POST", "/v2/models/chars/infer", {"json": SYMBOL}, 200),
        ("POST", "/v2/models/nothing/infer", {"json": SYMBOL}, 404),
        ("POST", "/v1/completions", {"json": {"model": "chars", "prompt": "a", "max_tokens": 1}}, 200),
        ("POST", "/predict", {"content": b"{"}, 400),
        ("GET", "/models", {}, 200),
        ("OPTIONS", "/v2/models/chars/infer", {}, 200),
        ("OPTIONS", "/sessions", {}, 200),
    ],
)
def test_allowed_pages_may_read_answers_and_others_not(
    front: Server, server: Server, method: str, path: str, more: dict[str, Any], status: int
) -> None:
    allowed = asks(front, method, path, PAGE, **more)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (status, PAGE)
    assert "Origin" in allowed.headers["vary"]
    for where, origin in ((front, "https://evil.example"), (front, None), (server, PAGE)):
        assert "access-control-allow-origin" not in asks(where, method, path, origin, **more).headers


def test_without_a_list_an_origin_changes_nothing(server: Server) -> None:
    plain, named = (asks(server, "POST", "/v2/models/chars/infer", origin, json=SYMBOL) for origin in (None, PAGE))
    assert plain.content == named.content
    assert plain.headers.keys() == named.headers.keys()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that a page of another host may call."""
    made = Server(tmp_path_factory.mktemp("front"), {"INDRNN_ORIGINS": PAGE}).start()
    yield made
    assert made.stop() in (0, -signal.SIGTERM), made.log()


def test_more_steps_or_sessions_than_a_key_may_have_are_429(own_server: Start, walk: list[Any]) -> None:
    server = own_server(INDRNN_MAX_SESSIONS="2", INDRNN_MAX_STEPS_PER_SECOND="0.5")
    first, second = (server.post("/sessions", {"model": "action"}).json()["session_id"] for _ in range(2))
    data = server.get(f"/sessions/{first}/state").content
    for reply in (
        server.post("/sessions", {"model": "action"}),
        server.post(f"/sessions/{first}/fork", None),
        httpx.post(f"{server.url}/sessions", content=data, headers=BYTES),
    ):
        assert (reply.status_code, reply.json()["code"]) == (429, "session_limit")
        assert int(reply.headers["retry-after"]) >= 1
    httpx.delete(f"{server.url}/sessions/{second}")
    assert server.post(f"/sessions/{first}/fork", None).status_code == 201
    body = {"sequences": [walk[:5]], "session_id": first}
    assert server.post("/predict", {**body, "step": 1}).status_code == 200
    refused = server.post("/predict", {**body, "step": 2})
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (429, "rate_limited", "2")
    assert server.post("/predict", {"sequences": [walk[:5]]}).json()["code"] == "rate_limited"
    with server.socket("chars") as ws:
        assert ask(ws, type="open")["code"] == "session_limit"
    deadline = time.monotonic() + 30
    while (reply := server.post("/predict", {**body, "step": 2})).status_code == 429 and time.monotonic() < deadline:
        pass
    assert reply.json()["session"]["step"] == 2  # a refused step has left its number free


def test_head_is_answered_as_get_without_the_body(server: Server) -> None:
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    for path in ("/health/live", "/models", "/sessions", f"/sessions/{ident}", f"/sessions/{ident}/state", "/docs", "/openapi.json"):
        asked, told = httpx.head(server.url + path), server.get(path)
        assert (asked.status_code, asked.content) == (200, b"")
        assert asked.headers["content-length"] == told.headers["content-length"]
    assert httpx.head(server.url + "/predict").status_code == 405
    assert httpx.head(server.url + "/nope").status_code == 404


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n", b"GET /stream/chars HTTP/1.1\r\nUpgrade: websocket\r\n"],
    ids=["nothing", "half a request", "half a handshake"],
)
def test_who_does_not_say_what_he_wants_is_not_kept(own_server: Start, said: bytes) -> None:
    server = own_server(INDRNN_HEADER_TIMEOUT="0.5")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
        s.sendall(said)
        assert s.recv(1000) == b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:  # and again after a good request
        s.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += s.recv(1000)
        s.sendall(said or b"\r\n")
        assert s.recv(1000) == b""


def test_a_key_s_header_that_stands_twice_is_refused_on_every_way(server: Server) -> None:
    """Else a proxy that adds the key of whom it has let in would be believed by one protocol, and the client by the other."""
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    for first in (b"POST /predict", b"POST /v2/models/chars/infer", b"GET /stream/chars"):
        for name in (b"X-API-Key", b"Authorization"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
                more = upgrade if first.startswith(b"GET") else b"Content-Length: 2\r\n"
                twice = b"%b: Bearer a\r\n%b: Bearer b\r\n" % (name, name.lower())
                s.sendall(first + b" HTTP/1.1\r\nHost: x\r\n" + more + twice + b"\r\n" + (b"" if first.startswith(b"GET") else b"{}"))
                answer = b""
                while b"got it twice" not in answer and (piece := s.recv(4096)):
                    answer += piece
                assert answer.startswith(b"HTTP/1.1 400"), (first, name, answer)
                assert b"expected %b once" % name.lower() in answer


def test_a_router_s_header_that_can_be_no_session_is_not_told_back(server: Server) -> None:
    for length, told in ((200, True), (201, False), (4000, False)):
        answer = httpx.get(server.url + "/health/live", headers={"x-session-id": "a" * length})
        assert (answer.status_code, "x-session-id" in answer.headers) == (200, told)


def test_a_stream_that_opens_nothing_is_not_kept_and_one_that_has_is(own_server: Start) -> None:
    server = own_server(INDRNN_BODY_TIMEOUT="0.5", INDRNN_HEADER_TIMEOUT="0.5")
    with server.socket("chars") as opened, server.socket("chars") as silent:
        ask(opened, type="open")
        with pytest.raises(ConnectionClosedError, match="expected an open message"):
            silent.recv(20)
        assert ask(opened, type="step", step=1, text="x")["step"] == 1


def test_the_documentation_loads_nothing_from_elsewhere(server: Server) -> None:
    page = server.get("/docs")
    assert page.status_code == 200
    assert "connect-src 'self'" in page.headers["content-security-policy"]
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!openapi\.json)[^"'\s>]+""", page.text) == []
    assert "//" not in re.sub(r"^\s*//.*$", "", page.text, flags=re.MULTILINE).replace("<!doctype", "")


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_browser_shows_every_route_of_the_documentation(server: Server, tmp_path: Path) -> None:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--virtual-time-budget=10000"]
    shown = subprocess.run([*command, "--dump-dom", server.url + "/docs"], capture_output=True, text=True, timeout=120).stdout
    for path, methods in server.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"<b>{method.upper()}</b><code>{path}</code>" in shown


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "action/../../..", "%2e%2e%2f%2e%2e", "action%00", "/etc/passwd", "a" * 5000])
def test_names_reach_nothing_but_loaded_models(server: Server, name: str) -> None:
    quoted = httpx.URL(server.url).copy_with(raw_path=b"/models/" + name.encode())
    found = httpx.get(quoted)
    assert found.status_code == 404 or found.request.url.path == "/", "a path that leads back to the page names no model"
    assert server.post("/sessions", {"model": name}).json()["code"] == "unknown_model"
    assert server.post("/sessions", {"model": "action", "version": name}).json()["field"] == "version"
    assert server.get("/sessions/" + name.replace("/", "%2f") + "/state").status_code == 404


def test_a_version_may_be_asked_for(server: Server, walk: list[Any]) -> None:
    assert server.post("/predict", {"sequences": [walk], "version": VERSION}).json()["version"] == VERSION
    ident = server.post("/sessions", {"model": "action", "version": VERSION}).json()["session_id"]
    body = {"sequences": [walk], "session_id": ident, "step": 1}
    wrong = server.post("/predict", {**body, "version": "99"})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "version")
    assert server.post("/predict", {**body, "version": VERSION}).status_code == 200
    for version in ("99", 1, []):
        unknown = server.post("/predict", {"sequences": [walk], "version": version})
        assert (unknown.status_code, unknown.json()["code"], unknown.json()["field"]) == (404, "unknown_model", "version")
    with server.socket("action") as ws:
        assert ask(ws, type="open", version="7")["field"] == "version"
        assert ask(ws, type="open", version=VERSION, session_id=ident)["version"] == VERSION


def test_keys_come_and_go_without_a_restart(own_server: Start, tmp_path: Path) -> None:
    """Also on a connection that is known already; a file that cannot be used changes nothing."""
    file = tmp_path / "keys"
    ann = add_key(file, "ann").stdout.strip()
    server = own_server(INDRNN_KEYS=str(file), INDRNN_POLL="0.1")
    line = file.read_text()

    def becomes(client: httpx.Client, secret: str, status: int) -> None:
        end = time.monotonic() + 20
        headers = {"Authorization": f"Bearer {secret}"}
        while client.post("/v2/models/chars/infer", json=SYMBOL, headers=headers).status_code != status:
            assert time.monotonic() < end, f"not {status} in time"
            time.sleep(0.05)

    with httpx.Client(base_url=server.url, timeout=30) as client, server.socket("chars") as ws:
        becomes(client, ann, 200)
        assert ask(ws, type="open", api_key=ann)["type"] == "opened"
        bob = add_key(file, "bob").stdout.strip()
        becomes(client, bob, 200)
        file.write_text(file.read_text() + "no key\n")
        while "the keys stay those of before" not in server.log():
            time.sleep(0.05)
        becomes(client, ann, 200)
        file.write_text(file.read_text().removeprefix(line).removesuffix("no key\n"))
        becomes(client, ann, 401)
        becomes(client, bob, 200)
        kept = file.read_text()
        file.unlink()
        os.mkfifo(file)  # who opens it would wait for ever, and look at no file again
        while "expected a regular file" not in server.log():
            time.sleep(0.05)
        becomes(client, bob, 200)
        file.unlink()
        file.write_text(line)
        becomes(client, bob, 401)
        file.write_text(kept + line)
        becomes(client, bob, 200)
        assert ask(ws, type="step", step=1, text="x")["type"] == "result"


@pytest.mark.parametrize("path", ["/stream/chars", "/nowhere"])
def test_a_key_in_the_wrong_place_is_not_logged(guarded: Guarded, path: str) -> None:
    """The fixture looks for every key in the log at its end."""
    key = base64.b64encode(bytes(16)).decode()
    with socket.create_connection(("127.0.0.1", guarded.server.port), timeout=30) as sock:
        sock.sendall(
            f"GET {path}?api_key={guarded.secrets['ann']} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert sock.recv(12).startswith(b"HTTP/1.1 ")
    until = time.monotonic() + 30
    while f'"WebSocket {path}"' not in guarded.server.log():
        assert time.monotonic() < until, "its line"
    assert guarded.secrets["ann"] not in guarded.server.log()
