"""Ways to the gradient of a simple RNN, h_t = tanh(W z_t), z_t = (h_{t-1}, x_t, 1), and of IndRNN, in NumPy.

Each takes what is fed, x [T, I], and the derivatives of the loss by each h_t, g [T, N], and returns the derivative by the weights: those
of W [N, M], M = N + I + 1; of IndRNN those of (W, b, u) as [N, I + 2]. All but `truncated` are exact. With J_t = diag(1 - h_t^2) W_h the
step from h_{t-1} to h_t, and B_t what W does in step t alone, dh_t/dW = J_t dh_{t-1}/dW + B_t. Names and costs as in Atiya and Parlos,
"New results on recurrent network training", IEEE Trans. Neural Networks 11, 2000.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def forward(W: Floats, x: Floats) -> tuple[Floats, Floats]:
    """h [T, N] and z [T, M]."""
    h, hs, zs = np.zeros(len(W)), [], []
    for now in x:
        z = np.concatenate([h, now, [1.0]])
        h = np.tanh(W @ z)
        hs.append(h)
        zs.append(z)
    return np.array(hs), np.array(zs)


def through_time(W: Floats, x: Floats, g: Floats, horizon: int = 0) -> Floats:
    """Backpropagation through time (Werbos, 1990), from the last step to the first: N^2 a step, memory N T.

    horizon: derivatives by h_t go back so many steps and no further (truncated; Williams and Peng, 1990): N^2 times the horizon a step.
    """
    h, z = forward(W, x)
    N, gradient = len(W), np.zeros_like(W)
    if not horizon:
        d = np.zeros(N)
        for t in range(len(x) - 1, -1, -1):
            a = (g[t] + d) * (1 - h[t] ** 2)
            gradient += np.outer(a, z[t])
            d = W[:, :N].T @ a
        return gradient
    for end in range(len(x)):
        d = g[end]
        if not d.any():
            continue
        for t in range(end, max(-1, end - horizon), -1):
            a = d * (1 - h[t] ** 2)
            gradient += np.outer(a, z[t])
            d = W[:, :N].T @ a
    return gradient


def truncated(W: Floats, x: Floats, g: Floats) -> Floats:
    """Truncated to 10 steps."""
    return through_time(W, x, g, 10)


def real_time(W: Floats, x: Floats, g: Floats) -> Floats:
    """Real-time recurrent learning (Williams and Zipser, 1989): dh/dW goes along, [N, N, M]: N^4 a step, memory N^3, none of it by T."""
    N, M = W.shape
    S, gradient, h = np.zeros((N, N * M)), np.zeros_like(W), np.zeros(N)
    for now, by in zip(x, g, strict=True):
        z = np.concatenate([h, now, [1.0]])
        h = np.tanh(W @ z)
        S = W[:, :N] @ S
        S.reshape(N, N, M)[np.arange(N), np.arange(N)] += z
        S *= (1 - h**2)[:, None]
        if by.any():
            gradient += (by @ S).reshape(N, M)
    return gradient


def block_update(W: Floats, x: Floats, g: Floats) -> Floats:
    """Schmidhuber's block update (Neural Computation 4, 1992): blocks of N steps, backward within, dh/dW from block to block.

    N^3 a step on the average, memory N^3, none of it by T.
    """
    N, M = W.shape
    S, gradient, start = np.zeros((N, N * M)), np.zeros_like(W), np.zeros(N)
    for begin in range(0, len(x), N):
        h, z = _from(W, x[begin : begin + N], start)
        d = np.zeros(N)  # of the loss within the block
        D = np.eye(N)  # of each neuron after it
        inner = np.zeros((N, N, M))
        for t in range(len(h) - 1, -1, -1):
            slope = 1 - h[t] ** 2
            a = (g[begin + t] + d) * slope
            gradient += np.outer(a, z[t])
            d = a @ W[:, :N]
            A = D * slope
            inner += A[:, :, None] * z[t]
            D = A @ W[:, :N]
        gradient += (d @ S).reshape(N, M)  # what the block owes to all before it
        S = D @ S + inner.reshape(N, -1)
        start = h[-1]
    return gradient


def _from(W: Floats, x: Floats, h: Floats) -> tuple[Floats, Floats]:
    hs, zs = [], []
    for now in x:
        zs.append(np.concatenate([h, now, [1.0]]))
        h = np.tanh(W @ zs[-1])
        hs.append(h)
    return np.array(hs), np.array(zs)


def greens_function(W: Floats, x: Floats, g: Floats) -> Floats:
    """Green's function (Sun, Chen and Lee, NIPS 4, 1992): dh_t/dW = U_t sum_s U_s^-1 B_s, U_t = J_t ... J_1: N^3 a step, memory N^3.

    Exact as far as U can be inverted: where states are forgotten it shrinks without end, and the rest is rounding.
    """
    N, M = W.shape
    U, V, inverse = np.eye(N), np.zeros((N, N, M)), np.eye(N)
    h, gradient = np.zeros(N), np.zeros_like(W)
    for now, by in zip(x, g, strict=True):
        z = np.concatenate([h, now, [1.0]])
        h = np.tanh(W @ z)
        slope = 1 - h**2
        J = slope[:, None] * W[:, :N]
        U, inverse = J @ U, inverse @ np.linalg.inv(J)
        V += (inverse * slope)[:, :, None] * z
        if by.any():
            gradient += np.einsum("n,nim->im", by @ U, V)
    return gradient


def fast_forward(W: Floats, x: Floats, g: Floats) -> Floats:
    """Fast forward propagation (Toomarian and Barhen, Neural Networks 5, 1992), read as: the adjoint equation solved forward in time.

    The adjoint l_t = g_t + l_{t+1} J_{t+1} is stepped forward, l_{t+1} = (l_t - g_t) J_{t+1}^-1, from an l_0 that is known only at the end,
    where l_T = g_T. What is linear in l_0 is therefore carried as a matrix: N^3 a step, memory N^3. It divides by what `greens_function`
    divides by, and breaks where that does.
    """
    N, M = W.shape
    h, gradient = np.zeros(N), np.zeros_like(W)
    known, unknown, V = np.zeros(N), np.eye(N), np.zeros((N, N, M))  # l_t = known + l_0 unknown
    last = np.zeros(N)  # l_t - g_t of the step before, its known part
    for now, by in zip(x, g, strict=True):
        z = np.concatenate([h, now, [1.0]])
        h = np.tanh(W @ z)
        slope = 1 - h**2
        inverse = np.linalg.inv(slope[:, None] * W[:, :N])
        known, unknown = last @ inverse, unknown @ inverse
        gradient += np.outer(known * slope, z)
        V += (unknown * slope)[:, :, None] * z
        last = known - by
    first = np.linalg.solve(unknown.T, -last)  # l_T = g_T, so that known + l_0 unknown - g_T = 0
    return gradient + np.einsum("n,nim->im", first, V)


def indrnn_forward(w: Floats, x: Floats) -> Floats:
    """h [T, N] of relu IndRNN; w [N, I + 2] is (W, b, u)."""
    h, hs, a = np.zeros(len(w)), [], x @ w[:, :-2].T + w[:, -2]
    for now in a:
        h = np.maximum(now + w[:, -1] * h, 0)
        hs.append(h)
    return np.array(hs)


def indrnn_through_time(w: Floats, x: Floats, g: Floats) -> Floats:
    """Backpropagation through time of IndRNN: N (I + 2) a step, memory N T."""
    h, gradient, d = indrnn_forward(w, x), np.zeros_like(w), np.zeros(len(w))
    for t in range(len(x) - 1, -1, -1):
        a = (g[t] + d) * (h[t] > 0)
        gradient[:, :-2] += np.outer(a, x[t])
        gradient[:, -2] += a
        gradient[:, -1] += a * (h[t - 1] if t else 0)
        d = a * w[:, -1]
    return gradient


def indrnn_real_time(w: Floats, x: Floats, g: Floats) -> Floats:
    """Real-time recurrent learning of IndRNN, one number a weight (model/training/online/traces.py): N (I + 2) a step, memory N (I + 2)."""
    traces, gradient, h, u = np.zeros_like(w), np.zeros_like(w), np.zeros(len(w)), w[:, -1:]
    read = np.ones_like(w)
    for now, by in zip(x, g, strict=True):
        read[:, :-2], read[:, -1] = now, h
        h = np.maximum(w[:, :-2] @ now + w[:, -2] + w[:, -1] * h, 0)
        traces = (h > 0)[:, None] * (read + u * traces)
        if by.any():
            gradient += by[:, None] * traces
    return gradient


WAYS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "backpropagation through time": through_time,
    "truncated to 10 steps": truncated,
    "real-time recurrent learning": real_time,
    "fast forward propagation": fast_forward,
    "Green's function": greens_function,
    "block update": block_update,
    "IndRNN: backpropagation through time": indrnn_through_time,
    "IndRNN: real-time recurrent learning": indrnn_real_time,
}


def drawn(way: str, N: int, T: int, seed: int = 0, inputs: int = 2) -> tuple[Floats, Floats, Floats]:
    """Weights, what is fed, and derivatives by each state, as a network that answers each step has them.

    The recurrent matrix is orthogonal times 0.95 and inputs are small, so that something of the first step is left after the last: with
    matrices that forget at once every way is exact for want of anything to be wrong about, or divides by nothing.
    """
    rng = np.random.default_rng([seed, N, T])
    x, g = rng.normal(size=(T, inputs)), rng.normal(size=(T, N)) / T
    if way.startswith("IndRNN"):
        return np.concatenate([rng.normal(size=(N, inputs + 1)), rng.uniform(0.9, 1, (N, 1))], 1), x, g
    turned = np.linalg.qr(rng.normal(size=(N, N)))[0]
    return np.concatenate([0.95 * turned, 0.1 * rng.normal(size=(N, inputs + 1))], 1), x, g
