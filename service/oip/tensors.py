"""Tensors on the wire: raw little-endian bytes or JSON numbers <-> arrays. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from indrnn.service.errors import BadInput, NotFinite, said
from indrnn.service.serving.signature import Array, Spec

MAX_AXES = 32
MAX_INT64 = 2**63 - 1


@dataclass(slots=True)
class SentTensor:
    """An input as it came: `raw` bytes, or `values`, JSON's flat or nested lists."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes | memoryview | None
    values: object = None


def decode(tensor: SentTensor, spec: Spec, model: str) -> Array:
    """Return the array of an input, read-only where it came as bytes. Raises BadInput where datatype, shape or size are not the model's."""
    if tensor.datatype != spec.datatype:
        raise BadInput(
            f"inference input '{spec.name}' data-type is '{tensor.datatype[:40]}', but model '{model}' expects '{spec.datatype}'"
        )
    shape = tensor.shape
    if len(shape) != len(spec.shape) or not all(n == own or own == -1 for n, own in zip(shape, spec.shape, strict=True)):
        expected, got = (",".join(str(n) for n in s) for s in (spec.shape, shape))
        raise BadInput(f"unexpected shape for input '{spec.name}' for model '{model}'. Expected [{expected}], got [{got}]")
    if tensor.raw is None:
        return _of_values(tensor, spec, model)
    size = math.prod(shape) * spec.dtype.itemsize
    if len(tensor.raw) != size:
        raise BadInput(f"input byte size mismatch for input '{spec.name}' for model '{model}'. Expected {size}, got {len(tensor.raw)}")
    return np.frombuffer(tensor.raw, spec.dtype).reshape(shape)


def _of_values(tensor: SentTensor, spec: Spec, model: str) -> Array:
    flat: Sequence[object] = tensor.values if isinstance(tensor.values, list) else [tensor.values]
    for _ in range(MAX_AXES):
        if not any(isinstance(v, list) for v in flat):
            break
        flat = list(chain.from_iterable(v if isinstance(v, list) else [v] for v in flat))
    count = math.prod(tensor.shape)
    if len(flat) != count:
        raise BadInput(f"unexpected number of elements for input '{spec.name}' for model '{model}'. Expected {count}, got {len(flat)}")
    numbers = (int,) if spec.dtype.kind in "iu" else (int, float)
    odd = next((v for v in flat if isinstance(v, bool) or not isinstance(v, numbers)), None)
    if odd is not None or any(v is None for v in flat):
        raise BadInput(f"unable to parse 'data' of input '{spec.name}' for model '{model}': expected numbers, got {said(odd)}")
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, spec.dtype).reshape(tensor.shape)
    except OverflowError:
        raise BadInput(f"unable to parse 'data' of input '{spec.name}' for model '{model}': a number is beyond {spec.datatype}") from None


def finite(array: Array, name: str, model: str) -> None:
    """Raises NotFinite where an input holds NaN or infinity."""
    if not np.isfinite(array).all():
        what = "NaN" if np.isnan(array).any() else "infinity"
        raise NotFinite(f"inference input '{name}' for model '{model}': expected finite numbers, got {what}")


def shape_of(value: object, name: str) -> tuple[int, ...]:
    """Return a shape as JSON has it. Raises BadInput for what is no list of whole numbers, and for negative and huge ones."""
    if not isinstance(value, list) or len(value) > MAX_AXES:
        raise BadInput(
            f"unable to parse 'shape' of input '{name[:80]}': expected a list of at most {MAX_AXES} whole numbers, got {said(value)}"
        )
    for n in value:
        if type(n) is not int or not 0 <= n <= MAX_INT64:
            raise BadInput(f"unable to parse 'shape' of input '{name[:80]}': expected whole numbers from 0 to 2^63 - 1, got {said(n)}")
    return tuple(value)
