"""The life of sessions in the engine's hands, against a store that fails, and in which others move and remove them, at random.

The turns of the engine thread are taken here, one after another, so that an example is always the same example. Each commit is checked by a
model of what a session is: its number, how much it has consumed, and the sum of that, which FakeEngine's state shows.
"""

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from test_loop import ALPHABET, FakeEngine, N

from indrnn.service.engine.commit import CommitThread
from indrnn.service.engine.loop import EngineLoop, EngineSettings, Handed, LiveSession, Queued, StoreRelation
from indrnn.service.engine.requests import (
    Asked,
    CancelRequest,
    Created,
    CreateRequest,
    DeleteRequest,
    Delivery,
    Exact,
    ForkRequest,
    GenerateRequest,
    ImportRequest,
    Looked,
    LookRequest,
    ResetRequest,
    StepRequest,
    Ticket,
)
from indrnn.service.engine.runtime import PIECE
from indrnn.service.engine.short import Batch, PlainCommit
from indrnn.service.errors import StoreFailed
from indrnn.service.session.ids import new_key
from indrnn.service.session.machine import (
    Char,
    Deleted,
    Follow,
    Forked,
    Generated,
    Placed,
    Refused,
    Result,
    Sampling,
    Scores,
    Session,
    Snapshot,
    Step,
)
from indrnn.service.store.protocol import Change

NEW, STORED, CHANGED, REMOVING, GONE, STALE = StoreRelation
DRAWN = {
    *((None, NEW), (None, STORED), (NEW, CHANGED), (STORED, CHANGED), (STORED, REMOVING), (CHANGED, REMOVING)),
    *((CHANGED, STORED), (REMOVING, GONE), (CHANGED, STALE), (REMOVING, STALE), (STALE, STORED), (STALE, GONE), (GONE, NEW)),
}
NAMES = ("one", "two", "three")  # of sequences
TTL = 60.0


@contextmanager
def recorded(changes: list[tuple[StoreRelation | None, StoreRelation]]) -> Iterator[None]:
    """Notes every change of how a live session stands."""
    slot: Any = LiveSession.__dict__["standing"]

    def change(live: LiveSession, after: StoreRelation) -> None:
        try:
            before = slot.__get__(live, LiveSession)
        except AttributeError:
            before = None
        if before is not after:
            changes.append((before, after))
        slot.__set__(live, after)

    LiveSession.standing = property(lambda live: slot.__get__(live, LiveSession), change)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        LiveSession.standing = slot


class ByHand(EngineLoop):
    """An engine whose thread ends at once: the test takes its turns."""

    def _main(self) -> None:
        return


class CommitsByHand(CommitThread[Queued]):
    """A commit thread that ends at once: the test commits, and so does whoever finds no room."""

    def _main(self) -> None:
        return

    def store(self, batch: Batch[Queued]) -> Sequence[Queued]:
        if self._rows >= self._most:
            self.commit()
        return super().store(batch)

    def commit(self) -> None:
        """Commits all that is handed over."""
        if self._handed:
            handed = self._take()
            assert handed is not None
            self._store(handed)


class Moody:
    """A store in memory, every state of which is known; it fails when told to."""

    def __init__(self) -> None:
        self.key = new_key()
        self.sessions: dict[str, Session] = {}
        self.ever: list[Session] = []
        self.removed: set[str] = set()
        self.fails: str | None = None
        self.applied: dict[str, set[bytes]] = {}
        """of each session, what was consumed or begun since it was last put somewhere"""
        self.written: set[str] = set()
        """in this turn, by the engine"""
        self.check: Any = None

    def load(self, ids: Sequence[str]) -> dict[str, Session]:
        if self.fails == "load":
            raise StoreFailed("it does not read")
        return {i: self.sessions[i] for i in ids if i in self.sessions}

    def commit(self, changes: Sequence[Change]) -> frozenset[str]:
        if self.fails == "before":
            raise StoreFailed("it does not write")
        assert len({c.id for c in changes}) == len(changes)
        lost = frozenset(c.id for c in changes if self.sessions.get(c.id) is not c.before)
        for c in changes:
            if c.id not in lost:
                self.check(c)
                self.put(c.id, c.after)
                self.written.add(c.id)
        if self.fails == "after":
            raise StoreFailed("it is not known whether it has written")
        return lost

    def put(self, ident: str, session: Session | None) -> None:
        if session is None:
            del self.sessions[ident]
            self.removed.add(ident)
        else:
            assert session.flight is None
            self.sessions[ident] = session
            self.ever.append(session)

    def had(self, session: Session) -> bool:
        """Whether it was ever stored as this."""
        return any(at(s) == at(session.landed) for s in self.ever)


def at(s: Session) -> tuple[object, ...]:
    text = s.last.result.text if s.last and isinstance(s.last.result, Generated) else None
    return s.id, s.step, s.position, s.state.tobytes(), s.last and s.last.digest, text


def where(s: Session | Snapshot) -> tuple[float, int, int]:
    """The sum of what it has consumed, its number, and how much that was."""
    return float(s.state[0]), s.step, s.position


def consumed(start: tuple[float, int, int], symbols: list[int], steps: int) -> tuple[float, int, int]:
    total, step, position = start
    return total + sum(symbols) + len(symbols), step + steps, position + len(symbols)


def state_of(total: float, count: int) -> np.ndarray:
    """A state that has consumed so much; its logits are those of FakeEngine."""
    state = np.zeros(N, np.float32)
    state[:2] = total, count
    return state


ZERO = Snapshot(state_of(0, 0), 0, 0, None)


class Engine(RuleBasedStateMachine):
    short = False
    """whether plain steps go the short way"""
    commit_thread = False
    """whether they are stored on a thread of their own"""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.changes = Moody(), []
        self.store.check = self.explain
        self.watch = recorded(self.changes)
        self.watch.__enter__()
        self.numbers = itertools.count(1)
        self.asked: dict[Ticket, Any] = {}
        self.content: dict[bytes, Any] = {}
        self.placed = [ZERO]
        self.final: Counter[Ticket] = Counter()
        self.withdrawn: set[Ticket] = set()
        self.loop = ByHand(FakeEngine(), self.store, EngineSettings(4, 1_000, 60, TTL, short=self.short), self.hear)  # type: ignore[arg-type]
        self.loop._thread.join()
        if self.commit_thread:
            assert self.loop._short is not None
            commit = PlainCommit(self.store, self.loop.engine.manifest, self.loop._statistics, self.loop._send)  # type: ignore[arg-type]
            self.loop._commits = CommitsByHand(commit, 4, self.loop.inbox.wake, "by hand")
            self.loop._short._put = self.loop._commits.store

    # --- what the model says of commits and answers -----------------------------------------------------------------------------------

    def explain(self, change: Change) -> None:
        """Asserts that a commit is what some request asked for, from where the session stood or was put in the same turn."""
        before, after = change.before, change.after
        if after is None:
            return
        assert after.state[1] == after.position or after.position == 0
        if after.last is None:
            assert where(after) in [where(p) for p in self.placed] or (before is not None and where(after) == where(before))
            return
        if before is None and self.forked(after):
            return
        digest, result = after.last.digest, after.last.result
        text = result.text if isinstance(result, Generated) else ""
        so_far = before.unfinished if before is not None and before.last is not None and before.last.digest == digest else None
        if before is not None and so_far is not None and text.startswith(so_far.text):
            more = self.symbols(text[len(so_far.text) :])
            if len(more) <= 1 and where(after) == consumed(where(before), more, 0):
                return  # the generate has got on, or has been cancelled
        assert len(text) <= 1
        symbols, begins = self.content.get(digest, (self.symbols(text), False))
        put = [consumed(where(p), symbols, 1) for p in ([ZERO] if begins else self.placed)]
        lineage = self.store.applied.setdefault(after.id, set())
        if where(after) in put:
            lineage.clear()
        else:
            assert before is not None
            # generates that were taken and cancelled in this same turn: a number each, and nothing consumed
            cancelled = where(after)[1] - where(before)[1] - 1
            assert 0 <= cancelled <= sum(isinstance(r, CancelRequest) for r in self.asked.values())
            assert where(after) == consumed(where(before), symbols, 1 + cancelled)
            assert digest not in lineage, "a step is applied once"
        lineage.add(digest)

    @staticmethod
    def symbols(text: str) -> list[int]:
        return [ALPHABET.index(c) for c in text]

    def forked(self, session: Session) -> bool:
        """Whether a new session is the copy of one that was stored."""
        return any(at(s)[1:] == at(session)[1:] for s in self.store.ever)

    def hear(self, deliveries: Sequence[Delivery]) -> None:
        for ticket, reply, _, final in deliveries:
            assert ticket not in self.withdrawn, "it was taken back"
            assert not self.final[ticket], "it has had its last answer"
            self.final[ticket] += final
            request = self.asked[ticket]
            if isinstance(reply, Looked | Placed | Forked | Created):
                # of what is put and looked at in one turn only the last is stored, with all of it
                later = reply.session.id in self.store.written and not isinstance(reply, Forked | Created)
                assert later or self.store.had(reply.session), "it is said before it is stored"
            elif isinstance(reply, Result | Char | Follow) and not isinstance(request, CancelRequest):
                if request.session_id in self.store.written and not isinstance(reply, Char):
                    continue  # it may have been put somewhere else in the same turn
                stored = [s for s in self.store.ever if s.last and s.last.digest == request.digest]
                assert reply.number in {s.step for s in stored}
                if not isinstance(reply, Follow):
                    assert reply.position in {s.position for s in stored}
            elif isinstance(reply, Deleted):
                assert request.session_id in self.store.removed
            elif isinstance(reply, Refused) and isinstance(request, StepRequest) and not isinstance(reply.error, StoreFailed):
                numbers = [t for t, r in self.asked.items() if r is request]
                if len(numbers) == 1:
                    assert not any(s.last and s.last.digest == request.digest for s in self.store.ever), "it was refused, and applied"

    # --- what clients do --------------------------------------------------------------------------------------------------------------

    def ask(self, request: Any) -> None:
        ticket = Ticket(1, next(self.numbers))
        self.asked[ticket] = request
        self.loop.submit([Asked(ticket, request)])

    def some(self, pick: int) -> str:
        known = [*self.store.sessions, *sorted(self.store.removed), *NAMES[:1]]
        return known[pick % len(known)]

    def number(self, ident: str, offset: int | None) -> int | None:
        session = self.store.sessions.get(ident)
        return None if offset is None else (session.step if session else 0) + offset

    PICK = st.integers(0, 5)
    OFFSET = st.sampled_from([None, 1, 1, 1, 0, 2])

    @rule(start=st.none() | st.integers(1, 9))
    def create(self, start: int | None) -> None:
        at = None
        if start is not None:
            at = Snapshot(state_of(start * 2, start), 3, start, None)
            self.placed.append(at)
        self.ask(CreateRequest("", at))

    @rule(pick=PICK, offset=OFFSET, length=st.sampled_from([1, 2, PIECE + 1, 2 * PIECE + 3]))
    def step(self, pick: int, offset: int | None, length: int) -> None:
        self.feed(self.some(pick), offset, length, begin=False)

    @rule(name=st.sampled_from(NAMES), number=st.sampled_from([None, 1, 2]), length=st.sampled_from([1, PIECE + 1]), end=st.booleans())
    def begin(self, name: str, number: int | None, length: int, end: bool) -> None:
        digest = b"%d" % next(self.numbers)
        self.content[digest] = ([1] * length, True)
        self.ask(StepRequest(name, "", number, digest, Exact(np.ones(length, np.int64)), begin=True, end=end))

    def feed(self, ident: str, offset: int | None, length: int, begin: bool) -> None:
        digest = b"%d" % next(self.numbers)
        self.content[digest] = ([2] * length, begin)
        self.ask(StepRequest(ident, "", self.number(ident, offset), digest, Exact(np.full(length, 2))))

    @precondition(lambda self: self.content)
    @rule(back=st.integers(0, 3))
    def repeat(self, back: int) -> None:
        numbered = [r for r in self.asked.values() if isinstance(r, StepRequest | GenerateRequest) and r.number is not None]
        if numbered:
            self.ask(numbered[-1 - back % len(numbered)])

    @rule(pick=PICK, offset=OFFSET, chars=st.integers(1, 4))
    def generate(self, pick: int, offset: int | None, chars: int) -> None:
        ident, digest = self.some(pick), b"%d" % next(self.numbers)
        self.ask(GenerateRequest(ident, "", self.number(ident, offset), digest, Sampling(chars, 1.0, 1.0, 1, ())))

    @rule(pick=PICK, offset=OFFSET)
    def cancel(self, pick: int, offset: int | None) -> None:
        self.ask(CancelRequest(self.some(pick), "", self.number(self.some(pick), offset)))

    @rule(pick=PICK, kind=st.sampled_from([DeleteRequest, ForkRequest, ResetRequest, LookRequest, LookRequest]), in_order=st.booleans())
    def move_or_look(self, pick: int, kind: Any, in_order: bool) -> None:
        more = (in_order,) if kind is LookRequest else ()
        self.ask(kind(self.some(pick), "", *more))

    @rule(pick=PICK, count=st.integers(1, 9))
    def upload(self, pick: int, count: int) -> None:
        self.placed.append(Snapshot(state_of(count * 3, count), 5, count, None))
        self.ask(ImportRequest(self.some(pick), "", self.placed[-1]))

    @precondition(lambda self: self.asked)
    @rule(back=st.integers(0, 5))
    def withdraw(self, back: int) -> None:
        ticket = [*self.asked][-1 - back % len(self.asked)]
        if not self.final[ticket]:
            self.withdrawn.add(ticket)
            self.loop.withdraw([ticket])

    # --- what others do, and the engine ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.store.sessions)
    @rule(pick=PICK, how=st.sampled_from(["moved", "removed"]))
    def somebody_else(self, pick: int, how: str) -> None:
        ident = [*self.store.sessions][pick % len(self.store.sessions)]
        s = self.store.sessions[ident]
        nothing = Scores(np.zeros(3, np.float32), np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
        moved = s._replace(
            step=s.step + 1, position=s.position + 1, state=state_of(s.state[0] + 1, int(s.state[1]) + 1), last=Step(b"theirs", nothing)
        )
        self.store.put(ident, moved if how == "moved" else None)

    @rule(fails=st.sampled_from([None, None, None, "load", "before", "after"]), turns=st.integers(1, 3))
    def turns(self, fails: str | None, turns: int) -> None:
        self.store.fails = fails
        for _ in range(turns):
            self.turn()
        self.store.fails = None

    def turn(self) -> None:
        self.store.written.clear()
        handed: Handed = self.loop.inbox.take(busy=True)
        self.loop._turn(*handed)
        assert set(self.changes) <= DRAWN, set(self.changes) - DRAWN
        self.changes.clear()
        runner = self.loop._runner
        commits = self.loop._commits
        assert commits is None or commits._busy.isdisjoint(self.loop._desk.lives), "a session is in two hands"
        for live in self.loop._desk.lives.values():
            assert not live.unsettled
            assert live.work is None or live in runner.ready
            assert not live.mailbox or live.work is not None or live in runner.freed, "nobody will look at its mailbox"
            assert not live.pending or live.work is not None, "it waits for a commit that is over"

    def commit(self, fails: str | None) -> None:
        """What the commit thread does, between two turns."""
        if isinstance(self.loop._commits, CommitsByHand):
            self.store.fails = fails
            self.loop._commits.commit()
            self.store.fails = None

    @property
    def quiet(self) -> bool:
        return self.loop._commits is None or self.loop._commits.quiet

    def teardown(self) -> None:
        try:
            end = time.monotonic() + 20
            while not (self.loop.inbox.empty and not self.loop._runner.ready and not self.loop._runner.freed and self.quiet):
                assert time.monotonic() < end, "the engine does not come to an end"
                self.commit(None)
                self.turn()
            self.turn()  # for tickets that were taken back last
            assert not self.loop._desk.lives
            assert not self.loop._runner.ready
            assert not self.loop._runner.freed
            assert self.loop.inbox.waiting == 0
            for ticket, request in self.asked.items():
                assert self.final[ticket] == 1 or ticket in self.withdrawn, f"{request} has no last answer"
        finally:
            self.watch.__exit__(None, None, None)


Engine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestEngine = Engine.TestCase


class ShortEngine(Engine):
    """The same rules where plain steps go the short way."""

    short = True


ShortEngine.TestCase.settings = Engine.TestCase.settings
TestShortEngine = ShortEngine.TestCase


class CommitThreadEngine(ShortEngine):
    """The same rules where they are stored while others run."""

    commit_thread = True

    @rule(fails=st.sampled_from([None, None, None, "before", "after"]))
    def commits(self, fails: str | None) -> None:
        self.commit(fails)


CommitThreadEngine.TestCase.settings = Engine.TestCase.settings
TestCommitThreadEngine = CommitThreadEngine.TestCase
