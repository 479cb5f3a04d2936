"""Small ONNX files whose states go in and come out: right ones of many kinds, and one broken in each way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

F, H = 3, 4


def save(folder: Path, text: str, weights: dict[str, NDArray[Any]] | None = None, *, opset: int = 18, name: str = "model.onnx") -> Path:
    """Write a graph in ONNX's own text, `name (inputs) => (outputs) { nodes }`; weights: initializers by name."""
    graph = onnx.parser.parse_graph(text)
    graph.initializer.extend(numpy_helper.from_array(w, n) for n, w in (weights or {}).items())
    domains = {n.domain for n in graph.node} - {""}
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)])
    model.ir_version = 8
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def weights(gates: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "W": rng.normal(0, 0.5, (1, gates * H, F)).astype(np.float32),
        "R": rng.normal(0, 0.5, (1, gates * H, H)).astype(np.float32),
    }


LSTM = """
lstm (float[T, B, 3] x, float[1, B, 4] h0, float[1, B, 4] c0) => (float[T, B, 4] y, float[1, B, 4] hn, float[1, B, 4] cn) {{
    Y, {h}, {c} = LSTM <hidden_size = 4> (x, W, R, , , h0, c0)
    one = Constant <value_ints = [1]> ()
    y = Squeeze (Y, one)
}}
"""
GRU = """
gru (float[B, T, 3] x, float[1, B, 4] h) => (float[B, T, 4] y, float[1, B, 4] hn) {{
    xt = Transpose <perm = [1, 0, 2]> (x)
    Y, hn = GRU <hidden_size = 4> (xt, W, R, , , {h})
    one = Constant <value_ints = [1]> ()
    squeezed = Squeeze (Y, one)
    plain = Transpose <perm = [1, 0, 2]> (squeezed)
    {y}
}}
"""


def lstm(folder: Path) -> Path:
    """A layer over time, time first."""
    return save(folder, LSTM.format(h="hn", c="cn"), weights(4))


def gru(folder: Path) -> Path:
    """A layer over time, batch first."""
    return save(folder, GRU.format(h="h", y="y = Identity (plain)"), weights(3))


def swapped(folder: Path) -> Path:
    """h comes out as cn, and c as hn."""
    return save(folder, LSTM.format(h="cn", c="hn"), weights(4))


def never_fed_back(folder: Path) -> Path:
    """The state comes in, and is not read."""
    return save(folder, GRU.format(h="", y="y = Identity (plain)"), weights(3))


def mixed(folder: Path) -> Path:
    """An answer has the mean of all rows in it."""
    y = "mean = ReduceMean <axes = [0]> (plain) y = Add (plain, mean)"
    return save(folder, GRU.format(h="h", y=y), weights(3), opset=17)


def leaked(folder: Path) -> Path:
    """An answer has the mean of all steps in it."""
    y = "mean = ReduceMean <axes = [1]> (plain) y = Add (plain, mean)"
    return save(folder, GRU.format(h="h", y=y), weights(3), opset=17)


def overflowing(folder: Path) -> Path:
    """s = g s + (g - 1), whose closed form this is, passes float32 after 100,000 steps."""
    text = """
    grows (float[B, T, 1] x, float[B, 1] s) => (float[B, T, 1] y, float[B, 1] s_out) {
        shape = Shape (x)
        at = Constant <value_int = 1> ()
        T = Gather (shape, at)
        steps = Cast <to = 1> (T)
        exponent = Mul (steps, rate)
        factor = Exp (exponent)
        one = Constant <value_float = 1.0> ()
        scaled = Mul (s, factor)
        added = Sub (factor, one)
        s_out = Add (scaled, added)
        y = Identity (x)
    }
    """
    return save(folder, text, {"rate": np.float32(88.7 / 1e5).reshape(())})


FAULTS: dict[str, Callable[[Path], Path]] = {
    "state": swapped,
    "memory": never_fed_back,
    "rows": mixed,
    "ahead": leaked,
    "endless": overflowing,
}
"""A broken file by the check that is made for it."""


ELMAN = """
elman (float[batch, 3] obs, float[batch, 4] h) => (float[batch, 2] action, float[batch, 1] value, float[batch, 4] h_out) {
    a = MatMul (obs, W)
    b = MatMul (h, U)
    c = Add (a, b)
    h_out = Tanh (c)
    action = MatMul (h_out, V)
    value = ReduceSum (h_out, last)
}
"""
LEVEL = """
level (float[batch, length] audio, float[1, batch, 2] state) => (float[batch, 1] level, float[1, batch, 2] stateN) {
    last = Constant <value_ints = [1]> ()
    sum = ReduceSum (audio, last)
    pair = Concat <axis = 1> (sum, sum)
    zero = Constant <value_ints = [0]> ()
    wide = Unsqueeze (pair, zero)
    half = Mul (state, w)
    stateN = Add (half, wide)
    both = Squeeze (stateN, zero)
    level = ReduceSum (both, last)
}
"""


def step(folder: Path, text: str = ELMAN, **weights: NDArray[Any]) -> Path:
    """One step of an Elman network, rows first: [B, F] and [B, H]."""
    rng = np.random.default_rng(1)
    own: dict[str, NDArray[Any]] = {
        "W": rng.normal(0, 0.5, (F, H)).astype(np.float32),
        "U": rng.normal(0, 0.5, (H, H)).astype(np.float32),
        "V": rng.normal(0, 0.5, (H, 2)).astype(np.float32),
        "last": np.array([1]),
    }
    return save(folder, text, {**own, **weights})


def typed(folder: Path, dtype: str, start: int = 0) -> Path:
    """A counter of one type beside a sum: p = p + 3, or not p; y is the sum and, cast, the counter's difference from its start."""
    element = {"int64": "int64", "int32": "int32", "int8": "int8", "uint8": "uint8", "float16": "float16", "float64": "double"}[dtype]
    text = f"""
    counter (float[B, 2] x, {element}[B, 2] position, float[B, 2] sum)
    => (float[B, 2] y, {element}[B, 2] position_out, float[B, 2] sum_out) {{
        position_out = Add (position, three)
        back = Sub (position_out, begin)
        counted = Cast <to = 1> (back)
        half = Constant <value_float = 0.5> ()
        old = Mul (sum, half)
        sum_out = Add (old, x)
        y = Add (counted, sum_out)
    }}
    """
    return save(folder, text, {"three": np.array(3, dtype), "begin": np.array(start, dtype)})
