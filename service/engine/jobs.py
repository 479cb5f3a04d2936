"""What the engine thread works on: jobs as the protocols hand them in, sessions that are being worked on, and replies."""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indrnn.service.engine.statistics import Happened, Protocol
from indrnn.service.engine.work import Content, Drawing, Feeding, Generating, Sink
from indrnn.service.session.machine import Cancel, Delete, Feed, Floats, Fork, Generate, Import, Reason, Reset, Sampling, Scores, Session
from indrnn.service.session.sampling import Ranking


@dataclass(frozen=True, slots=True)
class Created:
    """The reply to a session that was opened: it is stored."""

    session: Session


@dataclass(frozen=True, slots=True)
class Loaded:
    """The reply to a look at a session: as the store has it."""

    session: Session


@dataclass(frozen=True, slots=True)
class Draw:
    """A text to be drawn after a job's content, without a session; its sink gets Drawn for each character."""

    sampling: Sampling
    sink: Sink


@dataclass(frozen=True, slots=True)
class Prompted:
    """The reply to content that texts are drawn after: it has been read. Ranking is [t, k], empty where it was not asked for."""

    scores: Scores
    ranked: tuple[Ranking, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One drawn character; its ranking [1, k] is of what the model expected before it; and the reason if it was the last."""

    char: str
    logprob: float
    ranking: Ranking
    done: Reason | None


@dataclass(slots=True, eq=False)
class Job:
    """One wish of a client. `event` is what the state machine gets; None looks at the session, or answers content without one.

    state [N]: where content without a session begins, zeros by default; patience: seconds it may wait, if less than the server's.
    """

    sink: Sink
    session_id: str | None = None
    owner: str = ""
    event: Feed | Generate | Cancel | Delete | Import | Reset | Fork | None = None
    create: Session | None = None
    content: Content | None = None
    every: bool = False
    watch: slice | None = None
    in_order: bool = False
    """a look: whether it waits for what is in flight, instead of telling how the session stands before that"""
    deadline: float = 0.0
    heard: int | None = None
    """characters of its generate that the sink has been told of, once it has been told anything"""
    state: Floats | None = None
    patience: float | None = None
    since: float = 0.0
    draws: tuple[Draw, ...] | None = None
    top: int = 0
    protocol: Protocol = "http"

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """Everybody who waits for it."""
        return (self.sink,) if self.draws is None else (self.sink, *(d.sink for d in self.draws))

    @property
    def looks(self) -> bool:
        """Return whether it is a look that waits for nothing."""
        return self.session_id is not None and self.event is None and not self.in_order

    @property
    def is_work(self) -> bool:
        """Return whether it needs the model, makes or moves a session, or waits for what does."""
        moves = isinstance(self.event, Generate | Import | Reset | Fork)
        return self.content is not None or self.create is not None or self.in_order or moves


@dataclass(slots=True, eq=False)
class Live:
    """A session that is being worked on: `base` as the store has it (None: not yet), `session` as it will be after the next commit.

    `pending` are the jobs whose outcome hangs on that commit; a `stale` one has to be read again before anything is offered to it.
    """

    base: Session | None
    session: Session
    mailbox: deque[Job] = field(default_factory=deque)
    work: Feeding | Generating | None = None
    sinks: list[Sink] = field(default_factory=list)
    dirty: bool = False
    removed: bool = False
    pending: list[Job] = field(default_factory=list)
    stale: bool = False
    happened: list[tuple[Happened, Protocol]] = field(default_factory=list)
    """what counts once it is stored"""
    lost: int = 0


@dataclass(slots=True, eq=False)
class Stateless:
    """Content without a session on its way through the model, or a text that is being drawn after it."""

    work: Feeding | Drawing
    sink: Sink
    draws: tuple[Draw, ...] | None = None

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """Everybody who waits for it."""
        return (self.sink,) if self.draws is None else (self.sink, *(d.sink for d in self.draws))


class Reply(NamedTuple):
    """A value that a sink will be told once the commit of `live` (if any) has succeeded; `final` frees its place in the queue."""

    sink: Sink
    value: object
    live: Live | None = None
    states: NDArray[np.float16] | None = None
    final: bool = True


def unset(value: object, states: NDArray[np.float16] | None) -> None:
    """The sink of a job whose own is set before it is queued."""
    raise AssertionError("whoever asks sets the sink")
