"""uvicorn's HTTP where a client offers another protocol that is not spoken here: such a request is an ordinary one (RFC 9110, section 7.8).

`curl --http2` offers h2c with every request. uvicorn's parser ends at the headers of such a request, for what follows may be the other
protocol's; the body would be lost, or read as a request. So the head is read again without the offer.
"""

import sys
from collections.abc import Iterable

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class NoUpgrade(HttpToolsProtocol):
    """One connection. A WebSocket's handshake goes uvicorn's way, and so does CONNECT, which has no resource to answer for."""

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
