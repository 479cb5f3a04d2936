"""Outputs so large that they are stored past the caches: the same bits as outputs that are not, since they begin within a line."""

import math

import numpy as np
import pytest

from indrnn.kernels.native import ACTIVATIONS, CLIP, DIRECTIONS, ISAS, Call, Library

LINE = 64


def at(offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Memory that begins so many bytes behind the begin of a line, full of NaN."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + 2 * LINE, np.uint8)
    begin = -memory.ctypes.data % LINE + offset
    array = memory[begin : begin + size].view(dtype).reshape(shape)
    array[:] = np.nan
    return array


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "of DiagonalRecurrence"])
@pytest.mark.parametrize(("dtype", "shape"), [("float32", (150, 7, 2048)), ("float64", (101, 9, 1200))])
def test_a_large_output_is_that_of_the_ordinary_way(library: Library, dtype: str, shape, activation: str, direction: str) -> None:
    T, B, H = shape
    varying = activation not in ACTIVATIONS
    rng = np.random.default_rng(0)
    x, h0 = rng.standard_normal(shape).astype(dtype), rng.standard_normal((B, H)).astype(dtype)
    u = rng.uniform(-1, 1, shape if varying else H).astype(dtype)
    lens = np.array([T, 0, T - 1, *rng.integers(1, T, B - 3)])
    bounds = {"lo": -2.0, "hi": math.nan} if varying else {}
    options = {"activation": CLIP if varying else ACTIVATIONS.index(activation), "reverse": DIRECTIONS.index(direction), "varying": varying}
    given = {"x": x, "u": u, "h0": h0, "lens": lens}
    for isa in library.isas():
        found = []
        for offset, pieces, threads in ((8, 1, 1), (0, 1, 1), (0, 5, 2)):  # an array that begins within a line goes the ordinary way
            y, y_h = at(offset, shape, dtype), np.full((B, H), np.nan, dtype)
            assert y.nbytes > 8 << 20
            arrays = {name: a.ctypes.data for name, a in {**given, "y": y, "y_h": y_h}.items()}
            library.run(Call(T, B, H, int(dtype == "float64"), isa=ISAS.index(isa), **options, **bounds, **arrays), threads, pieces)
            found.append((y, y_h))
        for y, y_h in found[1:]:
            np.testing.assert_array_equal(y, found[0][0])
            np.testing.assert_array_equal(y_h, found[0][1])
