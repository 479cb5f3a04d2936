"""The native library called from Python: the recurrence and its gradient over arrays in memory."""

import ctypes
import functools
import logging
from pathlib import Path

from indrnn.kernels.build import KernelMissing, find

log = logging.getLogger(__name__)

ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "identity", "piecewise_linear")
CLIP = len(ACTIVATIONS)  # the activation of DiagonalRecurrence, whose u varies: it is [T, B, H]
DIRECTIONS = ("forward", "reverse")
ISAS = ("best", "plain", "avx2", "avx512")
ELEMENTS_PER_THREAD = 131_072  # below, waking a thread (some 10 us) costs more than it takes off
COLUMNS_PER_THREAD = 512  # below, threads fetch each other's cache lines: a training step at (5000, 1, 128) 0.74 ms on one, 0.96 on two


class Call(ctypes.Structure):
    """One run, as kernels/indrnn_call.h has it. Arrays are addresses of contiguous memory, None where they may be left out."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("T", "B", "H")),
        *((name, ctypes.c_int32) for name in ("dtype", "activation", "reverse", "isa", "gradient", "varying")),
        *((name, ctypes.c_double) for name in ("alpha", "lo", "hi")),
        *((name, ctypes.c_void_p) for name in ("x", "u", "h0", "lens", "y", "y_h", "dy", "dy_h", "dx", "du", "dh0", "du_rows")),
    )


class Library:
    """The loaded library. Calls release the interpreter lock."""

    def __init__(self, path: Path) -> None:
        """Raises KernelMissing when the file cannot be loaded."""
        self.path = path
        try:
            library = ctypes.CDLL(str(path))
            self._run, self._has, pool = library.indrnn_run, library.indrnn_has, library.indrnn_pool
        except (OSError, AttributeError) as error:
            raise KernelMissing(f"cannot load {path}: {error}") from error
        self._run.argtypes = (ctypes.POINTER(Call), ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
        self._pool = ctypes.cast(pool, ctypes.c_void_p)

    def isas(self) -> tuple[str, ...]:
        """Return the instruction sets of this machine that the library was compiled for."""
        return tuple(name for i, name in enumerate(ISAS) if i and self._has(i))

    def run(self, call: Call, threads: int, pieces: int | None = None) -> None:
        """Runs forward, or the gradient, on so many threads; pieces: of the work, by default as many as pay."""
        if pieces is None:
            columns = call.B * call.H
            pieces = max(1, min(threads, call.T * columns // ELEMENTS_PER_THREAD, columns // COLUMNS_PER_THREAD))
        if status := self._run(ctypes.byref(call), pieces, self._pool if threads > 1 else None, threads):
            reason = "shapes, options or arrays are missing or wrong" if status == 1 else f"this machine has no {ISAS[call.isa]}"
            raise ValueError(f"indrnn kernel: {reason}")


@functools.cache
def library() -> Library | None:
    """The library if it has been built, otherwise None; the log says which."""
    try:
        loaded = Library(find())
    except KernelMissing as missing:
        log.info("the recurrence runs without its kernel: %s", missing)
        return None
    log.info("the recurrence runs on %s (%s)", loaded.path.name, loaded.isas()[-1])
    return loaded
