"""A model's tensors as the Open Inference Protocol names them: from the bundle's manifest."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import Manifest
from indrnn.export.modalities.sentences import SLOTS

DATATYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2", "INT32": "<i4",
    "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
"""The protocol's names and NumPy's, little-endian; BYTES and BF16 have no counterpart."""

_OF_DTYPE = {"float32": "FP32", "int64": "INT64"}


@dataclass(frozen=True)
class Spec:
    """One input or output; -1 in shape is a free axis, the first is B."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    @cached_property
    def dtype(self) -> np.dtype[np.generic]:
        """Return the type by which its elements lie in memory."""
        return np.dtype(DATATYPES[self.datatype])


@dataclass(frozen=True)
class Signature:
    """The tensors that a model takes and gives: x [B, T, ...], lengths [B, 1], state [B, N] -> logits [B, T, K], state_out [B, N].

    One that looks at whole sequences takes and gives no state.
    """

    model: str
    version: str
    inputs: dict[str, Spec]
    outputs: dict[str, Spec]
    classes: int
    state_size: int
    words: int | None = None
    """of a model that reads sentences, how many words it knows; x holds their numbers"""
    slots: tuple[int, int] | None = None
    """where in the state sentences are kept, as numbers of words: from, to"""

    @classmethod
    def of(cls, manifest: Manifest) -> "Signature":
        """Make the signature of a bundle. x is needed and logits are answered; the rest is for clients that hold the state, and for rows of
        several lengths."""
        hidden = () if manifest.streams else ("state", "state_out")
        given, answered = ([t for t in tensors if t.name not in hidden] for tensors in (manifest.inputs, manifest.outputs))
        inputs = {t.name: Spec(t.name, _OF_DTYPE[t.dtype], _rows(_free(t.shape)), t.name != "x") for t in given}
        outputs = {t.name: Spec(t.name, _OF_DTYPE[t.dtype], _free(t.shape), t.name != "logits") for t in answered}
        words = None if manifest.words is None else len(manifest.words)
        kept = next((p for p in manifest.state if p.name == SLOTS and words is not None), None)
        slots = None if kept is None else (kept.offset, kept.offset + kept.size)
        return cls(manifest.name, manifest.version, inputs, outputs, manifest.classes, manifest.state_size, words, slots)

    @cached_property
    def x(self) -> Spec:
        """Return the spec of x, the input that is fed."""
        return self.inputs["x"]


def _rows(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A row has an axis at least: clients drop the first one, and some (Triton's load tool) take what is left for no shape at all."""
    return shape if len(shape) > 1 else (*shape, 1)


def _free(shape: tuple[int | str, ...]) -> tuple[int, ...]:
    return tuple(-1 if isinstance(n, str) else n for n in shape)


Array = NDArray[np.generic]
