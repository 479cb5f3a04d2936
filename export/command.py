"""`indrnn export CHECKPOINT bundles/`: writes a bundle, or says in one line why not."""

import argparse
import os
import shlex
import sys
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from indrnn.export.bundle import Bundle, BundleError, Figure
from indrnn.export.errors import ExportError
from indrnn.export.write import add_explanation, write
from indrnn.model.training.checkpoint import CheckpointError, load
from indrnn.ranges import within


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments that say what to export, and where to."""
    parser.add_argument("checkpoint", type=Path, help="what `indrnn train` left behind")
    parser.add_argument("bundles", type=Path, help="the model repository, usually bundles/")
    parser.add_argument("--name", help="default: the checkpoint's kind")
    parser.add_argument("--version", default="1", help="a whole number (default: %(default)s)")
    parser.add_argument("--figures", type=Path, help="JSON list of {name, value, unit, protocol, test_evaluations} to add to the card")
    parser.add_argument("--max-position", type=within(int, 1), help="steps a session may last; required where max |u| is 1 or more")
    parser.add_argument("--force", action="store_true", help="replace the version if it exists")
    parser.add_argument("--explain", action="store_true", help="write explain.onnx as well: what an answer depends on, for POST /explain")
    parser.add_argument(
        "--standard-ops", action="store_true", help="opset 27, with LinearAttention in place of our ops where all decays are positive"
    )
    parser.add_argument("--add", action="store_true", help="with --explain, to a version that exists; its model.onnx stays as it is")


def run(command: str, args: argparse.Namespace, argv: list[str]) -> int:
    """Exports; the exit status is 0 when the bundle was written, 1 when it was refused."""
    if args.add and (not args.explain or args.force or args.figures or args.max_position or args.standard_ops):
        print("export refused: --add takes --explain, and neither --force, --figures, --max-position nor --standard-ops", file=sys.stderr)
        return 1
    torch.set_num_threads(1)  # the cases are small, and one thread adds up in one order
    try:
        bundle = _written(args)
    except (CheckpointError, ExportError, BundleError, OSError) as error:
        print(f"export refused: {error}", file=sys.stderr)
        return 1
    m = bundle.manifest
    print(f"{bundle.graph.parent}: N = {m.state_size}, K = {m.classes}, parity error {m.parity_error:.1e}, sha256 {m.sha256[:12]}")
    return 0


def _written(args: argparse.Namespace) -> Bundle:
    """Return the bundle that the arguments ask for, once it is there."""
    module, meta = load(args.checkpoint)
    name, command = args.name or meta.kind, _command(args, meta.kind)
    if args.add:
        return add_explanation(module, meta, args.bundles, name, args.version, command=command)
    return write(
        module,
        meta,
        args.bundles,
        name,
        args.version,
        command=command,
        figures=_figures(args.figures),
        max_position=args.max_position,
        force=args.force,
        explain=args.explain,
        standard_ops=args.standard_ops,
    )


def _figures(path: Path | None) -> tuple[Figure, ...]:
    if path is None:
        return ()
    try:
        return tuple(TypeAdapter(list[Figure]).validate_json(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        raise ExportError(f"{path}: {'.'.join(map(str, first['loc']))} {first['msg']}".replace("  ", " ")) from error


def _command(args: argparse.Namespace, kind: str) -> str:
    """Return what to type to export this again, from the folder it was typed in, without --force and without this machine's paths."""
    words = ["indrnn", "export", _relative(args.checkpoint), _relative(args.bundles) + "/"]
    words += ["--name", args.name] if args.name not in (None, kind) else []
    words += ["--version", args.version] if args.version != "1" else []
    words += ["--figures", _relative(args.figures)] if args.figures else []
    words += ["--max-position", str(args.max_position)] if args.max_position else []
    words += ["--explain"] if args.explain else []
    words += ["--standard-ops"] if args.standard_ops else []
    words += ["--add"] if args.add else []
    return shlex.join(words)


def _relative(path: Path) -> str:
    relative = os.path.relpath(path)
    return path.name if relative.startswith("..") else relative
