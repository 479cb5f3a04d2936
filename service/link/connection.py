"""One side's end of a socket between a front and an engine: what is written waits in order, and what is read waits for nothing.

Bytes that the other side does not take wait here, up to a bound; the event loop writes them when it does. Reading goes on meanwhile.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable

from indrnn.service.link.message import LinkError, Reader

log = logging.getLogger(__name__)

PIECE = 2**18  # bytes of one read


class Connection:
    """A connected stream socket. Any thread may write; everything else is the event loop's.

    `took` is given each message, kind and body; `lost` is told once why there is no connection any more.
    bound: bytes that may wait when more come.
    """

    def __init__(
        self,
        link: socket.socket,
        loop: asyncio.AbstractEventLoop,
        took: Callable[[int, bytes], None],
        lost: Callable[[str], None],
        bound: int,
    ) -> None:
        link.setblocking(False)
        self._socket = link
        self._loop = loop
        self._took = took
        self._lost = lost
        self._bound = bound
        self._reader = Reader()
        self._gate = threading.Lock()
        self._waiting = bytearray()
        self._open = True
        loop.add_reader(link, self._readable)

    @property
    def waiting(self) -> int:
        """Return how many bytes the other side has still to take."""
        return len(self._waiting)

    def write(self, data: bytes) -> None:
        """Write a message, or let it wait. Where too much waits the connection is given up."""
        with self._gate:
            if not self._open:
                return
            if len(self._waiting) > self._bound:
                self._give_up(f"the other side leaves {len(self._waiting)} bytes unread")
                return
            if self._waiting:
                self._waiting += data
                return
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._give_up(str(error))
                return
            if sent < len(data):
                self._waiting += memoryview(data)[sent:]
                self._loop.call_soon_threadsafe(self._arm)

    def close(self) -> None:
        """Close the socket; `lost` hears nothing of it."""
        with self._gate:
            was_open, self._open = self._open, False
        if was_open:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    def _give_up(self, why: str) -> None:
        self._loop.call_soon_threadsafe(self._end, why)

    def _end(self, why: str) -> None:
        if self._open:
            self.close()
            self._lost(why)

    def _arm(self) -> None:
        if self._open and self._waiting:
            self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        with self._gate:
            if not self._open:
                return
            try:
                sent = self._socket.send(memoryview(self._waiting)[:PIECE])
            except BlockingIOError:
                return
            except OSError as error:
                self._give_up(str(error))
                return
            del self._waiting[:sent]
            if not self._waiting:
                self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(PIECE)
            if not data:
                self._end("the other side has closed it")
                return
            for kind, body in self._reader.take(data):
                self._took(kind, body)
                if not self._open:
                    return
        except BlockingIOError:
            return
        except (OSError, LinkError) as error:
            self._end(str(error))
        except Exception as error:  # a bug: whoever waits for what was in that message must hear that nobody will answer
            log.exception("a message could not be taken")
            self._end(f"internal error: {type(error).__name__}")
