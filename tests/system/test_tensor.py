"""Networks of numbers: trained from a file, exported, served over every protocol, and never lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from conftest import ROOT, Server

from indrnn.client.sync import Client

F = 3


def write(path: Path, kind: str) -> None:
    """Sequences of three sensors: which of two rhythms it is at the end, or the running mean of two of them after each step."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 40, 48)
    x = [rng.normal(20, 3, (n, F)) for n in lengths]
    y = np.arange(len(x)) % 2
    for rows, label in zip(x, y, strict=True):
        rows[:, 0] += 6 * np.sin(np.arange(len(rows)) * (0.3 if label else 1.1))
    off = np.cumsum([0, *lengths])
    extra: dict[str, Any] = {"labels": np.array(["slow", "quick"])[1 - y]}
    if kind == "values":
        means = [np.cumsum(rows[:, :2], 0) / np.arange(1, len(rows) + 1)[:, None] for rows in x]
        extra = {"y": np.concatenate(means), "outputs": np.array(["inside", "outside"]), "output_units": np.array(["°C", "°C"])}
    np.savez(path, x=np.concatenate(x), off=off, subject=np.arange(len(x)) % 6, features=np.array(["a", "b", "c"]), **extra)


def run(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "indrnn", *words], cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tensor")
    small = ("--hidden", "16", "--steps", "20", "--decay", "10", "--no-progress", "--out")
    for name, kind, cell in (("classes", "classes", "gru"), ("values", "values", "indrnn"), ("lstm", "values", "lstm")):
        write(folder / f"{name}.npz", kind)
        split = ("--test", "subject=5", "--held", "subject=4", "--layers", "1", "--cell", cell)
        run("train", "tensor", f"{name}.npz", *split, *small, name, cwd=folder)
        run("export", f"{name}/model.pt", "bundles", "--name", name, cwd=folder)
    for cell in ("gru", "lstm"):
        run("train", "adding", "--cell", cell, "--length", "20", "--rows", "16", *small, f"adding-{cell}", cwd=folder)
        run("export", f"adding-{cell}/model.pt", "bundles", "--name", f"adding-{cell}", cwd=folder)
    made = Server(folder, {"INDRNN_BUNDLES": str(folder / "bundles")}).start()
    yield made
    made.stop()


def rows(n: int, seed: int = 1) -> list[list[float]]:
    found: list[list[float]] = np.random.default_rng(seed).normal(20, 3, (n, F)).round(3).tolist()
    return found


def test_models_say_what_they_read_and_answer(server: Server) -> None:
    found = {m["name"]: m for m in server.get("/models").json()["models"]}
    assert found["classes"]["modality"] == found["values"]["modality"] == "tensor"
    (version,) = found["values"]["versions"]
    assert [f["name"] for f in version["features"]] == ["a", "b", "c"]
    assert version["values"] == [{"name": "inside", "unit": "°C"}, {"name": "outside", "unit": "°C"}]
    assert version["answer"] == "step"
    assert found["classes"]["versions"][0]["labels"] == ["quick", "slow"]


def test_predict_answers_classes_and_values_of_several_sequences(server: Server) -> None:
    told = server.post("/predict", {"model": "classes", "sequences": [rows(5), rows(9)], "top_k": 2}).json()
    assert [p["steps"] for p in told["predictions"]] == [5, 9]
    for p in told["predictions"]:
        assert p["label"] == p["top"][0]["label"]
        assert sum(one["score"] for one in p["top"]) == pytest.approx(1, abs=1e-6)
    told = server.post("/predict", {"model": "values", "sequences": [rows(5), rows(9)]}).json()
    assert {name: [len(v) for v in values] for name, values in told["outputs"].items()} == {"inside": [5, 9], "outside": [5, 9]}


@pytest.mark.parametrize(("model", "sizes"), [("classes", (4, 1, 7)), ("values", (1, 1, 10)), ("values", (12,))])
def test_any_split_of_a_sequence_over_predict_and_the_stream_answers_as_the_whole(
    server: Server, model: str, sizes: tuple[int, ...]
) -> None:
    x = rows(12)
    whole = server.post("/predict", {"model": model, "sequences": [x]}).json()
    ident = server.post("/sessions", {"model": model}).json()["session_id"]
    at, told = 0, []
    for n, size in enumerate(sizes, 1):
        piece, at = x[at : at + size], at + size
        if n % 2:
            told.append(server.post("/predict", {"sequences": [piece], "session_id": ident, "step": n}).json())
            assert told[-1]["session"] == {"session_id": ident, "step": n, "position": at}
            continue
        with server.socket(model) as stream:
            stream.send(orjson.dumps({"type": "open", "session_id": ident}).decode())
            stream.recv()
            stream.send(orjson.dumps({"type": "step", "step": n, "values": piece}).decode())
            told.append(orjson.loads(stream.recv()))
            assert (told[-1]["step"], told[-1]["position"]) == (n, at)
    if model == "classes":
        assert told[-1]["predictions"][0]["score"] == pytest.approx(whole["predictions"][0]["score"], abs=1e-5)
        return
    pieces = [t["outputs"]["inside"] for t in told]
    flat = np.concatenate([np.reshape(p, -1) for p in pieces])
    assert flat == pytest.approx(whole["outputs"]["inside"][0], abs=1e-3)


def test_a_repeat_over_another_protocol_is_answered_and_other_content_is_a_conflict(server: Server) -> None:
    ident = server.post("/sessions", {"model": "values"}).json()["session_id"]
    first = server.post("/predict", {"sequences": [rows(3)], "session_id": ident, "step": 1}).json()
    with server.socket("values") as stream:
        stream.send(orjson.dumps({"type": "open", "session_id": ident}).decode())
        stream.recv()
        stream.send(orjson.dumps({"type": "step", "step": 1, "values": rows(3)}).decode())
        assert orjson.loads(stream.recv())["outputs"]["inside"] == first["outputs"]["inside"][0]
        stream.send(orjson.dumps({"type": "step", "step": 1, "values": rows(3, 2)}).decode())
        assert orjson.loads(stream.recv())["code"] == "step_conflict"


def test_the_open_inference_protocol_takes_the_rows_as_they_are(server: Server) -> None:
    x = rows(6)
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 6, F], "data": x}]}
    (logits,) = server.post("/v2/models/values/infer", body).json()["outputs"]
    assert logits["shape"] == [1, 6, 2]
    told = server.post("/predict", {"model": "values", "sequences": [x]}).json()
    assert np.reshape(logits["data"], (6, 2))[:, 0] == pytest.approx(told["outputs"]["inside"][0], abs=1e-4)


@pytest.mark.parametrize(
    ("sequence", "field", "says"),
    [
        ([[1, 2]], "sequences[0][0]", "expected 3 numbers, got 2"),
        ([[1, 2, 3], [1, None, 3]], "sequences[0][1][1]", "expected a number, got null"),
        ([[1, 2, True]], "sequences[0][0][2]", "expected a number, got true"),
        ([[1, 2, 1e39]], "sequences[0][0][2]", "within float32"),
        ([], "sequences[0]", "expected a list of rows"),
        ("x", "sequences[0]", "expected a list of rows"),
        ([5], "sequences[0][0]", "expected a list of 3 numbers"),
    ],
)
def test_what_is_no_row_is_refused_with_its_place(server: Server, sequence: Any, field: str, says: str) -> None:
    told = server.post("/predict", {"model": "values", "sequences": [sequence]})
    assert told.status_code == 422
    assert told.json()["field"] == field
    assert says in told.json()["detail"]


@pytest.mark.parametrize(("model", "value"), [("values", "inside"), ("lstm", "inside"), ("adding-gru", "sum"), ("adding-lstm", "sum")])
def test_kill_in_a_stream_loses_nothing(server: Server, model: str, value: str) -> None:
    x = [row[: 2 if value == "sum" else F] for row in rows(30)]
    with server.socket(model) as stream:
        stream.send(orjson.dumps({"type": "open"}).decode())
        ident = orjson.loads(stream.recv())["session_id"]
        heard = []
        for n in range(1, 16):
            stream.send(orjson.dumps({"type": "step", "step": n, "values": [x[n - 1]]}).decode())
            heard.append(orjson.loads(stream.recv())["outputs"][value][0])
        stream.send(orjson.dumps({"type": "step", "step": 16, "values": [x[15]]}).decode())
        server.restart(signal.SIGKILL)
    with server.socket(model) as stream:
        stream.send(orjson.dumps({"type": "open", "session_id": ident}).decode())
        assert orjson.loads(stream.recv())["step"] in (15, 16)
        for n in range(16, 31):
            stream.send(orjson.dumps({"type": "step", "step": n, "values": [x[n - 1]]}).decode())
            heard.append(orjson.loads(stream.recv())["outputs"][value][0])
    whole = [server.post("/predict", {"model": model, "sequences": [x[:n]]}).json()["outputs"][value][0] for n in (15, 16, 30)]
    ends = [values[-1] if isinstance(values, list) else values for values in whole]
    assert [heard[14], heard[15], heard[29]] == pytest.approx(ends, abs=1e-3)


def test_an_option_of_other_models_is_refused(server: Server) -> None:
    for option in ({"layout": "utd20"}, {"hz": 7}):
        told = server.post("/predict", {"model": "values", "sequences": [rows(2)], **option})
        assert told.status_code == 422, option
        assert told.json()["field"] in option


def test_our_client_reads_models_of_numbers(server: Server) -> None:
    with Client(server.url) as client:
        told = client.predict([rows(4)], model="classes")
        assert (told.predictions[0].frames, told.outputs) == (4, None)
        whole = server.post("/predict", {"model": "values", "sequences": [rows(4)]}).json()["outputs"]
        assert client.predict([rows(4)], model="values").outputs == whole
        with client.session("values") as session:
            result = session.step(rows(4))
            assert (result.step, result.position, len((result.outputs or {})["inside"])) == (1, 4, 4)


def test_every_is_refused_where_there_are_no_scores(server: Server) -> None:
    with server.socket("values") as stream:
        stream.send(orjson.dumps({"type": "open", "every": True}).decode())
        told = orjson.loads(stream.recv())
        assert (told["code"], told["field"]) == ("invalid_input", "every")


def test_a_model_says_how_many_rows_it_takes_at_once(server: Server) -> None:
    found = {m["name"]: m["versions"][0]["limits"]["max_frames"] for m in server.get("/models").json()["models"]}
    assert (found["classes"], found["values"]) == (5_000, 1_024)
    assert server.post("/predict", {"model": "values", "sequences": [rows(1_025)]}).status_code == 413
