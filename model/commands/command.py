"""The commands that need PyTorch, but for export: train a network, measure, calibrate, inspect or import a checkpoint."""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

from lightning.pytorch.utilities import rank_zero_only

from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.commands import evaluate, import_published, inspect_adding, inspect_bundle, limits, plot, reproduce
from indrnn.model.data.clips import ClipFileError
from indrnn.model.data.series import SeriesFileError
from indrnn.model.data.sets import DataMissingError
from indrnn.model.data.splits import SplitError
from indrnn.model.data.texts.own_text import TextFileError
from indrnn.model.tasks.table import TASKS
from indrnn.model.training import calibration, training
from indrnn.model.training.checkpoint import CheckpointError, load_trained
from indrnn.model.training.learner import Recipe
from indrnn.model.training.task import Job, NothingHeldError, Task

REFUSALS = (
    CheckpointError,
    ClipFileError,
    DataMissingError,
    NothingHeldError,
    SeriesFileError,
    SplitError,
    plot.CurveError,
    inspect_bundle.ManifestError,
    import_published.PublishedError,
    training.RunError,
    SizeError,
    TextFileError,
)
NOT_OPTIONS = {"steps", "decay", "norm"}  # the first two are given to every task alike; a network without norm is what `fold` returns


def _fields(task: Task, cls: type) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(cls) if f.name not in NOT_OPTIONS | task.given]


def require_limits(tasks: Iterable[Task]) -> None:
    """Raises limits.UnlimitedError for the first option of these tasks that takes numbers without limits."""
    for task in tasks:
        limits.require(f"task {task.name}", [*_fields(task, task.config), *_fields(task, task.recipe)])


require_limits(TASKS.values())  # here and not in a test alone: a task that somebody adds is told so at once


def _said(cls: type, name: str) -> dict[str, Any]:
    """Return what a field's metadata say; where a subclass changes a default alone, those of the nearest base that says something."""
    bases = [base for base in cls.__mro__ if dataclasses.is_dataclass(base)]
    said = (dict(f.metadata) for base in bases for f in dataclasses.fields(base) if f.name == name and f.metadata)
    return next(said, {})


def _add_fields(parser: argparse.ArgumentParser, task: Task, cls: type) -> None:
    """Add an option for each field, in groups: what the network is, what it is fed, how it is trained."""
    shared = {f.name for f in dataclasses.fields(Recipe)}
    groups: dict[str, Any] = {}
    for f in _fields(task, cls):
        options: dict[str, Any] = {"help": f"see {cls.__name__}"} | _said(cls, f.name)
        if options.pop("positional", False):
            parser.add_argument(f.name, type=f.type, **options)
            continue
        title = "optimiser" if f.name in shared else "data" if issubclass(cls, Recipe) else "network"
        group = groups.setdefault(title, parser.add_argument_group(title))
        several = isinstance(f.default, tuple)
        one: Callable[[str], Any] = get_args(f.type)[0] if several else type(f.default)
        kind: dict[str, Any] = {"type": limits.reader(f.name, one)} | ({"nargs": "*"} if several else {})
        if isinstance(f.default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        group.add_argument("--" + f.name.replace("_", "-"), dest=f.name, default=f.default, **kind, **options)


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of one command."""
    if command == "train":
        _add_tasks(parser)
    elif command == "evaluate":
        parser.add_argument("checkpoint", type=Path)
        parser.add_argument("--split", choices=("val", "test"), default="val")
        parser.add_argument("--record", action="store_true", help="write the figures into the checkpoint")
        parser.add_argument("--json", action="store_true", help="print JSON, with how each figure was measured")
    elif command == "calibrate":
        parser.add_argument("checkpoint", type=Path, help="of an action network")
        parser.add_argument(
            "--by", type=Path, nargs="+", default=[], help="networks of the same recipe with held-out clips; default: itself"
        )
    elif command == "inspect":
        parser.add_argument("bundle", type=Path, help="bundles/<name>/<version>, or a checkpoint; of the task adding more is told")
        parser.add_argument("--out", type=Path, help="folder of the pictures; default: none are made")
        parser.add_argument("--json", action="store_true", help="print JSON, with every neuron's memory and each layer's histogram")
        parser.add_argument(
            "--length",
            type=limits.within(int, 2),
            default=inspect_adding.LENGTH,
            help="adding: steps that one neuron is read out after (%(default)s)",
        )
    elif command == "reproduce":
        parser.add_argument("task", choices=list(TASKS))
        parser.add_argument(
            "--out", type=Path, default=Path("runs/reproduce"), help="folder of the runs; what is there already is gone on with"
        )
        parser.add_argument("--no-progress", action="store_true", help="draw no progress bar")
    else:
        {"plot": plot, "import": import_published}[command].add_arguments(parser)


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults as they would be typed, and none that is empty."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in ((), ""):
            return action.help
        if isinstance(action.default, tuple):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK", title="tasks")
    for name, task in TASKS.items():
        file = " mine.npz" if any(_said(task.recipe, f.name).get("positional") for f in _fields(task, task.recipe)) else ""
        p = tasks.add_parser(
            name,
            help=task.summary,
            description=task.summary[0].upper() + task.summary[1:] + ".",
            epilog=f"Example: indrnn train {name}{file} --seed 2 --out runs/{name}-2",
            formatter_class=_Defaults,
        )
        everyday, expert = p.add_argument_group("everyday"), p.add_argument_group("expert")
        everyday.add_argument("--seed", type=limits.reader("seed", int), default=1, help="decides the weights, the batches and the dropout")
        everyday.add_argument("--steps", type=limits.reader("steps", int), default=task.steps, help="of the optimiser, in all")
        everyday.add_argument(
            "--max-time",
            type=limits.reader("max_time", float),
            help="stop after so many minutes of work (CPU time per thread); go on with --resume",
        )
        everyday.add_argument("--resume", action="store_true", help="go on from OUT/last.ckpt")
        everyday.add_argument("--out", type=Path, default=Path("runs") / name, help="folder of model.pt, last.ckpt, log.txt and curves/")
        everyday.add_argument("--no-progress", action="store_true", help="draw no progress bar")
        expert.add_argument(
            "--decay",
            type=limits.reader("decay", int),
            default=task.decay,
            help="last steps, over which the rate falls to 0; where --steps are fewer it never has its height: give both",
        )
        expert.add_argument(
            "--validate-every", type=limits.reader("validate_every", int), default=1, help="epochs between looks at validation data"
        )
        expert.add_argument(
            "--accelerator", choices=("cpu", "gpu", "auto"), default="cpu", help="what computes, as Lightning's Trainer names it"
        )
        expert.add_argument(
            "--devices",
            type=limits.reader("devices", int),
            default=1,
            help="processes, each with a device and batches of --rows of its own",
        )
        expert.add_argument("--strategy", default="auto", help="Lightning's, how processes work together: ddp where there are several")
        _add_fields(p, task, task.config)
        _add_fields(p, task, task.recipe)


def run_training(args: argparse.Namespace, argv: list[str]) -> Path:
    """`train`: begins or resumes the run that args say, and returns its checkpoint's path."""
    task = TASKS[args.task]

    def picked(cls: type) -> dict[str, Any]:
        values = {f.name: getattr(args, f.name) for f in _fields(task, cls)}
        return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}

    same = ("seed", "out", "steps", "decay", "resume", "max_time", "validate_every", "accelerator", "devices", "strategy")
    job = Job(
        **{name: getattr(args, name) for name in same},
        command=_command(args, argv),
        progress=not args.no_progress,
    )
    training.check_folder(job)
    learner, meta = task.begin(job, picked(task.config), task.recipe(steps=job.steps, decay=job.decay, **picked(task.recipe)))
    meta = dataclasses.replace(meta, task=task.name)
    training.check_same(job, learner, meta)
    return training.run(job, learner, meta)


def _command(args: argparse.Namespace, argv: list[str]) -> str:
    """Return the commands that make these weights again.

    They are this command, after those that made what it goes on from, unless it only goes on with the same.
    """
    this = "indrnn " + shlex.join(a for a in argv if a not in ("--resume", "--no-progress"))
    if not args.resume or not (args.out / "model.pt").is_file():
        return this
    before = load_trained(args.out / "model.pt")[1].command
    last = before.split(" && ")[-1].removesuffix(" --resume").replace("python -m model ", "indrnn ", 1)  # as 0.1.0 wrote it
    return before if last == this else f"{before} && {this} --resume"


def _reproduce(args: argparse.Namespace) -> None:
    def trained(argv: list[str]) -> None:
        parser = argparse.ArgumentParser(prog="indrnn train")
        _add_tasks(parser)
        run_training(parser.parse_args(argv[1:]), argv)

    reproduce.run(TASKS[args.task], args.out, trained, progress=not args.no_progress)


def run(command: str, args: argparse.Namespace, argv: list[str]) -> int:
    """Runs one command; 0 when it did what was asked, 1 with a line that says why not."""
    try:
        if command == "train":
            rank_zero_only(print)(run_training(args, argv))
        elif command == "evaluate":
            evaluate.run(args.checkpoint, args.split, args.record, args.json)
        elif command == "plot":
            print(plot.plot(args))
        elif command == "import":
            import_published.run(args, "indrnn " + shlex.join(argv))
        elif command == "calibrate":
            calibration.run(args.checkpoint, args.by)
        elif command == "inspect":
            inspect_bundle.run(args.bundle, args.out, args.json, args.length)
        else:
            _reproduce(args)
    except REFUSALS as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None:  # no file or folder that was named
            raise
        print(f"{error.filename}: {_why(error)}", file=sys.stderr)
        return 1
    return 0


def _why(error: OSError) -> str:
    """Return why a file or a folder cannot be written or read."""
    return "expected a folder, got a file" if isinstance(error, FileExistsError | NotADirectoryError) else str(error.strerror)
