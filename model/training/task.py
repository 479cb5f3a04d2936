"""What a task is: a network's sizes, a recipe, data and measures under one name.

Each task is one file, and one line in model/tasks/table.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indrnn.model.nets.network import StateNet
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.learner import Learner, Recipe

Figures = tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Job:
    """One training to be done: what to train and where to put it.

    out: a folder; resume goes on from its last.ckpt; max_time, max_wall_time: minutes of work, or by the clock, then it stops.

    accelerator, devices, strategy: as Lightning's Trainer takes them; each of several processes draws batches of its own.
    """

    seed: int
    out: Path
    command: str
    steps: int
    decay: int
    resume: bool = False
    max_time: float | None = None
    max_wall_time: float | None = None
    validate_every: int = 10
    progress: bool = True
    accelerator: str = "cpu"
    devices: int = 1
    strategy: str = "auto"


@dataclass(frozen=True)
class Task:
    """The task NAME, as `indrnn train | evaluate | reproduce NAME` does it.

    config, recipe: dataclasses whose fields are options of `train`; a field's metadata goes to add_argument (help, choices), and
    `positional` makes it one. Fields named in `given` come from elsewhere, such as the number of classes from the data.
    begin: (job, values of config's fields but the given ones, recipe) -> the learner and all that its checkpoint will say.
    figures: (network, its description, "val" or "test") -> figures. headline: the test figure that `reproduce` puts in its row.
    curves: the same, but -> figures over a threshold, and the network's own; None: it has no threshold. summary: a line of `train --help`.
    folds: (the arguments of `train`) -> what `--test fold=each/…` stands for, of a task on a file that is split.
    steps, decay: defaults of `train`. published: options of `train` for each run of `reproduce`.
    """

    name: str
    config: type
    recipe: type[Recipe]
    begin: Callable[[Job, dict[str, Any], Any], tuple[Learner[Any, Any], Meta]]
    figures: Callable[[StateNet, Meta, str], Figures]
    headline: str
    summary: str
    steps: int
    decay: int
    published: tuple[tuple[str, ...], ...] = ((),)
    given: frozenset[str] = frozenset({"classes"})
    curves: Callable[[StateNet, Meta, str], tuple[Sequence[Any], float]] | None = None
    folds: Callable[[Any], list[str]] | None = None


class NothingHeldError(Exception):
    """A network has no validation data of its own."""


def figure(name: str, value: float, unit: str, protocol: str) -> dict[str, Any]:
    """Return one measured figure as checkpoints and manifests list it; `evaluate` counts the test evaluations."""
    return {"name": name, "value": round(value, 5), "unit": unit, "protocol": protocol, "test_evaluations": 0}
