"""The adding problem's data: numbers, two of which are marked (Hochreiter and Schmidhuber, 1997; Li et al., 2019, section 5.2.1)."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

# Sequences to validate and to test on, drawn anew from these at every look. Training draws from [seed, step], and NumPy draws from n what
# it draws from [n, 0]: they are no seeds for a run.
SEEDS = {"val": 1_000_003, "test": 1_000_033}
MEASURED = 1_000
ALWAYS_ONE = 1 / 6  # the mean squared error of the answer 1, the best that knows nothing: the variance of a sum of two U(0, 1)


def draw(rng: Generator, rows: int, steps: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """x [B, T, 2], a number in U(0, 1) and a mark at each step, and the sum of the two marked numbers [B].

    Of the two marks one is in each half, as in the authors' code; the paper does not say.
    """
    x = np.zeros((rows, steps, 2), np.float32)
    x[:, :, 0] = rng.random((rows, steps), np.float32)
    row, half = np.arange(rows), steps // 2
    first, second = rng.integers(0, half, rows), rng.integers(half, steps, rows)
    x[row, first, 1] = x[row, second, 1] = 1
    return x, x[row, first, 0] + x[row, second, 0]
