"""What other people's cameras and recorders send: over every protocol one answer, one warning, and again the same bytes."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from conftest import ROOT, Server
from test_inference import free_port
from test_stream import ask

WAVE: list[Any] = json.loads((ROOT / "examples" / "wave.json").read_text())["sequences"][0]
ARMS = (*range(5, 8), *range(9, 12))
ZEROS = [[[0.0] * 3 if t % 3 == 0 and j in ARMS else joint for j, joint in enumerate(frame)] for t, frame in enumerate(WAVE)]
NULLS = [[None if t % 3 == 0 and j in ARMS else joint for j, joint in enumerate(frame)] for t, frame in enumerate(WAVE)]
FLIPPED = (np.array(WAVE) * [1, -1, 1]).tolist()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("cameras"), {"INDRNN_GRPC_PORT": free_port()}).start()
    yield made
    assert made.stop() in (0, -signal.SIGTERM), made.log()
    assert "Traceback" not in made.log()


def by_predict(server: Server, clip: Any, **options: Any) -> dict[str, Any]:
    reply = server.post("/predict", {"sequences": [clip], **options})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def by_stream(server: Server, clip: Any, pieces: int = 1, **options: Any) -> dict[str, Any]:
    with server.socket("action") as ws:
        assert ask(ws, type="open", **options)["type"] == "opened"
        for part in np.array_split(np.arange(len(clip)), pieces):
            reply: dict[str, Any] = ask(ws, type="step", frames=[clip[t] for t in part])
        assert reply["type"] == "result", reply
        return reply


def test_lost_joints_as_zeros_are_warned_of_and_by_the_option_answered_as_nulls(server: Server) -> None:
    want = by_predict(server, NULLS)
    assert want["predictions"][0]["label"] == "wave"
    assert "warnings" not in want
    assert by_predict(server, ZEROS, lost="zero") == want
    told = by_predict(server, ZEROS)
    assert "left elbow, left wrist, left hand and 3 more at exactly 0, 0, 0 in 24 of 72 frames" in told["warnings"][0]
    assert by_stream(server, ZEROS)["warnings"] == told["warnings"]
    assert by_stream(server, ZEROS, lost="zero")["predictions"] == by_stream(server, NULLS)["predictions"]


def test_an_upside_down_body_is_other_in_one_piece_and_in_many(server: Server) -> None:
    whole = by_predict(server, FLIPPED)
    assert whole["predictions"][0]["label"] == "other"
    assert any("the head is not above the hips" in text for text in whole["warnings"])
    for pieces in (1, 9, 72):
        reply = by_stream(server, FLIPPED, pieces)
        assert reply["predictions"][0]["label"] == "other"
        assert reply["warnings"] == whole["warnings"]
    assert by_predict(server, FLIPPED, axes="x -y z")["predictions"] == by_predict(server, WAVE)["predictions"]


def test_a_repeated_step_is_answered_with_the_same_bytes_also_after_a_restart(server: Server) -> None:
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    body = {"sequences": [FLIPPED], "session_id": ident, "step": 1}
    first = server.post("/predict", body)
    assert first.json()["warnings"]
    assert server.post("/predict", body).content == first.content
    server.restart(signal.SIGKILL)
    assert server.post("/predict", body).content == first.content
    zeros = {"sequences": [ZEROS], "session_id": ident, "step": 2}
    assert server.post("/predict", zeros).status_code == 200
    assert server.post("/predict", {**zeros, "lost": "zero"}).json()["code"] == "step_conflict"  # that is other content


def test_what_was_seen_of_a_body_is_taken_along(server: Server) -> None:
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    server.post("/predict", {"sequences": [FLIPPED[:40]], "session_id": ident})
    taken = server.get(f"/sessions/{ident}/state").content
    assert b'"bodies"' in taken
    there = httpx.post(f"{server.url}/sessions", content=taken, headers={"Content-Type": "application/octet-stream"}, timeout=30).json()
    forked = server.post(f"/sessions/{ident}/fork", {}).json()
    answers = [
        server.post("/predict", {"sequences": [FLIPPED[40:42]], "session_id": one}).json()
        for one in (ident, there["session_id"], forked["session_id"])
    ]
    assert answers[0]["predictions"][0]["label"] == "other"
    assert all(a["predictions"] == answers[0]["predictions"] and a["warnings"] == answers[0]["warnings"] for a in answers)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_open_inference_protocol_says_it_in_a_parameter(server: Server, protocol: str) -> None:
    module: Any = getattr(tritonclient, protocol)
    client = module.InferenceServerClient(f"127.0.0.1:{server.port if protocol == 'http' else server.env['INDRNN_GRPC_PORT']}")

    def infer(clip: Any, parameters: dict[str, Any], **options: Any) -> tuple[str, Any]:
        x = np.array(clip, np.float32)[None, :, None]
        result = client.infer("action", [module.InferInput("x", x.shape, "FP32").set_data_from_numpy(x)], parameters=parameters, **options)
        raw = result.get_response()
        if protocol == "http":
            return raw.get("parameters", {}).get("indrnn_warnings", ""), result.as_numpy("logits")[0, -1]
        return raw.parameters["indrnn_warnings"].string_param, result.as_numpy("logits")[0, -1]

    told, logits = infer(ZEROS, {})
    assert "at exactly 0, 0, 0 in 24 of 72 frames" in told
    quiet, held = infer(ZEROS, {"indrnn_lost": "zero"})
    assert quiet == ""
    labels = server.get("/models/action").json()["versions"][0]["labels"]
    assert labels[int(held.argmax())] == "wave"
    assert np.abs(held - logits).max() > 1
    sequence = {"sequence_id": 5 + (protocol == "grpc"), "sequence_start": True}
    in_sequence, again = infer(ZEROS, {"indrnn_lost": "zero"}, **sequence)
    assert in_sequence == ""
    np.testing.assert_allclose(again, held, atol=1e-4)
    assert "the head is not above the hips" in infer(FLIPPED, {}, **sequence)[0]
    np.testing.assert_allclose(infer(np.array(WAVE) * 1000, {"indrnn_unit": "mm"})[1], infer(WAVE, {})[1], atol=1e-2)
    with pytest.raises(tritonclient.utils.InferenceServerException, match="expected one of m, cm, mm, got 'miles'"):
        infer(WAVE, {"indrnn_unit": "miles"})
    client.close()


def test_units_orders_and_times(server: Server) -> None:
    want = by_predict(server, WAVE)["predictions"][0]
    assert by_predict(server, (np.array(WAVE) * 1000).round(3).tolist(), unit="mm")["predictions"][0] == want
    refused = server.post("/predict", {"sequences": [[[[0.1, 0.2, 0.3]] * 25]]}).json()
    assert refused["detail"] == "expected 20 joints, got 25; did you mean layout kinect25 or openpose25?"
    version = server.get("/models/action").json()["versions"][0]
    assert version["layouts"]["mediapipe33"]["joints"] == 33
    assert version["layouts"]["mediapipe33"]["table"][0] == [0, 7, 8]
    times = [t / 30 for t in range(72)]
    for t in (times, [times]):
        timed = by_predict(server, WAVE, t=t)["predictions"][0]
        assert timed["label"] == "wave"
        assert timed["score"] == pytest.approx(want["score"], abs=1e-4)
    with server.socket("action") as ws:
        ask(ws, type="open")
        ask(ws, type="step", frames=WAVE[:30], t=times[:30])
        assert "expected a time after" in ask(ws, type="step", frames=WAVE[30:], t=times[:42])["detail"]
        last = ask(ws, type="step", frames=WAVE[30:], t=times[30:])
        assert last["predictions"][0]["score"] == pytest.approx(want["score"], abs=1e-4)
    wrong = server.post("/predict", {"sequences": [WAVE, WAVE], "t": [times]}).json()
    assert (wrong["field"], wrong["detail"][:40]) == ("t", "expected 2 lists of seconds, one for eac")


@pytest.mark.parametrize("option", [{"lost": "zero"}, {"unit": "mm"}, {"axes": "x y z"}])
def test_a_model_of_text_has_none_of_these_options(server: Server, option: dict[str, str]) -> None:
    with server.socket("chars") as ws:
        assert ask(ws, type="open", **option)["field"] == next(iter(option))
        assert ask(ws, type="open", **dict.fromkeys(option))["type"] == "opened"
        assert ask(ws, type="step", text="a", t=[0.0])["field"] == "t"


def test_the_recurrent_weights_are_told_where_they_are_asked_for(server: Server) -> None:
    plain, asked = server.get("/models/action"), server.get("/models/action?weights=true")
    assert '"u"' not in plain.text
    assert len(plain.content) + 5_000 < len(asked.content)
    assert sum("u" in part for part in asked.json()["versions"][0]["state"]) >= 2
    assert server.get("/models/action?weights=maybe").json()["code"] == "invalid_input"
