"""What crosses the engine port as bytes, and back: nothing is run to read them, and they make nothing but the classes named here.

A message is the length of its head (8 bytes), a head of JSON, and behind it the arrays as they lie in memory, little-endian, each at a
multiple of eight. In the head numbers and texts stand for themselves. All else is a list that begins with a name:

    [class, field, ...]   an instance of a class in CLASSES; of an error detail, field, then names and values of what is extra
    ["t", item, ...]      a tuple               ["a", type, sizes]   the next array
    ["b", hex]            bytes                 ["j", text]          in Python's JSON: NaN, infinity, large numbers, lone surrogates
    ["x", text]           in JSON: a list or an object among what an error says beside its text

What is read has the types that the classes declare; sizes and bounds are for who uses it. It takes memory in proportion to the message,
of which the arrays remain a part: they cannot be written to.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import orjson

from indrnn.frames.rate import Carry
from indrnn.service import errors
from indrnn.service.engine import calls as c
from indrnn.service.engine import requests as r
from indrnn.service.errors import ServiceError
from indrnn.service.session import machine as m
from indrnn.service.session.sampling import Ranking

T = TypeVar("T")
Check = Callable[[object], bool]

REQUESTS = (
    *(r.LookRequest, r.CreateRequest, r.StepRequest, r.GenerateRequest, r.InferRequest, r.CompleteRequest),
    *(r.CancelRequest, r.DeleteRequest, r.ForkRequest, r.ImportRequest, r.ResetRequest),
    *(r.RewindRequest, r.MarkRequest),
)
REPLIES = (
    *(r.Created, r.Looked, r.Prompted, r.Drawn),
    *(m.Refused, m.Result, m.Follow, m.Char, m.Deleted, m.Placed, m.Forked, m.Rewound, m.Marked),
)
PARTS = (
    *(r.Asked, r.Delivery, r.Ticket, r.Frames, r.Exact, r.Text),
    *(m.Session, m.Step, m.Return, m.Flight, m.Snapshot, m.History, m.Scores, m.Generated, m.Sampling, m.Reason, Ranking, Carry),
)
CALLS = (*get_args(c.Call), c.CallAnswer)
NOTES = (*get_args(c.Note), c.Hosted)
ERRORS = tuple(e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, ServiceError))
CLASSES: dict[str, type] = {kind.__name__: kind for kind in (*REQUESTS, *REPLIES, *PARTS, *CALLS, *NOTES, *ERRORS)}
"""every class that may cross, by its name"""

DTYPES = {name: np.dtype(name) for name in ("<f2", "<f4", "<f8", "<i8")}
DEPTH = 32  # lists within lists; the deepest delivery, a fork of a cut generate, has 8
HEAD = 2**24  # bytes of a head: no text is half as long
_SURROGATE = re.compile("[\ud800-\udfff]")


class CodecError(Exception):
    """The bytes are no message of the engine port."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """A list or an object among what an error says beside its text."""

    value: list[Any] | dict[str, Any]


def encode(thing: object) -> bytes:
    """Encode an instance of a class in the table. Raises TypeError for what holds something that may not cross."""
    raw: list[bytes] = []
    head = orjson.dumps(_plain(thing, raw))
    head += b" " * (-len(head) % 8)
    if len(head) > HEAD:
        raise TypeError(f"expected texts and numbers of at most {HEAD} bytes, got {len(head)}")
    return len(head).to_bytes(8, "little") + head + b"".join(raw)


def decode(data: bytes, kind: type[T]) -> T:
    """Decode an instance of `kind`. Raises CodecError, and nothing else, for any other bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    if not 8 < end <= min(len(data), 8 + HEAD):
        raise CodecError(f"expected a head of at most {HEAD} bytes, got {end - 8} in {len(data)}")
    arrays = _Arrays(data, end)
    try:
        thing = _thing(orjson.loads(data[8:end]), arrays, 0)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise CodecError(f"expected a message of the engine port: {error}") from error
    if arrays.at != len(data) or not isinstance(thing, kind) or type(thing).__name__ not in CLASSES:
        raise CodecError(f"expected one {kind.__name__} in {len(data)} bytes, got {type(thing).__name__} in {arrays.at}")
    return thing


def _plain(thing: Any, raw: list[bytes]) -> object:
    """Return what stands for it in the head; arrays go to `raw`."""
    kind: Any = type(thing)
    if thing is None or kind is bool:
        return thing
    if kind is str:
        return thing if thing.isascii() or not _SURROGATE.search(thing) else ["j", json.dumps(thing)]
    if kind is int:
        return thing if -(2**63) <= thing < 2**64 else ["j", json.dumps(thing)]
    if kind is float:
        return thing if math.isfinite(thing) else ["j", json.dumps(thing)]
    if kind is bytes:
        return ["b", thing.hex()]
    if kind is np.ndarray:
        name = thing.dtype.newbyteorder("<").str
        if name not in DTYPES:
            raise TypeError(f"expected an array of {', '.join(DTYPES)}, got {name}")
        data = thing.astype(DTYPES[name], copy=False).tobytes()
        raw.append(data + bytes(-len(data) % 8))
        return ["a", name, thing.shape]
    if kind is _Listed:
        return ["x", json.dumps(thing.value)]
    if kind is tuple:
        return ["t", *(_plain(item, raw) for item in thing)]
    if CLASSES.get(kind.__name__) is not kind:
        raise TypeError(f"expected what may cross the engine port, got {kind.__name__}")
    if kind is m.Reason:
        fields = [thing.value]
    elif isinstance(thing, ServiceError):
        extra = [
            part for name, value in thing.extra.items() for part in (name, _Listed(value) if isinstance(value, list | dict) else value)
        ]
        fields = [thing.detail, thing.field, *extra]
    else:
        fields = [getattr(thing, name) for name in _fields(kind)]
    return [kind.__name__, *(_plain(value, raw) for value in fields)]


class _Arrays:
    """The arrays of a message, which are taken one after another."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self.at = data, at

    def take(self, name: str, sizes: list[int]) -> "np.ndarray[Any, Any]":
        """Return the next array."""
        if min(sizes, default=0) < 0:
            raise ValueError(f"expected sizes, got {sizes}")
        begun, count = self.at, math.prod(sizes)
        self.at += -(-count * DTYPES[name].itemsize // 8) * 8
        return np.frombuffer(self._data, DTYPES[name], count, begun).reshape(sizes)


def _thing(plain: Any, arrays: _Arrays, depth: int) -> Any:
    """Return what the head says."""
    if not isinstance(plain, list | dict):
        return plain
    if depth > DEPTH or isinstance(plain, dict):
        raise ValueError("expected lists, and not so deep")
    name, *rest = plain
    if name in _TAGS:
        return _TAGS[name](*rest)
    if name == "a":
        return arrays.take(*rest)
    items = [_thing(item, arrays, depth + 1) for item in rest]
    if name == "t":
        return tuple(items)
    kind: Any = CLASSES[name]
    if kind is m.Reason:
        return m.Reason(*items)
    if issubclass(kind, ServiceError):
        detail, field, *extra = items
        if not isinstance(detail, str) or not isinstance(field, str | None):
            raise ValueError(f"expected the texts of {name}")
        return kind(detail, field=field, **dict(zip(extra[::2], extra[1::2], strict=True)))
    for (field, check), value in zip(_fields(kind).items(), items, strict=True):
        if not check(value):
            raise ValueError(f"expected another {field} of {name}, got {type(value).__name__}")
    made: object = kind(*items)
    return made


def _odd(text: str) -> int | float | str:
    value = json.loads(text)
    if type(value) not in (int, float, str):
        raise ValueError("expected a number or a text")
    odd: int | float | str = value
    return odd


def _listed(text: str) -> list[Any] | dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, list | dict):
        raise ValueError("expected a list or an object")
    return value


_TAGS: dict[str, Any] = {"b": bytes.fromhex, "j": _odd, "x": _listed}


@cache
def _fields(kind: Any) -> dict[str, Check]:
    """Return the fields of a class, in their order, and what checks the type of each."""
    return {name: _check(hint) for name, hint in get_type_hints(kind).items()}


def _check(hint: Any) -> Check:
    """Return what tells whether a value is of a declared type."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is m.Outcome:
        return _check(m.Scores | m.Generated)
    if origin in (Union, UnionType):
        checks = [_check(one) for one in args]
        return lambda value: any(check(value) for check in checks)
    if origin is Literal:
        return lambda value: isinstance(value, str) and value in args
    if origin is np.ndarray:
        (number,) = get_args(args[1])
        return lambda value: isinstance(value, np.ndarray) and issubclass(value.dtype.type, number)
    if origin is tuple and args[1:] == (...,):
        item = _check(args[0])
        return lambda value: type(value) is tuple and all(map(item, value))
    if origin is tuple:
        items = [_check(arg) for arg in args]
        return lambda value: (
            type(value) is tuple and len(value) == len(items) and all(check(v) for check, v in zip(items, value, strict=True))
        )
    if hint in (int, float):
        return lambda value: type(value) is int or type(value) is hint
    kind = origin or hint
    return lambda value: isinstance(value, kind)
