"""What is asked of an engine, and what it answers: plain data, which could cross a process boundary as it stands.

A request names its session and its owner by text, its content is arrays. Who asked is a ticket, two whole numbers; nothing here is a
function or belongs to an event loop. Named tuples, since every step makes one: 1 µs, where a frozen data class of this size takes 8.

    LookRequest      Looked                     CancelRequest    Result, or None where there was nothing to end
    CreateRequest    Created                    DeleteRequest    Deleted
    StepRequest      Result                     ForkRequest      Forked
    GenerateRequest  Follow?, Char..., Result   ImportRequest    Placed
    InferRequest     Result                     ResetRequest     Placed
    RewindRequest    Rewound                    MarkRequest      Marked
    CompleteRequest  Prompted, and Drawn... to each text's ticket

Any of them may be answered with Refused.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indrnn.service.session.machine import (
    Char,
    Deleted,
    Floats,
    Follow,
    Forked,
    Generated,
    Marked,
    Placed,
    Reason,
    Refused,
    Result,
    Rewound,
    Sampling,
    Scores,
    Session,
    Snapshot,
)
from indrnn.service.session.sampling import Ranking

ClientProtocol = str
"""How a client came, as the metrics say it: "http" (native), "stream", "oip_http", "oip_grpc", "openai", or another protocol's name."""

States = NDArray[np.float16]
"""The hidden neurons of a watched session after each time step, [t, n]."""

MOST_HALF = float(np.finfo(np.float16).max)


def halves(neurons: NDArray[np.float32]) -> States:
    """Return neurons as they are watched; one beyond what float16 can say is as large as can be said, and not infinite."""
    return neurons.clip(-MOST_HALF, MOST_HALF).astype(np.float16)


class Ticket(NamedTuple):
    """Who asked: the epoch of the asker, new each time it starts, and a number of its own. No answer goes to another epoch."""

    epoch: int
    number: int


# --- content --------------------------------------------------------------------------------------------------------------------------


class Frames(NamedTuple):
    """Frames [T, P, J, 3] float32 in the model's layout; NaN is a joint not seen. hz None is the session's rate, at its start the model's.

    whole: no joint is missing, as far as anybody has looked already. warnings: what the client should be told of them. t [T]: when each
    was taken, in seconds, where the client says so.
    """

    x: Floats
    hz: float | None
    whole: bool = False
    warnings: tuple[str, ...] = ()
    t: NDArray[np.float64] | None = None


class Exact(NamedTuple):
    """Content [t, ...] as the graph reads it, which needs no preparation: symbols int64, or numbers at the model's rate."""

    x: NDArray[np.generic]


Content = Frames | Exact

# --- requests -------------------------------------------------------------------------------------------------------------------------


class LookRequest(NamedTuple):
    """Tell how a session stands; in order: after what is in flight or waits, instead of before it."""

    session_id: str
    owner: str
    in_order: bool = False
    protocol: ClientProtocol = "http"


class CreateRequest(NamedTuple):
    """Make a session, at the start of a sequence or where a downloaded one stood. The engine draws its id.

    keep: how many states after earlier steps it keeps, to be gone back to.
    """

    owner: str
    start: Snapshot | None = None
    protocol: ClientProtocol = "http"
    keep: int = 0


class StepRequest(NamedTuple):
    """Consume content as one step; `number` None lets the engine count, `digest` is of content and options (serving/steps.py).

    every: answer after each time step; watch: tell the hidden neurons too; begin: the step begins a sequence of the Open Inference
    Protocol, in place of what is there; end: the sequence ends after it; patience: seconds it may wait, if less than the engine's;
    tell_state: whether the state after it is part of the reply, which an engine behind a socket leaves out otherwise.
    """

    session_id: str
    owner: str
    number: int | None
    digest: bytes
    content: Content
    every: bool = False
    watch: bool = False
    begin: bool = False
    end: bool = False
    patience: float | None = None
    protocol: ClientProtocol = "http"
    tell_state: bool = True


class GenerateRequest(NamedTuple):
    """Emit characters, as one step that lasts."""

    session_id: str
    owner: str
    number: int | None
    digest: bytes
    sampling: Sampling
    watch: bool = False
    protocol: ClientProtocol = "stream"


class InferRequest(NamedTuple):
    """Answer content without a session, from `state` [N], by default zeros; tell_state: as of a step."""

    content: Content
    every: bool = False
    state: Floats | None = None
    patience: float | None = None
    protocol: ClientProtocol = "http"
    tell_state: bool = True


class Text(NamedTuple):
    """A text to be drawn after a prompt; its ticket gets Drawn for each character."""

    ticket: Ticket
    sampling: Sampling


class CompleteRequest(NamedTuple):
    """Read a prompt without a session, and draw texts after it; top: how many of the likeliest symbols are told with each."""

    content: Exact
    texts: tuple[Text, ...]
    top: int = 0
    protocol: ClientProtocol = "openai"


class CancelRequest(NamedTuple):
    """End a generate; `number` None means whichever is in flight."""

    session_id: str
    owner: str
    number: int | None = None
    protocol: ClientProtocol = "http"


class DeleteRequest(NamedTuple):
    """End a session."""

    session_id: str
    owner: str
    protocol: ClientProtocol = "http"


class ForkRequest(NamedTuple):
    """Make a second session that stands where this one does. The engine draws its id."""

    session_id: str
    owner: str
    protocol: ClientProtocol = "http"


class ImportRequest(NamedTuple):
    """Put a session where a downloaded one stood."""

    session_id: str
    owner: str
    start: Snapshot
    protocol: ClientProtocol = "http"


class ResetRequest(NamedTuple):
    """Put a session back at the start of a sequence."""

    session_id: str
    owner: str
    protocol: ClientProtocol = "http"


class RewindRequest(NamedTuple):
    """Go back to the state after step `to`, or where the mark of that name was set, as one step; `number` None lets the engine count."""

    session_id: str
    owner: str
    number: int | None
    digest: bytes
    to: int | str
    protocol: ClientProtocol = "http"


class MarkRequest(NamedTuple):
    """Name the present step of a session, whose state is then kept, or take the name away."""

    session_id: str
    owner: str
    mark: str
    remove: bool = False
    protocol: ClientProtocol = "http"


Move = ForkRequest | ImportRequest | ResetRequest | RewindRequest | MarkRequest
SessionRequest = LookRequest | StepRequest | GenerateRequest | CancelRequest | DeleteRequest | Move
"""A request that names a session, which has to be there, or begins a sequence."""

StatelessRequest = InferRequest | CompleteRequest
Request = SessionRequest | StatelessRequest | CreateRequest


class Asked(NamedTuple):
    """A request, and who asked."""

    ticket: Ticket
    request: Request


# --- replies --------------------------------------------------------------------------------------------------------------------------


class Created(NamedTuple):
    """The reply to a session that was made: it is stored."""

    session: Session


class Looked(NamedTuple):
    """The reply to a look at a session: as the store has it."""

    session: Session


class Prompted(NamedTuple):
    """The reply to a prompt that texts are drawn after: it has been read. Ranking is [t, k], empty where it was not asked for."""

    scores: Scores
    ranked: tuple[Ranking, ...]


class Drawn(NamedTuple):
    """One drawn character; its ranking [1, k] is of what the model expected before it; and the reason if it was the last."""

    char: str
    logprob: float
    ranking: Ranking
    done: Reason | None


Generation = Follow | Char | Result[Generated]
"""What a generate is answered with, piece by piece."""

Moved = Placed | Forked | Rewound | Marked
Reply = Refused | Created | Looked | Result[Scores | Generated] | Follow | Char | Deleted | Moved | Prompted | Drawn | None


class Delivery(NamedTuple):
    """A reply on its way to who asked; `final` frees the ticket."""

    ticket: Ticket
    reply: Reply
    states: States | None = None
    final: bool = True
