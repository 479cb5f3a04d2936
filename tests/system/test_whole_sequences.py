"""A network that reads whole sequences is served by /predict and by /v2 without a sequence, and whatever needs a stream is refused in one
sentence; beside it a deep transition network streams, and goes on after `kill -9`."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from conftest import Server

from indrnn.export.write import write
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.training.checkpoint import Meta, load, save

FEATURES = ({"name": "a"}, {"name": "b"})
SIZES: dict[str, dict[str, Any]] = {"both": {"cell": "gru", "bidirectional": True}, "deep": {"cell": "deep_transition"}}
LONG = 600  # steps: more than the service runs of a stream at once
REFUSED = "model both looks at whole sequences and has no stream: expected all of a sequence in one POST /predict or /v2 request without a"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def nets(folder: Path) -> dict[str, TensorNet]:
    made = {}
    for name, sizes in SIZES.items():
        torch.manual_seed(0)
        net = TensorNet(TensorConfig((0.0, 0.0), (1.0, 1.0), 2, (0.0, 0.0), (1.0, 1.0), hidden=6, layers=2, pools=(), **sizes))
        torch.nn.init.normal_(net.readout.weight)
        told = {"features": FEATURES, "values": ({"name": "y"}, {"name": "z"}), "answer": "step"}
        save(folder / f"{name}.pt", net, Meta("tensor", "", 0, 0, told=told))
        module, meta = load(folder / f"{name}.pt")
        assert isinstance(module, TensorNet)
        write(module, meta, folder / "bundles", name, "1", command="")
        made[name] = module
    return made


@pytest.fixture(scope="module")
def server(nets: dict[str, TensorNet], folder: Path) -> Iterator[Server]:
    assert len(nets) == len(list((folder / "bundles").iterdir()))
    made = Server(folder, {"INDRNN_BUNDLES": str(folder / "bundles")}).start()
    yield made
    made.stop()


def content(steps: int, seed: int = 0) -> list[list[float]]:
    rows: list[list[float]] = np.random.default_rng(seed).normal(size=(steps, 2)).round(3).tolist()
    return rows


@torch.no_grad()
def answers(net: TensorNet, rows: list[list[float]]) -> Any:
    x = torch.tensor(rows)[None]
    return net(x, torch.tensor([len(rows)]), net.start(1))[0][0].numpy()


def test_predict_reads_sequences_of_several_lengths_whole(server: Server, nets: dict[str, TensorNet]) -> None:
    clips = [content(LONG), content(7, 1), content(1, 2)]
    told = server.post("/predict", {"model": "both", "sequences": clips})
    assert told.status_code == 200, told.text
    for k, rows in enumerate(clips):
        want = answers(nets["both"], rows)
        assert np.array(told.json()["outputs"]["y"][k]) == pytest.approx(want[:, 0], abs=1e-4)
        assert np.array(told.json()["outputs"]["z"][k]) == pytest.approx(want[:, 1], abs=1e-4)


def test_v2_answers_whole_sequences_and_takes_and_gives_no_state(server: Server, nets: dict[str, TensorNet]) -> None:
    rows = content(300, 3)
    x = {"name": "x", "datatype": "FP32", "shape": [1, 300, 2], "data": rows}
    told = server.post("/v2/models/both/infer", {"inputs": [x]})
    assert told.status_code == 200, told.text
    got = np.array(told.json()["outputs"][0]["data"]).reshape(300, 2)
    assert got == pytest.approx(answers(nets["both"], rows), abs=1e-4)
    metadata = server.get("/v2/models/both").json()
    assert [t["name"] for t in metadata["inputs"] + metadata["optional_inputs"]] == ["x", "lengths"]
    assert metadata["optional_outputs"] == []
    assert "sequence_batching" not in server.get("/v2/models/both/config").json()
    assert "sequence_batching" in server.get("/v2/models/deep/config").json()
    state = {"name": "state", "datatype": "FP32", "shape": [1, 26], "data": [0.0] * 26}
    assert server.post("/v2/models/both/infer", {"inputs": [x, state]}).status_code == 400


def test_whatever_needs_a_stream_is_refused_in_one_sentence_that_names_the_remedy(server: Server) -> None:
    opened = server.post("/sessions", {"model": "both"})
    assert (opened.status_code, opened.json()["code"], opened.json()["field"]) == (422, "invalid_input", "model")
    assert opened.json()["detail"].startswith(REFUSED)
    assert "--delay" in opened.json()["detail"]
    with server.socket("both") as stream:
        stream.send('{"type": "open"}')
        told = orjson.loads(stream.recv())
    assert (told["type"], told["detail"]) == ("error", opened.json()["detail"])
    x = {"name": "x", "datatype": "FP32", "shape": [1, 1, 2], "data": [0.5, 0.5]}
    parameters = {"sequence_id": 5, "sequence_start": True, "sequence_end": False}
    sequence = server.post("/v2/models/both/infer", {"parameters": parameters, "inputs": [x]})
    assert sequence.status_code == 400
    assert REFUSED in sequence.json()["error"]
    assert not [s for s in server.get("/sessions").json()["sessions"] if s["model"] == "both"]


def test_the_list_of_models_says_which_have_a_stream(server: Server) -> None:
    told = {m["name"]: m["versions"][0]["streams"] for m in server.get("/models").json()["models"]}
    assert told == {"both": False, "deep": True}


def test_a_deep_network_streams_through_a_kill(server: Server, nets: dict[str, TensorNet]) -> None:
    rows, heard = content(20, 4), []
    with server.socket("deep") as stream:
        stream.send('{"type": "open"}')
        ident = orjson.loads(stream.recv())["session_id"]
        stream.send(orjson.dumps({"type": "step", "step": 1, "values": rows[:11]}).decode())
        heard += orjson.loads(stream.recv())["outputs"]["y"]
    server.restart(signal.SIGKILL)
    with server.socket("deep") as stream:
        stream.send(orjson.dumps({"type": "open", "session_id": ident}).decode())
        assert orjson.loads(stream.recv())["position"] == 11
        stream.send(orjson.dumps({"type": "step", "step": 2, "values": rows[11:]}).decode())
        heard += orjson.loads(stream.recv())["outputs"]["y"]
    assert np.array(heard) == pytest.approx(answers(nets["deep"], rows)[:, 0], abs=1e-4)
