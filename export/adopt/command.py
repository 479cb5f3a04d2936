"""`indrnn adopt FILE OUT` and `indrnn check FILE|BUNDLE`: a stateful ONNX file becomes a bundle, or one line says why not."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indrnn.export import kit
from indrnn.export.adopt.adoption import Adoption, adopt
from indrnn.export.adopt.bundle_subject import bundle_subject
from indrnn.export.adopt.layout import Told
from indrnn.export.adopt.plan import Array
from indrnn.export.adopt.write import write
from indrnn.export.bundle import BundleError, read
from indrnn.export.errors import AdoptError, ExportError
from indrnn.ranges import within


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments that say which file, and what cannot be found out about it."""
    if command == "check":
        parser.add_argument("path", type=Path, help="an ONNX file, or the folder of a bundle's version")
    else:
        parser.add_argument("path", type=Path, help="an ONNX file whose states go in and come out")
        parser.add_argument("bundles", type=Path, help="the model repository, usually bundles/")
        parser.add_argument("--name", help="default: the file's name")
        parser.add_argument("--version", default="1", help="a whole number (default: %(default)s)")
        parser.add_argument("--hz", type=within(float, 0, least_too=False), help="steps a second, for the manifest")
        parser.add_argument("--max-position", type=within(int, 1), help="steps that a session may last, and the long run is")
        parser.add_argument(
            "--allow", action="append", default=[], choices=list(kit.CHECKS), help="take it though this check fails; may be repeated"
        )
        parser.add_argument("--force", action="store_true", help="replace the version if it exists")
    add = parser.add_argument
    add(
        "--state",
        action="append",
        default=[],
        metavar="IN:OUT",
        help="an input that is a state, and the output that it is next; may be repeated",
    )
    add("--batch-axis", action="append", default=[], metavar="NAME=N", help="the axis of rows of an input; may be repeated")
    add(
        "--constant",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what an input always gets: a number, or a .npy file; may be repeated",
    )
    add(
        "--initial",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what a state starts from: a number, or a .npy file; may be repeated",
    )
    add(
        "--dim",
        action="append",
        default=[],
        metavar="NAME=N",
        help="the size of a free axis, by its symbol or as tensor.axis; may be repeated",
    )
    add("--window", type=within(int, 1), default=0, help="samples that make one answer, for files that read windows of a signal")
    add("--context", type=within(int, 1), default=0, help="samples before a window that the file reads with it")
    add("--stepped", action="store_true", help="run it a step at a time, though it has an axis of time")
    add("--steps", type=within(int, 1), help=f"steps of the long run (default: as many of {kit.STEPS:,} as {kit.SECONDS:g} s allow)")


def run(command: str, args: argparse.Namespace, argv: list[str]) -> int:
    """Adopt or check; the exit status is 0 when the bundle was written or every check passed, 1 when not."""
    try:
        return _check(args) if command == "check" else _adopt(args)
    except (ExportError, BundleError, OSError) as error:
        print(f"{command} refused: {error}", file=sys.stderr)
        return 1


def _check(args: argparse.Namespace) -> int:
    if args.path.is_dir():
        findings: Sequence[kit.Finding] = kit.check(bundle_subject(read(args.path)), steps=args.steps)
    else:
        adoption = adopt(args.path, told_by(args), steps=args.steps)
        _show(adoption)
        findings = adoption.findings
    print(kit.report(findings))
    return int(any(f.fault is not None for f in findings))


def _adopt(args: argparse.Namespace) -> int:
    adoption = adopt(args.path, told_by(args), args.allow, args.steps, longest=args.max_position)
    _show(adoption)
    print(kit.report(adoption.findings))
    name = args.name or slug(args.path.stem)
    bundle = write(
        adoption,
        args.bundles,
        name,
        args.version,
        command=_command(args, name),
        hz=args.hz,
        max_position=args.max_position,
        force=args.force,
    )
    m = bundle.manifest
    print(f"{bundle.graph.parent}: N = {m.state_size}, {len(adoption.plan.answers)} outputs, sha256 {m.sha256[:12]}")
    return 0


def _show(adoption: Adoption) -> None:
    print(adoption.plan.table())
    for note in adoption.plan.notes:
        print(f"note: {note}")


def slug(stem: str) -> str:
    """Return a bundle's name made of a file's."""
    found = re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")
    return (found if found[:1].isalpha() else f"model-{found}".rstrip("-"))[:64]


def told_by(args: argparse.Namespace) -> Told:
    """Return what the arguments say of a file. Raises AdoptError where one of them cannot be read."""
    states = {}
    for text in args.state:
        left, colon, right = text.rpartition(":")
        if not colon or not left or not right:
            raise AdoptError(f"--state {text}: expected IN:OUT")
        states[left] = right
    return Told(
        states,
        {name: _whole("--batch-axis", name, value) for name, value in _named("--batch-axis", args.batch_axis)},
        {name: _array("--constant", name, value) for name, value in _named("--constant", args.constant)},
        {name: _array("--initial", name, value) for name, value in _named("--initial", args.initial)},
        {name: _whole("--dim", name, value) for name, value in _named("--dim", args.dim)},
        args.window,
        args.context,
        args.stepped,
    )


def _named(option: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise AdoptError(f"{option} {text}: expected NAME=VALUE")
        found.append((name, value))
    return found


def _whole(option: str, name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise AdoptError(f"{option} {name}: expected a whole number, got {value}") from None


def _array(option: str, name: str, value: str) -> Array:
    if value.endswith(".npy"):
        try:
            found: Array = np.load(value, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise AdoptError(f"{option} {name}: {value}: {error}") from error
        return found
    if value.lower() in ("true", "false"):
        return np.array(value.lower() == "true")
    try:
        return np.array(int(value))
    except ValueError:
        pass
    try:
        return np.array(float(value))
    except ValueError:
        raise AdoptError(f"{option} {name}: expected a number or a .npy file, got {value}") from None


def _command(args: argparse.Namespace, name: str) -> str:
    """Return what to type to adopt this again, without --force and without this machine's paths."""
    words = ["indrnn", "adopt", args.path.name, args.bundles.name + "/", "--name", name]
    words += ["--version", args.version] if args.version != "1" else []
    for option in ("state", "batch_axis", "constant", "initial", "dim", "allow"):
        for value in getattr(args, option):
            words += [f"--{option.replace('_', '-')}", _without_folder(value)]
    for option in ("window", "context", "hz", "max_position"):
        value = getattr(args, option)
        words += [f"--{option.replace('_', '-')}", str(value).removesuffix(".0")] if value else []  # every digit: it is typed again
    return shlex.join([*words, *(["--stepped"] if args.stepped else [])])


def _without_folder(value: str) -> str:
    name, equals, path = value.partition("=")
    return f"{name}={os.path.basename(path)}" if equals and path.endswith(".npy") else value
