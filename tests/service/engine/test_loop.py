"""The engine thread with an engine that can be watched, slowed and broken: batching, waiting, and what happens when things fail."""

import errno
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from indrnn.service.engine import requests as engine_requests
from indrnn.service.engine.loop import EngineLoop, EngineSettings
from indrnn.service.engine.requests import (
    CancelRequest,
    CompleteRequest,
    Created,
    CreateRequest,
    DeleteRequest,
    Delivery,
    Exact,
    ForkRequest,
    GenerateRequest,
    ImportRequest,
    InferRequest,
    Looked,
    LookRequest,
    MarkRequest,
    Request,
    ResetRequest,
    RewindRequest,
    StepRequest,
    Text,
    Ticket,
)
from indrnn.service.engine.runtime import PIECE, RowResult
from indrnn.service.errors import (
    Cancelled,
    EngineFailed,
    Gone,
    ModelGone,
    Overflow,
    Overloaded,
    StepGap,
    Stopping,
    StoreFailed,
    UnknownSession,
)
from indrnn.service.session.ids import new_id
from indrnn.service.session.machine import (
    Cancel,
    Char,
    Delete,
    Deleted,
    Feed,
    Follow,
    Fork,
    Generate,
    Import,
    Mark,
    Reason,
    Refused,
    Reset,
    Result,
    Rewind,
    Sampling,
    Session,
)
from indrnn.service.store.protocol import Change
from indrnn.service.store.sqlite import SQLiteStore

N, K = 6, 3  # three numbers of history, then three logits
ALPHABET = "abc"


class FakeEngine:
    """state[0] sums what was consumed, state[1] counts it; logits follow the sum. Runs are recorded, and may be held up or broken."""

    def __init__(self) -> None:
        last = SimpleNamespace(offset=3, size=K)
        self.manifest = SimpleNamespace(
            name="m",
            modality="text",
            layout=None,
            version="1",
            sha256="d",
            state_size=N,
            alphabet=ALPHABET,
            part=lambda role: last if role == "last_logits" else None,
            state=(),
            hz=None,
            window=None,
            streams=True,
            limits=SimpleNamespace(max_position=None),
            unknown_symbol=None,
        )
        self.runs: list[list[Any]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fail = False
        self.poison = False
        self.unknown: int | None = None

    def run(self, rows: list[Any]) -> list[RowResult]:
        assert self.gate.wait(20), "a test forgot to open the gate"
        self.runs.append(rows)
        if self.fail:
            raise RuntimeError("broken on purpose")
        if any(self.unknown in r.x.tolist() for r in rows):
            raise RuntimeError("an index beyond the table")
        return [self._one(r.x, r.state) for r in rows]

    def _one(self, x: np.ndarray, state: np.ndarray) -> RowResult:
        out, s = [], state.copy()
        for value in x:
            s[0] += value + 1
            s[1] += 1
            s[3:] = [np.sin(s[0]), np.cos(s[0]), 0]
            out.append(s[3:].copy())
        if self.poison:
            s[2] = np.inf
        return RowResult(np.array(out, np.float32), s, bool(np.isfinite(s).all()))


def request_of(
    session_id: str | None = None,
    owner: str = "",
    event: Any = None,
    content: Exact | None = None,
    in_order: bool = False,
    texts: tuple[Text, ...] | None = None,
    top: int = 0,
    patience: float | None = None,
) -> Request:
    """What is asked of the engine, by what the state machine shall get of it; without an event it is a look."""
    if session_id is None:
        assert content is not None
        return InferRequest(content) if texts is None else CompleteRequest(content, texts, top)
    if isinstance(event, Feed):
        assert content is not None
        begin = event.begin is not None
        return StepRequest(session_id, owner, event.number, event.digest, content, begin=begin, end=event.end, patience=patience)
    if isinstance(event, Generate):
        return GenerateRequest(session_id, owner, event.number, event.digest, event.sampling, protocol="http")
    if isinstance(event, Cancel):
        return CancelRequest(session_id, owner, event.number)
    if isinstance(event, Import):
        return ImportRequest(session_id, owner, event.snapshot)
    if isinstance(event, Rewind):
        return RewindRequest(session_id, owner, event.number, event.digest, event.to)
    if isinstance(event, Mark):
        return MarkRequest(session_id, owner, event.name, event.remove)
    others: dict[Any, Any] = {Delete: DeleteRequest, Reset: ResetRequest, Fork: ForkRequest}
    return LookRequest(session_id, owner, in_order) if event is None else others[type(event)](session_id, owner)


class Bench:
    """An engine thread, its store, and the replies that have come."""

    def __init__(self, engine: Any, store: Any, settings: EngineSettings) -> None:
        self.engine, self.store = engine, store
        self.asked: dict[Ticket, Asked] = {}
        self.loop = EngineLoop(engine, store, settings, self._answer)

    def _answer(self, deliveries: Sequence[Delivery]) -> None:
        for d in deliveries:
            self.asked[d.ticket].sink(d.reply, d.states)

    def ticket(self, asked: "Asked") -> Ticket:
        ticket = Ticket(1, len(self.asked))
        self.asked[ticket] = asked
        return ticket

    def ask(self, **what: Any) -> "Asked":
        asked = Asked()
        self.submit([(asked, request_of(**what))])
        return asked

    def submit(self, requests: list[tuple["Asked", Request]], whole: bool = True) -> None:
        """Raises the error of what is refused at once, where all or none was asked for."""
        self.loop.submit([engine_requests.Asked(self.ticket(asked), request) for asked, request in requests], whole)
        now = [asked.replies[0].error for asked, _ in requests if asked.replies and isinstance(asked.replies[0], Refused)]
        if whole and now and isinstance(now[0], Overloaded | Stopping):
            for asked, _ in requests:
                asked.replies.clear()
            raise now[0]

    def withdraw(self, asked: "Asked") -> None:
        self.loop.withdraw([ticket for ticket, one in self.asked.items() if one is asked])

    @property
    def waiting(self) -> int:
        return self.loop.snapshot().waiting

    @property
    def statistics(self) -> Any:
        return self.loop.snapshot().statistics

    def open(self, **changes: Any) -> str:
        if changes:  # as another service, or an earlier one, has left it
            new = Session(new_id(self.store.key), "m", "1", "d", "", np.zeros(N, np.float32), 0, 0, time.time(), time.time() + 60)
            self.store.commit([Change(None, new._replace(**changes))])
            return new.id
        asked = Asked()
        self.submit([(asked, CreateRequest(""))])
        reply = asked.one()
        assert isinstance(reply, Created)
        return reply.session.id

    def open_keeping(self, keep: int) -> str:
        asked = Asked()
        self.submit([(asked, CreateRequest("", keep=keep))])
        reply = asked.one()
        assert isinstance(reply, Created)
        return reply.session.id

    def rewind(self, ident: str, number: int | None, to: int | str) -> "Asked":
        return self.ask(session_id=ident, event=Rewind(number, f"rewind {to!r}".encode(), to, 60.0))

    def mark(self, ident: str, name: str, remove: bool = False) -> "Asked":
        return self.ask(session_id=ident, event=Mark(name, remove))

    def feed(self, ident: str, number: int | None, symbols: list[int]) -> "Asked":
        content = Exact(np.array(symbols, np.int64))
        return self.ask(
            session_id=ident, event=Feed(number, bytes(symbols[:50]) + bytes([len(symbols) % 256]), len(symbols)), content=content
        )

    def generate(self, ident: str, number: int | None, chars: int, seed: int = 1) -> "Asked":
        sampling = Sampling(chars, 1.0, 1.0, seed, ())
        return self.ask(session_id=ident, event=Generate(number, bytes([chars % 256, seed]), sampling))

    def look(self, ident: str) -> Session:
        reply = self.ask(session_id=ident).one()
        assert isinstance(reply, Looked)
        return reply.session


class Asked:
    """One job's replies."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self._came = threading.Condition()

    def sink(self, value: object, states: object) -> None:
        with self._came:
            self.replies.append(value)
            self._came.notify_all()

    def wait(self, until: Callable[[list[Any]], bool]) -> list[Any]:
        with self._came:
            assert self._came.wait_for(lambda: until(self.replies), 20), f"waited in vain, got {self.replies}"
            return list(self.replies)

    def one(self) -> Any:
        return self.wait(lambda r: len(r) >= 1)[0]

    def last(self) -> Any:
        return self.wait(lambda r: bool(r) and (isinstance(r[-1], Result | Refused) or getattr(r[-1], "done", None)))[-1]


def make(tmp_path: Path, **changes: Any) -> Bench:
    settings = replace(EngineSettings(max_batch=8, max_queue=100, step_timeout=30, session_ttl=60), **changes)
    return Bench(FakeEngine(), SQLiteStore(tmp_path / "s.db"), settings)


def held(bench: Bench, length: int = 1) -> str:
    """Holds the engine in a run, so that what is asked next waits together; the session that it runs."""
    ident = bench.open()
    bench.engine.gate.clear()
    bench.feed(ident, 1, [0] * length)
    end = time.monotonic() + 20
    while not bench.loop.inbox.empty or not bench.loop._desk.lives:
        assert time.monotonic() < end, "the engine thread does not take its jobs"
    return ident


def test_steps_that_wait_together_run_as_one_batch(bench: Bench) -> None:
    idents = [bench.open() for _ in range(5)]
    held(bench)
    asked = [bench.feed(i, 1, [1]) for i in idents]
    bench.engine.gate.set()
    assert all(isinstance(a.one(), Result) for a in asked)
    assert [len(r) for r in bench.engine.runs] == [1, 5]


def test_a_batch_never_holds_two_steps_of_one_session_and_they_run_in_order(bench: Bench) -> None:
    ident = held(bench)
    asked = [bench.feed(ident, n, [n % 3]) for n in range(2, 7)]
    bench.engine.gate.set()
    assert [a.one().number for a in asked] == [2, 3, 4, 5, 6]
    assert all(len(r) == 1 for r in bench.engine.runs)
    assert bench.look(ident).position == 6


def test_a_look_in_order_waits_for_what_was_sent_before_it_and_another_does_not(bench: Bench) -> None:
    ident = held(bench, PIECE * 3)
    behind, at_once = bench.ask(session_id=ident, in_order=True), bench.ask(session_id=ident)
    bench.engine.gate.set()
    assert (at_once.one().session.step, behind.one().session.step) == (0, 1)


def test_a_look_in_order_is_not_answered_with_what_an_earlier_look_has_read_where_the_store_fails_since(bench: Bench) -> None:
    ident, runs = bench.open(), threading.Semaphore(0)
    bench.engine.gate = SimpleNamespace(wait=lambda seconds: runs.acquire(timeout=seconds), set=lambda: runs.release(100))
    step = bench.feed(ident, 1, [0] * PIECE * 2)
    while not bench.loop._desk.lives:  # its first piece runs
        pass
    behind, at_once = bench.ask(session_id=ident, in_order=True), bench.ask(session_id=ident)
    runs.release()
    assert at_once.one().session.step == 0  # its second piece runs
    load, failed = bench.store.load, StoreFailed("it is away")
    bench.store.load = lambda ids: (_ for _ in ()).throw(failed)
    other = bench.ask(session_id="another")
    runs.release()
    assert other.one().error is failed
    assert (step.one().number, behind.one().session.step) == (1, 1)
    bench.store.load = load


def test_a_look_in_the_turn_in_which_a_sequence_begins_does_not_tell_of_a_session_that_nobody_stored(bench: Bench) -> None:
    held(bench)
    begun = Asked()
    bench.submit([(begun, StepRequest("sequence", "", 1, b"1", Exact(np.array([1])), begin=True))])
    look = bench.ask(session_id="sequence")
    bench.engine.gate.set()
    assert isinstance(look.one(), Refused)
    assert begun.one().number == bench.look("sequence").step == 1


def test_a_repeat_of_the_step_in_flight_waits_for_it_and_runs_nothing(bench: Bench) -> None:
    ident = held(bench)
    again = bench.feed(ident, 1, [0])
    other = bench.feed(ident, 4, [0])
    bench.engine.gate.set()
    assert again.one().number == 1
    assert isinstance(other.one().error, StepGap)
    assert len(bench.engine.runs) == 1


def test_more_than_max_batch_take_turns(bench: Bench) -> None:
    idents = [bench.open() for _ in range(20)]
    held(bench)
    asked = [bench.feed(i, 1, [1]) for i in idents]
    bench.engine.gate.set()
    assert all(isinstance(a.one(), Result) for a in asked)
    assert [len(r) for r in bench.engine.runs] == [1, 8, 8, 4]


def test_a_long_message_delays_the_others_by_one_piece_only(bench: Bench) -> None:
    long, short = bench.open(), bench.open()
    held(bench)
    first = bench.feed(long, 1, [1] * (PIECE * 3 + 5))
    steps = [bench.feed(short, n, [2]) for n in (1, 2, 3)]
    bench.engine.gate.set()
    assert all(isinstance(s.one(), Result) for s in steps)
    assert first.one().position == PIECE * 3 + 5
    lengths = [[len(r.x) for r in run] for run in bench.engine.runs[1:]]
    assert lengths[:4] == [[1], [PIECE], [1], [PIECE]]
    assert max(max(run) for run in lengths) == PIECE


def test_a_message_in_pieces_scores_as_in_one(bench: Bench) -> None:
    symbols = [i % 3 for i in range(PIECE + 10)]
    ident = bench.open()
    whole = bench.feed(ident, 1, symbols).one().result
    other = bench.open()
    parts = [bench.feed(other, i + 1, symbols[at : at + 50]).one().result for i, at in enumerate(range(0, len(symbols), 50))]
    assert np.array_equal(np.concatenate([p.logprobs for p in parts]), whole.logprobs)
    assert np.array_equal(bench.look(ident).state, bench.look(other).state)


def test_a_broken_run_answers_everybody_and_moves_nobody(bench: Bench) -> None:
    idents = [bench.open() for _ in range(3)]
    held(bench)
    asked = [bench.feed(i, 1, [1]) for i in idents]
    bench.engine.fail = True
    bench.engine.gate.set()
    assert all(isinstance(a.one().error, EngineFailed) for a in asked)
    bench.engine.fail = False
    assert [bench.look(i).step for i in idents] == [0, 0, 0]
    assert [bench.feed(i, 1, [2]).one().number for i in idents] == [1, 1, 1]


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), RuntimeError("can't start new thread")])
def test_a_run_without_memory_may_be_asked_for_again(bench: Bench, error: Exception) -> None:
    ident = bench.open()
    run, bench.engine.run = bench.engine.run, lambda rows: (_ for _ in ()).throw(error)
    asked = bench.feed(ident, 1, [1]).one()
    assert isinstance(asked.error, Overloaded)
    bench.engine.run = run
    assert bench.feed(ident, 1, [1]).one().number == 1


def test_a_state_that_is_not_finite_is_never_stored(bench: Bench) -> None:
    ident = bench.open()
    bench.engine.poison = True
    assert isinstance(bench.feed(ident, 1, [1]).one().error, Overflow)
    assert isinstance(bench.generate(bench.open(), 1, 5).last().error, EngineFailed), "no number of the client's"
    bench.engine.poison = False
    assert np.isfinite(bench.look(ident).state).all()
    assert bench.feed(ident, 1, [1]).one().number == 1


def refuse_commits(bench: Bench) -> None:
    bench.store._db.execute("CREATE TRIGGER no BEFORE UPDATE ON sessions BEGIN SELECT RAISE(ABORT, 'full'); END")


def allow_commits(bench: Bench) -> None:
    bench.store._db.execute("DROP TRIGGER no")


def test_a_failed_commit_is_told_and_nothing_has_moved(bench: Bench) -> None:
    ident = bench.open()
    refuse_commits(bench)
    assert isinstance(bench.feed(ident, 1, [1]).one().error, StoreFailed)
    assert isinstance(bench.generate(ident, 1, 5).last().error, StoreFailed)
    assert bench.look(ident).step == 0
    allow_commits(bench)
    assert bench.feed(ident, 1, [1]).one().number == 1


def test_a_commit_that_fails_in_the_middle_of_a_generate_leaves_it_to_be_continued(bench: Bench) -> None:
    ident, twin = bench.open(), bench.open()
    bench.generate(twin, 1, 30).last()
    asked = bench.generate(ident, 1, 30)
    asked.wait(lambda r: len(r) >= 3)
    bench.engine.gate.clear()
    refuse_commits(bench)
    bench.engine.gate.set()
    assert isinstance(asked.last().error, StoreFailed)
    allow_commits(bench)
    again = bench.generate(ident, 1, 30)
    assert again.last().done is Reason.LENGTH
    assert isinstance(again.replies[0], Follow)
    assert np.array_equal(bench.look(ident).state, bench.look(twin).state)


def test_a_full_queue_refuses_and_takes_again_when_it_has_emptied(tmp_path: Path) -> None:
    bench = make(tmp_path, max_queue=4)
    idents = [bench.open() for _ in range(4)]
    held(bench)
    asked = [bench.feed(i, 1, [1]) for i in idents[:3]]
    with pytest.raises(Overloaded):
        bench.feed(idents[3], 1, [1])
    bench.engine.gate.set()
    assert all(isinstance(a.one(), Result) for a in asked)
    assert bench.feed(idents[3], 1, [1]).one().number == 1
    assert bench.waiting == 0
    bench.loop.stop(10)
    bench.store.close()


def test_of_jobs_queued_together_those_without_a_place_are_told_so_and_counted_once(tmp_path: Path) -> None:
    bench = make(tmp_path, max_queue=4)
    idents = [bench.open() for _ in range(5)]
    held(bench)
    first = bench.feed(idents[0], 1, [1])
    asked, one = [Asked() for _ in idents[1:]], Exact(np.array([1]))
    bench.submit([(a, StepRequest(i, "", 1, b"1", one)) for i, a in zip(idents[1:], asked, strict=True)], whole=False)
    refused = [a.replies[0] for a in asked[2:]]  # before the engine has moved
    assert [type(r.error) for r in refused] == [Overloaded, Overloaded]
    bench.engine.gate.set()
    assert all(isinstance(a.one(), Result) for a in (first, *asked[:2]))
    assert bench.statistics.turned_away == {("overloaded", "http"): 2}
    bench.loop.stop(10)
    late = Asked()
    bench.submit([(late, InferRequest(one))], whole=False)
    assert isinstance(late.replies[0].error, Stopping)
    bench.store.close()


def test_a_generate_emits_what_its_seed_says_and_the_state_has_consumed_it(bench: Bench) -> None:
    one, two = bench.open(), bench.open()
    chars = [bench.generate(i, 1, 20, seed=5) for i in (one, two)]
    texts = ["".join(r.char for r in c.replies) for c in chars if c.last()]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 20
    assert bench.look(one).state[0] == sum(ALPHABET.index(c) + 1 for c in texts[0])
    assert bench.look(one).position == 20


def test_generates_of_many_sessions_share_runs(bench: Bench) -> None:
    idents = [bench.open() for _ in range(4)]
    held(bench)
    asked = [bench.generate(i, 1, 10) for i in idents]
    bench.engine.gate.set()
    assert all(a.last().done for a in asked)
    assert [len(r) for r in bench.engine.runs] == [1] + [4] * 10


def test_a_cancel_overtakes_and_ends_the_generate(bench: Bench) -> None:
    ident = bench.open()
    asked = bench.generate(ident, 1, 100_000)
    asked.wait(lambda r: len(r) > 2)
    bench.feed(ident, 2, [1])
    bench.ask(session_id=ident, event=Cancel(1))
    done = asked.last()
    assert isinstance(done, Result)
    assert done.result.reason is Reason.CANCELLED
    assert len(done.result.text) == sum(isinstance(r, Char) for r in asked.replies)
    assert bench.feed(ident, 2, [1]).one().number == 2


def test_a_lost_connection_cuts_the_generate_and_its_number_goes_on(bench: Bench) -> None:
    ident, twin = bench.open(), bench.open()
    bench.generate(twin, 1, 200).last()
    asked = bench.generate(ident, 1, 200)
    asked.wait(lambda r: len(r) > 2)
    bench.withdraw(asked)
    so_far = bench.look(ident).unfinished
    assert so_far is not None
    follower = bench.generate(ident, 1, 200)
    assert follower.last().done is Reason.LENGTH
    assert follower.replies[0].generated.text == so_far.text
    assert np.array_equal(bench.look(ident).state, bench.look(twin).state)


def test_one_of_two_followers_may_go_without_ending_the_generate(bench: Bench) -> None:
    ident = bench.open()
    first = bench.generate(ident, 1, 300)
    first.wait(lambda r: len(r) > 2)
    second = bench.generate(ident, 1, 300)
    second.wait(lambda r: len(r) > 0)
    bench.withdraw(first)
    assert second.last().done is Reason.LENGTH


def test_a_deleted_session_is_gone_for_those_who_wait(bench: Bench) -> None:
    ident = bench.open()
    asked = bench.generate(ident, 1, 100_000)
    asked.wait(lambda r: len(r) > 2)
    waiting = bench.feed(ident, 2, [1])
    assert isinstance(bench.ask(session_id=ident, event=Delete()).one(), Deleted)
    assert isinstance(asked.last().error, Gone)
    assert isinstance(waiting.one().error, Gone)
    assert isinstance(bench.feed(ident, 1, [1]).one().error, Gone)


def test_a_session_that_is_deleted_beside_its_engine_stays_deleted(bench: Bench) -> None:
    """As it is where its version is being unloaded: the engine's last commits do not bring it back."""
    fed = held(bench)
    step = bench.feed(fed, 1, [0])
    assert bench.store.commit([Change(bench.store.load([fed])[fed], None)]) == frozenset()
    bench.engine.gate.set()
    assert isinstance(step.one().error, Gone)
    generated = bench.open()
    generating = bench.generate(generated, 1, 100_000)
    generating.wait(lambda r: len(r) > 2)
    while bench.store.commit([Change(bench.store.load([generated])[generated], None)]):
        pass  # it has emitted one more meanwhile
    assert isinstance(generating.last().error, Gone)
    assert bench.store.load([fed, generated]) == {}
    assert bench.waiting == 0


def test_strangers_and_other_models_are_refused(bench: Bench) -> None:
    ident, other = bench.open(owner="me"), bench.open(digest="of another file")
    assert isinstance(bench.feed(ident, 1, [1]).one().error, UnknownSession)
    assert isinstance(bench.feed("no such id", 1, [1]).one().error, UnknownSession)
    assert isinstance(bench.feed(other, 1, [1]).one().error, ModelGone)


def test_an_expired_session_is_gone(bench: Bench) -> None:
    ident = bench.open(expires_at=time.time() - 1)
    assert isinstance(bench.ask(session_id=ident).one().error, Gone)
    assert isinstance(bench.feed(ident, 1, [1]).one().error, Gone)


def test_a_step_that_waits_past_its_deadline_is_told(tmp_path: Path) -> None:
    bench = make(tmp_path, step_timeout=0.05)
    ident = bench.open()
    asked = bench.generate(ident, 1, 1_000_000)
    late = bench.feed(ident, 2, [1]).one()
    assert isinstance(late.error, Overloaded)
    bench.ask(session_id=ident, event=Cancel(None))
    assert asked.last().result.reason is Reason.CANCELLED
    bench.loop.stop(10)
    bench.store.close()


def test_a_step_with_less_time_than_the_one_before_it_is_told_in_its_own_time_and_what_that_was(bench: Bench) -> None:
    ident = bench.open()
    asked = bench.generate(ident, 1, 1_000_000)
    patient = bench.feed(ident, 2, [1])
    content = Exact(np.array([1]))
    hurried = bench.ask(session_id=ident, event=Feed(2, b"other", 1), content=content, patience=0.05)
    error = hurried.one().error
    assert isinstance(error, Overloaded)
    assert "longer than 0.05 s" in error.detail
    assert not patient.replies
    bench.ask(session_id=ident, event=Cancel(None))
    assert asked.last().result.reason is Reason.CANCELLED
    assert patient.one().number == 2


def test_stopping_finishes_steps_cuts_generates_and_answers_everybody(tmp_path: Path) -> None:
    bench = make(tmp_path)
    fed, generated = bench.open(), bench.open()
    generating = bench.generate(generated, 1, 1_000_000)
    generating.wait(lambda r: len(r) > 2)
    feeding = bench.feed(fed, 1, [1])
    bench.loop.stop(10)
    assert feeding.one().number == 1
    assert isinstance(generating.last().error, Stopping)
    with pytest.raises(Stopping):
        bench.feed(fed, 2, [1])
    bench.store.close()
    store = SQLiteStore(tmp_path / "s.db")
    kept = store.load([generated])[generated]
    assert kept.unfinished is not None
    assert kept.position == len(kept.unfinished.text) == sum(isinstance(r, Char) for r in generating.replies)
    store.close()


def test_a_bug_on_the_engine_thread_leaves_nobody_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ident = bench.open()

    def explode(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.loop._runner, "groups", explode)
    assert isinstance(bench.feed(ident, 1, [1]).one().error, EngineFailed)
    monkeypatch.undo()
    assert bench.feed(ident, 1, [1]).one().number == 1


def test_a_cut_generate_again_beside_the_next_step_never_runs_two_things(bench: Bench) -> None:
    ident = bench.open()
    asked = bench.generate(ident, 1, 50)
    asked.wait(lambda r: len(r) > 2)
    bench.withdraw(asked)
    position = bench.look(ident).position
    other = bench.open()
    bench.engine.gate.clear()
    bench.feed(other, 1, [0])
    feeding, again = bench.feed(ident, 2, [1]), bench.generate(ident, 1, 50)
    bench.engine.gate.set()
    assert feeding.one().position == position + 1
    assert isinstance(again.last().error, StepGap)
    session = bench.look(ident)
    assert session.state[1] == session.position


def test_a_generate_that_waits_is_cancelled_before_it_begins(bench: Bench) -> None:
    ident = held(bench, PIECE * 3)
    waiting = bench.generate(ident, 2, 50)
    bench.ask(session_id=ident, event=Cancel(2))
    bench.engine.gate.set()
    assert isinstance(waiting.last().error, Cancelled)
    assert bench.feed(ident, 2, [1]).one().position == PIECE * 3 + 1


def test_a_step_that_was_ready_too_long_is_told(tmp_path: Path) -> None:
    bench = make(tmp_path, step_timeout=0.2, max_batch=1)
    ident = held(bench)
    late = [bench.ask(content=Exact(np.array([1]))) for _ in range(3)]
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    bench.engine.gate.set()
    assert all(isinstance(a.one().error, Overloaded) for a in late)
    assert bench.look(ident).step == 1
    bench.loop.stop(10)
    bench.store.close()


def test_an_error_in_the_middle_of_a_turn_answers_each_waiter_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ident = bench.open()

    def explode(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("indrnn.service.engine.runtime.Feeding.take", explode)
    asked = [bench.feed(ident, 1, [1]), bench.ask(content=Exact(np.array([1]))), bench.ask(session_id=ident)]
    assert all(a.one() for a in asked)
    monkeypatch.undo()
    assert bench.feed(ident, 1, [2]).one().number == 1
    assert bench.waiting == 0
    assert all(len(a.replies) == 1 for a in asked)


def test_more_jobs_than_places_are_refused_together(tmp_path: Path) -> None:
    bench = make(tmp_path, max_queue=3)
    asked = [Asked() for _ in range(4)]
    with pytest.raises(Overloaded):
        bench.submit([(a, InferRequest(Exact(np.array([1])))) for a in asked])
    assert bench.waiting == 0
    assert not any(a.replies for a in asked)
    bench.loop.stop(10)
    bench.store.close()


def test_characters_are_stored_without_comparing_sessions_with_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store keeps in memory is the very object that the next character moves on from."""
    compared: list[object] = []
    monkeypatch.setattr("indrnn.service.store.sqlite._same", lambda one, other: compared.append(one) or True)
    bench = make(tmp_path)
    ident = bench.open()
    compared.clear()
    bench.generate(ident, 1, 20).last()
    assert bench.look(ident).position == 20
    assert compared == []
    bench.loop.stop(10)
    bench.store.close()


def test_what_comes_behind_a_delete_that_is_lost_to_another_process_is_answered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was refused with the delete, whose commit then did not count: it has to be offered again."""
    ident = bench.open()
    session = bench.look(ident)
    commit = bench.store.commit

    def overtaken(changes: Sequence[Change]) -> frozenset[str]:
        if any(c.id == ident for c in changes):
            monkeypatch.undo()
            commit([Change(session, session._replace(expires_at=session.expires_at + 1))])
        return commit(changes)

    held(bench)
    monkeypatch.setattr(bench.store, "commit", overtaken)
    deleted, stepped = bench.ask(session_id=ident, event=Delete()), bench.feed(ident, 1, [1])
    other = bench.ask(session_id=ident, owner="somebody else")
    bench.engine.gate.set()
    assert isinstance(deleted.one(), Deleted)
    assert isinstance(stepped.one(), Refused)
    assert isinstance(other.one().error, Gone | UnknownSession)
    assert bench.waiting == 0


def test_runs_that_nobody_asks_about_are_counted_before_they_fill_the_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indrnn.service.engine.loop.NOTED", 20)
    text = Asked()
    bench.ask(content=Exact(np.array([0])), texts=(Text(bench.ticket(text), Sampling(200, 1.0, 1.0, 1, ())),))
    text.wait(lambda r: bool(r) and r[-1].done is not None)
    statistics = bench.loop._statistics
    assert len(statistics.noted) + len(statistics.noted_runs) < 40


def test_a_row_that_fails_a_run_fails_alone(bench: Bench) -> None:
    """A file that was adopted may have a table, and a client's number be beyond it; who runs beside it is answered."""
    idents = [bench.open() for _ in range(3)]
    held(bench)
    asked = [bench.feed(ident, 1, [n]) for ident, n in zip(idents, (1, 2, 0), strict=True)]
    bench.engine.unknown = 2
    bench.engine.gate.set()
    assert [a.one().number for a in (asked[0], asked[2])] == [1, 1]
    assert isinstance(asked[1].one().error, EngineFailed)
    assert [len(run) for run in bench.engine.runs[-4:]] == [3, 1, 1, 1]
    assert bench.feed(idents[1], 1, [0]).one().number == 1, "its number is free"


def test_a_session_that_cannot_be_read_is_refused_alone(bench: Bench) -> None:
    """What waits with it goes on, also where the store has to be asked for it."""
    bad, good, other = (bench.open() for _ in range(3))
    bench.store._db.execute("UPDATE sessions SET state = x'00' WHERE id = ?", (bad,))
    bench.store._kept.drop([bad, good, other])
    held(bench)
    asked = [bench.feed(bad, 1, [1]), bench.feed(good, 1, [1]), bench.ask(session_id=bad), bench.ask(session_id=other)]
    failures = bench.statistics.store_failures
    bench.engine.gate.set()
    step, well, look, seen = (one.one() for one in asked)
    assert isinstance(step.error, StoreFailed)
    assert isinstance(look.error, StoreFailed)
    assert bad not in step.error.detail
    assert (well.number, seen.session.step) == (1, 0)
    assert bench.statistics.store_failures == failures + 1
    assert bench.feed(good, 2, [1]).one().number == 2


def test_a_neuron_too_large_for_float16_is_watched_as_the_largest() -> None:
    assert engine_requests.halves(np.array([1e6, -7e4, 65_519, 2.5], np.float32)).tolist() == [65_504, -65_504, 65_504, 2.5]


def test_a_new_session_whose_place_in_the_store_is_damaged_is_a_failure_of_the_store(bench: Bench) -> None:
    bench.store.commit = lambda changes: frozenset(c.id for c in changes)  # as where its page cannot be read
    asked = Asked()
    bench.submit([(asked, CreateRequest(""))])
    error = asked.one().error
    assert isinstance(error, StoreFailed)
    assert "could not be stored" in error.detail
    assert bench.statistics.store_failures == 1
