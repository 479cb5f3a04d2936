"""Sequences of the Open Inference Protocol: START, END and repeats against a model small enough to be right at sight."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_loop import Asked, Bench, FakeEngine, held

from indrnn.service.engine.loop import EngineSettings
from indrnn.service.engine.requests import Exact
from indrnn.service.errors import Gone, PositionLimit, StepConflict, StepGap, StoreFailed, UnknownSession
from indrnn.service.session.machine import (
    KEPT,
    Cancel,
    Consumed,
    Cut,
    Delete,
    Deleted,
    Effect,
    Feed,
    Refused,
    Result,
    Scores,
    Session,
    Wait,
    handle,
)
from indrnn.service.store.protocol import Change
from indrnn.service.store.record import decode_step, encode_step

TTL = 100.0
CONTENTS = st.sampled_from(["a", "bb"])


def after(log: str) -> np.ndarray:
    """A state that only this exact history has."""
    return np.frombuffer(hashlib.sha256(log.encode()).digest(), np.uint8).astype(np.float32)


def fresh(now: float, version: str = "1") -> Session:
    return Session("seq:id", "m", version, "d", "oip:", after(""), 0, 0, now, now + TTL)


@dataclass
class Truth:
    """What is promised of one correlation id. `log` is what the sequence has consumed; `last` its last content and whether it ended."""

    log: str = ""
    step: int = 0
    last: tuple[str, bool] | None = None
    until: float = 0.0

    def expect(self, number: int | None, content: tuple[str, bool], start: bool, now: float) -> str:
        there = self.step > 0 and now < self.until
        if start:
            repeat = there and number == self.step == 1 and content == self.last
            return "replay" if repeat else "begin" if number in (None, 1) else "gap"
        if not there:
            return "gone"
        if number == self.step:
            return "replay" if content == self.last else "conflict"
        return "gone" if self.last and self.last[1] else "go" if number in (None, self.step + 1) else "gap"


class Sequences(RuleBasedStateMachine):
    """One id, whose session may be there or not; the shell's part is played as the engine loop does."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.truth = 0.0, Truth()
        self.stored: Session | None = None
        self.session: Session | None = None
        self.flying: tuple[str, tuple[str, bool]] | None = None
        self.replied: object = None

    @rule(content=CONTENTS, end=st.booleans(), start=st.booleans(), offset=st.none() | st.integers(-2, 2))
    def step(self, content: str, end: bool, start: bool, offset: int | None) -> None:
        number = None if offset is None else max(1, self.truth.step + offset)
        begin = fresh(self.now) if start else None
        if self.session is None and begin is None:
            return  # the shell: there is no such session
        session = self.session or begin
        assert session is not None
        event = Feed(number, f"{content}{end}".encode(), len(content), None, begin, end)
        session, reply, effects = handle(session, event, self.now)
        expected = self.expect(number, (content, end), start)
        if expected == "wait":
            assert isinstance(reply, Wait)
            return
        if expected in ("begin", "go"):
            assert (reply, effects) == (None, (Effect.RUN,))
            self.session, self.flying = session, (expected, (content, end))
            return
        if expected == "replay":
            assert isinstance(reply, Result)
            assert reply.result.logits.tolist() == self.replied  # type: ignore[union-attr]
            assert reply.state is not None
            assert np.array_equal(reply.state, after(self.truth.log))
            return
        assert isinstance(reply, Refused)
        assert isinstance(reply.error, {"gone": Gone, "conflict": StepConflict, "gap": StepGap}[expected])
        if Effect.REMOVE in effects:
            self.session = self.stored = None
            self.truth = Truth()

    def expect(self, number: int | None, content: tuple[str, bool], start: bool) -> str:
        return "wait" if self.flying is not None else self.truth.expect(number, content, start, self.now)

    @precondition(lambda self: self.flying is not None)
    @rule()
    def engine_consumes(self) -> None:
        assert self.flying is not None
        assert self.session is not None
        how, (content, end) = self.flying
        log = content if how == "begin" else self.truth.log + content
        step = 1 if how == "begin" else self.truth.step + 1
        scores = Scores(np.array([len(log), self.now], np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
        session, reply, effects = handle(self.session, Consumed(after(log), len(content), scores, None, TTL), self.now)
        assert effects == (Effect.COMMIT,)
        assert isinstance(reply, Result)
        assert (reply.number, reply.position) == (step, len(log))
        self.truth = Truth(log, step, (content, end), self.now + (KEPT if end else TTL))
        self.replied, self.flying = scores.logits.tolist(), None
        assert session.last is not None
        self.session = self.stored = session._replace(last=decode_step(encode_step(session.last)))

    @precondition(lambda self: self.flying is not None)
    @rule(kill=st.booleans())
    def engine_fails(self, kill: bool) -> None:
        """Also where the service is killed, only what was committed is left: of a sequence that was to be replaced, all of it."""
        assert self.session is not None
        session, _, _ = handle(self.session, Cut(), self.now)
        self.session = self.stored if kill or self.stored is None else session
        self.flying = None

    @rule(seconds=st.sampled_from([1.0, KEPT, TTL]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_session_is_where_the_truth_is(self) -> None:
        for session in (self.session if self.flying is None else None, self.stored):
            if session is not None:
                assert (session.step, session.position, session.flight) == (self.truth.step, len(self.truth.log), None)
                assert np.array_equal(session.state, after(self.truth.log))
                assert session.ended == (self.truth.last is not None and self.truth.last[1])


Sequences.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestSequences = Sequences.TestCase


def test_a_sequence_may_not_begin_with_more_than_its_model_was_made_for_and_the_old_one_stays() -> None:
    old = fresh(0.0)._replace(step=3, position=5)
    kept, reply, effects = handle(old, Feed(None, b"", 11, 10, fresh(1.0)), 1.0)
    assert isinstance(reply, Refused)
    assert isinstance(reply.error, PositionLimit)
    assert (kept, effects) == (old, ())


def test_a_sequence_that_begins_anew_takes_over_the_new_version() -> None:
    old = fresh(0.0)._replace(step=3, position=5)
    flying, *_ = handle(old, Feed(None, b"", 1, None, fresh(1.0, version="2")), 1.0)
    assert flying.version == "1"  # until its first step is stored
    scores = Scores(np.zeros(2, np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    begun, *_ = handle(flying, Consumed(after("x"), 1, scores, None, TTL), 2.0)
    assert (begun.version, begun.step, begun.position, begun.created_at) == ("2", 1, 1, 1.0)


# --- on the engine thread -------------------------------------------------------------------------------------------------------------

IDENT = "seq:0123"


def new() -> Session:
    now = time.time()
    return Session(IDENT, "m", "1", "d", "oip:", np.zeros(6, np.float32), 0, 0, now, now + 60)


def feed(bench: Bench, symbol: int, start: bool = False, end: bool = False, number: int | None = None) -> Asked:
    event = Feed(number, bytes([symbol, end]), 1, None, new() if start else None, end)
    return bench.ask(session_id=IDENT, owner="oip:", event=event, content=Exact(np.array([symbol], np.int64)))


def refusal(asked: Asked) -> type[Exception]:
    reply = asked.one()
    assert isinstance(reply, Refused), reply
    return type(reply.error)


def test_the_first_step_makes_the_sequence_and_is_stored_before_it_is_answered(bench: Bench) -> None:
    assert refusal(feed(bench, 1)) is UnknownSession
    reply = feed(bench, 1, start=True).one()
    assert isinstance(reply, Result)
    stored = bench.store.load([IDENT])[IDENT]
    assert (stored.step, stored.position, reply.number) == (1, 1, 1)
    assert np.array_equal(stored.state, reply.state)


def test_steps_of_one_sequence_that_wait_together_run_in_order_of_arrival_and_in_runs_of_their_own(bench: Bench) -> None:
    bench.engine.gate.clear()
    asked = [feed(bench, s % 3, start=s == 0, end=s == 3) for s in range(4)] + [feed(bench, 1), feed(bench, 2, start=True)]
    bench.engine.gate.set()
    assert [a.one().number for a in asked[:4]] == [1, 2, 3, 4]
    assert refusal(asked[4]) is Gone
    assert asked[5].one().number == 1
    assert [len(r) for r in bench.engine.runs] == [1, 1, 1, 1, 1]


def test_where_the_first_step_fails_nothing_begins_and_what_waits_behind_it_is_refused(bench: Bench) -> None:
    bench.engine.gate.clear()
    bench.engine.fail = True
    first = feed(bench, 1, start=True)
    second = feed(bench, 2)
    bench.engine.gate.set()
    assert first.one().error.code == "engine_failed"
    assert refusal(second) is UnknownSession
    bench.engine.fail = False
    assert bench.store.load([IDENT]) == {}
    assert feed(bench, 1, start=True).one().number == 1


@pytest.mark.parametrize("version", [None, "1", "2"])
def test_a_step_behind_a_beginning_that_waits_for_one_that_fails_is_that_beginnings(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    """Also where nothing is stored, or a sequence on another version: the step comes while the first of two beginnings runs."""
    if version is not None:
        bench.store.commit([Change(None, new()._replace(version=version, step=3, position=3))])
    held(bench)
    first, second = feed(bench, 1, start=True), feed(bench, 2, start=True)
    third: list[Asked] = []
    run = bench.engine.run

    def failing_once(rows: list[Any]) -> list[Any]:
        if not third:
            third.append(feed(bench, 2))
            raise RuntimeError("broken on purpose")
        return run(rows)

    monkeypatch.setattr(bench.engine, "run", failing_once)
    bench.engine.gate.set()
    assert first.one().error.code == "engine_failed"
    assert second.one().number == 1
    assert third[0].one().number == 2
    assert bench.store.load([IDENT])[IDENT].state[:2].tolist() == [6, 2]


def test_where_a_new_beginning_fails_the_old_sequence_goes_on(bench: Bench) -> None:
    feed(bench, 1, start=True).one()
    before = feed(bench, 2).one().state
    bench.engine.fail = True
    assert feed(bench, 1, start=True).one().error.code == "engine_failed"
    bench.engine.fail = False
    reply = feed(bench, 2).one()
    assert reply.number == 3
    assert reply.state[1] == before[1] + 1


def test_where_a_new_beginning_cannot_be_stored_the_old_sequence_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(bench, 1, start=True).one()

    def refuse(changes: object) -> None:
        raise StoreFailed("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "commit", refuse)
        assert refusal(feed(bench, 2, start=True)) is StoreFailed
    assert feed(bench, 2).one().number == 2


def test_an_ended_sequence_repeats_its_last_step_and_an_expired_one_can_begin_at_once(bench: Bench) -> None:
    feed(bench, 1, start=True).one()
    last = feed(bench, 2, end=True, number=2).one()
    again = feed(bench, 2, end=True, number=2).one()
    assert np.array_equal(again.result.logits, last.result.logits)
    assert refusal(feed(bench, 2, number=3)) is Gone
    session = bench.store.load([IDENT])[IDENT]
    assert session.expires_at < time.time() + KEPT + 1
    bench.loop._clock = lambda: time.time() + 2 * KEPT
    bench.engine.gate.clear()
    late, anew = feed(bench, 2, end=True, number=2), feed(bench, 0, start=True)
    bench.engine.gate.set()
    assert refusal(late) is Gone
    assert anew.one().number == 1


def test_runs_rows_and_waits_are_counted(bench: Bench) -> None:
    feed(bench, 1, start=True).one()
    feed(bench, 2, number=2).one()
    feed(bench, 2, number=2).one()
    statistics = bench.statistics
    assert (statistics.rows, statistics.executions, statistics.success.count, statistics.queue.count) == (2, 2, 2, 2)
    assert statistics.batch_sizes == {1: 2}
    bench.engine.fail = True
    feed(bench, 1).one()
    statistics = bench.statistics
    assert (statistics.fail.count, statistics.executions) == (1, 2)


@pytest.fixture
def pair(bench: Bench) -> Iterator[tuple[Bench, Bench]]:
    """Two engine threads on one store, as two services have them."""
    engine = FakeEngine()
    settings = EngineSettings(max_batch=8, max_queue=100, step_timeout=30, session_ttl=60)
    other = Bench(engine, bench.store, settings)
    yield bench, other
    engine.gate.set()
    other.loop.stop(10)


def begin_at_once(pair: tuple[Bench, Bench], symbols: tuple[int, int], number: int | None) -> list[Asked]:
    """A first step at each, both run before either is stored."""
    for bench in pair:
        bench.engine.gate.clear()
    asked = [feed(bench, symbol, start=True, number=number) for bench, symbol in zip(pair, symbols, strict=True)]
    for bench in pair:
        while not bench.loop.inbox.empty or bench.loop._runner.ready or not bench.loop._desk.lives:  # it is running now
            pass
    for bench in pair:
        bench.engine.gate.set()
    return asked


def test_of_two_services_that_begin_one_sequence_at_once_the_slower_answers_a_repeat(pair: tuple[Bench, Bench]) -> None:
    one, other = (a.one() for a in begin_at_once(pair, (1, 1), 1))
    assert isinstance(one, Result)
    assert repr(one) == repr(other)
    assert pair[0].store.load([IDENT])[IDENT].state[1] == 1
    assert feed(pair[1], 2, number=2).one().position == 2


@pytest.mark.parametrize(("symbols", "number"), [((1, 2), 1), ((1, 1), None)])
def test_of_two_services_that_begin_different_sequences_of_one_id_the_slower_replaces_the_other(
    pair: tuple[Bench, Bench], symbols: tuple[int, int], number: int | None
) -> None:
    answers = [a.one() for a in begin_at_once(pair, symbols, number)]
    assert [(a.number, a.position, a.state[0]) for a in answers] == [(1, 1, s + 1) for s in symbols]
    stored = pair[0].store.load([IDENT])[IDENT]
    assert (stored.step, stored.position) == (1, 1)
    assert stored.state[0] in [s + 1 for s in symbols]


def test_a_sequence_that_is_deleted_and_begun_in_one_turn_is_deleted_first_and_its_next_step_follows(bench: Bench) -> None:
    feed(bench, 1, start=True).one()
    held(bench)
    deleted = bench.ask(session_id=IDENT, owner="oip:", event=Delete())
    asked = [feed(bench, 2, start=True, number=1), feed(bench, 0, number=2)]
    bench.engine.gate.set()
    assert isinstance(deleted.one(), Deleted)
    assert [(a.one().number, a.one().position) for a in asked] == [(1, 1), (2, 2)]
    assert bench.store.load([IDENT])[IDENT].state[:2].tolist() == [4, 2]


def test_what_another_service_has_deleted_is_not_shown_because_a_sequence_begins_in_the_same_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancel of a generate is lost to the other's delete, and the look behind it must not tell of it as if it were stored."""
    cut = bench.open()
    generating = bench.generate(cut, 1, 100_000)
    generating.wait(lambda r: len(r) > 2)
    bench.withdraw(generating)
    feed(bench, 1, start=True).one()
    session = bench.look(cut)
    commit = bench.store.commit

    def overtaken(changes: Sequence[Change]) -> frozenset[str]:
        if any(c.id == cut for c in changes):
            monkeypatch.undo()
            commit([Change(session, None)])
        return commit(changes)

    held(bench)
    monkeypatch.setattr(bench.store, "commit", overtaken)
    asked = [bench.ask(session_id=cut, event=Cancel(1)), bench.ask(session_id=IDENT, owner="oip:", event=Delete())]
    begun = feed(bench, 2, start=True)
    look = bench.ask(session_id=cut)
    bench.engine.gate.set()
    assert isinstance(begun.one(), Result)
    assert refusal(look) is Gone
    assert refusal(asked[0]) is Gone
    assert isinstance(asked[1].one(), Deleted)
