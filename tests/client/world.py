"""A made-up server of one session, a network that loses things, and a clock: what the client's core is driven against."""

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

from indrnn.client.answers import Char
from indrnn.client.commands import Close, Connect, Lost, Plan, R, Receive, Send, Show, Sleep, follow
from indrnn.client.patience import Patience


def letter(step: int, i: int) -> str:
    """What a generate of that number draws at that place."""
    return "abcdefgh"[(step * 31 + i * i * 7 + i) % 8]


@dataclass
class Generate:
    request: dict[str, Any]
    text: str = ""
    reason: str | None = None


@dataclass
class World:
    """`faults` more things go wrong, each time with probability `rate`."""

    random: Random
    faults: int = 0
    rate: float = 0.3
    down: bool = False
    now: float = 0.0
    step: int = 0
    position: int = 0
    history: list[str] = field(default_factory=list)
    last: dict[str, Any] | None = None
    reply: dict[str, Any] = field(default_factory=dict)
    generate: Generate | None = None
    inbox: list[dict[str, Any]] = field(default_factory=list)
    connected: bool = False
    opened: bool = False
    active: bool = False
    watching: bool = False
    telling: bool = False
    at: int = 0
    connects: int = 0

    # --- the network --------------------------------------------------------------------------------------------------------------------

    def fault(self) -> bool:
        if self.faults and self.random.random() < self.rate:
            self.faults -= 1
            return True
        return False

    def cut(self) -> Lost:
        """The connection is gone; what the server was doing goes on for a little."""
        if self.active:
            for _ in range(self.random.randrange(3)):
                self._emit()
        self.connected = self.opened = self.active = self.watching = False
        self.inbox.clear()
        return Lost(ConnectionError("cut"))

    def perform(self, command: object) -> object:
        if isinstance(command, Sleep):
            self.now += command.seconds
            return None
        if isinstance(command, Connect):
            self.cut()
            self.connects += 1
            if self.down or self.fault():
                self.now += 0.001
                return Lost(ConnectionRefusedError("refused"))
            self.connected = True
            return None
        if isinstance(command, Close):
            self.cut()
            return None
        if not self.connected:
            return Lost(ConnectionError("not connected"))
        if isinstance(command, Send):
            if self.fault():
                return self.cut()
            self._take(json.loads(command.text))
            return self.cut() if self.fault() else None
        assert isinstance(command, Receive), command
        return self._give(command.timeout)

    def _give(self, timeout: float) -> object:
        if self.fault():
            return self.cut()
        if not self.inbox and self.active:
            self._emit()
        if not self.inbox:
            self.now += timeout
            return Lost(TimeoutError())
        return json.dumps(self.inbox.pop(0))

    # --- the server ---------------------------------------------------------------------------------------------------------------------

    def _say(self, **body: Any) -> None:
        self.inbox.append(body)

    def _take(self, message: dict[str, Any]) -> None:
        kind = message.pop("type")
        if self.fault():
            code = self.random.choice(["overloaded", "store_failed", "stopping"])
            if kind != "cancel":  # a cancel has no answer of its own
                self._say(type="error", code=code, detail="not now", retry_after=1)
            if kind != "cancel" or code == "stopping":
                return
        if kind == "open":
            self.telling = message.get("events", False)
            cut = self.generate if self.generate and self.generate.reason is None else None
            pending = {"step": self.step, "text": cut.text} if cut else None
            where = {"step": self.step, "position": self.position, "pending": pending}
            self._say(type="opened", session_id="s", model="m", version="1", **where)
        elif kind == "watch":
            self.watching = message["neurons"]
            self._say(type="watching", parts=[{"layer": 0, "size": 2, "activation": "relu"}] if message["neurons"] else [])
        elif kind == "cancel":
            self._cancel(message["step"])
        else:
            self._numbered(kind, message)

    def _numbered(self, kind: str, message: dict[str, Any]) -> None:
        number = message["step"]
        if number == self.step and message == self.last:
            self._repeat()
        elif number == self.step:
            self._say(type="error", code="step_conflict", detail="other content", field="step")
        elif number != self.step + 1:
            self._say(type="error", code="step_gap", detail="gap", field="step", expected_step=self.step + 1)
        elif kind == "step":
            self._feed(number, message)
        else:
            self.step, self.last, self.generate, self.active, self.at = number, message, Generate(message), True, 0
            self.history.append(f"generate {number}")

    def _feed(self, number: int, message: dict[str, Any]) -> None:
        if message["text"] == "bad":
            self._say(type="error", code="invalid_input", detail="bad", field="text")
            return
        self.generate = None
        self.step, self.last, self.position = number, message, self.position + len(message["text"])
        self.history.append(message["text"])
        chars = [{"char": c, "logprob": -1.0} for c in message["text"]]
        self.reply = {"type": "result", "step": number, "position": self.position, "chars": chars, "next": []}
        states = {"states": "AAAAAA==", "shape": [1, 2]} if self.watching else {}  # no part of what is stored
        self._tell()
        self._say(**self.reply, **states)

    def _tell(self) -> None:
        """As many events as there are x in the step's text."""
        assert self.last is not None
        for i, c in enumerate(self.last["text"] if self.telling else ""):
            if c == "x":
                self._say(type="event", step=self.step, label="x", start=i, at=i, score=1.0)

    def _repeat(self) -> None:
        if self.generate is None:
            self._tell()
            self._say(**self.reply)
            return
        for c in self.generate.text:
            self._say(type="char", step=self.step, char=c, logprob=-1.0)
        if self.generate.reason is None:
            self.active = True
        else:
            self._say(type="done", step=self.step, position=self.position, reason=self.generate.reason)

    def _emit(self) -> None:
        g = self.generate
        if g is None or g.reason is not None:
            return
        c = letter(self.step, len(g.text))
        g.text += c
        self.position += 1
        self._say(type="char", step=self.step, char=c, logprob=-1.0)
        if len(g.text) == g.request["max_chars"]:
            self._end("length")

    def _end(self, reason: str) -> None:
        assert self.generate is not None
        self.generate.reason, self.active = reason, False
        self._say(type="done", step=self.step, position=self.position, reason=reason)

    def _cancel(self, number: int) -> None:
        if self.generate is not None and self.generate.reason is None and number == self.step:
            self._end("cancelled")

    # --- a shell ------------------------------------------------------------------------------------------------------------------------

    def patience(self, seconds: float = 10_000) -> Patience:
        return Patience(seconds, lambda: self.now, Random(0))

    def run(self, plan: Plan[R]) -> R:
        return follow(plan, self.perform)

    def characters(self, running: Plan[None], most: int) -> list[Char]:
        """Up to so many of a generate's; the rest stays where it is."""
        shown: list[Char] = []
        outcome: object = None
        while len(shown) < most:
            try:
                command = running.send(outcome)
            except StopIteration:
                break
            if isinstance(command, Show):
                shown.append(command.char)
                outcome = None
            else:
                outcome = self.perform(command)
        return shown
