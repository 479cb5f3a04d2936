"""POST /explain of a running service: the gradient that PyTorch gives, of frames and of text, with nothing stored."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Server

from indrnn.export import explain
from indrnn.export.write import write
from indrnn.frames.layouts import LAYOUTS
from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.training.checkpoint import Meta, load, save

ALPHABET = "abcdefghijklmnopqrstuvwxyz ,"
TEXT = Meta("chars", "", 0, 0, alphabet=ALPHABET)
KNOWN = Meta("chars", "", 0, 0, alphabet=ALPHABET + "\ufffd", told={"unknown": "\ufffd"})
ROWS = Meta("tensor", "", 0, 0, labels=("a", "b"), told={"features": [{"name": "x"}, {"name": "y"}], "answer": "end"})
FRAMES = Meta("action", "", 0, 0, labels=("a", "b", "c"), layout="utd20", layouts=LAYOUTS, persons=1, hz=30.0)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Folded networks by the names of their models, whose weights nobody trained, and the folder of their bundles."""
    folder = tmp_path_factory.mktemp("explained")
    torch.manual_seed(0)
    made: dict[str, tuple[StateNet, Meta]] = {
        "chars": (CharsNet(CharsConfig(len(ALPHABET), hidden=16, layers=2)), TEXT),
        "action": (ActionNet(ActionConfig(classes=3, hidden=16, layers=1)), FRAMES),
        "known": (CharsNet(CharsConfig(len(ALPHABET) + 1, hidden=8, layers=1)), KNOWN),
        "both": (TensorNet(TensorConfig((0.0, 0.0), (1.0, 1.0), 2, hidden=8, layers=1, ends=True, bidirectional=True)), ROWS),
        "silent": (CharsNet(CharsConfig(len(ALPHABET), hidden=8, layers=1)), TEXT),
    }
    found: dict[str, Any] = {"bundles": folder / "bundles"}
    for name, (net, meta) in made.items():
        torch.nn.init.normal_(net.readout.weight, std=0.5)  # type: ignore[union-attr,arg-type]
        save(folder / "net.pt", net, meta)
        found[name], told = load(folder / "net.pt")
        write(found[name], told, folder / "bundles", name, "1", command="", explain=name != "silent")
    return found


@pytest.fixture(scope="module")
def server(nets: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("service"), {"INDRNN_BUNDLES": str(nets["bundles"])}).start()
    yield made
    made.stop()


def expected(net: StateNet, x: np.ndarray, weights: list[float]) -> list[np.ndarray]:
    given = torch.from_numpy(x)[None], torch.tensor([len(x)]), torch.tensor([weights])
    return [out[0].numpy() for out in explain.explanation(net, *given)]


def test_a_network_that_looks_at_whole_sequences_is_explained(server: Server, nets: dict[str, Any]) -> None:
    rows = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    found = server.post("/explain", {"model": "both", "sequence": rows.tolist(), "label": "b"}).json()
    gradient, logits, off = expected(nets["both"], rows, [-1.0, 1.0])
    assert np.array(found["gradient"]) == pytest.approx(gradient, abs=1e-5)
    assert found["logit"] == pytest.approx(logits[1] - logits[0], abs=1e-5)
    assert found["off"] == pytest.approx(off, abs=1e-6)
    assert np.abs(gradient[0]).max() > 0  # the first row is read last by half of the neurons


def test_frames_are_explained_by_joint(server: Server, nets: dict[str, Any], walk: list[Any]) -> None:
    reply = server.post("/explain", {"sequence": walk, "label": "b"})
    assert reply.status_code == 200, reply.text
    told = reply.json()
    x = np.array(walk, np.float32)[:, None]
    gradient, logits, off = expected(nets["action"], x, [-0.5, 1.0, -0.5])
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(told["gradient"], gradient, atol=1e-4 * scale)
    np.testing.assert_allclose(told["relevance"], (gradient * x).sum(-1), atol=1e-3 * scale)
    np.testing.assert_allclose(told["off"], off, atol=1e-6)
    assert told["logit"] == pytest.approx(float(logits @ np.array([-0.5, 1.0, -0.5])), abs=1e-3)
    assert (told["model"], told["version"]) == ("action", "1")


def test_a_joint_that_was_not_seen_stays_where_it_was(server: Server, walk: list[Any]) -> None:
    holes = [[*frame] for frame in walk[:9]]
    held = [[*frame] for frame in walk[:9]]
    holes[4][3] = None
    held[4][3] = held[3][3]
    replies = [server.post("/explain", {"sequence": frames, "label": "a"}).json() for frames in (holes, held)]
    assert replies[0] == replies[1]


def test_text_is_explained_by_character(server: Server, nets: dict[str, Any]) -> None:
    text = "to be, or not to be"
    weights = np.linspace(-1, 1, len(ALPHABET)).tolist()
    told = server.post("/explain", {"sequence": text, "model": "chars", "weights": weights}).json()
    relevance, _, off = expected(nets["chars"], np.array([ALPHABET.index(c) for c in text]), weights)
    np.testing.assert_allclose(told["relevance"], relevance, atol=1e-4)
    assert told["gradient"] == told["relevance"]
    np.testing.assert_allclose(told["off"], off, atol=1e-6)
    assert server.post("/explain", {"sequence": text, "model": "chars", "label": "e"}).status_code == 200


def test_characters_that_the_alphabet_lacks_are_replaced_where_that_is_asked_for(server: Server) -> None:
    body = {"sequence": "to be é or € é", "model": "known", "label": "e"}
    refused = server.post("/explain", body)
    assert refused.status_code == 422
    assert '"unknown": "replace" reads it' in refused.json()["detail"]
    told = server.post("/explain", {**body, "unknown": "replace"}).json()
    assert told["replaced"] == {"count": 3, "chars": "é€"}
    assert len(told["relevance"]) == len(body["sequence"])
    same = server.post("/explain", {**body, "sequence": "to be ? or ? ?", "unknown": "replace"}).json()
    assert told["relevance"] == same["relevance"], "one symbol stands for all of them"
    assert "replaced" not in server.post("/explain", {**body, "sequence": "to be", "unknown": "replace"}).json()


def test_models_say_whether_they_have_one(server: Server) -> None:
    told = {m["name"]: m["versions"][-1]["explain"] for m in server.get("/models").json()["models"]}
    assert told == {"action": True, "chars": True, "known": True, "both": True, "silent": False}


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"sequence": "to", "model": "silent", "label": "e"}, 422, "model silent 1 has no explain.onnx"),
        ({"sequence": "to " * 200, "model": "chars", "label": "e"}, 413, "expected at most 512 steps, got 600"),
        ({"sequence": "to", "model": "chars", "label": "é"}, 422, "expected one of a, b, c"),
        ({"sequence": "to", "model": "chars"}, 422, "got null"),
        ({"sequence": "to", "model": "chars", "weights": [1, 2]}, 422, f"expected {len(ALPHABET)} numbers and no label"),
        ({"sequence": "to", "model": "chars", "weights": [True] * len(ALPHABET)}, 422, "numbers and no label"),
        ({"sequence": "to", "model": "chars", "label": "e", "weights": [1] * len(ALPHABET)}, 422, "and no label beside them"),
        ({"model": "chars", "label": "e"}, 422, "expected frames, rows or a text"),
        ({"sequence": "to", "model": "chars", "label": "e", "top_k": 1}, 422, "unknown field"),
        ({"sequence": "to", "model": "nobody", "label": "e"}, 404, "nobody"),
        ({"sequence": "to", "model": "chars", "label": "e", "unknown": "replace"}, 422, "no symbol for what its alphabet lacks"),
        ({"sequence": "to", "model": "known", "label": "e", "unknown": "skip"}, 422, 'expected "replace" or null'),
        ({"sequence": "to", "model": "known", "label": "e", "unknown": "replace", "hz": 15}, 422, "reads text"),
    ],
)
def test_what_cannot_be_explained_is_said_in_words(server: Server, body: dict[str, Any], code: int, said: str) -> None:
    reply = server.post("/explain", body)
    assert reply.status_code == code, reply.text
    assert said in reply.json()["detail"]


def test_frames_at_another_rate_are_refused(server: Server, walk: list[Any]) -> None:
    reply = server.post("/explain", {"sequence": walk, "label": "a", "hz": 15})
    assert (reply.status_code, reply.json()["field"]) == (422, "hz")


def test_another_file_in_its_place_is_not_run(server: Server, nets: dict[str, Any]) -> None:
    """The graph is opened when it is first asked for, long after the bundle was checked."""
    path: Path = nets["bundles"] / "chars" / "1" / "explain.onnx"
    kept = path.read_bytes()
    server.restart(signal.SIGTERM)
    path.write_bytes(kept + b"\0")
    try:
        reply = server.post("/explain", {"sequence": "to", "model": "chars", "label": "e"})
        assert reply.status_code == 422
        assert "no longer the file that was loaded" in reply.json()["detail"]
    finally:
        path.write_bytes(kept)
