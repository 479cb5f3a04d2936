"""A command whose output nobody reads any more ends quietly, as command-line programs do."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from indrnn import __main__ as command_line

ROOT = Path(__file__).parents[2]
MODULE = "tests_of_closed_pipes"


def run_into_closed_pipe(*args: str, unbuffered: bool = False, errors_too: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `indrnn` with a standard output whose reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INDRNN_") and name != "PYTHONUNBUFFERED"}
    try:
        return subprocess.run(
            [sys.executable, *(["-u"] if unbuffered else []), "-m", "indrnn", *args],
            cwd=ROOT,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=writing,
            stderr=writing if errors_too else subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize(
    ("args", "unbuffered"),
    [
        (["settings"], False),  # less than the buffer holds: written at the end alone
        (["settings"], True),
        (["openapi"], False),  # more than the buffer holds: written while the command runs
        (["--help"], False),
        (["backup", "--help"], False),
    ],
)
def test_a_closed_pipe_ends_a_command_without_a_word(args: list[str], unbuffered: bool) -> None:
    done = run_into_closed_pipe(*args, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_command_ends_when_its_errors_go_into_the_closed_pipe_too() -> None:
    assert run_into_closed_pipe("settings", errors_too=True).returncode == 141


def test_a_broken_pipe_of_the_commands_own_is_no_quiet_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a closed standard output is expected: another broken pipe is a fault, and shows as one."""

    def run(command: str, args: object, argv: list[str]) -> int:
        reading, writing = os.pipe()
        os.close(reading)
        try:
            return os.write(writing, b"to nobody")
        finally:
            os.close(writing)

    monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(add_arguments=lambda parser, command: None, run=run))
    monkeypatch.setitem(command_line.COMMANDS, "settings", command_line.Command(MODULE, "fail", "indrnn settings"))
    with pytest.raises(BrokenPipeError):
        command_line.main(["settings"])
