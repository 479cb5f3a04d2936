"""Graphs whose B and T somebody has fixed, for a device that takes no free axes, and what a graph says of lengths that it cannot read."""

import importlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny import STATE

from indrnn.export import graph, op
from indrnn.export.bundle import OP_DOMAIN, OP_TYPE
from indrnn.kernels.registered import registered
from indrnn.kernels.runtime import ort

ROOT = Path(__file__).parents[2]
SIZES = ((5, 2), (1, 1), (1, 3), (4, 1))  # T, B
Arrays = dict[str, np.ndarray]
make_dim_param_fixed = importlib.import_module("onnxruntime.tools.onnx_model_utils").make_dim_param_fixed  # what people use; after `ort`


def bundled(name: str) -> onnx.ModelProto:
    """A shipped graph with the bodies that are exported today; its own may be older, and its file stays what it is."""
    model = onnx.load(ROOT / "bundles" / name / "1" / "model.onnx")
    variants = [f.overload.rsplit("_", 1) for f in model.functions]
    del model.functions[:]
    model.functions.extend(op.function(activation, direction) for activation, direction in variants)
    return model


def of_one_node(activation: str, direction: str) -> onnx.ModelProto:
    """The op alone, H = 3."""
    kinds = {"X": ["T", "B", 3], "U": [3], "initial_h": ["B", 3]}
    given = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in kinds.items()]
    given.insert(2, helper.make_tensor_value_info("sequence_lens", TensorProto.INT64, ["B"]))
    made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in (("Y", ["T", "B", 3]), ("Y_h", ["B", 3]))]
    node = helper.make_node(OP_TYPE, [v.name for v in given], [v.name for v in made], domain=OP_DOMAIN)
    node.overload = op.overload(activation, direction)
    for name, value in {"activation": activation, "direction": direction, "alpha": 0.1}.items():
        node.attribute.append(helper.make_attribute(name, value))
    opsets = [helper.make_opsetid("", op.OPSET), helper.make_opsetid(OP_DOMAIN, 1)]
    return helper.make_model(
        helper.make_graph([node], "g", given, made),
        opset_imports=opsets,
        functions=[op.function(activation, direction)],
        ir_version=op.IR_VERSION,
    )


def run(model: onnx.ModelProto, feeds: Arrays, native: bool, T: int | None = None, B: int | None = None) -> list[np.ndarray]:
    """The outputs; T, B: the runtime's own overrides of the free axes."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if native:
        options.register_custom_ops_library(str(registered()))
    for name, size in (("T", T), ("B", B)):
        if size is not None:
            options.add_free_dimension_override_by_name(name, size)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, feeds)
    return found


def check_fixed(model: onnx.ModelProto, feeds: Arrays, T: int, B: int) -> None:
    """Fixed in the file, and by the runtime, the graph passes shape inference and answers what it answers with free axes."""
    want = run(model, feeds, native=False)
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    make_dim_param_fixed(fixed.graph, "T", T)
    make_dim_param_fixed(fixed.graph, "B", B)
    onnx.shape_inference.infer_shapes(fixed, check_type=True, strict_mode=True, data_prop=True)
    for native in (False, True) if registered() else (False,):
        for got in (run(fixed, feeds, native), run(model, feeds, native, T, B)):
            for a, b in zip(got, want, strict=True):
                assert a == pytest.approx(b, abs=1e-4)


@pytest.mark.parametrize(("name", "T", "B"), [("action", 5, 2), ("action", 1, 1), ("chars", 4, 1)])
def test_a_bundled_graph_loads_and_runs_with_fixed_axes(name: str, T: int, B: int) -> None:
    model, rng = bundled(name), np.random.default_rng(T * B)
    x = rng.normal(size=(B, T, 1, 20, 3)).astype(np.float32) if name == "action" else rng.integers(0, 80, (B, T))
    state = np.zeros((B, model.graph.input[2].type.tensor_type.shape.dim[1].dim_value), np.float32)
    check_fixed(model, {"x": x, "lengths": rng.integers(1, T + 1, B), "state": state}, T, B)


@pytest.mark.parametrize("direction", op.DIRECTIONS)
@pytest.mark.parametrize("activation", op.ACTIVATIONS)
def test_the_op_runs_with_fixed_axes_in_every_form(activation: str, direction: str) -> None:
    rng, model = np.random.default_rng(0), of_one_node(activation, direction)
    for T, B in SIZES[:2]:
        feeds: Arrays = {n: rng.normal(size=shape).astype(np.float32) for n, shape in (("X", (T, B, 3)), ("U", 3), ("initial_h", (B, 3)))}
        check_fixed(model, {**feeds, "sequence_lens": rng.integers(0, T + 1, B)}, T, B)


def test_lengths_above_T_are_told_in_the_graphs_own_words(exported: onnx.ModelProto) -> None:  # noqa: N802  # T as everywhere
    assert [n.name for n in exported.graph.node if n.op_type == "GatherElements"] == [graph.AT_LENGTH]
    feeds: Arrays = {"x": np.zeros((1, 4), np.int64), "state": np.zeros((1, STATE), np.float32)}
    run(exported, {**feeds, "lengths": np.array([4])}, native=False)
    with pytest.raises(Exception, match="'lengths: expected 0 to T in each row'"):
        run(exported, {**feeds, "lengths": np.array([5])}, native=False)
