"""The gated orthogonal recurrent unit (GORU; Jing et al., 2017, arXiv 1706.02761):

r, z = sigmoid(W x + b + U h),  n = modrelu(W_n x + b_n + r * (O h); m),  h' = z * h + (1 - z) * n,  modrelu(a; m) = sign(a) relu(|a| + m).

O [H, H] is orthogonal whatever its weights: a product of about log2 H stages, each of which turns pairs of neurons 1, 2, 4, ... apart by
angles of their own (the form of a fast Fourier transform; a neuron whose partner there would be past the last stays). project: W [3H, in],
b [3H] in the order r, z, n; b_n is ours beside m, so that a norm of the input can be folded; gates: U [2H, H]; angles: one of each pair,
[pairs]. State h [H].

O is multiplied out once for each call, and is one dense matrix in the file. Compared with the authors' code (jingli9111/GORU-tensorflow),
which calls z g, has m alone in place of b_n and m, starts the reset gate's bias at 2 where here the update gate's is 1, and turns pairs
that are far apart first; the paper's own numbers of equations could not be looked up.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn, sigmoid

from indrnn.model.cells import rnn
from indrnn.model.cells.cell import Floats, StatePart
from indrnn.model.cells.classic.looped import Looped, recurrent


class GORU(Looped):
    """The cell as the file says. Angles start in U[-pi, pi], the update gate at z = sigmoid(1), m at 0."""

    name = "goru"
    about = "A network of gated orthogonal recurrent units (GORU; Jing et al., 2017, arXiv 1706.02761)"
    endless = "O neither shrinks nor grows a state, and where its gates let everything through nothing else bounds it."
    bounded = False
    step_onnx = """
        thirds = Constant <value_ints = [{H}, {H}, {H}]> ()
        x_r, x_z, x_n = Split <axis = 1> (x, thirds)
        of_h = MatMul (s, U)
        h_r, h_z, turned = Split <axis = 1> (of_h, thirds)
        r_sum = Add (x_r, h_r)
        r = Sigmoid (r_sum)
        z_sum = Add (x_z, h_z)
        z = Sigmoid (z_sum)
        let = Mul (r, turned)
        a = Add (x_n, let)
        side = Sign (a)
        size = Abs (a)
        moved = Add (size, m)
        kept = Relu (moved)
        n = Mul (side, kept)
        away = Sub (s, n)
        stays = Mul (z, away)
        y = Add (n, stays)
        s_next = Identity (y)
    """

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(inputs, size, 3 * size)
        nn.init.uniform_(self.project.weight, -(size**-0.5), size**-0.5)
        self.project.bias.data[size : 2 * size] = 1
        self.gates = recurrent(2 * size, size)
        self.angles = nn.Parameter(torch.empty(len(pairs(size))).uniform_(-torch.pi, torch.pi))
        self.m = nn.Parameter(torch.zeros(size))

    def parts(self) -> tuple[StatePart, ...]:
        """Return h."""
        return (StatePart("hidden", self.size, name="h"),)

    def orthogonal(self) -> Tensor:
        """Return O [H, H]."""
        found, H, done = torch.eye(self.size, dtype=self.angles.dtype, device=self.angles.device), self.size, 0
        for stride in strides(H):
            first = torch.tensor([i for i, _ in stage(H, stride)], device=found.device)
            angle = self.angles[done : done + len(first)]
            partner = torch.arange(H, device=found.device)
            partner[first], partner[first + stride] = first + stride, first
            cos = torch.ones_like(self.m).index_put((torch.cat([first, first + stride]),), angle.cos().repeat(2))
            sin = torch.zeros_like(self.m).index_put((torch.cat([first, first + stride]),), torch.cat([-angle.sin(), angle.sin()]))
            found = cos[:, None] * found + sin[:, None] * found[partner]
            done += len(first)
        return found

    def matrices(self) -> tuple[Tensor, ...]:
        """Return U of the gates and O, as what a row of h is multiplied with, [H, 3H]."""
        return (torch.cat([self.gates, self.orthogonal()]).T,)

    def go(self, p: Tensor, state: Tensor, *matrices: Tensor) -> tuple[Tensor, Tensor]:
        """One step, as above."""
        x_gates, x_n = torch.split(p, [2 * self.size, self.size], 1)
        h_gates, turned = torch.split(state @ matrices[0], [2 * self.size, self.size], 1)
        r, z = torch.split(sigmoid(x_gates + h_gates), self.size, 1)
        a = x_n + r * turned
        h = torch.lerp(a.sign() * torch.relu(a.abs() + self.m), state, z)
        return h, h

    def constants(self) -> Mapping[str, Tensor]:
        """Return U and O in one, and m."""
        return {"U": self.matrices()[0], "m": self.m}

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above, pair by pair."""
        x_r, x_z, x_n = np.split(self.product(weights, x), 3)
        h_r, h_z = np.split(weights["gates"] @ state, 2)
        turned = np.array(state)
        for (i, j), angle in zip(pairs(self.size), weights["angles"], strict=True):
            turned[i], turned[j] = (
                np.cos(angle) * turned[i] - np.sin(angle) * turned[j],
                np.sin(angle) * turned[i] + np.cos(angle) * turned[j],
            )
        r, z = rnn.sigmoid(x_r + h_r), rnn.sigmoid(x_z + h_z)
        a = x_n + r * turned
        h: Floats = z * state + (1 - z) * np.sign(a) * np.maximum(np.abs(a) + weights["m"], 0)
        return h, h


def strides(size: int) -> list[int]:
    """Return how far apart the neurons of a pair are, stage by stage."""
    return [2**k for k in range((size - 1).bit_length())]


def stage(size: int, stride: int) -> list[tuple[int, int]]:
    """Return the pairs of one stage."""
    return [(i, i + stride) for i in range(size - stride) if not i & stride]


def pairs(size: int) -> list[tuple[int, int]]:
    """Return the pairs of all stages, in the order in which they turn."""
    return [pair for stride in strides(size) for pair in stage(size, stride)]
