"""The survey's ways of training on one problem: which error after how much work and memory, and what ways to a gradient cost.

python bench/training_methods.py [--only error|clipping|truncation|gradients] [--seconds 20] [--seeds 1 2 3] [--methods NAME ...]
                                  [--log FILE] [--out FOLDER]

error      the adding problem of 50 steps, two layers of 16 relu IndRNN neurons, 369 weights (bench/methods/problem.py), for every method
           in bench/methods: squared error on 1,000 held sequences after 1, 2, 5, 10 and so on seconds of the process's own time, one
           thread; measuring does not count. The memory is what the process took on top of what it had before the first step. Ceiling:
           the answer 1 has 0.167. The global optimisers search a network of two neurons a layer, 19 weights, beside the random search.
clipping   the same with momentum at a rate that is too high and at its own, the gradient clipped by norm, by value and not.
truncation the same with Adam, the gradient truncated to so many steps: in that problem, in one whose marks lie in the first half of the
           steps, and in one whose network starts with a memory of a few steps.
gradients  processor time and memory of each way to one gradient (bench/methods/gradients.py), by N at T = 50 and by T at N = 16, and how
           far it is from backpropagation through time.
Each run is a process of its own, one after another. --log keeps runs, a line of JSON each, and those that are there are not made again.
--out writes training-error.svg and training-cost.svg. SciPy is needed for the global optimisers alone; without it they are left out, with
a word. The last line is JSON.
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from methods import (
    descent,
    expectation_maximisation,
    global_search,
    gradients,
    hessian_free,
    kalman,
    levenberg_marquardt,
    pseudo_newton,
    random_search,
)
from methods.problem import Problem
from torch import Tensor

from indrnn.model.training.optimisation.optimisers import OPTIMISERS

SECONDS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
SCIPY = {
    "differential evolution, 19 weights": "differential_evolution",
    "dual annealing, 19 weights": "dual_annealing",
}
Method = Callable[[Problem, Tensor, Callable[[Tensor], None]], None]
METHODS: dict[str, tuple[Method, int]] = {
    **{name: (partial(descent.train, optimiser=name), 16) for name in OPTIMISERS},
    "multi-grid random search": (random_search.train, 16),
    "multi-grid random search, 19 weights": (random_search.train, 2),
    "time-weighted pseudo-Newton": (pseudo_newton.train, 16),
    "extended Kalman filter": (kalman.train, 16),
    "Hessian-free": (hessian_free.train, 16),
    "expectation maximisation": (expectation_maximisation.train, 16),
    "Levenberg-Marquardt by blocks": (levenberg_marquardt.train, 16),
    **{name: (partial(global_search.train, name=own), global_search.HIDDEN) for name, own in SCIPY.items()},
}
CLIPPING: dict[str, tuple[Method, int]] = {
    f"momentum, rate {rate:g}, {how}": (partial(descent.train, optimiser="momentum", rate=rate, **clip), 16)
    for rate in (0.005, 0.05)
    for how, clip in {
        "not clipped": {"clip_norm": 0.0},
        "norm 1": {"clip_norm": 1.0},
        "value 0.1": {"clip_norm": 0.0, "clip_value": 0.1},
    }.items()
}
PROBLEMS: dict[str, dict[str, bool]] = {"marks in the first half": {"early": True}, "u2 starts below 0.5": {"forgets": True}}
TRUNCATION: dict[str, tuple[Method, int]] = {
    f"adam, {f'truncated to {steps} steps' if steps else 'all 50 steps'}{of}": (
        partial(descent.train, optimiser="adam", horizon=steps),
        16,
    )
    for of, horizons in {"": (5, 12, 25, 0), **{f"; {name}": (5, 25, 0) for name in PROBLEMS}}.items()
    for steps in horizons
}
SIZES, LENGTHS, N, T = (8, 16, 32, 64), (25, 50, 100, 200, 400), 16, 50


class OverError(Exception):
    """The time is up."""


class Report:
    """Notes the error at each of SECONDS of processor time, and ends a run; what it takes itself does not count."""

    def __init__(self, problem: Problem, seconds: float) -> None:
        self.problem, self.seconds, self.updates, self.paused = problem, seconds, 0, 0.0
        self.curve: list[tuple[float, float]] = []
        self.due = [s for s in SECONDS if s < seconds] + [seconds]
        self.begun = time.process_time()

    def __call__(self, theta: Tensor) -> None:
        self.updates += 1
        now = time.process_time()
        if now - self.begun - self.paused < self.due[0]:
            return
        self.curve.append((self.due.pop(0), self.problem.error(theta)))
        self.paused += time.process_time() - now
        if not self.due:
            raise OverError


def resident(which: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at the most."""
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(which)]
    return int(line.split()[1]) / 1024


def one(name: str, seed: int, seconds: float) -> dict[str, Any]:
    """A run of one method in this process."""
    torch.set_num_threads(1)
    train, hidden = (METHODS | CLIPPING | TRUNCATION)[name]
    ended = ""
    problem = Problem(H=hidden, seed=seed, **PROBLEMS.get(name.rpartition("; ")[2], {}))
    problem.error(problem.start())
    before = resident("VmRSS")
    report = Report(problem, seconds)
    try:
        train(problem, problem.start(), report)
    except (OverError, torch.linalg.LinAlgError) as error:  # a matrix that cannot be solved is where a method ends
        ended = "" if isinstance(error, OverError) else str(error)
    return {"curve": report.curve, "updates": report.updates, "mib": resident("VmHWM") - before, "weights": problem.P, "ended": ended}


def made(name: str, seed: int, seconds: float) -> dict[str, Any]:
    """`one` in a process of its own, a fork of this one: what is imported is not work of the method's."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(one, (name, seed, seconds))


def every(methods: list[str], seeds: list[int], seconds: float, log: Path | None) -> dict[str, list[dict[str, Any]]]:
    """The runs of each method, by seed: those of the log, and those that it lacks."""
    known = {} if log is None or not log.is_file() else {tuple(key): run for key, run in map(json.loads, log.read_text().splitlines())}
    for seed in seeds:
        for name in methods:
            if (name, seed, seconds) in known:
                continue
            known[name, seed, seconds] = run = made(name, seed, seconds)
            print(f"  {name}, seed {seed}: {run['curve'][-1:]}", file=sys.stderr, flush=True)
            if log is not None:
                with log.open("a") as file:
                    file.write(json.dumps([[name, seed, seconds], run]) + "\n")
    return {name: [known[name, seed, seconds] for seed in seeds] for name in methods}


def error_table(methods: dict[str, tuple[Method, int]], seeds: list[int], seconds: float, log: Path | None) -> dict[str, Any]:
    """Run and print a row for each method: the median over the seeds, and the least and the most at the end."""
    at = [s for s in SECONDS if s < seconds] + [seconds]
    there = [name for name in methods if name not in SCIPY or find_spec("scipy") is not None]
    found = every(there, seeds, seconds, log)
    print(f"\n{'squared error after':<42}" + "".join(f"{f'{s:g} s':>9}" for s in at) + f"{'least':>9}{'most':>9}{'updates':>9}{'MiB':>7}")
    rows: dict[str, Any] = {}
    for name, runs in found.items():
        curves = [dict(run["curve"]) for run in runs]
        middle = [median(_or_inf(c.get(s)) for c in curves) for s in at]
        last = sorted(_or_inf(c.get(seconds)) for c in curves)
        updates, mib = median(r["updates"] for r in runs), median(r["mib"] for r in runs)
        print(
            f"  {name:<40}" + "".join(f"{_short(e):>9}" for e in (*middle, last[0], last[-1])) + f"{updates:>9.0f}{mib:>7.1f}", flush=True
        )
        rows[name] = {"seconds": at, "median": middle, "last": last, "updates": updates, "mib": mib, "weights": runs[0]["weights"]}
    for name in methods:
        if name not in there:
            print(f"  {name:<40}left out: SciPy is not installed")
    return rows


def _or_inf(error: float | None) -> float:
    return float("inf") if error is None or not np.isfinite(error) else error


def _short(error: float) -> str:
    return "∞" if error > 1e3 else f"{error:.4f}" if error >= 1e-3 else f"{error:.0e}"


def cost(way: str, N: int, T: int, least_seconds: float = 0.2) -> dict[str, float]:
    """Milliseconds of processor time, MiB of arrays and relative error of one gradient."""
    w, x, g = gradients.drawn(way, N, T)
    run = gradients.WAYS[way]
    want = gradients.WAYS["IndRNN: backpropagation through time" if way.startswith("IndRNN") else "backpropagation through time"](w, x, g)
    tracemalloc.start()
    got = run(w, x, g)
    mib = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    best, end = float("inf"), time.process_time() + least_seconds
    while time.process_time() < end or best == float("inf"):
        begun = time.process_time()
        run(w, x, g)
        best = min(best, time.process_time() - begun)
    off = float(np.abs(got - want).max() / np.abs(want).max())
    return {"N": N, "T": T, "ms": 1e3 * best, "mib": mib, "off": off}


def gradient_tables() -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for title, sizes in (("N", [(n, T) for n in SIZES]), ("T", [(N, t) for t in LENGTHS])):
        head = "".join(f"{title} = {n if title == 'N' else t}".rjust(22) for n, t in sizes)
        print(f"\nms, MiB and error of one gradient, {'T = 50' if title == 'N' else 'N = 16'}\n{'':<38}{head}")
        for way in gradients.WAYS:
            found = [cost(way, n, t) for n, t in sizes]
            print(f"  {way:<36}" + "".join(f"{f['ms']:>8.2f}{f['mib']:>7.2f}{f['off']:>7.0e}" for f in found), flush=True)
            rows.setdefault(way, {})[title] = found
    return rows


def draw(result: dict[str, Any], out: Path) -> None:
    """training-error.svg: error against processor time; training-cost.svg: time against N and T."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 8, "svg.hashsalt": "indrnn"})
    styles = ["-", "--", ":", "-."]
    if "error" in result:
        figure, axis = pyplot.subplots(figsize=(7, 4))
        for i, (name, row) in enumerate(result["error"].items()):
            axis.loglog(row["seconds"], np.minimum(row["median"], 1), styles[i // 10], marker=".", label=name)
        axis.axhline(1 / 6, color="grey", lw=0.5)
        axis.set(xlabel="processor time, s", ylabel="squared error")
        axis.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(out / "training-error.svg", bbox_inches="tight", metadata={"Date": None})
    if "gradients" in result:
        figure, axes = pyplot.subplots(1, 2, figsize=(8, 3))
        for i, (way, by) in enumerate(result["gradients"].items()):
            for axis, key in zip(axes, ("N", "T"), strict=True):
                axis.loglog([f[key] for f in by[key]], [f["ms"] for f in by[key]], styles[i // 6], marker=".", label=way)
                axis.set(xlabel=key, ylabel="ms of one gradient")
        axes[1].legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(out / "training-cost.svg", bbox_inches="tight", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("error", "clipping", "truncation", "gradients"))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--out", type=Path, help="folder of the pictures")
    parser.add_argument("--log", type=Path, help="file of the runs")
    args = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, one thread, PyTorch {torch.__version__}, NumPy {np.__version__}, seeds {args.seeds}"
    )
    result: dict[str, Any] = {"seeds": args.seeds}
    if args.only in (None, "error"):
        result["error"] = error_table({name: METHODS[name] for name in args.methods}, args.seeds, args.seconds, args.log)
    if args.only in (None, "clipping"):
        result["clipping"] = error_table(CLIPPING, args.seeds, args.seconds, args.log)
    if args.only in (None, "truncation"):
        result["truncation"] = error_table(TRUNCATION, args.seeds, args.seconds, args.log)
    if args.only in (None, "gradients"):
        result["gradients"] = gradient_tables()
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        draw(result, args.out)
    print(json.dumps({"training_methods": result}))


if __name__ == "__main__":
    main()
