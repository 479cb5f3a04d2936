"""What fronts and an engine's process say, as bytes: it comes back as it was, in its order, and nothing else is read."""

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_codec import alike

from indrnn.service.engine.requests import Asked, Delivery, Exact, Frames, InferRequest, LookRequest, StepRequest, Ticket
from indrnn.service.errors import Overloaded
from indrnn.service.link.message import (
    DIGEST,
    HEAD,
    LONGEST,
    PROTOCOLS,
    TOGETHER,
    Kind,
    LinkError,
    PartForm,
    Reader,
    asked_parts,
    framed,
    messages,
    parts,
    read_asked,
    read_times,
    read_told,
    times_part,
    told_parts,
)
from indrnn.service.session.machine import Char, Reason, Refused, Result, Scores
from indrnn.service.tracing import Times

EPOCH = 7
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
TEXTS = st.text(st.characters(codec=None), max_size=12)  # lone surrogates too
TIMES = st.none() | st.floats(allow_nan=False)


def filled(dtype: str, shape: tuple[int, ...], seed: int) -> Any:
    """Numbers of any bits that are not NaN."""
    return (np.arange(math.prod(shape)).reshape(shape) * 1.5 + seed).astype(dtype)


SEEDS = st.integers(0, 3)
floats = st.builds(filled, st.just("<f4"), st.sampled_from([(1, 1, 20, 3), (2, 1, 5, 3), (0, 1, 2, 3)]), SEEDS)
times = st.none() | st.just(np.array([0.5, 1.0]))
frames = st.builds(Frames, floats, TIMES, st.booleans(), st.sampled_from([(), ("held",)]), times)
exact = st.builds(Exact, st.builds(filled, st.sampled_from(["<i8", ">i8", "<f4", ">f4"]), st.sampled_from([(1,), (7,), (2, 3)]), SEEDS))
numbers = st.none() | st.integers(0, 5) | st.just(2**63)
digests = st.binary(min_size=DIGEST, max_size=DIGEST) | st.just(b"short")
protocols = st.sampled_from([*PROTOCOLS, "another"])
steps = st.builds(
    StepRequest,
    TEXTS,
    st.sampled_from(["", "me", "\ud800"]),
    numbers,
    digests,
    frames | exact,
    *[st.booleans()] * 4,
    TIMES,
    protocols,
    st.booleans(),
)
infers = st.builds(InferRequest, frames | exact, st.booleans(), st.none() | st.just(np.ones(3, "<f4")), TIMES, protocols, st.booleans())
tickets = st.builds(Ticket, st.just(EPOCH), st.integers(0, 2**64 - 1))
plain = st.builds(Asked, tickets, steps | infers | st.builds(LookRequest, TEXTS, TEXTS))
scores = st.builds(
    lambda K, every, logprobs, doubts: Scores(np.ones(K, "<f4"), np.full((every, K), 2, "<f4"), np.arange(logprobs, dtype="<f4"), doubts),
    *(st.integers(0, 3), st.integers(0, 2), st.integers(0, 3), st.sampled_from([(), ("bones",)])),
)
results = st.builds(Result, st.integers(0, 9), st.integers(0, 9), scores, st.sampled_from([None, np.ones(3, "<f4"), np.zeros(4, "<f4")]))
others = st.sampled_from([Refused(Overloaded("full", retry_after=1)), Char(1, 2, "x", -0.5, Reason.STOP), None])
told = st.builds(Delivery, tickets, results | others, st.sampled_from([None, np.ones((1, 2), "<f2")]), st.booleans())


def read(kind: Kind, body: bytes) -> list[Any]:
    """All that a message says."""
    found: list[Any] = []
    for part in parts(body):
        found += read_asked(part, EPOCH) if kind is Kind.ASKED else read_told(part, EPOCH)
    return found


def sent(kind: Kind, made: list[bytes]) -> list[Any]:
    """What the other side reads, of bytes that come as they come."""
    data, reader, found = b"".join(messages(kind, made)), Reader(), []
    for at in range(0, len(data), 70_001):
        for came, body in reader.take(data[at : at + 70_001]):
            assert came == kind
            found += read(kind, body)
    return found


@QUICK
@given(asked=st.lists(plain, max_size=6), again=st.integers(1, 3))
def test_requests_come_back_in_their_order(asked: list[Asked], again: int) -> None:
    asked = [one for one in asked for _ in range(again)]
    back = sent(Kind.ASKED, list(asked_parts(3, asked, whole=False)))
    assert len(back) == len(asked)
    assert all(alike(one, other) for one, other in zip(asked, back, strict=True))


@QUICK
@given(deliveries=st.lists(told, max_size=6), again=st.integers(1, 3))
def test_replies_come_back_in_their_order(deliveries: list[Delivery], again: int) -> None:
    deliveries = [d for d in deliveries for _ in range(again)]
    back = sent(Kind.TOLD, list(told_parts(deliveries, lambda number: True)))
    assert len(back) == len(deliveries)
    assert all(alike(one, other) for one, other in zip(deliveries, back, strict=True))


def step(number: int = 1, x: Any = None, **changes: Any) -> Asked:
    x = np.full((1, 1, 2, 3), number, np.float32) if x is None else x
    return Asked(Ticket(EPOCH, number), StepRequest(f"s{number}", "me", number, bytes(DIGEST), Frames(x, None), **changes))


def test_steps_that_are_alike_are_one_part_and_others_leave_their_order() -> None:
    made = list(asked_parts(1, [step(1), step(2), step(3, every=True), step(4)], whole=False))
    assert [next(parts(part)).rows for part in made] == [2, 1, 1]
    assert [one.ticket.number for part in made for one in read(Kind.ASKED, part)] == [1, 2, 3, 4]


@pytest.mark.parametrize("last", [step(2), step(2, every=True), Asked(Ticket(EPOCH, 2), LookRequest("s", ""))])
def test_what_is_taken_whole_or_not_at_all_is_one_part(last: Asked) -> None:
    (made,) = asked_parts(1, [step(1), last], whole=True)
    (part,) = parts(made)
    assert (part.rows, bool(part.flags & TOGETHER)) == (2, True)


def test_long_results_are_parts_of_their_own_however_alike() -> None:
    every = np.ones((300, 500), "<f4")
    reply = Result(1, 1, Scores(np.ones(500, "<f4"), every, np.ones(0, "<f4")), None)
    made = list(told_parts([Delivery(Ticket(EPOCH, n), reply) for n in range(5)], lambda number: False))
    assert max(map(len, made)) < 2 * every.nbytes
    assert [d.ticket.number for d in sent(Kind.TOLD, made)] == list(range(5))


def test_the_state_is_told_to_those_who_asked_for_it() -> None:
    made = [
        Delivery(Ticket(EPOCH, n), Result(1, 1, Scores(*[np.ones(2, "<f4"), np.ones((0, 2), "<f4"), np.ones(0, "<f4")]), np.ones(5, "<f4")))
        for n in (1, 2)
    ]
    back = sent(Kind.TOLD, list(told_parts(made, lambda number: number == 2)))
    assert [d.reply.state is None for d in back] == [True, False]
    watched = Delivery(Ticket(EPOCH, 1), made[0].reply, np.ones((1, 2), "<f2"))
    assert sent(Kind.TOLD, list(told_parts([watched], lambda number: False)))[0].reply.state is None


def test_a_long_clip_comes_in_pieces_of_which_none_is_longer_than_said() -> None:
    long = step(1, np.ones((5_000, 1, 25, 3), np.float32))
    data = b"".join(messages(Kind.ASKED, list(asked_parts(1, [long, step(2)], whole=False))))
    at, seen = 0, []
    while at < len(data):
        size, kind, _ = HEAD.unpack_from(data, at)
        assert size <= LONGEST
        seen.append(kind)
        at += HEAD.size + size
    assert set(seen[:-2]) == {Kind.PIECE}
    assert seen[-2:] == [Kind.LAST, Kind.ASKED]
    (first, second) = sent(Kind.ASKED, list(asked_parts(1, [long, step(2)], whole=False)))
    assert alike(first, long)
    assert alike(second, step(2))


@pytest.mark.parametrize(
    "data",
    [
        HEAD.pack(LONGEST + 1, Kind.ASKED, 0),
        HEAD.pack(0, Kind.PIECE, 0) + HEAD.pack(0, Kind.ASKED, 0),
        b"\xff" * 64,
        pickle.dumps(step()),
    ],
    ids=["too long", "between pieces", "ones", "a pickle"],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(LinkError):
        [read(Kind.ASKED, body) for _, body in Reader().take(data)]


def test_a_message_that_could_not_be_taken_does_not_come_again() -> None:
    reader = Reader()
    both = framed(Kind.NOTE, b"one") + framed(Kind.NOTE, b"two")
    taking = reader.take(both)
    assert next(taking) == (Kind.NOTE, b"one")
    taking.close()  # type: ignore[attr-defined]  # a generator
    assert list(reader.take(b"")) == [(Kind.NOTE, b"two")]


def test_the_tickets_of_another_front_are_refused() -> None:
    (made,) = asked_parts(1, [Asked(Ticket(EPOCH + 1, 1), LookRequest("s", ""))], whole=False)
    with pytest.raises(LinkError, match="tickets"):
        read(Kind.ASKED, made)


@settings(QUICK, max_examples=200)
@given(data=st.data())
def test_spoilt_bytes_are_refused_or_read(data: Any) -> None:
    if data.draw(st.booleans()):
        kind, made = Kind.ASKED, list(asked_parts(1, data.draw(st.lists(plain, min_size=1, max_size=3)), whole=data.draw(st.booleans())))
    else:
        kind, made = Kind.TOLD, list(told_parts(data.draw(st.lists(told, min_size=1, max_size=3)), lambda number: True))
    spoilt = bytearray(framed(kind, b"".join(made)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(spoilt) - 1, 160)))
        spoilt[at : at + data.draw(st.integers(1, 4))] = data.draw(st.binary(max_size=4))
    try:
        for came, body in Reader().take(bytes(spoilt)):
            if came in (Kind.ASKED, Kind.TOLD):
                read(Kind(came), body)
    except LinkError:
        pass


def test_every_kind_and_form_has_a_line_in_the_description() -> None:
    import indrnn.service.link.message as described

    assert described.__doc__ is not None
    assert all(form.name in described.__doc__ for form in PartForm)
    assert math.log2(TOGETHER) == 7


def test_times_of_a_turn_are_read_as_they_were_written() -> None:
    times = Times(32, 1_500_000, 2**40)
    (part,) = parts(times_part(times))
    assert part.form == PartForm.TIMES
    assert read_times(part) == times
    with pytest.raises(LinkError):
        read_times(part._replace(end=part.end - 8))
    with pytest.raises(LinkError):
        read_told(part, 1)
