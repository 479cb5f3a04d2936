"""The native kernel over NumPy arrays, the steps of a GPU's threads on the CPU, and gradients by differences."""

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indrnn.kernels.build import HERE, KernelMissing, compiler
from indrnn.kernels.native import ACTIVATIONS, DIRECTIONS, ISAS, Call, Library

Array = NDArray[np.floating]
Lens = NDArray[np.int64]


@dataclass(frozen=True)
class Kernel:
    """A library and the options of a run; `kernel.having(isa="plain")` is the same with others."""

    library: Library
    activation: str = "relu"
    direction: str = "forward"
    alpha: float = 0.25
    isa: str = "best"
    threads: int = 1
    pieces: int | None = None

    def having(self, **options: object) -> "Kernel":
        return replace(self, **options)

    def forward(self, x: Array, u: Array, lens: Lens | None = None, h0: Array | None = None) -> tuple[Array, Array]:
        y, y_h = np.full_like(x, np.nan), np.full_like(x, np.nan, shape=x.shape[1:])  # what the kernel leaves out is found
        self._run(x.shape, x.dtype, x=x, u=u, lens=lens, h0=h0, y=y, y_h=y_h)
        return y, y_h

    def backward(
        self, dy: Array, dy_h: Array | None, y: Array, u: Array, lens: Lens | None = None, h0: Array | None = None
    ) -> tuple[Array, Array, Array]:
        dx, du, dh0 = np.full_like(y, np.nan), np.full_like(u, np.nan), np.full_like(y, np.nan, shape=y.shape[1:])
        rows = np.full_like(dh0, np.nan)
        self._run(y.shape, y.dtype, dy=dy, dy_h=dy_h, y=y, u=u, lens=lens, h0=h0, dx=dx, du=du, dh0=dh0, du_rows=rows)
        return dx, du, dh0

    def _run(self, shape: tuple[int, ...], dtype: np.dtype, **arrays: NDArray[np.generic] | None) -> None:
        T, B, H = shape
        given = {name: a for name, a in arrays.items() if a is not None}
        assert all(a.flags.c_contiguous and a.dtype == (np.int64 if name == "lens" else dtype) for name, a in given.items())
        options = {
            "dtype": int(dtype == np.float64),
            "activation": ACTIVATIONS.index(self.activation),
            "reverse": DIRECTIONS.index(self.direction),
            "isa": ISAS.index(self.isa),
            "gradient": int("dx" in arrays),
            "alpha": self.alpha,
        }
        call = Call(T=T, B=B, H=H, **options, **{name: a.ctypes.data for name, a in given.items()})
        self.library.run(call, self.threads, self.pieces)


ON_CPU = """
#define INDRNN_ISA gpu
#include "column.h"
template <class T> void run(const Call& c) {
    using Column = void (*)(const Call&, int64_t);
    constexpr Column columns[] = {%s};
    for (int64_t n = 0; n < c.B * c.H; ++n) columns[%s](c, n);
}
extern "C" int indrnn_run(const Call* c, int64_t, void*, void*) { c->dtype ? run<double>(*c) : run<float>(*c); return 0; }
"""


class OneThread:
    """What a GPU's threads do, one after another on the CPU; in the shape of kernels.native.Library."""

    def __init__(self, folder: Path, columns: Sequence[str], which: str) -> None:
        """Compile in `folder`. columns: C++ functions of a neuron; which: the index of the one that a call wants."""
        (folder / "on_cpu.cpp").write_text(ON_CPU % (", ".join(columns), which))
        try:
            command = [*compiler(), "-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
        except KernelMissing as missing:
            pytest.skip(str(missing))
        command += ["-fsanitize=undefined", "-static-libubsan"] if "clang" not in command[0] else []
        path = folder / "on_cpu.so"
        subprocess.run([*command, "-fno-sanitize-recover", f"-I{HERE}", str(folder / "on_cpu.cpp"), "-o", str(path)], check=True)
        self._run = ctypes.CDLL(str(path)).indrnn_run

    def run(self, call: Call, threads: int, pieces: int | None = None) -> None:
        self._run(ctypes.byref(call), ctypes.c_int64(1), None, None)


def assert_differences(loss: Callable[[], float], grads: Sequence[Array], by: Sequence[Array]) -> None:
    """Compare gradients with central differences of a loss of these float64 arrays."""
    for grad, array in zip(grads, by, strict=True):
        for i in np.ndindex(array.shape):
            kept = array[i]
            array[i] = kept + 1e-6
            up = loss()
            array[i] = kept - 1e-6
            down = loss()
            array[i] = kept
            assert grad[i] == pytest.approx((up - down) / 2e-6, abs=2e-7, rel=2e-7)
