"""The structurally constrained recurrent network (SCRN; Mikolov et al., 2014, arXiv 1412.7753, section 3.2):

s' = (1 - 0.95) B x + 0.95 s,  h' = sigmoid(P s' + A x + R h),  y = (h', s').

The fast neurons h [F] are a simple RNN's; the slow ones s [S] have a recurrent matrix that is fixed, 0.95 on its diagonal. The paper's
answer f(U h + V s) reads both, and so does here what stands after the layer: y [H] is h and s, of which S = H / 4 are slow, at the least
one. project: A and B [F + S, in] with biases, which the paper has not, so that a norm of the input can be folded; slow: P [F, S]; fast: R
[F, F]. The form is that of two implementations that name the paper's matrices (yandex/faster-rnnlm, MartinuzziFrancesco/torchrecurrent).
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn, sigmoid

from indrnn.model.cells import rnn
from indrnn.model.cells.cell import Floats, StatePart
from indrnn.model.cells.classic.looped import Looped, recurrent
from indrnn.model.cells.recurrent_weight import SizeError

ALPHA = 0.95  # section 3.2: the weight of the slow neurons' past


class SCRN(Looped):
    """The cell as the file says; R starts as an orthogonal matrix. Raises SizeError on fewer than two neurons."""

    name = "scrn"
    about = "A structurally constrained recurrent network (SCRN; Mikolov et al., 2014, arXiv 1412.7753)"
    endless = (
        "h is a sigmoid, and s a mean of maps of x that forgets: a bounded input keeps the state bounded however long a stream goes on."
    )
    step_onnx = """
        parts = Constant <value_ints = [{F}, {S}]> ()
        of_h, of_s = Split <axis = 1> (x, parts)
        h, slow = Split <axis = 1> (s, parts)
        new = Mul (of_s, rest)
        old = Mul (slow, alpha)
        slow_next = Add (old, new)
        from_slow = MatMul (slow_next, P)
        from_fast = MatMul (h, R)
        both = Add (from_slow, from_fast)
        sum = Add (both, of_h)
        h_next = Sigmoid (sum)
        y = Concat <axis = 1> (h_next, slow_next)
        s_next = Identity (y)
    """

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        if size < 2:
            raise SizeError(f"expected two neurons and more, a fast and a slow one, got {size}")
        super().__init__(inputs, size, size)
        self.slowly = max(1, size // 4)
        self.quickly = size - self.slowly
        self.slow = recurrent(self.quickly, self.slowly)
        self.fast = nn.Parameter(nn.init.orthogonal_(torch.empty(self.quickly, self.quickly)))
        self.step_onnx = self.step_onnx.replace("{F}", str(self.quickly)).replace("{S}", str(self.slowly))

    def parts(self) -> tuple[StatePart, ...]:
        """Return h, a sigmoid, and s."""
        return StatePart("hidden", self.quickly, name="h", activation="sigmoid"), StatePart("hidden", self.slowly, name="s")

    def go(self, p: Tensor, state: Tensor, *matrices: Tensor) -> tuple[Tensor, Tensor]:
        """One step, as above."""
        (of_h, of_s), (h, s) = (torch.split(v, [self.quickly, self.slowly], 1) for v in (p, state))
        s = (1 - ALPHA) * of_s + ALPHA * s
        h = sigmoid(s @ self.slow.T + of_h + h @ self.fast.T)
        y = torch.cat([h, s], 1)
        return y, y

    def constants(self) -> Mapping[str, Tensor]:
        """Return P, R, alpha and 1 - alpha."""
        return {"P": self.slow.T, "R": self.fast.T, "alpha": torch.tensor(ALPHA), "rest": torch.tensor(1 - ALPHA)}

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step, as above."""
        (of_h, of_s), (h, s) = (np.split(v, [self.quickly]) for v in (self.product(weights, x), state))
        s = (1 - ALPHA) * of_s + ALPHA * s
        h = rnn.sigmoid(weights["slow"] @ s + of_h + weights["fast"] @ h)
        y = np.concatenate([h, s])
        return y, y
