"""The engine port as bytes: whatever may cross comes back as it was, and nothing else is read."""

import dataclasses
import pickle
import tracemalloc
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from indrnn.service.engine.codec import CLASSES, DTYPES, ERRORS, HEAD, REPLIES, REQUESTS, CodecError, decode, encode
from indrnn.service.engine.requests import Asked, CancelRequest, Delivery, InferRequest, Reply, Request, Ticket
from indrnn.service.errors import Late, NotKept, Overloaded, ServiceError, StepGap
from indrnn.service.session.machine import Outcome, Reason, Refused, Scores, Session

TEXTS = st.text(st.characters(codec=None), max_size=20)  # lone surrogates, zeros and all
INTS = st.integers(-(2**200), 2**200)
SCALARS = st.none() | st.booleans() | INTS | st.floats() | TEXTS | st.binary(max_size=20)
WORDS = st.text("abcdefgh_", min_size=1, max_size=8).filter(lambda word: word not in ("detail", "field", "self"))


def arrays(kind: Any) -> st.SearchStrategy[Any]:
    """Arrays of any bits, some without a number, some with their bytes the other way round, some not in a row."""
    names = [name for name, dtype in DTYPES.items() if issubclass(dtype.type, kind)]
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)

    def filled(name: str, shape: tuple[int, ...], bits: bytes, how: int) -> Any:
        size = int(np.prod(shape)) * DTYPES[name].itemsize
        made = np.frombuffer((bits * (size // len(bits) + 1))[:size], name).reshape(shape)
        return [made, made.astype(DTYPES[name].newbyteorder(">")), made.T][how]

    return st.builds(filled, st.sampled_from(names), shapes, st.binary(min_size=1, max_size=40), st.integers(0, 2))


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a declared type; a session in flight that begins anew does not begin anew in turn, for ever."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Outcome:
        return values(Scores | CLASSES["Generated"])
    if origin in (Union, UnionType):
        return st.one_of(*map(values, args))
    if origin is Literal:
        return st.sampled_from(args)
    if origin is np.ndarray:
        return arrays(get_args(args[1])[0])
    if origin is tuple and args[1:] != (...,):
        return st.tuples(*map(values, args))
    if origin is tuple:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if isinstance(hint, TypeVar):
        raise AssertionError(f"no values for {hint}")
    plain = {str: TEXTS, int: INTS, float: st.floats(), bool: st.booleans(), bytes: st.binary(max_size=40), type(None): st.none()}
    if hint in plain:
        return plain[hint]
    if hint is ServiceError:
        return st.builds(
            lambda kind, detail, field, extra: kind(detail, field=field, **extra),
            *(st.sampled_from(ERRORS), TEXTS, st.none() | TEXTS, st.dictionaries(WORDS, SCALARS, max_size=3)),
        )
    return st.sampled_from(Reason) if hint is Reason else instances(origin or hint)


def instances(kind: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    return st.builds(kind, *(st.none() if name == "anew" else st.deferred(lambda h=hint: values(h)) for name, hint in hints.items()))


def alike(one: Any, other: Any) -> bool:
    """Whether two things are the same to the bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        as_read = one.astype(one.dtype.newbyteorder("<"))
        return (as_read.dtype.str, as_read.shape, as_read.tobytes()) == (other.dtype.str, other.shape, other.tobytes())
    if isinstance(one, ServiceError):
        return alike(
            (one.detail, one.field, *one.extra, *one.extra.values()), (other.detail, other.field, *other.extra, *other.extra.values())
        )
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if dataclasses.is_dataclass(one):
        return all(alike(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    return one == other and repr(one) == repr(other) if one == one else repr(one) == repr(other)


def every(union: Any) -> list[Any]:
    """The classes of a union, None among them."""
    return list(dict.fromkeys(get_origin(kind) or kind for kind in get_args(union)))


ALL = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.parametrize("kind", every(Request), ids=lambda kind: kind.__name__)
@ALL
@given(data=st.data())
def test_every_request_comes_back_as_it_was(kind: Any, data: Any) -> None:
    asked = Asked(data.draw(instances(Ticket)), data.draw(instances(kind)))
    assert alike(asked, decode(encode(asked), Asked))


@pytest.mark.parametrize("kind", every(Reply), ids=lambda kind: kind.__name__)
@ALL
@given(data=st.data())
def test_every_reply_comes_back_as_it_was(kind: Any, data: Any) -> None:
    hints = get_type_hints(Delivery)
    parts = instances(Ticket), values(kind), values(hints["states"]), st.booleans()
    delivery = Delivery(*map(data.draw, parts))
    assert alike(delivery, decode(encode(delivery), Delivery))


def test_the_table_has_every_request_and_reply_and_no_other() -> None:
    assert set(REQUESTS) == set(every(Request))
    assert {*REPLIES, type(None)} == set(every(Reply))


def test_errors_that_share_a_code_stay_apart() -> None:
    assert Late.code == Overloaded.code
    back = decode(encode(Refused(Late("too late", retry_after=1))), Refused)
    assert type(back.error) is Late
    assert back.error.body() == {"code": "overloaded", "detail": "too late", "retry_after": 1}


def test_what_is_read_of_arrays_is_part_of_the_message() -> None:
    session = Session("i", "m", "1", "d", "o", np.arange(5, dtype=np.float32), 0, 0, 0.0, 1.0)
    state = decode(encode(session), Session).state
    assert not state.flags.owndata
    assert not state.flags.writeable
    assert state.ctypes.data % 4 == 0


@pytest.mark.parametrize(
    "thing",
    [object(), {"a": object()}, [object()], np.zeros(2, bool), np.array(["text"]), {1}, len],
    ids=["an object", "in a dictionary", "in a list", "bools", "texts", "a set", "a function"],
)
def test_what_may_not_cross_is_not_encoded(thing: Any) -> None:
    with pytest.raises(TypeError, match="expected"):
        encode(thing)
    with pytest.raises(TypeError):
        encode(Refused(StepGap("x", extra=thing)))


def message(head: Any, raw: bytes = b"") -> bytes:
    text = head if isinstance(head, bytes) else orjson.dumps(head)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + raw


CANCEL = ["CancelRequest", "id", "me", 3, "http"]


@pytest.mark.parametrize(
    "head",
    [
        *([], {}, {"a": 1}, [[]], [{}], [1], ["no such class"], ["int", 3], ["t"], ["a"], ["b", "xx"], ["j"], None, 7, "CancelRequest"),
        *(CANCEL[:-1], [*CANCEL, 1], ["CancelRequest", 1, "me", 3, "http"], ["CancelRequest", "id", "me", True, "http"]),
        *(["CancelRequest", "id", "me", 3, 25], ["CancelRequest", "id", "me", 3.5, "http"], ["CancelRequest", "id", "me", [], "http"]),
        *(["CancelRequest", "id", "me", ["j", "[1]"], "http"], ["CancelRequest", "id", "me", ["j", "1" * 5_000], "http"]),
        ["CancelRequest", "id", "me", ["j", "[" * 100_000], "http"],
        *(["Reason", "other"], ["StepGap", 1, None], ["StepGap", "x", None, "detail", "y"], ["StepGap", "x", None, "a"]),
        *(["StepGap", "x", None, 1, 2], ["Refused", ["Reason", "stop"]], ["Exact", ["a", "<f4", [2]]], ["Exact", ["a", "<f4", [-1]]]),
        *(["Exact", ["a", "|O", [1]]], ["Exact", ["a", "<f4", [2**63]]], ["Exact", ["a", "<f4", [0, 2**63]]], ["Exact", ["a", "<f4", 1]]),
        *(["Exact", ["a", "<f4", ["1"]]], ["Exact", ["a", ["<f4"], [0]]], ["Exact", ["a", "<f4", [2**40, 2**40]]]),
        *(b"[" * 500, b"[" * 100_000, b"", b"\xff", b'["StepGap","x",null,"a",' + b'["t",' * 40 + b"1" + b"]" * 41),
    ],
    ids=lambda head: repr(head)[:60],
)
def test_what_is_no_message_is_refused(head: Any) -> None:
    with pytest.raises(CodecError):
        decode(message(head), object)  # of whatever class


def test_what_comes_too_short_too_long_or_as_something_else_is_refused() -> None:
    good = encode(CancelRequest("id", "me", 3))
    assert decode(good, CancelRequest) == CancelRequest("id", "me", 3)
    wrong = [good[:n] for n in range(len(good))] + [good + b"\0", good + bytes(8), (HEAD + 8).to_bytes(8, "little") + bytes(HEAD + 8)]
    for data in [*wrong, pickle.dumps(CancelRequest("id", "me", 3)), bytes(16), b"\xff" * 64]:
        with pytest.raises(CodecError):
            decode(data, CancelRequest)
    with pytest.raises(CodecError, match="expected one Ticket"):
        decode(good, Ticket)


SPOILT = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@SPOILT
@given(data=st.data())
def test_spoilt_bytes_are_refused_or_read_as_what_the_classes_declare(data: Any) -> None:
    kind = data.draw(st.sampled_from([*every(Request), *REPLIES]))
    good = encode(data.draw(instances(kind)))
    spoilt = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoilt)))
        cut, put = data.draw(st.sampled_from([(1, 1), (1, 1), (8, 0), (0, 3), (2**20, 0)]))
        spoilt[at : at + cut] = data.draw(st.binary(min_size=put, max_size=put))
    try:
        thing = decode(bytes(spoilt), object)
    except CodecError:
        return
    assert type(thing) in CLASSES.values()
    assert alike(thing, decode(encode(thing), type(thing)))


def test_a_message_that_claims_much_takes_no_more_memory_than_it_has_bytes() -> None:
    claims: list[Any] = [["Exact", ["a", "<f4", [2**40]]], ["Exact", ["a", "<i8", [2**28]]], ["Exact", ["a", "<f4", [0, 2**40]]]]
    tracemalloc.start()
    try:
        for head in claims:
            for data in (message(head), (2**62).to_bytes(8, "little") + b"{}"):
                try:
                    decode(data, object)
                except CodecError:
                    continue
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1_000_000


def test_a_request_of_many_numbers_costs_their_copy_and_little_more() -> None:
    asked = Asked(Ticket(1, 2), InferRequest(CLASSES["Exact"](np.zeros(1_000_000, np.int64))))
    assert len(encode(asked)) < 8_000_000 + 300


def test_an_error_that_lists_something_crosses() -> None:
    error = NotKept("expected another step", field="step", kept=[3, 4], marks={"before": 3})
    there = decode(encode(Delivery(Ticket(1, 2), Refused(error))), Delivery).reply
    assert isinstance(there, Refused)
    assert (type(there.error), there.error.extra) == (NotKept, {"kept": [3, 4], "marks": {"before": 3}})
