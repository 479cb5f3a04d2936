"""Every way to be wrong has an answer that names the field, what was expected and what came, and leaves the session as it was."""

import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Server

FRAME = np.zeros((20, 3)).tolist()


def broken(change: Callable[[list[Any]], Any]) -> list[Any]:
    clip = [[list(j) for j in FRAME] for _ in range(5)]
    change(clip)
    return clip


def deep(n: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(n):
        nested = [nested]
    return nested


CASES: list[tuple[str, dict[str, Any], int, str, str | None, str]] = [
    ("joints", {"sequences": [broken(lambda c: c[3].pop())]}, 422, "invalid_input", "sequences[0][3]", "expected 20 joints, got 19"),
    ("ragged", {"sequences": [broken(lambda c: c[2][4].pop())]}, 422, "invalid_input", "sequences[0][2][4]", "got 2 elements"),
    ("far", {"sequences": [broken(lambda c: c[1][2].__setitem__(0, 1e30))]}, 422, "out_of_range", "sequences[0][1][2][0]", "got 1e+30"),
    ("empty clip", {"sequences": [[]]}, 422, "invalid_input", "sequences[0]", "expected a list of frames"),
    ("no clip", {"sequences": []}, 422, "invalid_input", "sequences", "expected a list of clips"),
    ("nothing", {}, 422, "invalid_input", "sequences", "got null"),
    ("text", {"sequences": ["to be"]}, 422, "invalid_input", "sequences[0]", "got 'to be'"),
    ("second clip", {"sequences": [[FRAME], [FRAME[:3]]]}, 422, "invalid_input", "sequences[1][0]", "expected 20 joints, got 3"),
    ("long clip", {"sequences": [[FRAME] * 5001]}, 413, "too_large", "sequences[0]", "at most 5000 frames, got 5001"),
    ("many clips", {"sequences": [[FRAME]] * 257}, 413, "too_large", "sequences", "at most 256 sequences, got 257"),
    ("model", {"sequences": [[FRAME]], "model": "nope"}, 404, "unknown_model", "model", "expected one of action, chars, got 'nope'"),
    ("chars", {"sequences": [[FRAME]], "model": "chars"}, 422, "invalid_input", None, "reads text, not frames"),
    ("layout", {"sequences": [[FRAME]], "layout": "x9"}, 422, "invalid_input", "layout", "expected one of utd20, kinect20, ntu25"),
    ("hz", {"sequences": [[FRAME]], "hz": 0}, 422, "invalid_input", "hz", "got 0"),
    ("top_k", {"sequences": [[FRAME]], "top_k": 0}, 422, "invalid_input", "top_k", "got 0"),
    ("misspelt", {"sequences": [[FRAME]], "topk": 2}, 422, "invalid_input", "topk", "unknown field"),
    ("session", {"sequences": [[FRAME]], "session_id": "A" * 28}, 404, "unknown_session", None, "there is no session"),
    ("session type", {"sequences": [[FRAME]], "session_id": 7}, 422, "invalid_input", "session_id", "got 7"),
    ("slow", {"sequences": [[FRAME] * 200], "hz": 1}, 413, "too_large", "hz", "at most 166 frames at 1 a second, got 200"),
    ("deep", {"sequences": [[FRAME]], "hz": deep(900)}, 422, "invalid_input", "hz", "got a list of 1"),
    ("boolean", {"sequences": [broken(lambda c: c[1][2].__setitem__(0, True))]}, 422, "invalid_input", "sequences[0][1][2][0]", "got true"),
    ("step alone", {"sequences": [[FRAME]], "step": 1}, 422, "invalid_input", "step", "expected a session_id"),
]


@pytest.mark.parametrize(("body", "status", "code", "field", "said"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_predict_says_what_is_wrong(server: Server, body: dict[str, Any], status: int, code: str, field: str | None, said: str) -> None:
    reply = server.post("/predict", body)
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert (reply.status_code, problem["status"], problem["code"], problem.get("field")) == (status, status, code, field)
    assert said in problem["detail"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_refused_and_not_echoed(server: Server, number: str) -> None:
    raw = json.dumps({"sequences": [[FRAME]]}).replace("0.0", number, 1)
    reply = httpx.post(server.url + "/predict", content=raw)
    assert (reply.status_code, reply.json()["code"], reply.json()["field"]) == (422, "not_finite", "sequences[0][0][0][0]")
    json.loads(reply.text, parse_constant=lambda name: pytest.fail(f"{name} in the answer"))


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b'{"sequences": [', b"not json"])
def test_what_is_no_json_is_refused(server: Server, raw: bytes) -> None:
    reply = httpx.post(server.url + "/predict", content=raw)
    assert (reply.status_code, reply.json()["code"]) == (400, "not_json")


@pytest.mark.parametrize("value", [[], 1, "x", None])
def test_json_that_is_no_object_is_refused(server: Server, value: object) -> None:
    reply = httpx.post(server.url + "/predict", content=json.dumps(value))
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_input")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_drained_and_answered(server: Server, chunked: bool) -> None:
    size = 17 * 2**20
    content = (b" " * 2**16 for _ in range(size // 2**16)) if chunked else b" " * size
    reply = httpx.post(server.url + "/predict", content=content, timeout=60)
    assert (reply.status_code, reply.json()["code"]) == (413, "too_large")


def test_a_body_that_is_declared_far_too_long_is_answered_without_being_read(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
        s.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n")
        assert b"413" in s.recv(4096)


def test_routes_and_methods_that_are_not_there(server: Server) -> None:
    assert server.get("/nope").json()["code"] == "not_found"
    wrong = server.get("/predict")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (405, "method_not_allowed", "POST")
    assert server.get("/models/nope").json()["code"] == "unknown_model"
    assert server.get("/sessions?limit=x").json()["field"] == "limit"
    assert server.post("/sessions", {}).json()["field"] == "model"
    assert server.post("/sessions", {"model": 3}).status_code == 404


def test_a_session_stays_where_it_was_after_every_refusal(server: Server, walk: list[Any]) -> None:
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    server.post("/predict", {"sequences": [walk], "session_id": ident, "step": 1})
    before = server.get(f"/sessions/{ident}").json()
    for _, body, *_ in CASES:
        server.post("/predict", {"session_id": ident, "step": 2, **body})
    server.post("/predict", {"session_id": ident, "step": 0, "sequences": [walk]})
    server.post("/predict", {"session_id": ident, "step": 9, "sequences": [walk]})
    server.post("/predict", {"session_id": ident, "step": 2, "sequences": [walk, walk]})
    server.post("/predict", {"session_id": ident, "step": 2, "sequences": [walk], "model": "chars"})
    assert server.get(f"/sessions/{ident}").json() == before
    reply = server.post("/predict", {"sequences": [walk], "session_id": ident, "step": 2})
    assert (reply.status_code, reply.json()["session"]["position"]) == (200, 2 * len(walk))


def test_a_body_that_stalls_is_told(own_server: Callable[..., Server]) -> None:
    server = own_server(INDRNN_BODY_TIMEOUT="0.5")
    for path in (b"/predict", b"/sessions", b"/v2/models/chars/infer", b"/v1/completions"):
        for begun in (b"{", b""):  # a body whose first byte does not come is none that is on its way
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
                s.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n%b" % (path, begun))
                assert b"408" in s.recv(4096), (path, begun)


def test_more_clips_than_the_queue_has_places_are_refused_for_good(own_server: Callable[..., Server]) -> None:
    server = own_server(INDRNN_MAX_QUEUE="3")
    assert server.post("/predict", {"sequences": [[FRAME]] * 4}).status_code == 413
    assert server.post("/predict", {"sequences": [[FRAME]] * 3}).status_code == 200
