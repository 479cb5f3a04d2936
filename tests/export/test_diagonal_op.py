"""The portable body of DiagonalRecurrence, in stock ONNX Runtime, against the specification in model/cells/reference.py."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from indrnn.export import op
from indrnn.export.bundle import DIAGONAL_TYPE, OP_DOMAIN, OP_VERSION
from indrnn.kernels.runtime import ort
from indrnn.model.cells.reference import diagonal

VALUES = {"lo": -0.75, "hi": 0.5}  # exact in float32
VARIANTS = [(b, d) for b in op.BOUNDS for d in op.DIRECTIONS]
NAMES = ("A", "B", "lens", "h0")


def one_node(bounds: str, direction: str, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    told = {name: VALUES[name] for name in op.BOUNDS[bounds]}
    overload = op.diagonal_overload(bounds, direction)
    node = helper.make_node(DIAGONAL_TYPE, NAMES, ["Y", "Y_h"], domain=OP_DOMAIN, overload=overload, direction=direction, **told)
    steps, state = ["T", "rows", "H"], ["rows", "H"]
    shapes = {"A": steps, "B": steps, "lens": ["rows"], "h0": state, "Y": steps, "Y_h": state}
    info = {k: helper.make_tensor_value_info(k, TensorProto.INT64 if k == "lens" else dtype, s) for k, s in shapes.items()}
    graph = helper.make_graph([node], "one_node", [info[k] for k in NAMES], [info["Y"], info["Y_h"]])
    opsets = [helper.make_opsetid("", op.OPSET), helper.make_opsetid(OP_DOMAIN, OP_VERSION)]
    functions = [op.diagonal_function(bounds, direction)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=op.IR_VERSION)


SESSIONS: dict[tuple[str, str], ort.InferenceSession] = {}


def run(bounds: str, direction: str, *inputs: NDArray) -> list[NDArray]:
    if (bounds, direction) not in SESSIONS:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # a Loop of no steps warns that it guesses the rank; the Reshape after it is the answer
        model = one_node(bounds, direction).SerializeToString()
        SESSIONS[bounds, direction] = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return SESSIONS[bounds, direction].run(None, dict(zip(NAMES, inputs, strict=True)))


def feeds(T: int, B: int, H: int, seed: int = 0, dtype: str = "float32") -> tuple[NDArray, NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    a, b, h0 = (rng.normal(size=s).astype(dtype) for s in ((T, B, H), (T, B, H), (B, H)))
    return a, b, h0


def expected(bounds: str, direction: str, a: NDArray, b: NDArray, lens: NDArray, h0: NDArray) -> tuple[NDArray, NDArray]:
    told = {name: VALUES[name] for name in op.BOUNDS[bounds]}
    return diagonal(a.astype(np.float64), b.astype(np.float64), lens, h0.astype(np.float64), **told, direction=direction)


@settings(deadline=None, max_examples=80)
@given(
    variant=st.sampled_from(VARIANTS),
    T=st.integers(0, 9),
    H=st.integers(1, 6),
    rows=st.lists(st.integers(0, 9), max_size=5),
    even=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_shape_and_lengths(variant, T, H, rows, even, seed):
    lens = np.array([T if even else min(n, T) for n in rows], np.int64)
    a, b, h0 = feeds(T, len(lens), H, seed)
    want = expected(*variant, a, b, lens, h0)
    for row, n in enumerate(lens):
        a[n:, row] = b[n:, row] = np.nan
    scale = 1 + max(np.abs(w).max(initial=0) for w in want)
    for got, wanted in zip(run(*variant, a, b, lens, h0), want, strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, atol=2e-6 * scale, rtol=0)


@pytest.mark.parametrize("lens", [[40, 40, 40], [40, 17, 29]])
def test_splits_and_neighbours_change_no_bit(lens: list[int]) -> None:
    a, b, h0 = feeds(40, 3, 16)
    a *= 0.3
    whole_y, whole_h = run("both", "forward", a, b, np.array(lens), h0)
    h, ys = h0, []
    for start, stop in ((0, 1), (1, 8), (8, 9), (9, 20), (20, 40)):
        y, h = run("both", "forward", a[start:stop], b[start:stop], np.clip(np.array(lens) - start, 0, stop - start), h)
        ys.append(y)
    assert np.array_equal(np.concatenate(ys), whole_y)
    assert np.array_equal(h, whole_h)
    for n in range(3):
        y, y_h = run("both", "forward", a[:, n : n + 1], b[:, n : n + 1], np.array(lens[n : n + 1]), h0[n : n + 1])
        assert np.array_equal(y[:, 0], whole_y[:, n])
        assert np.array_equal(y_h[0], whole_h[n])


@pytest.mark.parametrize(("bounds", "direction"), VARIANTS)
@pytest.mark.parametrize("lens", [[4, 4], [4, 2], [1, 1]], ids=str)
def test_nan_stays_nan_and_in_its_row(bounds: str, direction: str, lens: list[int]) -> None:
    a, b, h0 = feeds(max(lens), 2, 3)
    want_y, want_h = run(bounds, direction, a, b, np.array(lens), h0)
    b[:, 0] = np.nan
    got_y, got_h = run(bounds, direction, a, b, np.array(lens), h0)
    assert np.array_equal(got_y[:, 1], want_y[:, 1])
    assert np.array_equal(got_h[1], want_h[1])
    assert np.isnan(got_h[0]).all()


@pytest.mark.parametrize(("bounds", "direction"), VARIANTS)
def test_float64_runs(bounds: str, direction: str) -> None:
    a, b, h0 = feeds(4, 2, 3, dtype="float64")
    lens = np.array([4, 2])
    session = ort.InferenceSession(one_node(bounds, direction, TensorProto.DOUBLE).SerializeToString(), providers=["CPUExecutionProvider"])
    got = session.run(None, dict(zip(NAMES, (a, b, lens, h0), strict=True)))
    for answered, want in zip(got, expected(bounds, direction, a, b, lens, h0), strict=True):
        np.testing.assert_allclose(answered, want, atol=1e-12)


@pytest.mark.parametrize(("bounds", "direction"), VARIANTS)
@pytest.mark.parametrize("lens", [[4, 2, 0], [4, 4, 4], [1, 1, 1]], ids=str)
def test_another_runtime_gives_the_same(bounds: str, direction: str, lens: list[int]) -> None:
    """onnx's own evaluator, which shares no code with ONNX Runtime, runs the body too."""
    a, b, h0 = feeds(max(lens), 3, 5)
    inputs = (a, b, np.array(lens), h0)
    got = ReferenceEvaluator(one_node(bounds, direction)).run(None, dict(zip(NAMES, inputs, strict=True)))
    for answered, want in zip(got, run(bounds, direction, *inputs), strict=True):
        np.testing.assert_allclose(answered, want, atol=1e-6)


@pytest.mark.parametrize(("bounds", "direction"), VARIANTS)
def test_checker_takes_it_and_sessions_open_without_a_warning(bounds: str, direction: str, capfd: pytest.CaptureFixture[str]) -> None:
    op.register()
    model = one_node(bounds, direction)
    onnx.checker.check_model(model, full_check=True)
    ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert capfd.readouterr().err == ""


def test_schema_is_the_published_one() -> None:
    op.register()
    op.register()
    schema = onnx.defs.get_schema(DIAGONAL_TYPE, OP_VERSION, OP_DOMAIN)
    assert [p.name for p in schema.inputs] == ["A", "B", "sequence_lens", "initial_h"]
    assert [p.name for p in schema.outputs] == ["Y", "Y_h"]
    assert (schema.min_input, schema.max_input) == (2, 4)
    assert set(schema.attributes) == {"lo", "hi", "direction"}
    assert not any(a.required for a in schema.attributes.values())


def test_an_unknown_kind_of_bounds_has_no_function() -> None:
    with pytest.raises(KeyError, match="tight"):
        op.diagonal_overload("tight", "forward")
