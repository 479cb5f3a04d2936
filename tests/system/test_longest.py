"""A model that was made for sequences of thirty steps reads none longer, whichever way one comes in."""

import queue
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.grpc
import tritonclient.http
from conftest import Server
from test_inference import free_port
from test_stream import ask
from tritonclient.utils import InferenceServerException

from indrnn.export.write import write
from indrnn.frames.layouts import LAYOUTS
from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.training.checkpoint import Meta, load, save

MOST = 30
LETTERS = "abcdefghijklmnopqrstuvwxyz ,"
FEATURES = [{"name": "a"}, {"name": "b"}]
NETS = {
    "frames": (
        ActionNet(ActionConfig(classes=3, hidden=8, layers=2)),
        Meta("action", "", 0, 0, labels=("a", "b", "c"), layout="utd20", layouts=LAYOUTS, persons=1, hz=30.0),
    ),
    "text": (CharsNet(CharsConfig(len(LETTERS), hidden=8, layers=2)), Meta("chars", "", 0, 0, alphabet=LETTERS)),
    "values": (
        TensorNet(TensorConfig(mean=(0.0, 0.0), scale=(1.0, 1.0), hidden=8, layers=1)),
        Meta("tensor", "", 0, 0, labels=("a", "b"), told={"features": FEATURES, "answer": "end"}),
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("longest")
    torch.manual_seed(0)
    for name, (net, meta) in NETS.items():
        torch.nn.init.normal_(net.readout.weight, std=0.3)
        save(folder / f"{name}.pt", net, meta)
        write(*load(folder / f"{name}.pt"), folder / "bundles", name, "1", command="", max_position=MOST)
    made = Server(folder, {"INDRNN_BUNDLES": str(folder / "bundles"), "INDRNN_GRPC_PORT": free_port()}).start()
    yield made
    assert made.stop() in (0, -signal.SIGTERM), made.log()
    assert "Traceback" not in made.log()


def some(model: str, n: int) -> Any:
    """What a client sends of n steps: frames, rows or characters."""
    rng = np.random.default_rng(n)
    frames: list[Any] = rng.uniform(-0.5, 0.5, (n, 20, 3) if model == "frames" else (n, 2)).round(3).tolist()
    return "to be or not to be, or "[: n % 23] + "a" * (n - n % 23) if model == "text" else frames


def tensor(model: str, n: int) -> np.ndarray[Any, Any]:
    x = np.array([LETTERS.index(c) for c in some("text", n)] if model == "text" else some(model, n))
    if model == "frames":
        x = x[:, None]
    return x[None].astype(np.int64 if model == "text" else np.float32)


@pytest.mark.parametrize("model", ["frames", "values"])
def test_predict_without_a_session(server: Server, model: str) -> None:
    assert server.post("/predict", {"model": model, "sequences": [some(model, MOST)]}).status_code == 200
    reply = server.post("/predict", {"model": model, "sequences": [some(model, 2), some(model, MOST + 1)]})
    assert (reply.status_code, reply.json()["code"], reply.json()["field"]) == (413, "too_large", "sequences[1]")
    assert "expected at most 30 in a sequence, got 31: the model was made for 30" in reply.json()["detail"]


def test_predict_counts_what_the_model_reads_of_another_camera(server: Server) -> None:
    def status(n: int, hz: float) -> int:
        return server.post("/predict", {"model": "frames", "sequences": [some("frames", n)], "hz": hz}).status_code

    assert [status(15, 15), status(16, 15), status(60, 60), status(61, 60)] == [200, 413, 200, 413]


@pytest.mark.parametrize(("hz", "most"), [(30, 30), (15, 15), (60, 60)])
def test_predict_in_a_session(server: Server, hz: float, most: int) -> None:
    ident = server.post("/sessions", {"model": "frames"}).json()["session_id"]
    body = {"session_id": ident, "hz": hz}
    assert server.post("/predict", {**body, "sequences": [some("frames", most - 2)]}).status_code == 200
    reply = server.post("/predict", {**body, "sequences": [some("frames", 3)]})
    assert (reply.status_code, reply.json()["code"]) == (409, "position_limit")
    assert "expected at most 2 more, got 3" in reply.json()["detail"]
    assert server.post("/predict", {**body, "sequences": [some("frames", 2)]}).json()["session"]["position"] == most


@pytest.mark.parametrize("model", NETS)
def test_the_stream(server: Server, model: str) -> None:
    with server.socket(model) as ws:
        ask(ws, type="open")
        assert ask(ws, type="step", **{model: some(model, MOST - 1)})["position"] == MOST - 1
        assert ask(ws, type="step", **{model: some(model, 2)})["code"] == "position_limit"
        if model == "text":
            assert ask(ws, type="generate", max_chars=2)["code"] == "position_limit"
        assert ask(ws, type="step", **{model: some(model, 1)})["position"] == MOST


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("model", NETS)
def test_the_open_inference_protocol(server: Server, protocol: str, model: str) -> None:
    module: Any = getattr(tritonclient, protocol)
    client = module.InferenceServerClient(f"127.0.0.1:{server.port if protocol == 'http' else server.env['INDRNN_GRPC_PORT']}")

    def infer(n: int, **options: Any) -> str:
        x = tensor(model, n)
        sent = module.InferInput("x", x.shape, "INT64" if model == "text" else "FP32").set_data_from_numpy(x)
        try:
            client.infer(model, [sent], **options)
        except InferenceServerException as error:
            return str(error.message())
        return ""

    assert infer(MOST) == ""
    assert "expected at most 30 in a sequence, got 31: the model was made for 30" in infer(MOST + 1)
    sequence = {"sequence_id": 1 + len(model) + 10 * (protocol == "http")}
    assert "the model was made for 30" in infer(MOST + 1, sequence_start=True, **sequence)
    assert infer(MOST - 1, sequence_start=True, **sequence) == ""
    assert "expected at most 1 more, got 2: the model was made for 30" in infer(2, **sequence)
    assert infer(1, sequence_end=True, **sequence) == ""
    client.close()


def test_a_grpc_stream(server: Server) -> None:
    heard: queue.Queue[Any] = queue.Queue()
    client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.env['INDRNN_GRPC_PORT']}")
    client.start_stream(callback=lambda result, error: heard.put(error))
    for n, start in ((MOST, True), (1, False)):
        x = tensor("frames", n)
        client.async_stream_infer(
            "frames", [tritonclient.grpc.InferInput("x", x.shape, "FP32").set_data_from_numpy(x)], sequence_id=99, sequence_start=start
        )
    assert heard.get(timeout=20) is None
    assert "expected at most 0 more, got 1" in heard.get(timeout=20).message()
    client.stop_stream()
    client.close()


def test_completions(server: Server) -> None:
    reply = server.post("/v1/completions", {"model": "text", "prompt": some("text", MOST - 1), "max_tokens": 2})
    assert reply.status_code == 413
    assert "expected at most 30 characters" in reply.json()["error"]["message"]
    assert server.post("/v1/completions", {"model": "text", "prompt": some("text", MOST - 1), "max_tokens": 1}).status_code == 200


def test_the_page_of_the_model_says_how_long(server: Server) -> None:
    for model in NETS:
        assert server.get(f"/models/{model}").json()["versions"][0]["limits"]["max_position"] == MOST
        card = Path(server.folder / "bundles" / model / "1" / "CARD.md").read_text(encoding="utf-8")
        assert "may not be longer than 30 steps" in card
