"""Global optimisers of SciPy: differential evolution (Storn and Price, 1997) and dual annealing (Xiang et al., 1997).

They look at the loss alone, in a box. Numbers of weights that they can search are small: two neurons a layer, 19 weights, which can solve
the adding problem (hold back what is not marked; add up).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .problem import Problem

HIDDEN, BOX, ROWS = 2, 2.0, 256


def train(problem: Problem, theta: Tensor, report: Callable[[Tensor], None], name: str = "differential_evolution") -> None:
    """Raises ModuleNotFoundError where SciPy is not installed: nothing else of ours needs it."""
    from scipy import optimize

    x, total = problem.batch(0, ROWS)
    best: list[Any] = [float("inf"), theta]

    def loss(values: NDArray[np.float64]) -> float:
        tried = problem.project_(torch.from_numpy(values.astype(np.float32)))
        found = float(problem.loss(tried, x, total))
        found = found if np.isfinite(found) else 1e6
        if found < best[0]:
            best[:] = found, tried
        report(best[1])
        return found

    box = [(-BOX, BOX)] * problem.P
    if name == "dual_annealing":
        optimize.dual_annealing(loss, box, maxiter=10**9, rng=problem.seed)
    else:
        optimize.differential_evolution(loss, box, maxiter=10**9, tol=0, polish=False, rng=problem.seed)
