"""The library's own threads: shared by many callers, and lost in a fork."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from native_calls import Kernel

from indrnn.kernels.native import Library

HERE = Path(__file__).parent

FORK = """
import os, sys
import numpy as np
sys.path.insert(0, {here!r})
from native_calls import Kernel
from pathlib import Path
from indrnn.kernels.native import Library
kernel = Kernel(Library(Path({library!r})), threads=3, pieces=8)
x, u = np.ones((50, 4, 64), np.float32), np.full(64, 0.5, np.float32)
want, _ = kernel.forward(x, u)
child = os.fork()
if not child:
    got, _ = kernel.forward(x, u)
    os._exit(0 if np.array_equal(got, want) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_many_callers_at_once_all_get_their_own_answer(kernel: Kernel) -> None:
    shared = kernel.having(threads=3, pieces=7)
    rng = np.random.default_rng(0)
    inputs = [(rng.standard_normal((60, 5, 40)).astype(np.float32), rng.uniform(-1, 1, 40).astype(np.float32)) for _ in range(40)]
    wanted = [kernel.forward(*one) for one in inputs]
    with ThreadPoolExecutor(8) as callers:
        for _ in range(5):
            for got, want in zip(callers.map(lambda one: shared.forward(*one), inputs), wanted, strict=True):
                assert np.array_equal(got[0], want[0])
                assert np.array_equal(got[1], want[1])


def test_a_forked_child_starts_threads_of_its_own(library: Library) -> None:
    code = FORK.format(here=str(HERE), library=str(library.path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=HERE.parent.parent, check=False)
    assert done.returncode == 0, done.stderr
