"""The op for ONNX Runtime's CUDA provider: its steps on the CPU, its library where nvcc is, and the whole of it where a GPU is."""

import ctypes
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from native_calls import Kernel, OneThread
from onnx import TensorProto, helper

from indrnn.export import op
from indrnn.export.bundle import OP_DOMAIN, OP_TYPE, OP_VERSION, read
from indrnn.kernels.build import KernelMissing
from indrnn.kernels.cuda import build_cuda
from indrnn.kernels.native import ACTIVATIONS, DIRECTIONS, Call
from indrnn.kernels.registered import refusal
from indrnn.kernels.runtime import ort
from indrnn.service.engine import runtime as engine
from indrnn.service.engine.runtime import Engine

CUDA = "CUDAExecutionProvider"
BUNDLES = sorted((Path(__file__).parent.parent.parent / "bundles").glob("*/*/model.onnx"))
COLUMNS = [f"gpu::column<gpu::{kind}, T>" for kind in ("Relu", "LeakyRelu", "Tanh", "Sigmoid", "Identity", "Piecewise")]


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    return Kernel(OneThread(tmp_path_factory.mktemp("columns"), COLUMNS, "c.activation"))  # type: ignore[arg-type]  # in its shape


@pytest.fixture(scope="module")
def cuda_library() -> Path:
    try:
        return build_cuda()
    except KernelMissing as missing:
        pytest.skip(str(missing))


def arrays(T: int, B: int, H: int, dtype: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(T * B + H)
    x, u, h0 = (rng.uniform(-2, 2, s).astype(dtype) for s in ((T, B, H), (H,), (B, H)))
    return {"x": x, "u": u / 2, "lens": rng.integers(-1, T + 2, B), "h0": h0}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gpu_s_thread_takes_the_cpu_kernel_s_steps_to_the_bit(
    kernel: Kernel, columns: Kernel, activation: str, direction: str, dtype: str
) -> None:
    options = {"activation": activation, "direction": direction}
    for shape in ((0, 2, 3), (1, 1, 5), (7, 3, 17), (8, 2, 9), (41, 4, 33)):
        given = arrays(*shape, dtype)
        for left_out in ({}, {"lens": None}, {"h0": None}):
            wants = kernel.having(**options).forward(**given | left_out)
            for got, want in zip(columns.having(**options).forward(**given | left_out), wants, strict=True):
                assert np.array_equal(got, want)


def test_the_library_loads_without_a_gpu_and_has_what_the_runtime_calls(cuda_library: Path) -> None:
    loaded = ctypes.CDLL(str(cuda_library))
    assert loaded.RegisterCustomOps
    assert loaded.indrnn_cuda_run


def test_the_runtime_takes_the_library(cuda_library: Path) -> None:
    assert refusal(cuda_library) is None


def test_a_second_build_is_the_first(cuda_library: Path) -> None:
    made = cuda_library.stat().st_mtime_ns
    assert build_cuda() == cuda_library
    assert cuda_library.stat().st_mtime_ns == made


def test_no_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVCC", "no-such-compiler")
    with pytest.raises(KernelMissing, match="no-such-compiler not found"):
        build_cuda()


def model(activation: str, direction: str) -> bytes:
    """One node with its portable body."""
    shapes = {"X": ["T", "B", "H"], "U": ["H"], "lens": ["B"], "h0": ["B", "H"], "Y": ["T", "B", "H"], "Y_h": ["B", "H"]}
    info = {n: helper.make_tensor_value_info(n, TensorProto.INT64 if n == "lens" else TensorProto.FLOAT, s) for n, s in shapes.items()}
    options = {"activation": activation, "direction": direction}
    inputs, outputs = list(shapes)[:4], list(shapes)[4:]
    node = helper.make_node(OP_TYPE, inputs, outputs, domain=OP_DOMAIN, overload=op.overload(**options), alpha=0.25, **options)
    graph = helper.make_graph([node], "one", [info[i] for i in inputs], [info[o] for o in outputs])
    opsets = [helper.make_opsetid("", op.OPSET), helper.make_opsetid(OP_DOMAIN, OP_VERSION)]
    made = helper.make_model(graph, opset_imports=opsets, functions=[op.function(**options)], ir_version=op.IR_VERSION)
    return bytes(made.SerializeToString())


def session(activation: str, direction: str, library: Path | None, provider: str, saved: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if saved:
        options.optimized_model_filepath = str(saved)
    if library:
        options.register_custom_ops_library(str(library))
    return ort.InferenceSession(model(activation, direction), options, providers=[provider])


def test_it_is_for_sessions_on_cuda_only(cuda_library: Path) -> None:
    """With the op registered for another provider the runtime takes neither kernel nor body: the engine has to choose by provider."""
    with pytest.raises(Exception, match="Could not find an implementation for IndRNN"):
        session("relu", "reverse", cuda_library, "CPUExecutionProvider")


@pytest.mark.skipif(not BUNDLES, reason="needs a bundle below bundles/")
def test_the_engine_gives_it_to_sessions_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = Engine._open

    def open_on_cpu(self: Engine, provider: str, library: Path | None) -> ort.InferenceSession:
        asked.append((provider, library))
        return real(self, "cpu", None)

    monkeypatch.setattr(Engine, "_open", open_on_cpu)
    monkeypatch.setattr(engine, "registered_cuda", lambda: Path("indrnn_cuda.so"))
    for there, library in ((True, Path("indrnn_cuda.so")), (False, None)):
        monkeypatch.setattr(engine, "_has_cuda", lambda there=there: there)
        assert Engine(read(BUNDLES[0].parent), "cuda", 1, 2).kernel == ("fused" if library else "loop")
        assert asked.pop() == ("cuda", library)
        assert not asked


def _has_cuda() -> bool:
    return CUDA in ort.get_available_providers() and torch.cuda.is_available()


@pytest.mark.skipif(not _has_cuda(), reason="no GPU here, or an onnxruntime without the CUDA provider")
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_on_a_gpu_it_takes_the_body_s_place_with_the_cpu_kernel_s_bits(
    kernel: Kernel, cuda_library: Path, tmp_path: Path, activation: str, direction: str
) -> None:
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    made = session(activation, direction, cuda_library, CUDA, tmp_path / "saved.onnx")
    assert OP_TYPE in {n.op_type for n in onnx.load(tmp_path / "saved.onnx").graph.node}
    for shape in ((0, 2, 3), (1, 1, 5), (41, 4, 33), (300, 32, 128)):
        given = arrays(*shape, "float32")
        got = made.run(None, {"X": given["x"], "U": given["u"], "lens": given["lens"], "h0": given["h0"]})
        want = kernel.having(activation=activation, direction=direction).forward(**given)
        assert all(np.array_equal(g, w) for g, w in zip(got, want, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_run_is_captured_into_a_graph(cuda_library: Path, kernel: Kernel) -> None:
    run = ctypes.CDLL(str(cuda_library)).indrnn_cuda_run
    run.argtypes = (ctypes.POINTER(Call), ctypes.c_void_p)
    given = arrays(50, 4, 33, "float32")
    tensors = {name: torch.from_numpy(a).cuda() for name, a in given.items()}
    outputs = {"y": torch.full_like(tensors["x"], np.nan), "y_h": torch.full_like(tensors["h0"], np.nan)}
    call = Call(T=50, B=4, H=33, alpha=0.25, **{n: t.data_ptr() for n, t in (tensors | outputs).items()})
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        assert run(ctypes.byref(call), torch.cuda.current_stream().cuda_stream) == 0
    tensors["x"] += 0.5
    graph.replay()
    torch.cuda.synchronize()
    for got, want in zip(outputs.values(), kernel.forward(**given | {"x": given["x"] + np.float32(0.5)}), strict=True):
        assert np.array_equal(got.cpu().numpy(), want)
