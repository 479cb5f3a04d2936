"""How close does the recurrence come to a device-to-device copy on an NVIDIA GPU, and what does cuDNN's LSTM cost?

python bench/gpu.py [--max-time 300] [--only forward|train|scan] [--dry-run]

forward  the kernels (Triton in two types, and the CUDA op's library where `indrnn kernels cuda` has built it) with B * H >= 65,536,
         and a copy of X to Y, which nobody can beat: it reads as many bytes and writes as many
train    one step, forward and backward, at T = 1024: the recurrence alone, a layer (a matrix product and the recurrence), cuDNN's nn.LSTM
scan     the loop over time and the scan, forward and backward, for few neurons and long sequences: where kernels/triton_recurrence.py
         should change from one to the other
Every kernel is first compared with the plain loop over time in float64. Medians, timed with events; forward and scan as replays of a CUDA
graph, so that launching from Python does not count. Writes gpu.json into $OUT if that is set. --dry-run goes through everything with tiny
sizes on the CPU, in Triton's interpreter; its times say nothing.
"""

import argparse
import ctypes
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

FORWARD = [(1024, 128, 512), (1024, 64, 1024), (256, 1024, 512), (4096, 128, 512)]
TRAIN = [(1024, 32, 128), (1024, 128, 128), (1024, 32, 512), (1024, 128, 512)]
SCAN_STEPS, SCAN_NEURONS = [256, 1024, 4096, 16384], [(1, 128), (1, 512), (8, 128), (8, 512), (32, 512), (128, 512)]
CHUNKS = [(128, 8), (256, 8), (512, 8), (256, 4), (256, 16)]
UNROLLS = [(64, 4), (64, 8), (64, 16), (128, 8), (32, 16)]
Shape = tuple[int, int, int]
Act = Callable[[], object]


class Timer:
    """Medians of an act, on a GPU or, for the dry run, on the CPU."""

    def __init__(self, dry: bool, deadline: float) -> None:
        self.dry, self.deadline = dry, deadline
        self.device = "cpu" if dry else "cuda"
        self.left_out = 0

    def late(self) -> bool:
        """Whether the time is spent; counts what is left out for it."""
        late = time.monotonic() > self.deadline
        self.left_out += late
        return late

    def ms(self, act: Act, graph: bool = False, seconds: float = 0.3) -> float:
        if self.dry:
            start = time.perf_counter()
            act()
            return (time.perf_counter() - start) * 1e3
        for _ in range(3):
            act()
        torch.cuda.synchronize()
        if graph:
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                act()
            act = captured.replay
        once = self._events(act, 1)
        per_part = max(1, int(2 / once))  # some 2 ms
        parts = max(5, min(100, int(seconds * 1e3 / (once * per_part))))
        return statistics.median(self._events(act, per_part) for _ in range(parts))

    def _events(self, act: Act, calls: int) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            act()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / calls


def given(shape: Shape, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, u with |u| ** T <= 2, whole lengths, h0."""
    T, B, H = shape
    x = torch.randn(shape, device=device, dtype=torch.float32).to(dtype)
    u = (torch.rand(H, device=device) * 2 - 1) * 2 ** (1 / max(T, 1))
    return x, u, torch.full((B,), T, device=device), torch.randn(B, H, device=device)


def check(triton: Any, timer: Timer, dtype: torch.dtype, scan: bool) -> None:
    """Raises AssertionError where the kernels are not the plain loop's in float64."""
    from indrnn.model.cells.recurrence import _loop, _loop_backward

    x, u, lens, h0 = given((9, 2, 5) if timer.dry else (700, 3, 130), dtype, timer.device)
    lens = torch.tensor([len(x) // 3, len(x), 0][: len(lens)], device=timer.device)
    dy, dy_h = torch.randn_like(x), torch.randn_like(h0)
    tolerance = {"rtol": 2e-2, "atol": 2e-1} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-2}
    y, y_h = triton.forward(x, u, lens, h0, "relu", 0.0, "forward", scan)
    want = _loop(x.double(), u.double(), lens, h0.double(), "relu", 0.0, "forward")
    torch.testing.assert_close((y.double(), y_h.double()), want, **tolerance)
    got = triton.backward(dy, dy_h, y, u, lens, h0, "relu", 0.0, "forward", scan)
    wants = _loop_backward(dy.double(), dy_h.double(), y.double(), u.double(), lens, h0.double(), "relu", 0.0, "forward")
    torch.testing.assert_close(tuple(g.double() for g in got), wants, **tolerance)


def library_act(x: Tensor, u: Tensor, lens: Tensor, h0: Tensor) -> Act | None:
    """One forward run of the CUDA op's library on PyTorch's current stream, if the library is there and the tensors are on a GPU."""
    from indrnn.kernels.cuda import registered_cuda
    from indrnn.kernels.native import Call

    path = registered_cuda()
    if path is None or not x.is_cuda:
        return None
    run = ctypes.CDLL(str(path)).indrnn_cuda_run
    run.argtypes = (ctypes.POINTER(Call), ctypes.c_void_p)
    y, y_h = torch.full_like(x, float("nan")), torch.empty_like(h0)
    T, B, H = x.shape
    tensors = {"x": x, "u": u, "lens": lens, "h0": h0, "y": y, "y_h": y_h}
    call = Call(T=T, B=B, H=H, **{name: t.data_ptr() for name, t in tensors.items()})

    def act(_alive: object = tensors) -> Tensor:
        if error := run(ctypes.byref(call), torch.cuda.current_stream().cuda_stream):
            raise RuntimeError(f"CUDA error {error}")
        return y

    return act


def forward(triton: Any, timer: Timer) -> list[dict[str, Any]]:
    rows = []
    for shape in [(6, 2, 40)] if timer.dry else FORWARD:
        for dtype in (torch.float32, torch.bfloat16):
            if timer.late():
                continue
            x, u, lens, h0 = args = given(shape, dtype, timer.device)
            y = torch.empty_like(x)
            moved = 2 * x.numel() * x.element_size()
            row: dict[str, Any] = dict(zip("TBH", shape, strict=True)) | {"dtype": str(dtype).removeprefix("torch.")}
            row["copy_ms"] = timer.ms(lambda y=y, x=x: y.copy_(x), graph=True)

            def run(args: tuple[Tensor, ...] = args) -> object:
                return triton.forward(*args, "relu", 0.0, "forward", False)

            default = triton.BLOCK, triton.UNROLL
            tried = {}
            for triton.BLOCK, triton.UNROLL in [default, *(v for v in UNROLLS if v != default)]:
                if (triton.BLOCK, triton.UNROLL) == default or not timer.late():
                    tried[triton.BLOCK, triton.UNROLL] = timer.ms(run, graph=True)
            triton.BLOCK, triton.UNROLL = default
            row["triton_ms"] = tried[default]
            row["variants"] = {f"{block}x{unroll}": ms for (block, unroll), ms in tried.items()}
            if dtype == torch.float32 and (act := library_act(x, u, lens, h0)):
                torch.testing.assert_close(act(), triton.forward(*args, "relu", 0.0, "forward", False)[0], rtol=1e-4, atol=1e-4)
                row["library_ms"] = timer.ms(act, graph=True)
            best = min(row["triton_ms"], row.get("library_ms", float("inf")))
            rows.append(row | {"copy_gb_s": moved / row["copy_ms"] / 1e6, "of_copy": row["copy_ms"] / best})
    return rows


def train(timer: Timer) -> list[dict[str, Any]]:
    from indrnn.model.cells.recurrence import recurrence

    rows = []
    for shape in [(6, 2, 8)] if timer.dry else TRAIN:
        for dtype in (torch.float32, torch.bfloat16):
            if timer.late():
                continue
            H = shape[2]
            x, u, lens, h0 = given(shape, dtype, timer.device)
            dy = torch.randn_like(x)
            x.requires_grad_()
            u.requires_grad_()
            linear = torch.nn.Linear(H, H, device=timer.device, dtype=dtype)
            lstm = torch.nn.LSTM(H, H).to(timer.device, dtype)

            def step(
                a: Tensor, parameters: tuple[Tensor, ...], rest: tuple[Tensor, ...] = (lens, h0), u: Tensor = u, dy: Tensor = dy
            ) -> object:
                y = recurrence(a, u, *rest)[0]
                return torch.autograd.grad(y, (*parameters, u), dy.to(y.dtype))

            acts: dict[str, Act] = {
                "ours": lambda x=x, step=step: step(x, (x,)),
                "layer": lambda x=x, step=step, linear=linear: step(linear(x), (x, *linear.parameters())),
                "lstm": lambda x=x, lstm=lstm, dy=dy: torch.autograd.grad(lstm(x)[0], (x, *lstm.parameters()), dy),
            }
            row = dict(zip("TBH", shape, strict=True)) | {"dtype": str(dtype).removeprefix("torch.")}
            row |= {f"{name}_ms": timer.ms(act) for name, act in acts.items()}
            rows.append(row | {"lstm_over_ours": row["lstm_ms"] / row["ours_ms"], "lstm_over_layer": row["lstm_ms"] / row["layer_ms"]})
    return rows


def scan(triton: Any, timer: Timer) -> list[dict[str, Any]]:
    rows = []
    for B, H in [(1, 3)] if timer.dry else SCAN_NEURONS:
        for T in [9] if timer.dry else SCAN_STEPS:
            if timer.late() or T * B * H > 2**28:
                continue
            args = given((T, B, H), torch.float32, timer.device)
            dy, dy_h = torch.randn_like(args[0]), torch.randn_like(args[3])

            def step(which: bool, args: tuple[Tensor, ...] = args, dy: Tensor = dy, dy_h: Tensor = dy_h) -> object:
                y, _ = triton.forward(*args, "relu", 0.0, "forward", which)
                return triton.backward(dy, dy_h, y, *args[1:], "relu", 0.0, "forward", which)

            default = triton.CHUNK, triton.SCAN_BLOCK
            times = {}
            for triton.CHUNK, triton.SCAN_BLOCK in [default, *(v for v in CHUNKS if v != default)]:
                if (triton.CHUNK, triton.SCAN_BLOCK) == default or not timer.late():
                    times[f"{triton.CHUNK}x{triton.SCAN_BLOCK}"] = timer.ms(lambda step=step: step(True), graph=True, seconds=0.1)
            triton.CHUNK, triton.SCAN_BLOCK = default
            row: dict[str, Any] = {"T": T, "B": B, "H": H, "loop_ms": timer.ms(lambda step=step: step(False), graph=True, seconds=0.1)}
            row |= {"scan_ms": times[f"{default[0]}x{default[1]}"], "variants": times}
            rows.append(row | {"loop_over_scan": row["loop_ms"] / row["scan_ms"], "taken": triton.scans(T, B, H, "relu")})
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    names = [name for name in dict.fromkeys(n for row in rows for n in row) if name != "variants"]
    print(" ".join(f"{name:>15}" for name in names))
    for row in rows:
        cells = (row.get(name, "-") for name in names)
        print(" ".join(f"{c:15.4f}" if isinstance(c, float) else f"{c!s:>15}" for c in cells))
        if len(row.get("variants", {})) > 1:
            print("   variants (ms): " + ", ".join(f"{name} {ms:.4f}" for name, ms in row["variants"].items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-time", type=float, default=300, help="seconds after which nothing new is begun")
    parser.add_argument("--only", choices=["forward", "train", "scan"])
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    if not args.dry_run and not torch.cuda.is_available():
        print("bench/gpu.py: no NVIDIA GPU that PyTorch can use here (--dry-run goes through the motions on the CPU)", file=sys.stderr)
        return 1
    if args.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # seen when the kernels are defined
    try:
        from indrnn.kernels import triton_recurrence as triton
    except ImportError as error:
        print(f"bench/gpu.py: Triton is needed: {error}", file=sys.stderr)
        return 1
    torch.manual_seed(0)
    timer = Timer(args.dry_run, time.monotonic() + args.max_time)
    if args.dry_run:
        triton.CHUNK, triton.BLOCK, triton.UNROLL = 8, 32, 4
        CHUNKS[:], UNROLLS[:] = [(8, 8), (4, 4)], [(32, 4), (64, 2)]
    for dtype in (torch.float32, torch.bfloat16):
        for which in (False, True):
            check(triton, timer, dtype, which)
    device = "dry run on the CPU" if args.dry_run else torch.cuda.get_device_name()
    print(f"{device}; torch {torch.__version__}, CUDA {torch.version.cuda}; relu; ms, medians")
    found: dict[str, Any] = {"forward": [], "train": [], "scan": []}
    if args.only in (None, "forward"):
        found["forward"] = forward(triton, timer)
        show("Forward. Ceiling: a device-to-device copy of X", found["forward"])
    if args.only in (None, "train"):
        found["train"] = train(timer)
        show("Training step, forward and backward", found["train"])
    if args.only in (None, "scan"):
        found["scan"] = scan(triton, timer)
        show("Loop and scan, forward and backward, float32", found["scan"])
    if timer.left_out:
        print(f"\n{timer.left_out} measurements left out: --max-time {args.max_time:g} s is over")
    found |= {"device": device, "torch": torch.__version__, "cuda": torch.version.cuda, "left_out": timer.left_out}
    line = json.dumps(found)
    if out := os.environ.get("OUT"):
        (Path(out) / "gpu.json").write_text(line + "\n")
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
