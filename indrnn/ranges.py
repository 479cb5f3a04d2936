"""Numbers of a command line: what argparse reads one with, which refuses what is beyond its range in one line, whatever the command."""

import argparse
import math
from collections.abc import Callable


def within(
    kind: Callable[[str], float], least: float = -math.inf, most: float = math.inf, least_too: bool = True, most_too: bool = False
) -> Callable[[str], float]:
    """Return what reads a number from least to most, each allowed or not, as kind, an int or a float."""
    words = "a whole number" if kind is int else "a number"
    words += f" {'from' if least_too else 'above'} {least:.10g}" if least > -math.inf else ""
    words += f" {'to' if most_too else 'to below'} {most:.10g}" if most < math.inf else ""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if least < value < most or (least_too and value == least) or (most_too and value == most):
            return value
        raise argparse.ArgumentTypeError(f"expected {words}, got {text!r}")

    return read
