"""What fronts and an engine's process say to each other, as bytes: nothing is run to read them.

A message is a head of 8 bytes, little-endian, and at most 256 KiB behind it:

    u32 bytes behind the head | u8 kind, a line of Kind | 3 bytes, zero

What is longer comes as pieces, each but the last PIECE, the last of them LAST with the kind in its head's sixth byte, and nothing comes
between.
ASKED and TOLD hold parts, each a head of 16 bytes, its fields, and zeros up to a multiple of eight:

    u32 bytes behind the head | u32 count | u16 model | u8 form, a line of PartForm | u8 flags | 4 bytes, zero

    GENERAL   so many times: u64 bytes, those bytes of engine/codec.py, zeros up to a multiple of eight
    STEPS     plain steps that are alike but for session, number, digest and numbers:
              u32 bytes of texts | u8 protocol | u8 type | u8 axes | zero | f64 patience | f64 hz | u32 x 6 sizes of x
              u64 tickets | i64 numbers, -1: the engine counts | digests of 16 bytes | texts, JSON: owner, ids | x, one after another
    INFERS    contents without a session, alike but for their numbers: as STEPS, without numbers, digests and texts
    RESULTS   results of content with as many logits and as long states:
              u32 bytes of texts | u32 K | u32 N + 1, 0: no states | zero | u64 tickets | i64 numbers | i64 positions | texts, JSON: doubts
              u32 time steps of each | u32 logprobs of each | logits [n, K] | states [n, N] | every [t, K] of each | logprobs of each
    TIMES     of the engine's turn that the parts behind it come from, where it is traced: u64 rows | u64 ns of the run | of the commit

The model is the engine's number of it; a ticket is a number of the front, whose epoch the first message has said. A time that is not a
number stands for none. Steps that are alike are one part only where they came one after another: the order is that of the asking.
"""

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from indrnn.service.engine.codec import CodecError, decode, encode
from indrnn.service.engine.loop import tickets_of
from indrnn.service.engine.requests import Asked, Content, Delivery, Exact, Frames, InferRequest, StepRequest, Ticket
from indrnn.service.session.machine import Floats, Result, Scores
from indrnn.service.tracing import Times

T = TypeVar("T")

FORMAT = 1  # of all this; another is refused in the hello
LONGEST = 2**18  # bytes behind a head
WHOLE = 2**28  # bytes of a message in pieces: every clip of one request together has fewer
HEAD = struct.Struct("<IBB2x")
PART = struct.Struct("<IIHBB4x")
STEPS = struct.Struct("<IBBBxdd6I4x")
RESULTS = struct.Struct("<III4x")
TIMES = struct.Struct("<3Q")
PROTOCOLS = ("http", "stream", "oip_http", "oip_grpc", "openai")
DTYPES = tuple(np.dtype(name) for name in ("<f4", "<i8", "<f8", "<f2"))
F4 = DTYPES[0]
new = tuple.__new__  # of a named tuple with all its fields: half of the time of the class's own call
AXES = 6
NO_FLOATS: Floats = np.zeros(0, np.float32)
DIGEST = 16  # bytes


class Kind(IntEnum):
    """The kinds of messages, and who says them."""

    HELLO = 1  # both, first: versions, the front's epoch
    ASKED = 2  # front: requests
    TOLD = 3  # engine: deliveries
    WITHDRAWN = 4  # front: tickets, u64, of whom nobody waits
    CALL = 5  # front: u64 number, and what is asked beside steps
    RETURNED = 6  # engine: u64 number, and the answer
    NOTE = 7  # both: what is to be known, without an answer
    PIECE = 8  # both: of a longer message
    LAST = 9  # both: the last piece


class PartForm(IntEnum):
    """How a part is written."""

    GENERAL = 1
    STEPS = 2
    INFERS = 3
    RESULTS = 4
    TIMES = 5


EXACT, EVERY, WATCH, BEGIN, END, SEEN, STATE, TOGETHER = (1 << i for i in range(8))
"""Flags of a part: x is read as it is; options of its steps; no joint is missing; the state is told; all are taken or none."""

OfModel = tuple[int, Sequence[Asked], bool]
"""Requests to the model of that number; whether all are taken or none."""


class LinkError(Exception):
    """The bytes are no message of this format, or the other side speaks another."""


# --- messages of parts, and pieces ------------------------------------------------------------------------------------------------------


def framed(kind: Kind, body: bytes) -> bytes:
    """Return a message, in pieces where it is a long one. Raises LinkError for one that is too long even so."""
    if len(body) <= LONGEST:
        return HEAD.pack(len(body), kind, 0) + body
    if len(body) > WHOLE:
        raise LinkError(f"expected at most {WHOLE} bytes of one message, got {len(body)}")
    cut = [body[at : at + LONGEST] for at in range(0, len(body), LONGEST)]
    pieces = [HEAD.pack(LONGEST, Kind.PIECE, 0) + piece for piece in cut[:-1]]
    return b"".join([*pieces, HEAD.pack(len(cut[-1]), Kind.LAST, kind), cut[-1]])


class Reader:
    """The bytes that came in, cut into messages."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._pieces: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the messages, kind and body, that are whole with these bytes. Raises LinkError."""
        waiting = self._waiting
        waiting += data
        at = 0
        try:
            while len(waiting) - at >= HEAD.size:
                size, kind, of = HEAD.unpack_from(waiting, at)
                if size > LONGEST:
                    raise LinkError(f"expected at most {LONGEST} bytes of a message, got {size}")
                if len(waiting) - at < HEAD.size + size:
                    break
                body = bytes(memoryview(waiting)[at + HEAD.size : at + HEAD.size + size])
                at += HEAD.size + size
                if kind in (Kind.PIECE, Kind.LAST):
                    self._gather(body)
                    if kind == Kind.PIECE:
                        continue
                    kind, body = of, b"".join(self._pieces)
                    self._pieces, self._size = [], 0
                elif self._pieces:
                    raise LinkError(f"expected another piece of a message, got kind {kind}")
                yield kind, body
        finally:
            del waiting[:at]  # also where whoever takes a message fails: it does not come twice

    def _gather(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > WHOLE:
            raise LinkError(f"expected at most {WHOLE} bytes of one message, got more")


def messages(kind: Kind, parts: Sequence[bytes]) -> Iterator[bytes]:
    """Yield parts as messages, as many in one as have room."""
    held: list[bytes] = []
    size = 0
    for part in parts:
        if held and size + len(part) > LONGEST:
            yield framed(kind, b"".join(held))
            held, size = [], 0
        held.append(part)
        size += len(part)
    if held:
        yield framed(kind, b"".join(held))


class Packed(NamedTuple):
    """A part of a message, in `data` from `at`."""

    form: int
    flags: int
    model: int
    rows: int
    data: bytes
    at: int
    end: int


def parts(body: bytes) -> Iterator[Packed]:
    """Yield the parts of a message. Raises LinkError."""
    at = 0
    while at < len(body):
        if len(body) - at < PART.size:
            raise LinkError("expected the head of a part")
        size, count, model, form, flags = PART.unpack_from(body, at)
        at += PART.size
        if size % 8 or size > len(body) - at:
            raise LinkError(f"expected a part within its message, got {size} bytes in {len(body) - at}")
        yield Packed(form, flags, model, count, body, at, at + size)
        at += size


def _part(form: PartForm, flags: int, model: int, count: int, fields: Sequence[bytes]) -> bytes:
    data = b"".join([field + bytes(-len(field) % 8) if len(field) % 8 else field for field in fields])
    return PART.pack(len(data), count, model, form, flags) + data


class _Fields:
    """The fields of a part, which are taken one after another."""

    def __init__(self, part: Packed) -> None:
        self.data, self._at, self._end = part.data, part.at, part.end

    def head(self, layout: struct.Struct) -> tuple[int, ...]:
        """Return the fields of fixed sizes."""
        return layout.unpack_from(self.data, self._take(layout.size))

    def array(self, dtype: "np.dtype[np.generic]", count: int) -> "NDArray[np.generic]":
        """Return so many numbers. Raises LinkError where the part has fewer."""
        return np.frombuffer(self.data, dtype, count, self._take(count * dtype.itemsize))

    def raw(self, size: int) -> bytes:
        """Return so many bytes."""
        at = self._take(size)
        return self.data[at : at + size]

    def ended(self) -> None:
        """Raises LinkError where more fields came."""
        if self._at != self._end:
            raise LinkError(f"expected the end of a part, got {self._end - self._at} bytes more")

    def _take(self, size: int) -> int:
        at = self._at
        self._at += size + -size % 8
        if self._at > self._end:
            raise LinkError(f"expected {size} bytes of a part, got {self._end - at}")
        return at


# --- requests ---------------------------------------------------------------------------------------------------------------------------


class _Alike(NamedTuple):
    """What steps of one part have in common."""

    form: PartForm
    flags: int
    owner: str
    protocol: str
    patience: float | None
    hz: float | None
    shape: tuple[int, ...]
    dtype: "np.dtype[np.generic]"


def asked_parts(model: int, asked: Sequence[Asked], whole: bool) -> Iterator[bytes]:
    """Yield requests as parts: plain steps that are alike together, anything else as the codec has it.

    whole: all are taken or none, where they are more than one: then they are one part.
    """
    together = TOGETHER if whole and len(asked) > 1 else 0
    alikes = [_alike(one.request) for one in asked]
    if together and (alikes[0] is None or any(alike != alikes[0] for alike in alikes)):
        yield _general(model, asked, together)
        return
    begun = 0
    for i in range(1, len(asked) + 1):
        alike = alikes[begun]
        if i < len(asked) and alike is not None and alikes[i] == alike and (together or (i - begun) * _size(alike) < LONGEST):
            continue
        group = asked[begun:i]
        begun = i
        packed = None if alike is None else _packed(model, _Alike(*alike), group, together)
        yield _general(model, group, together) if packed is None else packed


def _general(model: int, things: Sequence[object], flags: int = 0) -> bytes:
    fields: list[bytes] = []
    for thing in things:
        data = encode(thing)
        fields += [len(data).to_bytes(8, "little"), data]
    return _part(PartForm.GENERAL, flags, model, len(things), fields)


Likeness = tuple[PartForm, int, str, str, float | None, float | None, tuple[int, ...], "np.dtype[np.generic]"]
"""The fields of an _Alike, as they are compared: a tuple takes a tenth of the time."""


def _size(alike: Likeness) -> int:
    """Return the bytes of the numbers of one step."""
    *_, shape, dtype = alike
    return math.prod(shape) * dtype.itemsize


def _alike(request: object) -> Likeness | None:
    """Return what a plain step shares with others; None for what only the codec can write."""
    if type(request) is StepRequest:
        _, owner, number, digest, content, every, watch, begin, end, patience, protocol, tell_state = request
        if (number is not None and not 0 <= number < 2**63) or len(digest) != DIGEST:
            return None
        form, flags = PartForm.STEPS, (EVERY if every else 0) | (WATCH if watch else 0) | (BEGIN if begin else 0) | (END if end else 0)
    elif type(request) is InferRequest:
        content, every, state, patience, protocol, tell_state = request
        if state is not None:
            return None
        owner, form, flags = "", PartForm.INFERS, EVERY if every else 0
    else:
        return None
    if tell_state:
        flags |= STATE
    hz = None
    if type(content) is Frames:
        if content.t is not None or content.warnings:
            return None
        hz = content.hz
        if content.whole:
            flags |= SEEN
    else:
        flags |= EXACT
    x = content.x
    if protocol not in PROTOCOLS or x.ndim > AXES or x.dtype not in DTYPES or patience != patience or hz != hz:
        return None
    return form, flags, owner, protocol, patience, hz, x.shape, x.dtype


def _packed(model: int, alike: _Alike, group: Sequence[Asked], together: int) -> bytes | None:
    """Return plain steps that are alike as a part; None where a text is one that JSON cannot hold."""
    n = len(group)
    requests: Sequence[StepRequest | InferRequest] = [one.request for one in group]  # type: ignore[misc]  # `_alike` has looked
    fields = [struct.pack(f"<{n}Q", *[one.ticket.number for one in group])]
    texts = b""
    if alike.form is PartForm.STEPS:
        steps: Sequence[StepRequest] = requests  # type: ignore[assignment]
        try:
            texts = orjson.dumps([alike.owner, *[step.session_id for step in steps]])
        except TypeError:  # a lone surrogate
            return None
        fields.append(struct.pack(f"<{n}q", *[-1 if step.number is None else step.number for step in steps]))
        fields += [b"".join([step.digest for step in steps]), texts]
    xs = [request.content.x.tobytes() for request in requests]
    fields.append(xs[0] if n == 1 else b"".join(xs))
    sizes = (*alike.shape, *(0,) * (AXES - len(alike.shape)))
    nothing = math.nan
    head = STEPS.pack(
        len(texts),
        PROTOCOLS.index(alike.protocol),
        DTYPES.index(alike.dtype),
        len(alike.shape),
        nothing if alike.patience is None else alike.patience,
        nothing if alike.hz is None else alike.hz,
        *sizes,
    )
    return _part(alike.form, alike.flags | together, model, n, [head, *fields])


def read_asked(part: Packed, epoch: int) -> list[Asked]:
    """Return the requests of a part. Raises LinkError."""
    if part.form == PartForm.GENERAL:
        asked = list(_read_general(part, Asked))
        if any(ticket.epoch != epoch for one in asked for ticket in tickets_of(*one)):
            raise LinkError("expected tickets of the front that sent them")
        return asked
    if part.form not in (PartForm.STEPS, PartForm.INFERS):
        raise LinkError(f"expected requests, got a part of form {part.form}")
    n, flags, fields = part.rows, part.flags, _Fields(part)
    size, protocol, dtype, axes, patience, hz, *sizes = fields.head(STEPS)
    if protocol >= len(PROTOCOLS) or dtype >= len(DTYPES) or axes > AXES or n < 1:
        raise LinkError("expected a protocol, a type and axes that there are")
    shape, name = tuple(sizes[:axes]), PROTOCOLS[protocol]
    tickets = fields.array(_U8, n).tolist()
    if part.form == PartForm.STEPS:
        numbers = fields.array(_I8, n).tolist()
        digests = fields.raw(n * DIGEST)
        owner, ids = _texts(fields.raw(size), n)
    x = fields.array(DTYPES[dtype], n * math.prod(shape)).reshape(n, *shape)
    fields.ended()
    wait = None if patience != patience else float(patience)
    contents = _contents(x, flags, None if hz != hz else float(hz))
    every, tell_state = bool(flags & EVERY), bool(flags & STATE)
    if part.form == PartForm.INFERS:
        return [
            Asked(Ticket(epoch, ticket), InferRequest(content, every, None, wait, name, tell_state))
            for ticket, content in zip(tickets, contents, strict=True)
        ]
    watch, begin, end = bool(flags & WATCH), bool(flags & BEGIN), bool(flags & END)
    cut = [digests[at : at + DIGEST] for at in range(0, len(digests), DIGEST)]
    counted = [None if number < 0 else number for number in numbers]
    options = every, watch, begin, end, wait, name, tell_state
    return [
        new(Asked, (new(Ticket, (epoch, ticket)), new(StepRequest, (ident, owner, number, digest, content, *options))))
        for ticket, ident, number, digest, content in zip(tickets, ids, counted, cut, contents, strict=True)
    ]


def _contents(x: "NDArray[np.generic]", flags: int, hz: float | None) -> Sequence[Content]:
    if flags & EXACT:
        return [Exact(one) for one in x]
    if x.dtype != F4:
        raise LinkError(f"expected frames of float32, got {x.dtype}")
    seen = bool(flags & SEEN)
    return [new(Frames, (one, hz, seen, (), None)) for one in x]


def _texts(raw: bytes, n: int) -> tuple[str, list[str]]:
    try:
        owner, *ids = orjson.loads(raw)
    except (orjson.JSONDecodeError, ValueError, TypeError) as error:
        raise LinkError(f"expected texts: {error}") from None
    if len(ids) != n or type(owner) is not str or any(type(one) is not str for one in ids):
        raise LinkError(f"expected an owner and {n} ids")
    return owner, ids


def _read_general(part: Packed, kind: type[T]) -> Iterator[T]:
    fields = _Fields(part)
    for _ in range(part.rows):
        size = int.from_bytes(fields.raw(8), "little")
        try:
            yield decode(fields.raw(size), kind)
        except CodecError as error:
            raise LinkError(str(error)) from error
    fields.ended()


# --- replies ----------------------------------------------------------------------------------------------------------------------------

TellsState = Callable[[int], bool]
"""Says of a ticket's number whether its answer has the state."""


def told_parts(deliveries: Sequence[Delivery], tells_state: TellsState) -> Iterator[bytes]:
    """Yield deliveries as parts, in their order: results that are alike together, anything else as the codec has it."""
    alike: tuple[int, int, tuple[str, ...]] | None = None
    group: list[tuple[int, Result[Scores], Floats | None]] = []
    size = 0
    for delivery in deliveries:
        ticket, reply, states, final = delivery
        told = None
        if type(reply) is Result and type(reply.result) is Scores and final and states is None and _is_plain(reply):  # type: ignore[arg-type]  # of Scores
            state = reply.state if tells_state(ticket.number) else None
            told = len(reply.result.logits), -1 if state is None else len(state), reply.result.doubts
        if group and (told != alike or size >= LONGEST):
            assert alike is not None, "of a group"
            yield _results(*alike, group)
            group, size = [], 0
        if told is None:
            yield _general(0, [_without_state(delivery, tells_state)])
            continue
        alike = told
        group.append((ticket.number, reply, state))  # type: ignore[arg-type]  # a result of content
        size += _size_of_result(reply, state)  # type: ignore[arg-type]  # of Scores
    if group:
        assert alike is not None, "of a group"
        yield _results(*alike, group)


def _size_of_result(reply: Result[Scores], state: Floats | None) -> int:
    scores = reply.result
    return scores.logits.nbytes + scores.every.nbytes + scores.logprobs.nbytes + (0 if state is None else state.nbytes)


def _is_plain(reply: Result[Scores]) -> bool:
    """Return whether the numbers are of the types and sizes that a part of results has."""
    logits, every = reply.result.logits, reply.result.every
    return (
        logits.dtype is F4
        and logits.ndim == 1
        and every.shape[1:] == logits.shape
        and 0 <= reply.number < 2**63
        and 0 <= reply.position < 2**63
    )


def _without_state(delivery: Delivery, tells_state: TellsState) -> Delivery:
    reply = delivery.reply
    if isinstance(reply, Result) and reply.state is not None and not tells_state(delivery.ticket.number):
        return delivery._replace(reply=reply._replace(state=None))
    return delivery


def _results(K: int, N: int, doubts: tuple[str, ...], group: Sequence[tuple[int, Result[Scores], Floats | None]]) -> bytes:
    n = len(group)
    scores = [result.result for _, result, _ in group]
    texts = orjson.dumps(doubts)
    fields = [
        RESULTS.pack(len(texts), K, N + 1),
        struct.pack(f"<{n}Q", *[number for number, _, _ in group]),
        struct.pack(f"<{n}q", *[result.number for _, result, _ in group]),
        struct.pack(f"<{n}q", *[result.position for _, result, _ in group]),
        texts,
        struct.pack(f"<{n}I", *[len(s.every) for s in scores]),
        struct.pack(f"<{n}I", *[len(s.logprobs) for s in scores]),
        b"".join([s.logits.astype(F4, copy=False).tobytes() for s in scores]),
        b"".join([state.astype(F4, copy=False).tobytes() for _, _, state in group if state is not None]),
        b"".join([s.every.astype(F4, copy=False).tobytes() for s in scores if s.every.size]),
        b"".join([s.logprobs.astype(F4, copy=False).tobytes() for s in scores if s.logprobs.size]),
    ]
    return _part(PartForm.RESULTS, 0, 0, n, fields)


def read_told(part: Packed, epoch: int) -> Sequence[Delivery]:
    """Return the deliveries of a part. Raises LinkError."""
    if part.form == PartForm.GENERAL:
        return list(_read_general(part, Delivery))
    if part.form != PartForm.RESULTS:
        raise LinkError(f"expected replies, got a part of form {part.form}")
    n, fields = part.rows, _Fields(part)
    size, K, states_of = fields.head(RESULTS)
    N = max(0, states_of - 1)
    tickets = fields.array(_U8, n).tolist()
    numbers = fields.array(_I8, n).tolist()
    positions = fields.array(_I8, n).tolist()
    doubts = _doubts(fields.raw(size))
    steps, scored = fields.array(_U4, n).tolist(), fields.array(_U4, n).tolist()
    logits = fields.array(F4, n * K).reshape(n, K)
    states = fields.array(F4, n * N).reshape(n, N)
    every = _cut(fields.array(F4, sum(steps) * K), [t * K for t in steps])
    logprobs = _cut(fields.array(F4, sum(scored)), scored)
    fields.ended()
    no_every = np.zeros((0, K), np.float32)
    return [
        Delivery(
            Ticket(epoch, tickets[i]),
            Result(
                numbers[i],
                positions[i],
                Scores(logits[i], every[i].reshape(steps[i], K) if steps[i] else no_every, logprobs[i], doubts),
                states[i] if states_of else None,
            ),
        )
        for i in range(n)
    ]


def times_part(times: Times) -> bytes:
    """Return the times of an engine's turn as a part."""
    return _part(PartForm.TIMES, 0, 0, 1, [TIMES.pack(*times)])


def read_times(part: Packed) -> Times:
    """Return the times of a part. Raises LinkError."""
    fields = _Fields(part)
    times = Times(*fields.head(TIMES))
    fields.ended()
    return times


def _cut(numbers: "NDArray[np.generic]", sizes: Sequence[int]) -> list[Floats]:
    if not len(numbers):
        return [NO_FLOATS] * len(sizes)
    return np.split(numbers, np.cumsum(sizes)[:-1])


def _doubts(raw: bytes) -> tuple[str, ...]:
    try:
        doubts = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise LinkError(f"expected texts: {error}") from None
    if type(doubts) is not list or any(type(one) is not str for one in doubts):
        raise LinkError("expected texts")
    return tuple(doubts)


_U8, _I8, _U4 = np.dtype("<u8"), np.dtype("<i8"), np.dtype("<u4")
