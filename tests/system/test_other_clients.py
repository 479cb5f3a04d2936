"""What clients send that were written for other servers, or by a program that knows every field: it means here what it means there."""

import ast
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from conftest import ROOT, VERSION, Server
from pydantic import BaseModel
from test_stream import ask
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from indrnn.service.http import schema
from indrnn.service.oip.openapi import SCHEMAS
from indrnn.service.openai.schema import CompletionRequest, StreamOptions
from indrnn.service.serving.request import new_key

FRAME = np.zeros((20, 3)).tolist()
CLIP = {"sequences": [[FRAME, FRAME]]}
PROMPT = {"model": "chars", "prompt": "a", "max_tokens": 2, "seed": 1}
SYMBOLS = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "INT64", "data": [20, 47, 1]}]}
INFER = "/v2/models/chars/infer"
PREFIX = "/somewhere/below"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A service with keys, shown below a path by a proxy, that lets the pages of no other host in; and a key."""
    folder = tmp_path_factory.mktemp("guarded")
    secret, line = new_key("ann")
    (folder / "keys").write_text(line)
    made = Server(folder, {"INDRNN_KEYS": str(folder / "keys"), "INDRNN_ROOT_PATH": PREFIX}).start()
    yield made, secret
    made.stop()
    assert "Traceback" not in made.log()


# --- null is as if it were not there -----------------------------------------------------------------------------------------------------


def nulls(shape: type[BaseModel], without: tuple[str, ...] = ()) -> dict[str, None]:
    """Every field of a request that need not be there, as null."""
    return {name: None for name, field in shape.model_fields.items() if not field.is_required() and name not in without}


BODIES: dict[type[BaseModel], dict[str, Any]] = {
    schema.PredictRequest: CLIP,
    schema.OpenRequest: {"model": "chars"},
    schema.RewindBody: {"step": 0},
    schema.MarkBody: {"mark": "here"},
    CompletionRequest: PROMPT,
    StreamOptions: {"include_usage": True},
}


@pytest.mark.parametrize("shape", BODIES)
def test_the_shapes_take_null_where_a_field_need_not_be_there(shape: type[BaseModel]) -> None:
    shape.model_validate({**nulls(shape), **BODIES[shape]})


def test_every_request_may_have_null_in_every_field_that_it_need_not_have(server: Server) -> None:
    plain = server.post("/predict", CLIP)
    assert plain.status_code == 200
    assert server.post("/predict", {**nulls(schema.PredictRequest), **CLIP}).json() == plain.json()
    opened = server.post("/sessions", {**nulls(schema.OpenRequest), "model": "chars"})
    assert (opened.status_code, opened.json()["step"]) == (201, 0)
    ident = server.post("/sessions", {"model": "chars", "keep": 2}).json()["session_id"]
    assert server.post(f"/sessions/{ident}/mark", {**nulls(schema.MarkBody), "mark": "here"}).json()["marks"] == {"here": 0}
    assert server.post(f"/sessions/{ident}/rewind", {**nulls(schema.RewindBody), "mark": "here"}).json()["rewound_to"] == 0
    wish = server.post("/v1/completions", {**nulls(CompletionRequest), **PROMPT, "response_format": None, "tools": None}).json()
    assert wish["choices"] == server.post("/v1/completions", PROMPT).json()["choices"]


def with_nulls(described: dict[str, Any], value: Any) -> Any:
    """A value of a schema with null in each property that it has not, below too."""
    if "properties" in described and isinstance(value, dict):
        return {n: with_nulls(p, value[n]) if n in value else None for n, p in described["properties"].items()}
    return [with_nulls(described["items"], v) for v in value] if described.get("items") else value


def test_so_may_an_inference_request_at_every_depth(server: Server) -> None:
    asked = with_nulls(SCHEMAS["InferenceRequest"], {**SYMBOLS, "outputs": [{"name": "logits"}], "parameters": {}})
    asked["outputs"] = [{**asked["outputs"][0], "parameters": {"binary_data": None, "classification": None}}]
    assert asked["id"] is None
    assert asked["parameters"]["sequence_id"] is asked["parameters"]["timeout"] is asked["inputs"][0]["parameters"] is None
    raw = {**SYMBOLS["inputs"][0], "data": None, "parameters": {"binary_data_size": 24, "shared_memory_region": None}}
    binary = orjson.dumps({**asked, "inputs": [{n: v for n, v in raw.items() if n != "data"} | {"data": None}]})
    headers = {"Inference-Header-Content-Length": str(len(binary))}
    plain = server.post(INFER, SYMBOLS)
    assert plain.status_code == 200
    assert server.post(INFER, asked).content == plain.content
    assert server.post(INFER, {**asked, "parameters": None, "outputs": None}).content == plain.content
    symbols = np.array([20, 47, 1], np.int64).tobytes()
    assert httpx.post(server.url + INFER, content=binary + symbols, headers=headers).content == plain.content
    assert (
        httpx.post(server.url + INFER, content=binary + symbols, headers={**headers, "Accept-Encoding": "identity"}).content
        == plain.content
    )
    index = server.post("/v2/repository/index", {}).json()
    for body in (None, {"ready": None}):
        assert server.post("/v2/repository/index", body).json() == index


def messages() -> dict[str, list[str]]:
    """The fields of each kind of message that the stream reads, from the source: `only(message, (…))` of each method."""
    source = ast.parse((ROOT / "service/stream/socket.py").read_text())
    found = {}
    for method in (n for n in ast.walk(source) if isinstance(n, ast.AsyncFunctionDef)):
        for call in (n for n in ast.walk(method) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "only"):
            fields = call.args[1]
            found[method.name] = [e.value for e in fields.elts if isinstance(e, ast.Constant)] if isinstance(fields, ast.Tuple) else []
    return found


def test_so_may_every_message_of_the_stream_also_with_the_fields_of_the_others(server: Server) -> None:
    fields = messages()
    assert {"_open", "_step", "_generate", "_cancel", "_start_watching"} <= fields.keys()
    every = dict.fromkeys(name for names in fields.values() for name in names)
    assert {"session_id", "keep", "seed", "neurons", "step"} <= every.keys()
    with server.socket("chars") as ws:
        assert ask(ws, **{**every, "type": "open"})["type"] == "opened"
        assert ask(ws, **{**every, "frames": None, "type": "step", "text": "a"})["step"] == 1
        assert ask(ws, **{**every, "type": "watch"})["type"] == "watching"
        ws.send(json.dumps({**every, "type": "generate", "max_chars": 1}))
        assert [json.loads(ws.recv(30))["type"] for _ in range(2)] == ["char", "done"]
        assert ask(ws, type="step", text="a", frame=1)["field"] == "frame", "what is misspelt and asks for something is refused"


# --- what asks for nothing ----------------------------------------------------------------------------------------------------------------


def test_completions_take_what_other_servers_clients_send_by_default(server: Server) -> None:
    plain = server.post("/v1/completions", PROMPT).json()["choices"]
    for asks_nothing in (
        {"top_k": -1, "min_p": 0, "repetition_penalty": 1.0},
        {"response_format": {"type": "text"}, "store": False, "metadata": {}},
        {"stream_options": {}, "stream": None},
        {"stream_options": {"include_usage": False, "include_obfuscation": False}},
    ):
        reply = server.post("/v1/completions", {**PROMPT, **asks_nothing})
        assert (reply.status_code, reply.json().get("choices")) == (200, plain), asks_nothing
    chunks = server.post("/v1/completions", {**PROMPT, "stream": True, "stream_options": {"include_obfuscation": True}})
    assert chunks.text.endswith("data: [DONE]\n\n")
    for field, value in {"top_k": 3, "min_p": 0.1, "response_format": {"type": "json_object"}, "min_tokens": False}.items():
        refused = server.post("/v1/completions", {**PROMPT, field: value})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize("digits", [20, 30, 309, 400, 5_000])
def test_a_seed_of_many_digits_is_told_by_name_and_in_words_of_its_own(server: Server, digits: int) -> None:
    body = json.dumps({**PROMPT, "seed": "here"}).replace('"here"', "9" * digits)
    error = httpx.post(f"{server.url}/v1/completions", content=body).json()["error"]
    assert (error["param"], "joint" in error["message"]) == ("seed", False)
    assert (f"{digits} digits" if digits > 308 else "expected a whole number from") in error["message"]
    with server.socket("chars") as ws:
        ask(ws, type="open")
        ws.send(json.dumps({"type": "generate", "seed": "here"}).replace('"here"', "9" * digits))
        told = json.loads(ws.recv(30))
    assert (told["type"], told["field"], "joint" in told["detail"]) == ("error", "seed", False)


@pytest.mark.parametrize("timeout", [0, None, 10**6, 2**63, 2**64 - 1])
def test_a_timeout_is_microseconds_none_at_0_and_never_more_than_the_services_own(server: Server, timeout: int | None) -> None:
    assert server.post(INFER, {**SYMBOLS, "parameters": {"timeout": timeout}}).status_code == 200


@pytest.mark.parametrize("timeout", [-1, 1.0, "1000", True, 2**64])
def test_a_timeout_that_is_no_number_of_microseconds_is_refused(server: Server, timeout: object) -> None:
    refused = server.post(INFER, {**SYMBOLS, "parameters": {"timeout": timeout}})
    assert (refused.status_code, "parameter 'timeout'" in refused.json()["error"]) == (400, True)


def test_the_configuration_says_of_every_input_whether_it_may_be_left_out(server: Server) -> None:
    for model in ("action", "chars"):
        config = server.get(f"/v2/models/{model}/config").json()
        metadata = server.get(f"/v2/models/{model}").json()
        assert [(i["name"], i["optional"]) for i in config["input"]] == [("x", False)]
        assert {i["name"] for i in config["input"]} == {i["name"] for i in metadata["inputs"]}, "Triton's load tool wants it so"
        rest = json.loads(config["parameters"]["optional"]["string_value"])
        assert {(i["name"], i["optional"]) for i in rest} == {("lengths", True), ("state", True), ("state_out", True)}


@pytest.mark.parametrize("ident", [42, "camera 3", "é", 2**64 - 1])
def test_a_sequence_that_has_not_begun_is_named_as_triton_names_it(server: Server, ident: int | str) -> None:
    asked = {**SYMBOLS, "parameters": {"sequence_id": ident}}
    for headers in ({}, {"Accept-Encoding": "identity"}):  # the short way and the long one
        error = httpx.post(server.url + INFER, json=asked, headers=headers).json()["error"]
        words = "must specify the START flag on the first request of the sequence"
        assert error == f"inference request for sequence {ident} to model 'chars' {words}"


# --- compressed bodies --------------------------------------------------------------------------------------------------------------------


def members(body: bytes) -> bytes:
    return gzip.compress(body[:50]) + gzip.compress(body[50:])


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("x-gzip", members), ("deflate", zlib.compress)])
def test_bodies_of_every_protocol_may_be_compressed(server: Server, name: str, pack: Callable[[bytes], bytes]) -> None:
    for path, body in (("/predict", CLIP), ("/v1/completions", PROMPT), (INFER, SYMBOLS), ("/sessions", {"model": "chars"})):
        reply = httpx.post(server.url + path, content=pack(orjson.dumps(body)), headers={"Content-Encoding": name}, timeout=60)
        assert reply.status_code == (201 if path == "/sessions" else 200), reply.text
    ident = server.post("/sessions", {"model": "chars"}).json()["session_id"]
    state = server.get(f"/sessions/{ident}/state").content
    put = httpx.put(f"{server.url}/sessions/{ident}/state", content=pack(state), headers={"Content-Encoding": name}, timeout=60)
    assert (put.status_code, put.json()["session_id"]) == (200, ident)


def test_other_encodings_are_named_and_so_is_what_is_taken(server: Server) -> None:
    for path, body in (("/predict", CLIP), ("/v1/completions", PROMPT), ("/sessions", {"model": "chars"})):
        reply = httpx.post(server.url + path, json=body, headers={"Content-Encoding": "br"})
        assert (reply.status_code, reply.headers["accept-encoding"]) == (415, "gzip, deflate")
        assert "'br', expected one of gzip, deflate" in reply.text
        assert "unsupported_encoding" in reply.text
    assert httpx.post(server.url + INFER, json=SYMBOLS, headers={"Content-Encoding": "br"}).status_code == 501, "as Triton says it"
    broken = httpx.post(f"{server.url}/predict", json=CLIP, headers={"Content-Encoding": "gzip"})
    assert (broken.status_code, "cannot be decompressed as gzip" in broken.json()["detail"]) == (422, True)
    bomb = gzip.compress(bytes(17 * 2**20))
    large = httpx.post(f"{server.url}/predict", content=bomb, headers={"Content-Encoding": "gzip"})
    assert (large.status_code, "after decompression" in large.json()["detail"]) == (413, True)


# --- addresses and methods -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/sessions", "GET, HEAD, POST"),
        ("POST", "/sessions/x", "GET, HEAD, DELETE"),
        ("PATCH", "/sessions/x/state", "GET, HEAD, PUT"),
        ("GET", "/predict", "POST"),
        ("POST", "/models", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
        ("PUT", "/v1/models", "GET, HEAD"),
        ("POST", "/v2/models/chars", "GET, HEAD"),
        ("GET", INFER, "POST"),
    ],
)
def test_a_wrong_method_is_told_every_right_one(server: Server, method: str, path: str, allowed: str) -> None:
    reply = httpx.request(method, server.url + path)
    assert (reply.status_code, reply.headers["allow"]) == (405, allowed)
    assert f"expected {allowed} for {path}, got {method}" in reply.text


@pytest.mark.parametrize("path", ["/v1/models/chars:predict", "/v1/models/nothing:classify", "/v1/models/chars/versions/1:predict"])
def test_the_methods_of_tensorflow_serving_are_not_there(server: Server, path: str) -> None:
    reply = server.post(path, {"instances": [1]})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert f"there is nothing at {path}" in reply.json()["error"]["message"]
    assert server.get(path).status_code == 404


def test_a_version_as_a_number_is_told_that_it_is_a_text(server: Server) -> None:
    said = server.post("/predict", {**CLIP, "version": int(VERSION)}).json()
    expected = f"expected one of {VERSION}, as a text, got the number {VERSION}"
    assert (said["code"], said["field"], said["detail"]) == ("unknown_model", "version", expected)


def denied(url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """The status and the body with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as caught, connect(url, compression=None, **options):
        pass
    response = caught.value.response
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, json.loads(response.body or b"")


def test_a_refused_handshake_says_why_to_the_client_and_in_the_log(guarded: tuple[Server, str]) -> None:
    server, secret = guarded
    at = f"ws://127.0.0.1:{server.port}"
    cases: list[tuple[str, dict[str, Any], int, str, str]] = [
        ("/streams/chars", {}, 404, "not_found", "there is no stream at /streams/chars: expected /stream/MODEL"),
        ("/stream/chars", {"origin": "https://evil.example"}, 403, "forbidden_origin", "got one of 'https://evil.example'"),
        ("/stream/chars", {"additional_headers": {"Authorization": "Bearer guessed"}}, 401, "unauthorized", "known here, got another"),
        ("/stream/chars", {"additional_headers": {"X-API-Key": "guessed"}}, 401, "unauthorized", "known here, got another"),
    ]
    for path, options, status, code, words in cases:
        answered, body = denied(at + path, **options)
        assert (answered, body["status"], body["code"]) == (status, status, code)
        assert words in body["detail"]
        assert f"a stream was refused: {body['detail']}" in server.log()
    assert "guessed" not in server.log()
    for headers in ({"Authorization": f"Bearer {secret}"}, {"Authorization": "Basic eDp5"}, {}):
        with connect(f"{at}/stream/chars", additional_headers=headers, compression=None) as ws:
            assert ask(ws, type="open", api_key=secret)["type"] == "opened"
    plain = httpx.get(f"{server.url}/stream/chars")
    assert (plain.status_code, "expected a WebSocket's handshake, got GET" in plain.json()["detail"]) == (404, True)
    assert " ERROR " not in server.log()


def test_behind_a_proxy_every_protocol_is_found_below_its_path_whether_the_proxy_leaves_that_or_not(guarded: tuple[Server, str]) -> None:
    server, secret = guarded
    key = {"X-API-Key": secret}
    for below in ("", PREFIX):
        assert httpx.get(server.url + below + "/health/live").status_code == 200
        assert httpx.post(server.url + below + "/predict", json=CLIP, headers=key).status_code == 200
        assert httpx.post(server.url + below + INFER, json=SYMBOLS, headers=key).status_code == 200
        assert httpx.get(server.url + below + "/v1/nothing").json()["error"]["code"] == "not_found"
        assert httpx.get(server.url + below + "/openapi.json").json()["servers"] == [{"url": PREFIX}]
        assert 'fetch("openapi.json")' in httpx.get(server.url + below + "/docs").text
        with connect(f"ws://127.0.0.1:{server.port}{below}/stream/chars", compression=None) as ws:
            assert ask(ws, type="open", api_key=secret)["type"] == "opened"


@pytest.mark.parametrize(("sent", "shown"), [("/api", "/api"), ("/a/b/", "/a/b"), ("//evil.example", None), ("/a b", None), ("x", None)])
def test_a_proxy_may_say_its_path_with_each_request(server: Server, sent: str, shown: str | None) -> None:
    told = httpx.get(f"{server.url}/openapi.json", headers={"X-Forwarded-Prefix": sent}).json()
    assert told.get("servers") == (shown and [{"url": shown}])
    assert "servers" not in server.get("/openapi.json").json(), "nobody else is told"
