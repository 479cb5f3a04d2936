"""Networks of whole pictures, from `train` to `/predict`: digits by both kinds of layers, and a class of each pixel."""

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Server
from numpy.typing import NDArray

from indrnn.__main__ import main
from indrnn.model.data import mnist
from indrnn.model.data.pictures import strokes
from indrnn.model.training.checkpoint import load

KINDS = {"rcl": ("--looks", "1"), "md_indrnn": ("--block", "4", "--layers", "1")}
TRAINED = ("--hidden", "8", "--rate", "0.02", "--epoch", "15", "--warmup", "5", "--average", "5", "--no-progress")


def digits(folder: Path) -> None:
    """Write images that are dark (0) or bright (1) as MNIST's four files."""
    rng = np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for part, n in (("train", 80), ("t10k", 20)):
        labels = rng.integers(0, 2, n).astype(np.uint8)
        images = (rng.integers(0, 56, (n, 28, 28)) + 200 * labels[:, None, None]).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
            (folder / "mnist" / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes(), 1))


def run(*words: str) -> None:
    assert main(list(words)) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    digits(folder)
    steps = ("--steps", "30", "--decay", "10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INDRNN_DATA", str(folder))
        patch.setattr(mnist, "HELD_OUT", 16)
        patch.chdir(folder)
        for kind, more in KINDS.items():
            run(
                "train",
                "images",
                "--kind",
                kind,
                *more,
                "--rows",
                "16",
                "--dropout",
                "0",
                "--settling",
                "2",
                *steps,
                *TRAINED,
                "--out",
                kind,
            )
        run("train", "strokes", "--rounds", "2", "--layers", "1", *steps, *TRAINED, "--validate-every", "9", "--out", "strokes")
        for kind in (*KINDS, "strokes"):
            run("export", f"{kind}/model.pt", "bundles", "--name", kind)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    made = Server(folder, {"INDRNN_BUNDLES": str(folder / "bundles")}).start()
    yield made
    made.stop()


def picture(bright: bool, rows: int = 28) -> NDArray[np.float32]:
    return np.random.default_rng(rows).integers(0, 56, (rows, 28)).astype(np.float32) + 200 * bright


@pytest.mark.parametrize("kind", list(KINDS))
def test_pictures_are_told_by_what_was_trained(server: Server, folder: Path, kind: str) -> None:
    net, _ = load(folder / kind / "model.pt")
    shown = [picture(False), picture(True), picture(True, 20)]
    told = server.post("/predict", {"model": kind, "top_k": 10, "sequences": [x.tolist() for x in shown]})
    assert told.status_code == 200, told.text
    predictions = told.json()["predictions"]
    assert [p["label"] for p in predictions[:2]] == ["0", "1"]
    for x, p in zip(shown, predictions, strict=True):
        with torch.no_grad():
            odds = net(torch.from_numpy(x)[None], torch.tensor([len(x)]), net.start(1))[0][0, -1].softmax(0)
        assert {one["label"]: one["score"] for one in p["top"]} == pytest.approx(
            dict(zip("0123456789", odds.tolist(), strict=True)), abs=1e-4
        )


def test_every_pixel_of_a_picture_gets_its_scores(server: Server, folder: Path) -> None:
    net, _ = load(folder / "strokes" / "model.pt")
    x = strokes.draw(np.random.default_rng(0), 2)[0]
    shown = [x[0], x[1, :9]]
    told = server.post("/predict", {"model": "strokes", "sequences": [one.tolist() for one in shown]})
    assert told.status_code == 200, told.text
    for one, got in zip(shown, told.json()["outputs"]["labels"], strict=True):
        with torch.no_grad():
            want = net(torch.from_numpy(one)[None], torch.tensor([len(one)]), net.start(1))[0][0]
        assert np.array(got) == pytest.approx(want.reshape(len(one), strokes.SIDE, 3).numpy(), abs=1e-4)


def test_what_is_no_picture_of_it_is_refused_in_one_sentence(server: Server) -> None:
    longer = server.post("/predict", {"model": "rcl", "sequences": [picture(True, 29).tolist()]})
    assert (longer.status_code, longer.json()["code"]) == (413, "too_large"), longer.text
    assert longer.json()["detail"] == "expected at most 28 in a sequence, got 29: the model was made for 28"
    narrow = server.post("/predict", {"model": "rcl", "sequences": [picture(True)[:, :27].tolist()]})
    assert (narrow.status_code, narrow.json()["field"]) == (422, "sequences[0][0]")
    opened = server.post("/sessions", {"model": "md_indrnn"})
    assert (opened.status_code, opened.json()["field"]) == (422, "model")
    assert opened.json()["detail"].endswith("expected all of a sequence in one POST /predict or /v2 request without a session")
    told = {m["name"]: m["versions"][0] for m in server.get("/models").json()["models"]}
    assert {name: v["streams"] for name, v in told.items()} == dict.fromkeys((*KINDS, "strokes"), False)
