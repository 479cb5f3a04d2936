"""`indrnn COMMAND`, the same as `python -m indrnn COMMAND`: the one command line.

A command's module is imported when it is called, so that serving needs no PyTorch and training no FastAPI.
Each has `add_arguments(parser, command)` and `run(command, args, argv)`, which returns the exit status.
"""

import argparse
import contextlib
import errno
import importlib
import io
import os
import select
import sys
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

READER_LEFT = 141  # the exit status of a program that SIGPIPE ends


@dataclass(frozen=True)
class Command:
    """A row of the table: what `indrnn --help` says, an example, and which optional dependencies the command needs."""

    module: str
    summary: str
    example: str
    extras: tuple[str, ...] = ("train",)


SERVICE, MODEL = "indrnn.service.command", "indrnn.model.commands.command"
ADOPT = "indrnn.export.adopt.command"
COMMANDS = {
    "serve": Command(SERVICE, "serve the bundles over HTTP, WebSocket and gRPC", "PORT=9000 indrnn serve", ("serve",)),
    "train": Command(MODEL, "train a network", "indrnn train adding --length 100 --steps 4000"),
    "evaluate": Command(MODEL, "measure a checkpoint", "indrnn evaluate runs/action/model.pt --split val"),
    "reproduce": Command(MODEL, "train with the published settings and measure on test data once", "indrnn reproduce pmnist"),
    "plot": Command(MODEL, "draw the curves of runs", "indrnn plot curves.svg runs/mnist runs/pmnist=permuted --figure val_error"),
    "inspect": Command(MODEL, "show what neurons remember or do", "indrnn inspect bundles/action/1 --out pictures"),
    "calibrate": Command(
        MODEL,
        "bring scores to how often they are right, and set below which the answer is `other`",
        "indrnn calibrate runs/action/model.pt",
    ),
    "convert": Command(MODEL, "make a file of clips from recordings of other tools", "indrnn convert recordings/ mine.npz"),
    "import": Command(MODEL, "read a checkpoint of the papers' authors' code", "indrnn import theirs.pt --out net.pt --numbers"),
    "export": Command(
        "indrnn.export.command", "write a checkpoint as a bundle", "indrnn export runs/action/model.pt my-bundles/", ("train", "serve")
    ),
    "adopt": Command(
        ADOPT, "make a bundle of any ONNX file whose states go in and come out", "indrnn adopt model.onnx my-bundles/", ("train", "serve")
    ),
    "check": Command(ADOPT, "look whether a file or a bundle can be cut, batched and kept", "indrnn check model.onnx", ("train", "serve")),
    "settings": Command(SERVICE, "list the variables that can be set", "indrnn settings", ("serve",)),
    "key": Command(SERVICE, "make an API key", "INDRNN_KEYS=keys indrnn key alice", ("serve",)),
    "backup": Command(SERVICE, "copy the SQLite store, also while a service uses it", "indrnn backup copy.db", ("serve",)),
    "openapi": Command(SERVICE, "print openapi.yaml", "indrnn openapi > openapi.yaml", ("serve",)),
    "kernels": Command(
        "indrnn.kernels.command", "build the native kernels and print the library's path", "indrnn kernels cuda", ("serve",)
    ),
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


class StandardOutput(io.RawIOBase):
    """Standard output, which keeps the last error that writing to it met: a command's own errors are told from it."""

    def __init__(self, descriptor: int | None) -> None:
        """`descriptor`: None where standard output is closed."""
        super().__init__()
        self.descriptor = descriptor
        self.failed: OSError | None = None

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor. Raises OSError where there is none."""
        return super().fileno() if self.descriptor is None else self.descriptor

    def isatty(self) -> bool:
        """Return whether somebody sees the output in a terminal."""
        return self.descriptor is not None and os.isatty(self.descriptor)

    def write(self, data: Any) -> int:
        """Write some of the bytes and return how many."""
        try:
            if self.descriptor is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return os.write(self.descriptor, data)
        except OSError as error:
            self.failed = error
            raise

    def drop(self) -> None:
        """Send what is still in the buffers nowhere: the interpreter writes it once more when it ends."""
        self.descriptor = os.open(os.devnull, os.O_WRONLY)

    def text(self, like: TextIO | None) -> TextIO:
        """Return the stream to print to, buffered as the stream `like` is."""
        if not isinstance(like, io.TextIOWrapper):
            return io.TextIOWrapper(io.BufferedWriter(self), encoding="utf-8")
        options: dict[str, Any] = {"encoding": like.encoding, "errors": like.errors, "line_buffering": like.line_buffering}
        if like.write_through:
            return io.TextIOWrapper(self, write_through=True, **options)  # type: ignore[type-var]  # raw, as Python's own -u does
        return io.TextIOWrapper(io.BufferedWriter(self), **options)


def main(argv: list[str] | None = None) -> int:
    """Run one command, and write out all that it has printed.

    Returns the exit status: 0 done, 1 refused with a line that says why, also where the output could not be written, 2 wrong arguments, 141
    when the reader of the output has left.
    """
    arguments = sys.argv[1:] if argv is None else argv
    output = watched(sys.stdout)
    if output is None:
        return run_command(arguments)
    with contextlib.redirect_stdout(output.text(sys.stdout)):
        try:
            try:
                status = run_command(arguments)
            except SystemExit:  # --help has been printed, or arguments were wrong
                print(end="", flush=True)
                if output.failed is None:
                    raise
                status = 1
            print(end="", flush=True)
            if output.failed is None:
                return status
            error = output.failed  # whoever met it went on
        except OSError as met:
            error = met
        return could_not_write(output, error)


def watched(stream: TextIO | None) -> StandardOutput | None:
    """Return standard output in its watched form; None where it is no file, as in a test that reads it."""
    if stream is None:
        return StandardOutput(None)
    try:
        descriptor = stream.fileno()
        stream.flush()
    except io.UnsupportedOperation:
        return None
    return StandardOutput(descriptor)


def could_not_write(output: StandardOutput, error: OSError) -> int:
    """Say why standard output could not be written, and return the exit status. Raises the error where it is the command's own."""
    left = isinstance(error, BrokenPipeError) and (error is output.failed or reader_has_left(sys.stderr))
    if not left and error is not output.failed:
        raise error
    output.drop()
    if not left:
        try:
            print(f"indrnn: standard output: {error.strerror}", file=sys.stderr, flush=True)
        except OSError:  # errors go to the same place
            os.dup2(output.fileno(), sys.stderr.fileno())
        return 1
    if reader_has_left(sys.stderr):
        os.dup2(output.fileno(), sys.stderr.fileno())
    return READER_LEFT


def reader_has_left(stream: TextIO | None) -> bool:
    """Return whether a stream is a pipe or a socket whose other end is closed."""
    if stream is None:
        return False
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
        extras = " and ".join(map(repr, COMMANDS[name].extras))
        print(f"indrnn {name} needs {missing.name}, which comes with the extra{'s' * (' and ' in extras)} {extras}", file=sys.stderr)
        return 1
    args = parser.parse_args(argv)
    status: int = importlib.import_module(COMMANDS[name].module).run(name, args, argv)
    return status


if __name__ == "__main__":
    sys.exit(main())
