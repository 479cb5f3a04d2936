"""The commit thread: what runs while it stores, what waits for it, and what comes of a commit that fails, hangs or is lost."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_loop import Asked, Bench, make

from indrnn.service.engine.commit import CommitThread
from indrnn.service.engine.loop import LONGEST_TURN
from indrnn.service.engine.requests import DeleteRequest, Exact, LookRequest, StepRequest
from indrnn.service.engine.short import Batch, Plain
from indrnn.service.errors import EngineFailed, Stopping, StoreFailed, UnknownSession
from indrnn.service.serving.backend import commits_aside
from indrnn.service.session.machine import Deleted, Refused
from indrnn.service.store.protocol import Change


class Held:
    """A bench whose commits wait at a gate, and are noted; `error` is raised in place of one."""

    def __init__(self, folder: Path) -> None:
        self.bench: Bench = make(folder, short=True, commit_thread=True)
        self.gate = threading.Event()
        self.gate.set()
        self.commits: list[list[str]] = []
        self.error: Exception | None = None
        self._commit = self.bench.store.commit
        self.bench.store.commit = self.commit

    def commit(self, changes: Sequence[Change]) -> frozenset[str]:
        assert self.gate.wait(20), "a test forgot to open the gate"
        if self.error is not None:
            raise self.error
        self.commits.append([c.id for c in changes])
        return self._commit(changes)  # type: ignore[no-any-return]

    def open(self, count: int) -> list[str]:
        return [self.bench.open() for _ in range(count)]

    def step(self, ident: str, number: int | None, symbol: int = 1) -> Asked:
        return self.bench.feed(ident, number, [symbol])

    def until(self, runs: int) -> None:
        """Returns when so many batches have run."""
        end = time.monotonic() + 20
        while len(self.bench.engine.runs) < runs:
            assert time.monotonic() < end, "the engine thread waits for the commit"
            time.sleep(0.001)

    def until_committing(self) -> None:
        """Returns when a commit is at the gate."""
        commits, end = self.bench.loop._commits, time.monotonic() + 20
        assert commits is not None
        while not commits._committing:
            assert time.monotonic() < end, "nothing is committed"
            time.sleep(0.001)

    def until_waiting(self, count: int) -> None:
        """Returns when so many requests wait for busy sessions."""
        commits, end = self.bench.loop._commits, time.monotonic() + 20
        assert commits is not None
        while len(commits.held) != count:
            assert time.monotonic() < end, f"{len(commits.held)} wait"
            time.sleep(0.001)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    made = Held(tmp_path)
    yield made
    made.gate.set()
    made.bench.engine.gate.set()
    made.bench.loop.stop(10)
    made.bench.store.close()


def test_others_run_while_a_batch_is_stored_and_nobody_is_answered_before_that(held: Held) -> None:
    one, other, third = held.open(3)
    held.gate.clear()
    asked = [held.step(one, 1)]
    held.until_committing()
    asked.append(held.step(other, 1))
    held.until(2)
    asked.append(held.step(third, 1))
    held.until(3)
    assert all(not a.replies for a in asked)
    del held.commits[:]
    held.gate.set()
    assert [a.one().number for a in asked] == [1, 1, 1]
    assert held.commits == [[one], [other, third]], "what waits is stored together"


def test_what_is_asked_of_a_busy_session_waits_in_its_order(held: Held) -> None:
    ident, other = held.open(2)
    held.gate.clear()
    first = held.step(ident, 1)
    held.until(1)
    look, second, again, end = Asked(), Asked(), Asked(), Asked()
    step = StepRequest(ident, "", 2, b"2" * 16, Exact(np.array([2])))
    asked = [LookRequest(ident, ""), step, step]
    held.bench.submit(list(zip([look, second, again], asked, strict=True)), whole=False)
    held.bench.submit([(end, DeleteRequest(ident, ""))])
    assert held.bench.look(other).step == 0
    held.until_waiting(4)
    held.gate.set()
    assert first.one().number == 1
    assert look.one().session.step == 1
    assert second.one().number == again.one().number == 2
    assert isinstance(end.one(), Deleted)
    assert len(held.bench.engine.runs) == 2, "a repeat runs nothing"


def test_a_commit_that_fails_moves_nothing_and_what_waits_goes_on_from_where_the_store_is(held: Held) -> None:
    ident, other = held.open(2)
    held.gate.clear()
    held.error = StoreFailed("it is full")
    asked = [held.step(i, 1) for i in (ident, other)]
    held.until(1)
    behind = held.step(ident, 2)
    held.until_waiting(1)
    held.gate.set()
    assert [type(a.one().error) for a in asked] == [StoreFailed, StoreFailed]
    assert "expected step 1" in behind.one().error.detail or behind.one().error.extra == {"expected_step": 1}
    held.error = None
    assert held.bench.statistics.store_failures == 1
    assert [held.step(i, 1, 2).one().number for i in (ident, other)] == [1, 1]
    assert held.bench.look(ident).state[0] == 3


def test_an_answer_without_memory_does_not_say_that_nothing_has_moved(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    (ident,) = held.open(1)
    commits = held.bench.loop._commits
    assert commits is not None
    store = commits._commit.store

    def forget(batch: Any) -> Any:
        store(Batch(batch.steps, batch.changes, []))
        raise MemoryError

    monkeypatch.setattr(commits._commit, "store", forget)
    error = held.step(ident, 1).one().error
    assert (type(error), error.extra) == (StoreFailed, {"retry_after": 1})
    assert held.bench.look(ident).step == 1


def test_a_commit_with_a_bug_answers_everybody_and_the_thread_goes_on(held: Held) -> None:
    (ident,) = held.open(1)
    held.error = ZeroDivisionError("a bug")
    assert isinstance(held.step(ident, 1).one().error, EngineFailed)
    held.error = None
    assert held.step(ident, 1).one().number == 1


def test_what_waits_behind_a_step_that_others_were_faster_with_comes_after_it(held: Held) -> None:
    (ident,) = held.open(1)
    held.gate.clear()
    own = held.step(ident, None)
    held.until(1)
    behind = held.step(ident, 2, 2)
    held.until_waiting(1)
    stored = held.bench.store.load([ident])[ident]
    moved = stored._replace(step=1, position=9)
    held._commit([Change(stored, moved)])
    held.gate.set()
    assert (own.one().number, own.one().position) == (2, 10)
    assert isinstance(behind.one(), Refused), "that number is the other step's"
    assert len(held.bench.engine.runs) == 2, "it has not run before the other's turn"
    assert held.bench.look(ident).position == 10


def test_a_step_that_waits_for_a_busy_session_may_be_taken_back(held: Held) -> None:
    (ident,) = held.open(1)
    held.gate.clear()
    first = held.step(ident, 1)
    held.until(1)
    behind = held.step(ident, 2)
    held.until_waiting(1)
    held.bench.withdraw(behind)
    held.until_waiting(0)
    held.gate.set()
    assert first.one().number == 1
    assert held.bench.look(ident).step == 1
    assert not behind.replies


def test_the_engine_waits_where_the_store_falls_behind(held: Held) -> None:
    idents = held.open(30)
    held.gate.clear()
    asked = [held.step(i, 1) for i in idents]
    commits = held.bench.loop._commits
    assert commits is not None
    end = time.monotonic() + 20
    while commits._rows < 8:  # max_batch of the bench
        assert time.monotonic() < end
        time.sleep(0.001)
    time.sleep(0.02)
    assert sum(map(len, held.bench.engine.runs)) < 30
    held.gate.set()
    assert [a.one().number for a in asked] == [1] * 30


def test_what_is_handed_over_is_stored_before_the_end(held: Held) -> None:
    idents = held.open(3)
    held.gate.clear()
    asked = [held.step(i, 1) for i in idents]
    held.until(1)
    held.bench.loop.drain()
    with pytest.raises(Stopping):
        held.step(idents[0], 2)
    held.gate.set()
    held.bench.loop.stop(10)
    assert not held.bench.loop.alive
    assert [a.one().number for a in asked] == [1, 1, 1]
    assert {held.bench.store.load([i])[i].step for i in idents} == {1}


def test_an_end_does_not_wait_for_a_commit_that_hangs(held: Held) -> None:
    (ident,) = held.open(1)
    held.gate.clear()
    asked = held.step(ident, 1)
    held.until(1)
    behind = held.step(ident, 2)
    held.until_waiting(1)
    held.bench.loop.drain(seconds=0.05)
    held.bench.loop.stop(10)
    assert not held.bench.loop.alive
    assert [type(a.one().error) for a in (asked, behind)] == [StoreFailed, Stopping], "the first is stored when the store goes on"
    held.gate.set()


def test_an_end_does_not_wait_for_room_behind_a_commit_that_hangs(held: Held) -> None:
    idents = held.open(30)
    held.gate.clear()
    asked = [held.step(i, 1) for i in idents]
    commits, end = held.bench.loop._commits, time.monotonic() + 20
    assert commits is not None
    while commits._rows < 8 or held.bench.loop.inbox.empty is False:  # max_batch of the bench
        assert time.monotonic() < end
        time.sleep(0.001)
    held.bench.loop.drain(seconds=0.05)
    held.bench.loop.stop(10)
    assert not held.bench.loop.alive
    told = [type(a.one().error) for a in asked]
    assert set(told) == {Stopping, StoreFailed}
    held.gate.set()
    while not commits.quiet:
        assert time.monotonic() < end
        time.sleep(0.001)
    stored = held.bench.store.load(idents)
    assert [stored[i].step for i in idents] == [1 if kind is StoreFailed else 0 for kind in told]


def test_an_engine_that_fails_while_a_commit_hangs_ends_in_time(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    ident, other = held.open(2)
    held.gate.clear()
    asked = held.step(ident, 1)
    held.until_committing()

    def fail(*handed: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(held.bench.loop, "_turn", fail)
    behind = held.step(other, 1)
    held.bench.loop.drain(seconds=0.05)
    held.bench.loop.stop(10)
    assert not held.bench.loop.alive
    assert [type(a.one().error) for a in (asked, behind)] == [StoreFailed, EngineFailed]
    held.gate.set()


def test_what_comes_for_a_session_whose_batch_is_just_done_has_another_turn_taken() -> None:
    class ByHand(CommitThread[Any]):
        def _main(self) -> None:
            return

    woken: list[int] = []
    commits = ByHand(SimpleNamespace(store=lambda batch: []), 8, lambda: woken.append(1), "by hand")  # type: ignore[arg-type]
    commits.store(Batch([Plain(None, None, SimpleNamespace(id="one"), None)], [], []))  # type: ignore[arg-type]
    batch = commits._take()
    assert batch is not None
    commits._store(batch)
    assert not woken, "nobody waits"
    q = SimpleNamespace(request=SimpleNamespace(session_id="one"))
    assert commits.hold([q]) == []
    assert woken == [1]
    assert commits.release() == ([], [q])
    assert commits.hold([q]) == [q]


def test_an_engine_whose_commit_stands_still_is_not_lively_though_it_takes_turns(held: Held) -> None:
    ident, other = held.open(2)
    held.gate.clear()
    asked = held.step(ident, 1)
    held.until_committing()
    commits = held.bench.loop._commits
    assert commits is not None
    assert held.bench.loop.lively
    commits.begun -= LONGEST_TURN
    held.bench.look(other)
    assert not held.bench.loop.lively
    held.gate.set()
    assert asked.one().number == 1
    held.step(other, 1).one()
    assert held.bench.loop.lively


def test_a_session_of_nobody_is_still_told_so_while_another_is_busy(held: Held) -> None:
    (ident,) = held.open(1)
    held.gate.clear()
    held.step(ident, 1)
    held.until(1)
    assert isinstance(held.step("nobody's", 1).one().error, UnknownSession)


@pytest.mark.parametrize(
    ("wanted", "fronts", "cores", "aside"),
    [("auto", True, 2, False), ("auto", True, 3, True), ("auto", False, 8, False), (True, False, 1, True), (False, True, 8, False)],
)
def test_commits_have_a_thread_where_a_core_is_left_for_it(wanted: Any, fronts: bool, cores: int, aside: bool) -> None:
    assert commits_aside(wanted, fronts, cores) is aside


def test_steps_that_are_sent_ahead_are_all_answered_in_order(tmp_path: Path) -> None:
    bench = make(tmp_path, short=True, commit_thread=True, max_queue=1_000)
    idents = [bench.open() for _ in range(8)]
    asked = {i: [bench.feed(i, n, [n % 3]) for n in range(1, 41)] for i in idents}
    said = {i: [one.one().number for one in asked[i]] for i in idents}
    assert said == {key: list(range(1, 41)) for key in idents}
    assert {bench.look(i).state[0] for i in idents} == {sum(n % 3 + 1 for n in range(1, 41))}
    assert bench.statistics.happened["step", "http"] == 8 * 40
    bench.loop.stop(10)
    bench.store.close()


def test_a_step_is_counted_under_the_lock_before_it_is_answered(held: Held) -> None:
    (ident,) = held.open(1)
    with held.bench.loop._statistics.lock:
        asked, end = held.step(ident, 1), time.monotonic() + 20
        while held.commits.count([ident]) < 2:  # it was made before
            assert time.monotonic() < end
            time.sleep(0.001)
        time.sleep(0.02)
        assert not asked.replies
    assert asked.one().number == 1
    assert held.bench.statistics.happened["step", "http"] == 1
