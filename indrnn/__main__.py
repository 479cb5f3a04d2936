"""`indrnn COMMAND`, the same as `python -m indrnn COMMAND`: the one command line.

A command's module is imported when it is called, so that serving needs no PyTorch and training no FastAPI.
Each has `add_arguments(parser, command)` and `run(command, args, argv)`, which returns the exit status.
"""

import argparse
import importlib
import os
import select
import sys
from dataclasses import dataclass
from typing import NoReturn, TextIO

READER_LEFT = 141  # the exit status of a program that SIGPIPE ends


@dataclass(frozen=True)
class Command:
    """A row of the table: what `indrnn --help` says, an example, and which optional dependencies the command needs."""

    module: str
    summary: str
    example: str
    extra: str = "train"


SERVICE, MODEL = "indrnn.service.command", "indrnn.model.commands.command"
COMMANDS = {
    "serve": Command(SERVICE, "serve the bundles over HTTP, WebSocket and gRPC", "PORT=9000 indrnn serve", "serve"),
    "train": Command(MODEL, "train a network", "indrnn train adding --length 100 --steps 4000"),
    "evaluate": Command(MODEL, "measure a checkpoint", "indrnn evaluate runs/action/model.pt --split val"),
    "reproduce": Command(MODEL, "train with the published settings and measure on test data once", "indrnn reproduce pmnist"),
    "plot": Command(MODEL, "draw the curves of runs", "indrnn plot curves.svg runs/mnist runs/pmnist=permuted --figure val_error"),
    "inspect": Command(MODEL, "show what neurons remember or do", "indrnn inspect bundles/action/1 --out pictures"),
    "calibrate": Command(MODEL, "make scores true and set where the answer is `other`", "indrnn calibrate runs/action/model.pt"),
    "import": Command(MODEL, "read a checkpoint of the papers' authors' code", "indrnn import theirs.pt --out net.pt --numbers"),
    "export": Command(
        "indrnn.export.command", "write a checkpoint as a bundle", "indrnn export runs/action/model.pt my-bundles/", "train and serve"
    ),
    "settings": Command(SERVICE, "list the variables that can be set", "indrnn settings", "serve"),
    "key": Command(SERVICE, "make an API key", "INDRNN_KEYS=keys indrnn key alice", "serve"),
    "backup": Command(SERVICE, "copy the SQLite store, also while a service uses it", "indrnn backup copy.db", "serve"),
    "openapi": Command(SERVICE, "print openapi.yaml", "indrnn openapi > openapi.yaml", "serve"),
    "kernels": Command("indrnn.kernels.command", "build the native kernels and print the library's path", "indrnn kernels cuda", "serve"),
}


class Parser(argparse.ArgumentParser):
    """A wrong argument is answered in one line, without a list of the right ones."""

    def error(self, message: str) -> NoReturn:
        """Exits with status 2."""
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands, or, so that nothing else is imported, with the arguments of one alone."""
    parser = Parser(prog="indrnn", description="Trains, exports and serves recurrent networks whose state is never lost.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, command in COMMANDS.items():
        summary = command.summary[0].upper() + command.summary[1:] + "."
        one = commands.add_parser(name, help=command.summary, description=summary, epilog=f"Example: {command.example}")
        if only in (None, name):
            importlib.import_module(command.module).add_arguments(one, name)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command, and write out all that it has printed.

    Returns the exit status: 0 done, 1 refused with a line that says why, 2 wrong arguments, 141 when the reader of the output has left.
    """
    try:
        try:
            status = run_command(sys.argv[1:] if argv is None else argv)
        except SystemExit:  # --help has been printed
            print(end="", flush=True)
            raise
        print(end="", flush=True)
        return status
    except BrokenPipeError:
        left = [stream for stream in (sys.stdout, sys.stderr) if stream is not None and reader_has_left(stream)]
        if not left:  # it was a pipe or a connection of the command's own
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in left:  # the interpreter flushes both once more when it ends
            os.dup2(nowhere, stream.fileno())
        return READER_LEFT


def reader_has_left(stream: TextIO) -> bool:
    """Return whether a stream is a pipe or a socket whose other end is closed."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(happened & (select.POLLERR | select.POLLHUP) for _, happened in poll.poll(0))


def run_command(argv: list[str]) -> int:
    """Run one command. Returns the exit status."""
    name = argv[0] if argv and argv[0] in COMMANDS else ""
    try:
        parser = build_parser(name)
    except ModuleNotFoundError as missing:  # the command's own imports; a fault later on shows as one
        if not missing.name or missing.name.split(".")[0] == "indrnn":
            raise
        print(f"indrnn {name} needs {missing.name}, which comes with the extra {COMMANDS[name].extra!r}", file=sys.stderr)
        return 1
    args = parser.parse_args(argv)
    status: int = importlib.import_module(COMMANDS[name].module).run(name, args, argv)
    return status


if __name__ == "__main__":
    sys.exit(main())
