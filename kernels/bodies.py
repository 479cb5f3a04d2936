"""Evidence on bodies from the native library: what frames/anatomy.py computes, in one call that takes microseconds for a small batch."""

import ctypes
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indrnn.kernels.build import KernelMissing, find

Floats = NDArray[np.float32]

DOUBTS = ("size", "shape", "change", "upright", "sides", "flat", "nobody")
NOT_FINITE = 128
MOST = 64  # pairs, and joints
FEW_FRAMES = 1_024  # some milliseconds: up to here the interpreter lock is kept, which a busy event loop gives back late
_COUNTS = ("T", "P", "J", "graph", "frame", "pairs", "ups", "sides")
_NUMBERS = (
    *("forget", "shortest", "clipped", "farthest", "upright", "flat", "fewest", "fewest_poses"),
    *("size", "shape", "limb", "breath", "change", "up", "often", "down", "side", "depth", "absent"),
)


class BodyCall(ctypes.Structure):
    """One look, as kernels/bodies.h has it."""

    _fields_ = (
        ("B", ctypes.c_int64),
        *((name, ctypes.c_int64) for name in _COUNTS),
        *((name, ctypes.c_void_p) for name in ("joints", "logs", "weights")),
        *((name, ctypes.c_float) for name in _NUMBERS),
    )


class BodyKernel:
    """Looks at batches of one model's rows.

    pairs [n, 2] joints with the logarithms [n] of their lengths, weights [0 to 4, J] of the lines that say how a body stands, of which
    `ups` come first; counts: P, J, the graph's numbers of a state and where the last frame begins among them; numbers: those of BodyCall,
    limits that are not checked infinite.
    """

    def __init__(
        self,
        path: Path,
        pairs: NDArray[np.int32],
        logs: Floats,
        weights: Floats,
        ups: int,
        counts: Mapping[str, int],
        numbers: Mapping[str, float],
    ) -> None:
        """Raises KernelMissing when the library cannot be loaded."""
        self._kept = (
            np.ascontiguousarray(pairs, np.int32),
            np.ascontiguousarray(logs, np.float32),
            np.ascontiguousarray(weights, np.float32),
        )
        addresses = dict(zip(("joints", "logs", "weights"), (a.ctypes.data for a in self._kept), strict=True))
        self._call = BodyCall(pairs=len(pairs), ups=ups, sides=len(weights) - ups, **counts, **addresses, **numbers)
        try:
            self._holding, self._free = (kind(str(path)).indrnn_bodies for kind in (ctypes.PyDLL, ctypes.CDLL))
        except (OSError, AttributeError) as error:
            raise KernelMissing(f"cannot load {path}: {error}") from error
        for function in (self._holding, self._free):
            function.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_char_p] * 4 + [ctypes.c_void_p] * 2 + [ctypes.c_char_p]
            function.restype = ctypes.c_int32
        self._address = ctypes.addressof(self._call)
        self._found = ctypes.create_string_buffer(64)

    def look(
        self, x: Floats, lengths: NDArray[np.int64], state: bytes, evidence: bytes, lost: NDArray[np.bool_] | None, after: Floats
    ) -> tuple[Floats, list[int] | None]:
        """Return the states after with their evidence, [B, N + E], and each row's doubts as bits, [B]; None where nobody has any.

        x [B, T, P, J, 3], of which lengths [B] count; state [B, N] and evidence [B, E] before them, after [B, N]; lost [B, T, P, J].
        """
        (B, T), call = x.shape[:2], self._call
        out = np.empty((B, (len(state) + len(evidence)) // (4 * B)), np.float32)
        call.B, call.T = B, T
        if len(self._found) < B:
            self._found = ctypes.create_string_buffer(B)
        x, after = np.ascontiguousarray(x), np.ascontiguousarray(after)
        run = self._holding if B * T * call.P <= FEW_FRAMES else self._free
        unseen = None if lost is None else lost.tobytes()
        doubts = run(
            self._address, x.ctypes.data, lengths.tobytes(), state, evidence, unseen, after.ctypes.data, out.ctypes.data, self._found
        )
        if doubts < 0:
            raise ValueError("bodies: shapes make no sense")
        return out, list(self._found.raw[:B]) if doubts else None


@functools.lru_cache(maxsize=256)
def named(bits: int) -> tuple[str, ...]:
    """Return the names of a row's doubts."""
    return tuple(name for i, name in enumerate(DOUBTS) if bits >> i & 1)


def library() -> Path | None:
    """Return the native library, None where there is none."""
    try:
        return find()
    except KernelMissing:
        return None
