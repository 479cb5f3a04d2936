"""The recurrences in NumPy: the specification that every other implementation is tested against, in outputs and gradients.

`indrnn`: Li et al., CVPR 2018 (arXiv 1803.04831), equation 4, with the input projection W x + b already applied. `diagonal`: every
recurrence whose neurons never meet, with a weight for each step.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ACTIVATIONS = {
    "relu": lambda a, alpha: np.maximum(a, 0),
    "leaky_relu": lambda a, alpha: np.where(a > 0, a, alpha * a),
    "tanh": lambda a, alpha: np.tanh(a),
    "sigmoid": lambda a, alpha: 1 / (1 + np.exp(-a)),
    "identity": lambda a, alpha: a,
    "piecewise_linear": lambda a, alpha: np.clip(a, -1, 1),
}


def indrnn(
    x: NDArray[np.floating],
    u: NDArray[np.floating],
    sequence_lens: NDArray[np.int64] | None = None,
    initial_h: NDArray[np.floating] | None = None,
    activation: str = "relu",
    alpha: float = 0.01,
    direction: str = "forward",
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """h_t = activation(x_t + u * h_{t-1}), row by row.

    x [T, B, H], u [H], sequence_lens [B] (default T), initial_h [B, H] (default 0) -> y [T, B, H], y_h [B, H].
    y is 0 at t >= sequence_lens[b]; a length of 0 returns initial_h; `reverse` runs from the row's last step to its first.
    """
    T, B, _ = x.shape
    y = np.zeros_like(x)
    y_h = np.zeros_like(x, shape=x.shape[1:]) if initial_h is None else initial_h.copy()
    for b in range(B):
        steps = range(T if sequence_lens is None else int(sequence_lens[b]))
        for t in steps if direction == "forward" else reversed(steps):
            y_h[b] = y[t, b] = ACTIVATIONS[activation](x[t, b] + u * y_h[b], alpha)
    return y, y_h


def diagonal(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    sequence_lens: NDArray[np.int64] | None = None,
    initial_h: NDArray[np.floating] | None = None,
    lo: float | None = None,
    hi: float | None = None,
    direction: str = "forward",
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """h_t = clip(a_t * h_{t-1} + b_t, lo, hi), row by row; None: no bound.

    a, b [T, B, H], sequence_lens [B] (default T), initial_h [B, H] (default 0) -> y [T, B, H], y_h [B, H]; lengths and directions as
    `indrnn` has them.
    """
    T, B, _ = b.shape
    y = np.zeros_like(b)
    y_h = np.zeros_like(b, shape=b.shape[1:]) if initial_h is None else initial_h.copy()
    for n in range(B):
        steps = range(T if sequence_lens is None else int(sequence_lens[n]))
        for t in steps if direction == "forward" else reversed(steps):
            h = b[t, n] + a[t, n] * y_h[n]
            h = h if lo is None else np.maximum(h, lo)
            y_h[n] = y[t, n] = h if hi is None else np.minimum(h, hi)
    return y, y_h


def rows(
    step: Callable[[NDArray[np.floating], NDArray[np.floating]], tuple[NDArray[np.floating], NDArray[np.floating]]],
    size: int,
    x: NDArray[np.floating],
    lengths: NDArray[np.int64] | None,
    state: NDArray[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Any cell, row by row: step (x [in], state [S]) -> (y [H], state [S]) is the cell's own specification.

    x [T, B, in], lengths [B] (default T), state [B, S] -> y [T, B, size], 0 at t >= lengths[b], and the state after each row's steps.
    """
    T, B, _ = x.shape
    y, state = np.zeros((T, B, size)), np.array(state, np.float64)
    for b in range(B):
        for t in range(T if lengths is None else int(lengths[b])):
            y[t, b], state[b] = step(x[t, b], state[b])
    return y, state
