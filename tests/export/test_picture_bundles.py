"""Networks that look at whole pictures in a file: the same numbers, what the kit asks of them, and what manifest and card say."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from indrnn.export import kit
from indrnn.export.adopt.bundle_subject import bundle_subject
from indrnn.export.bundle import Bundle, Manifest
from indrnn.export.errors import GraphError
from indrnn.export.write import write
from indrnn.kernels.runtime import ort
from indrnn.model.cells.grid.table import LAYERS
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.pictures.images import ImagesConfig, ImagesNet
from indrnn.model.nets.pictures.labels import LabelsConfig, LabelsNet
from indrnn.model.training.checkpoint import Meta, load, save

SIDE = 8
FEATURES = tuple({"name": f"column {j}", "mean": 100.0, "scale": 80.0} for j in range(SIDE))
SIZES = {"rcl": {"looks": 2, "plane_norm": "response"}, "md_indrnn": {}, "md_tanh": {"layers": 1}}


def made(kind: str) -> tuple[StateNet, Meta]:
    """Return a network whose weights nobody trained and whose answers differ all the same, and what its checkpoint says."""
    torch.manual_seed(0)
    if kind == "label_loop":
        values = tuple({"name": f"{j} {k}"} for j in range(SIDE) for k in "ab")
        told = {"features": FEATURES, "values": values, "returned": ({"name": "labels", "shape": (SIDE, 2)},), "answer": "step"}
        return LabelsNet(LabelsConfig(columns=SIDE, classes=2, hidden=4, layers=1, rounds=3)), Meta("tensor", "", 0, 0, told=told)
    net = ImagesNet(ImagesConfig(kind=kind, side=SIDE, classes=3, hidden=3, **SIZES[kind]))
    torch.nn.init.normal_(net.readout.weight)
    return net, Meta("tensor", "", 0, 0, labels=("x", "y", "z"), told={"features": FEATURES, "answer": "end"})


@pytest.fixture(scope="module", params=[*SIZES, "label_loop"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[StateNet, Meta, Bundle]:
    folder: Path = tmp_path_factory.mktemp("pictures")
    save(folder / "net.pt", *made(request.param))
    module, meta = load(folder / "net.pt")
    return module, meta, write(module, meta, folder / "bundles", "net", "1", command="")


@torch.no_grad()
def test_every_picture_of_a_batch_is_answered_as_alone_and_as_pytorch_does(exported: tuple[StateNet, Meta, Bundle]) -> None:
    net, _, bundle = exported
    session = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
    x, lengths = np.random.default_rng(1).uniform(0, 255, (3, SIDE, SIDE)).astype(np.float32), np.array([SIDE, 5, 0])
    for row, n in zip(x, lengths, strict=True):
        row[n:] = np.nan
    got, after = session.run(None, {"x": x, "lengths": lengths, "state": np.zeros((3, net.state_size), np.float32)})
    for b, n in enumerate(lengths[:2]):
        want, ended = net(torch.from_numpy(x[b : b + 1, :n]), torch.tensor([n]), net.start(1))
        np.testing.assert_allclose(got[b, :n], want[0].numpy(), rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(after[b], ended[0].numpy(), rtol=1e-5, atol=1e-4)
    assert not after[2].any()
    assert np.ptp(got[0, 0]) > 1e-3


def test_the_kit_asks_what_can_be_asked_of_a_picture(exported: tuple[StateNet, Meta, Bundle]) -> None:
    findings = kit.check(bundle_subject(exported[2]))
    assert [f.fault for f in findings if f.fault is not None] == []
    assert {f.check for f in findings if not f.skipped} == {"rows", "start", "ragged"}


def test_the_manifest_and_the_card_say_what_it_is(exported: tuple[StateNet, Meta, Bundle]) -> None:
    net, _, bundle = exported
    m = bundle.manifest
    assert (m.cell, m.streams, [p.role for p in m.state]) == (net.cell, False, ["last_logits"])
    assert m.limits.max_position == (SIDE if isinstance(net, ImagesNet) else None)
    card = (bundle.graph.parent / "CARD.md").read_text(encoding="utf-8")
    assert LAYERS[m.cell].about in card
    assert "whole pictures go to `POST /predict`" in card
    assert "directions start from" not in card
    assert not any(n.domain for n in onnx.load(bundle.graph).graph.node)  # standard operators alone


def test_a_manifest_without_hidden_parts_is_refused_where_there_is_a_stream(exported: tuple[StateNet, Meta, Bundle]) -> None:
    told = exported[2].manifest.model_dump(mode="json", exclude_none=True)
    with pytest.raises(ValueError, match="expected the hidden parts first, at least one where there is a stream"):
        Manifest.model_validate({**told, "streams": True})


def test_it_is_not_explained(exported: tuple[StateNet, Meta, Bundle], tmp_path: Path) -> None:
    net, meta, _ = exported
    if net.cell != "label_loop":  # the quickest export
        return
    with pytest.raises(GraphError, match="no explanation of label_loop"):
        write(net, meta, tmp_path, "net", "1", command="", explain=True)
