"""The plain step of a stream: from the wire to the engine and back in callbacks, without waking the stream's task, many at once.

Messages that come in one turn of the event loop are read together, and answered together: NumPy costs the same for one clip as for sixty,
and so do a lock and a wake-up of the engine thread; a task costs more than both. Anything but a plain step is declined here, and the stream
reads it by itself.

At most one step of a connection is under way here; what comes meanwhile waits on the wire's queue for the task, which first waits until
it is answered. So messages of one socket still run in order.
"""

import asyncio
import logging
import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from indrnn.service.engine.requests import Asked, Content, Reply, States
from indrnn.service.errors import EngineFailed, ServiceError, not_known, unexpected
from indrnn.service.serving.models import ServedModel
from indrnn.service.serving.request import MAX_STEP
from indrnn.service.serving.steps import Tickets, native_step
from indrnn.service.session.machine import Refused, Result, Scores
from indrnn.service.wire.websocket import Wire

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class FastPath:
    """One connection's. `open` is set by the stream while its task waits for a message and has nothing else to do."""

    wire: Wire
    intake: "Intake"
    model: ServedModel
    session_id: str
    owner: str
    layout: str | None
    hz: float | None
    top_k: int
    options_key: bytes
    send_timeout: float
    max_body: int
    open: bool = False
    form: "StepForm | None" = None
    """that of the last step"""
    forms: int = 0
    """how many there were; a connection whose steps look different each time gains nothing by them"""
    parent: object = None
    """the span that the client named in its handshake, where steps are traced"""
    _busy: bool = False
    _content: Content | None = None
    _clear: asyncio.Future[None] | None = None
    _draining: asyncio.Future[None] | None = None

    def offer(self, frame: bytes, payload: bytes) -> bool:
        """Offer a whole text message, and return whether it is taken."""
        if not self.open or self._busy or len(payload) > self.max_body or self.model.port.stopping:
            return False  # the last: the stream's task finds out whether the model has been loaded again
        self._busy = True
        self.intake.take(Taken(self, frame, payload))
        return True

    def ask(self, number: int | None, content: Content, tickets: Tickets) -> Asked:
        """Return the step as the engine gets it."""
        self._content = content
        self.wire.decided(None)
        request = native_step(
            self.session_id, self.owner, number, content, self.options_key, self.model.modality.each_step, protocol="stream"
        )
        ticket = tickets.issue(self._arrived)
        if tickets.trace is not None:
            tickets.trace.asked([ticket.number], self.model.port, request, self.parent)
        return Asked(ticket, request)

    def _arrived(self, reply: Reply, states: States | None) -> None:
        if isinstance(reply, Result) and self._content is not None:
            self.intake.done(Done(self, reply, self._content))  # type: ignore[arg-type]  # the result of a feed
        else:
            self.fail(reply.error if isinstance(reply, Refused) else EngineFailed(f"internal error: {type(reply).__name__}"))

    def decline(self, frame: bytes) -> None:
        """Give the message back, since it is for the stream's task."""
        self._leave()
        self.wire.decided(frame)

    def fail(self, error: ServiceError) -> None:
        """Send the error of a step; nothing has moved, as far as its detail says."""
        self.answer({"type": "error", **error.body()})

    def answer(self, reply: dict[str, object]) -> None:
        """Send the step's last word. The way is clear again when the client's side has room for more."""
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
        """Wait until no step is under way here."""
        while self._busy:
            if self._clear is None:
                self._clear = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._clear)


class Taken(NamedTuple):
    """A message as it came, unmasked and as the frame it was."""

    stream: FastPath
    frame: bytes
    payload: bytes


class Read(NamedTuple):
    """A message that is a plain step so far: its number, and its content as it was sent."""

    taken: Taken
    number: int | None
    value: object


FORMS = 16  # of one connection, after which the forms of its steps are no longer noted
_NUMERIC = b"0123456789.-"
_STEP = re.compile(rb'(\{\s*"type"\s*:\s*"step"\s*,\s*"step"\s*:\s*)[1-9][0-9]*(\s*,\s*"frames"\s*:\s*\[\[\[)(.*)(\]\]\]\s*\})', re.S)


class StepForm(NamedTuple):
    """The text of a step with frames [T][J][3], without its numbers: before and behind the step's, at its end, between frames and joints.

    marks: the commas, brackets and spaces of the frames. A text of the same form with a number in each place is a step of as many frames
    and joints, and is read without lists.
    """

    before: bytes
    behind: bytes
    end: bytes
    frames: bytes
    joints: bytes
    marks: bytes
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, payload: bytes, value: object) -> "StepForm | None":
        """Return the form of a step that was read, with its frames; None where it has none of these."""
        found = _STEP.fullmatch(payload)
        if found is None or not isinstance(value, list):
            return None
        before, behind, inside, end = found.groups()
        marks = inside.translate(None, _NUMERIC)
        if marks.strip(b"[], "):
            return None
        space = b" " if b"], [" in inside else b""
        return cls(before, behind, end, b"]]," + space + b"[[", b"]," + space + b"[", marks, (len(value), len(value[0]), 3))

    def numbers(self, payload: bytes) -> tuple[int, bytes] | None:
        """Return the number of a step of this form, and those of its frames, by commas; None for any other message."""
        begun = len(self.before)
        at = payload.find(self.behind, begun, begun + len(self.behind) + 20)
        if at < 0 or not payload.startswith(self.before) or not payload.endswith(self.end):
            return None
        number, inside = payload[begun:at], payload[at + len(self.behind) : -len(self.end)]
        if not number.isdigit() or number[0] == _ZERO or inside.translate(None, _NUMERIC) != self.marks:
            return None
        flat = inside.replace(self.frames, b",").replace(self.joints, b",")
        return None if b"[" in flat or b"]" in flat or int(number) > MAX_STEP else (int(number), flat)


_ZERO = ord("0")


class Done(NamedTuple):
    """A step's result, and the content it is of."""

    stream: FastPath
    result: Result[Scores]
    content: Content


class Intake:
    """The messages that came and the steps that are done in one turn of the event loop. Everything here runs on the loop's thread."""

    def __init__(self, tickets: Tickets) -> None:
        self._tickets = tickets
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
        alike: dict[tuple[int, str | None], list[tuple[Taken, int, bytes]]] = {}
        for one in taken:
            stream = one.stream
            key = id(stream.model), stream.layout
            if stream.form is not None and (found := stream.form.numbers(one.payload)) is not None:
                alike.setdefault(key, []).append((one, *found))
            elif (read := self._read_alone(one)) is not None:
                groups.setdefault(key, []).append(read)
        for flat in alike.values():
            self._submit(_read_flat(flat) or [read for one, _, _ in flat if (read := self._read_alone(one)) is not None])
        for group in groups.values():
            self._submit(group, note=True)

    @staticmethod
    def _read_alone(one: Taken) -> Read | None:
        """Return a message that is a plain step; any other is declined."""
        field = one.stream.model.modality.field
        message = plain_step(one.payload, field)
        if message is None:
            _decline(one)
            return None
        plain = field == "text" or _only_numbers(one.payload, message)
        return Read(one, _number(message), message.get(field) if plain else None)

    def _submit(self, group: list[Read], note: bool = False) -> None:
        """Submit steps of one model and layout; note: the forms of those that are read are looked for in what comes next."""
        if not group:
            return
        first = group[0].taken.stream
        model = first.model
        values = [read.value for read in group]
        rates = [read.taken.stream.hz for read in group]
        asked: list[Asked] = []
        for (taken, number, value), content in zip(group, model.modality.read_alike(values, first.layout, rates), strict=True):
            if content is None:
                _decline(taken)
                continue
            try:
                if note and taken.stream.forms < FORMS:
                    taken.stream.forms += 1
                    taken.stream.form = StepForm.of(taken.payload, value)
                asked.append(taken.stream.ask(number, content, self._tickets))
            except Exception as error:  # of what came behind it on its connection: no reason to let go of the others' steps
                log.exception("a step could not be taken")
                taken.stream.fail(unexpected(error, EngineFailed))
        model.port.submit(asked)

    def _word(self) -> None:
        done, self._done = self._done, []
        groups: dict[tuple[int, int], list[Done]] = {}
        for one in done:
            groups.setdefault((id(one.stream.model), one.stream.top_k), []).append(one)
        for group in groups.values():
            first = group[0].stream
            answers = [(one.result.result, one.content) for one in group]
            try:
                replies = [
                    worded(one.result, words) for one, words in zip(group, first.model.modality.word(answers, first.top_k), strict=True)
                ]
            except Exception as error:  # their steps are stored
                log.exception("replies could not be worded")
                replies = [{"type": "error", **not_known(f"internal error: {type(error).__name__}").body()}] * len(group)
            for one, reply in zip(group, replies, strict=True):
                try:
                    one.stream.answer(reply)
                except Exception:  # one client's connection must not keep the others' replies
                    log.exception("a reply could not be delivered")


def _decline(taken: Taken) -> None:
    try:
        taken.stream.decline(taken.frame)
    except Exception:  # its connection is broken: no reason to let go of the others' messages
        log.exception("a message could not be given back")


def plain_step(payload: bytes, field: str) -> dict[str, object] | None:
    """Return the message, if it is a step with the fields of one and a number that can be one; field: what holds its content."""
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(message, dict) or message.get("type") != "step" or not {"type", "step", field} >= message.keys():
        return None
    number = message.get("step")
    counted = number is None or (type(number) is int and 1 <= number <= MAX_STEP)
    return message if counted else None


def _number(message: dict[str, object]) -> int | None:
    number = message.get("step")
    assert number is None or isinstance(number, int), "plain_step has looked"
    return number


def _only_numbers(payload: bytes, message: dict[str, object]) -> bool:
    """Return whether there is no text, true or false but in the message's own fields: their names and its type are all that is quoted."""
    return payload.count(b'"') == 2 * len(message) + 2 and b"true" not in payload and b"false" not in payload


def _read_flat(alike: list[tuple[Taken, int, bytes]]) -> list[Read] | None:
    """Return steps of known forms, whose numbers are read together; None where one of these is none."""
    shapes = [one.stream.form.shape for one, _, _ in alike if one.stream.form is not None]
    try:
        x: NDArray[np.generic] = np.asarray(orjson.loads(b"[" + b",".join([flat for _, _, flat in alike]) + b"]"))
    except (orjson.JSONDecodeError, ValueError):
        return None
    sizes = [T * J * D for T, J, D in shapes]
    if x.dtype.kind not in "fi" or len(x) != sum(sizes):
        return None
    found, at = [], 0
    for (one, number, _), shape, size in zip(alike, shapes, sizes, strict=True):
        found.append(Read(one, number, x[at : at + size].reshape(shape)))
        at += size
    return found


def worded(result: Result[Scores], words: dict[str, object]) -> dict[str, object]:
    """Return the reply to a step, as it is sent."""
    return {"type": "result", "step": result.number, "position": result.position, **words}
