"""The table of the recurrence's activations: the one entry that each needs beside its specification (model/cells/reference.py).

It says what PyTorch's loop, the exported file and the service have to know of f in h_t = f(x_t + u * h_{t-1}), and imports none of them.
What it lists is trained, exported and served without a kernel; a kernel that knows it too (`ACTIVATIONS` of native.py, with activations.h
and ort_op.h; of triton_recurrence.py) makes it fast.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Activation:
    """One f.

    onnx: its nodes in ONNX's text form, over standard operators: they read a, give the value {y} (a name that is filled in), and may use
    `slope`, which is alpha. value: f(a), slope: the gradient g times f', told from the output h; both over arrays with the methods of
    PyTorch's tensors, each with alpha last, and free to write into their first argument. least, most: what f leaves in a neuron, a bound on
    states that clients upload. takes_alpha: whether alpha is a part of it; then its gradient expects 0 or more, which keeps the sign.
    """

    onnx: str
    value: Callable[[Any, float], Any]
    slope: Callable[[Any, Any, float], Any]
    least: float = -math.inf
    most: float = math.inf
    takes_alpha: bool = False


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        onnx="{y} = Relu (a)",
        value=lambda a, alpha: a.relu_(),
        slope=lambda g, h, alpha: g.masked_fill_(h <= 0, 0),
        least=0.0,
    ),
    "leaky_relu": Activation(
        onnx="{y} = PRelu (a, slope)",
        value=lambda a, alpha: a.where(a > 0, alpha * a),
        slope=lambda g, h, alpha: g.where(h > 0, alpha * g),
        takes_alpha=True,
    ),
    "tanh": Activation(
        onnx="{y} = Tanh (a)",
        value=lambda a, alpha: a.tanh_(),
        slope=lambda g, h, alpha: g.mul_(1 - h * h),
        least=-1.0,
        most=1.0,
    ),
    "sigmoid": Activation(
        onnx="{y} = Sigmoid (a)",
        value=lambda a, alpha: a.sigmoid_(),
        slope=lambda g, h, alpha: g.mul_(1 - h).mul_(h),
        least=0.0,
        most=1.0,
    ),
    "identity": Activation(
        onnx="{y} = Identity (a)",
        value=lambda a, alpha: a,
        slope=lambda g, h, alpha: g,
    ),
    "piecewise_linear": Activation(
        onnx="""least_float = Constant <value_float = -1.0> ()
                least = CastLike (least_float, a)
                most_float = Constant <value_float = 1.0> ()
                most = CastLike (most_float, a)
                is_less = Less (a, least)
                raised = Where (is_less, least, a)
                is_more = Greater (raised, most)
                {y} = Where (is_more, most, raised)""",
        value=lambda a, alpha: a.clamp(-1, 1),
        slope=lambda g, h, alpha: g.masked_fill_(h.abs() >= 1, 0),
        least=-1.0,
        most=1.0,
    ),
}
