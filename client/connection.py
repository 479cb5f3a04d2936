"""What the two shells share: addresses, options of a connection, and what its failures mean."""

from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from indrnn.client.commands import HttpRequest, HttpResponse, Lost
from indrnn.client.errors import ProtocolError, Refused

MAX_MESSAGE = 64 * 2**20  # bytes of a message from the server: the states of a watched step are some hundred kilobytes
CLOSE_WITHIN = 1.0  # seconds to say goodbye
PING = 20.0  # seconds between signs of life, and for the answer to one
TRY_AGAIN = (429, 502, 503, 504)
HOPELESS = (1003, 1007, 1008, 1009, 1010)  # closes that the same message would meet again

WEBSOCKET: dict[str, Any] = {
    "compression": None,
    "max_size": MAX_MESSAGE,
    "close_timeout": CLOSE_WITHIN,
    "ping_interval": PING,
    "ping_timeout": PING,
}


@dataclass
class Server:
    """The server's place, and who asks: `url` http(s)://host[:port][/path], `api_key` where it wants one."""

    url: str
    api_key: str | None
    timeout: float
    random: Random = field(default_factory=Random)

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"expected http://… or https://…, got {self.url!r}")

    def stream(self, model: str) -> str:
        """Return the address of the WebSocket."""
        return f"ws{self.url.removeprefix('http')}/stream/{quote(model, safe='')}"

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of every HTTP request."""
        return {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"}


def content_of(content: object) -> dict[str, object]:
    """Return a step's content: a text, sentences, samples [T] or rows [T][F] of numbers, or frames, which are lists of joints.

    A None by itself, or a row of it, is the end of a signal (docs/adopt.md); lists of several are joints that nobody saw.
    """
    if isinstance(content, str):
        return {"text": content}
    listed = _listed(content)
    if listed and isinstance(listed[0], str):
        return {"sentences": content}
    depth = _depth(listed)
    ends = len(listed) == 1 and (listed[0] is None or _listed(listed[0]) == [None])
    return {"values" if depth in (1, 2) or (depth is None and ends) else "frames": content}


def _depth(content: object) -> int | None:
    """Return how many lists the first number lies in; None where there is none."""
    plain = content.tolist() if hasattr(content, "tolist") else content
    if not isinstance(plain, list | tuple):
        return None if plain is None else 0
    return next((1 + depth for item in plain if (depth := _depth(item)) is not None), None)


def _listed(content: object) -> list[object]:
    plain = content.tolist() if hasattr(content, "tolist") else content
    return list(plain) if isinstance(plain, list | tuple) else []


def given(**options: object) -> dict[str, object]:
    """Return the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def lost_socket(error: Exception) -> Lost:
    """Return what the end or the failure of a WebSocket means."""
    if isinstance(error, ConnectionClosed):
        codes = {close.code for close in (error.rcvd, error.sent) if close is not None}
        if codes & set(HOPELESS):
            return Lost(ProtocolError(f"the connection was closed: {error}"), final=True)
    if isinstance(error, InvalidStatus) and (status := error.response.status_code) not in TRY_AGAIN:
        return Lost(Refused(f"expected a WebSocket, got HTTP {status}", f"http_{status}", status=status), final=True)
    if isinstance(error, InvalidURI):
        return Lost(ProtocolError(str(error)), final=True)
    return Lost(error)


SOCKET_ERRORS = (WebSocketException, OSError, EOFError)  # TimeoutError is an OSError
HTTP_ERRORS = (httpx.TransportError,)


def lost_call(error: httpx.TransportError) -> Lost:
    """Return what the failure of an HTTP request means."""
    if isinstance(error, httpx.UnsupportedProtocol):
        return Lost(ProtocolError(str(error)), final=True)
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return Lost(error, sent=not unsent)


def answer_of(response: httpx.Response) -> HttpResponse:
    """Return a response as the core reads it."""
    return HttpResponse(response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content)


def request_of(request: HttpRequest) -> dict[str, Any]:
    """Return an HTTP request in httpx's words."""
    return {
        "method": request.method,
        "url": request.path,
        "headers": dict(request.headers),
        "content": request.content,
        "timeout": request.timeout,
    }
