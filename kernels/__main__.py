"""python -m kernels [cuda] [--sanitize]: builds a native library and prints its path; 1 and the reason where that cannot be done."""

import argparse
import sys

from kernels.build import KernelMissing, build
from kernels.cuda import build_cuda


def main() -> int:
    """Builds, prints the path, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kernels", description="Builds a native library and prints its path.")
    parser.add_argument("which", nargs="?", choices=["cpu", "cuda"], default="cpu", help="cuda: the op for NVIDIA GPUs; needs nvcc")
    parser.add_argument("--sanitize", action="store_true", help="the CPU's with AddressSanitizer and UBSan, for the kernel's tests")
    args = parser.parse_args()
    try:
        print(build_cuda() if args.which == "cuda" else build(args.sanitize))
    except KernelMissing as missing:
        print(f"kernels: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
