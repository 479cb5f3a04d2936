"""A value that a store is asked for at most once in a while, and once for all who wait for it: counts, sums, whether commits succeed."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from indrnn.service.errors import ServiceError, StoreFailed
from indrnn.service.store.protocol import Population, Store

T = TypeVar("T")

FRESH = 1.0  # seconds that the probe's answer counts for everybody who asks: each costs the store a durable write


class Refreshed(Generic[T]):
    """The last answer, and how old it is. Everything here runs on the event loop; `ask` may block, and does so on another thread."""

    def __init__(self, ask: Callable[[], T], value: T, clock: Callable[[], float] = time.monotonic) -> None:
        """value: what stands before the first answer."""
        self.value = value
        self._ask = ask
        self._clock = clock
        self._taken = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    def is_within(self, age: float) -> bool:
        """Return whether the answer is younger than that."""
        return self._clock() - self._taken < age

    async def take(self, age: float) -> T:
        """Return the answer as it was at most `age` seconds before this call. Raises what `ask` does; then the last answer stands."""
        called = self._clock()
        async with self._one_at_a_time:
            if called - self._taken >= age:
                started = self._clock()
                self.value = await asyncio.to_thread(self._ask)
                self._taken = started
        return self.value


def census_of(store: Store, clock: Callable[[], float] = time.monotonic) -> Refreshed[Sequence[Population]]:
    """Return the count of living sessions by model: the store has to look at all of them. Raises StoreFailed when taken."""
    return Refreshed(lambda: store.census(time.time()), (), clock)


class StoreProbe:
    """Whether the store takes commits, asked of the store itself and not of the last request, so that it is noticed when it does again."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._said = Refreshed(self._ask, None, clock)

    def _ask(self) -> ServiceError | None:
        try:
            self._store.check()
        except ServiceError as error:
            return error
        return None

    async def need_store(self) -> None:
        """Raises StoreFailed while commits would fail."""
        if error := await self._said.take(FRESH):
            raise StoreFailed(error.detail)
