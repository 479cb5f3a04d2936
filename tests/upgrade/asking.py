"""What make.py and test_upgrade.py share: a service of either release, exchanges with it, a dump of Redis, and tiny data to train on."""

import base64
import gzip
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

WRITTEN = Path(__file__).parent / "written"
# Numbers of the same weights on another processor differ in their last bits.
NEAR = {"rel": 1e-5, "abs": 1e-6}


@dataclass
class Service:
    """A running service."""

    url: str
    log: Path

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers=headers, timeout=60)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=60)

    def stream(self, model: str, messages: Sequence[dict[str, Any]], most: int = 2**30) -> list[dict[str, Any]]:
        """What one connection answers to messages, each sent when the one before has its last answer; at most so many of the last."""
        heard: list[dict[str, Any]] = []
        with connect(self.url.replace("http", "ws") + f"/stream/{model}", max_size=2**26, compression=None) as ws:
            for message in messages:
                ws.send(json.dumps(message))
                heard.clear()
                while not heard or (heard[-1]["type"] == "char" and len(heard) < most):
                    heard.append(json.loads(ws.recv(timeout=30)))
        return heard

    def ask(self, exchange: dict[str, Any]) -> Any:
        """The reply to an exchange's request: over HTTP where it has a path, else over a stream that is opened first."""
        if "path" not in exchange:
            return self.stream(exchange["model"], [exchange["open"], exchange["request"]])
        reply = self.post(exchange["path"], exchange["request"])
        assert reply.status_code == 200, reply.text
        return reply.json()


@contextmanager
def serving(command: Sequence[str], cwd: Path, folder: Path, **env: str) -> Iterator[Service]:
    """`python COMMAND` as a service with these settings; stopped as an operator stops it."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    own = {k: v for k, v in os.environ.items() if not k.startswith("INDRNN_") and k not in ("HOST", "PORT")}
    service = Service(f"http://127.0.0.1:{port}", folder / "log")
    with service.log.open("ab") as log:
        process = subprocess.Popen([sys.executable, *command], cwd=cwd, env={**own, "PORT": str(port), **env}, stderr=log, stdout=log)
    try:
        _wait(service, process)
        yield service
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM), service.log.read_text()
        assert "Traceback" not in service.log.read_text()
    finally:
        process.kill()
        process.wait(30)


def _wait(service: Service, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if service.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"the service did not start:\n{service.log.read_text()}")


def same(got: Any, expected: Any) -> None:
    """Asserts that two JSON values are alike, numbers nearly."""
    if isinstance(expected, dict):
        assert isinstance(got, dict)
        assert list(got) == list(expected)
        for name in expected:
            same(got[name], expected[name])
    elif isinstance(expected, list):
        assert isinstance(got, list)
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            same(one, other)
    elif isinstance(expected, float):
        assert got == pytest.approx(expected, **NEAR)
    else:
        assert got == expected


# --- Redis ----------------------------------------------------------------------------------------------------------------------------


def dump(client: Any) -> dict[str, Any]:
    """All keys of a Redis with their values in base64, without the times at which they end: the sessions know theirs."""
    return {key.decode(): _read(client, key) for key in sorted(client.keys())}


def _read(client: Any, key: bytes) -> dict[str, Any]:
    match kind := client.type(key).decode():
        case "hash":
            return {kind: {name.decode(): _text(value) for name, value in sorted(client.hgetall(key).items())}}
        case "zset":
            return {kind: [[_text(member), score] for member, score in client.zrange(key, 0, -1, withscores=True)]}
        case "set":
            return {kind: sorted(map(_text, client.smembers(key)))}
        case _:
            return {"string": _text(client.get(key))}


def fill(client: Any, keys: dict[str, Any]) -> None:
    """Writes what `dump` has read."""
    for key, described in keys.items():
        match described:
            case {"hash": fields}:
                client.hset(key, mapping={name: base64.b64decode(value) for name, value in fields.items()})
            case {"zset": members}:
                client.zadd(key, {base64.b64decode(member): score for member, score in members})
            case {"set": members}:
                client.sadd(key, *map(base64.b64decode, members))
            case {"string": value}:
                client.set(key, base64.b64decode(value))


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


# --- data -----------------------------------------------------------------------------------------------------------------------------


def write_texts(folder: Path) -> None:
    """Two small texts where the real ones are looked for."""
    (folder / "text").mkdir(parents=True)
    for name, words in (("shakespeare", "to be or not "), ("war_and_peace", "well, Prince ")):
        (folder / "text" / f"{name}.txt.gz").write_bytes(gzip.compress((words * 80).encode()))


def write_images(folder: Path) -> None:
    """A hundred images that are dark or bright."""
    rng = np.random.default_rng(0)
    (folder / "mnist").mkdir(parents=True)
    for part, n in (("train", 80), ("t10k", 20)):
        labels = rng.integers(0, 2, n).astype(np.uint8)
        images = (rng.integers(0, 56, (n, 28, 28)) + 200 * labels[:, None, None]).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
            (folder / "mnist" / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))


def write_treebank(folder: Path) -> None:
    """A treebank of one sentence."""
    (folder / "ptb").mkdir(parents=True)
    for part in ("train", "valid", "test"):
        (folder / "ptb" / f"ptb.{part}.txt.gz").write_bytes(gzip.compress(b" the cat sat on the <unk> mat \n" * 60))


def write_clips(path: Path, joints: int, persons: int = 1, **more: Any) -> None:
    """Six subjects who raise joint 3 (class 0) or joint 5 (class 1)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, frames, clips = np.random.default_rng(0), [], 24
    body = rng.normal(scale=0.4, size=(persons, joints, 3))
    for i in range(clips):
        T = int(rng.integers(12, 30))
        x = body + rng.normal(scale=0.01, size=(T, persons, joints, 3)) + rng.normal(scale=0.5, size=(1, 1, 1, 3))
        x[:, 0, 5 if i % 2 else 3, 1] += np.linspace(0, 1, T)
        frames.append(x if persons > 1 else x[:, 0])
    arrays = {
        "x": np.concatenate(frames).astype(np.float32),
        "off": np.cumsum([0, *map(len, frames)]),
        "y": np.arange(clips) % 2,
        "subject": np.arange(clips) // 4,
        "classes": np.array(["three", "five"]),
        "names": np.array([f"c{i}" for i in range(clips)]),
    }
    np.savez(path, **(arrays | more))
