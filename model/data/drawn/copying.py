"""The copying problem's data: ten symbols, many blanks, a mark, and the symbols again.

Hochreiter and Schmidhuber, 1997, in the form of Arjovsky, Shah and Bengio, 2015, arXiv 1511.06464, section 5.1.
"""

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

# Sequences to validate and to test on, drawn anew from these at every look. Training draws from [seed, step], and NumPy draws from n what
# it draws from [n, 0]: they are no seeds for a run.
SEEDS = {"val": 1_000_003, "test": 1_000_033}
MEASURED = 500
COPIED = 10  # symbols, of 8
BLANK, MARK, SYMBOLS = 8, 9, 10


def steps(blanks: int) -> int:
    """Return the length of a sequence with so many steps to remember through."""
    return blanks + 2 * COPIED


def without_memory(blanks: int) -> float:
    """Return the mean cross-entropy in nats of who knows where the symbols come and none of them."""
    return COPIED * math.log(BLANK) / steps(blanks)


def draw(rng: Generator, rows: int, blanks: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """x, y [B, blanks + 20], symbols 0 to 9: ten of 0 to 7, blanks - 1 times 8, 9 once, ten times 8; y is 8, and at the end the ten."""
    x = np.full((rows, steps(blanks)), BLANK)
    x[:, :COPIED] = rng.integers(0, BLANK, (rows, COPIED))
    x[:, COPIED + blanks - 1] = MARK
    y = np.full_like(x, BLANK)
    y[:, -COPIED:] = x[:, :COPIED]
    return x, y
