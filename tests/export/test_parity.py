"""The comparison with PyTorch finds the faults it is there for."""

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny import STATE, K, Tiny

from indrnn.export import graph, parity
from indrnn.export.modalities.skeleton import skeletons
from indrnn.export.modalities.text import symbols


def error(model: onnx.ModelProto, module: Tiny, seed: int = 0) -> float:
    return parity.largest_error(graph.serialize(model), module, symbols(K), STATE, seed)


def altered(exported: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(exported)
    return copy


@pytest.mark.parametrize("seed", range(3))
def test_exported_graph_agrees(exported: onnx.ModelProto, module: Tiny, seed: int) -> None:
    assert error(exported, module, seed) < 3e-6


def test_cases_share_nothing_with_the_example() -> None:
    B, T = parity.EXAMPLE
    sizes = [n for case in parity.CASES for n in case]
    assert not [c for c in parity.CASES if c[0] == B or c[1] == T]
    assert 1 in sizes
    assert any(t > T for _, t in parity.CASES)
    assert any(t % 2 and t > 1 for _, t in parity.CASES)


def test_other_weights_are_found(exported: onnx.ModelProto) -> None:
    assert error(exported, Tiny(seed=1)) > 1e-2


def test_a_state_that_is_not_carried_is_found(exported: onnx.ModelProto, module: Tiny) -> None:
    """Whole sequences still agree; only the pieces differ."""
    model = altered(exported)
    last = next(n for n in model.graph.node if "state_out" in n.output)
    last.output[:] = ["dropped"]
    model.graph.node.append(onnx.helper.make_node("Identity", ["state"], ["state_out"]))
    assert error(model, module) > 1e-2


def test_a_graph_that_is_right_only_while_short_is_found(exported: onnx.ModelProto, module: Tiny) -> None:
    """Pieces still agree; only long sequences in one request differ."""
    model = altered(exported)
    next(n for n in model.graph.node if "logits" in n.output).output[:] = ["scores"]
    for node in model.graph.node:
        node.input[:] = ["scores" if name == "logits" else name for name in node.input]
    short = onnx.parser.parse_function("""<domain: "x", opset_import: ["": 18]> f (x, scores) => (logits) {
        T = Shape <start = 1, end = 2> (x)
        most = Constant <value_ints = [50]> ()
        fits = Less (T, most)
        one = CastLike (fits, scores)
        logits = Mul (scores, one)
    }""")
    model.graph.node.extend(short.node)
    assert error(model, module) > 1e-2


def test_nan_is_an_error_not_agreement(exported: onnx.ModelProto, module: Tiny) -> None:
    model = altered(exported)
    bias = next(w for w in model.graph.initializer if w.name == "readout.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(K, np.nan, np.float32), bias.name))
    assert math.isnan(error(model, module))


def test_samples_are_what_the_graphs_read() -> None:
    rng = np.random.default_rng(0)
    x = skeletons(2, 20)(rng, 40, 30)
    assert (x.shape, x.dtype) == ((40, 30, 2, 20, 3), np.float32)
    assert (np.abs(x).max((3, 4)) == 0).any(), "somebody is absent somewhere"
    s = symbols(7)(rng, 40, 30)
    assert (s.shape, s.dtype, s.min(), s.max()) == ((40, 30), np.int64, 0, 6)
