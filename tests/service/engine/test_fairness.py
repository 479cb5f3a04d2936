"""What a greedy client may cost the others: one piece of its prompt."""

import threading
from typing import Any

import numpy as np
import pytest
from test_loop import Asked, Bench

from indrnn.service.engine.requests import Exact
from indrnn.service.engine.runtime import PIECE
from indrnn.service.session.machine import Result


def lengths(bench: Bench) -> list[list[int]]:
    """Of each run, its rows' steps."""
    return [[len(r.x) for r in run] for run in bench.engine.runs]


@pytest.fixture
def bench_settings() -> dict[str, Any]:
    return {"max_batch": 64, "max_queue": 2_000}


@pytest.fixture
def begun(bench: Bench) -> threading.Event:
    """Set when the engine is asked for a run, which then waits for the gate."""
    event, run = threading.Event(), bench.engine.run

    def told(rows: list[Any]) -> list[Any]:
        event.set()
        return run(rows)

    bench.engine.run = told  # type: ignore[method-assign]
    return event


def test_a_single_step_waits_for_one_piece_of_another_sessions_long_prompts(bench: Bench, begun: threading.Event) -> None:
    greedy, other = bench.open(), bench.open()
    bench.engine.gate.clear()
    prompts = [bench.feed(greedy, n, [0] * PIECE * 20) for n in range(1, 6)]  # sent without waiting for answers
    assert begun.wait(10)
    single = bench.feed(other, 1, [1])
    bench.engine.gate.set()
    assert isinstance(single.one(), Result)
    assert [len(p.replies) for p in prompts] == [0] * 5
    for p in prompts:
        assert isinstance(p.one(), Result)
    ran = lengths(bench)
    at = next(i for i, run in enumerate(ran) if run == [1])
    assert at <= 1, "the piece that was running, and no other, came before it"


def test_a_single_step_waits_for_one_piece_of_many_sessions_long_prompts(bench: Bench) -> None:
    sessions, other = [bench.open() for _ in range(30)], bench.open()
    run, came = bench.engine.run, list[Asked]()

    def told(rows: list[Any]) -> list[Any]:
        if len(bench.engine.runs) == 20:  # all thirty are under way
            came.append(bench.feed(other, 1, [1]))
        return run(rows)

    bench.engine.run = told  # type: ignore[method-assign]
    bench.engine.gate.clear()
    prompts = [bench.feed(s, 1, [0] * PIECE * 3) for s in sessions]
    bench.engine.gate.set()
    for asked in (*prompts, *came):
        assert isinstance(asked.one(), Result)
    ran = lengths(bench)
    assert ran[21] == [1], "the piece that was running when it came, and no other, ran before it"
    assert max(map(sum, ran)) == PIECE
    assert len(ran) == 30 * 3 + 1


def test_shorter_messages_of_many_share_a_run_of_one_piece(bench: Bench) -> None:
    sessions = [bench.open() for _ in range(60)]
    bench.engine.gate.clear()
    asked = [bench.feed(s, 1, [0] * 8) for s in sessions]
    bench.engine.gate.set()
    for one in asked:
        assert isinstance(one.one(), Result)
    assert max(map(sum, lengths(bench))) == PIECE
    assert max(map(len, lengths(bench))) == PIECE // 8


def test_singles_come_first_in_a_turn_and_the_piece_after_them_is_not_put_off(bench: Bench, begun: threading.Event) -> None:
    """Sixty-four places a turn, all of which single steps would fill: the prompt still has one piece a turn."""
    long, singles = bench.open(), [bench.open() for _ in range(70)]
    bench.engine.gate.clear()
    bench.ask(content=Exact(np.zeros(1, np.int64)))
    assert begun.wait(10)
    prompt = bench.feed(long, 1, [0] * PIECE * 2)
    asked = [bench.feed(s, n, [1]) for n in (1, 2, 3) for s in singles]
    bench.engine.gate.set()
    for one in (prompt, *asked):
        assert isinstance(one.one(), Result)
    assert lengths(bench)[1:5] == [[1] * 63, [PIECE], [1] * 63, [PIECE]]


def test_a_long_prompt_is_not_put_off_for_ever_by_single_steps(bench: Bench) -> None:
    greedy = bench.open()
    others = [bench.open() for _ in range(8)]
    asked = bench.feed(greedy, 1, [0] * PIECE * 4)
    step = 0
    while not asked.replies:
        step += 1
        for reply in [bench.feed(o, step, [1]) for o in others]:
            reply.one()
        assert step < 200


def test_content_of_every_length_is_all_consumed_once(bench: Bench) -> None:
    sizes = [1, 2, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7] * 6
    asked = [bench.ask(content=Exact(np.zeros(n, np.int64))) for n in sizes]
    assert [a.one().position for a in asked] == sizes
    assert sum(map(sum, lengths(bench))) == sum(sizes)
