"""An adopted file's own inputs and outputs over the protocol: by their names, in their types, in place of x and logits. Pure.

Rows come first, then steps. An input without steps in the file is one step, or holds for all of them where others have several; it may be
sent with steps too, and then every output has some. Of a file that reads windows an output has as many results as windows ended.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indrnn.service.errors import BadInput
from indrnn.service.oip.message import Inputs, Output, SentTensor, decode, finite
from indrnn.service.serving.signature import Array, OwnTensor, Signature, Spec
from indrnn.service.session.machine import Floats, Result, Scores

WHOLE = 2**24  # whole numbers up to here are float32 numbers, which is what the graph reads


def is_named(sent: Mapping[str, SentTensor], signature: Signature) -> bool:
    """Return whether a request has the file's own inputs. One called x is, unless it comes as all the numbers of a step in one axis."""
    if signature.own is None:
        return False
    names = sent.keys() & signature.own.inputs.keys()
    if names != {"x"}:
        return bool(names)
    own, shape, is_packed = signature.own.inputs["x"], sent["x"].shape, _fits(sent["x"].shape, signature.x)
    if len(signature.own.inputs) > 1 or (is_packed and sent["x"].datatype == signature.x.datatype != own.spec.datatype):
        return False
    return _fits(shape, own.spec) or _fits(shape, own.over_time()) or not is_packed


def _fits(shape: tuple[int, ...], spec: Spec) -> bool:
    return len(shape) == len(spec.shape) and all(n == own or own == -1 for n, own in zip(shape, spec.shape, strict=True))


def read(sent: Mapping[str, SentTensor], signature: Signature) -> Inputs:
    """Return the file's own inputs, not yet beside each other: that may take far more memory than what was sent.

    Raises BadInput where one is missing, or they have not the same rows and steps.
    """
    assert signature.own is not None, "as is_named says"
    own, model = signature.own.inputs, signature.model
    missing = [name for name in own if name not in sent]
    if missing:
        raise BadInput(
            f"expected {len(own)} inputs but got {len(own) - len(missing)} for model '{model}'. Got input(s) {sorted(sent)}, but missing "
            f"required input(s) {missing}"
        )
    if "x" in sent and "x" not in own:
        raise BadInput(f"unexpected inference input 'x' for model '{model}': it is the same as {sorted(own)}, which have come too")
    found, longer = [], False
    for name, one in own.items():
        with_steps = not one.timed and len(sent[name].shape) == len(one.spec.shape) + 1
        longer = longer or with_steps
        found.append(_decoded(sent[name], one, with_steps, model))
    shapes = {name: sent[name].shape[:2] for name in own}
    B, T = len(found[0]), max((f.shape[1] for f in found), key=lambda n: (n != 1, n))
    if any(len(f) != B or f.shape[1] not in (1, T) for f in found):
        raise BadInput(f"inference inputs of model '{model}': expected the same rows and steps in each, got {shapes}")
    return Inputs(found, T, longer)


def _decoded(tensor: SentTensor, one: OwnTensor, with_steps: bool, model: str) -> Floats:
    """Return an input as float32 [B, T, numbers]. Raises BadInput."""
    array = decode(tensor, one.over_time() if with_steps else one.spec, model)
    if array.dtype.kind in "iu" and array.size and (int(array.max()) > WHOLE or int(array.min()) < -WHOLE):
        raise BadInput(f"inference input '{tensor.name}' for model '{model}': expected whole numbers of at most 2^24, got one beyond")
    T = array.shape[1] if one.timed or with_steps else 1
    with np.errstate(over="ignore"):  # float64 beyond float32 is infinite then, and refused as that
        floats: Floats = array.astype(np.float32).reshape(len(array), T, one.stop - one.start)
    finite(floats, tensor.name, model)
    return floats


class Answers(NamedTuple):
    """The results of a request's rows, the steps of its x, and whether outputs that have none in the file are of every step."""

    results: Sequence[Result[Scores]]
    steps: int
    every: bool


def size(name: str, signature: Signature, steps: int, every: bool) -> int:
    """Return the most bytes that one of the file's own outputs has in a row of so many steps, every one or the last."""
    assert signature.own is not None, "as is_output says"
    one = signature.own.outputs[name]
    answers = -(-steps // signature.window) if one.timed or every else 1
    return answers * (one.stop - one.start) * one.spec.dtype.itemsize


def output(name: str, binary: bool, signature: Signature, answers: Answers) -> Output:
    """Return one of the file's own outputs, in its own type.

    [B, T, ...], with windows [B, n, ...] where n is the most that ended in a row; past a row's own it is zero. [B, ...] where the file's
    has no steps: the answer to the last one.
    """
    assert signature.own is not None, "as is_output says"
    one = signature.own.outputs[name]
    numbers = slice(one.start, one.stop)
    last = not (one.timed or answers.every)
    if last:
        values: Floats = np.stack([r.result.logits[numbers] for r in answers.results])
        shape: tuple[int, ...] = (len(values), *one.own)
    else:
        rows = [_rows(r.result, answers.steps, signature.window)[:, numbers] for r in answers.results]
        most = answers.steps if signature.window == 1 else max(len(row) for row in rows)
        values = np.zeros((len(rows), most, one.stop - one.start), np.float32)
        for b, row in enumerate(rows):
            values[b, : len(row)] = row
        shape = (*values.shape[:2], *one.own)
    return Output(name, one.spec.datatype, _typed(values, one.spec).reshape(shape), binary)


def _rows(scores: Scores, steps: int, window: int) -> NDArray[np.float32]:
    """Return the answers of a row [n, K]: of each step, or of each window that ended."""
    if steps > 1:
        return scores.every
    return scores.logits[None] if window == 1 or scores.logits[-1] > 0 else scores.logits[None][:0]


def _typed(values: Floats, spec: Spec) -> Array:
    dtype = spec.dtype
    if dtype.kind == "b":
        truth: Array = values != 0
        return truth
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype.kind not in "iu":
            return values.astype(dtype, copy=False)
        whole: Array = np.rint(values).astype(dtype)
    ends = np.iinfo(spec.datatype.lower())
    whole[values >= float(ends.max)] = ends.max  # in float32 that of 32 and 64 bits is one beyond the type
    whole[values <= float(ends.min)] = ends.min
    return whole
