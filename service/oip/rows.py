"""Tensors as they were sent as rows to feed, checked against the model, and what it answered as tensors. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bounds import outside
from indrnn.export.modalities.sentences import no_word
from indrnn.service.engine.requests import Exact
from indrnn.service.errors import BadInput, OutOfAlphabet, OutOfRange, TooLarge
from indrnn.service.oip import own_tensors
from indrnn.service.oip.message import Ask, Inputs, Output, SentTensor, Wanted, decode, finite
from indrnn.service.serving.signature import Array, Signature
from indrnn.service.session.machine import Floats, Result, Scores


@dataclass(frozen=True, slots=True)
class InferLimits:
    """Rows of a request without a sequence, time steps of a row, time steps of a sequence's request, bytes of a reply's tensors.

    As many bytes may x have where an adopted file's inputs are repeated for it.
    """

    rows: int
    steps: int
    sequence_steps: int
    reply: int


class Rows(NamedTuple):
    """x [B, T, ...] as sent, the steps that count of each row, and the state [B, N] before them where the client holds it.

    named: whether an adopted file's own inputs were sent in place of x. longer: whether one had steps that it has not in the file, so that
    every output has some.
    """

    x: Array
    lengths: Sequence[int] | None
    state: Floats | None
    named: bool = False
    longer: bool = False

    def content(self, row: int) -> Exact:
        """Return the content of one row, cut to its length."""
        x = self.x[row]
        return Exact(x if self.lengths is None else x[: self.lengths[row]])


class ToldOutputs(NamedTuple):
    """Outputs of a request; named: as in Rows; every: whether an adopted file's own that have no steps are of every one."""

    wanted: Sequence[Wanted]
    named: bool
    every: bool


def read(ask: Ask, signature: Signature, bounds: InferLimits) -> Rows:
    """Read the rows of a request. Raises BadInput and its kin, in Triton's words where it has some."""
    model = signature.model
    if ask.flush and signature.window == 1:
        raise BadInput(f"parameter 'indrnn_flush' is for models that read windows; model '{model}' answers every step")
    sent = _by_name(ask.inputs, signature)
    fed, named = _fed(sent, signature)
    if named and signature.own is not None:
        sent = {name: tensor for name, tensor in sent.items() if name not in signature.own.inputs}
    B, T = fed.rows, fed.steps
    _check_bounds(ask, B, T + ask.flush, signature, bounds)
    told = ToldOutputs(_wanted(ask, signature, named, "state" in sent), named, fed.longer or not named)
    _check_reply(told, B, T + ask.flush, signature, bounds)
    if fed.spread > bounds.reply:
        said = f"inputs repeated for {T} time steps would have {fed.spread} bytes, of at most {bounds.reply}"
        raise TooLarge(f"inference request to model '{signature.model}': {said}")
    lengths: Sequence[int] | None = None if "lengths" not in sent else _lengths(sent["lengths"], signature, B, T)
    state = None
    if "state" in sent:
        if ask.sequence is not None:
            raise BadInput(
                f"inference request to model '{model}' must not have both a correlation ID and input 'state': one of them holds the state"
            )
        state = _state(decode(sent["state"], signature.inputs["state"], model), B, signature)
    x = fed.packed()
    if x.size:
        check_values(x, signature)
    if ask.flush:
        x, lengths = flushed(x, lengths)
    return Rows(x, lengths, state, named, fed.longer)


def _fed(sent: dict[str, SentTensor], signature: Signature) -> tuple[Inputs, bool]:
    """Return what is fed, and whether it came as an adopted file's own inputs."""
    if signature.own is not None and own_tensors.is_named(sent, signature):
        return own_tensors.read(sent, signature), True
    if "x" not in sent:
        needed = [t.name for t in signature.asked[0]]
        accepted = len({*signature.inputs, *needed})
        count = f"expected number of inputs between 1 and {accepted} but got {len(sent)} inputs for model '{signature.model}'"
        raise BadInput(f"{count}. Got input(s) {sorted(sent)}, but missing required input(s) {needed}")
    x = decode(sent["x"], signature.x, signature.model)
    return Inputs([x], x.shape[1]), False


def _is_own(name: str, signature: Signature, named: bool) -> bool:
    """Return whether a name is one of the file's own outputs; of a name that both have, for a request with the file's own inputs."""
    return signature.own is not None and name in signature.own.outputs and (named or name not in signature.outputs)


def _by_name(tensors: Sequence[SentTensor], signature: Signature) -> dict[str, SentTensor]:
    own = {} if signature.own is None else signature.own.inputs
    sent: dict[str, SentTensor] = {}
    for tensor in tensors:
        if tensor.name not in signature.inputs and tensor.name not in own:
            raise BadInput(f"unexpected inference input '{tensor.name[:80]}' for model '{signature.model}'")
        if tensor.name in sent:
            raise BadInput(f"input '{tensor.name}' already exists in request")
        sent[tensor.name] = tensor
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


def _check_reply(told: ToldOutputs, B: int, T: int, signature: Signature, bounds: InferLimits) -> None:
    """Check the outputs' names and bytes, and those of logits and state, which are there whatever is told of them."""
    model, names = signature.model, [w.name for w in told.wanted]
    for name in names:
        if name not in signature.outputs and not _is_own(name, signature, told.named):
            raise BadInput(f"unexpected inference output '{name[:80]}' for model '{model}'")
        if names.count(name) > 1:
            raise BadInput(f"output '{name}' already exists in request")
    made = 4 * (T * signature.classes + signature.state_size)
    reply = B * max(made, sum(_size(name, told, T, signature) for name in names))
    if reply > bounds.reply:
        raise TooLarge(f"the outputs of this inference request to model '{model}' would have {reply} bytes, of at most {bounds.reply}")


def _size(name: str, told: ToldOutputs, T: int, signature: Signature) -> int:
    """Return the most bytes of an output in a row."""
    if _is_own(name, signature, told.named):
        return own_tensors.size(name, signature, T, told.every)
    return 4 * (T * signature.classes if name == "logits" else signature.state_size)


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
        odd = no_word(floats[:, slice(*signature.slots)], signature.words, None, kept=True)
        if odd is not None:
            raise OutOfRange(f"inference input 'state' for model '{model}': {odd[1]}")
    if (strange := outside(floats, signature.bounds)) is not None:
        raise OutOfRange(f"inference input 'state' for model '{model}': {strange[1]}")
    return floats


def flushed(x: Array, lengths: Sequence[int] | None) -> tuple[Array, Sequence[int]]:
    """Return x [B, T + 1, F] and its lengths with a NaN behind each row's last sample: there the graph fills the window, and answers it."""
    B, T, F = x.shape
    ends = [T] * B if lengths is None else lengths
    longer = np.concatenate([x, np.zeros((B, 1, F), np.float32)], 1)
    longer[range(B), ends] = np.nan
    return longer, [n + 1 for n in ends]


def check_values(x: Array, signature: Signature) -> None:
    """Check the values of x. Raises NotFinite, OutOfAlphabet."""
    if signature.x.dtype.kind == "i":
        if x.min() < 0 or x.max() >= signature.classes:
            odd = next(n for n in x.reshape(-1).tolist() if not 0 <= n < signature.classes)
            expected = f"expected symbols from 0 to {signature.classes - 1}, got {odd}"
            raise OutOfAlphabet(f"inference input 'x' for model '{signature.model}': {expected}")
    else:
        finite(x, "x", signature.model)  # in any unit: Triton's load tool sends random bits for numbers
        odd = None if signature.words is None else no_word(x, signature.words, x.shape[-1])
        if odd is not None:
            raise OutOfAlphabet(f"inference input 'x' for model '{signature.model}': {odd[1]}")


def outputs(ask: Ask, signature: Signature, rows: Rows, results: Sequence[Result[Scores]]) -> list[Output]:
    """Return what was asked for of logits [B, T, K], state_out [B, N] and an adopted file's own outputs; past a row's length all is zero.

    Where nothing was named it is the logits, or the file's own outputs for a client that sent its own inputs, and for one that sent a
    state the state after it.
    """
    told = ToldOutputs(_wanted(ask, signature, rows.named, rows.state is not None), rows.named, rows.longer or not rows.named)
    return [_output(w, told, signature, rows, results) for w in told.wanted]


def _wanted(ask: Ask, signature: Signature, named: bool, has_state: bool) -> Sequence[Wanted]:
    """Return the outputs of a request, which may name none. Raises BadInput where the state after it has no name to go by."""
    after = ["state_out"] if has_state else []
    if named and signature.own is not None:
        if after and _is_own("state_out", signature, named):
            said = "is the file's own beside its own inputs. Expected input 'x' in their place, or a correlation ID"
            raise BadInput(f"unexpected inference input 'state' for model '{signature.model}': output 'state_out' {said}")
        names = [*signature.own.outputs, *after]
    else:
        names = [t.name for t in signature.outputs.values() if not t.optional or t.name in after]
    return ask.outputs or [Wanted(name, ask.binary) for name in names]


def tells_state(ask: Ask, rows: Rows) -> bool:
    """Return whether a request is answered with the state after its rows."""
    return "state_out" in [w.name for w in ask.outputs] if ask.outputs else rows.state is not None


def _output(wanted: Wanted, told: ToldOutputs, signature: Signature, rows: Rows, results: Sequence[Result[Scores]]) -> Output:
    name, binary = wanted
    if _is_own(name, signature, told.named):
        return own_tensors.output(name, binary, signature, own_tensors.Answers(results, rows.x.shape[1], told.every))
    tensor = _logits(rows, results) if name == "logits" else _states(results, signature.state_size)
    return Output(name, "FP32", tensor, binary)


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
