"""An inference request of the Open Inference Protocol, whatever carried it, and its bytes over HTTP: JSON with raw tensors behind."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson

from indrnn.service.engine.requests import ClientProtocol
from indrnn.service.errors import BadInput, NotFinite, said
from indrnn.service.serving.modality import READ_OPTIONS
from indrnn.service.serving.request import MAX_STEP
from indrnn.service.serving.signature import Array, Signature, Spec

LENGTH = b"inference-header-content-length"
JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")
MAX_UINT64 = 2**64 - 1
LONGEST_ID = 128  # bytes of a text id, as Triton has it
_OURS = "indrnn_"
_NOT_RESERVED = "triton_enable_empty_final_response"  # for streams of many replies per request, which there are none of


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


class Inputs(NamedTuple):
    """Inputs [B, T, ...] as they were sent; of several, one step holds for all of `steps`, and they are [B, T or 1, numbers].

    longer: whether one had steps that it has not in the file.
    """

    found: Sequence[Array]
    steps: int
    longer: bool = False

    @property
    def rows(self) -> int:
        """Return B."""
        return len(self.found[0])

    @property
    def spread(self) -> int:
        """Return the bytes of x, where an input has to be repeated for it; else 0."""
        size = 4 * self.rows * self.steps * sum(f.shape[2] for f in self.found) if len(self.found) > 1 else 0
        return size if size > sum(f.nbytes for f in self.found) else 0

    def packed(self) -> Array:
        """Return x, the inputs beside each other."""
        if len(self.found) == 1:
            return self.found[0]
        return np.concatenate([np.broadcast_to(f, (self.rows, self.steps, f.shape[2])) for f in self.found], 2)


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


class Wanted(NamedTuple):
    """A requested output; binary: as raw bytes behind the JSON."""

    name: str
    binary: bool


@dataclass(slots=True)
class Ask:
    """An inference request. sequence None: without state from request to request; step None: the server counts; timeout in seconds."""

    id: str
    inputs: list[SentTensor]
    outputs: list[Wanted] | None
    sequence: int | str | None = None
    start: bool = False
    end: bool = False
    step: int | None = None
    timeout: float | None = None
    binary: bool = False
    """whether outputs that were not named come as raw bytes"""
    flush: bool = False
    """whether the window that is begun is filled with zeros and answered"""
    protocol: ClientProtocol = "oip_http"
    more: dict[str, object] = field(default_factory=dict)
    """options that say how x is to be read, by their native names: indrnn_lost is `lost`"""

    @property
    def goes_on(self) -> bool:
        """Return whether it is a step of a sequence that has begun, on whichever version that was."""
        return self.sequence is not None and not self.start

    def take_parameters(self, parameters: Mapping[str, object]) -> None:
        """Read the request's parameters. Raises BadInput for one of a wrong type, a reserved one, and one of ours that is not known."""
        for name, value in parameters.items():
            if value is None:
                continue
            if name == "sequence_id":
                self.sequence = _sequence(value)
            elif name == "sequence_start":
                self.start = boolean(value, name)
            elif name == "sequence_end":
                self.end = boolean(value, name)
            elif name == "indrnn_step":
                self.step = _whole(value, name, 1, MAX_STEP)
            elif name == "indrnn_flush":
                self.flush = boolean(value, name)
            elif name == "timeout":
                micros = _whole(value, name, 0, MAX_UINT64)
                self.timeout = micros / 1e6 if micros else None
            elif name == "binary_data_output":
                self.binary = boolean(value, name)
            elif name.startswith(_OURS):
                if name.removeprefix(_OURS) not in READ_OPTIONS:
                    known = ", ".join(_OURS + option for option in ("step", "flush", *READ_OPTIONS))
                    raise BadInput(f"unknown parameter '{name[:80]}', expected {known}")
                self.more[name.removeprefix(_OURS)] = value
            elif name.startswith("triton_") and name != _NOT_RESERVED:
                raise BadInput(
                    f"parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified: '{name[:80]}'"
                )

    def check_sequence(self, model: str) -> None:
        """Raises BadInput where something is said of a sequence that is not named."""
        if self.sequence is None and (self.start or self.end or self.step is not None):
            raise BadInput(f"inference request to model '{model}' must specify a non-zero or non-empty correlation ID")


def _sequence(value: object) -> int | str | None:
    """Return a correlation id, text or uint64, its type kept; 0 and "" are none."""
    if isinstance(value, str):
        if len(value.encode("utf-8", "surrogatepass")) > LONGEST_ID:
            raise BadInput(f"string correlation ID: expected at most {LONGEST_ID} bytes, got {len(value.encode('utf-8', 'surrogatepass'))}")
        return value or None
    if type(value) is not int or not 0 <= value <= MAX_UINT64:
        raise BadInput(f"parameter 'sequence_id': expected a text or a whole number from 0 to 2^64 - 1, got {said(value)}")
    return value or None


def boolean(value: object, name: str) -> bool:
    """Return true or false. Raises BadInput."""
    if value is not True and value is not False:
        raise BadInput(f"parameter '{name}': expected true or false, got {said(value)}")
    return value


def _whole(value: object, name: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise BadInput(f"parameter '{name}': expected a whole number from {low} to {high}, got {said(value)}")
    return value


_NOT_OFFERED = ("classification", "shared_memory_region")


class Output(NamedTuple):
    """An output as it is to be written."""

    name: str
    datatype: str
    array: Array
    binary: bool


class InferAnswer(NamedTuple):
    """The answer to a request. step and position: where the sequence stands, if it is one; warnings: lines of text, of the rows."""

    model: str
    version: str
    id: str
    outputs: Sequence[Output]
    step: int | None = None
    position: int | None = None
    warnings: str = ""


def header_length(value: str | None, size: int) -> int | None:
    """Inference-Header-Content-Length of a body of `size` bytes; None: all of it is JSON. Raises BadInput."""
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 20 and int(value) <= size):
        raise BadInput(f"Unable to parse Inference-Header-Content-Length: expected a whole number up to {size}, got {said(value)}")
    return int(value)


def read(body: bytes, length: int | None) -> Ask:
    """Return a request whose first `length` bytes are JSON. Raises BadInput."""
    try:
        head = orjson.loads(body if length is None else memoryview(body)[:length])
    except orjson.JSONDecodeError as error:
        raise BadInput(f"failed to parse the request JSON buffer: {error.msg} at {error.pos}") from None
    if not isinstance(head, dict):
        raise BadInput(f"failed to parse the request JSON buffer: expected an object, got {said(head)}")
    ident = "" if head.get("id") is None else head["id"]
    if not isinstance(ident, str):
        raise BadInput(f"unable to parse 'id': expected a text, got {said(ident)}")
    ask = Ask(ident, [], None)
    if head.get("parameters") is not None:
        ask.take_parameters(_object(head["parameters"], "parameters"))
    _read_inputs(ask, head.get("inputs"), memoryview(body), len(body) if length is None else length)
    if head.get("outputs") is not None:
        ask.outputs = [_wanted(output, ask.binary) for output in _list(head["outputs"], "outputs")]
    return ask


def _read_inputs(ask: Ask, inputs: object, body: memoryview, at: int) -> None:
    for item in _list(inputs, "inputs"):
        described = _object(item, "inputs")
        name, datatype = described.get("name"), described.get("datatype")
        if not isinstance(name, str) or not isinstance(datatype, str):
            raise BadInput("unable to parse 'inputs': expected name and datatype of each as texts")
        parameters = described.get("parameters")
        size = None if parameters is None else _binary_size(_object(parameters, "parameters"), name)
        shape = shape_of(described.get("shape"), name)
        if size is None:
            if described.get("data") is None:
                raise BadInput(f"must specify 'binary_data_size' or 'data' for input '{name[:80]}'")
            ask.inputs.append(SentTensor(name, datatype, shape, None, described["data"]))
            continue
        if at + size > len(body):
            raise BadInput(f"unexpected end of the body: input '{name[:80]}' expects {size} bytes, {len(body) - at} are left")
        ask.inputs.append(SentTensor(name, datatype, shape, body[at : at + size]))
        at += size
    if at != len(body):
        raise BadInput(f"unexpected additional input data: {len(body) - at} bytes behind the last input")


def read_raw(body: bytes, signature: Signature) -> Ask:
    """Return a request that is nothing but the bytes of an input, one row of it, as Inference-Header-Content-Length 0 says.

    The input is x, or an adopted file's own where it has one alone. Raises BadInput.
    """
    own = [] if signature.own is None else list(signature.own.inputs.values())
    x = own[0].over_time() if len(own) == 1 else signature.x
    rest = x.shape[2:]
    step = int(np.prod(rest, dtype=np.int64)) * x.dtype.itemsize
    if not body or len(body) % step:
        expected = f"Expected a multiple of {step}, got {len(body)}"
        raise BadInput(f"input byte size mismatch for input '{x.name}' for model '{signature.model}'. {expected}")
    return Ask("", [SentTensor(x.name, x.datatype, (1, len(body) // step, *rest), body)], None, binary=True)


def _binary_size(parameters: dict[str, object], name: str) -> int | None:
    refuse_what_is_not_offered(parameters)
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise BadInput(f"unable to parse 'binary_data_size' of input '{name[:80]}': expected a whole number, got {said(size)}")
    return size


def _wanted(item: object, binary: bool) -> Wanted:
    described = _object(item, "outputs")
    name, parameters = described.get("name"), described.get("parameters")
    if not isinstance(name, str):
        raise BadInput(f"unable to parse 'outputs': expected the name of each as a text, got {said(name)}")
    if parameters is None:
        return Wanted(name, binary)
    known = _object(parameters, "parameters")
    refuse_what_is_not_offered(known)
    wanted = known.get("binary_data")
    return Wanted(name, binary if wanted is None else boolean(wanted, "binary_data"))


def refuse_what_is_not_offered(parameters: dict[str, object]) -> None:
    """Raises BadInput for an extension that a tensor's parameters ask for and this server does not have."""
    for name in _NOT_OFFERED:
        if parameters.get(name):
            raise BadInput(f"parameter '{name}' is not supported by this server")


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BadInput(f"unable to parse '{what}': expected an object, got {said(value)}")
    return value


def _list(value: object, what: str) -> list[object]:
    if not isinstance(value, list):
        raise BadInput(f"unable to parse '{what}': expected a list, got {said(value)}")
    return value


def write(answer: InferAnswer) -> tuple[bytes, int | None]:
    """Return the body of a reply, and how much of it is JSON where raw tensors follow."""
    outputs: list[dict[str, object]] = []
    raw: list[bytes] = []
    for o in answer.outputs:
        described: dict[str, object] = {"name": o.name, "datatype": o.datatype, "shape": o.array.shape}
        if o.binary:
            data = o.array.tobytes()
            raw.append(data)
            described["parameters"] = {"binary_data_size": len(data)}
        else:
            described["data"] = np.ascontiguousarray(o.array).reshape(-1)
        outputs.append(described)
    head: dict[str, Any] = {"model_name": answer.model, "model_version": answer.version}
    if answer.id:
        head["id"] = answer.id
    if answer.step is not None:
        head["parameters"] = {"indrnn_step": answer.step, "indrnn_position": answer.position}
    if answer.warnings:
        head.setdefault("parameters", {})["indrnn_warnings"] = answer.warnings
    head["outputs"] = outputs
    json = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([json, *raw]), len(json)) if raw else (json, None)


class HttpReply(NamedTuple):
    """A reply before compression. inferred: what a model answered.

    Only that is ever compressed: Triton's asyncio client accepts gzip for everything, and unpacks nothing else.
    """

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,)
    inferred: bool = False


def inferred(answer: InferAnswer) -> HttpReply:
    """Return the reply that holds what a model answered."""
    body, json_length = write(answer)
    return HttpReply(200, body, (JSON,) if json_length is None else (BINARY, (LENGTH, b"%d" % json_length)), inferred=True)
