"""The command line: train a network, measure a checkpoint."""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model import evaluate, published, train
from model.action import ActionConfig
from model.chars import CharsConfig
from model.checkpoint import CheckpointError, load_trained
from model.data import DataMissingError
from model.learner import Recipe
from model.skeletons import SUBJECTS
from model.train_action import ActionRecipe
from model.train_chars import CharsRecipe

# What is trained, the classes whose fields are its options, and the default number of steps and of the last ones that slow down.
TASKS: dict[str, tuple[Callable[..., Any], type, type[Recipe], int, int]] = {
    "action": (train.action, ActionConfig, ActionRecipe, 800, 400),
    "chars": (train.chars, CharsConfig, CharsRecipe, 12000, 4500),
}
HOLDABLE = (0, *SUBJECTS["train"])
NOT_OPTIONS = {"steps", "decay", "classes", "joints", "persons", "root", "norm"}  # given elsewhere, or by the data


def _add_fields(parser: argparse.ArgumentParser, cls: type) -> None:
    for f in dataclasses.fields(cls):
        if f.name in NOT_OPTIONS:
            continue
        option = "--" + f.name.replace("_", "-")
        if isinstance(f.default, tuple):
            parser.add_argument(option, dest=f.name, type=float, nargs="*", default=f.default, help=f"see {cls.__name__}")
        elif isinstance(f.default, bool):
            parser.add_argument(option, dest=f.name, action=argparse.BooleanOptionalAction, default=f.default, help=f"see {cls.__name__}")
        else:
            parser.add_argument(option, dest=f.name, type=type(f.default), default=f.default, help=f"see {cls.__name__}")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    tasks = commands.add_parser("train", help="train a network").add_subparsers(dest="task", required=True)
    for task, (_, config, recipe, steps, decay) in TASKS.items():
        p = tasks.add_parser(task, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        p.add_argument("--seed", type=int, default=1, help="of the weights, the batches and the dropout")
        p.add_argument("--steps", type=_positive, default=steps, help="of the optimiser, in all")
        p.add_argument("--decay", type=int, default=decay, help="last steps, over which the rate falls to 0")
        p.add_argument("--max-time", type=float, help="stop after so many minutes; go on with --resume")
        p.add_argument("--resume", action="store_true", help="go on from OUT/last.ckpt")
        p.add_argument("--out", type=Path, default=Path("runs") / task, help="folder of model.pt, last.ckpt and log.txt")
        p.add_argument("--validate-every", type=int, default=1, help="epochs between looks at validation data")
        p.add_argument("--no-progress", action="store_true")
        if task == "action":
            p.add_argument("--held", type=int, default=7, choices=HOLDABLE, help="training subject to select by; 0: train on all")
        _add_fields(p, config)
        _add_fields(p, recipe)
    p = commands.add_parser("evaluate", help="measure a checkpoint")
    p.add_argument("checkpoint", type=Path)
    p.add_argument("--split", choices=("val", "test"), default="val")
    p.add_argument("--record", action="store_true", help="write the figures into the checkpoint")
    published.add_arguments(commands.add_parser("import", help="read a checkpoint of the papers' authors' code"))
    return parser


def _train(args: argparse.Namespace, command: str) -> None:
    build, config, recipe, _, _ = TASKS[args.task]

    def picked(cls: type) -> dict[str, Any]:
        values = {f.name: getattr(args, f.name) for f in dataclasses.fields(cls) if f.name not in NOT_OPTIONS}
        return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}

    job = train.Job(
        **{name: getattr(args, name) for name in ("seed", "out", "steps", "decay", "resume", "max_time", "validate_every")},
        command=command,
        progress=not args.no_progress,
    )
    extra = {"held": args.held} if args.task == "action" else {}
    train.check_folder(job)
    learner, meta = build(job, picked(config), picked(recipe), **extra)
    train.check_same(job, learner, meta)
    print(train.run(job, learner, meta))


def _command(args: argparse.Namespace, argv: list[str]) -> str:
    """What makes these weights again: this command, after those that made what it goes on from, unless it only goes on with the same."""
    this = "python -m model " + shlex.join(a for a in argv if a not in ("--resume", "--no-progress"))
    if not args.resume or not (args.out / "model.pt").is_file():
        return this
    before = load_trained(args.out / "model.pt")[1].command
    return before if before.split(" && ")[-1].removesuffix(" --resume") == this else f"{before} && {this} --resume"


def main(argv: list[str]) -> int:
    """Runs one command; 0 when it did what was asked."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "train":
            _train(args, _command(args, argv))
        elif args.command == "import":
            published.run(args, "python -m model " + shlex.join(argv))
        else:
            evaluate.run(args.checkpoint, args.split, args.record)
    except (CheckpointError, DataMissingError, evaluate.NothingHeldError, published.PublishedError, train.RunError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
