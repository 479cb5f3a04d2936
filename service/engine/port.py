"""The engine port: all that a protocol may ask of the engine of one loaded model.

The engine may be a thread of this process or, behind a socket, a process of its own; who asks does not know. So nothing is returned and
nothing raised: every answer, a refusal too, comes as a `Delivery` to the ticket.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from indrnn.service.engine.requests import Asked, Ticket
from indrnn.service.engine.statistics import Statistics
from indrnn.service.session.machine import Session


class EngineSnapshot(NamedTuple):
    """What an engine has done since its model was loaded, and how many tickets have not had their last answer."""

    statistics: Statistics
    waiting: int


class EnginePort(Protocol):
    """One model's engine, as who asks sees it. Any thread may call."""

    @property
    def stopping(self) -> bool:
        """Return whether it takes nothing new."""

    @property
    def ready(self) -> bool:
        """Return whether it would take something now."""

    def submit(self, asked: Sequence[Asked], whole: bool = False) -> None:
        """Queue requests; `whole`: all of them or none. Each ticket is answered at least once; who finds no place, with Refused.

        Cancels, deletes and looks that wait for nothing are taken also where the queue is full: two of them make room.
        """

    def withdraw(self, tickets: Sequence[Ticket]) -> None:
        """Take tickets back whose asker is gone: they hear nothing more.

        Content without a session is dropped, a generate that nobody follows any more is cut; a step was numbered, and goes on.
        """

    def snapshot(self) -> EngineSnapshot:
        """Return what the engine has done, as far as is known here without asking."""

    async def look(self) -> EngineSnapshot:
        """Return what the engine has done by now."""


class QuotaPort(Protocol):
    """How much one key may have and do, as who asks sees it. Everything here runs on the event loop."""

    @property
    def counts_steps(self) -> bool:
        """Return whether steps have a limit."""

    @property
    def counts_sessions(self) -> bool:
        """Return whether living sessions have a limit."""

    def step(self, owner: str, count: int = 1) -> None:
        """Charge a step, or so many clips, before it. Raises RateLimited; a refused step costs nothing."""

    def owe(self, owner: str, count: int = 1) -> None:
        """Charge characters after they were emitted: paid before the next step."""

    async def new_session(self, owner: str, horizon: float = 0.0, weight: int = 1) -> None:
        """Before a session is made. Raises SessionLimit, StoreFailed."""

    def session_ended(self, owner: str, weight: int = 1) -> None:
        """Take note that a session was deleted."""


class RegistryPort(Protocol):
    """Every session of the service, as who asks sees it; all of it is as service/engine/registry.py says."""

    @property
    def quotas(self) -> QuotaPort:
        """Return the limits of every owner."""

    async def find(self, session_id: str, owner: str) -> Session:
        """Return an owner's session as the store has it. Raises UnknownSession, Gone, StoreFailed."""

    async def find_living(self, session_id: str, owner: str) -> Session:
        """Return a session that no engine owns. Raises UnknownSession, Gone, StoreFailed."""

    async def remove(self, session_id: str, owner: str) -> Session:
        """End a session that no engine owns, and return it. Raises UnknownSession, Gone, StoreFailed, Overloaded."""

    async def list(self, owner: str, limit: int) -> list[Session]:
        """Return an owner's living sessions, newest first. Raises StoreFailed."""

    async def count_sequence(self, session_id: str, holder: str) -> bool:
        """Before a sequence begins: return whether it is one more. Raises SequenceLimit, StoreFailed."""
