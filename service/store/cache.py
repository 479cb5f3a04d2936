"""Sessions that a store keeps in memory beside itself: those used last.

With Redis, which others write to, a session and its tag belong together for good: nothing here can be wrong, but it may be old, which the
store's own tag says. A file that nobody else may change needs no tags.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from indrnn.service.session.machine import Scores, Session

CACHED_SESSIONS = 4_096
CACHED_RESULT = 4_096  # bytes; a session with a longer stored result is read back from the store


class Known(NamedTuple):
    """A session as it was stored, and its tag."""

    session: Session
    tag: bytes


class Kept:
    """A bounded number of sessions. Any thread may ask."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, idents: Iterable[str]) -> dict[str, Known]:
        """Return what is known of some sessions; those of which nothing is known are not in it."""
        with self._lock:
            found = {i: known for i in idents if (known := self._known.get(i)) is not None}
            for i in found:
                self._known.move_to_end(i)
        return found

    def tag_of(self, session: Session) -> bytes | None:
        """Return the tag of a session that is this very object; None where another one or none is known."""
        known = self._known.get(session.id)
        return known.tag if known is not None and known.session is session else None

    def keep(self, sessions: Iterable[tuple[Session, bytes]]) -> None:
        """Keep sessions as they are stored, each with its tag; those used least lately give way.

        What is in flight is left out: it is not stored.
        """
        with self._lock:
            for session, tag in sessions:
                if session.last is not None and result_size(session) > CACHED_RESULT:
                    self._known.pop(session.id, None)
                    continue
                self._known[session.id] = Known(session.landed, tag)
                self._known.move_to_end(session.id)
            while len(self._known) > CACHED_SESSIONS:
                self._known.popitem(last=False)

    def drop(self, idents: Iterable[str]) -> None:
        """Drop the sessions that are no more."""
        with self._lock:
            for i in idents:
                self._known.pop(i, None)


def result_size(session: Session) -> int:
    """Return the size in bytes of the numbers that its last step answered."""
    result = session.last.result if session.last else None
    if isinstance(result, Scores):
        return result.logits.nbytes + result.every.nbytes + result.logprobs.nbytes
    return 0 if result is None else result.logprobs.nbytes
