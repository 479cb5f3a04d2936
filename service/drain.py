"""End the service within a time: take nothing new, finish what is in flight, and tell every client to come back.

The operating system's alarm keeps the deadline: it ends the process, whatever the process is doing. That costs nobody a step, because
every step that was answered is stored.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType

import uvicorn

from indrnn.service.serving.services import BackendPort

log = logging.getLogger(__name__)

ENGINES, GOODBYES, CONNECTIONS = 0.6, 0.75, 0.9
"""parts of the time by which the engines have finished, clients have been told, and connections are closed"""
LOOK = 0.01  # seconds between looks whether the engines have finished

Goodbye = Callable[[float], Awaitable[None]]
"""Tells the clients of one protocol to come back, within so many seconds."""


class Drain:
    """The end of the service, from the first signal to the end of the process."""

    def __init__(self, backend: BackendPort, seconds: float, goodbyes: Sequence[Goodbye]) -> None:
        self._backend = backend
        self._seconds = seconds
        self._goodbyes = goodbyes
        self._began = 0.0

    @property
    def begun(self) -> bool:
        """Return whether the end has begun."""
        return self._began > 0

    def begin(self) -> None:
        """Begin the end, at the signal: from now on nothing new is taken, and the service is not ready."""
        self._began = time.monotonic()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        self._backend.drain(self._seconds * ENGINES)

    def left(self, part: float) -> float:
        """Return the seconds until that part of the time has gone by."""
        return max(0.0, self._began + self._seconds * part - time.monotonic())

    async def finish(self) -> None:
        """Wait until the engines have sent their last replies, then tell the clients to come back."""
        while self._backend.busy and self.left(ENGINES):  # noqa: ASYNC110  # a thread that ends sets no event of the loop
            await asyncio.sleep(LOOK)
        said = await asyncio.gather(*(say(self.left(GOODBYES)) for say in self._goodbyes), return_exceptions=True)
        for error in said:
            if isinstance(error, BaseException):
                log.error("clients could not be told that the service stops: %r", error)


class DrainingServer(uvicorn.Server):
    """A uvicorn server that closes its connections only after the service has finished what is in flight."""

    def __init__(self, config: uvicorn.Config, drain: Drain, supervised: bool = False) -> None:
        super().__init__(config)
        self._drain = drain
        self._supervised = supervised

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end at the first signal; end the process at the second, which a supervised one leaves to its supervisor.

        That kills; a manager's signal to all of a service and the supervisor's to each are one and the same.
        """
        if self._drain.begun and self._supervised:
            return
        if self._drain.begun:
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)
        self._drain.begin()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Keep the listeners open until the clients have been told to come back, so that new requests get an answer; then shut down."""
        if self._drain.begun:
            await self._drain.finish()
            self.config.timeout_graceful_shutdown = self._drain.left(CONNECTIONS)  # type: ignore[assignment]  # any number does
        await super().shutdown(sockets)
