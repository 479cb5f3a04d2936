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


@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
def test_no_key_is_active_whose_secret_nobody_has_seen(output: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    done = run_into(output, "key", "zed", INDRNN_KEYS=str(keys))
    assert done.returncode == 1
    assert done.stderr.startswith("indrnn: standard output: ")
    assert len(done.stderr.splitlines()) == 1
    assert not keys.exists()
    keys.write_text("# nobody yet\n")
    assert run_into(output, "key", "zed", INDRNN_KEYS=str(keys)).returncode == 1
    assert keys.read_text() == "# nobody yet\n"
    assert run_into("", "key", "zed", INDRNN_KEYS=str(keys)).returncode == 0
    assert keys.read_text().startswith("# nobody yet\nzed:")


def test_a_secret_is_shown_with_an_error_where_its_hash_cannot_be_kept() -> None:
    done = run_into("", "key", "zed", INDRNN_KEYS="/dev/full")
    assert done.returncode == 1
    assert done.stderr == "indrnn: keys /dev/full: [Errno 28] No space left on device: the secret is not valid\n"


def test_openapi_refuses_a_setting_in_one_line() -> None:
    done = run_into("", "openapi", INDRNN_MAX_BODY="x")
    assert (done.returncode, done.stderr) == (1, "indrnn: INDRNN_MAX_BODY: expected a whole number from 1024, got 'x'\n")


def test_wrong_arguments_need_no_output() -> None:
    assert run_into(">/dev/full", "backup").returncode == 2
