"""Tensors as they were sent, raw little-endian bytes or JSON numbers, as rows to feed, checked against the model. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indrnn.export.modalities.sentences import no_word
from indrnn.service.engine.requests import Exact
from indrnn.service.errors import BadInput, NotFinite, OutOfAlphabet, OutOfRange, TooLarge, said
from indrnn.service.oip.message import MAX_AXES, Ask, Output, SentTensor
from indrnn.service.serving.signature import Array, Signature, Spec
from indrnn.service.session.machine import Floats, Result, Scores


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
    flat = array.reshape(-1)
    if np.count_nonzero(np.isfinite(flat)) != flat.size:  # a third of the time of `all`, for the input of a step
        what = "NaN" if np.isnan(array).any() else "infinity"
        raise NotFinite(f"inference input '{name}' for model '{model}': expected finite numbers, got {what}")


@dataclass(frozen=True, slots=True)
class InferLimits:
    """Rows of a request without a sequence, time steps of a row, time steps of a sequence's request, bytes of a reply's tensors."""

    rows: int
    steps: int
    sequence_steps: int
    reply: int


class Rows(NamedTuple):
    """x [B, T, ...] as sent, the steps that count of each row, and the state [B, N] before them where the client holds it."""

    x: Array
    lengths: Sequence[int] | None
    state: Floats | None

    def content(self, row: int) -> Exact:
        """Return the content of one row, cut to its length."""
        x = self.x[row]
        return Exact(x if self.lengths is None else x[: self.lengths[row]])


def read(ask: Ask, signature: Signature, bounds: InferLimits) -> Rows:
    """Read the rows of a request. Raises BadInput and its kin, in Triton's words where it has some."""
    model = signature.model
    sent = _by_name(ask.inputs, signature)
    x = decode(sent["x"], signature.x, model)
    B, T = x.shape[:2]
    _check_bounds(ask, B, T, signature, bounds)
    lengths = None if "lengths" not in sent else _lengths(sent["lengths"], signature, B, T)
    state = None
    if "state" in sent:
        if ask.sequence is not None:
            raise BadInput(
                f"inference request to model '{model}' must not have both a correlation ID and input 'state': one of them holds the state"
            )
        state = _state(decode(sent["state"], signature.inputs["state"], model), B, signature)
    check_values(x, signature)
    for wanted in ask.outputs or ():
        if wanted.name not in signature.outputs:
            raise BadInput(f"unexpected inference output '{wanted.name[:80]}' for model '{model}'")
    return Rows(x, lengths, state)


def _by_name(tensors: Sequence[SentTensor], signature: Signature) -> dict[str, SentTensor]:
    sent: dict[str, SentTensor] = {}
    for tensor in tensors:
        if tensor.name not in signature.inputs:
            raise BadInput(f"unexpected inference input '{tensor.name[:80]}' for model '{signature.model}'")
        if tensor.name in sent:
            raise BadInput(f"input '{tensor.name}' already exists in request")
        sent[tensor.name] = tensor
    if "x" not in sent:
        count = f"expected number of inputs between 1 and {len(signature.inputs)} but got {len(sent)} inputs for model '{signature.model}'"
        raise BadInput(f"{count}. Got input(s) {sorted(sent)}, but missing required input(s) ['x']")
    return sent


def _check_bounds(ask: Ask, B: int, T: int, signature: Signature, bounds: InferLimits) -> None:
    model = signature.model
    if ask.sequence is not None and B != 1:
        raise BadInput(f"inference request to model '{model}' must specify batch-size 1 due to requirements of sequence batcher")
    if not 1 <= B <= bounds.rows:
        raise BadInput(f"inference request batch-size must be from 1 to {bounds.rows} for '{model}', got {B}")
    steps = bounds.steps if ask.sequence is None else bounds.sequence_steps
    if not 1 <= T <= steps:
        of = "" if ask.sequence is None else " of a sequence"
        raise TooLarge(f"inference request to model '{model}'{of} must have from 1 to {steps} time steps, got {T}")
    reply = 4 * B * (T * signature.classes + signature.state_size)
    if reply > bounds.reply:
        raise TooLarge(f"the outputs of this inference request to model '{model}' would have {reply} bytes, of at most {bounds.reply}")


def _lengths(tensor: SentTensor, signature: Signature, B: int, T: int) -> list[int]:
    if len(tensor.shape) == 1:
        tensor = replace(tensor, shape=(*tensor.shape, 1))  # as the graph has it
    found: list[int] = decode(tensor, signature.inputs["lengths"], signature.model).reshape(-1).tolist()
    if len(found) != B or not all(1 <= t <= T for t in found):
        detail = f"expected {B} numbers from 1 to {T}, got {str(found)[:80]}"
        raise BadInput(f"inference input 'lengths' for model '{signature.model}': {detail}")
    return found


def _state(state: Array, B: int, signature: Signature) -> Floats:
    model = signature.model
    if len(state) != B:
        raise BadInput(f"inference input 'state' for model '{model}': expected {B} rows as of 'x', got {len(state)}")
    finite(state, "state", model)
    floats: Floats = state.astype(np.float32, copy=False)
    if signature.words is not None and signature.slots is not None:
        odd = no_word(floats[:, slice(*signature.slots)], signature.words, kept=True)
        if odd is not None:
            raise OutOfRange(f"inference input 'state' for model '{model}': {odd[1]}")
    return floats


def check_values(x: Array, signature: Signature) -> None:
    """Check the values of x. Raises NotFinite, OutOfAlphabet."""
    if signature.x.dtype.kind == "i":
        if x.min() < 0 or x.max() >= signature.classes:
            odd = next(n for n in x.reshape(-1).tolist() if not 0 <= n < signature.classes)
            expected = f"expected symbols from 0 to {signature.classes - 1}, got {odd}"
            raise OutOfAlphabet(f"inference input 'x' for model '{signature.model}': {expected}")
    else:
        finite(x, "x", signature.model)  # in any unit: Triton's load tool sends random bits for numbers
        odd = None if signature.words is None else no_word(x, signature.words)
        if odd is not None:
            raise OutOfAlphabet(f"inference input 'x' for model '{signature.model}': {odd[1]}")


def outputs(ask: Ask, signature: Signature, rows: Rows, results: Sequence[Result[Scores]]) -> list[Output]:
    """Return what was asked for of logits [B, T, K] and state_out [B, N]; past a row's length the logits are zero.

    Where nothing was named it is the logits, and for a client that sent a state the state after it.
    """
    if ask.outputs:
        wanted = [(w.name, w.binary) for w in ask.outputs]
    else:
        wanted = [(t.name, ask.binary) for t in signature.outputs.values() if not t.optional or rows.state is not None]
    return [Output(name, "FP32", _tensor(name, signature, rows, results), binary) for name, binary in wanted]


def tells_state(ask: Ask, rows: Rows) -> bool:
    """Return whether a request is answered with the state after its rows."""
    return "state_out" in [w.name for w in ask.outputs] if ask.outputs else rows.state is not None


def _tensor(name: str, signature: Signature, rows: Rows, results: Sequence[Result[Scores]]) -> NDArray[np.float32]:
    return _logits(rows, results) if name == "logits" else _states(results, signature.state_size)


def _logits(rows: Rows, results: Sequence[Result[Scores]]) -> NDArray[np.float32]:
    B, T = rows.x.shape[:2]
    scores = [r.result for r in results]
    if T == 1:
        return scores[0].logits[None, None] if B == 1 else np.stack([s.logits for s in scores])[:, None]
    logits = np.zeros((B, T, scores[0].every.shape[1]), np.float32)
    for row, s in zip(logits, scores, strict=True):
        row[: len(s.every)] = s.every
    return logits


def _states(results: Sequence[Result[Scores]], size: int) -> NDArray[np.float32]:
    return np.stack([r.state[:size] for r in results if r.state is not None])
