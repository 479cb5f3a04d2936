"""What a front asks of an engine's process beside the requests of engine/requests.py, and what both tell each other: plain data.

    FindSession    Session           CountSequence  bool            LoadModel        None
    RemoveSession  Session           MakeRoom       None            UnloadModel      None
    ListSessions   Session, ...      ProbeStore     None            TellStatistics   texts: JSON
    Scrape         texts: the numbers in a scraper's form, the form

The first shard asks the other shards of its service, which it leads:

    TellLoaded     texts: number, manifest, number, ...      LoadSession    Session, or None
    HostModel      text: the number of it                    CountSessions  text: how many
    EndModel       None                                      TellCensus     text: JSON
    Settle         None                                      TellNumbers    text: JSON

A call is answered with CallAnswer or Refused; the rest are notes, which nobody answers.
"""

from typing import NamedTuple

from indrnn.service.session.machine import Session


class FindSession(NamedTuple):
    """Return an owner's session as the store has it; living: one that has not expired."""

    session_id: str
    owner: str
    living: bool


class RemoveSession(NamedTuple):
    """End a session that no engine owns, and return it."""

    session_id: str
    owner: str


class ListSessions(NamedTuple):
    """Return an owner's living sessions, newest first."""

    owner: str
    limit: int


class CountSequence(NamedTuple):
    """Return whether a sequence that is about to begin is one more, if its holder may have it."""

    session_id: str
    holder: str


class MakeRoom(NamedTuple):
    """Count a session that is about to be made, if its owner may have it; as Quotas.new_session."""

    owner: str
    horizon: float
    weight: int


class ProbeStore(NamedTuple):
    """Say whether the store takes commits."""


class LoadModel(NamedTuple):
    """Load the newest versions of a model by command."""

    name: str


class UnloadModel(NamedTuple):
    """Unload every version of a model by command."""

    name: str


class TellStatistics(NamedTuple):
    """Return the statistics of the model of that number."""

    model: int


class Scrape(NamedTuple):
    """Return the metrics of the service in the form that a scraper accepts."""

    accept: str


class TellLoaded(NamedTuple):
    """Return the number and the manifest of each version that is loaded."""


class HostModel(NamedTuple):
    """Load a version of that manifest, unless it is loaded, and return its number."""

    name: str
    version: str
    manifest: str


class EndModel(NamedTuple):
    """Let what is in flight of the model of that number finish, at most so long, refuse the rest with `why`, and unload it."""

    number: int
    why: str
    seconds: float


class Settle(NamedTuple):
    """Tell the fronts what is loaded: it is what the service has."""


class LoadSession(NamedTuple):
    """Return a session, whoever owns it; None where there is none."""

    session_id: str


class CountSessions(NamedTuple):
    """Return how many sessions an owner has here that live beyond that time."""

    owner: str
    until: float


class TellCensus(NamedTuple):
    """Count the living sessions here, by model."""

    now: float


class TellNumbers(NamedTuple):
    """Return the statistics of every model, and what is counted beside them."""


OfFront = (
    FindSession | RemoveSession | ListSessions | CountSequence | MakeRoom | ProbeStore | LoadModel | UnloadModel | TellStatistics | Scrape
)
OfLeader = TellLoaded | HostModel | EndModel | Settle | LoadSession | CountSessions | TellCensus | TellNumbers
Call = OfFront | OfLeader


class CallAnswer(NamedTuple):
    """The answer to a call."""

    value: Session | tuple[Session, ...] | tuple[str, ...] | bool | None


# --- notes ------------------------------------------------------------------------------------------------------------------------------


class Hello(NamedTuple):
    """The first message of either side: the format of those that follow, and its epoch, new each time it starts."""

    format: int
    epoch: int


class Hosted(NamedTuple):
    """A loaded version: the engine's number of it, its manifest as JSON, what runs it, and whether it takes no new sessions."""

    number: int
    manifest: str
    provider: str
    kernel: str
    retired: bool


class Roster(NamedTuple):
    """All that is loaded, and the lines of the repository's index: name, version, state, reason."""

    number: int
    models: tuple[Hosted, ...]
    lines: tuple[tuple[str, str, str, str], ...]


class RosterTaken(NamedTuple):
    """The front asks by that roster from now on."""

    number: int


class Charged(NamedTuple):
    """An owner was charged steps by a front, which the other fronts charge too."""

    owner: str
    steps: int


class SessionEnded(NamedTuple):
    """A session was deleted, or not made after all."""

    owner: str
    weight: int


class StreamsOpen(NamedTuple):
    """The open streams of a front, or of all the others."""

    websocket: int
    grpc: int


class Resumed(NamedTuple):
    """Sessions of a model that streams went on with since the last such note."""

    model: str
    version: str
    times: int


Note = Hello | Roster | RosterTaken | Charged | SessionEnded | StreamsOpen | Resumed
