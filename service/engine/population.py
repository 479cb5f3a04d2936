"""How many sessions live, by model: asked of the store at most once in a while, since it has to look at all of them."""

import asyncio
import time
from collections.abc import Callable, Sequence

from indrnn.service.store.protocol import Population, Store


class Census:
    """The last answer, and how old it is. Everything here runs on the event loop."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._taken = float("-inf")
        self._one_at_a_time = asyncio.Lock()
        self.populations: Sequence[Population] = ()

    async def take(self, age: float) -> Sequence[Population]:
        """Return the living sessions as they were at most `age` seconds ago. Raises StoreFailed; then the last answer stands."""
        asked = self._clock()
        async with self._one_at_a_time:
            if asked - self._taken >= age:
                started = self._clock()
                self.populations = await asyncio.to_thread(self._store.census, time.time())
                self._taken = started
        return self.populations
