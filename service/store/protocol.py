"""Where sessions live: what every store does.

A session that `commit` does not name is durable when it returns. Of a commit that raises nobody knows whether it has happened: what is
in memory is then worth nothing, and the truth has to be loaded. Numbered steps make that safe, since a repeat of one that was stored is
answered and not applied.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from indrnn.service.session.machine import Session

Durability = Literal["strict", "relaxed"]


class StoreError(Exception):
    """The store cannot be opened; the message names it and says why."""


class Change(NamedTuple):
    """One session before and after; `before` None creates it, `after` None removes it.

    `lost` is how often in a row it was refused because somebody else had moved the session: a store may then let it go first.
    """

    before: Session | None
    after: Session | None
    lost: int = 0

    @property
    def id(self) -> str:
        """Return the session's id; both sides have the same."""
        session = self.after or self.before
        assert session is not None, "a change has a side"
        return session.id


class Population(NamedTuple):
    """Living sessions of one model version with one graph, and the bytes of their states."""

    model: str
    version: str
    digest: str
    sessions: int
    state_bytes: int


class Store(Protocol):
    """The methods that the service asks of a store. Every method may block, and may be called from any thread."""

    key: bytes
    """signs session ids; made once and kept in the store"""
    graphs: dict[str, int]
    """how many numbers the state of a loaded graph has, by its digest: what a session has behind them, older services do not know"""

    def load(self, ids: Sequence[str]) -> dict[str, Session]:
        """Return the sessions of these ids that exist, as they are now. Raises StoreFailed; Unreadable, where it is some of them alone."""

    def commit(self, changes: Sequence[Change]) -> frozenset[str]:
        """Makes each change durable whose `before` is what the store holds, at most one change of a session.

        Returns the ids of the others, which somebody else has moved; they stay as they are. Raises StoreFailed: then nobody knows.
        """

    def list(self, owner: str, now: float, limit: int) -> list[Session]:
        """Return an owner's living sessions, newest first; states, kept ones too, and results are left out. Raises StoreFailed."""

    def count(self, owner: str, now: float) -> int:
        """Return how many sessions an owner has that live beyond `now`, one that keeps n states as 1 + n. Raises StoreFailed."""

    def census(self, now: float) -> tuple[Population, ...]:
        """Return the living sessions of each model version. Looks at all of them, in slices, between which others get their turn.

        Raises StoreFailed.
        """

    def expire(self, now: float) -> int:
        """Remove the sessions whose time is over, and return how many. Raises StoreFailed."""

    def check(self) -> None:
        """Write something small as durably as a commit. Raises StoreFailed when a commit would."""

    def close(self) -> None:
        """Release the store for other processes."""
