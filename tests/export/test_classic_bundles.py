"""The cells of the survey in a file: each lowering is its specification, and a network of them all passes the kit."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from test_cell_bundles import alone

from indrnn.export import kit
from indrnn.export.adopt.bundle_subject import bundle_subject
from indrnn.export.bundle import Bundle
from indrnn.export.write import write
from indrnn.kernels.runtime import ort
from indrnn.model.cells.layer import Layer
from indrnn.model.cells.stacks import Chain, StackOptions
from indrnn.model.cells.table import CELLS
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.training.checkpoint import Meta

OPERATORS = {"gru_before": "GRU", "lstm_peephole": "LSTM", "relu": "RNN", "irnn_pd": "RNN"}
LOOPS = ("scrn", "urnn", "goru", "deep_input", "deep_transition", "deep_shortcut", "deep_output")
TOLD = {"features": [{"name": "a"}, {"name": "b"}], "answer": "end"}


@pytest.mark.parametrize("lengths", [(5, 0, 3), (5, 5, 5), (0, 0, 0)], ids=str)
@pytest.mark.parametrize("name", [*OPERATORS, *LOOPS])
@torch.no_grad()
def test_a_lowering_computes_what_the_specification_says_without_steps_too(name: str, lengths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    cell, rng = CELLS[name](5, 7), np.random.default_rng(0)
    for p in cell.parameters():
        p.add_(0.4 * torch.randn_like(p))
    session = alone(cell)
    state = rng.uniform(-1, 1, (3, cell.state_size)).astype(np.float32)
    for T in (5, 1, 0):
        x, ends = rng.normal(size=(T, 3, 5)).astype(np.float32), np.minimum(lengths, T)
        got = session.run(None, {"X": x, "lengths": ends, "state": state})
        for answered, expected in zip(got, cell.specified(x, ends, state), strict=True):
            assert answered.shape == expected.shape
            np.testing.assert_allclose(answered, expected, atol=2e-5)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[TensorNet, Bundle]:
    """One network with a layer of each, which starts from states that are learned; one export in place of twelve."""
    torch.manual_seed(0)
    net = TensorNet(TensorConfig((0.0, 0.0), (1.0, 1.0), 2, hidden=6, layers=2, pools=(), cell="scrn"))
    widths = [2, *[6] * 12]
    layers = [Layer(None, CELLS[name](widths[i], 6), 0.0) for i, name in enumerate([*OPERATORS, *LOOPS, "qrnn"])]
    net.stack = Chain(layers).taking(StackOptions(h0="learned"))
    net.sizes = [net.stack.state_size, 0, 2]
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.add_(0.05 * torch.randn_like(p)) if "reflections" not in name else None
    meta = Meta("tensor", "", 0, 0, labels=("x", "y"), told=TOLD, cell="scrn", parts=net.parts(), parameters=1)
    folder: Path = tmp_path_factory.mktemp("classic")
    return net, write(net.eval().requires_grad_(False), meta, folder, "net", "1", command="", max_position=100)


def test_the_file_is_made_of_onnx_s_own_operators_and_loops_and_knows_its_start(exported: tuple[TensorNet, Bundle]) -> None:
    _, bundle = exported
    kinds = [n.op_type for n in onnx.load(bundle.graph).graph.node]
    assert [kinds.count(op) for op in ("GRU", "LSTM", "RNN", "Loop", "DiagonalRecurrence")] == [1, 1, 2, 7, 1]
    assert bundle.manifest.part("started") is not None
    assert bundle.manifest.parity_error <= 1e-4


def test_a_network_of_them_all_passes_the_kit(exported: tuple[TensorNet, Bundle]) -> None:
    findings = kit.check(bundle_subject(exported[1]), steps=100)
    assert [f.fault for f in findings if f.fault is not None] == [], kit.report(findings)
    assert len(findings) == len(kit.CHECKS)


def test_a_zero_row_starts_where_training_starts(exported: tuple[TensorNet, Bundle]) -> None:
    net, bundle = exported
    session = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32)
    got, state = session.run(None, {"x": x, "lengths": np.array([3, 0]), "state": np.zeros((2, net.state_size), np.float32)})
    assert not state[1].any()
    want, _ = net(torch.from_numpy(x), torch.tensor([3, 0]), net.start(2))
    np.testing.assert_allclose(got[0], want[0].numpy(), atol=1e-5)
    with torch.no_grad():
        net.stack.h0.zero_()
    elsewhere, _ = net(torch.from_numpy(x), torch.tensor([3, 0]), net.start(2))
    assert np.abs(got[0] - elsewhere[0].numpy()).max() > 1e-4
