"""`indrnn reproduce TASK`: train with the published settings, measure on test data, print the row of docs/results.md.

A run that was cut goes on from its checkpoint; one that is done is measured no second time, so that the count of test evaluations is true.
"""

import re
from collections.abc import Callable
from pathlib import Path

from indrnn.model.commands import evaluate
from indrnn.model.training import checkpoint
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.task import Task

HEADER = "| task | figure | value | test evaluations | seed | steps | core-minutes | parameters | command |\n" + "|---" * 9 + "|"


def row(task: Task, meta: Meta, parameters: int) -> str:
    """Return one line of the table, of a network whose test figures are recorded."""
    f = next(f for f in meta.figures if f["name"] == task.headline)
    cells = [task.name, f["name"], f"{f['value']:.4g} {f['unit']}".strip(), f["test_evaluations"], meta.seed, meta.steps]
    command = re.sub(r" --out \S+", "", meta.command)  # a folder of somebody's machine
    return "| " + " | ".join(str(c) for c in [*cells, f"{meta.work:.1f}", f"{parameters:,}", f"`{command}`"]) + " |"


def run(task: Task, out: Path, train: Callable[[list[str]], None], progress: bool = True) -> list[str]:
    """Makes every published run of a task under out/ and prints its row. train: what `indrnn` does with those arguments."""
    rows = []
    for i, options in enumerate(task.published):
        folder = out / (task.name if len(task.published) == 1 else f"{task.name}-{i + 1}")
        going_on = ["--resume"] if (folder / "last.ckpt").exists() else []
        quiet = [] if progress else ["--no-progress"]
        train(["train", task.name, *options, "--out", str(folder), *going_on, *quiet])
        rows.append(_measured(task, folder / "model.pt"))
    print("\n".join([HEADER, *rows]))
    return rows


def _measured(task: Task, path: Path) -> str:
    net, meta = checkpoint.load_trained(path)
    if task.headline not in {f["name"] for f in meta.figures}:
        evaluate.run(path, "test", record=True)
        net, meta = checkpoint.load_trained(path)
    return row(task, meta, sum(p.numel() for p in net.parameters()))
