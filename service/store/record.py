"""A session as a store keeps it: as bytes on its medium, and in memory beside it those that were used last.

The bytes are one JSON line with the numbers and texts of the last step, of a kept state, or of what resampling left over, then the float32
arrays it names, little-endian. A kept state is written once, when the session leaves it, and removed when it gives way.

With Redis, which others write to, a session and its tag belong together for good: nothing in memory can be wrong, but it may be old, which
the store's own tag says. A file that nobody else may change needs no tags.
"""

import logging
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
import orjson

from indrnn.frames.rate import Carry
from indrnn.service.logs import about
from indrnn.service.session.machine import Floats, Generated, History, Reason, Return, Sampling, Scores, Session, Snapshot, Step

log = logging.getLogger(__name__)

_DAMAGED = (ValueError, TypeError, LookupError, sqlite3.Error)  # what damage leads to; of anything else the log has where it was

R = TypeVar("R")
T = TypeVar("T")

CACHED_SESSIONS = 4_096  # where they keep states, each of those counts as one more
CACHED_RESULT = 4_096  # bytes; a session with a longer stored result is read back from the store


class Known(NamedTuple):
    """A session as it was stored, and its tag."""

    session: Session
    tag: bytes


class Kept:
    """A bounded number of sessions. Any thread may ask."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._past = 0  # kept states of all that is known
        self._lock = threading.Lock()

    def find(self, idents: Iterable[str]) -> dict[str, Known]:
        """Return what is known of some sessions; those of which nothing is known are not in it."""
        with self._lock:
            found = {i: known for i in idents if (known := self._known.get(i)) is not None}
            for i in found:
                self._known.move_to_end(i)
        return found

    def living_beyond(self, at: float) -> int:
        """Return how many known sessions live beyond a time."""
        with self._lock:
            return sum(known.session.expires_at > at for known in self._known.values())

    def tag_of(self, session: Session) -> bytes | None:
        """Return the tag of a session that is this very object; None where another one or none is known."""
        known = self._known.get(session.id)
        return known.tag if known is not None and known.session is session else None

    def keep(self, sessions: Iterable[tuple[Session, bytes]]) -> None:
        """Keep sessions as they are stored, each with its tag; those used least lately give way.

        What is in flight is left out: it is not stored.
        """
        with self._lock:
            for session, tag in sessions:
                if session.last is not None and result_size(session) > CACHED_RESULT:
                    self._drop(session.id)
                    continue
                if session.history is not None:
                    self._drop(session.id)
                    self._past += len(session.history.past)
                self._known[session.id] = Known(session if session.flight is None else session.landed, tag)
                self._known.move_to_end(session.id)
            while len(self._known) + self._past > CACHED_SESSIONS:
                self._drop(next(iter(self._known)))

    def drop(self, idents: Iterable[str]) -> None:
        """Drop the sessions that are no more."""
        with self._lock:
            for i in idents:
                self._drop(i)

    def _drop(self, ident: str) -> None:
        known = self._known.pop(ident, None)
        if known is not None and known.session.history is not None:
            self._past -= len(known.session.history.past)


def read_each(rows: Mapping[str, R], read: Callable[[str, R], T]) -> tuple[dict[str, T], dict[str, Exception]]:
    """Return the sessions of these ids that can be read from what the store has of them, and what is wrong with the others."""
    found: dict[str, T] = {}
    wrong: dict[str, Exception] = {}
    for ident, row in rows.items():
        try:
            found[ident] = read(ident, row)
        except MemoryError:
            raise  # no session's fault
        except Exception as error:  # whatever it is, the others' are whole
            log.error(
                "what the store has of a session cannot be read: %s",
                f"{type(error).__name__}: {error}"[:200],
                exc_info=not isinstance(error, _DAMAGED),
                extra=about(None, ident),
            )
            wrong[ident] = error
    return found, wrong


class Rewritten(NamedTuple):
    """A commit's changes of the states that a session keeps: those that are new, and the steps of those that gave way.

    `history` is what it keeps now, or None where marks and bound stay as they are.
    """

    new: tuple[Snapshot, ...]
    gone: tuple[int, ...]
    history: History | None


def rewritten(before: Session | None, after: Session | None) -> Rewritten:
    """Return what is to be written of the kept states."""
    was, will = before.history if before else None, after.history if after else None
    there = {at.step: at for at in was.past} if was else {}
    past = will.past if will else ()
    new = tuple(at for at in past if there.get(at.step) is not at)
    kept = {at.step for at in past}
    gone = tuple(step for step in there if step not in kept)
    same = was is not None and will is not None and (was.keep, was.marks) == (will.keep, will.marks)
    return Rewritten(new, gone, None if same else will)


def result_size(session: Session) -> int:
    """Return the size in bytes of the numbers that its last step answered."""
    result = session.last.result if session.last else None
    if isinstance(result, Scores):
        return result.logits.nbytes + result.every.nbytes + result.logprobs.nbytes
    return result.logprobs.nbytes if isinstance(result, Generated) else 0


def little(numbers: Floats) -> Floats:
    """Return numbers as little-endian float32, which they are already on nearly every machine."""
    return numbers if numbers.dtype is _LITTLE else numbers.astype(_LITTLE)


_LITTLE = np.dtype("<f4")


def encode_step(step: Step, beside: Floats | None = None) -> bytes:
    """Encode the last step's digest and result; beside: numbers of the session that services of 0.1.0 know nothing of, and read past."""
    result = step.result
    if isinstance(result, Scores):
        _, every, logprobs, doubts = result
        if not (step.end or len(logprobs) or every.size or beside is not None):  # nearly all there is: a fifth of the time
            said = _doubts(doubts) if doubts else b""
            head = b'{"digest":"%b","k":%d,"n":0%b}\n' % (step.digest.hex().encode(), len(result.logits), said)
            return head + little(result.logits).tobytes()
        end = ',"end":true' if step.end else ""  # by hand: half of the time of a dictionary and its JSON
        end += _doubts(doubts).decode() if doubts else ""
        if beside is not None:
            end += f',"beside":"{little(beside).tobytes().hex()}"'
        head = f'{{"digest":"{step.digest.hex()}","k":{len(result.logits)},"n":{len(result.logprobs)}{end}}}\n'.encode()
        return head + b"".join([little(a).tobytes() for a in (result.logits, result.logprobs, result.every) if a.size])
    if isinstance(result, Return):
        return _line({"digest": step.digest.hex(), "rewound_to": result.step})
    s = result.sampling
    sampling = [s.max_chars, s.temperature, s.top_p, s.seed, s.stop]
    reason = result.reason.value if result.reason else None
    drawn: dict[str, object] = {"digest": step.digest.hex(), "sampling": sampling, "text": result.text, "reason": reason}
    return _line(drawn) + result.logprobs.astype("<f4").tobytes()


@lru_cache(maxsize=256)
def _doubts(names: tuple[str, ...]) -> bytes:
    return b',"doubts":' + orjson.dumps(names)


def decode_step(data: bytes) -> Step:
    """Decode what encode_step has encoded."""
    line, _, raw = data.partition(b"\n")
    head = orjson.loads(line)
    floats = np.frombuffer(raw, "<f4").astype(np.float32, copy=False)
    digest = bytes.fromhex(head["digest"])
    if "rewound_to" in head:
        return Step(digest, Return(head["rewound_to"]))
    if "sampling" not in head:
        logits, logprobs, every = np.split(floats, [head["k"], head["k"] + head["n"]])
        scores = Scores(logits, every.reshape(-1, head["k"]), logprobs, tuple(head.get("doubts", ())))
        return Step(digest, scores, head.get("end", False))
    max_chars, temperature, top_p, seed, stop = head["sampling"]
    reason = Reason(head["reason"]) if head["reason"] else None
    return Step(digest, Generated(Sampling(max_chars, temperature, top_p, seed, tuple(stop)), head["text"], floats, reason))


def decode_beside(data: bytes) -> Floats | None:
    """Return the numbers beside a step that encode_step has encoded; None where there are none."""
    if b'"beside":"' not in (line := data.partition(b"\n")[0]):
        return None
    told = orjson.loads(line).get("beside")
    return None if told is None else np.frombuffer(bytes.fromhex(told), "<f4").astype(np.float32, copy=False)


def encode_carry(carry: Carry) -> bytes:
    """Encode what resampling left over."""
    head: dict[str, object] = {"hz": carry.hz, "phase": [carry.numerator, carry.denominator], "shape": carry.frame.shape}
    if carry.timed:
        head["times"] = [carry.start, carry.last, carry.count]
    return _line(head) + carry.frame.astype("<f4").tobytes()


def decode_carry(data: bytes) -> Carry:
    """Decode what encode_carry has encoded."""
    line, _, raw = data.partition(b"\n")
    head = orjson.loads(line)
    frame: Floats = np.frombuffer(raw, "<f4").astype(np.float32, copy=False).reshape(head["shape"])
    return Carry(head["hz"], frame, *head["phase"], *head.get("times", ()))


def encode_snapshot(at: Snapshot) -> bytes:
    """Encode a kept state: its step, its position and the size of its state, then state and carry."""
    carry = encode_carry(at.carry) if at.carry else b""
    return b"".join([_line([at.step, at.position, at.state.nbytes]), at.state.astype("<f4", copy=False).tobytes(), carry])


def decode_snapshot(data: bytes) -> Snapshot:
    """Decode what encode_snapshot has encoded."""
    line, _, raw = data.partition(b"\n")
    step, position, size = orjson.loads(line)
    state: Floats = np.frombuffer(raw[:size], "<f4").astype(np.float32, copy=False)
    return Snapshot(state, step, position, decode_carry(raw[size:]) if len(raw) > size else None)


def encode_marks(marks: tuple[tuple[str, int], ...]) -> bytes:
    """Encode a session's marks."""
    return orjson.dumps(marks)


def decode_marks(data: bytes) -> tuple[tuple[str, int], ...]:
    """Decode what encode_marks has encoded."""
    return tuple((name, step) for name, step in orjson.loads(data))


def _line(head: dict[str, object] | list[int]) -> bytes:
    return orjson.dumps(head) + b"\n"
