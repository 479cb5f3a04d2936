"""The session protocol as a pure state machine: (session, event, now) -> (session, reply, effects).

No clock, no store, no model, no protocol in here. A step carries its number. The next number advances; the last number with the same
content is answered from the stored result; with other content it is a conflict; any other number is a gap. At most one step of a
session is in flight. A refused or failed step changes nothing and leaves its number free. What comes while content is in flight waits,
whatever its number: another process may have gone on with the session meanwhile, and only the commit finds that out.

A `generate` is one step that lasts: it takes its number when it is accepted, then every emitted character is a change of its own. One
that was cut (its connection lost, the server killed) stays unfinished until its number is repeated, which replays the stored
characters and goes on, or until the next number seals it.

A sequence of the Open Inference Protocol is a session whose id the client chose: its first step begins it, dropping what was there under
that id (unless it is the stored first step again), and a step may end it. An ended one answers its last number again, and nothing else.

    Feed ------ admit --> Run .......... Consumed --> Commit, Advanced
    Generate -- admit --> Commit, Run .. Emitted  --> Commit, Char [, Done]
    Import, Reset ------> Commit, Placed
    Fork ---------------> Forked, whose session is to be stored too
    Rewind -------------> Commit, Rewound
    Mark ---------------> Commit, Marked

Import, Reset, Fork and Mark take their turn like a step: while something is in flight they wait.

A session may keep the states after its last few steps. A rewind is a step: it takes the next number, and after it the session stands where
it stood after an earlier one. So numbers never come twice, and a late repeat of an older one is never applied. Steps that were left behind
can be gone forward to while they are kept. A mark names the present step, whose state is then kept until the mark is moved or removed.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from indrnn.frames.rate import Carry
from indrnn.service.errors import Gone, MarkLimit, NoStoredReply, NotKept, PositionLimit, ServiceError, StepConflict, StepGap

Floats = NDArray[np.float32]
Outcome = TypeVar("Outcome", bound="Scores | Generated", covariant=True)

KEPT = 60.0  # seconds that the result of a step which ended its sequence can be had again
MAX_MARKS = 16  # of one session


class Reason(Enum):
    """Why a generate ended."""

    LENGTH = "length"
    STOP = "stop"
    CANCELLED = "cancelled"


class Scores(NamedTuple):
    """The answer to a fed step: logits [K] at its end; where asked for, every [t, K] after each of the model's frames or characters;
    chars: logprobs [n] in nats; doubts: the names of the checks by which what the model saw is no body (frames/anatomy.py)."""

    logits: Floats
    every: Floats
    logprobs: Floats
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """The way a generate draws; `seed` is the one used, also where the client gave none."""

    max_chars: int
    temperature: float
    top_p: float
    seed: int
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Generated:
    """The characters that a generate has emitted so far; `reason` is None while it is unfinished."""

    sampling: Sampling
    text: str
    logprobs: Floats
    reason: Reason | None

    def grown(self, char: str, logprob: float) -> "Generated":
        """Return this with one more character, and the reason if that is the last."""
        text = self.text + char
        reason = Reason.LENGTH if len(text) >= self.sampling.max_chars else None
        if text.endswith(self.sampling.stop):
            reason = Reason.STOP
        return Generated(self.sampling, text, np.append(self.logprobs, np.float32(logprob)), reason)


class Return(NamedTuple):
    """The answer to a rewind: the step whose state the session went back to."""

    step: int


class Step(NamedTuple):
    """The last step: the digest of its decoded content and options, its result, and whether it ended its sequence."""

    digest: bytes
    result: Scores | Generated | Return
    end: bool = False


class Snapshot(NamedTuple):
    """The part of a session that can be taken elsewhere: where it stands, without the stored result."""

    state: Floats
    step: int
    position: int
    carry: Carry | None


class History(NamedTuple):
    """The states that a session keeps: at most `keep` of them beside the present one, oldest first.

    `marks` name steps: such a state stays while others come and go. There is always one that may go, since marks name at most `keep` steps.
    """

    keep: int
    past: tuple[Snapshot, ...] = ()
    marks: tuple[tuple[str, int], ...] = ()

    def beyond(self, at: Snapshot) -> "History":
        """Return what is kept once the session has left `at` for its next step: the oldest that no mark names gives way."""
        past = (*self.past, at)
        if len(past) > self.keep:
            marked = {step for _, step in self.marks}
            oldest = next(i for i, kept in enumerate(past) if kept.step not in marked)
            past = past[:oldest] + past[oldest + 1 :]
        return History(self.keep, past, self.marks)

    @property
    def steps(self) -> list[int]:
        """Return the steps that are kept beside the present one."""
        return [kept.step for kept in self.past]


class Flight(NamedTuple):
    """The message being worked on; never stored. `anew`: the fresh session it begins with, in place of the one that is there."""

    number: int
    digest: bytes
    anew: "Session | None" = None
    end: bool = False


class Session(NamedTuple):
    """One client's state. `step` counts messages, `position` frames or characters consumed; times are Unix seconds.

    A named tuple, as all that each step makes anew: 1 µs, where a frozen data class of this size takes 8.
    """

    id: str
    model: str
    version: str
    digest: str
    owner: str
    state: Floats
    step: int
    position: int
    created_at: float
    expires_at: float
    last: Step | None = None
    carry: Carry | None = None
    history: History | None = None
    flight: Flight | None = None

    @property
    def unfinished(self) -> Generated | None:
        """Return the generate that was cut, if the last step is one."""
        result = self.last.result if self.last else None
        return result if isinstance(result, Generated) and result.reason is None else None

    def flying(self, flight: Flight) -> "Session":
        """Return the session with this message being worked on."""
        return Session(*self[:-1], flight)

    @property
    def landed(self) -> "Session":
        """Return the session as it is stored: without what is in flight."""
        return self if self.flight is None else Session(*self[:-1], None)

    @property
    def generating(self) -> bool:
        """Return whether what is in flight is the generate that the last step is."""
        return self.flight is not None and self.flight.anew is None and self.flight.number == self.step

    @property
    def ended(self) -> bool:
        """Return whether a step has ended it."""
        return self.last is not None and self.last.end

    @property
    def standing(self) -> Snapshot:
        """Return where it stands."""
        return Snapshot(self.state, self.step, self.position, self.carry)

    @property
    def keep(self) -> int:
        """Return how many states it may keep beside the present one."""
        return 0 if self.history is None else self.history.keep

    @property
    def left(self) -> History | None:
        """Return what it keeps once it has gone on from where it stands."""
        return None if self.history is None else self.history.beyond(self.standing)


# --- events ---------------------------------------------------------------------------------------------------------------------------


class Feed(NamedTuple):
    """Content to consume; `number` None lets the server count.

    begin: the fresh session that a sequence's first step begins with; end: the sequence ends after this step.
    """

    number: int | None
    digest: bytes
    length: int
    max_position: int | None = None
    begin: Session | None = None
    end: bool = False


@dataclass(frozen=True, slots=True)
class Generate:
    """A request to emit characters."""

    number: int | None
    digest: bytes
    sampling: Sampling
    max_position: int | None = None


class Consumed(NamedTuple):
    """The engine has consumed the feed in flight."""

    state: Floats
    length: int
    result: Scores
    carry: Carry | None
    ttl: float


@dataclass(frozen=True, slots=True)
class Emitted:
    """The engine has drawn a character and consumed it."""

    char: str
    logprob: float
    state: Floats
    ttl: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client ends its generate; `number` None means whichever is in flight."""

    number: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The event that what was in flight is no more: the connection was lost, the engine or the store failed, or the server restarts."""


@dataclass(frozen=True, slots=True)
class Delete:
    """The client ends the session."""


@dataclass(frozen=True, slots=True)
class Import:
    """The client puts a state in place of the session's; the stored result goes with the old one."""

    snapshot: Snapshot
    ttl: float


@dataclass(frozen=True, slots=True)
class Reset:
    """The client goes back to the start of a sequence: step 0, position 0, a zero row."""

    ttl: float


@dataclass(frozen=True, slots=True)
class Fork:
    """The client wants a second session that stands where this one does, last result included; `id` will be its id."""

    id: str
    ttl: float


@dataclass(frozen=True, slots=True)
class Rewind:
    """The client goes back to where the session stood after a step, or where a mark was set; `number` None lets the server count."""

    number: int | None
    digest: bytes
    to: int | str
    ttl: float


@dataclass(frozen=True, slots=True)
class Mark:
    """The client names the present step, or takes the name away."""

    name: str
    remove: bool = False


Numbered = Feed | Generate | Rewind
Event = Numbered | Consumed | Emitted | Cancel | Cut | Delete | Import | Reset | Fork | Mark

# --- replies --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refused:
    """The event changed nothing."""

    error: ServiceError


@dataclass(frozen=True, slots=True)
class Wait:
    """The event has to be offered again when what is in flight has ended."""


@dataclass(frozen=True, slots=True)
class Follow:
    """The same generate is in flight: the stored characters, then those to come."""

    number: int
    generated: Generated


class Result(NamedTuple, Generic[Outcome]):
    """A finished step, new or replayed; state [N] after it, where content was fed."""

    number: int
    position: int
    result: Outcome
    state: Floats | None = None


@dataclass(frozen=True, slots=True)
class Char:
    """One emitted character, and the reason if it was the last."""

    number: int
    position: int
    char: str
    logprob: float
    done: Reason | None


@dataclass(frozen=True, slots=True)
class Deleted:
    """The session is no more; `keep`: how many states it could keep."""

    keep: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """The session stands where the client put it."""

    session: Session


@dataclass(frozen=True, slots=True)
class Forked:
    """The reply to a fork: the second session that it made."""

    session: Session


@dataclass(frozen=True, slots=True)
class Rewound:
    """The session stands where it stood after step `to`, by a step that is its last, new or replayed."""

    session: Session
    to: int


@dataclass(frozen=True, slots=True)
class Marked:
    """The session has the name, or has it no longer."""

    session: Session


Reply = Refused | Wait | Follow | Result[Scores | Generated] | Char | Deleted | Placed | Forked | Rewound | Marked


class Effect(Enum):
    """One thing that the shell has to do; all but RUN must have happened before the reply is sent."""

    RUN = "run"
    COMMIT = "commit"
    REMOVE = "remove"


Handled = tuple[Session, Reply | None, tuple[Effect, ...]]

# --- the machine ----------------------------------------------------------------------------------------------------------------------


def handle(session: Session, event: Event, now: float) -> Handled:
    """Handle one event. Pure: the session that comes back is the truth once its effects have happened, the one that went in until then."""
    if isinstance(event, Consumed):
        return _consumed(session, event, now)
    if isinstance(event, Feed):
        if event.begin is not None:
            return _begin_sequence(session, event, event.begin, now)
        return _expired(session, now) or _admit(session, event, now)
    if isinstance(event, Emitted):
        return _emitted(session, event, now)
    if isinstance(event, Cut):
        return session._replace(flight=None), None, ()
    if expired := _expired(session, now):
        return expired
    if isinstance(event, Cancel):
        return _cancel(session, event)
    if isinstance(event, Delete):
        if session.flight is not None and not session.generating:
            return session, Wait(), ()
        return session._replace(flight=None), Deleted(session.keep), (Effect.REMOVE,)
    if isinstance(event, Numbered):
        return _admit(session, event, now)
    if session.flight is not None:
        return session, Wait(), ()
    if isinstance(event, Mark):
        return _mark(session, event)
    if isinstance(event, Fork):
        twin = session._replace(id=event.id, created_at=now, expires_at=now + event.ttl)
        return session, Forked(twin), ()
    start = Snapshot(np.zeros_like(session.state), 0, 0, None)
    return _place(session, start if isinstance(event, Reset) else event.snapshot, now + event.ttl)


def _expired(session: Session, now: float) -> Handled | None:
    if session.flight is None and now >= session.expires_at:
        return session, Refused(Gone("the session has expired")), (Effect.REMOVE,)
    return None


def _place(session: Session, at: Snapshot, expires_at: float) -> Handled:
    history = History(session.keep) if session.keep else None  # numbers may come again, and with them other states
    placed = session._replace(
        state=at.state, step=at.step, position=at.position, carry=at.carry, last=None, expires_at=expires_at, history=history
    )
    return placed, Placed(placed), (Effect.COMMIT,)


def _begin_sequence(session: Session, event: Feed, fresh: Session, now: float) -> Handled:
    if session.flight is not None:
        return session, Wait(), ()
    first, last = event.number == session.step == 1, session.last
    if (session.version, session.digest) != (fresh.version, fresh.digest):
        first = False  # that was another version's answer
    if first and last is not None and last.digest == event.digest and now < session.expires_at and not isinstance(last.result, Return):
        return session, Result(1, session.position, last.result, session.state), ()
    if event.number not in (None, 1):
        return session, Refused(StepGap(f"a sequence begins with step 1, got {event.number}: expected step 1", expected_step=1)), ()
    return _begin(session, event, 1, fresh)


def _admit(session: Session, event: Numbered, now: float) -> Handled:
    flight = session.flight
    if flight is not None and (event.number is None or not session.generating):
        return session, Wait(), ()  # what it follows is not there yet; or another process has gone on, which the commit will find out
    number = session.step + 1 if event.number is None else event.number
    if flight is not None and number == flight.number:
        if event.digest != flight.digest:
            return session, Refused(_conflict(number, event)), ()
        so_far = session.unfinished
        assert so_far is not None, "a generate in flight is unfinished"
        return session, Follow(number, so_far), ()
    if flight is not None and number == flight.number + 1:
        return session, Wait(), ()
    if number == session.step and session.last is not None:
        return _repeat(session, event, session.last)
    if session.ended:
        return session, Refused(Gone("the sequence has ended")), ()
    if number == session.step > 0:
        detail = f"step {number} was answered where the state came from, and its answer did not come along; expected step {number + 1}"
        return session, Refused(NoStoredReply(detail, field=_field(event), expected_step=number + 1)), ()
    if number != session.step + 1:
        again = f", or {session.step} again" if session.last else ""
        detail = f"expected step {session.step + 1}{again}, got {number}"
        return session, Refused(StepGap(detail, field=_field(event), expected_step=session.step + 1)), ()
    return _rewind(session, event, number, now) if isinstance(event, Rewind) else _begin(session, event, number)


def _begin(session: Session, event: Feed | Generate, number: int, anew: Session | None = None) -> Handled:
    length = event.length if isinstance(event, Feed) else event.sampling.max_chars
    position = (anew or session).position
    if event.max_position is not None and position + length > event.max_position:
        detail = f"expected at most {event.max_position - position} more, got {length}: the model was made for {event.max_position}"
        return session, Refused(PositionLimit(detail)), ()
    if isinstance(event, Feed):
        return session.flying(Flight(number, event.digest, anew, event.end)), None, (Effect.RUN,)
    flight = Flight(number, event.digest)
    empty = Generated(event.sampling, "", np.zeros(0, np.float32), None)
    accepted = session._replace(step=number, last=Step(event.digest, empty), history=session.left, flight=flight)
    return accepted, None, (Effect.COMMIT, Effect.RUN)


def _repeat(session: Session, event: Numbered, last: Step) -> Handled:
    if event.digest != last.digest:
        return session, Refused(_conflict(session.step, event)), ()
    if isinstance(last.result, Return):
        return session, Rewound(session, last.result.step), ()
    if session.unfinished:
        going_on = session._replace(flight=Flight(session.step, last.digest))
        return going_on, Follow(session.step, session.unfinished), (Effect.RUN,)
    return session, Result(session.step, session.position, last.result, session.state), ()


def _conflict(number: int, event: Numbered) -> StepConflict:
    return StepConflict(f"step {number} was sent before with other content", field=_field(event))


def _field(event: Numbered) -> str:
    """Return where the client says the number: a rewind's `step` is another."""
    return "number" if isinstance(event, Rewind) else "step"


def _rewind(session: Session, event: Rewind, number: int, now: float) -> Handled:
    at = _kept(session, event.to)
    if isinstance(at, NotKept):
        return session, Refused(at), ()
    rewound = session._replace(
        state=at.state,
        step=number,
        position=at.position,
        carry=at.carry,
        expires_at=now + event.ttl,
        last=Step(event.digest, Return(at.step)),
        history=session.left,
    )
    return rewound, Rewound(rewound, at.step), (Effect.COMMIT,)


def _kept(session: Session, to: int | str) -> Snapshot | NotKept:
    """Return the state after a step, or where a mark was set, or why there is none."""
    history = session.history
    if history is None:
        return NotKept("expected a session that keeps states: open it with keep", kept=[], marks={})
    marks = dict(history.marks)
    step = marks.get(to) if isinstance(to, str) else to
    for at in (*history.past, session.standing):
        if at.step == step:
            return at
    kept = [*history.steps, session.step]
    if isinstance(to, str):
        return NotKept(f"expected one of the session's marks, got {to!r}", field="mark", kept=kept, marks=marks)
    detail = f"the state after step {to} is not kept: expected one of {', '.join(map(str, kept))}"
    return NotKept(detail, field="step", kept=kept, marks=marks)


def _mark(session: Session, event: Mark) -> Handled:
    history = session.history
    if history is None:
        return session, Refused(NotKept("expected a session that keeps states: open it with keep", kept=[], marks={})), ()
    marks = {**dict(history.marks), event.name: session.step}
    if event.remove:
        del marks[event.name]
    elif len(marks) > MAX_MARKS:
        return session, Refused(MarkLimit(f"expected at most {MAX_MARKS} marks: remove one", field="mark")), ()
    elif len(set(marks.values())) > history.keep:
        return session, Refused(MarkLimit(f"expected at most {history.keep} marked steps, as many as are kept", field="mark")), ()
    marked = session._replace(history=history._replace(marks=tuple(marks.items())))
    return marked, Marked(marked), (Effect.COMMIT,) if marks != dict(history.marks) else ()


def _consumed(session: Session, event: Consumed, now: float) -> Handled:
    flight = session.flight
    assert flight is not None, "Consumed without a flight"
    before = flight.anew or session
    position = before.position + event.length
    advanced = Session(
        *before[:5],  # whose it is; as in `flying`: each step comes here, and _replace takes twice the time
        state=event.state,
        step=flight.number,
        position=position,
        created_at=before.created_at,
        expires_at=now + (min(KEPT, event.ttl) if flight.end else event.ttl),
        last=Step(flight.digest, event.result, flight.end),
        carry=event.carry,
        history=before.left,
    )
    return advanced, Result(advanced.step, position, event.result, event.state), (Effect.COMMIT,)


def _emitted(session: Session, event: Emitted, now: float) -> Handled:
    so_far = session.unfinished
    assert session.last is not None, "Emitted without a step"
    assert so_far is not None, "Emitted without a generate"
    grown = so_far.grown(event.char, event.logprob)
    advanced = session._replace(
        state=event.state,
        position=session.position + 1,
        expires_at=now + event.ttl,
        last=Step(session.last.digest, grown),
        flight=None if grown.reason else session.flight,
    )
    return advanced, Char(session.step, advanced.position, event.char, event.logprob, grown.reason), (Effect.COMMIT,)


def _cancel(session: Session, event: Cancel) -> Handled:
    so_far = session.unfinished
    if session.last is None or so_far is None or event.number not in (None, session.step):
        return session, None, ()  # it has ended already, or never was
    cancelled = replace(so_far, reason=Reason.CANCELLED)
    flight = None if session.generating else session.flight  # a later feed, which seals the generate anyway, goes on
    ended = session._replace(last=Step(session.last.digest, cancelled), flight=flight)
    return ended, Result(session.step, session.position, cancelled), (Effect.COMMIT,)
