"""Readiness as the store gives it."""

import asyncio

import pytest

from indrnn.service.errors import StoreFailed
from indrnn.service.store.refreshed import FRESH, StoreProbe


class FakeStore:
    """Counts how often it is asked; fails on demand."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False

    def check(self) -> None:
        self.asked += 1
        if self.broken:
            raise StoreFailed("broken on purpose")


async def test_the_store_is_asked_once_a_second_whoever_asks_and_notices_both_ways() -> None:
    store, now = FakeStore(), 0.0
    probe = StoreProbe(store, lambda: now)  # type: ignore[arg-type]
    await asyncio.gather(*(probe.need_store() for _ in range(10)))
    assert store.asked == 1
    store.broken = True
    await probe.need_store()  # still the old answer
    now = FRESH
    for _ in range(3):
        with pytest.raises(StoreFailed, match="broken on purpose"):
            await probe.need_store()
    assert store.asked == 2
    store.broken = False
    now = 2 * FRESH
    await probe.need_store()
    assert store.asked == 3
