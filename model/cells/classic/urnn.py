"""The unitary evolution RNN (uRNN; Arjovsky, Shah and Bengio, 2015, arXiv 1511.06464, section 4.1 and equation 8), in complex numbers:

h' = modrelu(W h + V x + c; b),  W = D3 R2 F^-1 D2 Q R1 F D1,  modrelu(z; b) = z relu(|z| + b) / |z|.

D: diagonal, exp(i t), t [n] each; R: a reflection, 1 - 2 v v* / |v|^2, v complex [n]; F: the Fourier transform of norm 1; Q: a fixed
permutation. Each is unitary whatever its weights, and so is W, with 7 n numbers. n = H / 2 complex neurons (rounded up), and y [H] is their
real parts, then their imaginary ones, as what stands after the layer reads them in the paper. project: V and c, real parts, then imaginary
ones; c is ours, so that a norm of the input can be folded. |z| is the root of |z|^2 + 1e-5, as the authors' code has it. State: re, im [n].

W is multiplied out once for each call: n^2 numbers beside the n^2 products of each step, and one dense matrix in the file.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indrnn.model.cells.cell import Floats, StatePart
from indrnn.model.cells.classic.looped import Looped
from indrnn.model.cells.recurrent_weight import Directed

TINY = 1e-5  # beside |z|^2: a modulus has a gradient at 0 then


class UnitaryRNN(Looped, Directed):
    """The cell as the file says. Angles start in U[-pi, pi], reflections and V as the authors start theirs, b at 0."""

    name = "urnn"
    about = "A unitary evolution recurrent network (uRNN; Arjovsky, Shah and Bengio, 2015, arXiv 1511.06464)"
    endless = "W neither shrinks nor grows a state, and nothing else bounds it."
    bounded = False
    step_onnx = """
        turned = MatMul (s, turn)
        z = Add (turned, x)
        halves = Constant <value_ints = [{n}, {n}]> ()
        re, im = Split <axis = 1> (z, halves)
        re_square = Mul (re, re)
        im_square = Mul (im, im)
        square = Add (re_square, im_square)
        square_more = Add (square, tiny)
        modulus = Sqrt (square_more)
        moved = Add (modulus, b)
        kept = Relu (moved)
        part = Div (kept, modulus)
        parts = Concat <axis = 1> (part, part)
        s_next = Mul (z, parts)
        first = Constant <value_ints = [0]> ()
        end = Constant <value_ints = [{H}]> ()
        axis = Constant <value_ints = [1]> ()
        y = Slice (s_next, first, end, axis)
    """

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        n = self.n = (size + 1) // 2
        super().__init__(inputs, size, 2 * n)
        spread = (6 / (inputs + 2 * n)) ** 0.5
        nn.init.uniform_(self.project.weight, -spread, spread)
        self.angles = nn.Parameter(torch.empty(3, n).uniform_(-math.pi, math.pi))
        self.reflections = nn.Parameter(torch.empty(2, 2, n).uniform_(-1, 1))  # which, real or imaginary, neuron
        self.b = nn.Parameter(torch.zeros(n))
        self.step_onnx = self.step_onnx.replace("{n}", str(n))

    def directions(self) -> Iterator[nn.Parameter]:
        """Return the angles, and the reflections, whose length W does not depend on."""
        yield from (self.angles, self.reflections)

    def parts(self) -> tuple[StatePart, ...]:
        """Return the real and the imaginary part."""
        return tuple(StatePart("hidden", self.n, name=name) for name in ("re", "im"))

    def unitary(self) -> Tensor:
        """Return W [n, n], complex."""
        d1, d2, d3 = torch.exp(1j * self.angles)
        m = fourier(self.n).to(d1) * d1  # F D1
        m = self._reflected(m, 0)[torch.from_numpy(permutation(self.n))]
        m = fourier(self.n).to(d1).conj() @ (d2[:, None] * m)
        w: Tensor = d3[:, None] * self._reflected(m, 1)
        return w

    def _reflected(self, m: Tensor, which: int) -> Tensor:
        v = torch.complex(*self.reflections[which])
        return m - torch.outer(v, (v.conj() @ m) * (2 / v.abs().square().sum()))

    def matrices(self) -> tuple[Tensor, ...]:
        """Return W as what a row of real, then imaginary parts is multiplied with, [2n, 2n]."""
        w = self.unitary().T
        return (torch.cat([torch.cat([w.real, w.imag], 1), torch.cat([-w.imag, w.real], 1)]),)

    def go(self, p: Tensor, state: Tensor, *matrices: Tensor) -> tuple[Tensor, Tensor]:
        """One step, as above."""
        z = torch.addmm(p, state, matrices[0])
        re, im = torch.split(z, self.n, 1)
        modulus = (re * re + im * im + TINY).sqrt()
        after = z * (torch.relu(modulus + self.b) / modulus).repeat(1, 2)
        return after[:, : self.size], after

    def constants(self) -> Mapping[str, Tensor]:
        """Return W in real numbers, and b."""
        return {"turn": self.matrices()[0], "b": self.b, "tiny": torch.tensor(TINY)}

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above, in complex numbers, operator by operator from the right."""
        n = self.n
        h, p = (v[:n] + 1j * v[n:] for v in (state, self.product(weights, x)))
        v1, v2 = (v[0] + 1j * v[1] for v in weights["reflections"])
        d1, d2, d3 = np.exp(1j * weights["angles"])
        h = np.fft.fft(d1 * h, norm="ortho")
        h = (h - 2 * v1 * np.vdot(v1, h) / np.vdot(v1, v1))[permutation(n)]
        h = np.fft.ifft(d2 * h, norm="ortho")
        h = d3 * (h - 2 * v2 * np.vdot(v2, h) / np.vdot(v2, v2))
        z = h + p
        modulus = np.sqrt(np.abs(z) ** 2 + TINY)
        z = z * np.maximum(modulus + weights["b"], 0) / modulus
        after: Floats = np.concatenate([z.real, z.imag])
        return after[: self.size], after


def permutation(n: int) -> NDArray[np.int64]:
    """Return Q of n neurons, the same in every network: what stands in its places 0 to n - 1."""
    return np.random.RandomState(n).permutation(n)


def fourier(n: int) -> Tensor:
    """Return the discrete Fourier transform of norm 1 as a matrix [n, n], complex, in float64."""
    turns = torch.outer(torch.arange(n), torch.arange(n)) % n
    matrix: Tensor = torch.exp(-2j * math.pi * turns.double() / n) * n**-0.5
    return matrix
