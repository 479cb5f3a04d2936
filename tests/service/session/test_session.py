"""The state machine against a model small enough to be right at sight, over random interleavings."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from indrnn.frames.rate import Carry
from indrnn.service.errors import Gone, MarkLimit, NoStoredReply, NotKept, PositionLimit, StepConflict, StepGap
from indrnn.service.session.machine import (
    MAX_MARKS,
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
    History,
    Import,
    Mark,
    Marked,
    Placed,
    Reason,
    Refused,
    Reset,
    Result,
    Rewind,
    Rewound,
    Sampling,
    Scores,
    Session,
    Snapshot,
    Wait,
    handle,
)
from indrnn.service.store.record import decode_snapshot, decode_step, encode_snapshot, encode_step

TTL = 100.0
CONTENTS = st.sampled_from(["a", "bb", "ccc"])
GENERATE = Sampling(3, 1.0, 1.0, 7, ("zz",))
NO_SCORES = Scores(np.zeros(2, np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))


def after(log: str) -> np.ndarray:
    """A state that only this exact history has; zeros are the start."""
    if not log:
        return np.zeros(32, np.float32)
    return np.frombuffer(hashlib.sha256(log.encode()).digest(), np.uint8).astype(np.float32)


def fresh(keep: int = 0) -> Session:
    return Session("id", "m", "1", "d", "", after(""), 0, 0, 0.0, TTL, history=History(keep) if keep else None)


class Model:
    """What the protocol promises: `log` is what the session has consumed, `last` what its last number asked for (None: not known).

    `logs` remembers every step's, and nothing is ever dropped from it but by a reset or an upload; `kept` are steps in order of age.
    """

    def __init__(self, keep: int = 0) -> None:
        self.log, self.step, self.last, self.open, self.flight = "", 0, None, False, None
        self.keep, self.logs, self.kept, self.marks = keep, {0: ""}, [], {}

    def place(self, log: str, step: int) -> None:
        self.log, self.step, self.last, self.open = log, step, None, False
        self.logs, self.kept, self.marks = {step: log}, [], {}

    def advance(self, last: str, open: bool = False) -> None:
        """The next step begins where the session stands, which is left behind."""
        self.logs[self.step] = self.log
        if self.keep:
            self.kept.append(self.step)
            if len(self.kept) > self.keep:
                self.kept.remove(min(step for step in self.kept if step not in self.marks.values()))
        self.step, self.last, self.open = self.step + 1, last, open

    def known(self, to: int | str) -> int | None:
        """The step of a rewind, if it is kept."""
        step = self.marks.get(to) if isinstance(to, str) else to
        return step if self.keep and step is not None and step in (*self.kept, self.step) else None

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
    keep = 0

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.session = self.stored = fresh(self.keep)
        self.model = Model(self.keep)
        self.replied: dict[int, object] = {}
        self.gone = False

    def offer(self, event: object) -> object:
        """One event, with the effects that the shell would perform; a commit goes through the bytes of the store."""
        self.session, reply, effects = handle(self.session, event, self.now)
        if Effect.COMMIT in effects:
            last = None if self.session.last is None else decode_step(encode_step(self.session.last))
            self.stored = self.session._replace(flight=None, last=last)
            if self.stored.history is not None:
                past = tuple(decode_snapshot(encode_snapshot(at)) for at in self.stored.history.past)
                self.stored = self.stored._replace(history=self.stored.history._replace(past=past))
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
            self.model.advance("generate", open=True)
            self.model.flight = "generate"
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
        elif expected == "replay" and isinstance(reply, Rewound):
            assert reply.to == self.replied[self.model.step]
            assert (reply.session, effects) == (self.session, ())
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
        self.model.advance(content)
        self.model.log, self.model.flight = self.model.log + content, None
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
            self.model.place(log, step)

    @precondition(lambda self: not self.gone)
    @rule()
    def reset(self) -> None:
        if self.place(Reset(TTL)):
            self.model.place("", 0)

    @precondition(lambda self: not self.gone)
    @rule(to=st.integers(0, 12) | st.sampled_from(["here", "there"]), offset=st.none() | st.integers(-2, 4))
    def rewind(self, to: int | str, offset: int | None) -> None:
        self.rewind_as(to, self.number(offset))

    @precondition(lambda self: not self.gone and self.model.kept)
    @rule(data=st.data(), offset=st.none() | st.integers(0, 1))
    def rewind_to_what_is_kept(self, data: st.DataObject, offset: int | None) -> None:
        self.rewind_as(data.draw(st.sampled_from([*self.model.kept, self.model.step])), self.number(offset))

    def rewind_as(self, to: int | str, number: int | None) -> None:
        if self.expired():
            return
        wish = f"rewind {to!r}"
        expected = self.model.expect(number, wish)
        known = self.model.known(to)
        reply, effects = self.offer(Rewind(number, self.digest(wish), to, TTL))
        if expected != "run":
            self.check(expected, reply, effects)
        elif known is None:
            assert isinstance(reply, Refused)
            assert isinstance(reply.error, NotKept)
            assert reply.error.extra["kept"] == ([*self.model.kept, self.model.step] if self.model.keep else [])
            assert effects == ()
        else:
            self.model.logs[self.model.step] = self.model.log
            log = self.model.logs[known]
            self.model.advance(wish)
            self.model.log = log
            self.replied[self.model.step] = known
            assert isinstance(reply, Rewound)
            assert (reply.to, reply.session.step, effects) == (known, self.model.step, (Effect.COMMIT,))
            assert reply.session.expires_at == self.now + TTL

    @precondition(lambda self: not self.gone)
    @rule(name=st.sampled_from(["here", "there"]), remove=st.booleans())
    def mark(self, name: str, remove: bool) -> None:
        if self.expired():
            return
        reply, effects = self.offer(Mark(name, remove))
        if self.model.flight is not None:
            assert isinstance(reply, Wait)
            return
        marks = {**self.model.marks, name: self.model.step}
        if remove:
            del marks[name]
        if not self.model.keep or len(set(marks.values())) > self.model.keep:
            assert isinstance(reply, Refused)
            assert isinstance(reply.error, MarkLimit if self.model.keep else NotKept)
            assert effects == ()
            return
        assert isinstance(reply, Marked)
        assert effects == ((Effect.COMMIT,) if marks != self.model.marks else ())
        self.model.marks = marks

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

    @invariant()
    def what_is_kept_is_what_the_model_remembers(self) -> None:
        for session in (self.session, self.stored):
            history = session.history
            assert (history is None) == (self.model.keep == 0)
            if history is None:
                continue
            assert len(history.past) <= history.keep == self.model.keep
            assert history.steps == self.model.kept
            assert dict(history.marks) == self.model.marks
            assert set(self.model.marks.values()) <= {*history.steps, session.step}
            for at in history.past:
                log = self.model.logs[at.step]
                assert at.position == len(log)
                assert np.array_equal(at.state, after(log))


def same(a: object, b: object) -> bool:
    if isinstance(a, Generated) and isinstance(b, Generated):
        return (a.text, a.reason, a.sampling) == (b.text, b.reason, b.sampling) and np.array_equal(a.logprobs, b.logprobs)
    return isinstance(a, Scores) and isinstance(b, Scores) and np.array_equal(a.logits, b.logits) and np.array_equal(a.logprobs, b.logprobs)


Protocol.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestProtocol = Protocol.TestCase


class ProtocolThatKeepsThree(Protocol):
    keep = 3


class ProtocolThatKeepsOne(Protocol):
    keep = 1


for kind in (ProtocolThatKeepsThree, ProtocolThatKeepsOne):
    kind.TestCase.settings = Protocol.TestCase.settings
TestProtocolThatKeepsThree = ProtocolThatKeepsThree.TestCase
TestProtocolThatKeepsOne = ProtocolThatKeepsOne.TestCase


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


def kept(keep: int, texts: str) -> Session:
    """A session that has taken a step for each letter."""
    session = fresh(keep)
    for i in range(len(texts)):
        session, *_ = handle(session, Feed(i + 1, b"f", 1), 0.0)
        session, *_ = handle(session, Consumed(after(texts[: i + 1]), 1, NO_SCORES, Carry(60.0, np.full(3, i), 1, 1), TTL), 0.0)
    return session


def test_a_rewind_takes_the_next_number_and_brings_state_position_and_carry_back() -> None:
    session = kept(8, "abcd")
    back, reply, effects = handle(session, Rewind(5, b"r", 2, TTL), 7.0)
    assert isinstance(reply, Rewound)
    assert (reply.session, reply.to, effects) == (back, 2, (Effect.COMMIT,))
    assert (back.step, back.position, back.expires_at) == (5, 2, 7.0 + TTL)
    assert np.array_equal(back.state, after("ab"))
    assert back.carry is not None
    assert back.carry.frame[0] == 1
    assert back.history is not None
    assert back.history.steps == [0, 1, 2, 3, 4]


def test_a_repeat_of_a_rewind_is_answered_and_not_applied_and_a_late_older_step_is_a_gap() -> None:
    session, first, _ = handle(kept(8, "abcd"), Rewind(5, b"r", 2, TTL), 7.0)
    again, reply, effects = handle(session, Rewind(5, b"r", 2, TTL), 9.0)
    assert (again, reply, effects) == (session, first, ())
    for event, error in (
        (Rewind(5, b"other", 1, TTL), StepConflict),
        (Feed(5, b"f", 1), StepConflict),
        (Feed(3, b"f", 1), StepGap),
        (Feed(4, b"f", 1), StepGap),
        (Rewind(4, b"r", 2, TTL), StepGap),
        (Rewind(7, b"r", 2, TTL), StepGap),
    ):
        same, refused, effects = handle(session, event, 9.0)
        assert isinstance(refused, Refused)
        assert type(refused.error) is error
        assert refused.error.field == ("number" if isinstance(event, Rewind) else "step")
        assert (same, effects) == (session, ())


def test_one_goes_back_and_forward_again_while_it_is_kept() -> None:
    session, *_ = handle(kept(8, "abcd"), Rewind(None, b"r", 1, TTL), 0.0)
    session, reply, _ = handle(session, Rewind(None, b"s", 4, TTL), 0.0)
    assert isinstance(reply, Rewound)
    assert (session.step, session.position) == (6, 4)
    assert np.array_equal(session.state, after("abcd"))


def test_what_is_not_kept_is_refused_with_what_is() -> None:
    session = kept(2, "abcd")
    for to in (0, 1, 5, "no such mark"):
        _, reply, effects = handle(session, Rewind(5, b"r", to, TTL), 0.0)
        assert isinstance(reply, Refused)
        assert isinstance(reply.error, NotKept)
        assert (reply.error.extra["kept"], effects) == ([2, 3, 4], ())


def test_marks_hold_their_states_and_a_step_still_works_when_only_they_are_left() -> None:
    session, *_ = handle(kept(2, "a"), Mark("one"), 0.0)
    session, *_ = handle(session, Feed(2, b"f", 1), 0.0)
    session, *_ = handle(session, Consumed(after("ab"), 1, NO_SCORES, None, TTL), 0.0)
    session, *_ = handle(session, Mark("two"), 0.0)
    for n in (3, 4, 5):
        session, *_ = handle(session, Feed(n, b"f", 1), 0.0)
        session, reply, _ = handle(session, Consumed(after("ab" + "c" * (n - 2)), 1, NO_SCORES, None, TTL), 0.0)
        assert isinstance(reply, Result)
        assert session.history is not None
        assert session.history.steps == [1, 2]
    _, refused, _ = handle(session, Mark("three"), 0.0)
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, MarkLimit)
    session, reply, _ = handle(session, Rewind(6, b"r", "one", TTL), 0.0)
    assert isinstance(reply, Rewound)
    assert (reply.to, session.position) == (1, 1)


def test_a_session_has_no_more_than_so_many_marks() -> None:
    session = kept(2, "a")
    for n in range(MAX_MARKS):
        session, reply, _ = handle(session, Mark(str(n)), 0.0)
        assert isinstance(reply, Marked)
    _, refused, _ = handle(session, Mark("one more"), 0.0)
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, MarkLimit)
    again, reply, effects = handle(session, Mark("0"), 0.0)
    assert (again, effects) == (session, ()), "a name that is there is no new one, and nothing is stored"


def test_a_rewind_seals_a_cut_generate_whose_state_stays_kept() -> None:
    session, *_ = handle(fresh(4), Generate(1, b"g", GENERATE), 0.0)
    session, *_ = handle(session, Emitted("x", -1.0, after("x"), TTL), 0.0)
    waiting, wait, _ = handle(session, Rewind(2, b"r", 0, TTL), 0.0)
    assert isinstance(wait, Wait)
    assert waiting is session
    session, *_ = handle(session, Cut(), 0.0)
    session, reply, _ = handle(session, Rewind(2, b"r", 0, TTL), 0.0)
    assert isinstance(reply, Rewound)
    assert (session.step, session.position, session.unfinished) == (2, 0, None)
    session, *_ = handle(session, Rewind(3, b"s", 1, TTL), 0.0)
    assert np.array_equal(session.state, after("x"))


def test_a_fork_keeps_the_states_too_and_a_reset_and_an_upload_clear_them() -> None:
    session, *_ = handle(kept(4, "abc"), Mark("m"), 0.0)
    _, forked, _ = handle(session, Fork("other", TTL), 5.0)
    assert isinstance(forked, Forked)
    assert forked.session.history == session.history
    for event in (Reset(TTL), Import(Snapshot(after("z"), 9, 1, None), TTL)):
        placed, *_ = handle(session, event, 5.0)
        assert placed.history == History(4)
    _, deleted, _ = handle(session, Delete(), 5.0)
    assert deleted == Deleted(4)
