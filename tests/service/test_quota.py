"""What one key may have and do."""

import asyncio

import pytest

from service.errors import RateLimited, SessionLimit
from service.quota import RECOUNT, REFUSE, Quotas


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
