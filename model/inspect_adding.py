"""`python -m model inspect CHECKPOINT`: what the neurons of a network for the adding problem do (Li et al., 2018, figures 3 and 4).

Which of the first layer spike at the marks, which of the last accumulates, and how well one neuron of the last layer alone, with a read-out
of its own of two numbers, answers.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model import checkpoint, marks
from model.adding import AddingNet
from model.layer import Layer

SPIKE = 10.0  # a neuron spikes at the marks when it is so many times as loud there as elsewhere
LOUD = 1e-3  # and at least so loud there
SEED = 7  # of the sequences that neurons are chosen by; their figures are on those after them
SEQUENCES = 100  # to choose by, and as many to measure on
PLACES = 50_000  # rows times steps read at once

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Neurons:
    """What was found. at_marks, elsewhere: mean loudness of each first-layer neuron [H]; share: of each last-layer neuron's movement, what
    falls on marks [H]; errors: mean squared error of each last-layer neuron's own read-out [H] on the sequences it was fitted to.

    best: the neuron whose is least; weight, bias: its read-out; error: on other sequences.
    """

    at_marks: Floats
    elsewhere: Floats
    share: Floats
    errors: Floats
    best: int
    weight: float
    bias: float
    error: float

    @property
    def spiking(self) -> list[int]:
        """First-layer neurons that spike at the marks, the loudest first."""
        found = np.flatnonzero((self.at_marks > SPIKE * self.elsewhere) & (self.at_marks > LOUD))
        return [int(i) for i in found[np.argsort(-self.at_marks[found])]]


@torch.no_grad()
def activations(net: AddingNet, x: Tensor) -> list[Tensor]:
    """Outputs [T, B, H] of every IndRNN layer for x [B, T, 2]."""
    layers = [m for m in net.stack.modules() if isinstance(m, Layer)]
    found: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _m, _i, out: found.append(out[0])) for layer in layers]
    try:
        net.answer(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def look(net: AddingNet, T: int | None = None) -> Neurons:
    """What the neurons do on sequences of T steps (default: what the network is made for) drawn from SEED."""
    T = T or net.config.length
    rng = np.random.default_rng(SEED)
    loud, moved, last, total = [], [], [], []
    for start in range(0, 2 * SEQUENCES, rows := max(1, min(SEQUENCES, PLACES // T))):
        x, target = marks.draw(rng, min(rows, 2 * SEQUENCES - start), T)
        first, *_, top = activations(net, torch.from_numpy(x))
        marked = torch.from_numpy(x[:, :, 1].T > 0)[..., None]  # [T, B, 1]
        loud.append(torch.stack([(first * marked).sum((0, 1)) / marked.sum(), (first * ~marked).sum((0, 1)) / (~marked).sum()]))
        steps = torch.diff(top, dim=0, prepend=torch.zeros_like(top[:1])).abs()
        moved.append(torch.stack([(steps * marked).sum((0, 1)), steps.sum((0, 1))]))
        last.append(top[-1])
        total.append(target)
    h, y = torch.cat(last).double().numpy(), np.concatenate(total)
    at_marks, elsewhere = torch.stack(loud).mean(0).numpy()
    on, all_of_it = torch.stack(moved).sum(0).numpy()
    weight, bias, errors = _fit(h[:SEQUENCES], y[:SEQUENCES])
    best = int(errors.argmin())
    error = float(((h[SEQUENCES:, best] * weight[best] + bias[best] - y[SEQUENCES:]) ** 2).mean())
    share = on / np.maximum(all_of_it, 1e-12)
    return Neurons(at_marks, elsewhere, share, errors, best, float(weight[best]), float(bias[best]), error)


def _fit(h: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Least squares of y [n] by each column of h [n, H] alone -> weights, biases, mean squared errors, all [H]."""
    spread = h.var(0)
    weight = np.where(spread > 1e-12, ((h - h.mean(0)) * (y - y.mean())[:, None]).mean(0) / np.maximum(spread, 1e-12), 0.0)
    bias = y.mean() - weight * h.mean(0)
    return weight, bias, ((h * weight + bias - y[:, None]) ** 2).mean(0)


def run(path: Path, out: Path | None) -> dict[str, Any]:
    """Prints what was found as lines and, last, as JSON; draws neurons.png below out. Raises CheckpointError."""
    net, meta = checkpoint.load(path)
    if not isinstance(net, AddingNet) or net.config.cell != "indrnn":
        raise checkpoint.CheckpointError(f"{path}: expected an IndRNN for the adding problem, or a bundle's folder; got {meta.task}")
    n = look(net)
    told = {
        "length": net.config.length,
        "spiking": n.spiking,
        "best": n.best,
        "share_at_marks": float(n.share[n.best]),
        "readout": [n.weight, n.bias],
        "mse_one_neuron": n.error,
        "u_best": float(_last(net).u[n.best]),
    }
    print(f"first layer: {len(n.spiking)} of {len(n.at_marks)} neurons spike at the marks: {n.spiking[:10]}")
    print(f"last layer: neuron {n.best} (u = {told['u_best']:.5f}) moves at the marks with {100 * n.share[n.best]:.1f} % of its movement")
    print(f"it alone, read out as {n.weight:.4f} h + {n.bias:.4f}: mean squared error {n.error:.5f} (the answer 1: {marks.ALWAYS_ONE:.3f})")
    if out is not None:
        draw(net, n, out)
    print(json.dumps(told))
    return told


def _last(net: AddingNet) -> Layer:
    return [m for m in net.stack.modules() if isinstance(m, Layer)][-1]


def draw(net: nn.Module, n: Neurons, out: Path) -> None:
    """One sequence: the first layer's neurons, the last layer's with the accumulating one, the marks as lines."""
    from matplotlib.figure import Figure

    assert isinstance(net, AddingNet)
    x, _ = marks.draw(np.random.default_rng(SEED), 1, net.config.length)
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
    out.mkdir(parents=True, exist_ok=True)
    picture.savefig(out / "neurons.png")
