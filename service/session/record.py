"""A session as bytes: what a store keeps of the last step and of what resampling left over.

One JSON line with the numbers and texts, then the float32 arrays it names, little-endian.
"""

import numpy as np
import orjson

from indrnn.frames.rate import Carry
from indrnn.service.session.machine import Floats, Generated, Reason, Sampling, Scores, Step


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
