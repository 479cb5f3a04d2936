"""python -m kernels [--sanitize]: builds the native library and prints its path; 1 and the reason where that cannot be done."""

import argparse
import sys

from kernels.build import KernelMissing, build


def main() -> int:
    """Builds, prints the path, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kernels", description="Builds the native library and prints its path.")
    parser.add_argument("--sanitize", action="store_true", help="with AddressSanitizer and UBSan, for the kernel's tests")
    try:
        print(build(parser.parse_args().sanitize))
    except KernelMissing as missing:
        print(f"kernels: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
