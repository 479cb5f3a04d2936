"""A command whose output cannot be written says so in one line, and does not claim to have done what it was asked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="a full disk is tried with /dev/full")


def run_into(output: str, *args: str, unbuffered: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `indrnn` with its standard output redirected as a shell writes it."""
    python = [sys.executable, *(["-u"] if unbuffered else [])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INDRNN_") and name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["sh", "-c", f'"$@" {output}', "sh", *python, "-m", "indrnn", *args],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("args", [["settings"], ["openapi"], ["inspect", "bundles/action/1"], ["--help"], ["backup", "--help"]])
def test_a_full_disk_is_one_line_and_a_failure(args: list[str], unbuffered: bool) -> None:
    done = run_into(">/dev/full", *args, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (1, "indrnn: standard output: No space left on device\n")


@pytest.mark.parametrize("args", [["settings"], ["--help"]])
def test_a_closed_output_is_one_line_and_a_failure(args: list[str]) -> None:
    done = run_into(">&-", *args)
    assert (done.returncode, done.stderr) == (1, "indrnn: standard output: Bad file descriptor\n")


def test_a_full_disk_for_output_and_errors_is_a_failure() -> None:
    assert run_into(">/dev/full 2>&1", "settings").returncode == 1


def test_wrong_arguments_need_no_output() -> None:
    assert run_into(">/dev/full", "backup").returncode == 2
