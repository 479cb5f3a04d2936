"""What the core asks its shell to do, and what it is told of it. The core itself touches no socket and no clock of its own.

A plan is a generator: it yields commands and is sent their outcomes; what it returns is the answer to the user's call. Outcomes: nothing
for Connect, Send, Sleep, Close and Show, the message for Receive, an HttpResponse for HttpRequest; or Lost for any of them.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from indrnn.client.answers import Char

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the WebSocket; an earlier one is dropped. `timeout` in seconds, everywhere."""

    url: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message over the WebSocket."""

    text: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait for a message."""

    timeout: float


@dataclass(frozen=True, slots=True)
class Close:
    """Drop the open WebSocket."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for some time."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Show:
    """Hand a character to the user."""

    char: Char


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """An HTTP request; `path` begins behind the server's address."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes
    timeout: float


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP response; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """It failed. `final`: trying again would fail as well. `sent`: the server may have seen the request."""

    cause: Exception
    final: bool = False
    sent: bool = True


Command = Connect | Send | Receive | Close | Sleep | Show | HttpRequest
Plan = Generator[Command, object, R]


def follow(plan: Plan[R], perform: Callable[[Command], object]) -> R:
    """Do what a plan asks for, command by command, and return what it comes to."""
    outcome: object = None
    while True:
        try:
            command = plan.send(outcome)
        except StopIteration as end:
            result: R = end.value
            return result
        outcome = perform(command)
