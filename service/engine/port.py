"""The engine port: all that a protocol may ask of the engine of one loaded model.

The engine may be a thread of this process or, behind a socket, a process of its own; who asks does not know. So nothing is returned and
nothing raised: every answer, a refusal too, comes as a `Delivery` to the ticket.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from indrnn.service.engine.requests import Asked, Ticket
from indrnn.service.engine.statistics import Statistics


class EngineSnapshot(NamedTuple):
    """What an engine has done since its model was loaded, and how many tickets have not had their last answer."""

    statistics: Statistics
    waiting: int


class EnginePort(Protocol):
    """One model's engine, as who asks sees it. Any thread may call."""

    @property
    def stopping(self) -> bool:
        """Return whether it takes nothing new."""

    def submit(self, asked: Sequence[Asked], whole: bool = False) -> None:
        """Queue requests; `whole`: all of them or none. Each ticket is answered at least once; who finds no place, with Refused.

        Cancels, deletes and looks that wait for nothing are taken also where the queue is full: two of them make room.
        """

    def withdraw(self, tickets: Sequence[Ticket]) -> None:
        """Take tickets back whose asker is gone: they hear nothing more.

        Content without a session is dropped, a generate that nobody follows any more is cut; a step was numbered, and goes on.
        """

    def snapshot(self) -> EngineSnapshot:
        """Return what the engine has done."""
