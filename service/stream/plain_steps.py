"""The plain step of a stream, many at once: messages that come in one turn of the event loop are read together, and answered together.

NumPy costs the same for one clip as for sixty, and so do a lock and a wake-up of the engine thread; a task costs more than both. Anything
but a plain step is declined here, and the stream reads it by itself.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import orjson

from indrnn.service.engine.jobs import Job
from indrnn.service.engine.work import Frames, Text
from indrnn.service.errors import EngineFailed, ServiceError
from indrnn.service.serving.body import MAX_STEP
from indrnn.service.serving.models import Best, ServedModel, next_chars
from indrnn.service.serving.sessions import content_digest
from indrnn.service.session.machine import Feed, Result, Scores

log = logging.getLogger(__name__)

FIELDS = {"action": {"type", "step", "frames"}, "chars": {"type", "step", "text"}}


class Stepping(Protocol):
    """The interface that the intake asks of a stream with a step in flight."""

    model: ServedModel
    layout: str | None
    hz: float | None
    top_k: int
    digest_key: bytes

    def job(self, event: Feed, content: Frames | Text) -> Job:
        """Return the step as the engine thread gets it; its sink gives the result to `done`, and a refusal to `fail`."""

    def decline(self, frame: bytes) -> None:
        """Give the message back, since it is for the stream itself."""

    def fail(self, error: ServiceError) -> None:
        """Answer with the error of a step by which nothing has moved."""

    def answer(self, reply: dict[str, object]) -> None:
        """Send the step's last word."""


class Taken(NamedTuple):
    """A message as it came, unmasked and as the frame it was."""

    stream: Stepping
    frame: bytes
    payload: bytes


class Read(NamedTuple):
    """A message that is a plain step so far."""

    taken: Taken
    message: dict[str, object]


class Done(NamedTuple):
    """A step's result, and the content it is of."""

    stream: Stepping
    result: Result
    content: Frames | Text


class Intake:
    """The messages that came and the steps that are done in one turn of the event loop. Everything here runs on the loop's thread."""

    def __init__(self) -> None:
        self._taken: list[Taken] = []
        self._done: list[Done] = []

    def take(self, taken: Taken) -> None:
        """Take a message to read when the turn is over."""
        if not self._taken:
            asyncio.get_running_loop().call_soon(self._read)
        self._taken.append(taken)

    def done(self, done: Done) -> None:
        """Take a result to word when the turn is over."""
        if not self._done:
            asyncio.get_running_loop().call_soon(self._word)
        self._done.append(done)

    def _read(self) -> None:
        taken, self._taken = self._taken, []
        groups: dict[tuple[int, str | None], list[Read]] = {}
        for one in taken:
            message = plain_step(one.payload, FIELDS[one.stream.model.manifest.kind])
            if message is None:
                _decline(one)
            else:
                groups.setdefault((id(one.stream.model), one.stream.layout), []).append(Read(one, message))
        for group in groups.values():
            self._submit(group)

    def _submit(self, group: list[Read]) -> None:
        model = group[0].taken.stream.model
        most = model.manifest.limits.max_position
        jobs: list[Job] = []
        for (taken, message), content in zip(group, _contents(model, group), strict=True):
            if content is None:
                _decline(taken)
                continue
            data = content.symbols if isinstance(content, Text) else content.x
            digest = content_digest(taken.stream.digest_key, data.tobytes())
            number = message.get("step")
            assert number is None or isinstance(number, int), "plain_step has looked"
            try:
                jobs.append(taken.stream.job(Feed(number, digest, content.length, most), content))
            except Exception as error:  # of what came behind it on its connection: no reason to let go of the others' steps
                log.exception("a step could not be taken")
                taken.stream.fail(EngineFailed(f"internal error: {type(error).__name__}"))
        model.batcher.submit_each(jobs)

    def _word(self) -> None:
        done, self._done = self._done, []
        groups: dict[tuple[int, int], list[Done]] = {}
        for one in done:
            groups.setdefault((id(one.stream.model), one.stream.top_k), []).append(one)
        for group in groups.values():
            logits = np.stack([_scores(one).logits for one in group])
            first = group[0].stream
            for one, best in zip(group, first.model.best(logits, first.top_k), strict=True):
                try:
                    one.stream.answer(worded(one.result, _scores(one), one.content, first.model, best))
                except Exception:  # one client's connection must not keep the others' replies
                    log.exception("a reply could not be delivered")


def _decline(taken: Taken) -> None:
    try:
        taken.stream.decline(taken.frame)
    except Exception:  # its connection is broken: no reason to let go of the others' messages
        log.exception("a message could not be given back")


def plain_step(payload: bytes, fields: set[str]) -> dict[str, object] | None:
    """Return the message, if it is a step with the fields of one and a number that can be one."""
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(message, dict) or message.get("type") != "step" or not fields >= message.keys():
        return None
    number = message.get("step")
    counted = number is None or (type(number) is int and 1 <= number <= MAX_STEP)
    return message if counted else None


def _contents(model: ServedModel, group: Sequence[Read]) -> Sequence[Frames | Text | None]:
    """Return each message's content; None where it takes a closer look."""
    if model.manifest.kind == "chars":
        return [_text(model, read.message.get("text")) for read in group]
    first = group[0].taken.stream
    clips = [read.message.get("frames") if _only_numbers(read) else None for read in group]
    rates = [read.taken.stream.hz for read in group]
    together = model.plain_frames(clips, first.layout, rates)
    if together is not None:
        return together
    alone = (model.plain_frames([clip], first.layout, [hz]) for clip, hz in zip(clips, rates, strict=True))
    return [None if one is None else one[0] for one in alone]


def _text(model: ServedModel, text: object) -> Text | None:
    try:
        return model.text(text, "text")
    except ServiceError:
        return None


def _only_numbers(read: Read) -> bool:
    """Return whether there is no text, true or false but in the message's own fields: their names and its type are all that is quoted."""
    payload = read.taken.payload
    return payload.count(b'"') == 2 * len(read.message) + 2 and b"true" not in payload and b"false" not in payload


def _scores(done: Done) -> Scores:
    assert isinstance(done.result.result, Scores), "a feed's result"
    return done.result.result


def worded(result: Result, scores: Scores, content: Frames | Text, model: ServedModel, best: Best) -> dict[str, object]:
    """Return the reply to a step, as it is sent."""
    reply: dict[str, object] = {"type": "result", "step": result.number, "position": result.position}
    if isinstance(content, Text):
        reply["chars"] = model.scored_chars(content.symbols, scores.logprobs)
        reply["next"] = next_chars(best)
    else:
        reply["predictions"] = [model.prediction(best, content.length)]
    return reply
