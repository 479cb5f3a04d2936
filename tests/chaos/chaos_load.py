"""Clients that go through a script again and again, each over one protocol, and know every answer of it.

A script is a list of numbered steps that a calm service was asked once; what it answered is the truth. Under attack a step is repeated by
its number until it is answered, and must then be answered so, to a rounding. What no answer came of for too long, and any refusal but
those of a service that is away, is a failure.
"""

import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np

from indrnn.client.errors import ClientError, ConnectionLost, DeadlineExceeded, Unanswered, Unavailable
from indrnn.client.sync import Client

ROOT = Path(__file__).parent.parent.parent
WAVE = json.loads((ROOT / "examples" / "wave.json").read_text())["sequences"][0]
PATIENCE = 90.0  # seconds until a step counts as never answered
AWAY = {429, 500, 502, 503, 504}
RELOADED = (  # what is said between an unload and a load
    *("model_gone", "unknown_model", "not_ready", "not at ready state", "no available versions", "is not found", "is not loaded"),
    *("was unloaded", "model_not_found", "model: expected one of"),
)
TOLERANCE = 2e-4  # of scores, nats and states: batches of other sizes round otherwise

Answer = dict[str, Any]


class Lost(Exception):
    """The service told something that it should not have."""


class Forgotten(Exception):
    """The clock leapt over the minute for which the answer that ended a sequence can be had again."""


@dataclass
class Tally:
    """What was seen, by all clients together."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    leapt: float = -math.inf
    """until when, by the checker's own clock, the service's stood a minute or more off, either way"""
    gate: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str, n: int = 1) -> None:
        with self.gate:
            self.counts[what] += n

    def fail(self, what: str) -> None:
        with self.gate:
            self.counts["failures"] += 1
            if len(self.failures) < 50:
                self.failures.append(what)


class Attempt(Protocol):
    """One try at a request: its answer, or None where the service is away. Raises Lost."""

    def __call__(self) -> Answer | None: ...


def insist(attempt: Attempt, tally: Tally, patience: float = PATIENCE) -> Answer:
    """Repeat until there is an answer. Raises Lost."""
    until, pause = time.monotonic() + patience, 0.02
    while time.monotonic() < until:
        found = attempt()
        if found is not None:
            return found
        tally.count("repeats")
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.6, 1.0)
    raise Lost(f"never answered within {patience:g} s")


def asked(http: httpx.Client, method: str, path: str, body: Any = None, ok: tuple[int, ...] = (200, 201)) -> httpx.Response | None:
    """Return the response, None where the service is away. Raises Lost."""
    try:
        response = http.request(method, path, json=body)
    except httpx.TransportError:
        return None
    if response.status_code in ok:
        return response
    if response.status_code in AWAY and response.status_code != 500:
        return None
    if response.status_code in (400, 404, 409) and any(word in response.text for word in RELOADED):
        return None  # between an unload and a load
    raise Lost(f"{method} {path} of {_short(body)}: {response.status_code} {response.text[:300]}")


def _short(body: Any) -> str:
    text = str(body)
    return text if len(text) <= 240 else f"{text[:80]} … {text[-160:]}"  # what is asked for stands behind the numbers


class Script:
    """One protocol's way through a session of `length` steps."""

    name = ""
    length = 0

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=20)
        self.url = url

    def open(self, tally: Tally) -> str:
        """Return a new session's id. Raises Lost."""
        raise NotImplementedError

    def step(self, ident: str, n: int, tally: Tally) -> Answer:
        """Return what step n, from 1, is answered. Raises Lost."""
        raise NotImplementedError

    def last(self, ident: str, tally: Tally) -> Answer:
        """Return the session's end, and end it. Raises Lost."""
        return {}

    def close(self) -> None:
        self.http.close()


class Predict(Script):
    """POST /predict with a session, two frames a step."""

    name, length = "predict", 30

    def open(self, tally: Tally) -> str:
        made = insist(lambda: _json(asked(self.http, "POST", "/sessions", {"model": "action"})), tally)
        return str(made["session_id"])

    def step(self, ident: str, n: int, tally: Tally) -> Answer:
        body = {"sequences": [WAVE[2 * n - 2 : 2 * n]], "session_id": ident, "step": n, "top_k": 99}
        found = insist(lambda: _json(asked(self.http, "POST", "/predict", body)), tally)
        scores = sorted((one["label"], one["score"]) for one in found["predictions"][0]["top"])
        return {
            "at": [found["session"]["step"], found["session"]["position"]],
            "labels": [k for k, _ in scores],
            "n": [v for _, v in scores],
        }

    def last(self, ident: str, tally: Tally) -> Answer:
        state = insist(lambda: _state(asked(self.http, "GET", f"/sessions/{ident}/state")), tally)
        insist(lambda: {} if asked(self.http, "DELETE", f"/sessions/{ident}", ok=(200, 204, 404, 410)) else None, tally)
        return state


class Infer(Script):
    """Sequences of the Open Inference Protocol, JSON over HTTP, with numbers of their own."""

    name, length = "infer", 30
    ended = math.inf
    """when the step that ends the sequence was first sent"""

    def open(self, tally: Tally) -> str:
        return f"chaos-{random.getrandbits(64):x}"

    def step(self, ident: str, n: int, tally: Tally) -> Answer:
        x = np.array(WAVE[n - 1 : n], np.float32)[None, :, None]
        tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.reshape(-1).tolist()}
        own = {"sequence_id": ident, "sequence_start": n == 1, "sequence_end": n == self.length, "indrnn_step": n}
        body = {"inputs": [tensor], "parameters": own}
        if n == self.length:
            self.ended = min(self.ended, time.monotonic())
        try:
            found = insist(lambda: _json(asked(self.http, "POST", "/v2/models/action/infer", body)), tally)
        except Lost as error:
            if "START flag" in str(error) and n == self.length and tally.leapt >= self.ended:
                raise Forgotten from error
            raise
        return {"n": found["outputs"][0]["data"], "position": found["parameters"].get("indrnn_position")}


class Stream(Script):
    """The stream of skeletons, by the client, which repeats and resumes by itself."""

    name, length, model = "stream", 30, "action"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.client = Client(url, timeout=PATIENCE)
        self.session: Any = None

    def open(self, tally: Tally) -> str:
        self.session = insist(lambda: _of_client(lambda: {"session": self.client.session(self.model, top_k=99)}), tally)["session"]
        return str(self.session.id)

    def step(self, ident: str, n: int, tally: Tally) -> Answer:
        found = insist(lambda: _of_client(lambda: {"result": self.session.step(WAVE[n - 1 : n], number=n)}), tally)["result"]
        scores = sorted((one.label, one.score) for one in found.predictions[0].top)
        return {"at": [found.step, found.position], "labels": [k for k, _ in scores], "n": [v for _, v in scores]}

    def last(self, ident: str, tally: Tally) -> Answer:
        self.session.close()
        return Predict.last(self, ident, tally)  # type: ignore[arg-type]  # of any session

    def close(self) -> None:
        if self.session is not None:
            with suppress(Exception):
                self.session.close()
        self.client.close()
        super().close()


class Chars(Stream):
    """The stream of characters: text, and every third step a continuation."""

    name, length, model = "chars", 12, "chars"

    def step(self, ident: str, n: int, tally: Tally) -> Answer:
        if n % 3 == 0:
            found = insist(lambda: _of_client(lambda: self._generated(n)), tally)
        else:
            found = insist(lambda: _of_client(lambda: self._read(n)), tally)
        return found

    def open(self, tally: Tally) -> str:
        self.session = insist(lambda: _of_client(lambda: {"session": self.client.session(self.model)}), tally)["session"]
        return str(self.session.id)

    def _read(self, n: int) -> Answer:
        found = self.session.step(f"It was step {n}, and he said: ", number=n)
        return {"at": [found.step, found.position], "n": [one.logprob for one in found.chars]}

    def _generated(self, n: int) -> Answer:
        told = list(self.session.generate(max_chars=30, seed=n, temperature=0.8, number=n))
        return {"text": "".join(one.char for one in told), "n": [one.logprob for one in told]}


class Complete(Script):
    """Completions, which have no session."""

    name, length = "complete", 4

    def open(self, tally: Tally) -> str:
        return ""

    def step(self, ident: str, n: int, tally: Tally) -> Answer:
        body = {"model": "chars", "prompt": f"In the year {n}", "max_tokens": 20, "seed": n, "temperature": 0.9}
        found = insist(lambda: _json(asked(self.http, "POST", "/v1/completions", body)), tally)
        return {"text": found["choices"][0]["text"]}


SCRIPTS: tuple[type[Script], ...] = (Predict, Infer, Stream, Chars, Complete)


def _json(response: httpx.Response | None) -> Answer | None:
    return None if response is None else dict(response.json())


def _state(response: httpx.Response | None) -> Answer | None:
    """Return a downloaded state's numbers; its head names the session, and the time."""
    if response is None:
        return None
    size = int.from_bytes(response.content[:8], "little")
    return {"n": np.frombuffer(response.content[8 + size :], "<f4").astype(float).tolist()}


def _of_client(call: Callable[[], Answer]) -> Answer | None:
    """Return what the client returns, None where it has given up for now. Raises Lost."""
    try:
        return call()
    except ClientError as error:
        if isinstance(error, Unavailable | DeadlineExceeded | ConnectionLost | Unanswered) or any(word in str(error) for word in RELOADED):
            return None
        raise Lost(f"{type(error).__name__}: {error}") from error


def differs(found: Answer, truth: Answer) -> str | None:
    """Return how an answer differs from what it should be; None where it does not."""
    for name, value in truth.items():
        if name != "n":
            if found.get(name) != value:
                return f"{name}: expected {str(value)[:80]}, got {str(found.get(name))[:80]}"
            continue
        a, b = np.array(found["n"]), np.array(value)
        if a.shape != b.shape:
            return f"expected {b.shape} numbers, got {a.shape}"
        off = np.abs(a - b) / (1 + np.abs(b))
        if len(off) and not off.max() <= TOLERANCE:
            return f"off by {off.max():.2g}"
    return None


@dataclass
class Truth:
    """What a calm service answered to each step of a script, and the end of it."""

    steps: list[Answer]
    end: Answer

    @classmethod
    def of(cls, kind: type[Script], url: str) -> "Truth":
        script, tally = kind(url), Tally()
        ident = script.open(tally)
        found = cls([script.step(ident, n, tally) for n in range(1, kind.length + 1)], script.last(ident, tally))
        script.close()
        return found


def go_through(kind: type[Script], url: str, truth: Truth, tally: Tally, end: threading.Event, pace: float) -> None:
    """Go through a script, session after session, until the end. pace: seconds between two steps, on average."""
    while not end.is_set():
        script = kind(url)
        try:
            ident = script.open(tally)
            for n in range(1, kind.length + 1):
                found = script.step(ident, n, tally)
                tally.count(f"steps {kind.name}")
                if n % 5 == 0:  # what is known is asked again: it is told again, and not applied
                    again = script.step(ident, n, tally)
                    if kind is not Complete and (off := differs(again, found)):
                        tally.fail(f"{kind.name} step {n} again: {off}")
                if off := differs(found, truth.steps[n - 1]):
                    tally.fail(f"{kind.name} step {n}: {off}")
                if end.is_set():
                    break
                time.sleep(random.expovariate(1 / pace))
            else:
                if off := differs(script.last(ident, tally), truth.end):
                    tally.fail(f"{kind.name} at the end: {off}")
                tally.count(f"sessions {kind.name}")
        except Forgotten:
            tally.count("ends forgotten by the clock")
        except Lost as error:
            tally.fail(f"{kind.name}: {error}")
        except Exception as error:  # the checker's own fault, or a client's
            tally.fail(f"{kind.name}: {type(error).__name__}: {error}")
        finally:
            with suppress(Exception):
                script.close()
