"""The layers of pictures in NumPy, place by place: the specification that their PyTorch and ONNX are tested against.

Sources and equations: recurrent_conv.py and multidimensional.py beside this file.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def recurrent_conv(
    u: Floats, forth: Floats, bias: Floats, back: Floats, looks: int, scale: Floats, shift: Floats, response: tuple[float, float] | None
) -> Floats:
    """u [in, R, W] -> x(looks) [C, R, W]: x(t) = g(relu(scale_t * (forth u + back x(t - 1) + bias) + shift_t)).

    forth [C, in, n, n], back [C, C, n, n], bias [C]; scale, shift [looks + 1, C], of a folded norm: 1 and 0 where there is none.
    response: alpha and beta of g, which divides by (1 + alpha / N times the sum of squares of N = C // 8 + 1 maps)^beta; None: no g.
    """
    C, R, W = len(forth), *u.shape[1:]
    x: Floats = np.zeros((C, R, W))
    for t in range(looks + 1):
        z = np.zeros((C, R, W))
        for i in range(R):
            for j in range(W):
                z[:, i, j] = _seen(forth, u, i, j) + _seen(back, x, i, j) + bias
        f = np.maximum(scale[t][:, None, None] * z + shift[t][:, None, None], 0)
        x = f if response is None else _responded(f, *response)
    return x


def _seen(weights: Floats, planes: Floats, i: int, j: int) -> Floats:
    """Return weights [C, in, n, n] times the n x n places of planes [in, R, W] about (i, j), 0 outside -> [C]."""
    n = weights.shape[2]
    around = np.pad(planes, [(0, 0), (n // 2, n // 2), (n // 2, n // 2)])[:, i : i + n, j : j + n]
    found: Floats = np.tensordot(weights, around, 3)
    return found


def _responded(f: Floats, alpha: float, beta: float) -> Floats:
    C = len(f)
    N = C // 8 + 1
    x = np.empty_like(f)
    for k in range(C):
        low = max(0, k - N // 2)
        x[k] = f[k] / (1 + alpha / N * np.square(f[low : k - N // 2 + N]).sum(0)) ** beta
    return x


def multidimensional(x: Floats, weight: Floats, bias: Floats, u: Floats, kind: str) -> Floats:
    """x [R, C, in] -> h [R, C, 4 H], h_ij = f(W x_ij + b + U^1 h_{i-1,j} + U^2 h_{i,j-1}) from each corner in turn.

    weight [4 H, in], bias [4 H]; u [2, 4, H], within its bound, or matrices [2, 4, H, H] by which a row h is multiplied from the right.
    """
    R, C, _ = x.shape
    H = u.shape[2]
    out = np.zeros((R, C, 4 * H))
    for corner in range(4):
        rows = range(R) if corner in (0, 1) else range(R - 1, -1, -1)
        columns = range(C) if corner in (0, 2) else range(C - 1, -1, -1)
        down, across = (1 if corner in (0, 1) else -1), (1 if corner in (0, 2) else -1)
        own = slice(corner * H, (corner + 1) * H)
        h = np.zeros((R + 2, C + 2, H))  # a frame of 0 about the picture
        for i in rows:
            for j in columns:
                z = weight[own] @ x[i, j] + bias[own]
                for of, before in ((0, h[i + 1 - down, j + 1]), (1, h[i + 1, j + 1 - across])):
                    z = z + (u[of, corner] * before if kind == "indrnn" else before @ u[of, corner])
                h[i + 1, j + 1] = np.tanh(z) if kind == "tanh" else np.maximum(z, 0)
        out[:, :, own] = h[1:-1, 1:-1]
    return out
