"""The library in ONNX Runtime: its kernel against the specification, in place of the function body, and where it does not fit."""

import ctypes
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from indrnn.export import op
from indrnn.export.bundle import OP_DOMAIN, OP_TYPE, OP_VERSION
from indrnn.kernels.native import ACTIVATIONS, DIRECTIONS, Library
from indrnn.kernels.runtime import ort
from indrnn.model.cells.reference import indrnn

VARIANTS = [(a, d) for a in ACTIVATIONS for d in DIRECTIONS]
BUNDLES = sorted((Path(__file__).parent.parent.parent / "bundles").glob("*/*/model.onnx"))
ALPHA = 0.25
SHAPES = {"X": ["T", "B", "H"], "U": ["H"], "lens": ["L"], "h0": ["B0", "H0"], "Y": ["T", "B", "H"], "Y_h": ["B", "H"]}


def bare_node(inputs: list[str], dtype: int = TensorProto.FLOAT, **attributes: object) -> bytes:
    """A model of one node without the function body: only the kernel can run it."""
    node = helper.make_node(OP_TYPE, inputs, ["Y", "Y_h"], domain=OP_DOMAIN, **attributes)
    kinds = {**dict.fromkeys(SHAPES, dtype), "lens": TensorProto.INT64}
    info = {name: helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in SHAPES.items()}
    graph = helper.make_graph([node], "bare", [info[name] for name in inputs if name], [info["Y"], info["Y_h"]])
    opsets = [helper.make_opsetid("", op.OPSET), helper.make_opsetid(OP_DOMAIN, OP_VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=op.IR_VERSION).SerializeToString()


def session(model: bytes | str, library: Library | None, threads: int = 1, saved: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if saved:
        options.optimized_model_filepath = str(saved)
    if library:
        options.register_custom_ops_library(str(library.path))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def feeds(T: int, B: int, H: int, dtype: str = "float32", seed: int = 0) -> dict[str, NDArray]:
    rng = np.random.default_rng(seed)
    x, u, h0 = (rng.uniform(-1, 1, s).astype(dtype) for s in ((T, B, H), (H,), (B, H)))
    return {"X": x, "U": u, "lens": rng.integers(0, T + 1, B), "h0": h0}


def expected(f: dict[str, NDArray], activation: str, direction: str) -> tuple[NDArray, NDArray]:
    wide = {k: v if k == "lens" else v.astype(np.float64) for k, v in f.items()}
    return indrnn(wide["X"], wide["U"], wide.get("lens"), wide.get("h0"), activation, ALPHA, direction)


@pytest.fixture(scope="module")
def sessions(library: Library) -> dict[tuple[str, str], ort.InferenceSession]:
    return {
        (a, d): session(bare_node(["X", "U", "lens", "h0"], activation=a, direction=d, alpha=ALPHA), library, threads=2)
        for a, d in VARIANTS
    }


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    variant=st.sampled_from(VARIANTS),
    shape=st.tuples(st.integers(0, 12), st.integers(0, 4), st.integers(0, 40)),
    seed=st.integers(0, 2**31),
)
def test_the_registered_kernel_is_the_specification(sessions, variant, shape, seed):
    f = feeds(*shape, seed=seed)
    got = sessions[variant].run(None, f)
    for g, w in zip(got, expected(f, *variant), strict=True):
        assert g.shape == w.shape
        np.testing.assert_allclose(g, w, rtol=0, atol=2e-6)


@pytest.mark.parametrize("inputs", [["X", "U"], ["X", "U", "lens"], ["X", "U", "", "h0"], ["X", "U", "lens", "h0"]], ids=str)
@pytest.mark.parametrize(("dtype", "kind"), [("float32", TensorProto.FLOAT), ("float64", TensorProto.DOUBLE)])
def test_inputs_may_be_left_out(library: Library, inputs: list[str], dtype: str, kind: int) -> None:
    f = {k: v for k, v in feeds(9, 3, 21, dtype).items() if k in inputs}
    got = session(bare_node(inputs, kind), library).run(None, f)
    for g, w in zip(got, expected(f, "relu", "forward"), strict=True):
        assert g.dtype == dtype
        np.testing.assert_allclose(g, w, rtol=0, atol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("shape", [(300, 40, 128), (3000, 1, 128), (1, 64, 512)], ids=str)
def test_the_sessions_threads_change_no_bit(library: Library, shape: tuple[int, int, int]) -> None:
    f = feeds(*shape)
    f["X"] *= 0.1
    results = [session(bare_node(list(f)), library, threads).run(None, f) for threads in (1, 2, 5)]
    for other in results[1:]:
        assert all(np.array_equal(g, w) for g, w in zip(results[0], other, strict=True))


def served_feeds(path: Path, B: int, T: int) -> dict[str, NDArray]:
    manifest = json.loads((path.parent / "manifest.json").read_text())
    x = next(t for t in manifest["inputs"] if t["name"] == "x")
    size = sum(p["size"] for p in manifest["state"])
    rng = np.random.default_rng(0)
    tail = [int(n) for n in x["shape"][2:]]
    values = rng.uniform(-1, 1, (B, T, *tail)) if tail else rng.integers(0, 20, (B, T))
    lengths = np.array([T, *rng.integers(1, T + 1, B - 1)])
    return {"x": values.astype(x["dtype"]), "lengths": lengths, "state": np.zeros((B, size), np.float32)}


@pytest.mark.parametrize("path", BUNDLES, ids=lambda p: p.parent.parent.name)
def test_the_kernel_takes_the_place_of_the_body_in_a_bundle(library: Library, path: Path, tmp_path: Path) -> None:
    fused = session(str(path), library, saved=tmp_path / "fused.onnx")
    loop = session(str(path), None, saved=tmp_path / "loop.onnx")
    kinds = {name: {n.op_type for n in onnx.load(tmp_path / f"{name}.onnx").graph.node} for name in ("fused", "loop")}
    assert OP_TYPE in kinds["fused"]
    assert not kinds["fused"] & {"Loop", "If"}
    assert OP_TYPE not in kinds["loop"]
    for B, T in ((1, 1), (1, 57), (5, 23)):
        f = served_feeds(path, B, T)
        (logits, state), (loop_logits, loop_state) = (s.run(["logits", "state_out"], f) for s in (fused, loop))
        for b, n in enumerate(f["lengths"]):
            assert np.abs(logits[b, :n] - loop_logits[b, :n]).max() <= 1e-5 * max(1, np.abs(loop_logits[b, :n]).max())
        assert np.abs(state - loop_state).max() <= 1e-5 * max(1, np.abs(loop_state).max())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"U": np.zeros(5, np.float32)}, "U: expected size 4 of axis 0, got 5"),
        ({"lens": np.zeros(3, np.int64)}, "sequence_lens: expected size 2 of axis 0, got 3"),
        ({"h0": np.zeros((2, 3), np.float32)}, "initial_h: expected size 4 of axis 1, got 3"),
    ],
)
def test_a_shape_that_does_not_fit_is_an_error_that_names_it(library: Library, change: dict[str, NDArray], said: str) -> None:
    graph = onnx.load_from_string(bare_node(["X", "U", "lens", "h0"]))
    for value in graph.graph.input:  # shapes that the runtime itself does not hold against each other
        for axis in value.type.tensor_type.shape.dim:
            axis.ClearField("dim_param")
    with pytest.raises(Exception, match=said):  # the runtime's exceptions have no common base of their own
        session(graph.SerializeToString(), library).run(None, {**feeds(3, 2, 4), **change})


@pytest.mark.parametrize("attribute", [{"activation": "gelu"}, {"direction": "bidirectional"}])
def test_an_unknown_option_is_refused_when_the_session_is_made(library: Library, attribute: dict[str, str]) -> None:
    with pytest.raises(Exception, match=f"IndRNN: expected .* got {next(iter(attribute.values()))}"):
        session(bare_node(["X", "U"], **attribute), library)


@pytest.mark.parametrize(
    ("attribute", "kind"),
    [({"activation": 3}, "string"), ({"direction": 1.0}, "string"), ({"alpha": 1}, "float"), ({"alpha": "1"}, "float")],
)
def test_an_option_of_another_type_is_not_taken_for_an_absent_one(library: Library, attribute: dict[str, object], kind: str) -> None:
    with pytest.raises(Exception, match=f"IndRNN: {next(iter(attribute))}: expected a {kind}"):
        session(bare_node(["X", "U"], **attribute), library)


def test_a_runtime_that_is_too_old_is_refused_in_words(library: Library) -> None:
    """A runtime that knows only versions below the library's own, made up of the two functions that a refusal needs."""
    said: list[bytes] = []
    asked: list[int] = []
    create_status = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)(lambda code, text: said.append(text) or 1234)
    table = (ctypes.c_void_p * 300)(ctypes.cast(create_status, ctypes.c_void_p).value)

    def get_api(version: int) -> int:
        asked.append(version)
        return ctypes.addressof(table) if version < 17 else 0

    get = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(get_api)
    version = ctypes.create_string_buffer(b"1.16.3")
    name = ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: ctypes.addressof(version))
    base = (ctypes.c_void_p * 2)(ctypes.cast(get, ctypes.c_void_p).value, ctypes.cast(name, ctypes.c_void_p).value)
    register = ctypes.CDLL(str(library.path)).RegisterCustomOps
    register.restype = ctypes.c_void_p
    assert register(None, base) == 1234
    assert asked == [17, 1]
    assert said == [b"ai.indrnn needs version 17 of ONNX Runtime's C interface, which ONNX Runtime 1.16.3 does not have"]


def test_a_session_without_the_library_runs_the_body(library: Library) -> None:
    """In the same process, before and after a session with it."""
    assert BUNDLES
    f = served_feeds(BUNDLES[0], 1, 9)
    first, fused, last = (session(str(BUNDLES[0]), which).run(["logits"], f)[0] for which in (None, library, None))
    assert np.array_equal(first, last)
    np.testing.assert_allclose(fused, first, atol=1e-5 * max(1, np.abs(first).max()))
