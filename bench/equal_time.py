"""What does each cell learn in equal time? Networks trained on the adding problem, on permuted MNIST of 14 x 14 and on copying.

python bench/equal_time.py [--table cells|leaky|subsampled|copying] [--budget MINUTES] [--seeds 1 2 3] [--only NETWORK ...]
                           [--tasks TASK ...] [--file JSON] [--page]

A run trains as `indrnn train` does (AdamW, batches of 32, the gradient's norm at most 1, the mean of the weights measured) for `budget`
minutes of the process's own time on one thread, or until the validation figure is as low as PROBLEMS says; measuring does not count. The
rate of learning is one of RATES: for each network and task each is tried for a tenth of the budget on seed 0, the least validation figure
wins. Rates never fall. Test data is looked at once, when a run is over.

Runs go to docs/equal-time.json or another file, a line each, and one that is there is not made again, so that an interrupted table goes
on; the first seed of all networks comes before the second of any. --page writes the tables of docs/cells.md from that file, and trains
nothing. The last line is JSON.
"""

import argparse
import copy
import json
import math
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from statistics import median, median_high
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from bench.runs import Row, once, read
from indrnn.kernels.activations import ACTIVATIONS
from indrnn.model.cells.table import CELLS
from indrnn.model.data import mnist
from indrnn.model.nets.adding import AddingConfig
from indrnn.model.nets.pixels import PixelsConfig
from indrnn.model.tasks import adding as adding_task
from indrnn.model.tasks import mnist as mnist_task
from indrnn.model.tasks.drawn import copying as copying_task
from indrnn.model.training.learner import Learner
from indrnn.model.training.lightning_messages import quiet
from indrnn.model.training.training import keep_memory, no_denormals

ROOT = Path(__file__).parent.parent
FILE, PAGE = ROOT / "docs" / "equal-time.json", ROOT / "docs" / "cells.md"
RATES = (0.0003, 0.001, 0.003)
LEAKY = next(name for name in ACTIVATIONS if name.startswith("leaky"))
SEARCH = 0.1  # of the budget, for each rate
LOOKS = 6  # at validation data in a run, after 1/36, 4/36, 9/36 ... of its budget
SHARED: dict[str, Any] = {"steps": 10**9, "decay": 1, "warmup": 50, "average": 30, "epoch": 100, "precision": "32-true", "rows": 32}
Network = dict[str, Any]
NETWORKS: dict[str, Network] = {name: {"cell": name} for name in CELLS} | {
    "indrnn, leaky relu": {"cell": "indrnn", "nonlinearity": LEAKY},
    "indrnn, subsampled": {"cell": "indrnn", "kind": "subsampled", "window": 4},
}


@dataclass(frozen=True)
class Problem:
    """A task at one length: its learner, of (network, rate, seed), and the test figures of one that has learned; what counts as solved."""

    learner: Callable[[Network, float, int], Learner[Any, Any]]
    test: Callable[[Learner[Any, Any]], dict[str, float]]
    solved: float
    unit: str


def _adding(network: Network, rate: float, seed: int) -> Learner[Any, Any]:
    return adding_task.AddingLearner(AddingConfig(length=200, **network), adding_task.AddingRecipe(rate=rate, **SHARED), seed)


def _pmnist(network: Network, rate: float, seed: int) -> Learner[Any, Any]:
    config, recipe = PixelsConfig(steps=196, pool=2, layers=2, **network), mnist_task.PixelsRecipe(rate=rate, settling=20, **SHARED)
    return mnist_task.PixelsLearner(config, recipe, _images("train"), _images("val"), seed)


def _wrong(learner: Learner[Any, Any]) -> dict[str, float]:
    return {"test": mnist_task.PixelsLearner.error(learner.folded(), *_images("test"))}


def _copying(network: Network, rate: float, seed: int, length: int) -> Learner[Any, Any]:
    config = copying_task.CopyingConfig(length=length, **{"layers": 2 if network["cell"] == "indrnn" else 1} | network)
    return copying_task.CopyingLearner(config, copying_task.CopyingRecipe(rate=rate, **SHARED), seed)


def _copied(learner: Learner[Any, Any]) -> dict[str, float]:
    nats, wrong = copying_task.measured(learner.folded(), "test")
    return {"test": nats, "test wrong": wrong}


@cache
def _images(part: str) -> mnist_task.Images:
    return mnist.read(part, permuted=True, pool=2)


PROBLEMS = {
    "adding-200": Problem(_adding, lambda learner: {"test": adding_task.squared_error(learner.folded(), "test")}, 1e-3, "squared error"),
    "pmnist-196": Problem(_pmnist, _wrong, 0.0, "% wrong"),
    **{f"copying-{n}": Problem(partial(_copying, length=n), _copied, 1e-3, "nats a step") for n in (200, 500)},
}
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cells": (tuple(CELLS), ("adding-200", "pmnist-196")),
    "leaky": (("indrnn", "indrnn, leaky relu"), ("adding-200", "pmnist-196")),
    "subsampled": (("indrnn", "indrnn, subsampled"), ("adding-200", "pmnist-196")),
    "copying": (("urnn", "lstm", "goru", "indrnn"), ("copying-200", "copying-500")),
}


RACES, RACE = ("leaky", "subsampled"), "seconds to what both reach"  # the tables of two networks


class Watch(Callback):
    """Measures validation data at LOOKS places of a budget in seconds of work, and ends the run; what measuring takes does not count.

    Lightning makes one step more before it ends: `last` is the mean of the weights as it was measured last.
    """

    last: torch.nn.Module

    def __init__(self, seconds: float, looks: int, solved: float) -> None:
        self.due = [seconds * ((k + 1) / looks) ** 2 for k in range(looks)]
        self.solved, self.paused, self.curve = solved, 0.0, list[tuple[float, int, float]]()

    def on_train_start(self, *_: Any) -> None:
        self.begun = time.process_time()

    def on_train_batch_start(self, trainer: lightning.Trainer, learner: Any, *_: Any) -> None:  # type: ignore[override]  # Lightning's hook
        now = time.process_time()
        spent = now - self.begun - self.paused
        if trainer.should_stop or spent < self.due[0]:
            return
        learner.settle()
        (figure,) = learner.validate().values()
        self.last = copy.deepcopy(learner.averaged)
        self.curve.append((round(spent, 2), trainer.global_step, figure if math.isfinite(figure) else math.inf))
        self.due = [d for d in self.due if d > spent]
        self.paused += time.process_time() - now
        trainer.should_stop = not self.due or figure <= self.solved or not math.isfinite(figure)


def train(task: str, network: str, seed: int, rate: float, seconds: float, looks: int) -> tuple[Learner[Any, Any], Watch]:
    """Train one network as the module says; what is measured of it later is what its last look measured."""
    problem = PROBLEMS[task]
    torch.manual_seed(seed)
    learner, watch = problem.learner(NETWORKS[network], rate, seed), Watch(seconds, looks, problem.solved)
    with quiet(), no_denormals():
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_steps=-1,
            max_epochs=-1,
            gradient_clip_val=1.0,
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(learner)
    learner.averaged = watch.last
    return learner, watch


def search(task: str, network: str, budget: float) -> Row:
    """Return the row of a search: the validation figure of each rate, infinite where training diverged."""
    found = {}
    for rate in RATES:
        _, watch = train(task, network, 0, rate, 60 * SEARCH * budget, 1)
        found[f"{rate:g}"] = _short(watch.curve[-1][2])
    return {"search": found}


def run(task: str, network: str, seed: int, budget: float, rate: float) -> Row:
    """Return the row of a run."""
    learner, watch = train(task, network, seed, rate, 60 * budget, LOOKS)
    seconds, steps, figure = watch.curve[-1]
    row: Row = {"rate": rate, "seconds": seconds, "steps": steps, "validation": _short(figure)}
    row |= {name: _short(f) for name, f in PROBLEMS[task].test(learner).items()}
    row["curve"] = [(s, n, _short(f)) for s, n, f in watch.curve]
    unitary = [_away(m) for m in learner.net.modules() for m in _unitary(m)]
    return row | ({"from unitary": max(unitary)} if unitary else {})


def _unitary(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    for name in ("unitary", "orthogonal"):
        if hasattr(module, name):
            yield getattr(module, name)().detach()


def _away(w: torch.Tensor) -> float:
    """Return the largest number of |W W* - 1|."""
    return float(f"{(w @ w.conj().T - torch.eye(len(w))).abs().max():.1e}")


def _short(figure: float) -> float | None:
    return float(f"{figure:.4g}") if math.isfinite(figure) else None


def fill(file: Path, tables: Sequence[str], budget: float, seeds: Sequence[int], only: Sequence[str], of: Sequence[str]) -> None:
    """Make the runs that are not kept yet, one after another."""
    for seed in seeds:
        for table in tables:
            networks, tasks = TABLES[table]
            for network in networks:
                for task in tasks:
                    if network in (only or networks) and task in of:
                        _once(file, task, network, seed, budget)


def _once(file: Path, task: str, network: str, seed: int, budget: float) -> None:
    for wanted in (0, seed):  # 0: the search
        key = {"task": task, "network": network, "seed": wanted, "budget": budget}
        once(file, key, partial(_made, file, key))


def _made(file: Path, key: Row) -> Row:
    task, network, seed, budget = key.values()
    row = run(task, network, seed, budget, chosen(read(file), task, network, budget)) if seed else search(task, network, budget)
    print(json.dumps(key | row), flush=True)
    return row | {"torch": torch.__version__, "date": datetime.now(UTC).date().isoformat()}


def chosen(rows: Sequence[Row], task: str, network: str, budget: float) -> float:
    """Return the rate of the least validation figure; the middle one where all diverged."""
    key = {"task": task, "network": network, "seed": 0, "budget": budget}
    (found,) = [row["search"] for row in rows if row.items() >= key.items()]
    figures = {float(rate): figure for rate, figure in found.items() if figure is not None}
    return min(figures, key=figures.__getitem__) if figures else RATES[1]


def runs(rows: Sequence[Row], network: str, task: str) -> list[Row]:
    """Return the runs of the largest budget that a network has for a task."""
    found = [r for r in rows if (r["network"], r["task"]) == (network, task) and r["seed"]]
    return [r for r in found if r["budget"] == max(f["budget"] for f in found)]


def cells_table(rows: Sequence[Row]) -> str:
    """Return a row for each cell, and for each of the two tasks: budget, steps, validation and test figure, medians of the seeds."""
    networks, tasks = TABLES["cells"]
    head = "".join(f" {task}: minutes × seeds | steps | {PROBLEMS[task].unit} | of test |" for task in tasks)
    lines = [f"| cell |{head}", "|---|" + "---|" * 4 * len(tasks)]
    lines += [f"| `{network}` |" + "".join(_four(runs(rows, network, task)) for task in tasks) for network in networks]
    return "\n".join(lines)


def _four(found: Sequence[Row]) -> str:
    if not found:
        return " not yet | | | |"
    return f" {_budget(found)} | {_middle(found, 'steps'):,.0f} | {_spread(found)} | {_said(_middle(found, 'test'))} |"


def table(rows: Sequence[Row], name: str) -> str:
    """Return a row for each network and task of a table, and what its runs have beside the common figures."""
    networks, tasks = TABLES[name]
    every = {(task, network): runs(rows, network, task) for task in tasks for network in networks}
    level = {task: max(PROBLEMS[task].solved, _level([every[task, n] for n in networks])) for task in tasks}
    more = [key for key in ("test wrong", "from unitary") if any(key in r for found in every.values() for r in found)]
    race = [RACE] if name in RACES else []
    head = ["task", "network", "rate", "minutes × seeds", "steps", "seconds until it ended", "of validation", "of test", *more, *race]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for (task, network), found in every.items():
        cells = [task, network, "not yet", *[""] * (len(head) - 3)]
        if found:
            numbers = f"{_middle(found, 'steps'):,.0f}", f"{_middle(found, 'seconds'):.0f}", _spread(found), _said(_middle(found, "test"))
            beside = [_said(_middle(found, key)) if key in found[0] else "" for key in more]
            first = [_reached(found, level[task])] if race else []
            cells = [task, network, f"{found[0]['rate']:g}", _budget(found), *numbers, *beside, *first]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _level(networks: Sequence[Sequence[Row]]) -> float:
    """Return the validation figure that half of the seeds of each network reach."""
    every = [[math.inf if r["validation"] is None else r["validation"] for r in found] for found in networks if found]
    return max(map(median_high, every), default=math.inf)


def _reached(found: Sequence[Row], level: float) -> str:
    """Return how many seconds went by until a look found that figure, by the median of the seeds."""
    times = [next((s for s, _, f in r["curve"] if f is not None and f <= level), math.inf) for r in found]
    return f"{median(times):.0f}" if math.isfinite(median(times)) else "∞"


def _budget(found: Sequence[Row]) -> str:
    return f"{found[0]['budget']:g} × {len(found)}"


def _middle(found: Sequence[Row], name: str) -> float:
    return median(math.inf if r[name] is None else r[name] for r in found)


def _spread(found: Sequence[Row]) -> str:
    figures = sorted(math.inf if r["validation"] is None else r["validation"] for r in found)
    ends = f" ({_said(figures[0])} to {_said(figures[-1])})" if len(figures) > 1 else ""
    return _said(median(figures)) + ends


def _said(figure: float) -> str:
    return (
        "∞" if not math.isfinite(figure) else f"{figure:.1f}" if figure >= 1.5 else f"{figure:.3f}" if figure >= 0.01 else f"{figure:.2g}"
    )


def page(text: str, rows: Sequence[Row]) -> str:
    """Return the page with its tables made anew: each stands right behind a line `<!-- equal time: NAME -->`."""
    for name in TABLES:
        made = cells_table(rows) if name == "cells" else table(rows, name)
        mark = f"<!-- equal time: {name} -->\n"
        if mark in text:
            before, after = text.split(mark)
            text = before + mark + made + "\n" + re.sub(r"\A(\|.*\n)*", "", after)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--budget", type=float, default=10, help="minutes of a core for each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=[], metavar="NETWORK")
    parser.add_argument("--tasks", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), metavar="TASK")
    parser.add_argument("--file", type=Path, default=FILE, help="where runs are kept (%(default)s)")
    parser.add_argument("--page", action="store_true", help="write the tables of docs/cells.md from the runs that are kept")
    args = parser.parse_args()
    if args.page:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), read(args.file)), encoding="utf-8")
    else:
        keep_memory()
        torch.set_num_threads(1)
        fill(args.file, args.table, args.budget, args.seeds, args.only, args.tasks)
    print(json.dumps({"runs": len(read(args.file)), "machine": platform.machine(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
