"""The native kernel over NumPy arrays."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

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
