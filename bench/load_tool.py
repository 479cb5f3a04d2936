"""Triton's own load tool (perf_analyzer) against any server that speaks the Open Inference Protocol: how it is called, what it said."""

import os
import re
import subprocess
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import mean

WINDOWS = 6  # of `seconds` each at the most; it ends earlier when some in a row agree
AGREE = 3  # windows, which its figure is the mean of
STABLE = 40  # percent by which windows may differ and still agree


@dataclass(frozen=True)
class Said:
    """Steps per second, and the latency its client saw in seconds; not a number where the windows never agreed."""

    per_second: float
    p50: float
    p99: float


def measure(tool: Path, libraries: Path | None, address: str, model: str, shape: str, clients: int, length: int, seconds: float) -> Said:
    """One run over HTTP with binary tensors, in sequences of `length`; shape as it wants it, x:1,1,20,3 without the batch axis.

    Raises SystemExit with the tool's words when there is no figure in them.
    """
    options = {
        "-m": model, "-u": address, "-i": "http", "--shape": shape, "--concurrency-range": clients, "--sequence-length": length,
        "--measurement-interval": max(1, int(seconds * 1e3)), "-s": STABLE, "-r": WINDOWS,
    }  # fmt: skip
    env = os.environ if libraries is None else {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    command = [str(tool), "-v", *(str(word) for option in options.items() for word in option)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    said = read(done.stdout)
    if said is None:
        raise SystemExit(f"{tool.name} against {address} gave no figure:\n{(done.stdout + done.stderr)[-2000:]}")
    return said


def read(output: str) -> Said | None:
    """What it printed, with -v. Where its windows never agreed it sums up nothing; then the last of them stand for all."""
    found = [re.search(pattern, output) for pattern in (r"Throughput: ([\d.]+)", r"p50 latency: (\d+)", r"p99 latency: (\d+)")]
    if all(found):
        per_second, p50, p99 = (float(m[1]) for m in found if m)
        return Said(per_second, p50 * 1e-6, p99 * 1e-6)
    windows = [float(rate) for rate in re.findall(r"Pass \[\d+\] throughput: ([\d.]+)", output)][-AGREE:]
    return Said(mean(windows), nan, nan) if windows else None
