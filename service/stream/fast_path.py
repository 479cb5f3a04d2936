"""The fast lane of one stream: plain steps go from the wire to the engine and back in callbacks, without waking the stream's task.

At most one step of a connection is in the lane; what comes meanwhile waits on the wire's queue for the task, which first waits for the
lane to be clear. So messages of one socket still run in order.
"""

import asyncio
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from indrnn.service.engine.jobs import Job
from indrnn.service.engine.work import Frames, Text
from indrnn.service.errors import EngineFailed, ServiceError
from indrnn.service.serving.models import ServedModel
from indrnn.service.session.machine import Feed, Refused, Result
from indrnn.service.stream.plain_steps import Done, Intake, Taken
from indrnn.service.wire.websocket import Wire


@dataclass(slots=True, eq=False)
class Lane:
    """One connection's. `open` is set by the stream while its task waits for a message and has nothing else to do."""

    wire: Wire
    intake: Intake
    model: ServedModel
    session_id: str
    owner: str
    layout: str | None
    hz: float | None
    top_k: int
    digest_key: bytes
    send_timeout: float
    max_body: int
    open: bool = False
    _busy: bool = False
    _content: Frames | Text | None = None
    _clear: asyncio.Future[None] | None = None
    _draining: asyncio.Future[None] | None = None

    def offer(self, frame: bytes, payload: bytes) -> bool:
        """Offer a whole text message, and return whether it is taken."""
        if not self.open or self._busy or len(payload) > self.max_body or self.model.batcher.stopping:
            return False  # the last: the stream's task finds out whether the model has been loaded again
        self._busy = True
        self.intake.take(Taken(self, frame, payload))
        return True

    def job(self, event: Feed, content: Frames | Text) -> Job:
        """Return the step as the engine thread gets it."""
        self._content = content
        self.wire.decided(None)
        return Job(self._arrived, self.session_id, self.owner, event, content=content, protocol="stream")

    def _arrived(self, value: object, states: NDArray[np.float16] | None) -> None:
        if isinstance(value, Result) and self._content is not None:
            self.intake.done(Done(self, value, self._content))
        else:
            self.fail(value.error if isinstance(value, Refused) else EngineFailed(f"internal error: {type(value).__name__}"))

    def decline(self, frame: bytes) -> None:
        """Give the message back, since it is for the stream's task."""
        self._leave()
        self.wire.decided(frame)

    def fail(self, error: ServiceError) -> None:
        """Send the error of a step by which nothing has moved."""
        self.answer({"type": "error", **error.body()})

    def answer(self, reply: dict[str, object]) -> None:
        """Send the step's last word. The lane is clear again when the client's side has room for more."""
        self.wire.write_text(orjson.dumps(reply))
        if self.wire.writable.is_set():
            self._leave()
        else:
            self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self.send_timeout):
                await self.wire.writable.wait()
        except TimeoutError:
            self.wire.transport.abort()  # a client that does not read may not keep its place
        self._leave()

    def _leave(self) -> None:
        self._busy = False
        self._content = None
        if self._clear is not None and not self._clear.done():
            self._clear.set_result(None)
        self._clear = None

    async def clear(self) -> None:
        """Wait until no step is in the lane."""
        while self._busy:
            if self._clear is None:
                self._clear = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._clear)
