"""What does a training step of a stack cost beyond its matrix products and norms, and how much memory does a long sequence take?

python bench/train_step.py [--seconds 60] [--only time|memory]

time    forward, loss at the last step, backward, Adam and the clamp of U, of the plain net of 6 layers of 128 for images pixel by pixel,
        T = 784, B = 32, norm after the recurrence; the ceiling is the same step of the same linear layers and batch norms without
        recurrences. Beside them the same depth of PyTorch's nn.RNN (relu) and nn.LSTM. All in one process, taking turns; the least time
        of each, since the machine may be shared. glibc is told to keep what is freed, and denormal numbers, in which gradients that vanish
        through time end, count as 0: for every contestant, as training does.
memory  the most that a step of that net takes over what the process had before, by T, and with checkpointed activations; the floor is the
        step of the linear layers and norms alone, which keep what they multiply; each in a process of its own. Beside it the exponent p
        of growth as T^p between the two longest T: 1 is asked for, with checkpointed activations 1/2.
The last line is JSON.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from indrnn.kernels.native import library
from indrnn.model.cells.recurrent_weight import clamp_after_steps, parameter_groups
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.training.training import keep_memory, no_denormals, return_memory

T, B, H, LAYERS, CLASSES = 784, 32, 128, 6, 10
BAR = 1.5  # times the linear layers and batch norms alone
LENGTHS = (196, 784, 3136)
KINDS = {
    "maps": ("linear layers and norms alone", 1.0),
    "kept": ("all activations kept", 1.0),
    "checkpointed": ("checkpointed activations", 0.5),
}
ROUNDS = 5  # at the least, whatever the time
Step = Callable[[], None]


class Maps(nn.Module):
    """The linear layers and batch norms of a net, and its readout."""

    def __init__(self, net: SequenceNet) -> None:
        super().__init__()
        self.maps = nn.ModuleList(layer.project for layer in net.stack.indrnns())
        self.norms = nn.ModuleList(layer.norm for layer in net.stack.indrnns())
        self.readout = net.readout

    def answer(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        for project, norm in zip(self.maps, self.norms, strict=True):
            x = norm(project(x))
        return self.readout(x[-1])


class Peer(nn.Module):
    """PyTorch's own layers of the same depth and width."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn, self.readout = rnn, nn.Linear(H, CLASSES)

    def answer(self, x: Tensor) -> Tensor:
        return self.readout(self.rnn(x.transpose(0, 1))[0][-1])


def indrnn(steps: int = T) -> SequenceNet:
    torch.manual_seed(0)
    return SequenceNet(SequenceConfig(layers=LAYERS, hidden=H, T=steps, classes=CLASSES, inputs=1, norm="after"))


def training(net: Any, x: Tensor, y: Tensor) -> Step:
    net.train()
    optimizer = torch.optim.Adam(parameter_groups(net, 1e-4), lr=2e-4)
    clamp_after_steps(optimizer, net)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net.answer(x), y).backward()
        optimizer.step()

    return step


def least(acts: dict[str, Step], seconds: float, fewest: int) -> dict[str, float]:
    """Milliseconds of one call of each, the least seen in that many rounds or more; they take turns."""
    best = dict.fromkeys(acts, float("inf"))
    for act in acts.values():
        act()
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < fewest or time.perf_counter() < end:
        for name, act in acts.items():
            start = time.perf_counter()
            act()
            best[name] = min(best[name], (time.perf_counter() - start) * 1e3)
        rounds += 1
    return best


def timed(seconds: float) -> dict[str, float]:
    keep_memory()
    x, y = torch.randn(B, T, 1), torch.randint(CLASSES, (B,))
    ours = {"indrnn": training(indrnn(), x, y), "maps": training(Maps(indrnn()), x, y)}
    peers = {"rnn": nn.RNN(1, H, LAYERS, nonlinearity="relu"), "lstm": nn.LSTM(1, H, LAYERS)}
    # The peers take some seconds a step: two turns, outside of the comparison that the bar is about.
    with no_denormals():
        return least(ours, seconds, ROUNDS) | least({name: training(Peer(rnn), x, y) for name, rnn in peers.items()}, 0, 2)


def peak() -> float:
    """MiB, the most that this process has held; getrusage would tell that of the parent where it was more."""
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def taken(steps: int, kind: str) -> float:
    """MiB that a step adds to this process; what is freed goes back, or the allocator's holes would be measured."""
    return_memory()
    warm = indrnn(8)
    training(warm, torch.randn(B, 8, 1), torch.randint(CLASSES, (B,)))()
    net: Any = indrnn(steps)
    net.stack.checkpoint_activations = kind == "checkpointed"
    net = Maps(net) if kind == "maps" else net
    x, y = torch.randn(B, steps, 1), torch.randint(CLASSES, (B,))
    before = peak()
    training(net, x, y)()
    return peak() - before


def measured(steps: int, kind: str) -> float:
    """`taken` in a process of its own."""
    command = [sys.executable, __file__, "--taken", str(steps), "--kind", kind]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)


def growth(lengths: Sequence[int], mib: Sequence[float]) -> float:
    """p of memory ~ T^p, between the two longest."""
    return math.log(mib[-1] / mib[-2]) / math.log(lengths[-1] / lengths[-2])


def memory(lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Prints the table and returns its rows."""
    print(f"\nmemory of that step, MiB{'':<14}" + "".join(f"{f'T = {t}':>12}" for t in lengths) + "  times the first  grows as   asked")
    rows: list[dict[str, Any]] = []
    for kind, (name, asked) in KINDS.items():
        mib = [measured(t, kind) for t in lengths]
        floor = rows[0]["mib"][-1] if rows else mib[-1]
        row = {"kind": kind, "T": list(lengths), "mib": mib, "ratio": mib[-1] / floor, "power": growth(lengths, mib), "asked": asked}
        print(f"  {name:<36}" + "".join(f"{m:12.0f}" for m in mib) + f"{row['ratio']:17.2f}    T^{row['power']:.2f}   T^{asked:g}")
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", choices=("time", "memory"))
    parser.add_argument("--taken", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="T of the memory's rows, rising (default: %(default)s)")
    args = parser.parse_args()
    if args.taken:
        print(taken(args.taken, args.kind))
        return
    kernel = "native kernel" if library() else "PyTorch loop"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, {kernel}")
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__, "kernel": kernel}
    if args.only != "memory":
        ms = timed(args.seconds)
        print(f"\ntraining step, {LAYERS} x {H}, T = {T}, B = {B}, float32     ms   times linear + norm (bar {BAR} for IndRNN)")
        for name, value in ms.items():
            print(f"  {name:<52}{value:8.1f}   {value / ms['maps']:.2f}")
        result["time"] = {"T": T, "B": B, "H": H, "layers": LAYERS, "ms": ms, "ratio": ms["indrnn"] / ms["maps"], "bar": BAR}
    if args.only != "time":
        result["memory"] = memory(args.lengths)
    print(json.dumps({"train_step": result}))


if __name__ == "__main__":
    main()
