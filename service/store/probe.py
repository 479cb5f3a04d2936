"""Whether the store takes commits, asked of the store itself and not of the last request, so that it is noticed when it does again."""

import asyncio
import time
from collections.abc import Callable

from indrnn.service.errors import ServiceError, StoreFailed
from indrnn.service.store.protocol import Store

FRESH = 1.0  # seconds an answer counts for everybody who asks: each costs the store a durable write


class StoreProbe:
    """Asks the store, at most once in FRESH seconds."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._asked = -FRESH
        self._said: ServiceError | None = None
        self._one_at_a_time = asyncio.Lock()

    async def need_store(self) -> None:
        """Raises StoreFailed while commits would fail."""
        async with self._one_at_a_time:
            if self._clock() - self._asked >= FRESH:
                try:
                    await asyncio.to_thread(self._store.check)
                    self._said = None
                except ServiceError as error:
                    self._said = error
                self._asked = self._clock()
        if self._said is not None:
            raise StoreFailed(self._said.detail)
