"""What one key may have and do."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from indrnn.service.engine.quota import RECOUNT, REFUSE, Quotas
from indrnn.service.engine.registry import Registry
from indrnn.service.errors import RateLimited, SequenceLimit, SessionLimit
from indrnn.service.serving.sessions import Sessions
from indrnn.service.serving.steps import StepRouter, Tickets
from indrnn.service.session.machine import Scores, Session, Step
from indrnn.service.store.protocol import Change
from indrnn.service.store.sqlite import SQLiteStore


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def quotas(clock: Clock, sessions: int | None = None, rate: float | None = None, stored: dict[str, int] | None = None) -> Quotas:
    return Quotas(sessions, rate, lambda owner, now: (stored or {}).get(owner, 0), clock)


def steps(q: Quotas, owner: str) -> int:
    """How many steps are taken until one is refused."""
    taken = 0
    while taken < 1000:
        try:
            q.step(owner)
        except RateLimited:
            break
        taken += 1
    return taken


def test_a_second_holds_no_more_than_the_rate_and_the_next_as_many_again() -> None:
    clock = Clock()
    q = quotas(clock, rate=5)
    assert steps(q, "ann") == 5
    clock.now += 0.4
    assert steps(q, "ann") == 2
    clock.now += 60
    assert steps(q, "ann") == 5


def test_one_key_does_not_pay_for_another() -> None:
    q = quotas(Clock(), rate=3)
    assert (steps(q, "ann"), steps(q, "bob")) == (3, 3)


def test_a_rate_below_one_still_takes_one_and_says_when_to_come_back() -> None:
    clock = Clock()
    q = quotas(clock, rate=0.1)
    q.step("ann")
    with pytest.raises(RateLimited) as caught:
        q.step("ann")
    assert caught.value.extra["retry_after"] == 10
    clock.now += 10
    q.step("ann")


def test_characters_and_clips_are_paid_before_the_next_step() -> None:
    clock = Clock()
    q = quotas(clock, rate=10)
    q.step("ann", 25)
    with pytest.raises(RateLimited) as caught:
        q.step("ann")
    assert caught.value.extra["retry_after"] == 2
    clock.now += 1.7
    q.step("ann")
    for _ in range(20):
        q.owe("ann")
    clock.now += 1
    with pytest.raises(RateLimited):
        q.step("ann")


def test_without_limits_nothing_is_counted() -> None:
    q = quotas(Clock())
    assert steps(q, "ann") == 1000


async def test_no_more_sessions_than_allowed_and_a_deleted_one_makes_room() -> None:
    q = quotas(Clock(), sessions=3, stored={"ann": 1})
    await q.new_session("ann")
    await q.new_session("ann")
    with pytest.raises(SessionLimit):
        await q.new_session("ann")
    await q.new_session("bob")
    q.session_ended("ann")
    await q.new_session("ann")


async def test_sessions_that_expired_make_room_after_a_while() -> None:
    clock, stored = Clock(), {"ann": 3}
    q = quotas(clock, sessions=3, stored=stored)
    with pytest.raises(SessionLimit):
        await q.new_session("ann")
    stored["ann"] = 0
    clock.now += RECOUNT + 1
    await q.new_session("ann")


async def test_of_many_sessions_opened_at_once_no_more_are_than_allowed() -> None:
    clock = Clock()
    q = quotas(clock, sessions=3, stored={"ann": 1})
    for _ in range(2):
        made = await asyncio.gather(*[q.new_session("ann") for _ in range(20)], return_exceptions=True)
        assert sum(m is None for m in made) == 2
        assert all(m is None or isinstance(m, SessionLimit) for m in made)
        clock.now += RECOUNT + 1  # the two are not in the store, so there is room for two again


async def test_nobody_is_refused_for_long_by_a_count_from_before_others_ended_sessions_elsewhere() -> None:
    clock, stored = Clock(), {"ann": 2}
    q = quotas(clock, sessions=3, stored=stored)
    await q.new_session("ann")
    with pytest.raises(SessionLimit):
        await q.new_session("ann")
    stored["ann"] = 0
    clock.now += REFUSE + 0.1
    for _ in range(3):
        await q.new_session("ann")
    with pytest.raises(SessionLimit):
        await q.new_session("ann")


async def test_sessions_opened_at_the_same_moment_are_counted_against_one_another() -> None:
    q = quotas(Clock(), sessions=3)
    opened = await asyncio.gather(*(q.new_session("ann") for _ in range(50)), return_exceptions=True)
    assert sum(one is None for one in opened) == 3
    assert sum(isinstance(one, SessionLimit) for one in opened) == 47


def sequence(ident: str, seconds: float, ended: bool = False) -> Session:
    last = Step(b"d", Scores(np.zeros(2, np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32)), ended)
    now = time.time()
    return Session(ident, "m", "1", "d", "oip:", np.zeros(3, np.float32), 1, 1, now, now + seconds, last)


async def test_an_id_that_was_a_sequence_is_no_way_past_the_limit(tmp_path: Path) -> None:
    """Whether it has ended or expired, and whether or not this service knows where it was."""
    store, model = SQLiteStore(tmp_path / "s.db"), SimpleNamespace(manifest=SimpleNamespace(name="m", version="1"))
    models: Any = SimpleNamespace(exactly=lambda name, version: model, by_key={("m", "1"): model})
    store.commit([Change(None, s) for s in (sequence("living", 9999), sequence("ended", 50, ended=True), sequence("expired", -1))])
    steps = StepRouter(models, Registry(store, 9999, Quotas(1, None, store.count)), Tickets())
    assert not await steps.registry.count_sequence("living", "oip:")
    for known in (False, True):
        for ident in ("ended", "expired", "new"):
            if known:
                steps.remember(ident, model, "oip:")  # type: ignore[arg-type]
            with pytest.raises(SequenceLimit):
                await steps.registry.count_sequence(ident, "oip:")
    store.close()


async def test_the_end_of_a_sequence_makes_room_once_however_often_it_is_repeated(tmp_path: Path) -> None:
    store, model = SQLiteStore(tmp_path / "s.db"), SimpleNamespace(manifest=SimpleNamespace(name="m", version="1"))
    models: Any = SimpleNamespace(exactly=lambda name, version: model, by_key={("m", "1"): model})
    store.commit([Change(None, sequence(ident, 9999)) for ident in "abc"])
    steps = StepRouter(models, Registry(store, 9999, Quotas(3, None, store.count)), Tickets())
    sessions = Sessions(steps)
    with pytest.raises(SequenceLimit):
        await steps.registry.count_sequence("d", "oip:")
    before = store.load(["a"])["a"]
    store.commit([Change(before, sequence("a", 50, ended=True))])
    steps.remember("a", model, "oip:")  # type: ignore[arg-type]
    for _ in range(3):
        sessions.sequence_ended("a", "oip:", model)  # type: ignore[arg-type]
        assert await steps.model_of("a", "oip:") is model
    assert await steps.registry.count_sequence("d", "oip:")
    with pytest.raises(SequenceLimit):
        await steps.registry.count_sequence("e", "oip:")
    store.close()


async def test_a_session_that_keeps_states_weighs_as_much_as_they_and_makes_as_much_room() -> None:
    q = quotas(Clock(), sessions=5)
    await q.new_session("ann", weight=4)
    with pytest.raises(SessionLimit, match="counts as 2"):
        await q.new_session("ann", weight=2)
    await q.new_session("ann")
    q.session_ended("ann", 4)
    await q.new_session("ann", weight=4)
    with pytest.raises(SessionLimit):
        await q.new_session("ann")
