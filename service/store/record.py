"""A session as a store keeps it: as bytes on its medium, and in memory beside it those that were used last.

The bytes are one JSON line with the numbers and texts of the last step, or of what resampling left over, then the float32 arrays it names,
little-endian.

With Redis, which others write to, a session and its tag belong together for good: nothing in memory can be wrong, but it may be old, which
the store's own tag says. A file that nobody else may change needs no tags.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import orjson

from indrnn.frames.rate import Carry
from indrnn.service.session.machine import Floats, Generated, Reason, Sampling, Scores, Session, Step

CACHED_SESSIONS = 4_096
CACHED_RESULT = 4_096  # bytes; a session with a longer stored result is read back from the store


class Known(NamedTuple):
    """A session as it was stored, and its tag."""

    session: Session
    tag: bytes


class Kept:
    """A bounded number of sessions. Any thread may ask."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, idents: Iterable[str]) -> dict[str, Known]:
        """Return what is known of some sessions; those of which nothing is known are not in it."""
        with self._lock:
            found = {i: known for i in idents if (known := self._known.get(i)) is not None}
            for i in found:
                self._known.move_to_end(i)
        return found

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
                    self._known.pop(session.id, None)
                    continue
                self._known[session.id] = Known(session.landed, tag)
                self._known.move_to_end(session.id)
            while len(self._known) > CACHED_SESSIONS:
                self._known.popitem(last=False)

    def drop(self, idents: Iterable[str]) -> None:
        """Drop the sessions that are no more."""
        with self._lock:
            for i in idents:
                self._known.pop(i, None)


def result_size(session: Session) -> int:
    """Return the size in bytes of the numbers that its last step answered."""
    result = session.last.result if session.last else None
    if isinstance(result, Scores):
        return result.logits.nbytes + result.every.nbytes + result.logprobs.nbytes
    return 0 if result is None else result.logprobs.nbytes


def encode_step(step: Step) -> bytes:
    """Encode the last step's digest and result."""
    result = step.result
    if isinstance(result, Scores):
        end = ',"end":true' if step.end else ""  # by hand: half of the time of a dictionary and its JSON
        head = f'{{"digest":"{step.digest.hex()}","k":{len(result.logits)},"n":{len(result.logprobs)}{end}}}\n'.encode()
        return head + b"".join([a.astype("<f4", copy=False).tobytes() for a in (result.logits, result.logprobs, result.every) if a.size])
    s = result.sampling
    sampling = [s.max_chars, s.temperature, s.top_p, s.seed, s.stop]
    reason = result.reason.value if result.reason else None
    drawn: dict[str, object] = {"digest": step.digest.hex(), "sampling": sampling, "text": result.text, "reason": reason}
    return _line(drawn) + result.logprobs.astype("<f4").tobytes()


def decode_step(data: bytes) -> Step:
    """Decode what encode_step has encoded."""
    line, _, raw = data.partition(b"\n")
    head = orjson.loads(line)
    floats = np.frombuffer(raw, "<f4").astype(np.float32, copy=False)
    digest = bytes.fromhex(head["digest"])
    if "sampling" not in head:
        logits, logprobs, every = np.split(floats, [head["k"], head["k"] + head["n"]])
        return Step(digest, Scores(logits, every.reshape(-1, head["k"]), logprobs), head.get("end", False))
    max_chars, temperature, top_p, seed, stop = head["sampling"]
    reason = Reason(head["reason"]) if head["reason"] else None
    return Step(digest, Generated(Sampling(max_chars, temperature, top_p, seed, tuple(stop)), head["text"], floats, reason))


def encode_carry(carry: Carry) -> bytes:
    """Encode what resampling left over."""
    head = {"hz": carry.hz, "phase": [carry.numerator, carry.denominator], "shape": carry.frame.shape}
    return _line(head) + carry.frame.astype("<f4").tobytes()


def decode_carry(data: bytes) -> Carry:
    """Decode what encode_carry has encoded."""
    line, _, raw = data.partition(b"\n")
    head = orjson.loads(line)
    frame: Floats = np.frombuffer(raw, "<f4").astype(np.float32, copy=False).reshape(head["shape"])
    return Carry(head["hz"], frame, head["phase"][0], head["phase"][1])


def _line(head: dict[str, object]) -> bytes:
    return orjson.dumps(head) + b"\n"
