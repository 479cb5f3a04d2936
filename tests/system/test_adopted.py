"""Adopted files are served as our own models are: over every protocol, exactly once, in any pieces, through `kill -9`."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import orjson
import pytest
import tritonclient.grpc
import tritonclient.http
from conftest import Server
from onnx import numpy_helper
from stateful_files import ELMAN, LEVEL, gru, lstm, save, step, typed
from test_inference import free_port

from indrnn.client import sync
from indrnn.export.adopt.adoption import adopt
from indrnn.export.adopt.layout import Told
from indrnn.export.adopt.write import write
from indrnn.kernels.runtime import ort

W, C = 5, 2


def half(folder: Path) -> Path:
    """One step of an Elman network in float16, its state too."""
    path = step(folder, ELMAN.replace("float[", "float16["))
    model = onnx.load(path)
    for w in model.graph.initializer:
        array = numpy_helper.to_array(w)
        if array.dtype == np.float32:
            w.CopyFrom(numpy_helper.from_array(array.astype(np.float16), w.name))
    path.write_bytes(model.SerializeToString())
    return path


def window(folder: Path) -> Path:
    return save(folder, LEVEL, {"w": np.full(1, 0.5, np.float32)})


FILES: dict[str, tuple[Any, dict[str, Any]]] = {
    "gru": (gru, {}),
    "lstm": (lstm, {}),
    "policy": (step, {"initial": {"h": np.array(0.25)}}),
    "half": (half, {}),
    "position": (lambda folder: typed(folder, "int64", 2**24 - 7), {"initial": {"position": np.array(2**24 - 7)}}),
    "window": (window, {"window": W, "context": C}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for name, (make, told) in FILES.items():
        folder = tmp_path_factory.mktemp(name)
        found[name] = make(folder)
        write(adopt(found[name], Told(**told), steps=50), found[name].parent.parent / "adopted", name, "1", command="")
    return found


@pytest.fixture(scope="module")
def server(files: dict[str, Path]) -> Iterator[Server]:
    root = files["gru"].parent.parent / "adopted"
    made = Server(root.parent, {"INDRNN_BUNDLES": str(root), "INDRNN_GRPC_PORT": free_port()}).start()
    yield made
    made.stop()


def by_hand(path: Path, name: str, x: list[list[float]]) -> dict[str, list[Any]]:
    """What the file answers to each step (or window), its states carried by the names that its author gave them."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    rows = np.array(x, np.float32)
    found: dict[str, list[Any]] = {}
    if name == "gru":
        h = np.zeros((1, 1, 4), np.float32)
        for row in rows:
            y, h = session.run(["y", "hn"], {"x": row[None, None], "h": h})
            found.setdefault("y", []).append(y[0, 0])
    elif name == "lstm":
        h = c = np.zeros((1, 1, 4), np.float32)
        for row in rows:
            y, h, c = session.run(["y", "hn", "cn"], {"x": row[None, None], "h0": h, "c0": c})
            found.setdefault("y", []).append(y[0, 0])
    elif name in ("policy", "half"):
        dtype = np.float16 if name == "half" else np.float32
        h = np.full((1, 4), 0 if name == "half" else 0.25, dtype)
        for row in rows:
            action, value, h = session.run(["action", "value", "h_out"], {"obs": row[None].astype(dtype), "h": h})
            found.setdefault("action", []).append(action[0])
            found.setdefault("value", []).append(value[0])
    elif name == "position":
        position, total = np.full((1, 2), 2**24 - 7, np.int64), np.zeros((1, 2), np.float32)
        for row in rows:
            y, position, total = session.run(["y", "position_out", "sum_out"], {"x": row[None], "position": position, "sum": total})
            found.setdefault("y", []).append(y[0])
    else:
        state, padded = np.zeros((1, 1, 2), np.float32), np.concatenate([np.zeros(C), rows[:, 0]]).astype(np.float32)
        for k in range(len(rows) // W):
            y, state = session.run(["level", "stateN"], {"audio": padded[None, W * k : W * k + W + C], "state": state})
            found.setdefault("level", []).append(y[0])
    return {key: np.array(value, np.float32).tolist() for key, value in found.items()}


def content(name: str, n: int, seed: int = 0) -> list[list[float]]:
    numbers = {"position": 2, "window": 1}.get(name, 3)
    rows: list[list[float]] = np.random.default_rng(seed).normal(size=(n, numbers)).round(3).tolist()
    return rows


def close(got: dict[str, list[Any]], want: dict[str, list[Any]]) -> None:
    assert got.keys() == want.keys()
    for name in want:
        assert np.array(got[name]) == pytest.approx(np.array(want[name]), abs=2e-3 if "action" in want else 1e-4)


@pytest.mark.parametrize("name", FILES)
def test_predict_answers_what_the_file_does_with_outputs_by_their_names(server: Server, files: dict[str, Path], name: str) -> None:
    x = [content(name, 17), content(name, 11, 1)]
    told = server.post("/predict", {"model": name, "sequences": x})
    assert told.status_code == 200, told.text
    for k, rows in enumerate(x):
        close({key: value[k] for key, value in told.json()["outputs"].items()}, by_hand(files[name], name, rows))


@pytest.mark.parametrize("name", FILES)
def test_a_stream_that_is_killed_goes_on_exactly_once(server: Server, files: dict[str, Path], name: str) -> None:
    x = content(name, 24, 2)
    cuts = [0, 1, 4, 5, 11, 12, 19, 24]
    heard: dict[str, list[Any]] = {}

    def hear(reply: dict[str, Any], n: int, position: int) -> None:
        assert (reply["step"], reply["position"]) == (n, position), reply
        for key, values in reply["outputs"].items():
            heard.setdefault(key, []).extend(values)

    ident = None
    for n, (a, b) in enumerate(pairwise(cuts), 1):
        with server.socket(name) as stream:
            stream.send(orjson.dumps({"type": "open", "session_id": ident}).decode())
            ident = orjson.loads(stream.recv())["session_id"]
            message = orjson.dumps({"type": "step", "step": n, "values": x[a:b]}).decode()
            stream.send(message)
            first = orjson.loads(stream.recv())
            if n == 4 and name in ("lstm", "window"):
                server.restart(signal.SIGKILL)
                with server.socket(name) as other:
                    other.send(orjson.dumps({"type": "open", "session_id": ident}).decode())
                    assert orjson.loads(other.recv())["step"] == 4
                    other.send(message)  # its answer was lost: the same step again
                    assert orjson.loads(other.recv()) == first
            hear(first, n, b)
    close(heard, by_hand(files[name], name, x))


def test_the_open_inference_protocol_carries_a_sequence(server: Server, files: dict[str, Path]) -> None:
    x, found = content("policy", 6), []
    for t, row in enumerate(x):
        body = {
            "parameters": {"sequence_id": 77, "sequence_start": t == 0, "sequence_end": t == 5},
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1, 3], "data": row}],
        }
        told = server.post("/v2/models/policy/infer", body)
        assert told.status_code == 200, told.text
        found.append(told.json()["outputs"][0]["data"])
    want = by_hand(files["policy"], "policy", x)
    assert np.array(found) == pytest.approx(np.concatenate([want["action"], want["value"]], 1), abs=1e-4)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritons_client_feeds_an_adopted_file_by_its_own_names(server: Server, files: dict[str, Path], kind: str) -> None:
    triton: Any = {"http": tritonclient.http, "grpc": tritonclient.grpc}[kind]
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port if kind == 'http' else server.env['INDRNN_GRPC_PORT']}")

    def ask(model: str, rows: list[list[float]], names: list[str] | None = None, **more: Any) -> Any:
        array = np.array(rows, np.float32)
        metadata = client.get_model_metadata(model) if kind == "http" else client.get_model_metadata(model, as_json=True)
        (asked,) = metadata["inputs"]
        whole = array[:, 0][None] if model == "window" else array
        x = triton.InferInput(asked["name"], whole.shape, asked["datatype"]).set_data_from_numpy(
            whole.astype({"FP16": "f2"}.get(asked["datatype"], "f4"))
        )
        return client.infer(model, [x], outputs=names and [triton.InferRequestedOutput(n) for n in names], **more)

    steps: dict[str, list[Any]] = {}
    x = content("half", 5)
    for t, row in enumerate(x):
        told = ask("half", [row], sequence_id=f"{kind} steps", sequence_start=t == 0, sequence_end=t == 4)
        for name in ("action", "value"):
            steps.setdefault(name, []).append(told.as_numpy(name)[0])
        assert told.as_numpy("logits") is None
    assert steps["action"][0].dtype == np.float16
    close(steps, by_hand(files["half"], "half", x))

    heard, x = [], content("window", 13)
    for n, (a, b) in enumerate(pairwise([0, 1, 4, 12, 13]), 1):
        more = {"sequence_id": f"{kind} windows", "sequence_start": n == 1, "sequence_end": b == 13}
        last = {"indrnn_flush": True} if b == 13 else {}
        for _ in range(2):  # each is sent twice, and applied once
            told = ask("window", x[a:b], ["level"], parameters={"indrnn_step": n, **last}, **more)
            found = told.as_numpy("level")[0].tolist()
        assert len(found) == b // W - a // W + (b == 13)
        heard += found
    close({"level": heard}, by_hand(files["window"], "window", [*x, [0.0], [0.0]]))
    long = ask("window", content("window", 1_500), sequence_id=f"{kind} long", sequence_start=True, sequence_end=True)
    assert long.as_numpy("level").shape == (1, 300, 1)  # a step of a sequence has as many windows as one of another model has steps
    client.close()


def test_streams_at_once_are_batched_and_none_sees_another(server: Server, files: dict[str, Path]) -> None:
    streams = 12

    def listen(seed: int) -> list[Any]:
        x, heard = content("window", 40, seed), []
        with server.socket("window") as stream:
            stream.send(orjson.dumps({"type": "open"}).decode())
            stream.recv()
            for n, a in enumerate(range(0, 40, 4), 1):
                samples = [row[0] for row in x[a : a + 4]]
                stream.send(orjson.dumps({"type": "step", "step": n, "values": samples}).decode())
                heard += orjson.loads(stream.recv())["outputs"]["level"]
        return heard

    with ThreadPoolExecutor(streams) as pool:
        heard = list(pool.map(listen, range(streams)))
    for seed, found in enumerate(heard):
        close({"level": found}, by_hand(files["window"], "window", content("window", 40, seed)))


def test_a_downloaded_state_goes_on_elsewhere(server: Server, files: dict[str, Path]) -> None:
    x = content("position", 9)
    ident = server.post("/sessions", {"model": "position"}).json()["session_id"]
    server.post("/predict", {"session_id": ident, "step": 1, "sequences": [x[:5]]})
    state = server.get(f"/sessions/{ident}/state").content
    headers = {"Content-Type": "application/octet-stream"}
    other = httpx.post(f"{server.url}/sessions", content=state, headers=headers).json()["session_id"]
    told = server.post("/predict", {"session_id": other, "sequences": [x[5:]]}).json()
    want = by_hand(files["position"], "position", x)["y"]
    assert np.array(told["outputs"]["y"][0]) == pytest.approx(np.array(want[5:]), abs=1e-4)


def test_a_last_null_flushes_a_window(server: Server, files: dict[str, Path]) -> None:
    x = content("window", 7)
    told = server.post("/predict", {"model": "window", "sequences": [[*(row[0] for row in x), None]]})
    padded = by_hand(files["window"], "window", [*x, *([[0.0]] * 3)])
    assert np.array(told.json()["outputs"]["level"][0]) == pytest.approx(np.array(padded["level"]), abs=1e-4)
    told = server.post("/predict", {"model": "gru", "sequences": [[[1, 2, 3], None]]})
    assert (told.status_code, told.json()["field"]) == (422, "sequences[0][1]")


@pytest.mark.parametrize("flush", [[None], [[None]]], ids=str)
def test_the_client_sends_samples_as_numbers_and_a_flush_by_itself(server: Server, files: dict[str, Path], flush: list[Any]) -> None:
    x = content("window", 7)
    with sync.Client(server.url) as client, client.session("window") as session:
        told = [session.step([row[0] for row in x[:3]]), session.step(x[3:]), session.step(flush)]
    heard = [value for one in told if one.outputs for value in one.outputs["level"]]
    assert session.position == 8
    close({"level": heard}, by_hand(files["window"], "window", [*x, *([[0.0]] * 3)]))


def test_the_list_of_models_says_what_they_read(server: Server) -> None:
    found = {m["name"]: m["versions"][0] for m in server.get("/models").json()["models"]}
    assert [f["name"] for f in found["policy"]["features"]] == ["obs_0", "obs_1", "obs_2"]
    assert [v["name"] for v in found["policy"]["values"]] == ["action_0", "action_1", "value"]
