"""The short way of plain steps says and stores what the general way does; whatever is not plain goes the general way."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_loop import Bench, make

from indrnn.service.engine.requests import Exact, StepRequest
from indrnn.service.errors import Late, StoreFailed
from indrnn.service.session.machine import KEPT, Refused, Result, Session

Script = Callable[[Bench], list[Any]]


def step(ident: str, number: int | None, symbols: list[int], **changes: Any) -> StepRequest:
    digest = bytes([*symbols, number or 0]).ljust(16)[:16]
    return StepRequest(ident, changes.pop("owner", ""), number, digest, Exact(np.array(symbols)), **changes)


def ask(bench: Bench, *requests: StepRequest) -> list[Any]:
    """The answers to requests that came together."""
    from test_loop import Asked

    asked = [Asked() for _ in requests]
    bench.submit(list(zip(asked, requests, strict=True)), whole=False)
    return [one.one() for one in asked]


def told(reply: Any) -> Any:
    """What a reply says, but for ids and times."""
    if isinstance(reply, Refused):
        return type(reply.error), reply.error.detail.split(" ")[:3], reply.error.extra
    assert isinstance(reply, Result)
    scores = reply.result
    state = None if reply.state is None else reply.state.tolist()
    return reply.number, reply.position, scores.logits.tolist(), scores.every.shape, scores.logprobs.round(5).tolist(), scores.doubts, state


def stored(session: Session) -> Any:
    """A session as the store has it, but for its id and times."""
    last = session.last and (session.last.digest, session.last.end, session.last.result.logits.tolist())  # type: ignore[union-attr]
    return session.step, session.position, session.state.tolist(), last, session.carry, session.keep, session.owner


def several(bench: Bench) -> list[Any]:
    idents = [bench.open() for _ in range(20)]
    return [told(r) for n in (1, 2, None) for r in ask(bench, *[step(i, n, [1] * (1 + j % 3)) for j, i in enumerate(idents)])]


def one_after_another(bench: Bench) -> list[Any]:
    ident = bench.open()
    together = [
        step(ident, 1, [1]),
        step(ident, 2, [2, 0]),
        step(ident, 1, [1]),
        step(ident, None, [0]),
        step(ident, 3, [1]),
        step(ident, 9, [1]),
    ]
    return [told(r) for r in ask(bench, *together)]


def not_plain(bench: Bench) -> list[Any]:
    ident, keeping = bench.open(), bench.open_keeping(2)
    asked = [
        *(step(ident, 1, [1]), step(ident, 1, [2]), step(ident, 5, [1]), step(ident, 2, [1, 2], every=True), step(ident, 3, [1] * 40)),
        *(step(ident, 4, [1], watch=True), step(ident, 1, [1], owner="other"), step("nobody's", 1, [1]), step(keeping, 1, [1])),
        *(step("sequence", 1, [1], begin=True), step("sequence", 2, [2]), step("sequence", 3, [2], end=True), step("sequence", 4, [2])),
    ]
    found = [told(r) for one in asked for r in ask(bench, one)]
    return [*found, *(stored(bench.look(i)) for i in (ident, keeping))]


def around_a_generate(bench: Bench) -> list[Any]:
    ident = bench.open()
    first = ask(bench, step(ident, 1, [1]))
    bench.generate(ident, 2, 3).last()
    return [told(r) for r in [*first, *ask(bench, step(ident, 3, [1])), *ask(bench, step(ident, 3, [1]))]]


def not_finite(bench: Bench) -> list[Any]:
    ident = bench.open()
    bench.engine.poison = True
    found = ask(bench, step(ident, 1, [1]))
    bench.engine.poison = False
    return [told(r) for r in [*found, *ask(bench, step(ident, 1, [2]))]]


def one_row_at_fault(bench: Bench) -> list[Any]:
    idents = [bench.open() for _ in range(4)]
    bench.engine.unknown = 2
    return [told(r) for r in ask(bench, *[step(i, 1, [n]) for n, i in enumerate(idents[:3])])]


def a_store_that_fails(bench: Bench) -> list[Any]:
    ident = bench.open()
    commit, bench.store.commit = bench.store.commit, lambda changes: (_ for _ in ()).throw(StoreFailed("it is full"))
    found = ask(bench, step(ident, 1, [1]))
    bench.store.commit = commit
    return [told(r) for r in [*found, *ask(bench, step(ident, 1, [2]))]] + [stored(bench.look(ident)), bench.statistics.store_failures]


def sequences(bench: Bench) -> list[Any]:
    idents = [f"sequence {i}" for i in range(6)]
    first = [step(i, number, [1], begin=True) for i, number in zip(idents, (1, None, 1, 1, 2, None), strict=True)]
    again = [step(idents[0], 1, [1], begin=True), step(idents[2], 1, [2], begin=True), step(idents[1], None, [1], begin=True)]
    last = [step(i, None, [0], end=True) for i in idents]
    anew = [step(idents[0], 1, [1], begin=True), step(idents[1], 3, [2]), step(idents[3], None, [1] * 40, begin=True, end=True)]
    other = [step(idents[0], 1, [1], begin=True, owner="other"), step(idents[5], 1, [2], begin=True, end=True)]
    found = [told(r) for asked in (first, again, last, last, anew, other) for r in ask(bench, *asked)]
    return [*found, *(stored(bench.store.load([i])[i]) for i in idents if i in bench.store.load([i]))]


SCRIPTS = (several, one_after_another, not_plain, sequences, around_a_generate, not_finite, one_row_at_fault, a_store_that_fails)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_both_ways_say_and_store_the_same(tmp_path: Path, script: Script) -> None:
    found = []
    for way in ({}, {"short": True}, {"short": True, "commit_thread": True}):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        bench = make(folder, **way)
        found.append((script(bench), counted(bench)))
        bench.loop.stop(10)
        bench.store.close()
    assert found[0] == found[1] == found[2]


def counted(bench: Bench) -> Any:
    s = bench.statistics
    return dict(s.happened), dict(s.repeats), dict(s.refused), dict(s.failed), s.success.count, s.queue.count, s.store_failures


@pytest.mark.parametrize("commit_thread", [False, True])
def test_plain_steps_are_in_nobodys_hands(tmp_path: Path, commit_thread: bool) -> None:
    bench = make(tmp_path, short=True, commit_thread=commit_thread)
    idents = [bench.open() for _ in range(8)]
    taken = bench.loop._desk.take_in
    seen: list[Any] = []
    bench.loop._desk.take_in = lambda queued, now: (seen.extend(queued), taken(queued, now))[1]  # type: ignore[method-assign,func-returns-value]
    assert [r.number for r in ask(bench, *[step(i, 1, [1]) for i in idents])] == [1] * 8
    assert seen == []
    assert bench.statistics.batch_sizes[8] == 1
    ask(bench, *[step(f"sequence {i}", 1, [1], begin=True, end=i == 3) for i in range(8)])
    assert seen == [], "where a sequence begins or ends it is a plain step all the same"
    last = bench.store.load(["sequence 3"])["sequence 3"]
    assert (last.step, last.ended) == (1, True)
    assert last.expires_at - last.created_at < KEPT + 5
    ask(bench, step(idents[0], 1, [1]))
    assert len(seen) == 1, "a repeat is for the state machine"
    bench.loop.stop(10)
    bench.store.close()


@pytest.mark.parametrize("way", [{}, {"short": True}, {"short": True, "commit_thread": True}], ids=["general", "short", "commits apart"])
def test_who_has_waited_too_long_by_the_time_of_a_later_run_is_told_so(tmp_path: Path, way: dict[str, Any]) -> None:
    bench = make(tmp_path, max_batch=2, **way)
    idents = [bench.open() for _ in range(6)]
    run, ran = bench.engine.run, []

    def slow(rows: list[Any]) -> Any:
        ran.append(len(rows))
        time.sleep(1.1)
        return run(rows)

    bench.engine.run = slow  # type: ignore[method-assign]
    replies = ask(bench, *[step(i, 1, [1], patience=1.0) for i in idents])
    assert [type(r) for r in replies] == [Result] * 2 + [Refused] * 4
    assert {type(r.error) for r in replies[2:]} == {Late}
    assert ran == [2]
    assert [bench.look(i).step for i in idents] == [1, 1, 0, 0, 0, 0]
    bench.loop.stop(10)
    bench.store.close()


@pytest.mark.parametrize("commit_thread", [False, True])
def test_a_session_that_another_process_has_moved_is_read_again(tmp_path: Path, commit_thread: bool) -> None:
    bench = make(tmp_path, short=True, commit_thread=commit_thread)
    ident = bench.open()
    load = bench.store.load
    before = load([ident])
    ask(bench, step(ident, 1, [1]))
    bench.store.load = lambda ids: (setattr(bench.store, "load", load), before)[1]  # as it was, once
    (reply,) = ask(bench, step(ident, None, [2]))
    assert (reply.number, reply.position) == (2, 2)
    assert bench.look(ident).state[0] == 5
    bench.loop.stop(10)
    bench.store.close()
