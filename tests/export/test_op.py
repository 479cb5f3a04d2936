"""The portable body, in stock ONNX Runtime, against the specification in model/cells/reference.py."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from indrnn.export import op
from indrnn.export.bundle import OP_DOMAIN, OP_TYPE, OP_VERSION
from indrnn.kernels.runtime import ort
from indrnn.model.cells.reference import indrnn

VARIANTS = [(a, d) for a in op.ACTIVATIONS for d in op.DIRECTIONS]
ALPHA = 0.25  # exact in float32, and not the default: a body that ignores the node's attribute is found


def one_node(activation: str, direction: str, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    node = helper.make_node(
        OP_TYPE,
        ["X", "U", "lens", "h0"],
        ["Y", "Y_h"],
        domain=OP_DOMAIN,
        overload=op.overload(activation, direction),
        activation=activation,
        direction=direction,
        alpha=ALPHA,
    )
    shapes = {"X": ["T", "B", "H"], "U": ["H"], "h0": ["B", "H"], "Y": ["T", "B", "H"], "Y_h": ["B", "H"]}
    info = {k: helper.make_tensor_value_info(k, dtype, s) for k, s in shapes.items()}
    info["lens"] = helper.make_tensor_value_info("lens", TensorProto.INT64, ["B"])
    graph = helper.make_graph([node], "one_node", [info[k] for k in ("X", "U", "lens", "h0")], [info["Y"], info["Y_h"]])
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", op.OPSET), helper.make_opsetid(OP_DOMAIN, OP_VERSION)],
        functions=[op.function(activation, direction)],
        ir_version=op.IR_VERSION,
    )


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # a Loop of no steps warns that it guesses the rank; the Reshape after it is the answer
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


SESSIONS: dict[tuple[str, str], ort.InferenceSession] = {}


def run(activation: str, direction: str, *inputs: NDArray) -> tuple[NDArray, NDArray]:
    key = (activation, direction)
    if key not in SESSIONS:
        SESSIONS[key] = session(one_node(activation, direction))
    return SESSIONS[key].run(None, dict(zip(("X", "U", "lens", "h0"), inputs, strict=True)))


def check(activation: str, direction: str, T: int, B: int, H: int, lens: list[int], seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    x, u, h0 = (rng.normal(size=s).astype(np.float32) for s in ((T, B, H), (H,), (B, H)))
    lengths = np.array(lens, dtype=np.int64)
    wide = (v.astype(np.float64) for v in (x, u))
    y, y_h = indrnn(*wide, lengths, h0.astype(np.float64), activation, ALPHA, direction)
    for b, n in enumerate(lens):
        x[n:, b] = np.nan
    got_y, got_h = run(activation, direction, x, u, lengths, h0)
    assert got_y.shape == y.shape
    scale = 1 + max(np.abs(y).max(initial=0), np.abs(h0).max(initial=0))
    np.testing.assert_allclose(got_y, y, atol=2e-6 * scale, rtol=0)
    np.testing.assert_allclose(got_h, y_h, atol=2e-6 * scale, rtol=0)


@pytest.mark.parametrize(("activation", "direction"), VARIANTS)
@pytest.mark.parametrize(
    ("T", "lens"),
    [
        (7, [7, 0, 3, 1, 6]),
        (7, [7, 7, 7]),
        (7, [0, 0, 0]),
        (7, [4]),
        (1, [1, 1]),
        (1, [1, 0]),
        (1, [0]),
        (0, [0, 0, 0]),
        (0, []),
        (5, []),
        (1, []),
    ],
    ids=str,
)
def test_body_is_the_reference(activation: str, direction: str, T: int, lens: list[int]) -> None:
    """Ragged, even, single, no steps, no rows: outputs, shapes and state are the reference's, and NaN past a length stays there."""
    check(activation, direction, T, len(lens), 5, lens)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(VARIANTS), st.data(), st.integers(0, 12), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_any_shape_is_the_reference(variant: tuple[str, str], data: st.DataObject, T: int, H: int, seed: int) -> None:
    lens = data.draw(st.lists(st.integers(0, T), max_size=5))
    check(*variant, T, len(lens), H, lens, seed)


@pytest.mark.parametrize("lens", [[40, 40, 40], [40, 17, 29]])
def test_splits_and_neighbours_change_no_bit(lens: list[int]) -> None:
    """Forward in pieces of any kind (single step, even, ragged), and each row alone, gives the bits of the whole batch at once."""
    rng = np.random.default_rng(3)
    T, B, H = 40, 3, 16
    x, u, h0 = (rng.normal(size=s).astype(np.float32) for s in ((T, B, H), (H,), (B, H)))
    whole_y, whole_h = run("relu", "forward", x, u, np.array(lens), h0)
    h, ys = h0, []
    for start, stop in ((0, 1), (1, 8), (8, 9), (9, 20), (20, 40)):
        y, h = run("relu", "forward", x[start:stop], u, np.clip(np.array(lens) - start, 0, stop - start), h)
        ys.append(y)
    assert np.array_equal(np.concatenate(ys), whole_y)
    assert np.array_equal(h, whole_h)
    for b in range(B):
        y, y_h = run("relu", "forward", x[:, b : b + 1], u, np.array(lens[b : b + 1]), h0[b : b + 1])
        assert np.array_equal(y[:, 0], whole_y[:, b])
        assert np.array_equal(y_h[0], whole_h[b])


@pytest.mark.parametrize(("activation", "direction"), VARIANTS)
@pytest.mark.parametrize("lens", [[4, 4], [4, 2], [1, 1]], ids=str)
def test_nan_in_one_row_stays_in_it(activation: str, direction: str, lens: list[int]) -> None:
    rng = np.random.default_rng(1)
    T = max(lens)
    x, u, h0 = (rng.normal(size=s).astype(np.float32) for s in ((T, 2, 3), (3,), (2, 3)))
    want_y, want_h = run(activation, direction, x, u, np.array(lens), h0)
    x[:, 0] = np.nan
    got_y, got_h = run(activation, direction, x, u, np.array(lens), h0)
    assert np.array_equal(got_y[:, 1], want_y[:, 1])
    assert np.array_equal(got_h[1], want_h[1])


@pytest.mark.parametrize(("activation", "direction"), VARIANTS)
def test_float64_runs(activation: str, direction: str) -> None:
    rng = np.random.default_rng(1)
    x, u, h0 = (rng.normal(size=s) for s in ((4, 2, 3), (3,), (2, 3)))
    lens = np.array([4, 2])
    y, y_h = indrnn(x, u, lens, h0, activation, ALPHA, direction)
    got = session(one_node(activation, direction, TensorProto.DOUBLE)).run(None, {"X": x, "U": u, "lens": lens, "h0": h0})
    np.testing.assert_allclose(got[0], y, atol=1e-12)
    np.testing.assert_allclose(got[1], y_h, atol=1e-12)


@pytest.mark.parametrize(("activation", "direction"), VARIANTS)
@pytest.mark.parametrize("lens", [[4, 2, 0], [4, 4, 4], [1, 1, 1]], ids=str)
def test_another_runtime_gives_the_same(activation: str, direction: str, lens: list[int]) -> None:
    """onnx's own evaluator, which shares no code with ONNX Runtime, runs the body too."""
    rng = np.random.default_rng(1)
    x, u, h0 = (rng.normal(size=s).astype(np.float32) for s in ((max(lens), 3, 5), (5,), (3, 5)))
    inputs = (x, u, np.array(lens), h0)
    got = ReferenceEvaluator(one_node(activation, direction)).run(None, dict(zip(("X", "U", "lens", "h0"), inputs, strict=True)))
    want = run(activation, direction, *inputs)
    np.testing.assert_allclose(got[0], want[0], atol=1e-6)
    np.testing.assert_allclose(got[1], want[1], atol=1e-6)


@pytest.mark.parametrize(("activation", "direction"), VARIANTS)
def test_checker_takes_it(activation: str, direction: str) -> None:
    op.register()
    onnx.checker.check_model(one_node(activation, direction), full_check=True)


def test_schema_is_the_published_one() -> None:
    op.register()
    op.register()
    schema = onnx.defs.get_schema(OP_TYPE, OP_VERSION, OP_DOMAIN)
    assert [p.name for p in schema.inputs] == ["X", "U", "sequence_lens", "initial_h"]
    assert [p.name for p in schema.outputs] == ["Y", "Y_h"]
    assert (schema.min_input, schema.max_input) == (2, 4)
    defaults = {k: helper.get_attribute_value(a.default_value) for k, a in schema.attributes.items()}
    assert defaults == {"activation": b"relu", "direction": b"forward", "alpha": pytest.approx(0.01)}


def test_checker_refuses_an_attribute_the_op_does_not_have() -> None:
    op.register()
    model = one_node("relu", "forward")
    model.graph.node[0].attribute.append(helper.make_attribute("clip", 1.0))
    with pytest.raises(onnx.checker.ValidationError, match="clip"):
        onnx.checker.check_model(model, full_check=True)


def test_unknown_activation_has_no_function() -> None:
    with pytest.raises(KeyError, match="gelu"):
        op.overload("gelu", "forward")


def test_sessions_open_without_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing in a body is left over: ONNX Runtime would say so at every start of a service."""
    for variant in VARIANTS:
        ort.InferenceSession(one_node(*variant).SerializeToString(), providers=["CPUExecutionProvider"])
    assert capfd.readouterr().err == ""
