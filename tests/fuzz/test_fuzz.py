"""Some seconds of every parser under the fuzzer; `make fuzz` goes on for ten minutes on all cores."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_run import TARGETS

SECONDS = float(os.environ.get("INDRNN_TEST_FUZZ", "4"))  # of each


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_read_or_refused_in_words(name: str) -> None:
    """In a process of its own: what ends it is seen too."""
    seed = random.SystemRandom().randrange(10_000)
    command = [sys.executable, "fuzz_run.py", "--here", "--seconds", str(SECONDS), "--seed", str(seed), "--only", name]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=SECONDS * 3 + 60)
    assert done.returncode == 0, f"seed {seed}: {done.returncode}\n{done.stdout[-3_000:]}\n{done.stderr[-2_000:]}"
    assert " 0 wrong" in done.stdout
