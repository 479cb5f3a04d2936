"""The state machine against a model small enough to be right at sight, over random interleavings."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from indrnn.frames.rate import Carry
from indrnn.service.errors import Gone, NoStoredReply, PositionLimit, StepConflict, StepGap
from indrnn.service.session.machine import (
    Cancel,
    Char,
    Consumed,
    Cut,
    Delete,
    Deleted,
    Effect,
    Emitted,
    Feed,
    Follow,
    Fork,
    Forked,
    Generate,
    Generated,
    Import,
    Placed,
    Reason,
    Refused,
    Reset,
    Result,
    Sampling,
    Scores,
    Session,
    Snapshot,
    Wait,
    handle,
)
from indrnn.service.store.record import decode_step, encode_step

TTL = 100.0
CONTENTS = st.sampled_from(["a", "bb", "ccc"])
GENERATE = Sampling(3, 1.0, 1.0, 7, ("zz",))
NO_SCORES = Scores(np.zeros(2, np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))


def after(log: str) -> np.ndarray:
    """A state that only this exact history has; zeros are the start."""
    if not log:
        return np.zeros(32, np.float32)
    return np.frombuffer(hashlib.sha256(log.encode()).digest(), np.uint8).astype(np.float32)


def fresh() -> Session:
    return Session("id", "m", "1", "d", "", after(""), 0, 0, 0.0, TTL)


class Model:
    """What the protocol promises: `log` is what the session has consumed, `last` what its last number asked for (None: not known)."""

    def __init__(self) -> None:
        self.log, self.step, self.last, self.open, self.flight = "", 0, None, False, None

    def expect(self, number: int | None, content: str) -> str:
        if self.flight not in (None, "generate"):
            return "wait"  # whether content in flight is what it follows, only its commit will say
        number = number if number is not None else self.step + 1
        if self.flight is not None and number == self.step + 1:
            return "wait"
        if number == self.step and self.last:
            return "conflict" if content != self.last else "follow" if self.open else "replay"
        if number == self.step > 0:
            return "no reply"
        return "run" if number == self.step + 1 else "gap"


class Protocol(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.session = self.stored = fresh()
        self.model = Model()
        self.replied: dict[int, object] = {}
        self.gone = False

    def offer(self, event: object) -> object:
        """One event, with the effects that the shell would perform; a commit goes through the bytes of the store."""
        self.session, reply, effects = handle(self.session, event, self.now)
        if Effect.COMMIT in effects:
            last = None if self.session.last is None else decode_step(encode_step(self.session.last))
            self.stored = self.session._replace(flight=None, last=last)
        if Effect.REMOVE in effects:
            self.gone = True
        return reply, effects

    def digest(self, content: str) -> bytes:
        return hashlib.sha256(content.encode()).digest()

    def number(self, offset: int | None) -> int | None:
        return None if offset is None else self.model.step + offset

    @precondition(lambda self: not self.gone)
    @rule(content=CONTENTS, offset=st.none() | st.integers(-2, 4))
    def feed(self, content: str, offset: int | None) -> None:
        number = self.number(offset)
        if self.expired():
            return
        expected = self.model.expect(number, content)
        reply, effects = self.offer(Feed(number, self.digest(content), len(content)))
        self.check(expected, reply, effects)
        if expected == "run":
            self.model.flight = content

    @precondition(lambda self: not self.gone)
    @rule(offset=st.none() | st.integers(-2, 4))
    def generate(self, offset: int | None) -> None:
        number = self.number(offset)
        if self.expired():
            return
        expected = self.model.expect(number, "generate")
        reply, effects = self.offer(Generate(number, self.digest("generate"), GENERATE))
        self.check(expected, reply, effects)
        if expected == "run":
            self.model.step, self.model.last, self.model.open, self.model.flight = self.model.step + 1, "generate", True, "generate"
        elif expected == "follow":
            self.model.flight = "generate"

    def check(self, expected: str, reply: object, effects: tuple[Effect, ...]) -> None:
        if expected == "run":
            assert reply is None
            assert Effect.RUN in effects
        elif expected == "wait":
            assert isinstance(reply, Wait)
        elif expected == "follow":
            assert isinstance(reply, Follow)
            assert (Effect.RUN in effects) == (self.model.flight is None)
        elif expected == "replay":
            assert isinstance(reply, Result)
            assert same(reply.result, self.replied[self.model.step])
        else:
            assert isinstance(reply, Refused)
            assert type(reply.error) is {"conflict": StepConflict, "no reply": NoStoredReply, "gap": StepGap}[expected]
            if expected != "conflict":
                assert reply.error.extra["expected_step"] == self.model.step + 1

    @precondition(lambda self: self.model.flight not in (None, "generate"))
    @rule()
    def engine_consumes(self) -> None:
        content = self.model.flight
        self.model.log += content
        self.model.step, self.model.last, self.model.open, self.model.flight = self.model.step + 1, content, False, None
        scores = NO_SCORES._replace(logits=np.full(2, len(self.model.log), np.float32))
        reply, effects = self.offer(Consumed(after(self.model.log), len(content), scores, None, TTL))
        assert isinstance(reply, Result)
        assert effects == (Effect.COMMIT,)
        self.replied[reply.number] = reply.result

    @precondition(lambda self: self.model.flight == "generate")
    @rule(char=st.sampled_from("xz"))
    def engine_emits(self, char: str) -> None:
        self.model.log += char
        reply, effects = self.offer(Emitted(char, -0.5, after(self.model.log), TTL))
        assert isinstance(reply, Char)
        assert effects == (Effect.COMMIT,)
        if reply.done:
            text = self.stored.last.result.text
            assert reply.done is (Reason.STOP if text.endswith("zz") else Reason.LENGTH)
            assert reply.done is Reason.STOP or len(text) == GENERATE.max_chars
            self.model.open, self.model.flight = False, None
            self.replied[self.model.step] = self.session.last.result

    @precondition(lambda self: not self.gone)
    @rule(number=st.none() | st.integers(0, 6))
    def cancel(self, number: int | None) -> None:
        if self.expired():
            return
        ends = self.model.open and self.model.last == "generate" and number in (None, self.model.step)
        reply, _ = self.offer(Cancel(number))
        assert isinstance(reply, Result) == ends
        if ends:
            assert reply.result.reason is Reason.CANCELLED
            self.model.open = False
            self.model.flight = None if self.model.flight == "generate" else self.model.flight
            self.replied[self.model.step] = reply.result

    @rule()
    def cut(self) -> None:
        """The engine or the connection failed: as if the flight had never been."""
        self.offer(Cut())
        self.model.flight = None

    @rule()
    def restart(self) -> None:
        """kill -9: only what was committed is left."""
        self.session = self.stored
        self.model.flight = None

    @rule(seconds=st.sampled_from([1.0, TTL / 2, TTL]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    def expired(self) -> bool:
        """A session whose time is over, with nothing in flight, answers everything with Gone."""
        if self.model.flight is not None or self.now < self.session.expires_at:
            return False
        reply, effects = self.offer(Feed(None, b"", 1))
        assert isinstance(reply, Refused)
        assert isinstance(reply.error, Gone)
        assert effects == (Effect.REMOVE,)
        return True

    @precondition(lambda self: not self.gone)
    @rule()
    def delete(self) -> None:
        if self.expired():
            return
        feeding = self.model.flight not in (None, "generate")
        reply, effects = self.offer(Delete())
        assert isinstance(reply, Wait if feeding else Deleted)
        assert (Effect.REMOVE in effects) != feeding
        if not feeding:
            self.model.flight = None

    @precondition(lambda self: not self.gone)
    @rule(log=st.sampled_from(["", "a", "bbcccz"]), step=st.integers(0, 3))
    def upload(self, log: str, step: int) -> None:
        if self.place(Import(Snapshot(after(log), step, len(log), None), TTL)):
            self.model.log, self.model.step, self.model.last, self.model.open = log, step, None, False

    @precondition(lambda self: not self.gone)
    @rule()
    def reset(self) -> None:
        if self.place(Reset(TTL)):
            self.model.log, self.model.step, self.model.last, self.model.open = "", 0, None, False

    def place(self, event: Import | Reset) -> bool:
        """Offers it; whether it was taken. It waits for what is in flight."""
        if self.expired():
            return False
        reply, effects = self.offer(event)
        if self.model.flight is not None:
            assert isinstance(reply, Wait)
            return False
        assert isinstance(reply, Placed)
        assert effects == (Effect.COMMIT,)
        assert (self.session.expires_at, self.session.carry) == (self.now + TTL, None)
        return True

    @precondition(lambda self: not self.gone)
    @rule()
    def fork(self) -> None:
        """The run goes on with the twin: it must be as good as the original."""
        if self.expired():
            return
        before = self.session
        reply, effects = self.offer(Fork(before.id + "'", TTL))
        assert self.session is before
        if self.model.flight is not None:
            assert isinstance(reply, Wait)
            return
        assert isinstance(reply, Forked)
        assert effects == ()
        assert reply.session.id != before.id
        assert (reply.session.created_at, reply.session.expires_at) == (self.now, self.now + TTL)
        self.session = self.stored = reply.session

    @invariant()
    def the_session_is_where_the_model_says(self) -> None:
        for session in (self.session, self.stored):
            assert session.step == self.model.step
            assert session.position == len(self.model.log)
            assert np.array_equal(session.state, after(self.model.log))
        assert self.stored.flight is None


def same(a: object, b: object) -> bool:
    if isinstance(a, Generated) and isinstance(b, Generated):
        return (a.text, a.reason, a.sampling) == (b.text, b.reason, b.sampling) and np.array_equal(a.logprobs, b.logprobs)
    return isinstance(a, Scores) and isinstance(b, Scores) and np.array_equal(a.logits, b.logits) and np.array_equal(a.logprobs, b.logprobs)


Protocol.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestProtocol = Protocol.TestCase


@pytest.mark.parametrize("event", [Feed(1, b"", 11, 10), Generate(1, b"", replace(GENERATE, max_chars=11), 10)])
def test_a_session_does_not_pass_the_position_its_model_was_made_for(event: Feed | Generate) -> None:
    session, reply, effects = handle(fresh(), event, 0.0)
    assert isinstance(reply, Refused)
    assert isinstance(reply.error, PositionLimit)
    assert (session.step, effects) == (0, ())


def test_the_next_number_seals_a_cut_generate() -> None:
    session, *_ = handle(fresh(), Generate(1, b"g", GENERATE), 0.0)
    session, *_ = handle(session, Emitted("x", -1.0, after("x"), TTL), 0.0)
    session, *_ = handle(session, Cut(), 0.0)
    session, *_ = handle(session, Feed(2, b"f", 1), 0.0)
    session, reply, _ = handle(session, Consumed(after("xa"), 1, NO_SCORES, None, TTL), 0.0)
    assert isinstance(reply, Result)
    assert (session.step, session.position, session.unfinished) == (2, 2, None)


def test_a_failed_feed_after_a_cut_generate_leaves_the_generate_to_be_continued() -> None:
    session, *_ = handle(fresh(), Generate(1, b"g", GENERATE), 0.0)
    session, *_ = handle(session, Cut(), 0.0)
    session, *_ = handle(session, Feed(2, b"f", 1), 0.0)
    session, *_ = handle(session, Cut(), 0.0)
    _, reply, effects = handle(session, Generate(1, b"g", GENERATE), 0.0)
    assert isinstance(reply, Follow)
    assert effects == (Effect.RUN,)


def test_a_cut_generate_again_waits_for_the_step_that_is_sealing_it() -> None:
    session, *_ = handle(fresh(), Generate(1, b"g", GENERATE), 0.0)
    session, *_ = handle(session, Cut(), 0.0)
    feeding, *_ = handle(session, Feed(2, b"f", 1), 0.0)
    after_repeat, reply, effects = handle(feeding, Generate(1, b"g", GENERATE), 0.0)
    assert isinstance(reply, Wait)
    assert (after_repeat, effects) == (feeding, ())
    sealed, *_ = handle(feeding, Consumed(after("a"), 1, NO_SCORES, None, TTL), 0.0)
    _, late, _ = handle(sealed, Generate(1, b"g", GENERATE), 0.0)
    assert isinstance(late, Refused)
    assert isinstance(late.error, StepGap)


def fed(content: str, carry: Carry | None = None) -> Session:
    session, *_ = handle(fresh(), Feed(1, b"f", len(content)), 0.0)
    session, *_ = handle(session, Consumed(after(content), len(content), NO_SCORES, carry, TTL), 0.0)
    return session


def test_a_fork_answers_the_last_number_from_its_own_copy_and_goes_its_own_way() -> None:
    session = fed("ab")
    _, forked, _ = handle(session, Fork("other", TTL), 5.0)
    assert isinstance(forked, Forked)
    twin = forked.session
    _, reply, _ = handle(twin, Feed(1, b"f", 2), 5.0)
    assert isinstance(reply, Result)
    twin, *_ = handle(twin, Feed(2, b"g", 1), 5.0)
    twin, *_ = handle(twin, Consumed(after("abc"), 1, NO_SCORES, None, TTL), 5.0)
    assert (twin.step, session.step) == (2, 1)
    assert np.array_equal(session.state, after("ab"))


def test_a_fork_of_a_cut_generate_may_continue_it_too() -> None:
    session, *_ = handle(fresh(), Generate(1, b"g", GENERATE), 0.0)
    session, *_ = handle(session, Emitted("x", -1.0, after("x"), TTL), 0.0)
    session, *_ = handle(session, Cut(), 0.0)
    _, forked, _ = handle(session, Fork("other", TTL), 0.0)
    assert isinstance(forked, Forked)
    _, reply, _ = handle(forked.session, Generate(1, b"g", GENERATE), 0.0)
    assert isinstance(reply, Follow)
    assert reply.generated.text == "x"


def test_an_upload_brings_its_resampling_along_and_a_reset_drops_it() -> None:
    carry = Carry(60.0, np.ones((1, 20, 3), np.float32), 1, 1)
    session, *_ = handle(fed("ab"), Import(Snapshot(after("z"), 9, 1, carry), TTL), 0.0)
    assert (session.carry, session.step, session.last) == (carry, 9, None)
    session, *_ = handle(session, Reset(TTL), 0.0)
    assert (session.carry, session.step, session.position) == (None, 0, 0)
    assert not session.state.any()


def test_after_an_upload_the_last_number_has_no_answer_and_the_next_goes_on() -> None:
    session, *_ = handle(fresh(), Import(Snapshot(after("z"), 9, 1, None), TTL), 0.0)
    _, reply, effects = handle(session, Feed(9, b"f", 1), 0.0)
    assert isinstance(reply, Refused)
    assert isinstance(reply.error, NoStoredReply)
    assert reply.error.extra["expected_step"] == 10
    assert effects == ()
    _, _, effects = handle(session, Feed(10, b"f", 1), 0.0)
    assert effects == (Effect.RUN,)
