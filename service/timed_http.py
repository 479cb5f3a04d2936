"""uvicorn's HTTP with a limit on how long a client may take to say what it wants; uvicorn itself waits for headers for ever."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class TimedHttp(HttpToolsProtocol):
    """One connection. It is closed when the headers of a request, or of a WebSocket's handshake, are not there in time.

    Headers that come in one piece, as nearly all do, arm no timer but the connection's first.
    """

    seconds = 10.0
    _due: asyncio.TimerHandle | None = None
    _upgraded = False

    @classmethod
    def within(cls, seconds: float) -> type["TimedHttp"]:
        """The class with that limit."""
        return type("TimedHttp", (cls,), {"seconds": seconds})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """The first request is due from now on."""
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        """A piece of a request; what is still without headers after it is due."""
        super().data_received(data)
        answering = self.cycle is not None and not self.cycle.response_complete
        if self._due is None and not answering and not self._upgraded:
            self._arm()

    def on_headers_complete(self) -> None:
        """In time."""
        self._disarm()
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """From here on the connection is another protocol's."""
        self._upgraded = True
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._upgraded = True
        self._disarm()
        super().connection_lost(exc)

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
