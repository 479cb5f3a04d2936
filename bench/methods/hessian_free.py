"""Hessian-free optimisation (Martens, "Deep learning via Hessian-free optimization", ICML 2010; Martens and Sutskever, ICML 2011).

Each step lowers a quadratic model whose matrix, Gauss-Newton's plus lambda I, is never formed: conjugate gradients ask for its products
with vectors alone, J' (J v). They begin where the last step's ended; lambda follows how well the model foretold the loss. No structural
damping.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .problem import Problem

ROWS, MOST, LAMBDA, FADE = 512, 30, 0.01, 0.7  # from 0.1 on lambda rose to where nothing moved; 0.001 was as good


def train(problem: Problem, theta: Tensor, report: Callable[[Tensor], None]) -> None:
    damping, d, k = LAMBDA, torch.zeros(problem.P), 0
    while True:
        x, total = problem.batch(k, ROWS)
        J = problem.jacobian(theta, x)  # its rows come in one backward pass here; a net with many answers would take two passes a product
        with torch.no_grad():
            e = problem.answers(theta, x) - total
            gradient, before = 2 / ROWS * J.T @ e, float(e.square().mean())
            d = conjugate(lambda v, J=J, damping=damping: 2 / ROWS * J.T @ (J @ v) + damping * v, -gradient, FADE * d)
            model = float(gradient @ d + (J @ d).square().mean())
            size, after = 1.0, before
            while size > 1e-3:
                moved = problem.project_(theta + size * d)
                after = float(problem.loss(moved, x, total))
                if after < before:
                    theta = moved
                    break
                size /= 2
            ratio = (after - before) / model if model < 0 and size == 1 else 0.0
            damping *= 2 / 3 if ratio > 0.75 else 1.5 if ratio < 0.25 else 1.0
            damping = min(max(damping, 1e-6), 1e3)
        report(theta)
        k += 1


def conjugate(product: Callable[[Tensor], Tensor], b: Tensor, v: Tensor) -> Tensor:
    """Solve product(v) = b as far as MOST steps of conjugate gradients go, from v on."""
    r = b - product(v)
    p, rr = r.clone(), float(r @ r)
    for _ in range(MOST):
        if rr < 1e-12 * float(b @ b):
            break
        Ap = product(p)
        a = rr / float(p @ Ap)
        v, r = v + a * p, r - a * Ap
        new = float(r @ r)
        p, rr = r + new / rr * p, new
    return v
