"""The commands that need PyTorch, but for export: train a network, measure, calibrate, inspect or import a checkpoint."""

import argparse
import dataclasses
import gzip
import re
import shlex
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

from lightning.pytorch.utilities import rank_zero_only

from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.commands import convert, evaluate, import_published, inspect_adding, inspect_bundle, limits, plot, reproduce
from indrnn.model.data.clips import ClipFileError
from indrnn.model.data.formats.gzipped import GzippedError
from indrnn.model.data.formats.recording import FormatError
from indrnn.model.data.mnist import IdxError
from indrnn.model.data.series import SeriesFileError
from indrnn.model.data.sets import DataMissingError
from indrnn.model.data.splits import SplitError
from indrnn.model.data.text import AlphabetError
from indrnn.model.data.texts.own_text import TextFileError
from indrnn.model.detection import calibration as detection_calibration
from indrnn.model.nets.detect import DetectNet
from indrnn.model.tasks.table import TASKS
from indrnn.model.training import calibration, training
from indrnn.model.training.checkpoint import CheckpointError, load_trained
from indrnn.model.training.learner import Recipe
from indrnn.model.training.online.traces import OnlineError
from indrnn.model.training.optimisation.optimisers import OPTIMISERS, OptimiserError
from indrnn.model.training.task import Job, NothingHeldError, Task
from indrnn.ranges import within

REFUSALS = (
    AlphabetError,
    CheckpointError,
    ClipFileError,
    DataMissingError,
    FormatError,
    GzippedError,
    IdxError,
    NothingHeldError,
    OnlineError,
    OptimiserError,
    SeriesFileError,
    SplitError,
    plot.CurveError,
    inspect_bundle.ManifestError,
    import_published.PublishedError,
    training.RunError,
    SizeError,
    TextFileError,
)
STOPPED = 130  # the exit status of a program that Ctrl-C ends
HELD_BEFORE = "fold=1/5"  # what `skeleton` held out where nothing was said, until 0.2: a run begun so goes on so
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
        if "by" in options:  # a word of another option sets it
            parser.set_defaults(**{f.name: f.default})
            continue
        if options.pop("positional", False):
            parser.add_argument(f.name, type=f.type, **options)
            continue
        title = "optimiser" if f.name in shared else "data" if issubclass(cls, Recipe) else "network"
        group = groups.setdefault(title, parser.add_argument_group(title))
        several = isinstance(f.default, tuple)
        one: Callable[[str], Any] = get_args(f.type)[0] if several else type(f.default)
        kind: dict[str, Any] = {"type": limits.reader(f.name, one)} | ({"nargs": "*"} if several else {})
        if words := options.pop("words", None):
            kind = {"type": _or_word(kind["type"], words), "action": _NumberOrWord, "words": words}
        if isinstance(f.default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        default = f.default
        if options.pop("by_optimizer", False):  # told when the optimiser is known
            options["help"] += f" (default: {f.default:g}, or what stands for it with another optimiser)"
            default = None
        group.add_argument("--" + f.name.replace("_", "-"), dest=f.name, default=default, **kind, **options)


def _by_optimizer(f: dataclasses.Field[Any], cls: type, values: dict[str, Any]) -> bool:
    """Return whether a field was left to the optimiser to tell."""
    return values[f.name] is None and bool(_said(cls, f.name).get("by_optimizer"))


def _or_word(read: Callable[[str], Any], words: dict[str, str]) -> Callable[[str], Any]:
    return lambda text: text if text in words else read(text)


class _NumberOrWord(argparse.Action):
    """Keeps a number, or sets the switch that a word stands for."""

    def __init__(self, words: dict[str, str], **options: Any) -> None:
        super().__init__(**options)
        self.words = words

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        """Argparse's hook."""
        if isinstance(value, str):
            setattr(namespace, self.words[value], True)
        else:
            setattr(namespace, self.dest, value)


class _GoingOn(argparse.Action):
    """Keeps the words behind `train --resume`; a run that is gone on with needs no task."""

    def __init__(self, tasks: argparse.Action, **options: Any) -> None:
        super().__init__(**options)
        self.tasks = tasks

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        """Argparse's hook."""
        self.tasks.required = False
        setattr(namespace, self.dest, value)


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of one command."""
    if command == "train":
        tasks = _add_tasks(parser)
        parser.add_argument(
            "--resume",
            action=_GoingOn,
            tasks=tasks,
            dest="going_on",
            nargs=argparse.REMAINDER,
            metavar="RUN",
            help="go on with the run in a folder as it was begun; options behind it replace those of its beginning",
        )
    elif command == "evaluate":
        parser.add_argument("checkpoint", type=Path, help="a model.pt that `indrnn train` wrote")
        parser.add_argument(
            "--split", choices=("val", "test"), default="val", help="data to measure on; test when all is decided (default: val)"
        )
        parser.add_argument("--record", action="store_true", help="write the figures into the checkpoint")
        parser.add_argument("--json", action="store_true", help="print JSON, with how each figure was measured")
        parser.add_argument("--curves", type=Path, help="folder of the figures over the threshold (SVG, JSON), of a network that detects")
        parser.add_argument("--data", type=Path, help="measure on another file than the one that was learned from, split in the same way")
    elif command == "calibrate":
        parser.add_argument("checkpoint", type=Path, help="of a network of skeletons, or of one that detects")
        parser.add_argument(
            "--by", type=Path, nargs="+", default=[], help="networks of the same recipe with held-out clips; default: itself"
        )
    elif command == "inspect":
        parser.add_argument("bundle", type=Path, help="bundles/<name>/<version>, or a checkpoint; of the task adding more is told")
        parser.add_argument("--out", type=Path, help="folder of the pictures; default: none are made")
        parser.add_argument("--json", action="store_true", help="print JSON, with every neuron's memory and each layer's histogram")
        parser.add_argument(
            "--length",
            type=within(int, 2),
            default=inspect_adding.LENGTH,
            help="adding: steps that one neuron is read out after (%(default)s)",
        )
    elif command == "reproduce":
        parser.add_argument("task", choices=list(TASKS), help="a task of `indrnn train`")
        parser.add_argument(
            "--out", type=Path, default=Path("runs/reproduce"), help="folder of the runs; what is there already is gone on with"
        )
        parser.add_argument("--no-progress", action="store_true", help="draw no progress bar")
    else:
        {"convert": convert, "plot": plot, "import": import_published}[command].add_arguments(parser)


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults as they would be typed, and none that is empty."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, (), ""):
            return action.help
        if isinstance(action.default, tuple):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


def _add_tasks(parser: argparse.ArgumentParser) -> argparse.Action:
    """Add a parser for each task, and return what asks for one of them."""
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
        everyday.add_argument(
            "--max-wall-time", type=limits.reader("max_wall_time", float), help="the same by the clock: stop after so many minutes"
        )
        everyday.add_argument("--resume", action="store_true", help="go on from OUT/last.ckpt; indrnn train --resume OUT needs no options")
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
    return tasks


def run_training(args: argparse.Namespace, argv: list[str]) -> Path:
    """`train`: begins or resumes the run that args say, and returns its checkpoint's path."""
    task = TASKS[args.task]

    def picked(cls: type) -> dict[str, Any]:
        values = {f.name: getattr(args, f.name) for f in _fields(task, cls)}
        for f in _fields(task, cls):
            usual: Any = f.default
            if _by_optimizer(f, cls, values):
                values[f.name] = OPTIMISERS[args.optimizer].default_rate(usual)
        return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}

    same = ("seed", "out", "steps", "decay", "resume", "max_time", "max_wall_time", "validate_every", "accelerator", "devices", "strategy")
    job = Job(
        **{name: getattr(args, name) for name in same},
        command=_command(args, argv),
        progress=not args.no_progress,
    )
    training.check_folder(job)
    learner, meta = task.begin(job, picked(task.config), task.recipe(steps=job.steps, decay=job.decay, **picked(task.recipe)))
    meta = dataclasses.replace(meta, task=task.name, optimizer=learner.recipe.optimizer)
    training.check_same(job, learner, meta)
    return training.run(job, learner, meta)


def _going_on(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the arguments of a run that is gone on with: those it was begun with and, behind its folder, others. Raises RunError."""
    if not words or words[0].startswith("-"):
        raise training.RunError("expected --resume RUN, the folder of a run")
    run, *more = words
    if not (Path(run) / "last.ckpt").is_file():
        raise training.RunError(f"{run}: expected the folder of a run with last.ckpt in it, found none: there is nothing to go on from")
    before = load_trained(Path(run) / "model.pt")[1]
    command = before.command.split(" && ")[-1].replace("python -m model ", "indrnn ", 1)
    argv = [word for word in shlex.split(command)[1:] if word != "--resume"]
    if argv[1:2] == ["skeleton"] and before.held == HELD_BEFORE and not any(word.split("=")[0] == "--held" for word in argv):
        argv += ["--held", HELD_BEFORE]
    parser = argparse.ArgumentParser(prog="indrnn train")
    _add_tasks(parser)
    try:
        same = Path(parser.parse_args(argv[1:]).out).resolve() == Path(run).resolve()
    except SystemExit:
        raise training.RunError(f"{run}: expected a run of this version, got one begun by: {command}") from None
    argv += [*([] if same else ["--out", run]), *more]
    return parser.parse_args([*argv[1:], "--resume"]), argv


def _train(args: argparse.Namespace, argv: list[str]) -> int:
    """`train`: one run, or one for each fold. Returns the exit status."""
    if args.going_on is not None:
        args, argv = _going_on(args.going_on)
    whole = getattr(args, "test", "")
    if re.fullmatch(r"fold=each/.*", whole):
        _each_fold(args, argv)
    else:
        rank_zero_only(print)(run_training(args, argv))
    return 0


def _each_fold(args: argparse.Namespace, argv: list[str]) -> None:
    """Trains a network for each fold below args.out, measures each on its test clips, and prints their figures and mean.

    A fold that is there is gone on with by --resume, and not measured twice.
    """
    task, out = TASKS[args.task], args.out
    if not isinstance(task.recipe, type) or task.folds is None:
        raise SplitError(f"{args.test}: expected a task on a file of clips or sequences, got {task.name}")
    rows = []
    for words in task.folds(args):
        folder = out / words.removeprefix("fold=").replace("/", "-of-").replace(":", "-")
        one = argparse.Namespace(**{**vars(args), "test": words, "out": folder, "resume": args.resume and (folder / "last.ckpt").is_file()})
        own = [w for i, w in enumerate(argv) if w not in ("--test", "--out") and (i == 0 or argv[i - 1] not in ("--test", "--out"))]
        own = [w for w in own if not w.startswith(("--test=", "--out="))]
        path = run_training(one, [*own, "--test", words, "--out", str(folder)])
        done = next((f for f in load_trained(path)[1].figures if f["name"] == task.headline), None)
        figures = (done,) if done and one.resume else evaluate.run(path, "test", record=True, quiet=True)
        rows.append((words, next(f for f in figures if f["name"] in (task.headline, "test_rmse", "test_rmse_0"))))
    values = [f["value"] for _, f in rows]
    mean = sum(values) / len(values)
    spread = (sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)) ** 0.5
    width = max(len(words) for words, _ in rows)
    print("\n".join(f"{words:{width}} {f['name']} {f['value']:.4g} {f['unit']}".rstrip() for words, f in rows))
    print(f"{'mean':{width}} {rows[0][1]['name']} {mean:.4g} {rows[0][1]['unit']}, deviation {spread:.2g}")


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
            return _train(args, argv)
        if command == "evaluate":
            evaluate.run(args.checkpoint, args.split, args.record, args.json, args.curves, args.data)
        elif command == "plot":
            print(plot.plot(args))
        elif command == "convert":
            convert.run(args)
        elif command == "import":
            import_published.run(args, "indrnn " + shlex.join(argv))
        elif command == "calibrate":
            detects = isinstance(load_trained(args.checkpoint)[0], DetectNet)
            (detection_calibration if detects else calibration).run(args.checkpoint, args.by)
        elif command == "inspect":
            inspect_bundle.run(args.bundle, args.out, args.json, args.length)
        else:
            _reproduce(args)
    except REFUSALS as error:
        print(error, file=sys.stderr)
        return 1
    except (training.StoppedError, KeyboardInterrupt) as error:
        print(str(error) or "stopped", file=sys.stderr)
        return STOPPED
    except (EOFError, UnicodeError, zlib.error, gzip.BadGzipFile) as error:  # a file of data whose reader names none
        print(f"expected the data of {getattr(args, 'task', command)} as gzipped texts in UTF-8 (docs/data.md): {error}", file=sys.stderr)
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
