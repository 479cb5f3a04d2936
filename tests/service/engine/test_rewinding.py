"""Rewinds on the engine thread, over both stores: their turn beside steps, exactly once, and what is left when a commit fails."""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis_process import LossyProxy, RedisProcess
from test_loop import Bench, FakeEngine

from indrnn.service.engine.loop import EngineSettings
from indrnn.service.errors import NotKept, Overloaded, StepConflict, StepGap, StoreFailed
from indrnn.service.session.machine import Forked, Marked, Reason, Refused, Result, Rewound
from indrnn.service.store.redis import RedisStore
from indrnn.service.store.sqlite import SQLiteStore

Make = Callable[..., Bench]


@pytest.fixture
def make(benches: list[Bench]) -> Make:
    def engine_over(store: Any, step_timeout: float = 30) -> Bench:
        benches.append(Bench(FakeEngine(), store, EngineSettings(max_batch=8, max_queue=100, step_timeout=step_timeout, session_ttl=60)))
        return benches[-1]

    return engine_over


@pytest.fixture(params=["sqlite", "redis"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, make: Make) -> Bench:
    if request.param == "sqlite":
        return make(SQLiteStore(tmp_path / "s.db"))
    return make(RedisStore(request.getfixturevalue("process").url))


@pytest.fixture
def pair(process: RedisProcess, make: Make) -> tuple[Bench, Bench]:
    return make(RedisStore(process.url)), make(RedisStore(process.url))


def walked(bench: Bench, keep: int, symbols: list[int]) -> str:
    ident = bench.open_keeping(keep)
    for n, symbol in enumerate(symbols, 1):
        assert isinstance(bench.feed(ident, n, [symbol]).one(), Result)
    return ident


def sums(bench: Bench, ident: str) -> list[float]:
    """What a session has consumed: the sum and the count."""
    return bench.look(ident).state[:2].tolist()


def test_a_rewound_session_answers_as_one_that_never_went_further(bench: Bench) -> None:
    ident, other = walked(bench, 4, [0, 1, 2]), walked(bench, 0, [0])
    reply = bench.rewind(ident, 4, 1).one()
    assert isinstance(reply, Rewound)
    assert (reply.to, reply.session.step, reply.session.position) == (1, 4, 1)
    there, here = bench.feed(other, 2, [2]).one(), bench.feed(ident, 5, [2]).one()
    assert there.result.logits.tolist() == here.result.logits.tolist()
    assert (here.number, here.position) == (5, 2)


def test_a_repeated_rewind_is_answered_alike_and_applied_once(bench: Bench) -> None:
    ident = walked(bench, 4, [0, 1, 2])
    first = bench.rewind(ident, 4, 1).one()
    assert repr(bench.rewind(ident, 4, 1).one()) == repr(first)
    assert isinstance(bench.rewind(ident, 4, 2).one().error, StepConflict)
    assert isinstance(bench.feed(ident, 4, [1]).one().error, StepConflict)
    assert isinstance(bench.feed(ident, 3, [2]).one().error, StepGap), "a late repeat of an older step is not applied"
    assert bench.feed(ident, 5, [1]).one().number == 5
    assert isinstance(bench.rewind(ident, 4, 1).one().error, StepGap)
    assert bench.statistics.happened["rewound", "http"] == 1
    assert bench.statistics.repeats["http"] == 1


def test_a_rewind_and_its_repeat_in_one_turn_are_stored_and_counted_once(bench: Bench) -> None:
    ident = walked(bench, 4, [0])
    bench.engine.gate.clear()
    asked = [bench.feed(ident, 2, [1]), bench.rewind(ident, 3, 1), bench.rewind(ident, 3, 1)]
    bench.engine.gate.set()
    _, one, other = (a.one() for a in asked)
    assert repr(one) == repr(other)
    assert (bench.statistics.happened["rewound", "http"], bench.statistics.repeats["http"]) == (1, 1)


def test_a_rewind_waits_its_turn_behind_a_step_and_before_the_next(bench: Bench) -> None:
    ident = walked(bench, 8, [0, 0])
    bench.engine.gate.clear()
    asked = [bench.feed(ident, 3, [2]), bench.rewind(ident, 4, 1), bench.feed(ident, 5, [1]), bench.rewind(ident, 6, 3)]
    bench.engine.gate.set()
    third, back, fifth, forward = (a.one() for a in asked)
    assert (third.number, back.session.step, fifth.number, forward.session.step) == (3, 4, 5, 6)
    assert (third.position, back.session.position, fifth.position, forward.session.position) == (3, 1, 2, 3)
    assert sums(bench, ident) == [5, 3]


def test_a_rewind_waits_for_a_generate_to_end(bench: Bench) -> None:
    ident = walked(bench, 8, [0])
    generating = bench.generate(ident, 2, 30)
    generating.wait(lambda r: len(r) > 2)
    back = bench.rewind(ident, None, 1)
    assert generating.last().done is Reason.LENGTH
    assert (back.one().session.step, back.one().session.position) == (3, 1)
    assert bench.rewind(ident, None, 2).one().session.position == 31


def test_of_what_is_not_kept_and_of_sessions_that_keep_nothing_the_client_is_told_and_nothing_moves(bench: Bench) -> None:
    ident, plain = walked(bench, 2, [0, 1, 2]), walked(bench, 0, [0])
    error = bench.rewind(ident, 4, 0).one().error
    assert isinstance(error, NotKept)
    assert error.extra["kept"] == [1, 2, 3]
    assert isinstance(bench.rewind(plain, 2, 1).one().error, NotKept)
    assert isinstance(bench.mark(plain, "m").one().error, NotKept)
    assert [bench.look(i).step for i in (ident, plain)] == [3, 1]
    assert bench.feed(ident, 4, [0]).one().number == 4, "the number is free"


def test_marks_outlive_what_is_kept_and_move_no_number(bench: Bench) -> None:
    ident = walked(bench, 2, [1])
    marked = bench.mark(ident, "before the question").one()
    assert isinstance(marked, Marked)
    assert marked.session.step == 1
    for n in range(2, 8):
        bench.feed(ident, n, [0]).one()
    back = bench.rewind(ident, 8, "before the question").one()
    assert (back.to, back.session.position) == (1, 1)
    assert isinstance(bench.mark(ident, "before the question", remove=True).one(), Marked)
    assert isinstance(bench.rewind(ident, 9, "before the question").one().error, NotKept)
    assert dict(bench.look(ident).history.marks) == {}


def test_a_fork_can_be_rewound_on_its_own(bench: Bench) -> None:
    ident = walked(bench, 4, [0, 1, 2])
    bench.mark(ident, "m").one()
    from indrnn.service.session.ids import new_id
    from indrnn.service.session.machine import Fork

    forked = bench.ask(session_id=ident, event=Fork(new_id(bench.store.key), 60.0)).one()
    assert isinstance(forked, Forked)
    twin = forked.session.id
    assert bench.rewind(twin, 4, 1).one().session.position == 1
    assert bench.rewind(twin, 5, "m").one().session.position == 3
    assert bench.look(ident).step == 3


def test_a_random_walk_stands_where_a_list_of_all_states_says(bench: Bench) -> None:
    rng = random.Random(3)
    ident = bench.open_keeping(6)
    states, step = {0: [0.0, 0.0]}, 0
    for _ in range(120):
        step += 1
        if rng.random() < 0.4:
            kept = bench.look(ident).history.steps
            to = rng.choice([*kept, step - 1])
            assert isinstance(bench.rewind(ident, step, to).one(), Rewound)
            states[step] = states[to]
        else:
            symbol = rng.randrange(3)
            bench.feed(ident, step, [symbol]).one()
            states[step] = [states[step - 1][0] + symbol + 1, states[step - 1][1] + 1]
        assert sums(bench, ident) == states[step]
    assert isinstance(bench.rewind(ident, step + 1, 0).one(), Refused)


def test_a_rewind_that_cannot_be_stored_moves_nothing(tmp_path: Path, make: Make) -> None:
    bench = make(SQLiteStore(tmp_path / "s.db"))
    ident = walked(bench, 4, [0, 1])
    bench.store._db.execute("CREATE TRIGGER no BEFORE INSERT ON kept BEGIN SELECT RAISE(ABORT, 'full'); END")
    assert isinstance(bench.rewind(ident, 3, 1).one().error, StoreFailed)
    bench.store._db.execute("DROP TRIGGER no")
    assert sums(bench, ident) == [3, 2]
    assert bench.look(ident).history.steps == [0, 1]
    assert bench.rewind(ident, 3, 1).one().session.position == 1


# --- two replicas on one Redis --------------------------------------------------------------------------------------------------------


def test_a_rewind_sent_to_both_at_once_is_applied_once_and_answered_alike(pair: tuple[Bench, Bench]) -> None:
    ident = walked(pair[0], 4, [1, 1, 1])
    for step in range(4, 44, 2):
        asked = [bench.rewind(ident, step, step - 2) for bench in pair]
        one, other = (a.one() for a in asked)
        assert isinstance(one, Rewound)
        assert repr(one) == repr(other)
        asked = [bench.feed(ident, step + 1, [step % 3]) for bench in pair]
        assert repr(asked[0].one()) == repr(asked[1].one())
    assert sums(pair[0], ident) == sums(pair[1], ident)


def test_a_rewind_that_another_replica_overtook_is_a_gap_and_one_without_a_number_comes_after(pair: tuple[Bench, Bench]) -> None:
    here, there = pair
    ident = walked(here, 4, [1, 1, 1])
    there.look(ident)
    assert here.feed(ident, 4, [2]).one().number == 4
    assert isinstance(there.rewind(ident, 4, 1).one().error, StepConflict)
    back = there.rewind(ident, None, 4).one()
    assert (back.session.step, back.session.position) == (5, 4)
    assert isinstance(here.feed(ident, 5, [0]).one().error, StepConflict)
    assert here.look(ident).history.steps == there.look(ident).history.steps == [1, 2, 3, 4]


def test_a_mark_at_one_is_known_at_the_other(pair: tuple[Bench, Bench]) -> None:
    here, there = pair
    ident = walked(here, 2, [1])
    there.mark(ident, "m").one()
    for n in range(2, 6):
        here.feed(ident, n, [0]).one()
    assert there.rewind(ident, 6, "m").one().to == 1
    assert sums(here, ident) == [2, 1]


def test_a_rewind_whose_commit_lost_its_answer_is_applied_once(process: RedisProcess, make: Make) -> None:
    proxy = LossyProxy(process.port)
    bench = make(RedisStore(proxy.url))
    ident = walked(bench, 4, [0, 1, 2])
    for lose in (1, 2):
        number = bench.look(ident).step + 1
        proxy.lose = lose
        told = bench.rewind(ident, number, 1).one()
        assert isinstance(told, Rewound) or isinstance(told.error, StoreFailed)
        proxy.lose = 0
        again = bench.rewind(ident, number, 1).one()
        assert isinstance(again, Rewound)
        assert (again.session.step, again.to, sums(bench, ident)) == (number, 1, [1, 1])
    bench.loop.stop(10)
    bench.store.close()
    proxy.close()


def test_a_storm_of_rewinds_and_steps_through_both_ends_where_a_single_client_would(pair: tuple[Bench, Bench]) -> None:
    ident, twin = pair[0].open_keeping(5), pair[0].open_keeping(5)
    steps, answers = 24, [dict[int, str]() for _ in range(6)]

    def ask(bench: Bench, to: str, step: int) -> Any:
        return bench.rewind(to, step, step - 3) if step % 4 == 0 else bench.feed(to, step, [step % 3])

    def client(n: int) -> None:
        rng = random.Random(n)
        for step in range(1, steps + 1):
            while step not in answers[n]:
                reply: Any = ask(pair[rng.randrange(2)], ident, step).one()
                if isinstance(reply, Result | Rewound):
                    answers[n][step] = repr(reply)
                elif isinstance(reply.error, StepGap):
                    if reply.error.extra["expected_step"] > step:
                        answers[n][step] = "too late"  # somebody is further on
                else:
                    assert isinstance(reply.error, Overloaded), reply

    threads = [threading.Thread(target=client, args=(n,)) for n in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    for step in range(1, steps + 1):
        ask(pair[1], twin, step).one()
        assert len({a[step] for a in answers} - {"too late"}) == 1
    assert sums(pair[0], ident) == sums(pair[1], twin)
