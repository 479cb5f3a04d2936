"""What does each cell cost: its state, a training step, and a step of a stream?

python bench/cells.py [--seconds 60] [--only CELL ...]

training   forward, loss at the last step, backward and Adam, of 2 layers of 128 over T = 196 numbers a row, B = 32: the size at which
           images are read pixel by pixel, pooled to 196. The cells differ in how many linear maps they have: parameters stand beside.
streaming  one step of one row in ONNX Runtime with the kernels of ours, of 2 layers of 128 that read 16 numbers, as the service runs it.
           Beside it the floor: the same call of a graph that hands its state through.
state      bytes that a session of such a network keeps of its layers.
One thread; all cells in one process, taking turns; the least of each, in the process's own time, since the machine may be shared. The last
line is JSON.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import TensorProto, helper

from indrnn.export import graph
from indrnn.kernels.registered import registered
from indrnn.kernels.runtime import ort
from indrnn.model.cells.recurrent_weight import parameter_groups
from indrnn.model.cells.table import CELLS
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.training.training import keep_memory

T, B, H, LAYERS, CLASSES, FEATURES = 196, 32, 128, 2, 10, 16
CALLS = 200  # of a stream's step, for one time
ROUNDS = 3  # at the least, whatever the time
Act = Callable[[], None]


def training(cell: str) -> tuple[Act, int]:
    """One step, and how many parameters it trains."""
    torch.manual_seed(0)
    net = SequenceNet(SequenceConfig(layers=LAYERS, hidden=H, T=T, classes=CLASSES, inputs=1, norm="before", cell=cell)).train()
    x, y = torch.randn(B, T, 1), torch.randint(CLASSES, (B,))
    optimizer = torch.optim.Adam(parameter_groups(net, 1e-4), lr=2e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net.answer(x), y).backward()
        optimizer.step()

    return step, sum(p.numel() for p in net.parameters())


def streaming(cell: str) -> tuple[Act, int]:
    """CALLS steps of one row, and the bytes of state of its layers."""
    torch.manual_seed(0)
    net = TensorNet(TensorConfig((0.0,) * FEATURES, (1.0,) * FEATURES, CLASSES, hidden=H, layers=LAYERS, pools=(), cell=cell)).fold()
    example = torch.zeros(2, 6, FEATURES), torch.tensor([5, 6]), net.start(2)
    return _calls(graph.serialize(graph.to_onnx(net, *example)), net.state_size), 4 * net.stack.state_size


def through(size: int) -> bytes:
    """A graph that hands the state through, of the same inputs and outputs."""
    shapes = {"x": ["B", "T", FEATURES], "lengths": ["B"], "state": ["B", size], "logits": ["B", "T", FEATURES], "state_out": ["B", size]}
    info = {n: helper.make_tensor_value_info(n, TensorProto.INT64 if n == "lengths" else TensorProto.FLOAT, s) for n, s in shapes.items()}
    nodes = [helper.make_node("Identity", ["x"], ["logits"]), helper.make_node("Identity", ["state"], ["state_out"])]
    made = helper.make_graph(nodes, "through", [info[n] for n in list(shapes)[:3]], [info[n] for n in list(shapes)[3:]])
    model: onnx.ModelProto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def _calls(model: bytes, size: int) -> Act:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if library := registered():
        options.register_custom_ops_library(str(library))
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x, lengths = np.random.default_rng(0).normal(size=(1, 1, FEATURES)).astype(np.float32), np.ones(1, np.int64)

    def calls() -> None:
        state = np.zeros((1, size), np.float32)
        for _ in range(CALLS):
            state = session.run(["state_out"], {"x": x, "lengths": lengths, "state": state})[0]

    return calls


def least(acts: dict[str, Act], seconds: float) -> dict[str, float]:
    """Milliseconds of the process's own time for one call of each, the least seen; they take turns."""
    best = dict.fromkeys(acts, float("inf"))
    end, rounds = time.perf_counter() + seconds, 0
    while rounds <= ROUNDS or time.perf_counter() < end:
        for name, act in acts.items():
            start = time.process_time()
            act()
            if rounds:  # the first warms up
                best[name] = min(best[name], (time.process_time() - start) * 1e3)
        rounds += 1
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", nargs="+", choices=CELLS, default=list(CELLS), metavar="CELL")
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, Any]] = {}
    steps: dict[str, Act] = {}
    streams: dict[str, Act] = {}
    for name in args.only:
        steps[name], parameters = training(name)
        streams[name], state = streaming(name)
        rows[name] = {"parameters": parameters, "state_bytes": state}
    streams["through"] = _calls(through(LAYERS * H), LAYERS * H)
    for name, ms in least(steps, args.seconds / 2).items():
        rows[name]["training_ms"] = float(f"{ms:.4g}")
    found = {name: ms / CALLS for name, ms in least(streams, args.seconds / 2).items()}
    floor = float(f"{found.pop('through'):.4g}")
    for name, ms in found.items():
        rows[name]["streaming_ms"] = float(f"{ms:.4g}")
    kernel = "kernels of ours" if registered() else "portable"
    print(f"{platform.machine()}, {os.cpu_count()} cores, one thread, PyTorch {torch.__version__}, onnxruntime {ort.__version__}, {kernel}")
    print(f"{'cell':<10}{'parameters':>12}{'state, bytes':>14}{'training, ms':>14}{'streaming, ms':>15}")
    for name, row in rows.items():
        told = (row["parameters"], row["state_bytes"], row["training_ms"], row["streaming_ms"])
        print(f"{name:<10}{told[0]:>12,}{told[1]:>14,}{told[2]:>14.2f}{told[3]:>15.4f}")
    print(f"{'(state handed through)':<50}{floor:>15.4f}")
    print(json.dumps({"cells": rows, "floor_ms": floor, "threads": 1, "T": T, "B": B, "H": H, "layers": LAYERS}))


if __name__ == "__main__":
    main()
