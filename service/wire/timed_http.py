"""uvicorn's HTTP with limits on how long a client may take to say what it wants, and at what length, and to read its answer.

uvicorn itself has none.
"""

import asyncio
import contextlib
import fcntl
import sys
import termios

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from indrnn.service.wire.upgrade import NoUpgrade

MAX_HEAD = 65_536  # bytes of a request's line and headers, or between two pieces of a body, before the connection is closed


class TimedHttp(NoUpgrade):
    """One connection. It is closed when the headers of a request, or of a WebSocket's handshake, are not there in time.

    It is dropped, with what waits in memory, where for some time nothing of an answer could be sent.

    Headers that come in one piece, as nearly all do, arm no timer but the connection's first.
    """

    seconds = 10.0
    patience = 30.0  # seconds an answer may wait for its reader
    _reader_due: asyncio.TimerHandle | None = None
    _left = 0  # bytes that were not with the client when they were last looked at
    _due: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None
    _upgraded = False
    _in_head = False
    _loose = 0  # bytes that came since the request began, or since the last piece of its body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """The first request is due from now on."""
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request; what is still without headers after it is due."""
        self._loose += len(data)
        super().data_received(data)
        answering = self.cycle is not None and not self.cycle.response_complete
        if self._due is None and not answering and not self._upgraded:
            self._arm()
        if self._loose > MAX_HEAD and not self._upgraded and not self.transport.is_closing():
            self._too_long(answering)

    def on_message_begin(self) -> None:
        """Take the first byte of a request."""
        self._in_head, self._loose = True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind a body are none: uvicorn would have them override what the request began with."""
        if self._in_head:
            super().on_header(name, value)

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
        """From here on the connection is another protocol's."""
        self._upgraded = True
        self._disarm()
        self._was_read()
        super().handle_websocket_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more. What is being answered is told; uvicorn tells only the last request that came."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self._upgraded = True
        self._disarm()
        self._was_read()
        super().connection_lost(exc)

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
        super().on_response_complete()
        self._closing()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing more was asked for."""
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
