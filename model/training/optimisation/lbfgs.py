"""L-BFGS for batches: what was learned of the curvature on one batch is not held against the next one."""

from collections.abc import Callable
from typing import Any

from torch import optim


class BatchLBFGS(optim.LBFGS):
    """torch's L-BFGS (Liu and Nocedal, 1989), begun anew in each step, which makes `max_iter` iterations on its batch.

    torch's own takes the difference between two batches' gradients for curvature: on the adding problem of 50 steps that ended in NaN
    within 50 steps.
    """

    def step(self, closure: Callable[[], float]) -> Any:  # type: ignore[override]  # torch's own is untyped
        """Make a step; closure computes the loss and its gradient."""
        self.state.clear()
        return super().step(closure)  # type: ignore[no-untyped-call]
