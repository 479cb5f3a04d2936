"""DiagonalRecurrence on the engine of IndRNN: against the specification, in ONNX Runtime, on a GPU's steps, and where it does not fit."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_calls import Array, Kernel, Lens, OneThread, assert_differences
from onnx import TensorProto, helper

from indrnn.export import op
from indrnn.export.bundle import DIAGONAL_TYPE, OP_DOMAIN, OP_VERSION
from indrnn.kernels.build import KernelMissing
from indrnn.kernels.cuda import build_cuda
from indrnn.kernels.native import CLIP, DIRECTIONS, ISAS, Call, Library
from indrnn.kernels.runtime import ort
from indrnn.model.cells.reference import diagonal

BOUNDS = [(None, None), (0.0, None), (None, 0.5), (-0.75, 0.5)]  # exact in float32
VARIANTS = [(b, d) for b in BOUNDS for d in DIRECTIONS]
every = pytest.mark.parametrize(("bounds", "direction"), VARIANTS, ids=str)
many = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Diagonal:
    """A library and the options of a run over NumPy arrays."""

    library: Library
    bounds: tuple[float | None, float | None] = (None, None)
    direction: str = "forward"
    isa: str = "best"
    threads: int = 1
    pieces: int | None = None

    def having(self, **options: object) -> "Diagonal":
        return replace(self, **options)

    def forward(self, a: Array, b: Array, lens: Lens | None = None, h0: Array | None = None) -> tuple[Array, Array]:
        y, y_h = np.full_like(b, np.nan), np.full_like(b, np.nan, shape=b.shape[1:])  # what the kernel leaves out is found
        self._run(b, u=a, x=b, lens=lens, h0=h0, y=y, y_h=y_h)
        return y, y_h

    def backward(self, dy: Array, dy_h: Array, y: Array, a: Array, lens: Lens | None, h0: Array | None) -> tuple[Array, Array, Array]:
        da, db, dh0 = np.full_like(y, np.nan), np.full_like(y, np.nan), np.full_like(y, np.nan, shape=y.shape[1:])
        self._run(y, dy=dy, dy_h=dy_h, y=y, u=a, lens=lens, h0=h0, du=da, dx=db, dh0=dh0)
        return da, db, dh0

    def _run(self, like: Array, **arrays: Array | Lens | None) -> None:
        lo, hi = (math.nan if bound is None else bound for bound in self.bounds)
        options = {
            "dtype": int(like.dtype == np.float64),
            "activation": CLIP,
            "varying": 1,
            "reverse": DIRECTIONS.index(self.direction),
            "isa": ISAS.index(self.isa),
            "gradient": int("dx" in arrays),
        }
        given = {name: a.ctypes.data for name, a in arrays.items() if a is not None}
        call = Call(**dict(zip("TBH", like.shape, strict=True)), **options, lo=lo, hi=hi, **given)
        self.library.run(call, self.threads, self.pieces)


@pytest.fixture(scope="session")
def engine(library: Library) -> Diagonal:
    return Diagonal(library)


@pytest.fixture(scope="session", params=["plain", "avx2", "avx512"])
def each(request: pytest.FixtureRequest, engine: Diagonal) -> Diagonal:
    if request.param not in engine.library.isas():
        pytest.skip(f"this machine has no {request.param}")
    return engine.having(isa=request.param)


def arrays(T: int, B: int, H: int, dtype: str = "float32", seed: int = 0) -> tuple[Array, Array, Lens, Array]:
    rng = np.random.default_rng(seed)
    a, b, h0 = (rng.uniform(-1.1, 1.1, s).astype(dtype) for s in ((T, B, H), (T, B, H), (B, H)))
    return a, b, rng.integers(0, T + 1, B), h0


@many
@given(
    shape=st.tuples(st.integers(0, 40), st.integers(0, 5), st.integers(0, 150)),
    variant=st.sampled_from(VARIANTS),
    dtype=st.sampled_from(["float32", "float64"]),
    pieces=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
def test_it_is_the_specification_to_the_bit(each, shape, variant, dtype, pieces, seed):
    bounds, direction = variant
    given = arrays(*shape, dtype, seed)
    got = each.having(bounds=bounds, direction=direction, pieces=pieces).forward(*given)
    for answered, want in zip(got, diagonal(*given, *bounds, direction), strict=True):
        assert np.array_equal(answered, want)


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_instruction_set_and_any_pieces_give_the_same_bits(engine: Diagonal, bounds, direction: str, dtype: str) -> None:
    a, b, lens, h0 = arrays(30, 5, 93, dtype)
    dy, _, _, dy_h = arrays(30, 5, 93, dtype, seed=1)
    k = engine.having(bounds=bounds, direction=direction)
    y, _ = k.forward(a, b, lens, h0)
    want = (*k.forward(a, b, lens, h0), *k.backward(dy, dy_h, y, a, lens, h0))
    options = [{"isa": isa} for isa in engine.library.isas()] + [{"threads": 3, "pieces": 7}, {"pieces": 4}]
    for option in options:
        one = k.having(**option)
        got = (*one.forward(a, b, lens, h0), *one.backward(dy, dy_h, y, a, lens, h0))
        assert all(np.array_equal(g, w) for g, w in zip(got, want, strict=True)), option


@pytest.mark.parametrize(("activation", "bounds"), [("relu", (0.0, None)), ("identity", (None, None))])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_indrnn_is_the_case_of_a_constant_a_to_the_bit(each: Diagonal, activation: str, bounds, direction: str) -> None:
    _, x, lens, h0 = arrays(41, 3, 77)
    u = np.linspace(-1.1, 1.1, 77, dtype=np.float32)
    indrnn = Kernel(each.library, isa=each.isa, activation=activation, direction=direction)
    one = each.having(bounds=bounds, direction=direction)
    a = np.broadcast_to(u, x.shape).copy()
    y, y_h = indrnn.forward(x, u, lens, h0)
    assert all(np.array_equal(g, w) for g, w in zip(one.forward(a, x, lens, h0), (y, y_h), strict=True))
    dy, _, _, dy_h = arrays(41, 3, 77, seed=1)
    dx, du, dh0 = indrnn.backward(dy, dy_h, y, u, lens, h0)
    da, db, dh = one.backward(dy, dy_h, y, a, lens, h0)
    assert np.array_equal(db, dx)
    assert np.array_equal(dh, dh0)
    np.testing.assert_allclose(da.astype(np.float64).sum((0, 1)), du, rtol=1e-4, atol=1e-3)


@many
@given(variant=st.sampled_from(VARIANTS), seed=st.integers(0, 2**31), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_a_split_in_time_changes_no_bit(each, variant, seed, cuts):
    bounds, direction = variant
    k = each.having(bounds=bounds, direction=direction)
    forward = direction == "forward"
    a, b, lens, h0 = arrays(60, 3, 37, seed=seed)
    lens = lens if forward else np.full(3, 60)
    whole_y, whole_h = k.forward(a, b, lens, h0)
    parts = list(pairwise([0, *sorted(cuts), 60]))
    y, h = np.zeros_like(b), h0
    for start, stop in parts if forward else reversed(parts):
        y[start:stop], h = k.forward(a[start:stop].copy(), b[start:stop].copy(), np.clip(lens - start, 0, stop - start), h)
    assert np.array_equal(y, whole_y)
    assert np.array_equal(h, whole_h)


@every
def test_neighbours_and_what_is_past_a_length_change_no_bit_even_when_they_are_nan(each: Diagonal, bounds, direction: str) -> None:
    k = each.having(bounds=bounds, direction=direction)
    a, b, _, h0 = arrays(25, 4, 37)
    dy, _, _, dy_h = arrays(25, 4, 37, seed=1)
    lens = np.array([25, 3, 0, 24])
    y, y_h = k.forward(a, b, lens, h0)
    grads = k.backward(dy, dy_h, y, a, lens, h0)
    past = np.arange(25)[:, None] >= lens
    for row in range(4):
        dirt = past.copy()
        dirt[:, [r for r in range(4) if r != row]] = True
        dirty = [np.where(dirt[:, :, None], np.float32(np.nan), v) for v in (a, b, dy)]
        got_y, got_h = k.forward(dirty[0], dirty[1], lens, h0)
        got = k.backward(dirty[2], dy_h, got_y, dirty[0], lens, h0)
        pairs = (
            (got_y[:, row], y[:, row]),
            (got_h[row], y_h[row]),
            *((g[..., row, :], w[..., row, :]) for g, w in zip(got, grads, strict=True)),
        )
        assert all(np.array_equal(g, w) for g, w in pairs)
    assert (y[past] == 0).all()
    assert all((g[past] == 0).all() for g in grads[:2])


@every
def test_the_gradient_is_the_derivative_of_the_specification(each: Diagonal, bounds, direction: str) -> None:
    a, b, _, h0 = arrays(7, 3, 5, "float64")
    dy, _, _, dy_h = arrays(7, 3, 5, "float64", seed=1)
    lens = np.array([7, 0, 4])

    def loss() -> float:
        y, y_h = diagonal(a, b, lens, h0, *bounds, direction)
        return float((y * dy).sum() + (y_h * dy_h).sum())

    k = each.having(bounds=bounds, direction=direction)
    y, _ = k.forward(a, b, lens, h0)
    assert_differences(loss, k.backward(dy, dy_h, y, a, lens, h0), (a, b, h0))


def test_absent_inputs_are_full_length_and_a_zero_state(engine: Diagonal) -> None:
    a, b, _, h0 = arrays(9, 3, 33)
    full, zeros = np.full(3, 9), np.zeros_like(h0)
    y, y_h = engine.forward(a, b)
    for got, want in zip((y, y_h), engine.forward(a, b, full, zeros), strict=True):
        assert np.array_equal(got, want)
    for got, want in zip(engine.backward(b, h0, y, a, None, None), engine.backward(b, h0, y, a, full, zeros), strict=True):
        assert np.array_equal(got, want)


def test_calls_that_make_no_sense_are_refused(library: Library) -> None:
    nothing = {"T": 0, "B": 0, "H": 0}
    library.run(Call(**nothing, activation=CLIP, varying=1), 1)
    for wrong in (
        Call(**nothing, activation=CLIP),
        Call(**nothing, activation=0, varying=1),
        Call(**nothing, activation=CLIP, varying=2),
        Call(**nothing, activation=CLIP, varying=1, lo=1.0, hi=0.5),
        Call(T=1, B=1, H=1, activation=CLIP, varying=1),
    ):
        with pytest.raises(ValueError, match="missing or wrong"):
            library.run(wrong, 1)


# --- in ONNX Runtime ----------------------------------------------------------------------------------------------------------------------

KINDS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def session(inputs: list[str], library: Path | None, dtype: str = "float32", provider: str = "CPUExecutionProvider", **told: object):
    """One node without the function body: only the kernel can run it."""
    node = helper.make_node(DIAGONAL_TYPE, inputs, ["Y", "Y_h"], domain=OP_DOMAIN, **told)
    shapes = {"A": 3, "B": 3, "lens": 1, "h0": 2, "Y": 3, "Y_h": 2}
    info = {
        name: helper.make_tensor_value_info(name, TensorProto.INT64 if name == "lens" else KINDS[dtype], [None] * rank)
        for name, rank in shapes.items()
    }
    graph = helper.make_graph([node], "bare", [info[name] for name in inputs if name], [info["Y"], info["Y_h"]])
    opsets = [helper.make_opsetid("", op.OPSET), helper.make_opsetid(OP_DOMAIN, OP_VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=op.IR_VERSION)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if library:
        options.register_custom_ops_library(str(library))
    return ort.InferenceSession(model.SerializeToString(), options, providers=[provider])


NAMES = ["A", "B", "lens", "h0"]


@every
@pytest.mark.parametrize("dtype", KINDS)
def test_the_registered_kernel_is_the_specification_to_the_bit(library: Library, bounds, direction: str, dtype: str) -> None:
    told = {name: bound for name, bound in zip(("lo", "hi"), bounds, strict=True) if bound is not None}
    made = session(NAMES, library.path, dtype, direction=direction, **told)
    for shape in ((0, 2, 3), (1, 1, 7), (12, 4, 40), (5, 0, 3)):
        given = arrays(*shape, dtype)
        got = made.run(None, dict(zip(NAMES, given, strict=True)))
        for answered, want in zip(got, diagonal(*given, *bounds, direction), strict=True):
            assert answered.shape == want.shape
            assert np.array_equal(answered, want)


@pytest.mark.parametrize("inputs", [NAMES[:2], NAMES[:3], ["A", "B", "", "h0"]], ids=str)
def test_inputs_may_be_left_out(library: Library, inputs: list[str]) -> None:
    given = dict(zip(NAMES, arrays(9, 3, 21), strict=True))
    got = session(inputs, library.path).run(None, {name: given[name] for name in inputs if name})
    want = diagonal(given["A"], given["B"], given["lens"] if "lens" in inputs else None, given["h0"] if "h0" in inputs else None)
    assert all(np.array_equal(g, w) for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"A": np.zeros((3, 2, 5), np.float32)}, "A: expected size 4 of axis 2, got 5"),
        ({"A": np.zeros((2, 2, 4), np.float32)}, "A: expected size 3 of axis 0, got 2"),
        ({"lens": np.zeros(3, np.int64)}, "sequence_lens: expected size 2 of axis 0, got 3"),
        ({"h0": np.zeros((2, 3), np.float32)}, "initial_h: expected size 4 of axis 1, got 3"),
    ],
)
def test_a_shape_that_does_not_fit_is_an_error_that_names_it(library: Library, change, said: str) -> None:
    with pytest.raises(Exception, match=f"DiagonalRecurrence: {said}"):  # the runtime's exceptions have no common base of their own
        session(NAMES, library.path).run(None, {**dict(zip(NAMES, arrays(3, 2, 4), strict=True)), **change})


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"direction": "bidirectional"}, "expected direction forward or reverse, got bidirectional"),
        ({"lo": 1}, "lo: expected a float"),
        ({"hi": "1"}, "hi: expected a float"),
        ({"lo": 1.0, "hi": 0.5}, "expected lo at most hi, got 1.0"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_when_the_session_is_made(library: Library, told, said: str) -> None:
    with pytest.raises(Exception, match=f"DiagonalRecurrence: {said}"):
        session(NAMES, library.path, **told)


# --- on a GPU -----------------------------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("dtype", KINDS)
def test_a_gpu_s_thread_takes_the_cpu_kernel_s_steps_to_the_bit(
    engine: Diagonal, columns: OneThread, bounds, direction: str, dtype: str
) -> None:
    options = {"bounds": bounds, "direction": direction}
    for shape in ((0, 2, 3), (1, 1, 5), (7, 3, 17), (8, 2, 9), (41, 4, 33)):
        a, b, lens, h0 = arrays(*shape, dtype)
        for left_out in ((lens, h0), (None, h0), (lens, None)):
            wants = engine.having(**options).forward(a, b, *left_out)
            got = engine.having(library=columns, **options).forward(a, b, *left_out)
            assert all(np.array_equal(g, w) for g, w in zip(got, wants, strict=True))


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> OneThread:
    return OneThread(tmp_path_factory.mktemp("columns"), ["gpu::column<gpu::Clip, T, true>"], "0")


@pytest.mark.skipif(CUDA not in ort.get_available_providers() or not torch.cuda.is_available(), reason="no GPU here, or no CUDA provider")
@every
def test_on_a_gpu_it_has_the_cpu_kernel_s_bits(engine: Diagonal, bounds, direction: str) -> None:
    try:
        library = build_cuda()
    except KernelMissing as missing:
        pytest.skip(str(missing))
    told = {name: bound for name, bound in zip(("lo", "hi"), bounds, strict=True) if bound is not None}
    made = session(NAMES, library, provider=CUDA, direction=direction, **told)
    for shape in ((0, 2, 3), (1, 1, 5), (41, 4, 33), (300, 32, 128)):
        given = arrays(*shape)
        got = made.run(None, dict(zip(NAMES, given, strict=True)))
        want = engine.having(bounds=bounds, direction=direction).forward(*given)
        assert all(np.array_equal(g, w) for g, w in zip(got, want, strict=True))
