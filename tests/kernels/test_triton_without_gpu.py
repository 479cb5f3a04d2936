"""What can be said about the GPU's kernels where there is no GPU: right in Triton's interpreter, and taken by its compiler."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def _run(*arguments: str, **variables: str) -> None:
    """In a process of its own: Triton decides when it is imported whether it interprets, and torch may have imported it."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment | variables, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.skipif(torch.cuda.is_available(), reason="test_triton.py runs on the GPU")
def test_the_interpreter_agrees_with_the_specification() -> None:
    _run("-m", "pytest", "-q", "-x", str(Path(__file__).with_name("test_triton.py")), TRITON_INTERPRET="1")


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from indrnn.kernels import triton_recurrence as ours

KERNELS = [(ours._forward_loop, "tanh"), (ours._backward_loop, "tanh"), (ours._forward_scan, "relu"), (ours._backward_scan, "relu")]
KERNELS += [(kernel, "clip") for kernel, _ in KERNELS]
OPTIONS = {"ALPHA": 0.25, "LO": None, "HI": None, "REVERSE": True, "BLOCK": 32, "UNROLL": ours.UNROLL, "CHUNK": ours.CHUNK}
for dtype, ones in (("bf16", ""), ("fp32", "TNH"), ("fp64", "")):  # Triton makes a constant of an argument that is 1
    state = "*fp64" if dtype == "fp64" else "*fp32"
    types = {"lens": "*i64", **dict.fromkeys("TNH", "i32"), "largest": "fp32", **dict.fromkeys(("x", "y", "dx", "dy"), "*" + dtype)}
    for kernel, activation in KERNELS:
        bounds = {"LO": -0.5, "HI": 0.5} if activation == "clip" else {"LO": 0.0} if activation == "relu" else {}
        values = OPTIONS | bounds | {"F": activation, "VARYING": activation == "clip"} | dict.fromkeys(ones, 1)
        constants = {name: values[name] for name in kernel.arg_names if name in values}
        signature = {name: "constexpr" if name in constants else types.get(name, state) for name in kernel.arg_names}
        assert triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32)).asm["cubin"]
"""


def test_they_compile_for_a_gpu_that_is_not_here() -> None:
    _run("-c", COMPILE)


def test_the_benchmark_goes_through_its_motions() -> None:
    _run("bench/gpu.py", "--dry-run")
