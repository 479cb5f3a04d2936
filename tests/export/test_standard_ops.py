"""`--standard-ops`: recurrences of positive decays as LinearAttention of opset 27, the same in the reference and in ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from indrnn.__main__ import main
from indrnn.export import kit, standard
from indrnn.export.adopt.bundle_subject import bundle_subject
from indrnn.export.bundle import read
from indrnn.export.errors import GraphError
from indrnn.export.graph import append_functions
from indrnn.kernels.runtime import ort
from indrnn.model.cells import reference
from indrnn.model.cells.table import CELLS
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.training.checkpoint import Meta, save

T, B, H = "T", "B", 3


def model_of(nodes: list[onnx.NodeProto], weights: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    """A graph of raw a and b [T, B, H], lengths and h, with the portable bodies."""
    given = [helper.make_tensor_value_info(n, 1, [T, B, H]) for n in ("a", "b")]
    given += [helper.make_tensor_value_info("lengths", 7, [B]), helper.make_tensor_value_info("h", 1, [B, H])]
    made = [helper.make_tensor_value_info("y", 1, [T, B, H]), helper.make_tensor_value_info("y_h", 1, [B, H])]
    graph = helper.make_graph(nodes, "g", given, made, list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.indrnn", 1)], ir_version=10)
    append_functions(model)
    return model


def diagonal(decay: str, **bounds: float) -> onnx.NodeProto:
    named = {"domain": "ai.indrnn", "direction": "forward"}
    return helper.make_node("DiagonalRecurrence", [decay, "b", "lengths", "h"], ["y", "y_h"], **named, **bounds)


SIGMOID = helper.make_node("Sigmoid", ["a"], ["decay"])


def given(steps: int, rows: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(steps)
    a, b = (rng.normal(size=(steps, rows, H)).astype(np.float32) for _ in range(2))
    lengths = np.array([steps, 0, steps // 2])[:rows]
    for row, n in enumerate(lengths):
        a[n:, row], b[n:, row] = np.nan, np.nan
    return {"a": a, "b": b, "lengths": lengths, "h": rng.normal(size=(rows, H)).astype(np.float32)}


@pytest.mark.parametrize("steps", [7, 1, 0])
def test_it_is_the_recurrence_in_the_reference_evaluator_and_in_the_runtime(steps: int) -> None:
    model, left = standard.to_linear_attention(model_of([SIGMOID, diagonal("decay")]))
    assert left == 0
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 27)]
    assert [n.op_type for n in model.graph.node].count("LinearAttention") == 1
    assert not model.functions
    feed = given(steps)
    want = reference.diagonal(1 / (1 + np.exp(-feed["a"].astype(float))), feed["b"].astype(float), feed["lengths"], feed["h"].astype(float))
    for run in (ReferenceEvaluator(model).run, ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run):
        for got, expected in zip(run(None, feed), want, strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_decay_that_underflows_forgets_and_is_no_nan() -> None:
    model, _ = standard.to_linear_attention(model_of([SIGMOID, diagonal("decay")]))
    feed = given(4) | {"lengths": np.array([4, 4, 4])}
    feed["a"], feed["b"] = np.full_like(feed["a"], -200), np.nan_to_num(feed["b"])
    y, _ = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)
    np.testing.assert_allclose(y, feed["b"], atol=1e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        [diagonal("a")],  # of any sign
        [helper.make_node("Tanh", ["a"], ["decay"]), diagonal("decay")],
        [SIGMOID, helper.make_node("Neg", ["decay"], ["away"]), diagonal("away")],
        [SIGMOID, helper.make_node("Add", ["decay", "a"], ["more"]), diagonal("more")],
        [SIGMOID, diagonal("decay", lo=0.0)],
        [SIGMOID, diagonal("decay", hi=1.0)],
    ],
)
def test_what_has_no_logarithm_or_has_bounds_is_left_as_it_is(nodes: list[onnx.NodeProto]) -> None:
    with pytest.raises(GraphError, match="expected a recurrence whose decays are all positive"):
        standard.to_linear_attention(model_of(nodes))


@pytest.mark.parametrize(("low", "fits"), [(0.1, True), (-0.1, False), (0.0, False)])
def test_an_indrnn_without_activation_and_of_positive_u_is_one_too(low: float, fits: bool) -> None:
    u = onnx.numpy_helper.from_array(np.array([0.9, low, 0.5], np.float32), "u")
    named = {"domain": "ai.indrnn", "activation": "identity", "direction": "forward", "alpha": 0.01}
    node = helper.make_node("IndRNN", ["b", "u", "lengths", "h"], ["y", "y_h"], **named)
    if not fits:
        with pytest.raises(GraphError, match="expected a recurrence"):
            standard.to_linear_attention(model_of([node], (u,)))
        return
    model, left = standard.to_linear_attention(model_of([node], (u,)))
    feed = given(5)
    want = reference.indrnn(feed["b"].astype(float), np.array([0.9, low, 0.5]), feed["lengths"], feed["h"].astype(float), "identity")
    for got, expected in zip(ReferenceEvaluator(model).run(None, feed), want, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert left == 0


def saved(cell: str, folder: Path, seed: int = 0) -> tuple[TensorNet, Path]:
    torch.manual_seed(seed)
    net = TensorNet(TensorConfig((0.0, 0.0), (1.0, 1.0), 2, hidden=6, layers=2, cell=cell))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    told = {"features": [{"name": "a"}, {"name": "b"}], "answer": "end"}
    save(folder / "net.pt", net, Meta("tensor", "", 0, 0, labels=("x", "y"), told=told))
    return net, folder / "net.pt"


def test_a_bundle_of_standard_operators_alone_is_checked_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, path = saved("hgrn", tmp_path)
    assert main(["export", str(path), str(tmp_path / "b"), "--name", "net", "--standard-ops"]) == 0
    bundle = read(tmp_path / "b" / "net" / "1")
    assert bundle.manifest.opset == 27
    model = onnx.load(bundle.graph)
    assert [n.op_type for n in model.graph.node].count("LinearAttention") == 3  # two layers and the pool
    assert {o.domain for o in model.opset_import} == {""}
    text = (bundle.graph.parent / "CARD.md").read_text()
    assert "LinearAttention" in text
    assert "ai.indrnn::" not in text
    assert "--standard-ops" in text
    findings = kit.check(bundle_subject(bundle), steps=50)
    assert [f.fault for f in findings if f.fault is not None] == [], kit.report(findings)
    x = np.random.default_rng(0).normal(size=(2, 9, 2)).astype(np.float32)
    feed = {"x": x, "lengths": np.array([9, 4]), "state": np.zeros((2, net.state_size), np.float32)}
    got, _ = ReferenceEvaluator(model).run(None, feed)
    with torch.no_grad():
        want, _ = net.fold()(torch.from_numpy(x), torch.tensor([9, 4]), net.start(2))
    for row, n in enumerate((9, 4)):
        np.testing.assert_allclose(got[row, :n], want[row, :n].numpy(), atol=1e-4)


def test_what_has_no_such_recurrence_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    net = TensorNet(TensorConfig((0.0,), (1.0,), 2, hidden=4, layers=1, pools=()))
    save(tmp_path / "net.pt", net, Meta("tensor", "", 0, 0, labels=("x", "y"), told={"features": [{"name": "a"}], "answer": "end"}))
    assert main(["export", str(tmp_path / "net.pt"), str(tmp_path / "b"), "--standard-ops"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("export refused: expected a recurrence whose decays are all positive")


@pytest.mark.parametrize("cell", ["mingru", "minlstm", "rglru", "hgrn", "sru", "qrnn", "lru"])
def test_every_cell_on_the_diagonal_recurrence_is_seen_to_have_positive_decays(cell: str) -> None:
    """By its nodes, each alone: nobody says so of it."""
    torch.manual_seed(0)
    lowering = CELLS[cell](H, H).lowering()
    assert lowering is not None
    text = (
        f'<ir_version: 10, opset_import: ["": 18, "ai.indrnn": 1, "o": 1]> g (float[T, B, {H}] X, int64[B] lengths, float[B, S] state)'
        f" => (float[T, B, {H}] Y, float[B, S] state_out) {{ {lowering.nodes} }}"
    )
    graph = onnx.parser.parse_model(text).graph
    graph.initializer.extend(onnx.numpy_helper.from_array(np.ascontiguousarray(w), n) for n, w in lowering.weights.items())
    (node,) = (n for n in graph.node if n.op_type == "DiagonalRecurrence")
    assert standard._Sources(graph).positive(node.input[0])


def test_an_explanation_is_added_to_a_version_of_standard_ops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compared with what the checkpoint gives in the same operators, and with no other's."""
    for seed, name in enumerate(("net", "other")):
        (tmp_path / name).mkdir()
        saved("mingru", tmp_path / name, seed)
    bundles = str(tmp_path / "bundles")
    assert main(["export", str(tmp_path / "net" / "net.pt"), bundles, "--name", "net", "--standard-ops"]) == 0
    folder = tmp_path / "bundles" / "net" / "1"
    before = (folder / "model.onnx").read_bytes()
    assert main(["export", str(tmp_path / "other" / "net.pt"), bundles, "--name", "net", "--explain", "--add"]) == 1
    assert "expected the weights that it was exported from" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "net" / "net.pt"), bundles, "--name", "net", "--explain", "--add"]) == 0, capsys.readouterr().err
    made = read(folder)
    assert (folder / "model.onnx").read_bytes() == before
    assert made.manifest.opset == standard.OPSET
    assert made.explanation is not None
