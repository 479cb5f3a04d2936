"""What one gRPC stream has under way: requests that are begun as they come, several at a time, and answered in that order.

Steps of a sequence must also be applied in that order. Those that are sent to a version which the sequence has left come back, one after
another, and are asked again when their turn to be answered has come; until the last of them is answered nothing may overtake them.
"""

import asyncio

from indrnn.service.oip.inference import InferAsked, Inference, Misread, QueuedInfer
from indrnn.service.oip.message import InferAnswer

Begun = QueuedInfer | Misread


class UnderWay:
    """One stream's. One task begins, another answers."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._last: dict[tuple[str, int | str], Begun] = {}
        """of each sequence what came last, until it is answered"""
        self._answered = asyncio.Event()

    async def begin(self, asked: InferAsked) -> Begun:
        """Queue a request behind those of its sequence. Raises ServiceError."""
        if asked.ask.sequence is None:
            return await self._inference.begin(asked, await self._inference.route(asked))
        key = asked.name, asked.ask.sequence
        while (last := self._last.get(key)) is not None and _must_wait(asked, last):
            self._answered.clear()
            await self._answered.wait()
        model = last.model if last is not None and asked.ask.goes_on else await self._inference.route(asked)
        begun = self._last[key] = await self._inference.begin(asked, model)
        return begun

    async def answer(self, begun: Begun) -> InferAnswer:
        """Return the reply. Raises ServiceError."""
        try:
            return await self._inference.answered(begun)
        finally:
            sequence = begun.asked.ask.sequence
            if sequence is not None and self._last.get((begun.asked.name, sequence)) is begun:
                del self._last[begun.asked.name, sequence]
            self._answered.set()


def _must_wait(asked: InferAsked, last: Begun) -> bool:
    """Return whether what came before it may yet have to be asked again; on another version it would not come behind it."""
    return last.refused or (asked.ask.start and last.asked.ask.goes_on)
