"""Every parser of what strangers send, under changed bytes and changed JSON: each case is read, or refused in words, and fast.

    python tests/fuzz/fuzz_run.py --seconds 60 --seed 1 [--only frames]

Cases come from good messages: bits and bytes changed, cut, doubled and joined, lengths and numbers at their extremes, values of JSON
put in place of others. What ends in anything but an error that the service answers with 4xx, or takes longer than a second, is printed
as it can be run again, and the end is 1.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from indrnn.export.bundle import BundleError, read
from indrnn.frames.rate import Carry
from indrnn.service.engine.codec import CodecError
from indrnn.service.engine.codec import decode as decode_message
from indrnn.service.engine.codec import encode as encode_message
from indrnn.service.engine.requests import Asked, Delivery, Exact, Frames, InferRequest, StepRequest, Ticket
from indrnn.service.errors import ServiceError, status
from indrnn.service.oip import message, rows
from indrnn.service.oip.rows import InferLimits
from indrnn.service.openai.request import CompletionLimits, read_wish
from indrnn.service.serving.request import KeysError, decompress, parse_object, read_keys
from indrnn.service.serving.signature import Own, OwnTensor, Signature, Spec
from indrnn.service.serving.skeleton import SkeletonModality
from indrnn.service.serving.text import TextModality, stop_texts
from indrnn.service.session.machine import Refused, Result, Scores, Session
from indrnn.service.session.state_file import check, decode, encode
from indrnn.service.stream.plain_steps import plain_step

ROOT = Path(__file__).parent.parent.parent
SLOW, HANGS = 1.0, 20.0  # seconds of the processor that no case may take, and by the clock
ACTION, CHARS = read(ROOT / "bundles/action/1").manifest, read(ROOT / "bundles/chars/2").manifest
WAVE = json.loads((ROOT / "examples" / "wave.json").read_text())["sequences"][0]
EXTREMES = [0, 1, -1, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, -(2**63), 2**64, 10**400, 0.0, -0.0, 1e-320, 1e308, 1e39, -1e39]
VALUES: list[Any] = [
    *EXTREMES,
    None,
    True,
    False,
    "",
    "x",
    "\ud800",
    "\x00",
    "é" * 40,
    [],
    {},
    [[]],
    [None],
    {"": 0},
    [0.0] * 300,
    "9" * 400,
]


class Target(NamedTuple):
    """A parser: what good bytes it reads, and how it reads any. `allowed`: what it may raise."""

    name: str
    seeds: list[bytes]
    run: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...] = (ServiceError,)


# --- the parsers --------------------------------------------------------------------------------------------------------------------------


def request(arrays: dict[str, np.ndarray], raw: bool, **more: Any) -> bytes:
    """Return a request of the Open Inference Protocol with its header's length before it, tensors in JSON or as bytes behind it."""
    tensors, tail = [], b""
    for name, array in arrays.items():
        datatype = {"f2": "FP16", "f4": "FP32", "i8": "INT64"}[array.dtype.str[1:]]
        one: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if raw:
            one["parameters"] = {"binary_data_size": array.nbytes}
            tail += array.tobytes()
        else:
            one["data"] = array.reshape(-1).tolist()
        tensors.append(one)
    head = orjson.dumps({"inputs": tensors, **more})
    return len(head).to_bytes(4, "little") + head + tail


def reading(signature: Signature) -> Callable[[bytes], object]:
    """Return what reads such requests for a model."""
    bounds = InferLimits(64, 5_000, 1_024, 2**24)

    def run(data: bytes) -> object:
        length = int.from_bytes(data[:4], "little")
        body = data[4:]
        ask = message.read(body, length if length <= len(body) else None)
        return rows.read(ask, signature, bounds)

    return run


def infer() -> Target:
    """Requests of the Open Inference Protocol, JSON with tensors behind it."""
    x = {"x": np.array(WAVE[:2], np.float32)[None, :, None]}
    held = x | {"state": np.zeros((1, ACTION.state_size), np.float32)}
    sequence = {"parameters": {"sequence_id": 7, "sequence_start": True, "indrnn_step": 1, "timeout": 100}}
    wanted = {"outputs": [{"name": "logits", "parameters": {"binary_data": True}}], "id": "a"}
    seeds = [
        request(x, True),
        request(x, False),
        request(x, True, **sequence),
        request(held, True, **wanted),
        request(held, False, **wanted),
    ]
    return Target("infer", seeds, reading(Signature.of(ACTION)))


def own() -> Target:
    """The same of an adopted file, by the names and in the types that it has itself."""
    obs, go = OwnTensor(Spec("obs", "FP16", (-1, -1, 4, 10)), True, 0, 40), OwnTensor(Spec("go", "INT64", (-1, 20)), False, 40, 60)
    signature = Signature.of(ACTION)
    adopted = replace(signature, own=Own({"obs": obs, "go": go}, {"y": obs, "on": go}), inputs={"x": Spec("x", "FP32", (-1, -1, 60))})
    arrays: dict[str, np.ndarray] = {"obs": np.ones((2, 3, 4, 10), np.float16), "go": np.arange(40).reshape(2, 20)}
    wanted = {"outputs": [{"name": "y", "parameters": {"binary_data": True}}, {"name": "on"}]}
    seeds = [request(arrays, True), request(arrays, True, **wanted), request(arrays, False, **wanted)]
    return Target("own", seeds, reading(adopted))


def raw_tensor() -> Target:
    """A body that is the bytes of x."""
    signature = Signature.of(ACTION)
    return Target("raw", [np.array(WAVE[:2], np.float32).tobytes()], lambda data: message.read_raw(data, signature))


def predict() -> Target:
    """Bodies of POST /predict, to the frames that the model gets."""
    modality = SkeletonModality(ACTION, 5_000)
    options = ("layout", "hz", "lost", "unit", "axes", "t")

    def run(data: bytes) -> object:
        body = parse_object(data, "body")
        clips = body.get("sequences")
        more = {name: body[name] for name in options[2:] if body.get(name) is not None}
        found = []
        for i, clip in enumerate(clips if isinstance(clips, list) else [clips]):
            found.append(modality.read(clip, body.get("layout"), body.get("hz"), f"sequences[{i}]", more))
        return found

    holes = [[None if (j + t) % 7 == 0 else p for j, p in enumerate(frame)] for t, frame in enumerate(WAVE[:3])]
    seeds: list[dict[str, Any]] = [
        {"sequences": [WAVE[:2]]},
        {"sequences": [holes], "layout": "utd20", "hz": 25, "lost": "zero", "unit": "mm"},
        {"sequences": [WAVE[:2]], "t": [0, 0.03], "axes": "x z -y"},
        {"sequences": [[[[0, 0, 0]] * 25] * 2], "layout": "kinect25"},
    ]
    return Target("predict", [orjson.dumps(seed) for seed in seeds], run)


def text() -> Target:
    """Texts, stop texts and completions."""
    modality = TextModality(CHARS, 10_000)
    bounds = CompletionLimits(2_000, 10_000, 8, 100)

    def run(data: bytes) -> object:
        body = parse_object(data, "body")
        found: list[object] = [stop_texts(body.get("stop"))]
        if "prompt" not in body:
            found.append(modality.read(body.get("text"), None, None, "text"))
        else:
            found.append(read_wish(body, CHARS.alphabet or "", bounds, body.get("unknown") == "replace"))
        return found

    seeds: list[dict[str, Any]] = [
        {"text": "To be, or not to be", "stop": ["\n", "x"]},
        {"prompt": ["a", "b"], "model": "chars", "max_tokens": 3, "temperature": 0.5, "n": 2, "stop": ["x"], "logprobs": 3, "echo": True},
        {"prompt": "a", "stream": True, "stream_options": {"include_usage": True}, "seed": 1, "top_p": 0.5, "unknown": "replace"},
    ]
    return Target("text", [orjson.dumps(seed) for seed in seeds], run)


def stream() -> Target:
    """Messages of a stream, the short way and the long one."""
    seeds: list[dict[str, Any]] = [
        {"type": "step", "step": 3, "frames": WAVE[:1]},
        {"type": "step", "text": "abc"},
        {"type": "open", "session_id": None, "layout": "kinect20", "hz": 30, "top_k": 5, "every": True},
    ]

    def run(data: bytes) -> object:
        return plain_step(data, "frames"), parse_object(data, "message")

    return Target("stream", [orjson.dumps(seed) for seed in seeds], run)


def state_file() -> Target:
    """Downloaded states that come back."""
    session = Session("s", "action", "1", ACTION.sha256, "o", np.zeros(ACTION.state_size, np.float32), 3, 70, 0.0, 1.0)
    frame = np.ones((1, 20, 3), np.float32)
    carries = None, Carry(60.0, frame, 1, 1), Carry(0.0, frame, 1, 1, 5.25, 7.5, 68)
    seeds = [encode(session._replace(carry=carry)) for carry in carries]
    return Target("state", seeds, lambda data: check(decode(data), ACTION))


def port() -> Target:
    """What crosses the engine port as bytes."""
    frames = np.array(WAVE[:2], np.float32)[:, None]
    scores = Scores(np.zeros(27, np.float32), np.zeros((0, 27), np.float32), np.zeros(0, np.float32), ("size",))
    asked = [
        Asked(Ticket(1, 2), StepRequest("s", "o", 3, b"d" * 32, Frames(frames, 30.0, True))),
        Asked(Ticket(1, 3), InferRequest(Exact(frames), True)),
    ]
    told = [Delivery(Ticket(1, 2), Result(3, 70, scores, None)), Delivery(Ticket(1, 2), Refused(ServiceError("no")))]
    kinds: list[tuple[type, list[Any]]] = [(Asked, asked), (Delivery, told)]
    seeds = [bytes([k]) + encode_message(one) for k, (_, many) in enumerate(kinds) for one in many]
    return Target("port", seeds, lambda data: decode_message(data[1:], kinds[data[0] % 2 if data else 0][0]), (CodecError,))


def packed() -> Target:
    """Bodies that say that they are compressed."""
    whole = orjson.dumps({"sequences": [WAVE[:2]]})
    gzipped = zlib.compressobj(6, zlib.DEFLATED, 31)
    seeds = [b"\x00" + gzipped.compress(whole) + gzipped.flush(), b"\xff" + zlib.compress(whole)]
    return Target("packed", seeds, lambda data: decompress(data[1:], ("gzip", "deflate")[data[:1] > b"\x80"], 2**20))


def manifest() -> Target:
    """Manifests of bundles, beside a graph that is there."""
    folder = Path(tempfile.mkdtemp()) / "action" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes((ROOT / "bundles/action/1/model.onnx").read_bytes())

    def run(data: bytes) -> object:
        (folder / "manifest.json").write_bytes(data)
        return read(folder)

    return Target("manifest", [(ROOT / "bundles/action/1/manifest.json").read_bytes()], run, (BundleError,))


def keys() -> Target:
    """Files of API keys."""
    path = Path(tempfile.mkdtemp()) / "keys"

    def run(data: bytes) -> object:
        path.write_bytes(data)
        return read_keys(path)

    return Target("keys", [b"a:" + b"0" * 64 + b"\n# x\nb:" + b"1" * 64 + b"\n"], run, (KeysError,))


TARGETS: dict[str, Callable[[], Target]] = {
    "infer": infer,
    "own": own,
    "raw": raw_tensor,
    "predict": predict,
    "text": text,
    "stream": stream,
    "state": state_file,
    "port": port,
    "packed": packed,
    "manifest": manifest,
    "keys": keys,
}


# --- cases --------------------------------------------------------------------------------------------------------------------------------


def changed_bytes(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return bytes with one to four changes."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(made) + 1)
        how = rng.randrange(8)
        if how == 0 and made:
            made[at % len(made)] ^= 1 << rng.randrange(8)
        elif how == 1 and made:
            made[at % len(made)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif how == 2:
            del made[at : at + rng.choice((1, 2, 4, 8, 64))]
        elif how == 3:
            made[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 64)))
        elif how == 4:
            del made[at:]
        elif how == 5:
            size = rng.choice((1, 4, 8, 64))
            made[at:at] = made[at : at + size] * rng.randint(1, 4)
        elif how == 6:
            made[at:] = other[rng.randrange(len(other) + 1) :]
        else:
            number = rng.choice([n for n in EXTREMES if isinstance(n, int) and -(2**63) <= n < 2**64])
            size = rng.choice((1, 2, 4, 8))
            made[at : at + size] = (number & (1 << 8 * size) - 1).to_bytes(size, rng.choice(("little", "big")))
    return bytes(made)


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return every place in JSON where a value stands: what holds it, and where in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for at, inner in items:
        found.append((value, at))
        if len(found) < 400:
            places(inner, found)
    return found


def changed_json(value: Any, rng: random.Random) -> Any:
    """Return JSON with one to three values replaced, removed, doubled or wrapped."""
    for _ in range(rng.randint(1, 3)):
        found = places(value, [])
        if not found:
            return rng.choice(VALUES)
        holder, at = rng.choice(found)
        how = rng.randrange(6)
        if how == 0:
            del holder[at]
        elif how == 1 and isinstance(holder, list):
            holder.insert(at, rng.choice((holder[at], rng.choice(VALUES))))
        elif how == 2 and isinstance(holder, dict):
            holder[rng.choice(("", "step", "data", "x", "\ud800", "n" * 100))] = holder[at]
        elif how == 3:
            holder[at] = [holder[at]] * rng.choice((1, 2, 40))
        else:
            holder[at] = rng.choice(VALUES)
    return value


def case(target: Target, rng: random.Random) -> bytes:
    """Return a case for a parser."""
    seed = rng.choice(target.seeds)
    begin = seed.find(b"{")
    if begin in (0, 4, 8, 9) and rng.random() < 0.6:
        end = seed.rfind(b"}") + 1 if begin == 0 else begin + int.from_bytes(seed[begin - 4 : begin], "little") if begin == 4 else None
        if end is not None:
            try:
                made = json.dumps(changed_json(json.loads(seed[begin:end]), rng)).encode("utf-8", "surrogatepass")
            except (ValueError, RecursionError):
                made = b"{"
            head = len(made).to_bytes(begin, "little") if begin else b""
            return head + made + seed[end:]
    return changed_bytes(seed, rng.choice(target.seeds), rng)


def _hangs(number: int, frame: object) -> None:
    raise TimeoutError(f"not read within {HANGS:g} s")


def fuzz(name: str, seed: int, seconds: float, most: int | None = None) -> tuple[str, int, int, list[str]]:
    """Run cases for so long -> the parser, how many, how many were read, and what went wrong."""
    target, rng = TARGETS[name](), random.Random(f"{name} {seed}")
    for good in target.seeds:
        target.run(good)  # what is good is read
    wrong: list[str] = []
    signal.signal(signal.SIGALRM, _hangs)
    count, read_well, until = 0, 0, time.monotonic() + seconds
    while time.monotonic() < until and len(wrong) < 10 and (most is None or count < most):
        data, count = case(target, rng), count + 1
        begun = time.process_time()
        try:
            signal.setitimer(signal.ITIMER_REAL, HANGS)
            target.run(data)
            read_well += 1
        except target.allowed as error:
            if isinstance(error, ServiceError) and status(error) >= 500:
                wrong.append(f"{name}: {status(error)} {error.detail} for {data[:2_000]!r}")
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {error} for {data[:2_000]!r}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if time.process_time() - begun > SLOW:
            wrong.append(f"{name}: {time.process_time() - begun:.1f} s for {data[:2_000]!r}")
    return name, count, read_well, wrong


Line = tuple[str, int, int, list[str]]


def apart(names: list[str], seed: int, seconds: float) -> list[Line]:
    """Run each parser in a process of its own, as many at a time as there are cores: one that is ended by a case is seen, too."""
    cores = len(os.sched_getaffinity(0))
    each = seconds * min(cores, len(names)) / len(names)

    def one(name: str) -> Line:
        command = [sys.executable, __file__, "--here", "--json", "--seconds", str(each), "--seed", str(seed), "--only", name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode in (0, 1) and done.stdout.startswith("["):
            line: Line = tuple(json.loads(done.stdout))
            return line
        return name, 0, 0, [f"{name}: the process ended with {done.returncode}: {done.stderr[-2_000:]}"]

    with ThreadPool(cores) as pool:
        return pool.map(one, names, chunksize=1)


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(TARGETS), action="append")
    parser.add_argument("--here", action="store_true", help="in this process, one after another")
    parser.add_argument("--json", action="store_true", help="of the one parser, what was found as JSON")
    asked = parser.parse_args()
    names = asked.only or list(TARGETS)
    if asked.here:
        found = [fuzz(name, asked.seed, asked.seconds / len(names)) for name in names]
        if asked.json:
            print(json.dumps(found[0]))
            return 0
    else:
        found = apart(names, asked.seed, asked.seconds)
    for name, count, read_well, some in found:
        print(f"{name:10} {count:12,} cases, {read_well / max(count, 1):6.1%} read, {len(some)} wrong")
    wrong = [one for line in found for one in line[3]]
    print(f"{sum(line[1] for line in found):,} cases, {len(wrong)} wrong", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
