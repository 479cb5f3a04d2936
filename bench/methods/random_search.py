"""Multi-grid random search (Bengio, Simard and Frasconi, "Learning long-term dependencies … is difficult", IEEE TNN 5, 1994).

Points are drawn in a box round the best one so far. A better one moves the box; a box in which many draws found none is halved, and when it
is smaller than the smallest the search begins again with the largest. No gradient is needed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .problem import Problem

LARGEST, SMALLEST, DRAWS, ROWS = 1.0, 1e-3, 100, 256


def train(problem: Problem, theta: Tensor, report: Callable[[Tensor], None]) -> None:
    g = torch.Generator().manual_seed(problem.seed)
    x, total = problem.batch(0, ROWS)  # always the same: a draw must not win by its sequences
    best, size, misses = float(problem.loss(theta, x, total)), LARGEST, 0
    while True:
        drawn = problem.project_(theta + size * (2 * torch.rand(problem.P, generator=g) - 1))
        loss = float(problem.loss(drawn, x, total))
        if loss < best:
            theta, best, misses = drawn, loss, 0
        else:
            misses += 1
        if misses == DRAWS:
            size, misses = (size / 2 if size > SMALLEST else LARGEST), 0
        report(theta)
