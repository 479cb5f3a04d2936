"""A network that goes both ways in a file: the same numbers, each row as alone, and a manifest and a card that say it has no stream."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from indrnn.export import graph, kit
from indrnn.export.adopt.bundle_subject import bundle_subject
from indrnn.export.bundle import Bundle, Manifest
from indrnn.export.errors import ExportError, GraphError
from indrnn.export.manifest import parts
from indrnn.export.write import write
from indrnn.kernels.runtime import ort
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.training.checkpoint import Meta, load, save

FEATURES = ({"name": "a"}, {"name": "b"})


@pytest.fixture(scope="module", params=["indrnn", "gru", "scrn"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TensorNet, Meta, Bundle]:
    """By way of a checkpoint; one answers at the end, with leaky means, the others each step."""
    torch.manual_seed(0)
    cell, end = request.param, request.param == "indrnn"
    shape = {"mean": (0.5, 0.0), "scale": (2.0, 1.0), "hidden": 8, "layers": 2, "pools": (0.9,) if end else ()}
    net = TensorNet(TensorConfig(**shape, classes=3, cell=cell, bidirectional=True, ends=end))
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if "readout" in name or name.endswith("norm.mean"):
                tensor.normal_()
    folder: Path = tmp_path_factory.mktemp("both")
    told = {"features": FEATURES, "answer": "end" if end else "step"}
    save(folder / "net.pt", net, Meta("tensor", "", 0, 0, labels=("x", "y", "z"), told=told))
    module, meta = load(folder / "net.pt")
    assert isinstance(module, TensorNet)
    return module, meta, write(module, meta, folder / "bundles", "both", "1", command="")


@torch.no_grad()
def test_every_row_of_a_batch_is_answered_as_alone_and_as_pytorch_does(exported):
    net, _, bundle = exported
    session = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
    x, lengths = np.random.default_rng(1).normal(size=(4, 13, 2)).astype(np.float32), np.array([13, 5, 1, 0])
    for row, n in zip(x, lengths, strict=True):
        row[n:] = np.nan
    zeros = np.zeros((4, net.state_size), np.float32)
    got, after = session.run(None, {"x": x, "lengths": lengths, "state": zeros})
    for b, n in enumerate(lengths[:3]):
        want, ended = net(torch.from_numpy(x[b : b + 1, :n]), torch.tensor([n]), net.start(1))
        np.testing.assert_allclose(got[b, :n], want[0].numpy(), atol=1e-4)
        np.testing.assert_allclose(after[b], ended[0].numpy(), atol=1e-4)
    assert not after[3].any()


def test_the_kit_asks_what_needs_no_stream_and_says_what_it_skips(exported):
    findings = kit.check(bundle_subject(exported[2]))
    assert [f.check for f in findings if f.fault is not None] == []
    assert {f.check for f in findings if f.skipped} == {"split", "state", "memory", "ahead", "endless"}
    assert "skipped ahead    nothing looks ahead (it looks at whole sequences and has no stream)" in kit.report(findings)
    assert "ok      ragged " in kit.report(findings)


def test_taken_for_a_stream_it_fails_where_a_stream_would(exported):
    """What is skipped is not skipped for nothing."""
    net, meta, bundle = exported
    subject = bundle_subject(bundle)
    told = kit.check(kit.Subject(**{**vars(subject), "streams": True}), steps=50)
    assert {"split", "ahead"} <= {f.check for f in told if f.fault is not None}
    if net.cell == "indrnn":
        with pytest.raises(GraphError, match="expected the direction forward, got reverse"):
            graph.check_recurrence(onnx.load(bundle.graph), parts(meta))


def test_the_manifest_and_the_card_say_it(exported):
    net, _, bundle = exported
    assert bundle.manifest.streams is False
    card = (bundle.graph.parent / "CARD.md").read_text(encoding="utf-8")
    assert "It has no stream: whole sequences go to `POST /predict`" in card
    assert "Causal" not in card
    if net.cell == "indrnn":
        assert [p.size for p in bundle.manifest.state if p.role == "hidden"] == [4, 4, 4, 4]
        assert {n.op_type for n in onnx.load(bundle.graph).graph.node if n.domain} == {"IndRNN"}
    else:
        assert "h_back" in [p.name for p in bundle.manifest.state]
        assert "earlier" not in card


def test_a_manifest_of_before_streams_and_a_delay_beside_whole_sequences_is_refused(exported):
    told = exported[2].manifest.model_dump(mode="json", exclude_none=True)
    del told["streams"]
    assert Manifest.model_validate(told).streams
    if told["answer"] == "step":
        with pytest.raises(ValueError, match="delay: expected none where whole sequences are read"):
            Manifest.model_validate({**told, "streams": False, "delay": 2})


def test_it_is_explained_where_its_cell_is(exported, tmp_path):
    net, meta, _ = exported
    if net.config.cell == "indrnn":
        assert write(net, meta, tmp_path, "both", "1", command="", explain=True).manifest.explain
        return
    with pytest.raises((GraphError, ExportError), match=f"no explanation of a network of {net.config.cell}"):
        write(net, meta, tmp_path, "both", "1", command="", explain=True)
