"""What does `--online` cost: a batch with the gradient of the whole stream, beside one that is truncated, and does memory stay where it is?

python bench/online.py [--seconds 20]

price    a batch of 8 rows of 16 symbols of 64, forward, loss at every step, backward, without an optimiser: truncated at the batch's
         beginning, and online, by layers and neurons; beside them MiB of traces, and what is the floor, 4 bytes a weight a row. The least
         processor time of each, one thread, taking turns.
memory   MiB that the process takes on top of what it had, after 1,000, 10,000 and 100,000 steps of one stream, 2 layers of 32, in batches
         of 16; beside it backpropagation through all steps, which keeps them.
exact    the largest difference from the gradient of backpropagation through all T steps, of the largest entry, in float64, in pieces of 16.
The last line is JSON.
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch

from indrnn.model.cells.stacks import Chain, skip_chain
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.training.online.traces import MOST, Traces, numbers
from indrnn.model.training.stream_learner import StreamLearner, StreamRecipe
from indrnn.model.training.training import no_denormals

ROWS, LENGTH, SYMBOLS = 8, 16, 64
SIZES = ((1, 64), (1, 256), (1, 1024), (2, 32), (2, 64), (3, 32))
STREAMS = (1_000, 10_000, 100_000)
EXACT = ((1, 1_000), (1, 10_000), (2, 1_000), (3, 1_000))


def learner(layers: int, hidden: int, online: bool, length: int = LENGTH, rows: int = ROWS) -> StreamLearner:
    torch.manual_seed(0)
    net = CharsNet(CharsConfig(classes=SYMBOLS, hidden=hidden, layers=layers, norm=False))
    symbols = np.random.default_rng(0).integers(0, SYMBOLS, 100_000)
    return StreamLearner(net, StreamRecipe(1, 0, rows=rows, length=length, reset=0.0, online=online), symbols, 1)


def batch(learning: StreamLearner, step: int) -> None:
    learning.zero_grad()
    learning.loss(step).backward()


def price(layers: int, hidden: int, seconds: float) -> dict[str, Any]:
    both = {online: learner(layers, hidden, online) for online in (False, True)}
    best, step, end = {False: float("inf"), True: float("inf")}, 0, time.process_time() + seconds
    while step < 4 or time.process_time() < end:
        for online, learning in both.items():
            begun = time.process_time()
            batch(learning, step)
            best[online] = min(best[online], time.process_time() - begun) if step else best[online]
        step += 1
    stack = both[True].net.stack
    assert isinstance(stack, Chain)
    weights = sum(p.numel() for p in stack.parameters())
    told = {"layers": layers, "hidden": hidden, "truncated_ms": 1e3 * best[False], "online_ms": 1e3 * best[True]}
    return told | {"traces_mib": 4 * ROWS * numbers(stack.indrnns()) / 2**20, "floor_mib": 4 * ROWS * weights / 2**20}


def resident() -> float:
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def taken(steps: int, online: bool) -> float:
    """MiB that so many steps take, in one batch where not online."""
    torch.set_num_threads(1)
    batch(learner(2, 32, False, 4, 1), 0)
    learning = learner(2, 32, online, LENGTH if online else steps, 1)
    before = resident()
    with no_denormals():
        for step in range(-(-steps // LENGTH) if online else 1):
            batch(learning, step)
    return resident() - before


def apart(run: Any, *arguments: Any) -> Any:
    """What `run` returns in a process of its own."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(run, arguments)


def off(layers: int, T: int) -> float:
    """How far the gradient of a loss in the last 16 steps, which reach back through all T, is from that of backpropagation."""
    torch.manual_seed(layers)
    stack = skip_chain(2, 16, layers, 0.5 ** (1 / T), 0.0, norm=False).double()
    with torch.no_grad():
        for layer in stack.indrnns():
            layer.cell.u.uniform_(0.5 ** (2 / T), 0.5 ** (1 / T))  # type: ignore[operator,union-attr]
    x, weight = torch.randn(T, 2, 2).double(), torch.randn(2, 16).double()
    state, known = torch.zeros(2, stack.state_size).double(), Traces(stack, 2)
    (stack(x, None, state)[0][-1] * weight).sum().backward()
    want = [p.grad.clone() for p in stack.parameters()]
    for begin in range(0, T, LENGTH):
        piece = x[begin : begin + LENGTH]
        stack.zero_grad()
        y, after = stack(piece, None, known.attached(stack, state))
        known.advance(stack, piece, torch.full((2,), len(piece)), state)
        if begin + LENGTH >= T:
            (y[-1] * weight).sum().backward()
        state = after.detach()
    return max(float((p.grad - w).abs().max() / w.abs().max()) for p, w in zip(stack.parameters(), want, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, one thread, PyTorch {torch.__version__}")
    result: dict[str, Any] = {"most_bytes": MOST, "price": [], "memory": [], "exact": []}
    # First: what a process has freed it takes again, and that would not be seen.
    print(f"\n{'steps of the stream':>20}{'online, MiB':>13}{'all steps, MiB':>16}")
    for steps in STREAMS:
        row = {"steps": steps, "online_mib": apart(taken, steps, True), "whole_mib": apart(taken, steps, False)}
        print(f"{steps:>20,}{row['online_mib']:>13.1f}{row['whole_mib']:>16.1f}", flush=True)
        result["memory"].append(row)
    print(f"\n{'layers':>6}{'T':>8}{'difference':>13}")
    for layers, T in EXACT:
        row = {"layers": layers, "T": T, "off": off(layers, T)}
        print(f"{layers:>6}{T:>8,}{row['off']:>13.1e}", flush=True)
        result["exact"].append(row)
    print(f"\n{'layers':>6}{'H':>6}{'truncated, ms':>15}{'online, ms':>12}{'times':>7}{'traces, MiB':>13}{'floor, MiB':>12}")
    for layers, hidden in SIZES:
        row = price(layers, hidden, args.seconds / len(SIZES))
        times = row["online_ms"] / row["truncated_ms"]
        ms = f"{row['truncated_ms']:>15.2f}{row['online_ms']:>12.2f}{times:>7.2f}"
        print(f"{layers:>6}{hidden:>6}{ms}{row['traces_mib']:>13.2f}{row['floor_mib']:>12.2f}", flush=True)
        result["price"].append(row)
    print(json.dumps({"online": result}))


if __name__ == "__main__":
    main()
