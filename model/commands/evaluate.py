"""`indrnn evaluate CHECKPOINT`: the figures of a checkpoint, and, in the checkpoint, how often test data was looked at."""

import dataclasses
import json
import sys
from pathlib import Path

from indrnn.model.commands import detection_curves
from indrnn.model.tasks.table import TASKS
from indrnn.model.training import checkpoint
from indrnn.model.training.task import Figures


def run(
    path: Path, split: str, record: bool, as_json: bool = False, curves: Path | None = None, data: Path | None = None, quiet: bool = False
) -> Figures:
    """Prints the figures as a table or as JSON; `record` keeps them in the checkpoint, adding to its count of test evaluations.

    curves: a folder for the figures over the threshold, of a network that has one. data: another file in place of the task's own, of the
    same form and split. quiet: nothing is printed. Raises CheckpointError, also for a network that was imported.
    """
    net, meta = checkpoint.load(path)
    if meta.task not in TASKS:
        raise checkpoint.CheckpointError(
            f"{path}: expected a network of a task, got one of {meta.task!r}: there is no data to measure it on"
        )
    if data is not None:
        if "file" not in meta.clips:
            raise checkpoint.CheckpointError(
                f"{path}: expected a network that learned from a file, to measure it on another, got {meta.task}"
            )
        meta = dataclasses.replace(meta, clips=meta.clips | {"file": str(data)})
    task = TASKS[meta.task]
    if curves is not None and task.curves is None:
        raise checkpoint.CheckpointError(f"{path}: expected a network with a threshold to draw curves over, got one of {meta.task}")
    figures = task.figures(net, meta, split)
    if curves is not None and task.curves is not None:
        points, own = task.curves(net, meta, split)
        print(*detection_curves.write(curves, split, points, own), file=sys.stderr)
    before = {f["name"]: f for f in meta.figures}
    if split == "test":
        figures = tuple(f | {"test_evaluations": before.get(f["name"], f)["test_evaluations"] + 1} for f in figures)
    if record:
        trained, _ = checkpoint.load_trained(path)
        kept = before | {f["name"]: f for f in figures}
        checkpoint.save(path, trained, dataclasses.replace(meta, parts=(), parameters=0, figures=tuple(kept.values())))
    if not quiet:
        print(json.dumps(figures) if as_json else table(figures))
    return figures


def table(figures: Figures) -> str:
    """Return a line for each figure, for people; how each was measured is in the JSON."""
    width = max(len(f["name"]) for f in figures)
    lines = [f"{f['name']:{width}} {f['value']:10.4g} {f['unit']}".rstrip() for f in figures]
    looks = max(f["test_evaluations"] for f in figures)
    return "\n".join([*lines, f"test evaluation {looks} of these weights"] if looks else lines)
