"""Events of a running service: told once, whatever the split, the protocol and the kill; and only to those who asked."""

import shutil
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from conftest import ROOT, Server
from detecting import LABELS, bodies, meta, network

from indrnn.client.answers import Event
from indrnn.client.sync import Client
from indrnn.export.write import write
from indrnn.model.training.checkpoint import load, save

T = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("events")
    save(folder / "model.pt", network(), meta())
    shutil.copytree(ROOT / "bundles" / "action", folder / "bundles" / "action")
    write(*load(folder / "model.pt"), folder / "bundles", "detect", "1", command="indrnn export")
    made = Server(folder, {"INDRNN_BUNDLES": str(folder / "bundles")}).start()
    yield made
    made.stop()
    assert "Traceback" not in made.log()


@pytest.fixture(scope="module")
def frames() -> list[Any]:
    found: list[Any] = bodies(1, T)[0, :, 0].round(4).tolist()
    return found


@pytest.fixture(scope="module")
def whole(server: Server, frames: list[Any]) -> list[dict[str, Any]]:
    """The events of the clip in one request."""
    (prediction,) = server.post("/predict", {"model": "detect", "sequences": [frames]}).json()["predictions"]
    events: list[dict[str, Any]] = prediction["events"]
    assert len(events) > 8
    assert set(events[0]) == {"label", "start", "at", "score"}
    assert {e["label"] for e in events} == set(LABELS[1:])
    assert all(0 <= e["start"] < e["at"] < T and 0.5 <= e["score"] <= 1 for e in events)
    return events


def same(got: list[dict[str, Any]], want: list[dict[str, Any]]) -> None:
    assert [(e["label"], e["start"], e["at"]) for e in got] == [(e["label"], e["start"], e["at"]) for e in want]
    assert [e["score"] for e in got] == pytest.approx([e["score"] for e in want], abs=1e-5)


def said(stream: Any, **message: Any) -> dict[str, Any]:
    stream.send(orjson.dumps(message).decode())
    told: dict[str, Any] = orjson.loads(stream.recv())
    return told


def heard(stream: Any, number: int, frames: list[Any]) -> list[dict[str, Any]]:
    """The events of a step, which come before its result."""
    told = said(stream, type="step", step=number, frames=frames)
    events = []
    while told["type"] == "event":
        assert told.pop("step") == number
        events.append(told)
        told = orjson.loads(stream.recv())
    assert (told["type"], told["step"]) == ("result", number)
    assert told["predictions"][0]["label"] in LABELS
    return events


@pytest.mark.parametrize("size", [1, 7, 50])
def test_any_split_tells_the_events_of_the_whole_over_a_websocket(server: Server, frames: list[Any], whole: Any, size: int) -> None:
    with server.socket("detect") as stream:
        assert said(stream, type="open", events=True)["type"] == "opened"
        got = [e for n, at in enumerate(range(0, T, size), 1) for e in heard(stream, n, frames[at : at + size])]
        again = heard(stream, -(-T // size), frames[(T - 1) // size * size :])  # the last step once more
    same(got, whole)
    assert again == [e for e in got if e["at"] >= (T - 1) // size * size]


def test_steps_over_http_and_the_stream_tell_each_event_once(server: Server, frames: list[Any], whole: Any) -> None:
    ident = server.post("/sessions", {"model": "detect"}).json()["session_id"]
    told = server.post("/predict", {"sequences": [frames[:61]], "session_id": ident, "step": 1}).json()
    with server.socket("detect") as stream:
        said(stream, type="open", session_id=ident, events=True)
        rest = heard(stream, 2, frames[61:])
    same(told["predictions"][0]["events"] + rest, whole)
    fork = server.post("/sessions", {"model": "detect"}).json()["session_id"]
    server.post("/predict", {"sequences": [frames[:61]], "session_id": fork, "step": 1})
    twin = server.post(f"/sessions/{fork}/fork", None).json()["session_id"]
    told = server.post("/predict", {"sequences": [frames[61:]], "session_id": twin, "step": 2}).json()
    same(told["predictions"][0]["events"], rest)


def test_kill_9_in_a_stream_loses_and_doubles_none(server: Server, frames: list[Any], whole: Any) -> None:
    got: list[dict[str, Any]] = []
    with server.socket("detect") as stream:
        ident = said(stream, type="open", events=True)["session_id"]
    n = 0
    for cut in (30, 31, 75):
        with server.socket("detect") as stream:
            said(stream, type="open", session_id=ident, events=True)
            while n < cut:
                n += 1
                got += heard(stream, n, [frames[n - 1]])
            stream.send(orjson.dumps({"type": "step", "step": n + 1, "frames": [frames[n]]}).decode())  # its answer is not waited for
            server.restart(signal.SIGKILL)
    with server.socket("detect") as stream:
        assert said(stream, type="open", session_id=ident, events=True)["step"] in (n, n + 1)
        while n < T:
            n += 1
            got += heard(stream, n, [frames[n - 1]])
    same(got, whole)


def test_who_does_not_ask_hears_nothing_new(server: Server, frames: list[Any], whole: Any) -> None:
    for opening in ({}, {"events": False}, {"events": None}, {"every": True}):
        with server.socket("detect") as stream:
            assert set(said(stream, type="open", **opening)) == {"type", "session_id", "step", "position", "model", "version", "pending"}
            for n, at in enumerate(range(0, T, 40), 1):
                told = said(stream, type="step", step=n, frames=frames[at : at + 40])
                assert set(told) - {"scores"} == {"type", "step", "position", "predictions"}
                assert set(told["predictions"][0]) == {"label", "score", "top", "frames"}
                assert sum(t["score"] for t in told["predictions"][0]["top"]) == pytest.approx(1, abs=1e-5)
                assert np.shape(told.get("scores", np.zeros((40, len(LABELS))))) == (40, len(LABELS))


def test_events_count_frames_as_the_client_does(server: Server, frames: list[Any], whole: Any) -> None:
    doubled = [frame for frame in frames for _ in (0, 1)]
    (told,) = server.post("/predict", {"model": "detect", "sequences": [doubled], "hz": 60}).json()["predictions"]
    assert [(e["label"], e["start"], e["at"]) for e in told["events"]] == [(e["label"], 2 * e["start"], 2 * e["at"]) for e in whole]
    ident = server.post("/sessions", {"model": "detect"}).json()["session_id"]
    first = server.post("/predict", {"sequences": [doubled[:91]], "session_id": ident, "step": 1, "hz": 60}).json()
    second = server.post("/predict", {"sequences": [doubled[91:140]], "session_id": ident, "step": 2}).json()  # the rate is the session's
    with server.socket("detect") as stream:
        said(stream, type="open", session_id=ident, events=True)
        third = heard(stream, 3, doubled[140:])
    same([e for r in (first, second) for e in r["predictions"][0]["events"]] + third, told["events"])


def test_models_without_events_refuse_to_tell_some(server: Server) -> None:
    (version,) = server.get("/models/detect").json()["versions"]
    assert version["events"] == {"on": 0.5, "off": 0.3, "least": 2, "pause": 3}
    assert version["labels"][0] == "nothing"
    with server.socket("detect") as stream:
        assert said(stream, type="open", events="yes")["field"] == "events"
    with server.socket("action") as stream:
        told = said(stream, type="open", events=True)
        assert (told["code"], told["field"]) == ("invalid_input", "events")
        assert said(stream, type="open")["type"] == "opened"
    assert server.get("/models/action").json()["versions"][0]["events"] is None


def test_the_open_inference_protocol_has_them_in_the_last_columns(server: Server, frames: list[Any], whole: Any) -> None:
    x = {"name": "x", "datatype": "FP32", "shape": [1, T, 1, 5, 3], "data": np.ravel(frames).tolist()}
    (logits,) = server.post("/v2/models/detect/infer", {"inputs": [x]}).json()["outputs"]
    found = np.reshape(logits["data"], logits["shape"])[0, :, -3:]
    assert [(LABELS[int(k)], t - int(ago), t) for t, (k, ago, _) in enumerate(found) if k] == [
        (e["label"], e["start"], e["at"]) for e in whole
    ]


def test_our_client_hands_them_over_with_the_step(server: Server, frames: list[Any], whole: Any) -> None:
    want = [Event(e["label"], e["start"], e["at"], pytest.approx(e["score"], abs=1e-5)) for e in whole]
    with Client(server.url) as client:
        assert client.predict([frames], model="detect").predictions[0].events == want
        with client.session("detect", events=True) as session:
            got = [e for at in range(0, T, 11) for e in session.step(frames[at : at + 11]).events]
        assert got == want
        with client.session("detect") as session:
            assert session.step(frames).events == ()
