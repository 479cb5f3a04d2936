"""What a job came to, in the words of the statistics."""

from collections.abc import Sequence

from indrnn.service.engine.statistics import Happened
from indrnn.service.session.machine import Deleted, Effect, Follow, Placed, Refused, Reply, Reset, Result
from indrnn.service.session.machine import Event as SessionEvent


def stored(event: SessionEvent, reply: Reply | None, effects: Sequence[Effect]) -> Happened | None:
    """Return what will have happened to the session once its effects have; None for nothing that is counted. Content counts at its end."""
    if isinstance(reply, Placed):
        return "reset" if isinstance(event, Reset) else "imported"
    if isinstance(reply, Deleted):
        return "deleted"
    if isinstance(reply, Refused) and Effect.REMOVE in effects:
        return "expired"
    return "step" if Effect.RUN in effects and Effect.COMMIT in effects else None


def repeated(reply: Reply | None, effects: Sequence[Effect]) -> bool:
    """Return whether it was answered, or is at first, with what was stored before."""
    return isinstance(reply, Follow) or (isinstance(reply, Result) and not effects)
