"""`indrnn kernels [cuda] [--sanitize]`: builds a native library and prints its path; 1 and the reason where that cannot be done."""

import argparse
import sys

from indrnn.kernels.build import KernelMissing, build
from indrnn.kernels.cuda import build_cuda


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments that say which library, and how it is compiled."""
    parser.add_argument("which", nargs="?", choices=["cpu", "cuda"], default="cpu", help="cuda: the op for NVIDIA GPUs; needs nvcc")
    parser.add_argument("--sanitize", action="store_true", help="the CPU's with AddressSanitizer and UBSan, for the kernel's tests")


def run(command: str, args: argparse.Namespace, argv: list[str]) -> int:
    """Builds, prints the path, and returns the exit status."""
    try:
        print(build_cuda() if args.which == "cuda" else build(args.sanitize))
    except KernelMissing as missing:
        print(f"kernels: {missing}", file=sys.stderr)
        return 1
    return 0
