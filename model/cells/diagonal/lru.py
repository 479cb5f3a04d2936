"""The linear recurrent unit (LRU; Orvieto et al., 2023, arXiv 2303.06349, section 3, appendix A): a diagonal recurrence in complex numbers.

v = B x + c  (complex),  h' = lambda * h + gamma * v,  y = Re(C h') + D x + d,  lambda = exp(-exp(nu) + i theta),  gamma = exp(g),
theta = exp(t).

project: weight [3 H, in], bias [3 H], the real and imaginary parts of v, and D x + d; nu, t, g [H]; C: read [H, 2 H], for the real parts
and, with their sign, the imaginary ones. State: real and imaginary part of h, [H] each. The biases c and d are ours, so that a norm of the
input can be folded.

A turn by theta at each step mixes the two parts, which no diagonal recurrence of real numbers does. So it runs in a frame that turns along:
with g_t = exp(-i theta t) h_t,  g_t = |lambda| g_{t-1} + exp(-i theta t) gamma v_t,  both parts apart. t counts from the call's first step;
what is carried is h. Angles are multiplied and wrapped in float64: theta t of some thousands of steps has few digits left after the point
in float32.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

from indrnn.model.cells.cell import Floats, Lowering, Product, StatePart
from indrnn.model.cells.diagonal.gated import GatedCell
from indrnn.model.cells.diagonal.recurrence import diagonal
from indrnn.model.cells.recurrence import belongs

_NODES = """
    of_x = MatMul (X, W)
    every = Add (of_x, bias)
    thirds = Constant <value_ints = [{H}, {H}, {H}]> ()
    halves = Constant <value_ints = [{H}, {H}]> ()
    v_re, v_im, skip = Split <axis = 2> (every, thirds)
    T_1d = Shape <start = 0, end = 1> (X)
    T = Squeeze (T_1d)
    one = Constant <value_int = 1> ()
    end = Add (T, one)
    count = Range (one, end, one)
    step_axes = Constant <value_ints = [1, 2]> ()
    row_axis = Constant <value_ints = [1]> ()
    whole_turn = Constant <value = double {{6.283185307179586}}> ()
    theta_wide = Cast <to = 11> (theta)
    count_wide = Cast <to = 11> (count)
    steps = Unsqueeze (count_wide, step_axes)
    step_angles = Mul (steps, theta_wide)
    step_wrapped = Mod <fmod = 1> (step_angles, whole_turn)
    angle = Cast <to = 1> (step_wrapped)
    cos = Cos (angle)
    sin = Sin (angle)
    lengths_wide = Cast <to = 11> (lengths)
    ends = Unsqueeze (lengths_wide, row_axis)
    end_angles = Mul (ends, theta_wide)
    end_wrapped = Mod <fmod = 1> (end_angles, whole_turn)
    end_angle = Cast <to = 1> (end_wrapped)
    end_cos = Cos (end_angle)
    end_sin = Sin (end_angle)
    re_cos = Mul (v_re, cos)
    im_sin = Mul (v_im, sin)
    b_re = Add (re_cos, im_sin)
    im_cos = Mul (v_im, cos)
    re_sin = Mul (v_re, sin)
    b_im = Sub (im_cos, re_sin)
    b = Concat <axis = 2> (b_re, b_im)
    b_shape = Shape (b)
    a = Expand (size, b_shape)
    g, g_end = ai.indrnn.DiagonalRecurrence <direction = "forward"> (a, b, lengths, state)
    g_re, g_im = Split <axis = 2> (g, halves)
    g_re_cos = Mul (g_re, cos)
    g_im_sin = Mul (g_im, sin)
    h_re = Sub (g_re_cos, g_im_sin)
    g_re_sin = Mul (g_re, sin)
    g_im_cos = Mul (g_im, cos)
    h_im = Add (g_re_sin, g_im_cos)
    h = Concat <axis = 2> (h_re, h_im)
    out = MatMul (h, C)
    Y = Add (out, skip)
    e_re, e_im = Split <axis = 1> (g_end, halves)
    e_re_cos = Mul (e_re, end_cos)
    e_im_sin = Mul (e_im, end_sin)
    end_re = Sub (e_re_cos, e_im_sin)
    e_re_sin = Mul (e_re, end_sin)
    e_im_cos = Mul (e_im, end_cos)
    end_im = Add (e_re_sin, e_im_cos)
    state_out = Concat <axis = 1> (end_re, end_im)
"""


class LRU(Product):
    """The cell as the file says; |lambda| starts on the ring between low and bound, theta anywhere, gamma at sqrt(1 - |lambda|^2)."""

    name = "lru"
    about = "A network of linear recurrent units (LRU; Orvieto et al., 2023, arXiv 2303.06349)"
    carried = GatedCell.carried
    endless = "|lambda| is below 1: a bounded input keeps the state bounded however long a stream goes on."

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(inputs, size, 3 * size)
        self.read = nn.Parameter(torch.randn(size, 2 * size) * (2 * size) ** -0.5)
        self.nu, self.turn, self.gain = (nn.Parameter(torch.empty(size)) for _ in range(3))
        nn.init.uniform_(self.turn, 1e-3, 2 * math.pi)
        self.turn.data.log_()
        self.most = bound
        self.remember_(low)

    def parts(self) -> tuple[StatePart, ...]:
        """Return the real and the imaginary part."""
        return tuple(StatePart("hidden", self.size, name=name) for name in ("re", "im"))

    @torch.no_grad()
    def remember_(self, low: float) -> None:
        """Draw |lambda| anew, even over the ring between low and bound (lemma 3.2), and gamma with it (section 3.4)."""
        most = min(max(low, self.most), 1 - 1e-3)
        least = min(max(low, 1e-3), most)
        kept = torch.empty_like(self.nu).uniform_(least**2, most**2).sqrt()
        self.nu.copy_((-kept.log()).log())
        self.gain.copy_((1 - kept**2).sqrt().log())

    def _turned(self, count: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of theta times a count of steps [..., 1], each [..., H]."""
        angle = torch.remainder(self.turn.exp().double() * count.double(), 2 * math.pi).to(self.turn.dtype)
        return angle.cos(), angle.sin()

    def run(self, x: Tensor, lengths: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the product over all steps, then the operator in the frame that turns along; float32 under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(state.dtype)
            T, B, _ = x.shape
            ends = torch.full((B,), T, device=x.device) if lengths is None else lengths.clamp(0, T)
            live = belongs(x, ends)
            x = torch.where(live, x, 0)  # it may be NaN there, and a gradient of 0 times NaN is NaN
            re, im, skip = torch.split(F.linear(x, self.project.weight, self.project.bias), self.size, -1)
            gain = self.gain.exp()
            cos, sin = self._turned(torch.arange(1, T + 1, device=x.device)[:, None, None])
            b = torch.cat([gain * (re * cos + im * sin), gain * (im * cos - re * sin)], 2)
            a = (-self.nu.exp()).exp().repeat(2).expand(b.shape)
            g, end = diagonal(a, b, ends, state)
            g_re, g_im = torch.split(g, self.size, 2)
            h = torch.cat([g_re * cos - g_im * sin, g_re * sin + g_im * cos], 2)
            e_re, e_im = torch.split(end, self.size, 1)
            cos, sin = self._turned(ends[:, None])
            after = torch.cat([e_re * cos - e_im * sin, e_re * sin + e_im * cos], 1)
            # A turn by nothing, of a state that is not finite, is no number.
            after = torch.where((ends > 0)[:, None], after, state)
            return torch.where(live, F.linear(h, self.read) + skip, 0), after

    def constants(self) -> Mapping[str, Tensor]:
        """Return theta, |lambda| and C, and W and c with gamma in the rows of v."""
        gain = torch.cat([self.gain.exp().repeat(2), torch.ones_like(self.gain)])
        return {
            "W": (gain[:, None] * self.project.weight).T,
            "bias": gain * self.project.bias,
            "theta": self.turn.exp(),
            "size": (-self.nu.exp()).exp().repeat(2),
            "C": self.read.T,
        }

    def lowering(self) -> Lowering:
        """Return the same in ONNX."""
        return Lowering(self.weights(), _NODES.format(H=self.size))

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above, in complex numbers."""
        re, im, skip = np.split(self.product(weights, x), 3)
        old_re, old_im = np.split(state, 2)
        h = np.exp(-np.exp(weights["nu"]) + 1j * np.exp(weights["turn"])) * (old_re + 1j * old_im) + np.exp(weights["gain"]) * (
            re + 1j * im
        )
        after: Floats = np.concatenate([h.real, h.imag])
        return weights["read"] @ after + skip, after
