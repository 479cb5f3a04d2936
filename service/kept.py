"""Sessions that a store keeps in memory beside itself: those used last.

With Redis, which others write to, a session and its tag belong together for good: nothing here can be wrong, but it may be old, which the
store's own tag says. A file that nobody else may change needs no tags.
"""

import threading
from collections import OrderedDict
from typing import NamedTuple

from service.session import Scores, Session

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

    def get(self, ident: str) -> Known | None:
        """What is known of a session."""
        with self._lock:
            known = self._known.get(ident)
            if known is not None:
                self._known.move_to_end(ident)
            return known

    def keep(self, session: Session, tag: bytes = b"") -> None:
        """A session as it is stored; the one that was used least lately gives way. What is in flight is left out: it is not stored."""
        with self._lock:
            if session.last is not None and result_size(session) > CACHED_RESULT:
                self._known.pop(session.id, None)
                return
            self._known[session.id] = Known(session.landed, tag)
            self._known.move_to_end(session.id)
            if len(self._known) > CACHED_SESSIONS:
                self._known.popitem(last=False)

    def drop(self, ident: str) -> None:
        """A session that is no more."""
        with self._lock:
            self._known.pop(ident, None)


def result_size(session: Session) -> int:
    """Bytes of the numbers that its last step answered."""
    result = session.last.result if session.last else None
    if isinstance(result, Scores):
        return result.logits.nbytes + result.every.nbytes + result.logprobs.nbytes
    return 0 if result is None else result.logprobs.nbytes
