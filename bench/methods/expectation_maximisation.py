"""Expectation maximisation (Ma and Ji, "Fast training of recurrent networks based on the EM algorithm", IEEE TNN 9, 1998).

What each neuron is fed is hidden: z_t = W x_t + b + u f(z_{t-1}) + noise, and the sum is v f(z_T) + c + noise. E: the most likely z given
the sums, by some steps of gradient descent from a pass forward on (the mode, where Ma and Ji take a mean field). M: each neuron is a
regression of its z on what it reads, solved at once, with a pull towards the weights before, since a batch is a sample.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .problem import Problem

ROWS, STEPS, RATE, PULL = 256, 5, 0.3, 0.05
HIDDEN, SAID = 0.01, 0.05  # variances of the noise of what is fed (1 and 0.1 did worse), and of the sum


def train(problem: Problem, theta: Tensor, report: Callable[[Tensor], None]) -> None:
    k = 0
    while True:
        x, total = problem.batch(k, ROWS)
        z1, z2 = expected(problem, theta, x, total)
        theta = problem.project_(maximised(problem, theta, x, total, z1, z2))
        report(theta)
        k += 1


def expected(problem: Problem, theta: Tensor, x: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """What the neurons were most likely fed, [T, B, H] for each layer."""
    w, xs = problem.parts(theta), x.transpose(0, 1)
    zs: list[Tensor] = []
    read = xs @ w["W1"].T + w["b1"]
    for u in (w["u1"], w["u2"]):
        h, steps = torch.zeros_like(read[0]), []
        for now in read:
            steps.append(now + u * h)
            h = steps[-1].relu()
        zs.append(torch.stack(steps))
        read = zs[-1].relu() @ w["W2"].T + w["b2"]
    z1, z2 = (z.detach().requires_grad_() for z in zs)
    for _ in range(STEPS):
        h1, h2 = z1.relu(), z2.relu()
        fed1 = xs @ w["W1"].T + w["b1"] + w["u1"] * _before(h1)
        fed2 = h1 @ w["W2"].T + w["b2"] + w["u2"] * _before(h2)
        far = (z1 - fed1).square().sum() / HIDDEN + (z2 - fed2).square().sum() / HIDDEN
        energy = far / 2 + (h2[-1] @ w["v"] + w["c"] - total).square().sum() / (2 * SAID)
        for z, g in zip((z1, z2), torch.autograd.grad(energy, (z1, z2)), strict=True):
            z.data -= RATE * HIDDEN * g
    return z1.detach(), z2.detach()


@torch.no_grad()
def maximised(problem: Problem, theta: Tensor, x: Tensor, total: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """The weights by which those z are most likely."""
    w, xs = problem.parts(theta), x.transpose(0, 1)
    h1, h2 = z1.relu(), z2.relu()
    found = {name: part.clone() for name, part in w.items()}
    for n, (read, h, z) in enumerate(((xs, h1, z1), (h1, h2, z2)), start=1):
        before, ones = _before(h), torch.ones(*h.shape[:2], 1)
        for i in range(problem.H):
            A = torch.cat([read, ones, before[..., i : i + 1]], 2).flatten(0, 1)
            old = torch.cat([w[f"W{n}"][i], w[f"b{n}"][i : i + 1], w[f"u{n}"][i : i + 1]])
            new = _regression(A, z[..., i].flatten(), old)
            found[f"W{n}"][i], found[f"b{n}"][i], found[f"u{n}"][i] = new[:-2], new[-2], new[-1]
    A = torch.cat([h2[-1], torch.ones(len(x), 1)], 1)
    new = _regression(A, total, torch.cat([w["v"], w["c"]]))
    found["v"], found["c"] = new[:-1], new[-1:]
    return torch.cat([found[name].flatten() for name in problem.shapes])


def _regression(A: Tensor, y: Tensor, old: Tensor) -> Tensor:
    n = len(A)
    return old + torch.linalg.solve(A.T @ A / n + PULL * torch.eye(A.shape[1]), A.T @ (y - A @ old) / n)


def _before(h: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(h[:1]), h[:-1]])
