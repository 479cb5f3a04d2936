"""The quasi-recurrent network (QRNN; Bradbury et al., 2016, arXiv 1611.01576, section 2), a filter over two steps, fo-pooling:

z = tanh(P_z),  f = sigmoid(P_f),  o = sigmoid(P_o),  P = W x_t + c + V x_{t-1} + d,  c' = f * c + (1 - f) * z,  y = o * c'.

project: W [3H, in], bias c [3H], blocks in the order z, f, o; before: V [3H, in], bias d [3H], of the step before, which is nothing before
the first step. State: c [H], and v [3H], V x + d of the last step, 0 at the start. d is not in the paper, and starts at 0; a norm of the
input is folded into it: it is kept apart from c so that the start stays a row of zeros.
f keeps the past, as in the paper; in the authors' code (salesforce/pytorch-qrnn) its place is that of 1 - f.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn, sigmoid, tanh

from indrnn.model.cells import rnn
from indrnn.model.cells.cell import Floats, Lowering, StatePart
from indrnn.model.cells.diagonal.gated import GatedCell, logit
from indrnn.model.cells.diagonal.recurrence import diagonal
from indrnn.model.cells.recurrence import belongs

_NODES = """
    here_x = MatMul (X, W)
    here = Add (here_x, bias)
    next_x = MatMul (X, V)
    next = Add (next_x, bias_before)
    state_sizes = Constant <value_ints = [{H}, {three}]> ()
    c_start, v_start = Split <axis = 1> (state, state_sizes)
    first_axis = Constant <value_ints = [0]> ()
    v_first = Unsqueeze (v_start, first_axis)
    v_all = Concat <axis = 0> (v_first, next)
    T_1d = Shape <start = 0, end = 1> (X)
    v_before = Slice (v_all, first_axis, T_1d, first_axis)
    every = Add (here, v_before)
    sizes = Constant <value_ints = [{H}, {H}, {H}]> ()
    z, f, o = Split <axis = 2> (every, sizes)
    a = Sigmoid (f)
    away = Neg (f)
    rest = Sigmoid (away)
    new = Tanh (z)
    b = Mul (rest, new)
    h, c_end = ai.indrnn.DiagonalRecurrence <direction = "forward"> (a, b, lengths, c_start)
    gate = Sigmoid (o)
    Y = Mul (gate, h)
    ends_axes = Constant <value_ints = [0, 2]> ()
    ends = Unsqueeze (lengths, ends_axes)
    v_shape = Shape (v_first)
    v_index = Expand (ends, v_shape)
    v_last = GatherElements <axis = 0> (v_all, v_index)
    v_end = Squeeze (v_last, first_axis)
    state_out = Concat <axis = 1> (c_end, v_end)
"""


class QRNN(GatedCell):
    """The cell as the file says; f where x is 0 is drawn from U[low, bound] of the seam."""

    name = "qrnn"
    about = "A quasi-recurrent network (QRNN; Bradbury et al., 2016, arXiv 1611.01576)"
    endless = "c is a mean of what it was and of a tanh: the state stays bounded however long a stream goes on, if its input is."
    blocks = ("z", "f", "o")

    def _prepare(self) -> None:
        self.before = nn.Linear(self.inputs, 3 * self.size)
        nn.init.zeros_(self.before.bias)

    def parts(self) -> tuple[StatePart, ...]:
        """Return c, within ±1, and v."""
        return StatePart("hidden", self.size, name="c", activation="tanh"), StatePart("hidden", 3 * self.size, name="v")

    def keep_(self, kept: Tensor) -> None:
        """f = sigmoid(c_f)."""
        self.bias_of("f").copy_(logit(kept))

    def terms(self, *blocks: Tensor) -> tuple[Tensor, Tensor]:
        """a = f, b = (1 - f) z."""
        z, f, _ = blocks
        return sigmoid(f), sigmoid(-f) * tanh(z)

    def answer(self, h: Tensor, *blocks: Tensor) -> Tensor:
        """Let a part of the state out."""
        return sigmoid(blocks[2]) * h

    def run(self, x: Tensor, lengths: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run both products over all steps, then the operator."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(state.dtype)
            live = None if lengths is None else belongs(x, lengths)
            x = x if live is None else torch.where(live, x, 0)
            c, v = torch.split(state, [self.size, 3 * self.size], 1)
            v_all = torch.cat([v[None], F.linear(x, self.before.weight, self.before.bias)])
            every = F.linear(x, self.project.weight, self.project.bias) + v_all[:-1]
            blocks = torch.split(every, self.size, -1)
            h, after = diagonal(*self.terms(*blocks), lengths, c)
            y = self.answer(h, *blocks)
            ends = torch.full_like(v_all[0, :, 0], x.shape[0], dtype=torch.int64) if lengths is None else lengths.clamp(0, x.shape[0])
            last = v_all.gather(0, ends[None, :, None].expand(-1, -1, v_all.shape[2])).squeeze(0)
            return (y if live is None else torch.where(live, y, 0)), torch.cat([after, last], 1)

    @torch.no_grad()
    def fold_(self, scale: Tensor, shift: Tensor) -> bool:
        """Both products take the scale and the shift, each by itself."""
        self.before.bias.add_(self.before.weight @ shift)
        self.before.weight.mul_(scale)
        return super().fold_(scale, shift)

    def constants(self) -> Mapping[str, Tensor]:
        """Return V and d."""
        return {"V": self.before.weight.T, "bias_before": self.before.bias}

    def lowering(self) -> Lowering:
        """Return both products, and the nodes round the op."""
        return Lowering(self.weights(), _NODES.format(H=self.size, three=3 * self.size))

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        c, v = np.split(state, [self.size])
        z, f_sum, o = np.split(self.product(weights, x) + v, 3)
        f = rnn.sigmoid(f_sum)
        new = f * c + (1 - f) * np.tanh(z)
        after = weights["before.weight"] @ x + weights["before.bias"]
        y: Floats = np.multiply(rnn.sigmoid(o), new)
        return y, np.concatenate([new, after])
