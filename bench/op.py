"""How close does the recurrence come to copying its own output, and what do its peers cost?

python bench/op.py [--seconds 90] [--only op|step|train|diagonal]

op     one call in ONNX Runtime: the fused kernel, the portable Loop body, and the LSTM and GRU ops of the same H; PyTorch's nn.LSTM; and
       what nobody can beat, a memcpy of Y (the op reads as many bytes and writes as many)
step   T = 1, where there is nothing to loop over: the body is then one multiplication, one addition and the activation
train  forward and backward: our operator, a Python loop with autograd, nn.LSTM; the ceiling is a memcpy of the five arrays that must be
       read or written
diagonal
       DiagonalRecurrence in ONNX Runtime, unbounded and with bounds: the fused kernel, the portable Loop body, and the same scan by the
       runtime's own LinearAttention (a head per neuron, keys and queries of 1, the logarithms of a for decays), where it has that op;
       and a memcpy that reads and writes as many bytes as the op must: those of A, B and Y
All in one process, taking turns; the least time of each, since the machine may be shared. Outputs go to memory that is there already: in
training, glibc is told to keep what is freed, for every contestant. (By default it may hand large arrays back to the system after every
step and fetch them again page by page: 6,240 page faults a step at (784, 32, 128), which cost our operator 7 of 10 ms.)
"""

import argparse
import ctypes
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parent.parent))
from indrnn.export import op
from indrnn.export.bundle import DIAGONAL_TYPE, OP_DOMAIN, OP_TYPE, OP_VERSION
from indrnn.kernels.native import library
from indrnn.kernels.registered import registered
from indrnn.kernels.runtime import ort
from indrnn.model.cells.recurrence import recurrence

SHAPES = [(20, 1, 512), (100, 1, 512), (1000, 1, 128), (5000, 1, 128), (784, 32, 128), (150, 128, 512)]
STEPS = [(1, 1, 512), (1, 64, 512)]
DIAGONALS = [(20, 1, 512), (784, 32, 128), (5000, 1, 128)]
ROUNDS = 3  # at the least, whatever the time
TURN, PARTS = 40e-3, 8  # seconds of a turn, and parts of its second half
Shape = tuple[int, int, int]
Act = Callable[[], object]


def compared(acts: dict[str, Act], seconds: float) -> dict[str, float]:
    """Milliseconds of one call of each, the least seen.

    They take turns. Half of a turn does not count: what the others have left in the caches is not its own (measured: five calls at
    (784, 32, 128) until a training step is back from 5.9 to 3.1 ms). The other half is timed in parts, because a short part is likelier
    to be left alone on a shared machine.
    """
    calls = {}
    for name, act in acts.items():
        act()
        start = time.perf_counter()
        act()
        calls[name] = int(TURN / (time.perf_counter() - start))
    least = dict.fromkeys(acts, float("inf"))
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < ROUNDS or time.perf_counter() < end:
        for name, act in acts.items():
            for _ in range(calls[name] // 2):
                act()
            per_part = max(1, calls[name] // 2 // PARTS)
            for _ in range(min(PARTS, max(1, calls[name] // 2))):
                start = time.perf_counter()
                for _ in range(per_part):
                    act()
                least[name] = min(least[name], (time.perf_counter() - start) / per_part * 1e3)
        rounds += 1
    return least


def recurrence_graph() -> onnx.ModelProto:
    shapes = {"X": ["T", "B", "H"], "U": ["H"], "sequence_lens": ["B"], "initial_h": ["B", "H"], "Y": ["T", "B", "H"], "Y_h": ["B", "H"]}
    info = {
        name: helper.make_tensor_value_info(name, TensorProto.INT64 if name == "sequence_lens" else TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    inputs, outputs = list(shapes)[:4], list(shapes)[4:]
    options = {"activation": "relu", "direction": "forward"}
    node = helper.make_node(OP_TYPE, inputs, outputs, domain=OP_DOMAIN, overload=op.overload(**options), **options)
    graph = helper.make_graph([node], "op", [info[i] for i in inputs], [info[o] for o in outputs])
    opsets = [helper.make_opsetid("", op.OPSET), helper.make_opsetid(OP_DOMAIN, OP_VERSION)]
    return helper.make_model(graph, opset_imports=opsets, functions=[op.function(**options)], ir_version=op.IR_VERSION)


def gated_graph(kind: str, H: int) -> onnx.ModelProto:
    """ONNX's LSTM or GRU op of H inputs and H neurons."""
    rng = np.random.default_rng(0)
    gates = 4 if kind == "LSTM" else 3
    weights = [onnx.numpy_helper.from_array(rng.uniform(-0.1, 0.1, (1, gates * H, H)).astype(np.float32), n) for n in ("W", "R")]
    x = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["T", "B", H])
    y = helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["T", 1, "B", H])
    node = helper.make_node(kind, ["X", "W", "R"], ["Y"], hidden_size=H)
    graph = helper.make_graph([node], kind, [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", op.OPSET)], ir_version=op.IR_VERSION)


def bound(
    model: onnx.ModelProto, threads: int, inputs: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]], fused: bool = False
) -> Act:
    """One run of the model over these arrays, without copies around it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as the service; and a turn's threads leave the next alone
    if fused:
        options.register_custom_ops_library(str(registered()))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, a in inputs.items():
        binding.bind_input(name, "cpu", 0, a.dtype, a.shape, a.ctypes.data)
    for name, a in outputs.items():
        binding.bind_output(name, "cpu", 0, a.dtype, a.shape, a.ctypes.data)

    def run(_alive: object = (inputs, outputs)) -> None:
        session.run_with_iobinding(binding)

    return run


def blank(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Zeros that begin at a line of the cache, as the outputs of ONNX Runtime and of torch do; NumPy's begin anywhere in one."""
    size = math.prod(shape)
    room = np.zeros(size + 16, np.float32)
    begin = -room.ctypes.data % 64 // 4
    return room[begin : begin + size].reshape(shape)


def copying(x: NDArray[Any], y: NDArray[Any], threads: int) -> dict[str, Act]:
    """NumPy's memcpy, and with threads PyTorch's copy besides: the quicker counts."""
    acts: dict[str, Act] = {"memcpy": lambda: np.copyto(y, x)}
    if threads > 1:
        source, target = torch.from_numpy(x), torch.from_numpy(y)
        acts["copy"] = lambda: target.copy_(source)
    return acts


def op_acts(shape: Shape, threads: int, peers: bool) -> dict[str, Act]:
    T, B, H = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    u = rng.uniform(-1, 1, H).astype(np.float32)
    inputs = {"X": x, "U": u, "sequence_lens": np.full(B, T), "initial_h": np.zeros((B, H), np.float32)}
    outputs = {"Y": blank(shape), "Y_h": np.zeros((B, H), np.float32)}
    graph = recurrence_graph()
    acts: dict[str, Act] = {}
    if registered():
        acts["fused"] = bound(graph, threads, inputs, outputs, fused=True)
    acts["loop"] = bound(graph, threads, inputs, outputs)
    if peers:
        y = outputs["Y"].reshape(T, 1, B, H)
        acts["ort_lstm"] = bound(gated_graph("LSTM", H), threads, {"X": x}, {"Y": y})
        acts["ort_gru"] = bound(gated_graph("GRU", H), threads, {"X": x}, {"Y": y})
        lstm, x_torch = torch.nn.LSTM(H, H), torch.from_numpy(x)

        def torch_lstm() -> None:
            with torch.inference_mode():
                lstm(x_torch)

        acts["torch_lstm"] = torch_lstm
    return acts | copying(x, outputs["Y"], threads)


def diagonal_graph(**bounds: float) -> onnx.ModelProto:
    steps, state = ["T", "rows", "H"], ["rows", "H"]
    shapes = {"A": steps, "B": steps, "sequence_lens": ["rows"], "initial_h": state, "Y": steps, "Y_h": state}
    info = {
        name: helper.make_tensor_value_info(name, TensorProto.INT64 if name == "sequence_lens" else TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    inputs, outputs = list(shapes)[:4], list(shapes)[4:]
    variant = (op.bounds_of(tuple(bounds)), "forward")
    overload = op.diagonal_overload(*variant)
    node = helper.make_node(DIAGONAL_TYPE, inputs, outputs, domain=OP_DOMAIN, overload=overload, direction="forward", **bounds)
    graph = helper.make_graph([node], "op", [info[i] for i in inputs], [info[o] for o in outputs])
    opsets = [helper.make_opsetid("", op.OPSET), helper.make_opsetid(OP_DOMAIN, OP_VERSION)]
    return helper.make_model(graph, opset_imports=opsets, functions=[op.diagonal_function(*variant)], ir_version=op.IR_VERSION)


def attention_graph(H: int) -> onnx.ModelProto:
    """S_t = exp(decay_t) S_{t-1} + key_t value_t of H heads of one number; o_t = query_t S_t."""
    names = ["query", "key", "value", "past", "decay"]
    info = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", "T", H]) for n in (*names, "output")}
    info |= {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", H, 1, 1]) for n in ("past", "present")}
    heads: dict[str, Any] = {"q_num_heads": H, "kv_num_heads": H, "update_rule": "gated", "scale": 1.0}
    node = helper.make_node("LinearAttention", names, ["output", "present"], domain="com.microsoft", **heads)
    graph = helper.make_graph([node], "attention", [info[n] for n in names], [info["output"], info["present"]])
    opsets = [helper.make_opsetid("", op.OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=op.IR_VERSION)


def diagonal_acts(shape: Shape, threads: int) -> dict[str, Act]:
    T, B, H = shape
    rng = np.random.default_rng(0)
    a = rng.uniform(0.1, 0.99, shape).astype(np.float32)
    b = rng.standard_normal(shape).astype(np.float32)
    inputs = {"A": a, "B": b, "sequence_lens": np.full(B, T), "initial_h": np.zeros((B, H), np.float32)}
    outputs = {"Y": blank(shape), "Y_h": np.zeros((B, H), np.float32)}
    acts: dict[str, Act] = {}
    if registered():
        acts["fused"] = bound(diagonal_graph(), threads, inputs, outputs, fused=True)
        acts["fused_both"] = bound(diagonal_graph(lo=-4.0, hi=4.0), threads, inputs, outputs, fused=True)
    acts["loop"] = bound(diagonal_graph(), threads, inputs, outputs)
    rows = {"value": np.ascontiguousarray(b.swapaxes(0, 1)), "decay": np.ascontiguousarray(np.log(a).swapaxes(0, 1))}
    ones = np.ones_like(rows["value"])
    given = {"query": ones, "key": ones, "past": np.zeros((B, H, 1, 1), np.float32), **rows}
    answer = {"output": blank(ones.shape), "present": np.zeros((B, H, 1, 1), np.float32)}
    try:
        acts["attention"] = bound(attention_graph(H), threads, given, answer)
    except Exception as error:  # the runtime's exceptions have no common base of their own
        print(f"no LinearAttention in onnxruntime {ort.__version__}: {str(error).splitlines()[0]}")
    else:
        for act in acts.values():
            act()
        acts["loop"]()
        assert np.allclose(answer["output"].swapaxes(0, 1), outputs["Y"], atol=1e-4), "the peer computes something else"
    moved = rng.standard_normal(3 * b.size // 2).astype(np.float32)  # half of A, B and Y is read, and half written
    return acts | copying(moved, blank(moved.shape), threads)


def python_loop(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """What one writes without an operator. unbind, because the gradient of x[t] alone would be as large as x in every step."""
    h = torch.zeros_like(x[0])
    out = []
    for a in x.unbind(0):
        h = torch.relu(a + u * h)
        out.append(h)
    return torch.stack(out)


def keep_freed_memory() -> None:
    """glibc's mallopt: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD as high as they go; another C library may have no such thing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(-1, 2**31 - 1)
        mallopt(-3, 2**31 - 1)


def train_acts(shape: Shape, threads: int) -> dict[str, Act]:
    _, _, H = shape
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    u = (torch.rand(H) * 2 - 1).requires_grad_()
    dy = torch.randn(shape)
    lstm = torch.nn.LSTM(H, H)
    acts: dict[str, Act] = {
        "fused": lambda: torch.autograd.grad(recurrence(x, u)[0], (x, u), dy),
        "loop": lambda: torch.autograd.grad(python_loop(x, u), (x, u), dy),
        "torch_lstm": lambda: torch.autograd.grad(lstm(x)[0], (x, *lstm.parameters()), dy),
    }
    if library() is None:
        acts["plain"] = acts.pop("fused")
    return acts | copying(x.detach().numpy(), blank(shape), threads)


def measured(acts: dict[str, Act], shape: Shape, threads: int, seconds: float) -> dict[str, Any]:
    times = compared(acts, seconds)
    times["memcpy"] = min(times["memcpy"], times.pop("copy", float("inf")))
    return {**dict(zip("TBH", shape, strict=True)), "threads": threads, **{f"{k}_ms": float(f"{v:.4g}") for k, v in times.items()}}


def show(title: str, rows: list[dict[str, Any]], ratios: list[tuple[str, str, str]]) -> None:
    """A table; ratios: (heading, dividend, divisor)."""
    columns = [k for k in rows[0] if k not in "TBH" and k != "threads"]
    print(f"\n{title}")
    print(f"{'T':>5} {'B':>4} {'H':>4} {'thr':>4}" + "".join(f"{c:>15}" for c in columns) + "".join(f"{r[0]:>17}" for r in ratios))
    for row in rows:
        shape = f"{row['T']:5} {row['B']:4} {row['H']:4} {row['threads']:4}"
        shares = (f"{row[a] / row[b]:17.2f}" if a in row and b in row else f"{'-':>17}" for _, a, b in ratios)
        print(shape + "".join(f"{row[c]:15.4f}" for c in columns) + "".join(shares), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90, help="time to spend; the slow peers take some more")
    parser.add_argument("--only", choices=["op", "step", "train", "diagonal"])
    args = parser.parse_args()
    keep_freed_memory()
    counts = sorted({1, os.cpu_count() or 1})
    native = library()
    kernel = f"{native.path.name}, {native.isas()[-1]}" if native else "none: the portable implementations only"
    print(f"kernel {kernel}; onnxruntime {ort.__version__}, torch {torch.__version__}, {os.cpu_count()} cores; float32, relu")
    sizes = {"op": len(SHAPES), "step": len(STEPS), "train": len(SHAPES), "diagonal": len(DIAGONALS)}
    share = args.seconds / (len(counts) * (sum(sizes.values()) if args.only is None else sizes[args.only]))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sizes}
    for threads in counts:
        torch.set_num_threads(threads)
        if args.only in (None, "op"):
            found["op"] += [measured(op_acts(s, threads, True), s, threads, share) for s in SHAPES]
        if args.only in (None, "step"):
            found["step"] += [measured(op_acts(s, threads, False), s, threads, share) for s in STEPS]
        if args.only in (None, "train"):
            found["train"] += [
                {**row, "ceiling_ms": float(f"{2.5 * row['memcpy_ms']:.4g}")}
                for s in SHAPES
                for row in [measured(train_acts(s, threads), s, threads, share)]
            ]
        if args.only in (None, "diagonal"):
            found["diagonal"] += [measured(diagonal_acts(s, threads), s, threads, share) for s in DIAGONALS]
    times = [("loop/fused", "loop_ms", "fused_ms"), ("lstm/fused", "ort_lstm_ms", "fused_ms"), ("fused/memcpy", "fused_ms", "memcpy_ms")]
    if found["op"]:
        show("One call in ONNX Runtime (ms). Ceiling: memcpy of Y", found["op"], times)
    if found["step"]:
        show("One step in ONNX Runtime (ms). Ceiling: memcpy of Y, and the runtime's call", found["step"], [times[0], times[2]])
    if found["train"]:
        train = [
            ("loop/fused", "loop_ms", "fused_ms"),
            ("lstm/fused", "torch_lstm_ms", "fused_ms"),
            ("fused/ceiling", "fused_ms", "ceiling_ms"),
        ]
        show("Forward and backward in PyTorch (ms). Ceiling: memcpy of five arrays", found["train"], train)
    if found["diagonal"]:
        ratios = [times[0], ("attention/fused", "attention_ms", "fused_ms"), times[2]]
        show("One call of DiagonalRecurrence (ms). Ceiling: memcpy of the bytes of A, B and Y", found["diagonal"], ratios)
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "isa": native.isas()[-1] if native else None}
    print(json.dumps({**found, "machine": machine, "onnxruntime": ort.__version__, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
