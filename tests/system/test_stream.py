"""WS /stream/{model} as a client uses it."""

import base64
import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Server, scores
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

TEXT = "To be, or not to be, that is the question.\n"


def ask(ws: ClientConnection, **message: Any) -> dict[str, Any]:
    ws.send(json.dumps(message))
    return hear(ws)


def hear(ws: ClientConnection) -> dict[str, Any]:
    heard: dict[str, Any] = json.loads(ws.recv(timeout=30))
    return heard


def hear_all(ws: ClientConnection) -> list[dict[str, Any]]:
    """Characters up to the `done` or error that ends them."""
    heard = [hear(ws)]
    while heard[-1]["type"] == "char":
        heard.append(hear(ws))
    return heard


def text_of(heard: list[dict[str, Any]]) -> str:
    return "".join(m["char"] for m in heard if m["type"] == "char")


def test_open_says_where_the_session_stands(server: Server) -> None:
    with server.socket("chars") as ws:
        opened = ask(ws, type="open", session_id=None, layout=None, hz=None, top_k=5, every=False, api_key=None)
    assert {k: opened[k] for k in ("type", "step", "position", "model", "pending")} == {
        "type": "opened",
        "step": 0,
        "position": 0,
        "model": "chars",
        "pending": None,
    }
    assert server.get(f"/sessions/{opened['session_id']}").json()["position"] == 0


def test_a_step_scores_each_character_before_the_model_saw_it(server: Server) -> None:
    with server.socket("chars") as ws:
        ask(ws, type="open", top_k=1000)
        result = ask(ws, type="step", step=1, text=TEXT)
    assert (result["type"], result["step"], result["position"]) == ("result", 1, len(TEXT))
    assert "".join(c["char"] for c in result["chars"]) == TEXT
    classes = len(result["next"])
    assert result["chars"][0]["logprob"] == pytest.approx(-np.log(classes), abs=1e-5)  # a uniform first guess
    assert sum(np.exp(c["logprob"]) for c in result["next"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("size", [1, 7, 30])
def test_a_text_in_pieces_gives_the_same_log_probabilities(server: Server, size: int) -> None:
    with server.socket("chars") as ws:
        ask(ws, type="open", top_k=3)
        whole = ask(ws, type="step", text=TEXT)
    with server.socket("chars") as ws:
        ask(ws, type="open", top_k=3)
        parts = [ask(ws, type="step", text=TEXT[at : at + size]) for at in range(0, len(TEXT), size)]
    got = [c["logprob"] for part in parts for c in part["chars"]]
    assert got == pytest.approx([c["logprob"] for c in whole["chars"]], abs=1e-4)
    assert [n["char"] for n in parts[-1]["next"]] == [n["char"] for n in whole["next"]]


def test_frames_by_stream_score_as_by_predict_and_every_scores_each_frame(server: Server, walk: list[Any]) -> None:
    expected = [server.post("/predict", {"sequences": [walk[:n]], "top_k": 99}).json()["predictions"][0] for n in (1, 40, 60)]
    with server.socket("action") as ws:
        ask(ws, type="open", every=True, top_k=99)
        first, second = ask(ws, type="step", step=1, frames=walk[:40]), ask(ws, type="step", step=2, frames=walk[40:])
    assert scores(second["predictions"][0]) == pytest.approx(scores(expected[2]), abs=1e-4)
    labels = server.get("/models/action").json()["versions"][0]["labels"]
    assert np.shape(first["scores"]) == (40, len(labels))
    assert dict(zip(labels, first["scores"][0], strict=True)) == pytest.approx(scores(expected[0]), abs=1e-4)
    assert dict(zip(labels, first["scores"][39], strict=True)) == pytest.approx(scores(expected[1]), abs=1e-4)


def test_a_session_is_shared_by_http_and_stream(server: Server, walk: list[Any]) -> None:
    with server.socket("action") as ws:
        ident = ask(ws, type="open")["session_id"]
        ask(ws, type="step", step=1, frames=walk[:10])
        body = {"sequences": [walk[10:20]], "session_id": ident, "step": 2}
        http = server.post("/predict", body).json()
        again = ask(ws, type="step", step=2, frames=walk[10:20])
    assert http["session"]["position"] == again["position"] == 20
    assert again["predictions"] == http["predictions"]


def test_generate_is_reproducible_and_repeats_from_the_store(server: Server) -> None:
    wish = {"type": "generate", "step": 2, "max_chars": 60, "temperature": 0.8, "top_p": 0.95, "seed": 7}
    heard = []
    for _ in range(2):
        with server.socket("chars") as ws:
            ask(ws, type="open")
            ask(ws, type="step", step=1, text=TEXT)
            ws.send(json.dumps(wish))
            heard.append(hear_all(ws))
            ws.send(json.dumps(wish))
            assert hear_all(ws) == heard[-1]
            assert ask(ws, **{**wish, "seed": 8})["code"] == "step_conflict"
    assert heard[0] == heard[1]
    assert heard[0][-1] == {"type": "done", "step": 2, "position": len(TEXT) + 60, "reason": "length"}


def test_what_was_generated_was_consumed(server: Server) -> None:
    with server.socket("chars") as ws:
        ask(ws, type="open")
        ws.send(json.dumps({"type": "generate", "max_chars": 40, "seed": 3}))
        heard = hear_all(ws)
        after = ask(ws, type="step", text=TEXT)
    with server.socket("chars") as ws:
        ask(ws, type="open")
        fed = ask(ws, type="step", text=text_of(heard))
        expected = ask(ws, type="step", text=TEXT)
    assert [m["logprob"] for m in heard[:-1]] == pytest.approx([c["logprob"] for c in fed["chars"]], abs=1e-4)
    assert [c["logprob"] for c in after["chars"]] == pytest.approx([c["logprob"] for c in expected["chars"]], abs=1e-4)


def test_a_stop_string_ends_a_generate_and_is_part_of_it(server: Server) -> None:
    with server.socket("chars") as ws:
        ask(ws, type="open")
        ws.send(json.dumps({"type": "generate", "max_chars": 2000, "seed": 1, "stop": ["e", "zzz"]}))
        heard = hear_all(ws)
    assert heard[-1]["reason"] == "stop"
    assert text_of(heard).endswith("e")
    assert text_of(heard).count("e") == 1
    assert heard[-1]["position"] == len(text_of(heard))


def test_cancel_overtakes_what_waits_and_the_messages_behind_it_run_in_order(server: Server) -> None:
    with server.socket("chars") as ws:
        ask(ws, type="open")
        ws.send(json.dumps({"type": "generate", "step": 1, "max_chars": 4000, "seed": 1}))
        hear(ws)
        for step in (2, 3):
            ws.send(json.dumps({"type": "step", "step": step, "text": TEXT}))
        ws.send(json.dumps({"type": "cancel", "step": 1}))
        heard = hear_all(ws)
        assert heard[-1]["reason"] == "cancelled"
        assert len(heard) < 4000
        assert [hear(ws)["step"], hear(ws)["step"]] == [2, 3]
        ws.send(json.dumps({"type": "cancel", "step": 1}))  # ended long ago
        assert ask(ws, type="step", step=4, text="x")["step"] == 4


def test_a_lost_connection_leaves_a_pending_generate_that_its_number_continues(server: Server) -> None:
    wish = {"type": "generate", "step": 1, "max_chars": 1500, "seed": 11}
    with server.socket("chars") as ws:
        ask(ws, type="open")
        ws.send(json.dumps(wish))
        undisturbed = text_of(hear_all(ws))
    with server.socket("chars") as ws:
        ident = ask(ws, type="open")["session_id"]
        ws.send(json.dumps(wish))
        before = "".join(hear(ws)["char"] for _ in range(20))
        ws.close_socket()
    with server.socket("chars") as ws:
        opened = ask(ws, type="open", session_id=ident)
        while opened["pending"]["text"] == "":  # the server may not have seen the loss yet
            opened = ask(ws, type="open", session_id=ident)
        assert opened["pending"]["step"] == opened["step"] == 1
        assert undisturbed.startswith(opened["pending"]["text"])
        assert opened["pending"]["text"].startswith(before)
        ws.send(json.dumps(wish))
        heard = hear_all(ws)
    assert text_of(heard) == undisturbed
    assert heard[-1]["position"] == 1500


def test_a_watched_session_shows_every_neuron_after_every_step(server: Server) -> None:
    with server.socket("chars") as ws:
        ask(ws, type="open")
        watching = ask(ws, type="watch", neurons=True)
        n = sum(p["size"] for p in watching["parts"])
        result = ask(ws, type="step", step=1, text="To be")
        states = np.frombuffer(base64.b64decode(result["states"]), "<f2").reshape(result["shape"])
        assert states.shape == (5, n)
        assert np.isfinite(states).all()
        assert (states[1:] != states[:-1]).any(1).all()
        too_long = ask(ws, type="step", step=2, text="x" * 65)
        assert (too_long["code"], too_long["field"]) == ("too_large", "text")
        repeated = ask(ws, type="step", step=1, text="To be")
        assert "states" not in repeated  # no part of the stored result
        assert repeated["chars"] == result["chars"]
        ws.send(json.dumps({"type": "generate", "max_chars": 3, "seed": 1}))
        assert all(m["shape"] == [1, n] for m in hear_all(ws)[:-1])
        assert ask(ws, type="watch", neurons=False) == {"type": "watching", "parts": []}
    with server.socket("chars") as ws:
        ask(ws, type="open")
        plain = ask(ws, type="step", step=1, text="To be")
    assert [c["logprob"] for c in plain["chars"]] == pytest.approx([c["logprob"] for c in result["chars"]], abs=1e-4)


BAD: list[tuple[str, str, str, str | None, str]] = [
    ("{", "chars", "not_json", None, "expected a message of JSON"),
    ("[1]", "chars", "invalid_input", None, "expected a JSON object"),
    ('{"type": "dance"}', "chars", "invalid_input", "type", "expected open, step, generate, cancel or watch, got 'dance'"),
    ("{}", "chars", "invalid_input", "type", "got null"),
    ('{"type": "step", "text": ""}', "chars", "invalid_input", "text", "at least one character"),
    ('{"type": "step", "text": 3}', "chars", "invalid_input", "text", "got 3"),
    ('{"type": "step"}', "chars", "invalid_input", "text", "got null"),
    ('{"type": "step", "text": "a€b"}', "chars", "out_of_alphabet", "text", "character '€' (U+20AC) at 1"),
    ('{"type": "step", "frames": [[[0,0,0]]]}', "chars", "invalid_input", "frames", "unknown field"),
    ('{"type": "step", "text": "x", "step": 9}', "chars", "step_gap", "step", "expected step 1"),
    ('{"type": "step", "text": "x", "step": -1}', "chars", "invalid_input", "step", "got -1"),
    ('{"type": "step", "text": "x", "step": "1"}', "chars", "invalid_input", "step", "got '1'"),
    ('{"type": "generate", "max_chars": 0}', "chars", "invalid_input", "max_chars", "got 0"),
    ('{"type": "generate", "max_chars": 9999999}', "chars", "invalid_input", "max_chars", "from 1 to 4096"),
    ('{"type": "generate", "temperature": -1}', "chars", "invalid_input", "temperature", "got -1"),
    ('{"type": "generate", "top_p": 2}', "chars", "invalid_input", "top_p", "got 2"),
    ('{"type": "generate", "stop": "x"}', "chars", "invalid_input", "stop", "expected a list"),
    ('{"type": "generate", "stop": [""]}', "chars", "invalid_input", "stop[0]", "got ''"),
    ('{"type": "generate", "seed": -1}', "chars", "invalid_input", "seed", "got -1"),
    ('{"type": "watch", "neurons": 1}', "chars", "invalid_input", "neurons", "got 1"),
    ('{"type": "open"}', "chars", "invalid_input", "type", "got a second"),
    ('{"type": "generate", "max_chars": 5}', "action", "invalid_input", "type", "generates nothing"),
    ('{"type": "step", "text": "x"}', "action", "invalid_input", "text", "unknown field"),
    ('{"type": "step", "frames": "x"}', "action", "invalid_input", "frames", "expected a list of frames"),
    ('{"type": "step", "frames": [[[0,0,0]]]}', "action", "invalid_input", "frames[0]", "expected 20 joints, got 1"),
    ('{"type": "step", "frames": [[[NaN,0,0]]]}', "action", "not_finite", "frames[0][0][0]", "got NaN"),
    ('{"type": "NaN", }', "action", "not_json", None, "trailing comma"),
    ('{"type": ' + "[" * 900 + "]" * 900 + "}", "action", "invalid_input", "type", "got a list of 1"),
]


@pytest.mark.parametrize("model", ["chars", "action"])
def test_bad_messages_are_answered_and_leave_the_session_as_it_was(server: Server, model: str) -> None:
    with server.socket(model) as ws:
        ident = ask(ws, type="open")["session_id"]
        for raw, of, code, field, said in BAD:
            if of != model:
                continue
            ws.send(raw)
            heard = hear(ws)
            assert (heard["type"], heard["code"], heard.get("field")) == ("error", code, field), raw
            assert said in heard["detail"], raw
        ws.send(b"\xff\x00")
        assert hear(ws)["code"] == "not_json"
    session = server.get(f"/sessions/{ident}").json()
    assert (session["step"], session["position"]) == (0, 0)


def test_messages_before_open_and_wrong_opens_are_refused(server: Server) -> None:
    action = server.post("/sessions", {"model": "action"}).json()["session_id"]
    with server.socket("chars") as ws:
        assert "expected an open message first" in ask(ws, type="step", text="x")["detail"]
        assert ask(ws, type="open", session_id="A" * 28)["code"] == "unknown_session"
        assert ask(ws, type="open", session_id=5)["field"] == "session_id"
        assert "expected a session of chars, got one of action" in ask(ws, type="open", session_id=action)["detail"]
        assert ask(ws, type="open", layout="utd20")["field"] == "layout"
        assert ask(ws, type="open", every="yes")["field"] == "every"
        assert ask(ws, type="open")["type"] == "opened"
    with server.socket("action") as ws:
        assert ask(ws, type="open", layout="x")["field"] == "layout"
        assert ask(ws, type="open", hz=-1)["field"] == "hz"
    with server.socket("nope") as ws:
        assert hear(ws)["code"] == "unknown_model"


def test_a_message_over_the_limit_is_answered_and_the_stream_goes_on(server: Server) -> None:
    with server.socket("chars") as ws:
        ask(ws, type="open")
        assert ask(ws, type="step", text="x" * 17 * 2**20)["code"] == "too_large"
        assert ask(ws, type="step", text="x" * 100_001)["field"] == "text"
        assert ask(ws, type="step", text="x")["step"] == 1


def test_a_deleted_session_is_gone(server: Server) -> None:
    ident = server.post("/sessions", {"model": "chars"}).json()["session_id"]
    assert ident in [s["session_id"] for s in server.get("/sessions").json()["sessions"]]
    with server.socket("chars") as ws:
        ask(ws, type="open", session_id=ident)
        assert httpx.delete(f"{server.url}/sessions/{ident}").status_code == 204
        assert ask(ws, type="step", text="x")["code"] == "session_expired"
        assert httpx.delete(f"{server.url}/sessions/{ident}").status_code == 410
    assert server.get(f"/sessions/{ident}").json()["code"] == "session_expired"


def test_a_cancel_of_the_next_generate_ends_that_one(server: Server) -> None:
    with server.socket("chars") as ws:
        ask(ws, type="open")
        for step in (1, 2):
            ws.send(json.dumps({"type": "generate", "step": step, "max_chars": 300, "seed": 1}))
        ws.send(json.dumps({"type": "cancel", "step": 2}))
        first, second = hear_all(ws), hear_all(ws)
        assert (first[-1]["step"], first[-1]["reason"]) == (1, "length")
        assert (second[-1]["step"], second[-1]["reason"]) == (2, "cancelled")
        assert len(second) < 300


def test_a_cancel_that_comes_too_late_for_its_session_is_not_answered_and_a_malformed_one_is(server: Server) -> None:
    """A client that counts answers would take a second error for the one to its next message."""
    with server.socket("chars") as ws:
        ident = ask(ws, type="open")["session_id"]
        ws.send(json.dumps({"type": "generate", "step": 1, "max_chars": 4_000, "seed": 1}))
        hear(ws)
        assert httpx.delete(f"{server.url}/sessions/{ident}").status_code == 204
        assert hear_all(ws)[-1]["code"] == "session_expired"
        ws.send(json.dumps({"type": "cancel", "step": 1}))
        assert ask(ws, type="watch", neurons=False)["type"] == "watching"
        assert ask(ws, type="cancel", step="one")["code"] == "invalid_input"


def test_a_pending_generate_is_cancelled_from_another_connection(server: Server) -> None:
    with server.socket("chars") as ws:
        ident = ask(ws, type="open")["session_id"]
        ws.send(json.dumps({"type": "generate", "step": 1, "max_chars": 4000, "seed": 1}))
        hear(ws)
        ws.close_socket()
    with server.socket("chars") as ws:
        while ask(ws, type="open", session_id=ident)["pending"] is None:
            pass  # never: the session exists and has a generate
        ws.send(json.dumps({"type": "cancel", "step": 1}))
        assert hear_all(ws)[-1]["reason"] == "cancelled"


def test_a_client_that_does_not_read_loses_its_place_and_nothing_else(own_server: Callable[..., Server]) -> None:
    server = own_server(INDRNN_SEND_TIMEOUT="0.5", INDRNN_MAX_CONNECTIONS="1")
    url = f"ws://127.0.0.1:{server.port}/stream/chars"
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with connect(url, sock=raw, compression=None, max_queue=1) as ws:
            ident = ask(ws, type="open")["session_id"]
            ask(ws, type="watch", neurons=True)
            ws.send(json.dumps({"type": "generate", "step": 1, "max_chars": 4000, "seed": 1}))
            end = time.monotonic() + 20
            while time.monotonic() < end:
                with contextlib.suppress(ConnectionClosed), server.socket("chars") as other:
                    opened = ask(other, type="open", session_id=ident)
                    if opened["type"] == "opened":
                        break
            assert opened["pending"]["step"] == 1
            assert opened["position"] == len(opened["pending"]["text"]) < 4000


def test_a_step_with_every_is_bounded(server: Server) -> None:
    with server.socket("chars") as ws:
        ask(ws, type="open", every=True)
        assert ask(ws, type="step", text="x" * 1025)["code"] == "too_large"
        assert np.shape(ask(ws, type="step", text="x" * 1024)["scores"])[0] == 1024


def test_a_resumed_session_keeps_its_rate(server: Server, walk: list[Any]) -> None:
    with server.socket("action") as ws:
        ident = ask(ws, type="open", hz=60)["session_id"]
        ask(ws, type="step", frames=walk[:7])
    with server.socket("action") as ws:
        ask(ws, type="open", session_id=ident, every=True)
        assert len(ask(ws, type="step", frames=walk[7:9])["scores"]) == 1  # every other frame is one of the model's
        assert ask(ws, type="step", frames=walk[9:10])["scores"] == []
