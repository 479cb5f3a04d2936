"""The adding problem for a network that every method can afford: two layers of relu IndRNN and a readout, all weights in one vector.

h1_t = relu(W1 x_t + b1 + u1 h1_{t-1}), h2_t = relu(W2 h1_t + b2 + u2 h2_{t-1}), the sum v h2_T + c. One layer cannot solve it: what is not
marked has to be held back before it is added up. |u| <= 2^(1/T) after each change (Li et al., 2018, section 4.1).
"""

import numpy as np
import torch
from torch import Tensor

from indrnn.model.cells.recurrence import recurrence
from indrnn.model.data import adding


class Problem:
    """T steps, H neurons a layer; theta [P] float32 is W1 [H, 2], b1, u1 [H], W2 [H, H], b2, u2 [H], v [H], c [1] in this order.

    forgets: u2 starts in [0, 0.5], so that memory has to be learned, and not near the bound. early: both marks lie in the first half of the
    steps, so that what is marked has to be held for T / 2 steps and more.
    """

    def __init__(self, T: int = 50, H: int = 16, seed: int = 1, forgets: bool = False, early: bool = False) -> None:
        self.T, self.H, self.seed, self.forgets, self.early = T, H, seed, forgets, early
        self.bound = 2 ** (1 / T)
        self.shapes = {"W1": (H, 2), "b1": (H,), "u1": (H,), "W2": (H, H), "b2": (H,), "u2": (H,), "v": (H,), "c": (1,)}
        self.sizes = [int(np.prod(s)) for s in self.shapes.values()]
        self.P = sum(self.sizes)
        self.held = self._drawn(np.random.default_rng(adding.SEEDS["val"]), adding.MEASURED)

    def start(self) -> Tensor:
        """Weights uniform by the number of inputs, the second layer's u near the bound: it is what adds up."""
        g = torch.Generator().manual_seed(self.seed)
        spread = {"W1": 2**-0.5, "W2": self.H**-0.5, "v": self.H**-0.5}
        parts = []
        for name, shape in self.shapes.items():
            drawn = torch.rand(shape, generator=g)
            low = 2 ** (-1 / self.T)
            u2 = drawn / 2 if self.forgets else low + drawn * (self.bound - low)
            value = {"u1": drawn * self.bound, "u2": u2}.get(name)
            parts.append((2 * drawn - 1) * spread.get(name, 0.0) if value is None else value)
        return torch.cat([p.flatten() for p in parts])

    def parts(self, theta: Tensor) -> dict[str, Tensor]:
        pieces = theta.split(self.sizes)
        return {name: p.view(shape) for (name, shape), p in zip(self.shapes.items(), pieces, strict=True)}

    def places(self) -> dict[str, slice]:
        """Where each array lies in theta."""
        ends = np.cumsum([0, *self.sizes])
        return {name: slice(int(a), int(b)) for name, a, b in zip(self.shapes, ends[:-1], ends[1:], strict=True)}

    def answers(self, theta: Tensor, x: Tensor) -> Tensor:
        """x [B, T, 2] -> the sums [B]."""
        w = self.parts(theta)
        h1 = recurrence(x.transpose(0, 1) @ w["W1"].T + w["b1"], w["u1"])[0]
        h2 = recurrence(h1 @ w["W2"].T + w["b2"], w["u2"])[0]
        return h2[-1] @ w["v"] + w["c"]

    def loss(self, theta: Tensor, x: Tensor, total: Tensor) -> Tensor:
        return (self.answers(theta, x) - total).square().mean()

    def batch(self, k: int, rows: int = 32) -> tuple[Tensor, Tensor]:
        return self._drawn(np.random.default_rng([self.seed, k]), rows)

    def _drawn(self, rng: np.random.Generator, rows: int) -> tuple[Tensor, Tensor]:
        """Sequences [rows, T, 2], and their sums."""
        x, total = adding.draw(rng, rows, self.T // 2 if self.early else self.T)
        if self.early:
            rest = np.zeros((rows, self.T - x.shape[1], 2), np.float32)
            rest[..., 0] = rng.random(rest.shape[:2])  # as the numbers before, none of them marked
            x = np.concatenate([x, rest], 1)
        return torch.from_numpy(x), torch.from_numpy(total)

    def project_(self, theta: Tensor) -> Tensor:
        """Bring U back to its bound."""
        for name in ("u1", "u2"):
            theta.data[self.places()[name]].clamp_(-self.bound, self.bound)
        return theta

    @torch.no_grad()
    def error(self, theta: Tensor) -> float:
        """Mean squared error on sequences that no batch has; 0.167 for the answer 1."""
        return float(self.loss(theta, *self.held))

    def jacobian(self, theta: Tensor, x: Tensor) -> Tensor:
        """The derivative of each row's answer by theta, [B, P]: one backward pass over rows, each with weights of its own."""
        w = {n: p.detach() for n, p in self.parts(theta).items()}
        h = [recurrence(x.transpose(0, 1) @ w["W1"].T + w["b1"], w["u1"])[0]]
        h.append(recurrence(h[0] @ w["W2"].T + w["b2"], w["u2"])[0])
        a2, a1 = self.backward(w, h)
        before = [torch.cat([torch.zeros_like(y[:1]), y[:-1]]) for y in h]
        rows = [
            torch.einsum("tbi,btj->bij", a1, x).flatten(1),
            a1.sum(0),
            (a1 * before[0]).sum(0),
            torch.einsum("tbi,tbj->bij", a2, h[0]).flatten(1),
            a2.sum(0),
            (a2 * before[1]).sum(0),
            h[1][-1],
            torch.ones(len(x), 1),
        ]
        return torch.cat(rows, 1)

    @staticmethod
    def backward(w: dict[str, Tensor], h: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The derivatives of each row's answer by what the neurons of layer 2 and of layer 1 are fed, [T, B, H] each."""
        g = torch.zeros_like(h[1])
        g[-1] = w["v"]
        a2 = _through_time(g, h[1], w["u2"])
        return a2, _through_time(a2 @ w["W2"], h[0], w["u1"])


def _through_time(g: Tensor, h: Tensor, u: Tensor) -> Tensor:
    lengths = torch.full((h.shape[1],), len(h))
    zero = torch.zeros_like(h[0])
    return torch.ops.indrnn.recurrence_backward(g.contiguous(), zero, h, u, lengths, zero, "relu", 0.01, "forward")[0]
