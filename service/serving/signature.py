"""A model's tensors as the Open Inference Protocol names them: from the bundle's manifest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bounds import Bounds, bounds
from indrnn.export.bundle import AdoptedTensor, Manifest
from indrnn.export.modalities.sentences import SLOTS

DATATYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2", "INT32": "<i4",
    "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
"""The protocol's names and NumPy's, little-endian; BYTES and BF16 have no counterpart."""

_OF_DTYPE = {
    "float16": "FP16", "float32": "FP32", "float64": "FP64", "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32",
    "int64": "INT64", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip


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
class OwnTensor:
    """An input or output of an adopted file: which numbers of a row of x, or of logits, it is.

    timed: whether the file's own has an axis of steps (or of samples, or of windows); own: the sizes behind that.
    """

    spec: Spec
    timed: bool
    start: int
    stop: int

    @property
    def own(self) -> tuple[int, ...]:
        """Return the sizes of the axes behind B and T."""
        return self.spec.shape[1 + self.timed :]

    def over_time(self) -> Spec:
        """Return the spec with an axis of steps, which the file's own may lack."""
        s = self.spec
        return s if self.timed else Spec(s.name, s.datatype, (-1, -1, *self.own))


@dataclass(frozen=True)
class Own:
    """An adopted file's own inputs and outputs by their names, rows first, then steps, whatever the order in the file."""

    inputs: dict[str, OwnTensor]
    outputs: dict[str, OwnTensor]

    @classmethod
    def of(cls, manifest: Manifest) -> "Own | None":
        """Return those of a bundle; None where it was not adopted."""
        adopted = manifest.adopted
        if adopted is None:
            return None
        windows = manifest.window is not None
        return cls(_own(adopted.inputs, windows), _own(adopted.outputs, windows))


def _own(tensors: Sequence[AdoptedTensor], windows: bool) -> dict[str, OwnTensor]:
    found, at = {}, 0
    for t in tensors:
        sizes = tuple(n for n in t.shape if isinstance(n, int))
        timed = windows or "T" in t.shape
        shape = (-1, -1, *sizes) if timed else _rows((-1, *sizes))
        size = math.prod(sizes)
        found[t.name] = OwnTensor(Spec(t.name, _OF_DTYPE[t.dtype], shape), timed, at, at + size)
        at += size
    return found


@dataclass(frozen=True)
class Signature:
    """The tensors that a model takes and gives: x [B, T, ...], lengths [B, 1], state [B, N] -> logits [B, T, K], state_out [B, N].

    One that looks at whole sequences takes and gives no state. own: an adopted file's, which stand in x and logits beside each other.
    window: steps that make one answer.
    """

    model: str
    version: str
    inputs: dict[str, Spec]
    outputs: dict[str, Spec]
    classes: int
    state_size: int
    own: Own | None = None
    window: int = 1
    words: int | None = None
    """of a model that reads sentences, how many words it knows; x holds their numbers"""
    slots: tuple[int, int] | None = None
    """where in the state sentences are kept, as numbers of words: from, to"""
    bounds: tuple[Bounds, ...] = ()
    """of the numbers of the state that can not be any"""

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
        sizes = manifest.classes, manifest.state_size
        own, window = Own.of(manifest), manifest.window or 1
        return cls(manifest.name, manifest.version, inputs, outputs, *sizes, own, window, words, slots, bounds(manifest))

    @cached_property
    def x(self) -> Spec:
        """Return the spec of x, the input that is fed."""
        return self.inputs["x"]

    @property
    def asked(self) -> tuple[list[Spec], list[Spec]]:
        """Return the inputs that a request has to have, and the outputs that it is answered with where it names none: the file's own."""
        if self.own is not None:
            return [t.spec for t in self.own.inputs.values()], [t.spec for t in self.own.outputs.values()]
        return [t for t in self.inputs.values() if not t.optional], [t for t in self.outputs.values() if not t.optional]

    @property
    def optional(self) -> tuple[list[Spec], list[Spec]]:
        """Return the inputs and outputs that a request can do without; none that has the name of one of the file's own."""
        asked = [{t.name for t in tensors} for tensors in self.asked]
        return [t for t in self.inputs.values() if t.name not in asked[0]], [t for t in self.outputs.values() if t.name not in asked[1]]


def _rows(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A row has an axis at least: clients drop the first one, and some (Triton's load tool) take what is left for no shape at all."""
    return shape if len(shape) > 1 else (*shape, 1)


def _free(shape: tuple[int | str, ...]) -> tuple[int, ...]:
    return tuple(-1 if isinstance(n, str) else n for n in shape)


Array = NDArray[np.generic]
