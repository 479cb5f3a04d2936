"""What the neurons of a network for the adding problem do (Li et al., 2018, figures 3 and 4): part of `indrnn inspect CHECKPOINT`.

Which of the first layer spike at the marks, which of the last accumulates, and how well one neuron of the last layer alone, with a read-out
of its own of two numbers, answers. Figure 4 trains those two numbers at T = 5000; here least squares find the same optimum at once.

A network trained on shorter sequences may hold a sum for their length and no longer: u = 0.9996 keeps 96 % over 100 steps and 14 % over
5,000. So the read-out is retrained a third time with the last layer's u at 1, which the paper does not do: whether it is memory alone that
lacks. Neurons of a layer do not meet, so all of them are tried at once.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.data import adding
from indrnn.model.nets.adding import AddingNet

SPIKE = 10.0  # a neuron spikes at the marks when it is so many times as loud there as elsewhere
LOUD = 1e-3  # and at least so loud there
SEED = 7  # of the sequences that neurons are chosen by; their figures are on those after them
LENGTH = 5_000  # of the paper's figure
FITTED, MEASURED = 100, 400  # sequences to fit read-outs to and choose a neuron by, and others to measure it on
PLACES = 50_000  # rows times steps read at once

TRIED = ("as trained", "as trained", "u set to 1")

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Findings:
    """The findings about the neurons.

    at_marks, elsewhere: mean loudness of each first-layer neuron [H]; share: of each last-layer neuron's movement, what
    falls on marks [H]; errors: mean squared error of each last-layer neuron's own read-out [H] on the sequences it was fitted to.

    best: the neuron whose is least; u: its; weight, bias: its read-out; answers, sums: on other sequences of T steps [n]; error: on those.
    """

    T: int
    at_marks: Floats
    elsewhere: Floats
    share: Floats
    errors: Floats
    best: int
    u: float
    weight: float
    bias: float
    answers: Floats
    sums: Floats

    @property
    def error(self) -> float:
        """Return the mean squared error of the answers."""
        return float(((self.answers - self.sums) ** 2).mean())

    @property
    def spiking(self) -> list[int]:
        """Return first-layer neurons that spike at the marks, the loudest first."""
        found = np.flatnonzero((self.at_marks > SPIKE * self.elsewhere) & (self.at_marks > LOUD))
        return [int(i) for i in found[np.argsort(-self.at_marks[found])]]


@torch.no_grad()
def activations(net: AddingNet, x: Tensor) -> list[Tensor]:
    """Return outputs [T, B, H] of every IndRNN layer for x [B, T, 2]."""
    layers = net.stack.indrnns()
    found: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _m, _i, out: found.append(out[0])) for layer in layers]
    try:
        net.answer(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def look(net: AddingNet, T: int | None = None) -> Findings:
    """Return what the neurons do on sequences of T steps (default: what the network is made for) drawn from SEED."""
    T = T or net.config.length
    rng = np.random.default_rng(SEED)
    loud, moved, last, total = [], [], [], []
    for start in range(0, FITTED + MEASURED, rows := max(1, min(FITTED, PLACES // T))):
        x, target = adding.draw(rng, min(rows, FITTED + MEASURED - start), T)
        first, *_, top = activations(net, torch.from_numpy(x))
        marked = torch.from_numpy(x[:, :, 1].T > 0)[..., None]  # [T, B, 1]
        loud.append(torch.stack([(first * marked).sum((0, 1)) / marked.sum(), (first * ~marked).sum((0, 1)) / (~marked).sum()]))
        steps = torch.diff(top, dim=0, prepend=torch.zeros_like(top[:1])).abs()
        moved.append(torch.stack([(steps * marked).sum((0, 1)), steps.sum((0, 1))]))
        last.append(top[-1])
        total.append(target)
    ends, y = torch.cat(last).double(), np.concatenate(total)
    h = torch.where(ends.isfinite().all(0), ends, 0.0).numpy()  # with u > 1, for few steps, a neuron outgrows float32: it says nothing
    at_marks, elsewhere = torch.stack(loud).mean(0).numpy()
    on, all_of_it = torch.stack(moved).sum(0).numpy()
    weight, bias, errors = _fit(h[:FITTED], y[:FITTED])
    best = int(errors.argmin())
    share = on / np.maximum(all_of_it, 1e-12)
    w, b, u = float(weight[best]), float(bias[best]), float(net.stack.indrnns()[-1].cell.u[best])
    return Findings(T, at_marks, elsewhere, share, errors, best, u, w, b, h[FITTED:, best] * w + b, y[FITTED:])


def _fit(h: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Least squares of y [n] by each column of h [n, H] alone -> weights, biases, mean squared errors, all [H]."""
    spread = h.var(0)
    weight = np.where(spread > 1e-12, ((h - h.mean(0)) * (y - y.mean())[:, None]).mean(0) / np.maximum(spread, 1e-12), 0.0)
    bias = y.mean() - weight * h.mean(0)
    return weight, bias, ((h * weight + bias - y[:, None]) ** 2).mean(0)


@torch.no_grad()
def remembering(net: AddingNet) -> AddingNet:
    """Return the network whose last layer's neurons all have u = 1: sums that are neither forgotten nor blown up."""
    net = copy.deepcopy(net)
    net.stack.indrnns()[-1].cell.u.fill_(1.0)
    return net


def inspect(net: AddingNet, length: int, out: Path | None) -> tuple[Findings, Findings, Findings]:
    """Return what the neurons do on the network's own sequences, on those of `length` steps, and on these with u = 1 in the last layer.

    Draws neurons.png and one_neuron.png below out.
    """
    seen = look(net), look(net, length), look(remembering(net), length)
    if out is not None:
        draw(net, seen[0], out)
        draw_answers(seen, out)
    return seen


def told(seen: tuple[Findings, ...]) -> dict[str, Any]:
    """Return the numbers, for programs."""
    own = seen[0]
    return {
        "length": own.T,
        "spiking": own.spiking,
        "best": own.best,
        "u_best": own.u,
        "share_at_marks": float(own.share[own.best]),
        "one_neuron": [{"T": n.T, "neuron": n.best, "u": n.u, "weight": n.weight, "bias": n.bias, "mse": n.error} for n in seen],
    }


def said(seen: tuple[Findings, ...]) -> str:
    """Return the numbers, for people."""
    own = seen[0]
    how = f"mean squared error on {MEASURED} sequences; of the answer 1: {adding.ALWAYS_ONE:.3f}"
    return "\n".join(
        [
            f"first layer: {len(own.spiking)} of {len(own.at_marks)} neurons spike at the marks, the loudest {own.spiking[:5]}",
            f"last layer: neuron {own.best} accumulates; {100 * own.share[own.best]:.1f} % of its movement is at the marks",
            f"one neuron alone, its read-out of two numbers retrained ({how})",
            *(f"  {what:11} T = {n.T:<5} neuron {n.best:<4} u {n.u:.5f}  error {n.error:.2g}" for what, n in zip(TRIED, seen, strict=True)),
        ]
    )


def draw(net: AddingNet, n: Findings, out: Path) -> None:
    """Draw one sequence: the first layer's neurons, the last layer's with the accumulating one, the marks as lines."""
    from matplotlib.figure import Figure

    x, _ = adding.draw(np.random.default_rng(SEED), 1, net.config.length)
    first, *_, top = activations(net, torch.from_numpy(x))
    picture = Figure((8, 5), layout="constrained")
    upper, lower = picture.subplots(2, 1, sharex=True)
    upper.plot(first[:, 0], lw=0.6)
    upper.set(title="first layer", ylabel="h")
    lower.plot(top[:, 0], lw=0.4, color="0.8")
    lower.plot(top[:, 0, n.best], lw=1.8, label=f"neuron {n.best}")
    lower.set(title="last layer", xlabel="step", ylabel="h")
    lower.legend()
    for axes in (upper, lower):
        for mark in np.flatnonzero(x[0, :, 1]):
            axes.axvline(float(mark), color="black", lw=0.6, ls=":")
    picture.savefig(out / "neurons.png")


def draw_answers(seen: tuple[Findings, ...], out: Path) -> None:
    """Draw one_neuron.png below out: what the one neuron answers beside what was to be answered."""
    from matplotlib.figure import Figure

    picture = Figure((9, 3.2), layout="constrained")
    for axes, what, n in zip(picture.subplots(1, 3, sharex=True, sharey=True), TRIED, seen, strict=True):
        axes.plot([0, 2], [0, 2], color="0.7", lw=0.8)
        axes.scatter(n.sums, n.answers, s=3)
        axes.set(title=f"{what}, T = {n.T}: {n.error:.2g}", xlabel="sum", ylim=(-0.5, 2.5))
    picture.savefig(out / "one_neuron.png")
