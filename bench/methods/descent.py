"""Gradient descent by one of torch's optimisers, as `indrnn train --optimizer` has them (model/training/optimisation/optimisers.py)."""

from collections.abc import Callable

import torch
from torch import Tensor

from indrnn.model.training.optimisation.optimisers import OPTIMISERS

from .problem import Problem

ADAMW = 5e-3  # its rate in this problem, of which the others' defaults are told
WHOLE_ROWS = 256  # of a batch for an optimiser that searches along lines


def train(
    problem: Problem,
    theta: Tensor,
    report: Callable[[Tensor], None],
    optimiser: str = "adamw",
    rate: float | None = None,
    clip_norm: float = 1.0,
    clip_value: float = 0.0,
    horizon: int = 0,
) -> None:
    """Until `report` says stop. horizon: steps that the gradient goes back; 0: all. clip_norm, clip_value: 0 for none."""
    kind = OPTIMISERS[optimiser]
    theta = theta.clone().requires_grad_()
    taken = kind.make([theta], lr=kind.default_rate(ADAMW) if rate is None else rate, **kind.options)
    k = 0
    while True:
        x, total = problem.batch(k, WHOLE_ROWS if kind.whole else 32)

        def closure(x: Tensor = x, total: Tensor = total) -> Tensor:
            taken.zero_grad()
            answers = truncated(problem, theta, x, horizon) if horizon else problem.answers(theta, x)
            loss = (answers - total).square().mean()
            loss.backward()
            if clip_norm and not kind.whole:  # a line search wants the gradient of what it searches
                torch.nn.utils.clip_grad_norm_([theta], clip_norm)
            if clip_value:
                torch.nn.utils.clip_grad_value_([theta], clip_value)
            return loss

        taken.step(closure)
        problem.project_(theta)
        report(theta.detach())
        k += 1


def truncated(problem: Problem, theta: Tensor, x: Tensor, horizon: int) -> Tensor:
    """The answers, whose gradient goes back `horizon` steps from the last (Williams and Peng, Neural Computation 2, 1990)."""
    from indrnn.model.cells.recurrence import recurrence

    w, cut = problem.parts(theta), x.shape[1] - horizon
    with torch.no_grad():
        early1 = recurrence(x[:, :cut].transpose(0, 1) @ w["W1"].T + w["b1"], w["u1"])
        start = early1[1], recurrence(early1[0] @ w["W2"].T + w["b2"], w["u2"])[1]
    h1 = recurrence(x[:, cut:].transpose(0, 1) @ w["W1"].T + w["b1"], w["u1"], None, start[0])[0]
    h2 = recurrence(h1 @ w["W2"].T + w["b2"], w["u2"], None, start[1])[0]
    return h2[-1] @ w["v"] + w["c"]
