"""How much one key may have and do: living sessions, and steps per second."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from indrnn.service.errors import RateLimited, SessionLimit
from indrnn.service.store.refreshed import Refreshed

RECOUNT = 10.0  # seconds; sessions expire, and other processes open and end some, without telling this count
REFUSE = 1.0  # seconds; nobody is refused by an older count


@dataclass(slots=True)
class Bucket:
    """A token bucket: `rate` steps a second, as many at once. It may be overdrawn by what turns out to cost more than was known."""

    rate: float
    tokens: float
    at: float

    def take(self, count: int, now: float) -> float:
        """Take a token each if there is one at all, and return 0; else the seconds until there is."""
        burst = max(1.0, self.rate)
        self.tokens = min(burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return (1 - self.tokens) / self.rate
        self.tokens -= count
        return 0.0


class Quotas:
    """The limits of every owner. None is no limit. Without keys everybody is one owner."""

    def __init__(
        self,
        max_sessions: int | None,
        steps_per_second: float | None,
        count: Callable[[str, float], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`count(owner, unix_time)` is the store's, and may block."""
        self._max_sessions = max_sessions
        self._rate = steps_per_second
        self._count = count
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}
        self._counts: dict[str, Refreshed[int]] = {}
        """living sessions of each owner, as the store has counted them, and kept up here since"""

    def step(self, owner: str, count: int = 1) -> None:
        """Charge a step, or so many clips, before it. Raises RateLimited; a refused step costs nothing."""
        if self._rate is None:
            return
        wait = self._bucket(owner).take(count, self._clock())
        if wait > 0:
            raise RateLimited(f"expected at most {self._rate:g} steps a second", retry_after=math.ceil(wait))

    @property
    def counts_steps(self) -> bool:
        """Return whether steps have a limit."""
        return self._rate is not None

    def owe(self, owner: str, count: int = 1) -> None:
        """Charge characters after they were emitted: paid before the next step."""
        if self._rate is not None:
            self._bucket(owner).tokens -= count

    def _bucket(self, owner: str) -> Bucket:
        assert self._rate is not None, "there is a limit"
        found = self._buckets.get(owner)
        if found is None:
            found = self._buckets[owner] = Bucket(self._rate, max(1.0, self._rate), self._clock())
        return found

    @property
    def counts_sessions(self) -> bool:
        """Return whether living sessions have a limit."""
        return self._max_sessions is not None

    async def new_session(self, owner: str, horizon: float = 0.0, weight: int = 1) -> None:
        """Before a session is made. Raises SessionLimit, StoreFailed. Those being stored while it counts may exceed the limit by a few.

        Those that have no more than `horizon` seconds to live do not count. One that keeps n states weighs 1 + n.
        """
        if self._max_sessions is None:
            return
        known = self._counts.get(owner)
        if known is None:
            ask = partial(self._ask, owner, horizon)
            known = self._counts[owner] = Refreshed(ask, 0, self._clock)
        if not known.is_within(RECOUNT):
            await known.take(RECOUNT)
        if known.value + weight > self._max_sessions:
            await known.take(REFUSE)
        if known.value + weight > self._max_sessions:
            kept = "" if weight == 1 else f", of which this one counts as {weight} with the states that it keeps"
            raise SessionLimit(
                f"expected at most {self._max_sessions} living sessions of one key{kept}: delete or end some", retry_after=int(RECOUNT)
            )
        known.value += weight

    def _ask(self, owner: str, horizon: float) -> int:
        return self._count(owner, time.time() + horizon)

    def session_ended(self, owner: str, weight: int = 1) -> None:
        """Take note that a session was deleted."""
        if known := self._counts.get(owner):
            known.value = max(0, known.value - weight)
