"""Levenberg-Marquardt with a block-diagonal matrix (Chan and Szeto, "Training recurrent network with block-diagonal approximated
Levenberg-Marquardt algorithm", IJCNN 1999).

J' J is kept for the weights of one neuron by one another alone: 2 H blocks of a neuron's inputs, bias and u, and one of the readout. A
step solves (J' J + mu I) d = J' e block by block; mu falls after a step that lowers the error, and rises after one that does not, which
is undone.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .problem import Problem

ROWS, MU, LESS, MORE = 512, 1.0, 0.5, 4.0


def blocks(problem: Problem) -> list[Tensor]:
    """The places in theta of each neuron's weights, and of the readout's."""
    places, H = problem.places(), problem.H
    at = {name: torch.arange(s.start, s.stop).view(problem.shapes[name]) for name, s in places.items()}
    neurons = [torch.cat([at[f"W{n}"][i], at[f"b{n}"][i : i + 1], at[f"u{n}"][i : i + 1]]) for n in (1, 2) for i in range(H)]
    return [*neurons, torch.cat([at["v"], at["c"]])]


def train(problem: Problem, theta: Tensor, report: Callable[[Tensor], None]) -> None:
    mu, k, parts = MU, 0, blocks(problem)
    while True:
        x, total = problem.batch(k, ROWS)
        J = problem.jacobian(theta, x)
        with torch.no_grad():
            e = total - problem.answers(theta, x)
            before = float(e.square().mean())
            d = torch.zeros(problem.P)
            for places in parts:
                own = J[:, places]
                d[places] = torch.linalg.solve(own.T @ own / ROWS + mu * torch.eye(len(places)), own.T @ e / ROWS)
            moved = problem.project_(theta + d)
            if float(problem.loss(moved, x, total)) < before:
                theta, mu = moved, max(mu * LESS, 1e-6)
            else:
                mu = min(mu * MORE, 1e6)
        report(theta)
        k += 1
