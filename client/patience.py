"""How long a call may take, and how long to wait before it is tried again."""

from collections.abc import Callable
from random import Random

from indrnn.client.errors import DeadlineExceeded

FIRST_PAUSE = 0.05  # seconds; a server that restarts is back after about 700 ms
LONGEST_PAUSE = 2.0
GROWTH = 2.0


class Patience:
    """`seconds` until the deadline. Pauses grow from the first to the longest, each shortened by chance, so that clients do not come back
    all at once."""

    def __init__(self, seconds: float, clock: Callable[[], float], random: Random) -> None:
        self._seconds = seconds
        self._clock = clock
        self._random = random
        self._tries = 0
        self._cause: Exception | None = None
        self._deadline = clock() + seconds

    def left(self) -> float:
        """Seconds to the deadline. Raises DeadlineExceeded from what the last pause was for."""
        left = self._deadline - self._clock()
        if left <= 0:
            why = f": {self._cause}" if self._cause else ""
            raise DeadlineExceeded(f"no answer within {self._seconds:g} s{why}", "deadline") from self._cause
        return left

    def pause(self, cause: Exception, at_least: float = 0.0) -> float:
        """Seconds to wait before the next try, at most to the deadline. Raises DeadlineExceeded once that has passed."""
        longest = min(FIRST_PAUSE * GROWTH ** min(self._tries, 30), LONGEST_PAUSE)
        self._tries += 1
        pause = max(at_least, longest * self._random.uniform(0.5, 1))
        self._cause = cause
        return min(pause, self.left())

    def renew(self) -> None:
        """Something has come: the deadline and the pauses begin anew."""
        self._tries, self._cause = 0, None
        self._deadline = self._clock() + self._seconds
