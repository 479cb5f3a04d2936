"""The command line: train a network, measure a checkpoint, or make a published result again."""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from model import calibrate, curves, evaluate, inspect_adding, inspect_bundle, limits, published, reproduce, train
from model.checkpoint import CheckpointError, load_trained
from model.data import DataMissingError
from model.recurrent_weight import SizeError
from model.skeletons import ClipFileError
from model.splits import SplitError
from model.task import Job, NothingHeldError, Task
from model.tasks import TASKS

REFUSALS = (
    CheckpointError,
    ClipFileError,
    DataMissingError,
    NothingHeldError,
    SplitError,
    curves.CurveError,
    inspect_bundle.ManifestError,
    published.PublishedError,
    train.RunError,
    SizeError,
)
NOT_OPTIONS = {"steps", "decay", "norm"}  # the first two are given to every task alike; a network without norm is what `fold` returns


def _fields(task: Task, cls: type) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(cls) if f.name not in NOT_OPTIONS | task.given]


def _add_fields(parser: argparse.ArgumentParser, task: Task, cls: type) -> None:
    for f in _fields(task, cls):
        options: dict[str, Any] = {"help": f"see {cls.__name__}"} | dict(f.metadata)
        if options.pop("positional", False):
            parser.add_argument(f.name, type=f.type, **options)
            continue
        several = isinstance(f.default, tuple)
        one: Callable[[str], Any] = float if several else type(f.default)
        kind: dict[str, Any] = {"type": limits.reader(f.name, one)} | ({"nargs": "*"} if several else {})
        if isinstance(f.default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        parser.add_argument("--" + f.name.replace("_", "-"), dest=f.name, default=f.default, **kind, **options)


def _parser() -> argparse.ArgumentParser:
    parser = limits.Parser(prog="python -m model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    tasks = commands.add_parser("train", help="train a network").add_subparsers(dest="task", required=True)
    for name, task in TASKS.items():
        p = tasks.add_parser(name, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        p.add_argument("--seed", type=limits.reader("seed", int), default=1, help="of the weights, the batches and the dropout")
        p.add_argument("--steps", type=limits.reader("steps", int), default=task.steps, help="of the optimiser, in all")
        p.add_argument(
            "--decay",
            type=limits.reader("decay", int),
            default=task.decay,
            help="last steps, over which the rate falls to 0; where --steps are fewer it never has its height: give both",
        )
        p.add_argument(
            "--max-time",
            type=limits.reader("max_time", float),
            help="stop after so many minutes of work (CPU time per thread); go on with --resume",
        )
        p.add_argument("--resume", action="store_true", help="go on from OUT/last.ckpt")
        p.add_argument("--out", type=Path, default=Path("runs") / name, help="folder of model.pt, last.ckpt, log.txt and curves/")
        p.add_argument(
            "--validate-every", type=limits.reader("validate_every", int), default=1, help="epochs between looks at validation data"
        )
        p.add_argument("--no-progress", action="store_true")
        p.add_argument(
            "--accelerator", choices=("cpu", "gpu", "auto"), default="cpu", help="what computes, as Lightning's Trainer names it"
        )
        p.add_argument(
            "--devices",
            type=limits.reader("devices", int),
            default=1,
            help="processes, each with a device and batches of --rows of its own",
        )
        p.add_argument("--strategy", default="auto", help="Lightning's, how processes work together: ddp where there are several")
        _add_fields(p, task, task.config)
        _add_fields(p, task, task.recipe)
    p = commands.add_parser("evaluate", help="measure a checkpoint")
    p.add_argument("checkpoint", type=Path)
    p.add_argument("--split", choices=("val", "test"), default="val")
    p.add_argument("--record", action="store_true", help="write the figures into the checkpoint")
    p.add_argument("--json", action="store_true", help="print JSON, with how each figure was measured")
    p = commands.add_parser("calibrate", help="make an action network's scores true, and say below which one the answer is `other`")
    p.add_argument("checkpoint", type=Path)
    p.add_argument("--by", type=Path, nargs="*", default=[], help="networks of the same recipe with held-out clips; default: itself")
    p = commands.add_parser("inspect", help="what neurons remember or do: numbers and pictures")
    p.add_argument("bundle", type=Path, help="bundles/<name>/<version>, or a checkpoint; of the task adding more is told")
    p.add_argument("--out", type=Path, help="folder of the pictures; default: none are made")
    p.add_argument("--json", action="store_true", help="print JSON, with every neuron's memory and each layer's histogram")
    p.add_argument(
        "--length",
        type=limits.within(int, 2),
        default=inspect_adding.LENGTH,
        help="adding: steps that one neuron is read out after (%(default)s)",
    )
    p = commands.add_parser(
        "reproduce", help="train with the published settings, measure on test data once, print the row of docs/results.md"
    )
    p.add_argument("task", choices=list(TASKS))
    p.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="folder of the runs; what is there already is gone on with")
    p.add_argument("--no-progress", action="store_true")
    curves.add_arguments(commands.add_parser("plot", help="draw the curves of runs"))
    published.add_arguments(commands.add_parser("import", help="read a checkpoint of the papers' authors' code"))
    return parser


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
    train.check_folder(job)
    learner, meta = task.begin(job, picked(task.config), task.recipe(steps=job.steps, decay=job.decay, **picked(task.recipe)))
    meta = dataclasses.replace(meta, task=task.name)
    train.check_same(job, learner, meta)
    return train.run(job, learner, meta)


def _command(args: argparse.Namespace, argv: list[str]) -> str:
    """What makes these weights again: this command, after those that made what it goes on from, unless it only goes on with the same."""
    this = "python -m model " + shlex.join(a for a in argv if a not in ("--resume", "--no-progress"))
    if not args.resume or not (args.out / "model.pt").is_file():
        return this
    before = load_trained(args.out / "model.pt")[1].command
    return before if before.split(" && ")[-1].removesuffix(" --resume") == this else f"{before} && {this} --resume"


def _reproduce(args: argparse.Namespace) -> None:
    def trained(argv: list[str]) -> None:
        run_training(_parser().parse_args(argv), argv)

    reproduce.run(TASKS[args.task], args.out, trained, progress=not args.no_progress)


def main(argv: list[str]) -> int:
    """Runs one command; 0 when it did what was asked."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "train":
            rank_zero_only(print)(run_training(args, argv))
        elif args.command == "evaluate":
            evaluate.run(args.checkpoint, args.split, args.record, args.json)
        elif args.command == "plot":
            print(curves.plot(args))
        elif args.command == "import":
            published.run(args, "python -m model " + shlex.join(argv))
        elif args.command == "calibrate":
            calibrate.run(args.checkpoint, args.by)
        elif args.command == "inspect":
            inspect_bundle.run(args.bundle, args.out, args.json, args.length)
        else:
            _reproduce(args)
    except REFUSALS as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
