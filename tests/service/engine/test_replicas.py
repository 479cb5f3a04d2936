"""Two engine threads with a store handle each on one Redis, as two services would be: who moves a session, and what the other tells."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis_process import LossyProxy, RedisProcess, running_redis
from test_loop import ALPHABET, Asked, Bench, FakeEngine

from indrnn.service.engine.loop import EngineSettings
from indrnn.service.engine.runtime import PIECE
from indrnn.service.errors import Gone, Overloaded, StepConflict, StepGap, StoreFailed
from indrnn.service.session.machine import Cancel, Char, Delete, Deleted, Follow, Reason, Result
from indrnn.service.store.protocol import Change
from indrnn.service.store.redis import RedisStore

Make = Callable[..., Bench]


@pytest.fixture
def make(process: RedisProcess, benches: list[Bench]) -> Make:
    def replica(url: str = process.url, step_timeout: float = 30) -> Bench:
        engine, store = FakeEngine(), RedisStore(url)
        settings = EngineSettings(max_batch=8, max_queue=100, step_timeout=step_timeout, session_ttl=60)
        benches.append(Bench(engine, store, settings))
        return benches[-1]

    return replica


@pytest.fixture
def pair(make: Make) -> tuple[Bench, Bench]:
    return make(), make()


def text_of(asked: Asked) -> str:
    """What a client of a generate has read, in the order it came."""
    told = ""
    for reply in asked.replies:
        if isinstance(reply, Follow):
            assert told == "", "a replay after characters"
            told = reply.generated.text
        elif isinstance(reply, Char):
            told += reply.char
    return told


def test_steps_of_one_session_go_through_both_in_turn(pair: tuple[Bench, Bench]) -> None:
    ident = pair[0].open()
    for step in range(1, 21):
        asked = pair[step % 2].feed(ident, step, [step % 3]).one()
        assert (asked.number, asked.position) == (step, step)
    assert pair[0].look(ident).state.tolist() == pair[1].look(ident).state.tolist()
    assert pair[0].look(ident).state[:2].tolist() == [sum(s % 3 + 1 for s in range(1, 21)), 20]
    assert isinstance(pair[0].feed(ident, 22, [0]).one().error, StepGap)
    assert isinstance(pair[1].feed(ident, 20, [1, 1]).one().error, StepConflict)


def test_one_step_sent_to_both_at_once_is_applied_once_and_answered_alike(pair: tuple[Bench, Bench]) -> None:
    ident = pair[0].open()
    for step in range(1, 51):
        asked = [bench.feed(ident, step, [step % 3]) for bench in pair]
        one, other = (a.one() for a in asked)
        assert isinstance(one, Result)
        assert repr(one) == repr(other)
    assert pair[0].look(ident).state[1] == 50


def test_a_step_that_another_replica_overtook_is_answered_from_the_store(pair: tuple[Bench, Bench]) -> None:
    """The loser's own run counts for nothing: other content is a conflict, and an older number a gap."""
    here, there = pair
    same, unlike, older = (here.open() for _ in range(3))
    here.engine.gate.clear()
    asked = [here.feed(same, 1, [1]), here.feed(unlike, 1, [1]), here.feed(older, 1, [1])]
    while not here.loop.inbox.empty:  # they are running now
        pass
    first = there.feed(same, 1, [1]).one()
    there.feed(unlike, 1, [2]).one()
    there.feed(older, 1, [1]).one()
    there.feed(older, 2, [2]).one()
    here.engine.gate.set()
    assert repr(asked[0].one()) == repr(first)
    assert isinstance(asked[1].one().error, StepConflict)
    assert asked[2].one().error.extra["expected_step"] == 3
    assert [here.look(i).state[0] for i in (same, unlike, older)] == [2, 3, 5]


def test_a_long_step_in_flight_does_not_say_where_the_session_stood_before_others_went_on_elsewhere(pair: tuple[Bench, Bench]) -> None:
    """Its client has left and gone on at the other replica, and comes back while this one is still busy with it."""
    here, there = pair
    ident = here.open()
    here.engine.gate.clear()
    late = here.feed(ident, 1, [1] * PIECE * 3)
    while not here.loop.inbox.empty:  # its first piece runs
        pass
    there.feed(ident, 1, [1] * PIECE * 3).one()
    for n in (2, 3):
        assert there.feed(ident, n, [1]).one().number == n
    look, other, step = here.ask(session_id=ident), here.feed(ident, 1, [2]), here.feed(ident, 4, [1])
    here.engine.gate.set()
    assert look.one().session.step == 3
    assert other.one().error.extra["expected_step"] == late.one().error.extra["expected_step"] == 4
    assert step.one().number == 4
    assert here.look(ident).position == there.look(ident).position == PIECE * 3 + 3


def test_steps_without_numbers_are_counted_by_both_and_none_is_lost(pair: tuple[Bench, Bench]) -> None:
    ident = pair[0].open()
    asked = [bench.feed(ident, None, [1]) for _ in range(15) for bench in pair]
    answers = [a.one() for a in asked]
    assert [a for a in answers if not isinstance(a, Result)] == []
    assert sorted(a.number for a in answers) == list(range(1, 31))
    assert pair[0].look(ident).state[1] == 30


def test_two_that_generate_one_step_tell_the_same_and_emit_it_once(pair: tuple[Bench, Bench]) -> None:
    """The client has moved to another replica, and the first has not noticed: each character is emitted by one, and told by both."""
    here, there = pair
    ident, twin = here.open(), here.open()
    here.generate(twin, 1, 200).last()
    first = here.generate(ident, 1, 200)
    first.wait(lambda r: len(r) > 2)
    second = there.generate(ident, 1, 200)
    for asked in (first, second):
        last = asked.last()
        assert getattr(last, "done", None) is Reason.LENGTH or last.result.reason is Reason.LENGTH
        positions = [r.position for r in asked.replies if isinstance(r, Char)]
        assert positions == list(range(positions[0], positions[0] + len(positions)))
    assert text_of(first) == text_of(second)
    session = there.look(ident)
    assert session.state.tolist() == here.look(twin).state.tolist()
    assert session.last is not None
    assert session.last.result.text == text_of(first)  # type: ignore[union-attr]
    assert session.state[0] == sum(ALPHABET.index(c) + 1 for c in text_of(first))


def test_a_cancel_at_one_replica_ends_the_generate_of_the_other(pair: tuple[Bench, Bench]) -> None:
    here, there = pair
    ident = here.open()
    asked = here.generate(ident, 1, 100_000)
    asked.wait(lambda r: len(r) > 2)
    cancelled = there.ask(session_id=ident, event=Cancel(1)).one()
    assert isinstance(cancelled, Result)
    last = asked.last()
    assert isinstance(last, Result)
    assert last.result.reason is cancelled.result.reason is Reason.CANCELLED
    assert text_of(asked) == last.result.text == cancelled.result.text
    assert here.feed(ident, 2, [1]).one().number == 2


def test_a_generate_whose_session_went_on_elsewhere_ends_with_an_error_that_says_so(pair: tuple[Bench, Bench]) -> None:
    here, there = pair
    ident = here.open()
    asked = here.generate(ident, 1, 100_000)
    asked.wait(lambda r: len(r) > 2)
    sealed = there.feed(ident, 2, [1]).one()
    assert isinstance(sealed, Result)
    error = asked.last().error
    assert isinstance(error, StepGap)
    assert "the session has gone on elsewhere" in error.detail
    assert error.extra["expected_step"] == 3
    assert sealed.position == here.look(ident).position == here.look(ident).state[1]


def test_a_session_deleted_at_one_replica_is_gone_at_the_other(pair: tuple[Bench, Bench]) -> None:
    here, there = pair
    ident = here.open()
    asked = here.generate(ident, 1, 100_000)
    asked.wait(lambda r: len(r) > 2)
    waiting = here.feed(ident, 2, [1])
    assert isinstance(there.ask(session_id=ident, event=Delete()).one(), Deleted)
    assert isinstance(asked.last().error, Gone)
    assert isinstance(waiting.one().error, Gone)
    assert isinstance(here.feed(ident, 1, [1]).one().error, Gone)
    assert there.store.load([ident]) == {}


def test_a_session_that_never_holds_still_is_overloaded_and_not_waited_for_forever(make: Make) -> None:
    here = make(step_timeout=0.5)
    ident, other = here.open(), here.open()
    commit = here.store.commit

    def beaten(changes: list[Change]) -> frozenset[str]:
        lost = frozenset(c.id for c in changes if c.id == ident)
        return commit([c for c in changes if c.id != ident]) | lost

    here.store.commit = beaten  # type: ignore[method-assign]
    asked = [here.feed(ident, 1, [1]), here.feed(other, 1, [1])]
    assert isinstance(asked[0].one().error, Overloaded)
    assert asked[1].one().number == 1
    assert sum(len(rows) for rows in here.engine.runs) > 2
    here.store.commit = commit  # type: ignore[method-assign]
    assert here.feed(ident, 1, [1]).one().number == 1
    assert here.waiting == 0


def test_after_a_commit_of_unknown_outcome_a_repeat_finds_the_truth(process: RedisProcess, make: Make) -> None:
    """Both answers of a commit are lost: 503. The step was stored, so its repeat is answered and not applied."""
    proxy = LossyProxy(process.port)
    here = make(proxy.url)
    ident = here.open()
    commit = here.store.commit

    def unlucky(changes: list[Change]) -> frozenset[str]:
        proxy.lose = 2
        return commit(changes)

    here.store.commit = unlucky  # type: ignore[method-assign]
    asked, waiting = here.feed(ident, 1, [1]), here.feed(ident, 2, [2])
    error = asked.one().error
    here.store.commit = commit  # type: ignore[method-assign]
    assert isinstance(error, StoreFailed)
    assert "it is not known whether" in error.detail
    told = waiting.one()  # it waited here, and was offered to what the store has
    assert isinstance(told, Result) or isinstance(told.error, StoreFailed)
    again = here.feed(ident, 1, [1]).one()  # the answers of the second commit may have been lost too
    assert isinstance(again, Result) or again.error.extra["expected_step"] == 3
    assert here.feed(ident, 2, [2]).one().number == 2
    assert here.look(ident).state.tolist()[:2] == [5, 2]
    here.loop.stop(10)
    here.store.close()
    proxy.close()


def test_a_storm_of_repeats_through_both_ends_where_a_single_client_would(pair: tuple[Bench, Bench]) -> None:
    """Four clients per replica send the numbered steps of one session, each until it is answered."""
    ident, twin = pair[0].open(), pair[0].open()
    steps, answers = 25, [dict[int, str]() for _ in range(8)]

    def client(n: int) -> None:
        rng = np.random.default_rng(n)
        for step in range(1, steps + 1):
            while step not in answers[n]:
                reply: Any = pair[int(rng.integers(2))].feed(ident, step, [step % 3, n % 1]).one()
                if isinstance(reply, Result):
                    answers[n][step] = repr(reply)
                elif isinstance(reply.error, StepGap):
                    if reply.error.extra["expected_step"] > step:
                        answers[n][step] = "too late"  # somebody is further on
                else:
                    assert isinstance(reply.error, Overloaded), reply

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    for step in range(1, steps + 1):
        pair[1].feed(twin, step, [step % 3, 0]).one()
        assert len({a[step] for a in answers} - {"too late"}) == 1
    assert pair[0].look(ident).state.tolist() == pair[1].look(twin).state.tolist()


def test_a_dead_redis_is_told_and_what_waited_goes_on_when_it_is_back(tmp_path: Path, make: Make) -> None:
    with running_redis(tmp_path) as process:
        here, there = make(process.url), make(process.url)
        ident = here.open()
        assert here.feed(ident, 1, [1]).one().number == 1
        process.kill()
        assert isinstance(here.feed(ident, 2, [2]).one().error, StoreFailed)
        process.start()
        assert there.feed(ident, 2, [2]).one().number == 2
        assert here.feed(ident, 3, [0]).one().number == 3
        assert here.look(ident).state[:2].tolist() == [2 + 3 + 1, 3]
        for bench in (here, there):
            bench.loop.stop(10)


def test_a_generate_without_a_number_that_another_replica_has_sealed_is_not_begun_a_second_time(pair: tuple[Bench, Bench]) -> None:
    """Its characters are in the session's past: who asked hears that, and not the text of a step that nobody wanted."""
    here, there = pair
    ident = here.open()
    asked = here.generate(ident, None, 1_000_000)
    asked.wait(lambda r: len(r) > 3)
    here.engine.gate.clear()
    sealed = there.look(ident).step
    there.feed(ident, sealed + 1, [1]).one()
    here.engine.gate.set()
    assert isinstance(asked.last().error, StepGap)
    assert there.look(ident).step == sealed + 1
