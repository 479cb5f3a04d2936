"""Networks of cells on the diagonal recurrence become bundles: one op a layer, portable and fused, any split, checked by the kit."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from test_cell_bundles import CHARS, Running, chars, inputs

from indrnn.__main__ import main
from indrnn.export.bundle import DIAGONAL_TYPE, Bundle
from indrnn.export.write import write
from indrnn.kernels.build import KernelMissing, build
from indrnn.kernels.runtime import ort
from indrnn.model.cells.table import CELLS
from indrnn.model.nets.network import StateNet
from indrnn.model.training.checkpoint import load, save

DIAGONAL = [name for name, cell in CELLS.items() if cell.__module__.startswith("indrnn.model.cells.diagonal.")]


@pytest.fixture(scope="module", params=DIAGONAL)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, StateNet, Bundle]:
    """Name of the cell, the network folded, and its bundle, by way of a checkpoint."""
    cell = request.param
    torch.manual_seed(0)
    folder: Path = tmp_path_factory.mktemp("diagonal")
    save(folder / "net.pt", chars(cell), CHARS)
    module, meta = load(folder / "net.pt")
    return cell, module, write(module, meta, folder / "bundles", "net", "1", command="")


@pytest.fixture(params=["portable", "fused"])
def running(request: pytest.FixtureRequest, exported: tuple[str, StateNet, Bundle]) -> Running:
    made = Running(exported[1], exported[2])
    if request.param == "fused":
        try:
            library = build()
        except KernelMissing as missing:
            pytest.skip(str(missing))
        options = ort.SessionOptions()
        options.register_custom_ops_library(str(library))
        made.session = ort.InferenceSession(exported[2].graph, options, providers=["CPUExecutionProvider"])
    return made


@pytest.mark.parametrize(("B", "T"), [(1, 1), (1, 90), (3, 1), (3, 41), (5, 7)])
def test_the_file_answers_what_the_network_answers(running: Running, B: int, T: int) -> None:
    x, lengths = inputs(running.net, B, T), [T, *([0, T // 2, T, 1][: B - 1])]
    got, want = running.ask(x, lengths), running.torch(x, lengths)
    for b, n in enumerate(lengths):
        np.testing.assert_allclose(got[0][b, :n], want[0][b, :n], atol=1e-4)
    np.testing.assert_allclose(got[1], want[1], atol=1e-4)


@pytest.mark.parametrize("size", [1, 7, 30])
def test_any_split_ends_alike(running: Running, size: int) -> None:
    x = inputs(running.net, 2, 43)
    whole, end = running.ask(x, [43, 43])
    state, pieces = None, []
    for start in range(0, 43, size):
        piece, state = running.ask(x[:, start : start + size], [len(x[0, start : start + size])] * 2, state)
        pieces.append(piece)
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole, atol=1e-5)
    np.testing.assert_allclose(state, end, atol=1e-5)


def test_each_layer_is_one_node_whose_kernel_leaves_no_loop(exported: tuple[str, StateNet, Bundle], tmp_path: Path) -> None:
    cell, net, bundle = exported
    model = onnx.load(bundle.graph)
    onnx.checker.check_model(model, full_check=True)
    layers = len(net.stack.indrnns())  # type: ignore[operator, union-attr]
    assert sum(n.op_type == DIAGONAL_TYPE for n in model.graph.node) == layers
    names = [p.name for p in net.stack.indrnns()[0].cell.parts()]  # type: ignore[operator, union-attr]
    hidden = [(p.layer, p.name, p.u) for p in bundle.manifest.state if p.role == "hidden"]
    assert (bundle.manifest.cell, hidden) == (cell, [(i, name, None) for i in range(layers) for name in names])
    text = (bundle.graph.parent / "CARD.md").read_text()
    assert CELLS[cell].about in text
    assert CELLS[cell].carried in text
    assert CELLS[cell].endless in text
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    try:
        options.register_custom_ops_library(str(build()))
    except KernelMissing as missing:
        pytest.skip(str(missing))
    ort.InferenceSession(bundle.graph, options, providers=["CPUExecutionProvider"])
    kinds = {n.op_type for n in onnx.load(tmp_path / "fused.onnx").graph.node}
    assert DIAGONAL_TYPE in kinds
    assert "Loop" not in kinds


def test_the_kit_finds_nothing_wrong(exported: tuple[str, StateNet, Bundle], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(exported[2].graph.parent)]) == 0, capsys.readouterr()
