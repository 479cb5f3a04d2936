"""HTTP between the socket and the application: uvicorn's protocol class, with what it lacks, and the first fork of a request's way.

NoUpgrade   a request that offers a protocol that is not spoken here is an ordinary one
TimedHttp   limits on how long a client may take to say what it wants, and at what length, and to read its answer
ShortHttp   requests of one prefix that come in one piece may be answered without an ASGI cycle, a task or a future
Front       /v2 past FastAPI, HEAD as GET, and paths as they are behind a proxy that shows the service below a prefix
"""

import asyncio
import contextlib
import fcntl
import re
import sys
import termios
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus

import httptools
import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from indrnn.service.errors import BadInput, problem_document
from indrnn.service.settings import SettingsError

MAX_HEAD = 65_536  # bytes of a request's line and headers, or between two pieces of a body, before the connection is closed
TURN = 4_096  # bytes of a piece of more than MANY requests that are read before the other connections have their turn
MANY = 64


class NoUpgrade(HttpToolsProtocol):
    """One connection whose clients may offer other protocols: such a request is an ordinary one (RFC 9110, section 7.8).

    `curl --http2` offers h2c with every request. uvicorn's parser ends at the headers of such a request, for what follows may be the other
    protocol's; the body would be lost, or read as a request. So the head is read again without the offer.
    A WebSocket's handshake goes uvicorn's way, and so does CONNECT, which has no resource to answer for.
    """

    _again: bytes | None = None  # the head that is to be read again
    _ended = 0  # bytes of the piece up to the end of that head

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request, or of several."""
        super().data_received(data)
        rest = memoryview(data) if self._again is not None else None
        while rest is not None and self._again is not None and not self.transport.is_closing():
            head, rest = self._again, rest[self._ended :]
            self._again = None
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it
            super().data_received(head)
            super().data_received(rest)  # type: ignore[arg-type]  # the parser takes any buffer: no copy of what is left for each request

    def on_headers_complete(self) -> None:
        """Keep the head of a request that offers something: this is its first reading, and nothing is to be answered yet."""
        method = self.parser.get_method()
        if self.parser.should_upgrade() and method != b"CONNECT" and not self._should_upgrade():
            self._again = _head(method, self.url, self.parser.get_http_version(), self.headers)
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The parser says so too where it has ended at the headers."""
        if self._again is None:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Note where the parser has ended: uvicorn is handling the exception that says at which byte."""
        ended = sys.exc_info()[1]
        if self._again is not None and isinstance(ended, httptools.HttpParserUpgrade):
            self._ended = ended.args[0]
        else:
            super()._unsupported_upgrade_warning()


def _head(method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a request's head without the offer; names are in lower case already."""
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    lines += [b"%s: %s" % header for header in headers if header[0] != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])


class TimedHttp(NoUpgrade):
    """One connection. It is closed when the headers of a request, or of a WebSocket's handshake, are not there in time.

    It is dropped, with what waits in memory, where for some time nothing of an answer could be sent.

    Headers that come in one piece, as nearly all do, arm no timer but the connection's first.
    """

    seconds = 10.0
    patience = 30.0  # seconds an answer may wait for its reader
    grace = 1.0  # seconds until an answer has to begin whose client says no more: it may listen (`nc -N`), or have left, which look alike
    _reader_due: asyncio.TimerHandle | None = None
    _answer_due: asyncio.TimerHandle | None = None
    _left = 0  # bytes that were not with the client when they were last looked at
    _due: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None
    _upgraded = False
    _in_head = False
    _loose = 0  # bytes that came since the request began, or since the last piece of its body
    _ending = False  # nothing more is read
    _later: bytes | None = None  # what came and is read in the loop's next turn
    _idle_since: float | None = None  # on the loop's clock, while nothing is asked

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """The first request is due from now on."""
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request; what is still without headers after it is due.

        Of a piece of very many requests, as uvloop reads megabytes at a time, some are read, and the others when these are answered.
        """
        if self._ending:
            return
        if self._later is not None:  # somebody else has let it be read again
            self._later += data
            self.transport.pause_reading()
            return
        if len(data) > TURN and data.count(b"\r\n\r\n") > MANY:
            self._later, data = data[TURN:], data[:TURN]
            self.transport.pause_reading()
            self.loop.call_soon(self._go_on)
        self._loose += len(data)
        super().data_received(data)
        answering = self.cycle is not None and not self.cycle.response_complete
        if self._due is None and not answering and not self._upgraded:
            self._arm()
        if self._loose > MAX_HEAD and not self._upgraded and not self.transport.is_closing():
            self._too_long(answering)

    def _go_on(self) -> None:
        if self.pipeline:  # the last answer of these goes on
            return
        later, self._later = self._later, None
        if later is None or self._upgraded or self.transport.is_closing():
            return
        self.data_received(later)
        if self._later is None and not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def on_message_begin(self) -> None:
        """Take the first byte of a request."""
        self._in_head, self._loose = True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind a body are none: uvicorn would have them override what the request began with."""
        if self._in_head:
            name = name.lower()
            if name == b"expect":
                super().on_header(name, value)
            else:
                self.headers.append((name, value))  # as uvicorn does, which a client sends some five times with each request

    def on_headers_complete(self) -> None:
        """In time. A handshake is so only when it is handed over, which one with half a body never is."""
        self._in_head = False
        if not (self.parser.should_upgrade() and self._should_upgrade()):
            self._disarm()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._loose = 0
        super().on_body(body)

    def handle_websocket_upgrade(self) -> None:
        """From here on the connection is another protocol's, unless an answer is due: it would come into the WebSocket.

        Then what was asked before is answered, and the connection closed.
        """
        later, self._later = self._later, None
        if self.cycle is not None and not self.cycle.response_complete:
            self._ending = True
            self.cycle.keep_alive = False
            return
        if later is not None:
            self.transport.resume_reading()
        self._leave()
        super().handle_websocket_upgrade()

    def _leave(self) -> None:
        """Wait for no request any more."""
        self._upgraded = True
        self._disarm()
        self._was_read()
        super()._unset_keepalive_if_required()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more. What is being answered is told; uvicorn tells only the last request that came."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        if self._answer_due is not None:
            self._answer_due.cancel()
        self._leave()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks whether the connection stays
        """Take the end of what a client says: the connection stays while something that it has asked in whole is answered, and has begun to
        be so in some time."""
        cycle = self.cycle
        if self._upgraded or self._in_head or cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        self._answer_due = self.loop.call_later(self.grace, self._left_alone)
        return True

    def _left_alone(self) -> None:
        """Let go of a client that says no more, unless its answer has begun: what is sent to nobody ends the connection by itself."""
        self._answer_due = None
        if not getattr(self._running, "response_started", False):
            self.transport.close()

    def pause_writing(self) -> None:
        """More waits to be sent than the system takes."""
        super().pause_writing()
        self._is_to_be_read()

    def resume_writing(self) -> None:
        """The client reads; of a connection that is closing the rest is still to be sent."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._was_read()

    def on_response_complete(self) -> None:
        """An answer is on its way; after some the connection is closed, once they are sent."""
        if self.pipeline or self.timeout_keep_alive_task is None or self.transport.is_closing():
            super().on_response_complete()
        else:  # as uvicorn does, which makes a timer for each answer and cancels it with the next request
            self.server_state.total_requests += 1
            self.flow.resume_reading()
        if self._later is not None and not self.transport.is_closing():
            self.transport.pause_reading()
            if not self.pipeline:
                self.loop.call_soon(self._go_on)
        self._idle_since = self.loop.time()
        self._closing()

    def _unset_keepalive_if_required(self) -> None:
        """Something was asked for, or answered. The timer goes on, and sees that when it is due."""
        self._idle_since = None

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if nothing was asked for since the last answer, and that is long ago."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None or not self.cycle.response_complete:
            return  # the next answer arms it
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()
            self._closing()

    def send_400_response(self, msg: str) -> None:
        """Answer 400 to what is no HTTP, and close the connection."""
        super().send_400_response(msg)
        self._closing()

    def _closing(self) -> None:
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._is_to_be_read()

    def _is_to_be_read(self) -> None:
        if self._reader_due is None:
            self._left = self._unread()
            self._reader_due = self.loop.call_later(self.patience, self._look)

    def _was_read(self) -> None:
        if self._reader_due is not None:
            self._reader_due.cancel()
            self._reader_due = None

    def _look(self) -> None:
        """A slow client may take its time, one that takes nothing may not."""
        self._reader_due = None
        if self._unread() < self._left:
            self._is_to_be_read()
        else:
            self.transport.abort()

    def _unread(self) -> int:
        """Count the bytes here and in the system's buffer, which asks for more only once a good part of its megabytes is sent."""
        left = bytearray(4)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, left)
        return self.transport.get_write_buffer_size() + int.from_bytes(left, sys.byteorder)

    def _arm(self) -> None:
        self._due = self.loop.call_later(self.seconds, self._too_late)

    def _disarm(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _too_late(self) -> None:
        self._due = None
        if not self.transport.is_closing():
            self.transport.close()
            self._closing()

    def _too_long(self, answering: bool) -> None:
        """The parser copies all of a header for every piece of it: beyond a length nobody else would be served."""
        if self._in_head and not answering:
            self.transport.write(STATUS_LINE[431] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()
        self._closing()


LONGEST = 65_536  # bytes of a request that goes the short way
LONG_WAY = frozenset({b"expect", b"content-encoding", b"accept-encoding", b"transfer-encoding", b"upgrade", b"x-session-id"})
"""headers of requests that always go the long way"""


class Busy:
    """Stands where uvicorn has the cycle of the request that is being answered. `target`: what the short way has made of its URL."""

    __slots__ = ("body", "disconnected", "keep_alive", "leave", "message_event", "more_body", "response_complete", "target")

    def __init__(self, keep_alive: bool, target: object) -> None:
        self.body = b""
        self.leave: Callable[[], None] = NOBODY.set
        self.disconnected = False
        self.keep_alive = keep_alive
        self.message_event = NOBODY
        self.more_body = False
        self.response_complete = False
        self.target = target


class Nobody:
    """The event that nobody waits for."""

    def set(self) -> None:
        """Do nothing, as nobody waits."""


NOBODY = Nobody()


class ShortHttp(TimedHttp):
    """One connection, some of whose requests take a shorter way: those under `prefix` that come in one piece, as nearly all do.

    Measured with Triton's load tool, the event loop's share of a step so falls to about a half. Whatever is out of the ordinary goes the
    long way, and so does every other request.
    """

    prefix = b"/v2/"
    long_way = LONG_WAY
    named: dict[bytes, bytes]
    """the headers of a request that goes the short way; the same object for as long as a connection sends the same ones"""
    _headers: Sequence[tuple[bytes, bytes]] | None = None
    _target: object = None
    _parts: list[bytes]
    _default: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")
    """headers that every answer has, and their lines; uvicorn makes the list anew each second"""

    def target_of(self, url: bytes) -> object:
        """Return what a URL under the prefix names, None for what goes the long way."""

    def answer(self, busy: Busy, body: bytes) -> bool:
        """Queue a request; `busy.leave` is called where its client leaves. False where it has to go the long way."""
        return False

    def on_message_begin(self) -> None:
        """Take the first byte of a request. What ASGI wants is made where the request goes the long way."""
        self._in_head, self._loose = True, 0
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def data_received(self, data: bytes) -> None:
        """Take a piece of the connection's bytes; a request that is not whole at its end goes the long way."""
        super().data_received(data)
        if self._target is not None:
            self._go_the_long_way()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what was asked for, as the connection is lost."""
        running = self._running
        if isinstance(running, Busy) and not running.response_complete:
            leave, running.leave = running.leave, NOBODY.set
            leave()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Decide which way the request goes."""
        target = self.target_of(self.url) if self.url.startswith(self.prefix) else None
        busy = self.flow.write_paused or (self.cycle is not None and not self.cycle.response_complete)  # or the client does not read
        if self.headers != self._headers:
            self._headers, self.named = self.headers, dict(self.headers)
        plain = len(self.named) == len(self.headers) and self.long_way.isdisjoint(self.named)  # none stands twice
        plain = plain and b"host" in self.named
        if target is None or busy or not plain or self.parser.get_method() != b"POST":
            self._begin_the_long_way()
        else:
            self._in_head = False
            self._disarm()
            self._target, self._parts = target, []

    def on_body(self, body: bytes) -> None:
        """Take a piece of a request's body."""
        if self._target is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """Answer the request, which is whole."""
        if self._target is not None and self._went_the_short_way(self._target):
            self._target = None
            return
        if self._target is not None:
            self._go_the_long_way()
        super().on_message_complete()

    def _go_the_long_way(self) -> None:
        parts, self._target = self._parts, None
        self._begin_the_long_way()
        for part in parts:
            super().on_body(part)

    def _begin_the_long_way(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers  # the list that the request's scope has
        super().on_headers_complete()

    def _went_the_short_way(self, target: object) -> bool:
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if len(body) > LONGEST:
            return False
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        cycle, busy = self.cycle, Busy(keep_alive, target)
        running, self._running = self._running, busy  # type: ignore[assignment]
        self.cycle = busy  # type: ignore[assignment]  # it has all that uvicorn asks of a cycle here
        if self.answer(busy, body):
            return True
        self.cycle, self._running = cycle, running
        return False

    def leaves_with(self, busy: Busy, leave: Callable[[], None]) -> None:
        """Give up what was asked for by calling `leave`, where the client leaves: nothing of it is to be kept."""
        busy.leave = leave

    def write(self, busy: Busy, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Write the answer to a request that went the short way."""
        busy.response_complete = True
        busy.leave = NOBODY.set  # it leads back here: what was asked would stay until the garbage collector comes by
        if busy.disconnected or self.transport.is_closing():
            return
        default = self.server_state.default_headers
        if self._default[0] is not default:
            self._default = default, b"".join([b"%s: %s\r\n" % header for header in default])
        head = [STATUS_LINE[status], self._default[1], *[b"%s: %s\r\n" % header for header in headers]]
        head.append(b"content-length: %d\r\n%s\r\n" % (len(body), b"" if busy.keep_alive else b"connection: close\r\n"))
        head.append(body)
        self.transport.write(b"".join(head))
        if not busy.keep_alive:
            self.transport.close()
        self.on_response_complete()


class Front:
    """The first fork of a request's way: the Open Inference Protocol's paths go past FastAPI, and HEAD is answered as GET.

    The server, which knows what was asked, leaves the body out.
    """

    def __init__(self, app: ASGIApp, oip: ASGIApp, root_path: str = "") -> None:
        """root_path: below which a proxy shows the service, whether it leaves that in a request's path or not."""
        self._app = app
        self._oip = oip
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a request on its way."""
        if scope["type"] == "lifespan":
            await _one_sentence(self._app, scope, receive, send)
            return
        if prefix := self._root_path or _forwarded_prefix(scope["headers"]):
            scope = _below(prefix, scope)
        if twice := repeated(scope["headers"], KEYS):
            await _refuse(scope, f"expected {twice} once, got it twice: whose request it is would be a matter of who reads it", send)
            return
        if twice := repeated(scope["headers"], SINGLE_IN_V2 if _is_v2(scope) else SINGLE):
            await _refuse(scope, f"expected {twice} once, got it twice: what the request holds would be a matter of who reads it", send)
            return
        if scope.get("http_version") == "1.1" and (hosts := sum(name == b"host" for name, _ in scope["headers"])) != 1:
            await _refuse(scope, f"expected one Host header, got {hosts} (RFC 9112, section 3.2)", send)
            return
        if scope["type"] == "http":
            send = _echoing(scope["headers"], send)
            if _is_v2(scope):
                await self._oip(scope, receive, send)
                return
            if scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}
        if prefix:
            scope = {**scope, "path": prefix + scope["path"]}  # as ASGI has it: Starlette takes the prefix away itself, once
        await self._app(scope, receive, send)


KEYS = (b"authorization", b"x-api-key")
SINGLE = (b"content-type", b"origin")
"""headers that are no lists, but for those that the parser refuses itself when they stand twice, as Content-Length"""
SINGLE_IN_V2 = (*SINGLE, b"inference-header-content-length", b"content-encoding")


def repeated(headers: Iterable[tuple[bytes, bytes]], single: Sequence[bytes]) -> str:
    """Return the name of a header that stands twice, of those that are to stand once; empty where none does."""
    names = [name for name, _ in headers if name in single]
    return next((name.decode() for name in single if names.count(name) > 1), "") if len(names) > 1 else ""


def _is_v2(scope: Scope) -> bool:
    """Return whether the Open Inference Protocol answers a request."""
    path: str = scope["path"]
    return scope["type"] == "http" and (path.startswith("/v2/") or path == "/v2")


async def _refuse(scope: Scope, detail: str, send: Send) -> None:
    """Answer a request or a handshake with 400, for whichever protocol."""
    malformed = {"title": HTTPStatus.BAD_REQUEST.phrase, "status": HTTPStatus.BAD_REQUEST}  # as HTTP's own rules have it
    body = orjson.dumps({**problem_document(BadInput(detail)), **malformed, "error": detail})
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    await send({"type": f"{kind}.start", "status": 400, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


SESSION = b"x-session-id"  # what routers look at; a session that is made is told by its route
LONGEST_SESSION = 200  # characters: of longer ones a proxy could find an answer's headers too long, and take the service for broken


def _echoing(headers: Iterable[tuple[bytes, bytes]], send: Send) -> Send:
    """Return what sends an answer with the request's x-session-id, where it has one, so that clients and routers see it go through."""
    named = next((value for name, value in headers if name == SESSION), None)
    if named is None or len(named) > LONGEST_SESSION:
        return send

    async def echo(message: Message) -> None:
        if message["type"] == "http.response.start" and all(name.lower() != SESSION for name, _ in message["headers"]):
            message = {**message, "headers": [*message["headers"], (SESSION, named)]}
        await send(message)

    return echo


_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def _forwarded_prefix(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the path below which a proxy says that it shows the service; empty where none says so, or it is no path."""
    sent = next((value for name, value in headers if name == b"x-forwarded-prefix"), b"").decode("latin-1").rstrip("/")
    return sent if _PREFIX.fullmatch(sent) and len(sent) <= LONGEST_PREFIX else ""


LONGEST_PREFIX = 200


def _below(prefix: str, scope: Scope) -> Scope:
    """Return the scope of a request that is shown below a prefix, its path without it: some proxies leave it there, some take it away."""
    return {**scope, "root_path": prefix, "path": _without(prefix, scope["path"]) or "/"}


def _without(prefix: str, path: str) -> str:
    return path[len(prefix) :] if path == prefix or path.startswith(f"{prefix}/") else path


def path_below(scope: Scope) -> str:
    """Return the path of a request as the routes have it, without the prefix below which a proxy shows the service where it is there."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return _without(root, path)


async def _one_sentence(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the application's life. Where a setting keeps it from beginning, the server's log gets the sentence and no traceback.

    Starlette sends the traceback before it raises, so that message is held until the error is known.
    """
    held: list[Message] = []

    async def hold(message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            held.append(message)
        else:
            await send(message)

    try:
        await app(scope, receive, hold)
    except SettingsError as error:
        held = [{"type": "lifespan.startup.failed", "message": f"indrnn: {error}"}]
    finally:
        for message in held:
            await send(message)
