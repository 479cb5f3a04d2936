"""Forks, uploads and resets on the engine thread: their turn beside steps, and what is left when a commit fails."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_loop import Asked, Bench, N, held, make

from indrnn.service.engine.requests import Exact
from indrnn.service.engine.runtime import PIECE
from indrnn.service.errors import Gone, ModelGone, Overloaded, Stopping, StoreFailed, UnknownSession
from indrnn.service.session.ids import new_id
from indrnn.service.session.machine import Char, Delete, Deleted, Fork, Forked, Import, Placed, Reason, Refused, Reset, Result, Snapshot

TTL = 60.0


def fork(bench: Bench, ident: str) -> Asked:
    return bench.ask(session_id=ident, event=Fork(new_id(bench.store.key), TTL))


def upload(bench: Bench, ident: str, mark: float, step: int = 7) -> Asked:
    return bench.ask(session_id=ident, event=Import(Snapshot(np.full(N, mark, np.float32), step, 70, None), TTL))


def reset(bench: Bench, ident: str) -> Asked:
    return bench.ask(session_id=ident, event=Reset(TTL))


def test_a_fork_waits_for_the_step_in_flight_and_stands_after_it(bench: Bench) -> None:
    ident = held(bench)
    forks = [fork(bench, ident) for _ in range(2)]
    bench.engine.gate.set()
    twins = [f.one() for f in forks]
    assert all(isinstance(t, Forked) for t in twins)
    assert len({ident, *(t.session.id for t in twins)}) == 3
    stored = bench.store.load([t.session.id for t in twins])
    assert [s.step for s in stored.values()] == [1, 1]
    again = bench.feed(twins[0].session.id, 1, [0]).one()
    assert np.array_equal(again.result.logits, bench.feed(ident, 1, [0]).one().result.logits)
    assert len(bench.engine.runs) == 1


def test_what_is_asked_in_a_row_happens_in_a_row(bench: Bench) -> None:
    ident = held(bench)
    asked = [bench.feed(ident, 2, [1]), fork(bench, ident), reset(bench, ident), bench.feed(ident, 1, [2]), fork(bench, ident)]
    bench.engine.gate.set()
    second, early, back, first, late = (a.one() for a in asked)
    assert (second.number, early.session.step, back.session.step, first.number, late.session.step) == (2, 2, 0, 1, 1)
    assert (early.session.position, late.session.position) == (2, 1)
    assert np.array_equal(bench.look(late.session.id).state, bench.look(ident).state)


def test_a_reset_session_answers_as_a_new_one(bench: Bench) -> None:
    ident, other = bench.open(), bench.open()
    bench.feed(ident, 1, [2, 1]).one()
    assert isinstance(reset(bench, ident).one(), Placed)
    assert np.array_equal(bench.feed(ident, 1, [1]).one().result.logits, bench.feed(other, 1, [1]).one().result.logits)


def test_two_uploads_at_once_leave_the_later_one_whole(bench: Bench) -> None:
    ident = held(bench)
    one, two = upload(bench, ident, 1, step=5), upload(bench, ident, 2, step=9)
    bench.engine.gate.set()
    assert (one.one().session.step, two.one().session.step) == (5, 9)
    session = bench.look(ident)
    assert (session.step, session.position, set(session.state.tolist())) == (9, 70, {2.0})


def test_an_upload_behind_a_step_does_not_come_back_after_a_delete(bench: Bench) -> None:
    ident = held(bench)
    moved, deleted, late = upload(bench, ident, 1), bench.ask(session_id=ident, event=Delete()), upload(bench, ident, 2)
    bench.engine.gate.set()
    assert isinstance(moved.one(), Placed)
    assert isinstance(deleted.one(), Deleted)
    assert isinstance(late.one().error, Gone)
    assert bench.store.load([ident]) == {}


def test_a_delete_overtakes_what_waits_for_a_generate(bench: Bench) -> None:
    ident = bench.open()
    generating = bench.generate(ident, 1, 100_000)
    generating.wait(lambda r: len(r) > 2)
    waiting = [upload(bench, ident, 1), reset(bench, ident), fork(bench, ident)]
    bench.ask(session_id=ident, event=Delete()).one()
    assert all(isinstance(w.one().error, Gone) for w in waiting)
    assert isinstance(generating.last().error, Gone)
    assert bench.store.list("", time.time(), 10) == []


def test_moves_wait_for_a_generate_and_lose_none_of_it(bench: Bench) -> None:
    ident = bench.open()
    generating = bench.generate(ident, 1, 50)
    generating.wait(lambda r: len(r) > 2)
    forked, back = fork(bench, ident), reset(bench, ident)
    assert generating.last().done is Reason.LENGTH
    assert sum(isinstance(r, Char) for r in generating.replies) == 50
    assert (forked.one().session.position, back.one().session.position) == (50, 0)


@pytest.mark.parametrize("move", [upload, reset])
def test_a_failed_commit_of_a_move_moves_nothing(bench: Bench, move: Any) -> None:
    ident = bench.open()
    bench.feed(ident, 1, [1]).one()
    bench.store._db.execute("CREATE TRIGGER no BEFORE UPDATE ON sessions BEGIN SELECT RAISE(ABORT, 'full'); END")
    asked = move(bench, ident, 3) if move is upload else move(bench, ident)
    assert isinstance(asked.one().error, StoreFailed)
    bench.store._db.execute("DROP TRIGGER no")
    assert bench.look(ident).step == 1
    assert bench.feed(ident, 1, [1]).one().number == 1
    assert bench.feed(ident, 2, [1]).one().position == 2


def test_a_fork_that_cannot_be_stored_leaves_nothing_behind(bench: Bench) -> None:
    ident = bench.open()
    bench.store._db.execute("CREATE TRIGGER no BEFORE INSERT ON sessions BEGIN SELECT RAISE(ABORT, 'full'); END")
    assert isinstance(fork(bench, ident).one().error, StoreFailed)
    bench.store._db.execute("DROP TRIGGER no")
    assert [s.id for s in bench.store.list("", time.time(), 10)] == [ident]
    assert isinstance(fork(bench, ident).one(), Forked)


def test_a_fork_never_copies_an_upload_that_was_not_stored(bench: Bench) -> None:
    ident = held(bench)
    moved, forked = upload(bench, ident, 5), fork(bench, ident)
    mark = np.full(N, 5, "<f4").tobytes().hex()
    bench.store._db.execute(
        f"CREATE TRIGGER no BEFORE UPDATE ON sessions WHEN new.state = x'{mark}' BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    bench.engine.gate.set()
    assert isinstance(moved.one().error, StoreFailed)
    assert forked.one().session.step == 1


def test_moves_are_refused_where_the_queue_is_full(tmp_path: Path) -> None:
    bench = make(tmp_path, max_queue=1)
    ident = held(bench)
    for move in (fork, reset, lambda b, i: upload(b, i, 1)):
        with pytest.raises(Overloaded):
            move(bench, ident)
    bench.engine.gate.set()
    bench.loop.stop(10)
    bench.store.close()


def test_strangers_and_other_models_move_nothing(bench: Bench) -> None:
    mine, other = bench.open(owner="me"), bench.open(digest="of another file")
    for move in (fork, reset, lambda b, i: upload(b, i, 1)):
        assert isinstance(move(bench, mine).one().error, UnknownSession)
        assert isinstance(move(bench, other).one().error, ModelGone)
    assert {s.step for s in bench.store.load([mine, other]).values()} == {0}


def test_a_stranger_cannot_tell_a_deleted_session_from_one_that_never_was(bench: Bench) -> None:
    ident = new_id(bench.store.key, "me")
    bench.open(id=ident, owner="me")
    bench.ask(session_id=ident, owner="me", event=Delete()).one()
    assert isinstance(bench.ask(session_id=ident, owner="me").one().error, Gone)
    assert isinstance(bench.ask(session_id=ident, owner="you").one().error, UnknownSession)


def test_a_stranger_cannot_tell_in_the_very_turn_of_the_delete(bench: Bench) -> None:
    ident = new_id(bench.store.key, "me")
    bench.open(id=ident, owner="me")
    held(bench)
    asked = [bench.ask(session_id=ident, owner="me", event=Delete()), *(bench.ask(session_id=ident, owner=o) for o in ("me", "you"))]
    bench.engine.gate.set()
    assert isinstance(asked[0].one(), Deleted)
    assert [type(a.one().error) for a in asked[1:]] == [Gone, UnknownSession]


def test_moves_that_wait_when_the_server_stops_are_told(tmp_path: Path) -> None:
    bench = make(tmp_path)
    ident = bench.open()
    generating = bench.generate(ident, 1, 1_000_000)
    generating.wait(lambda r: len(r) > 2)
    waiting = [upload(bench, ident, 1), fork(bench, ident)]
    bench.loop.stop(10)
    for asked in waiting:
        reply = asked.one()
        assert isinstance(reply, Placed | Forked) or isinstance(reply.error, Stopping)
    bench.store.close()


def test_content_whose_client_left_is_not_run_to_its_end(bench: Bench) -> None:
    ident = held(bench)
    left, stays = (bench.ask(content=Exact(np.zeros(PIECE * n, np.int64))) for n in (50, 2))
    bench.withdraw(left)
    bench.engine.gate.set()
    assert isinstance(stays.one(), Result)
    assert isinstance(bench.feed(ident, 2, [1]).one(), Result)
    assert sum(len(r.x) for run in bench.engine.runs for r in run) == 1 + PIECE * 2 + 1
    assert left.replies == []
    assert bench.waiting == 0


def test_a_refused_fork_is_told_why(bench: Bench) -> None:
    reply = fork(bench, "no such id").one()
    assert isinstance(reply, Refused)
    assert isinstance(reply.error, UnknownSession)
