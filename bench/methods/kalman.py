"""The extended Kalman filter (Singhal and Wu, 1989; Puskorius and Feldkamp, "Neurocontrol of nonlinear dynamical systems with Kalman filter
trained recurrent networks", IEEE Trans. Neural Networks 5, 1994).

The weights are the state of a system that does not move, the sums are what is observed of it. With H [n, P] the derivative of the answers
and C [P, P] the covariance of the weights:  K = C H' (R + H C H')^-1,  theta += K e,  C += Q - K H C. Memory P^2.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .problem import Problem

ROWS, START, NOISE, DRIFT = 8, 0.1, 0.1, 1e-6  # variance of the weights at the start, of what is observed, and per step


def train(problem: Problem, theta: Tensor, report: Callable[[Tensor], None]) -> None:
    C = START * torch.eye(problem.P)
    k = 0
    while True:
        x, total = problem.batch(k, ROWS)
        H = problem.jacobian(theta, x)
        CH = C @ H.T
        K = torch.linalg.solve(NOISE * torch.eye(ROWS) + H @ CH, CH.T).T
        with torch.no_grad():
            error = total - problem.answers(theta, x)
        theta = problem.project_(theta + K @ error)
        C = C - K @ CH.T
        C = (C + C.T) / 2
        C.diagonal().add_(DRIFT)
        report(theta)
        k += 1
