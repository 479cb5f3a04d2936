"""A tensor as it was sent, raw little-endian bytes or JSON numbers, as an array of the model's type and shape. Pure."""

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np

from indrnn.service.errors import BadInput, NotFinite, said
from indrnn.service.oip.message import MAX_AXES, SentTensor
from indrnn.service.serving.signature import Array, Spec


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
    truth = spec.dtype.kind == "b"
    numbers = (bool,) if truth else (int,) if spec.dtype.kind in "iu" else (int, float)
    odd = next((v for v in flat if isinstance(v, bool) != truth or not isinstance(v, numbers)), None)
    if odd is not None or any(v is None for v in flat):
        expected = f"expected {'true or false' if truth else 'numbers'}, got {said(odd)}"
        raise BadInput(f"unable to parse 'data' of input '{spec.name}' for model '{model}': {expected}")
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, spec.dtype).reshape(tensor.shape)
    except OverflowError:
        raise BadInput(f"unable to parse 'data' of input '{spec.name}' for model '{model}': a number is beyond {spec.datatype}") from None


def finite(array: Array, name: str, model: str) -> None:
    """Raises NotFinite where an input holds NaN or infinity."""
    flat = array.reshape(-1)
    if np.count_nonzero(np.isfinite(flat)) != flat.size:  # a third of the time of `all`, for the input of a step
        what = "NaN" if np.isnan(array).any() else "infinity"
        raise NotFinite(f"inference input '{name}' for model '{model}': expected finite numbers, got {what}")
