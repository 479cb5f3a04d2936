"""Clients that take a session each through numbered steps, whatever is killed meanwhile, and what a calm session answers to the same.

A step is repeated by its number until it is answered. That nothing was lost and nothing applied twice is seen by what every step answers,
to the last bit where each run of the model has one row (INDRNN_MAX_BATCH=1; batches of other sizes round otherwise), and by the state in
the end.
"""

import json
import ssl
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

WAVE = json.loads((Path(__file__).parent.parent / "examples" / "wave.json").read_text())["sequences"][0]
FRAMES = 2  # of a step
PATIENCE = 120.0  # seconds until a step counts as never answered
AWAY = (429, 502, 503, 504)
PROBLEM = "application/problem+json"
AWAY_CODES = {"overloaded", "stopping", "store_failed"}
BITS = {"INDRNN_MAX_BATCH": "1"}

Answer = tuple[int, int, str]
"""The step, the position and the predictions."""


def frames(step: int) -> list[Any]:
    """The frames of a step, from 1 on."""
    return [WAVE[(FRAMES * (step - 1) + i) % len(WAVE)] for i in range(FRAMES)]


def worded(predictions: list[dict[str, Any]]) -> str:
    """Predictions as they are compared, which is not by the order of equal scores."""
    return json.dumps([predictions[0]["frames"], sorted((one["label"], one["score"]) for one in predictions[0]["top"])])


@dataclass
class Walker:
    """One client and its session. `named`: whether it sends the session's id as x-session-id, for routers."""

    load: "Load"
    ident: str
    named: bool
    answers: list[Answer] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        return {"x-session-id": self.ident} if self.named else {}

    def walk(self) -> None:
        """Take step after step until the load ends."""
        while not self.load.ending.is_set():
            if not self.load.going.wait(0.1):
                continue
            number, until = len(self.answers) + 1, time.monotonic() + PATIENCE
            while (answer := self.tried(number)) is None:
                self.load.count("repeats")
                assert time.monotonic() < until, f"step {number} was never answered: {self.load.counts}"
                time.sleep(0.05)
            self.answers.append(answer)
            time.sleep(self.load.pace)
        self.close()

    def tried(self, number: int) -> Answer | None:
        """The answer to a step, None where nobody was there."""
        raise NotImplementedError

    def close(self) -> None:
        pass


@dataclass
class OverHttp(Walker):
    """A client of POST /predict."""

    http: httpx.Client | None = None

    def tried(self, number: int) -> Answer | None:
        if self.http is None:
            self.http = self.load.client()
        body = {"sequences": [frames(number)], "session_id": self.ident, "step": number, "top_k": 99}
        try:
            reply = self.http.post("/predict", json=body, headers=self.headers)
        except httpx.TransportError as error:
            self.load.count(type(error).__name__)
            return None
        if reply.status_code in AWAY or (reply.status_code == 500 and reply.headers.get("content-type") != PROBLEM):
            self.load.count(str(reply.status_code))  # 500: a router's word, whose replica is gone
            return None
        assert reply.status_code == 200, f"step {number}: {reply.status_code} {reply.text[:300]}"
        session, predictions = reply.json()["session"], reply.json()["predictions"]
        return session["step"], session["position"], worded(predictions)

    def close(self) -> None:
        if self.http is not None:
            self.http.close()


@dataclass
class OverSocket(Walker):
    """A client of the stream, which opens its session again where its connection is lost."""

    socket: ClientConnection | None = None
    held: ExitStack = field(default_factory=ExitStack)

    def tried(self, number: int) -> Answer | None:
        try:
            if self.socket is None:
                self.socket = self._opened()
            said = self._asked(self.socket, {"type": "step", "step": number, "frames": frames(number)})
        except (WebSocketException, OSError, EOFError) as error:
            self.load.count(type(error).__name__)
            self.close()
            return None
        if said["type"] == "error":
            assert said["code"] in AWAY_CODES, f"step {number}: {said}"
            self.load.count(said["code"])
            return None
        return said["step"], said["position"], worded(said["predictions"])

    def _opened(self) -> ClientConnection:
        address = self.load.url.replace("http", "ws", 1) + "/stream/action"
        opening = connect(address, ssl=self.load.trust, additional_headers=self.headers, compression=None, open_timeout=20)
        made = self.held.enter_context(opening)
        opened = self._asked(made, {"type": "open", "session_id": self.ident, "top_k": 99})
        if opened["type"] == "error":
            assert opened["code"] in AWAY_CODES, opened
            raise OSError(opened["code"])
        known = len(self.answers)
        assert known <= opened["step"] <= known + 1, f"{known} steps were answered, the session stands at {opened['step']}"
        return made

    def _asked(self, socket: ClientConnection, message: dict[str, Any]) -> dict[str, Any]:
        socket.send(json.dumps(message))
        said: dict[str, Any] = json.loads(socket.recv(timeout=20))
        return said

    def close(self) -> None:
        self.socket = None
        with suppress(Exception):
            self.held.close()


class Load:
    """So many clients of each kind against one address, half of them with x-session-id; `trust`: of its certificate."""

    def __init__(
        self, url: str, http: int, sockets: int, trust: ssl.SSLContext | None = None, pace: float = 0.005, version: str | None = None
    ) -> None:
        self.url, self.trust, self.pace, self.version = url, trust, pace, version
        self.ending = threading.Event()
        self.going = threading.Event()
        """cleared, clients take no step, and their streams stay open"""
        self.going.set()
        self.counts: Counter[str] = Counter()
        self._gate = threading.Lock()
        with self.client() as client:
            self.walkers: list[Walker] = [
                (OverHttp if i < http else OverSocket)(self, self.open(client), named=i % 2 == 0) for i in range(http + sockets)
            ]
        self._pool = ThreadPoolExecutor(http + sockets)
        self._walks: list[Future[None]] = [self._pool.submit(walker.walk) for walker in self.walkers]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.trust or True, timeout=20)

    def open(self, client: httpx.Client) -> str:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with suppress(httpx.TransportError):
                made = client.post("/sessions", json={"model": "action", **({"version": self.version} if self.version else {})})
                if made.status_code == 201:
                    return str(made.json()["session_id"])
                assert made.status_code in (*AWAY, 500), made.text
            time.sleep(0.05)
        raise AssertionError("no session could be opened")

    def count(self, what: str) -> None:
        with self._gate:
            self.counts[what] += 1

    @property
    def steps(self) -> int:
        """Steps that were answered, of all clients."""
        return sum(len(walker.answers) for walker in self.walkers)

    def go_on(self, steps: int) -> None:
        """Wait until every client has had so many more answers."""
        wanted = [len(walker.answers) + steps for walker in self.walkers]
        until = time.monotonic() + PATIENCE
        while any(len(walker.answers) < n for walker, n in zip(self.walkers, wanted, strict=True)):
            self._raise()
            assert time.monotonic() < until, f"the load stands still: {self.counts}"
            time.sleep(0.02)

    def _raise(self) -> None:
        for walk in self._walks:
            if walk.done() and (error := walk.exception()) is not None:
                raise error

    def finish(self) -> None:
        self.ending.set()
        for walk in self._walks:
            walk.result(PATIENCE)
        self._pool.shutdown()

    def check(self, calm_url: str, trust: ssl.SSLContext | None = None, near: float = 0.0) -> None:
        """Every step of every client was answered as a calm session answers it, and every session stands where its client is, to the bit.

        near: how far scores may be off where two releases answered, which word them differently.
        """
        longest = max(len(walker.answers) for walker in self.walkers)
        with httpx.Client(base_url=calm_url, verify=trust or True, timeout=20) as client:
            calm = OverHttp(self, self.open(client), named=False)
            calm.http = client
            states = []
            for number in range(1, longest + 1):
                answer = calm.tried(number)
                assert answer is not None
                calm.answers.append(answer)
                states.append(_state(client, calm.ident) if any(len(w.answers) == number for w in self.walkers) else b"")
            for walker in self.walkers:
                for found, wanted in zip(walker.answers, calm.answers, strict=False):
                    assert found == wanted or _close(found, wanted, near), f"step {wanted[0]}: {_difference(found, wanted)}"
                stands = client.get(f"/sessions/{walker.ident}").json()
                assert (stands["step"], stands["position"]) == (len(walker.answers), FRAMES * len(walker.answers))
                assert _state(client, walker.ident) == states[len(walker.answers) - 1]


def _state(client: httpx.Client, ident: str) -> bytes:
    """The numbers of a session's state; the file's head names the session."""
    file = client.get(f"/sessions/{ident}/state").content
    return file[8 + int.from_bytes(file[:8], "little") :]


def _close(found: Answer, wanted: Answer, near: float) -> bool:
    (frames, scores), (others, wants) = json.loads(found[2]), json.loads(wanted[2])
    pairs = zip(scores, wants, strict=True)
    return (found[:2], frames) == (wanted[:2], others) and all(a == b and abs(x - y) <= near for (a, x), (b, y) in pairs)


def _difference(found: Answer, wanted: Answer) -> str:
    """What an answer says that another one does not, briefly."""
    one, other = json.loads(found[2]), json.loads(wanted[2])
    scores = [pair for pair in zip(one[1], other[1], strict=False) if pair[0] != pair[1]]
    return f"{found[:2]} in place of {wanted[:2]}, {one[0]} frames in place of {other[0]}, {scores[:3]}"
