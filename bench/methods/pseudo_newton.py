"""Time-weighted pseudo-Newton (Bengio, Simard and Frasconi, 1994, section V, after Becker and LeCun, 1989).

A weight is taken for T weights, one a step, each with a curvature of its own: where a step's curvature is small, because what it does has
nearly vanished at the end, its part of the gradient is weighted up:  dw = -rate sum_t g_t / (|s_t| + mu), s_t the diagonal of the
Gauss-Newton matrix by the weight of step t, brought backward through time like the gradient g_t, with squared weights.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .problem import Problem

RATE, MU, ROWS = 0.0005, 0.5, 32  # with a rate of 0.005 or a mu of 0.05 the first steps went to 1e13


def train(problem: Problem, theta: Tensor, report: Callable[[Tensor], None]) -> None:
    k = 0
    while True:
        theta = problem.project_(theta - RATE * step(problem, theta, *problem.batch(k, ROWS)))
        report(theta)
        k += 1


@torch.no_grad()
def step(problem: Problem, theta: Tensor, x: Tensor, total: Tensor) -> Tensor:
    """The direction of one step, [P]."""
    w, B = problem.parts(theta), len(x)
    xs = x.transpose(0, 1)
    h1 = _forward(xs @ w["W1"].T + w["b1"], w["u1"])
    h2 = _forward(h1 @ w["W2"].T + w["b2"], w["u2"])
    e = (h2[-1] @ w["v"] + w["c"] - total) * 2 / B
    g2, s2 = torch.zeros_like(h2), torch.zeros_like(h2)
    g2[-1], s2[-1] = e[:, None] * w["v"], 2 / B * w["v"] ** 2
    g2, s2 = _backward(g2, s2, h2, w["u2"])
    g1, s1 = _backward(g2 @ w["W2"], s2 @ w["W2"] ** 2, h1, w["u1"])
    before1, before2 = (torch.cat([torch.zeros_like(h[:1]), h[:-1]]) for h in (h1, h2))
    last = h2[-1]
    parts = [
        _weighted(torch.einsum("tbi,tbj->tij", g1, xs), torch.einsum("tbi,tbj->tij", s1, xs**2)).flatten(),
        _weighted(g1.sum(1), s1.sum(1)),
        _weighted((g1 * before1).sum(1), (s1 * before1**2).sum(1)),
        _weighted(torch.einsum("tbi,tbj->tij", g2, h1), torch.einsum("tbi,tbj->tij", s2, h1**2)).flatten(),
        _weighted(g2.sum(1), s2.sum(1)),
        _weighted((g2 * before2).sum(1), (s2 * before2**2).sum(1)),
        (e @ last) / (2 / B * (last**2).sum(0) + MU),
        (e.sum() / (2 + MU))[None],
    ]
    return torch.cat(parts)


def _weighted(g: Tensor, s: Tensor) -> Tensor:
    return (g / (s.abs() + MU)).sum(0)


def _forward(a: Tensor, u: Tensor) -> Tensor:
    h, steps = torch.zeros_like(a[0]), []
    for now in a:
        h = (now + u * h).relu()
        steps.append(h)
    return torch.stack(steps)


def _backward(g: Tensor, s: Tensor, h: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """From the derivatives and curvatures by each output to those by what the neurons are fed, through time."""
    dg, ds = torch.zeros_like(g[0]), torch.zeros_like(g[0])
    gs, ss = [], []
    for t in range(len(h) - 1, -1, -1):
        on = (h[t] > 0).to(g.dtype)
        dg, ds = on * (g[t] + dg), on * (s[t] + ds)
        gs.append(dg)
        ss.append(ds)
        dg, ds = dg * u, ds * u**2
    return torch.stack(gs[::-1]), torch.stack(ss[::-1])
