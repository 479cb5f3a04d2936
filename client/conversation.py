"""One session over WS /stream/{model}, without any I/O: numbers the steps, and gets each of them applied exactly once.

A message that has no answer yet is kept. When the connection is lost, or the server says that it cannot now, the plan waits, connects
again, opens the same session and sends the same message with the same number: the server applies it, or answers it from its store. Of a
generate that is repeated, the characters that the user has seen are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from indrnn.client.answers import Event, Part, Pending, Result, char, event, result
from indrnn.client.commands import Close, Connect, Lost, Plan, R, Receive, Send, Show, Sleep
from indrnn.client.errors import TRANSIENT, ClientError, Conflict, ProtocolError, Refused, Unanswered, refused
from indrnn.client.messages import decode, encode
from indrnn.client.patience import Patience

CONNECT_WITHIN = 10.0  # seconds of one try: a server that is there answers at once
CANCEL = "cancelled"


class _Broken(Exception):
    """The connection is of no more use; `pause` is what the server asked for, in seconds."""

    def __init__(self, cause: Exception, pause: float = 0.0) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.pause = pause


class _TryLater(_Broken):
    """The server cannot now; the connection is sound."""


@dataclass(slots=True)
class Emission:
    """A generate as far as it has come. `reason` is `length`, `stop` or `cancelled` once it has ended; `running` shows the rest."""

    number: int
    request: str
    patience: Patience
    running: Plan[None] | None = None
    text: str = ""
    reason: str | None = None
    seen: int = 0
    cancelling: bool = False
    started: bool = False
    sent: bool = False
    failed: bool = False


class Conversation:
    """The state of one session as its client knows it. One call at a time; only `cancel` may come between."""

    def __init__(self, url: str, opening: dict[str, object], session_id: str | None) -> None:
        """`opening`: the fields of `open` that are not null."""
        self.session_id = session_id
        self.model = ""
        self.version = ""
        self.step = 0
        self.position = 0
        self.pending: Pending | None = None
        self.parts: list[Part] = []
        self._url = url
        self._opening = opening
        self._opened = False
        self._linked = False
        self._watching = False
        self._unanswered: str | None = None
        self._emission: Emission | None = None

    # --- what a shell runs ------------------------------------------------------------------------------------------------------------

    def open(self, patience: Patience) -> Plan[None]:
        """Connects, and opens the session or finds out where it stands."""
        yield from self._persist(patience, lambda: self._link(patience))

    def feed(self, content: dict[str, object], number: int | None, patience: Patience) -> Plan[Result]:
        """Take one step. Raises Refused, DeadlineExceeded, Unanswered."""
        yield from self._be_ready(patience)
        at = self.step + 1 if number is None else number
        request = encode({"type": "step", "step": at, **content})
        self._claim(request)
        try:
            body, events = yield from self._persist(patience, lambda: self._ask_step(request, patience))
        except Refused:
            self._unanswered = None
            raise
        answer = _read(result, body)._replace(events=events)
        if answer.step != at:
            raise ProtocolError(f"expected the result of step {at}, got that of {answer.step}")
        self._unanswered, self.step, self.position = None, at, answer.position
        return answer

    def begin(self, wish: dict[str, object], number: int | None, patience: Patience) -> Plan[Emission]:
        """Run a generate; its `running` shows each character once, and ends with it. The deadline is for the next character.

        One that failed with the same wish goes on with its number, and is shown from its first character.
        """
        before = self._emission
        if before is not None and before.failed and not before.cancelling:
            again = before.number if number is None else number
            if encode({"type": "generate", "step": again, **wish}) == before.request:
                return self._start(Emission(again, before.request, patience))
        yield from self._be_ready(patience)
        at = self.step + 1 if number is None else number
        return self._start(Emission(at, encode({"type": "generate", "step": at, **wish}), patience))

    def settle(self, patience: Patience) -> Plan[None]:
        """Ends a generate that was left before its end; its text then holds what the session has consumed."""
        left = self._emission
        if left is None or (left.failed and not left.cancelling):
            return
        if not left.started:
            self._unanswered = self._emission = None
            return
        if left.failed:
            left.patience, left.running, left.failed = patience, self._emit(left), False
        left.patience.renew()
        urgent = self.cancel()
        if urgent is not None:
            yield Send(urgent, patience.left())
        assert left.running is not None, "what was started runs"
        try:
            outcome: object = None
            while True:
                command = left.running.send(outcome)
                outcome = None if isinstance(command, Show) else (yield command)
        except StopIteration:
            return
        finally:
            left.running.close()

    def cancel(self) -> str | None:
        """Wants the generate ended. What has to be sent at once, where it is under way on this connection."""
        emission = self._emission
        if emission is None or emission.reason is not None:
            return None
        emission.cancelling = True
        return _cancel(emission) if self._linked and emission.sent else None

    def watch(self, neurons: bool, patience: Patience) -> Plan[list[Part]]:
        """Whether results and characters from now on carry the neurons."""
        yield from self.settle(patience)
        before, self._watching = self._watching, neurons
        try:
            yield from self._persist(patience, lambda: self._rewatch(patience))
        except Refused:
            self._watching = before
            raise
        return self.parts

    def of(self, session_id: str) -> "Conversation":
        """Another session of the model, with the same options."""
        return Conversation(self._url, self._opening, session_id)

    def lost(self) -> None:
        """The shell has dropped the connection."""
        self._linked = False

    def need_answers(self) -> None:
        """Raise Unanswered where a step is under way. Ask this before the session is put elsewhere on the server."""
        if self._unanswered is not None:
            raise Unanswered(f"step {self._number_asked()} has no answer yet: make the same call again first", "unanswered")

    def stand(self, step: int, position: int) -> None:
        """The session was put elsewhere: reset, or an uploaded state."""
        self.step, self.position, self.pending = step, position, None

    def claim_rewind(self, to: dict[str, object]) -> int:
        """Return the number of a rewind that is about to be sent, or sent again. Raises Unanswered where another step is under way."""
        number = self.step + 1
        self._claim(encode({"type": "rewind", "step": number, "to": to}))
        return number

    def rewound(self, step: int, position: int) -> None:
        """The rewind was answered: the session stands there."""
        self._unanswered = None
        self.stand(step, position)

    def not_rewound(self) -> None:
        """The rewind was refused, and has moved nothing."""
        self._unanswered = None

    # --- a generate -------------------------------------------------------------------------------------------------------------------

    def _start(self, emission: Emission) -> Emission:
        self._claim(emission.request)
        self._emission = emission
        emission.running = self._emit(emission)
        return emission

    def _emit(self, emission: Emission) -> Plan[None]:
        emission.started = True
        try:
            yield from self._persist(emission.patience, lambda: self._try_to_emit_or_reconnect(emission, emission.patience))
        except Refused:
            self._unanswered = self._emission = None
            raise
        except BaseException:
            emission.failed = True
            raise
        self._unanswered = self._emission = None

    def _try_to_emit_or_reconnect(self, emission: Emission, patience: Patience) -> Plan[None]:
        """Try to emit; where the server cannot now and a cancel was asked for, raise _Broken to reconnect.

        A cancel behind the generate may still end what is stored: its `done` is not the next try's.
        """
        emission.sent = False
        try:
            yield from self._try_to_emit(emission, patience)
        except _TryLater as later:
            emission.sent = False  # a cancel from now on goes with the next try
            if emission.cancelling:
                raise _Broken(later.cause, later.pause) from None
            raise

    def _try_to_emit(self, emission: Emission, patience: Patience) -> Plan[None]:
        yield from self._link(patience)
        yield from _say(emission.request, patience)
        emission.sent = True
        if emission.cancelling:
            yield from _say(_cancel(emission), patience)
        count = 0
        while True:
            try:
                body = yield from _hear(("char", "done"), patience)
            except Conflict as error:
                if error.code != CANCEL or not emission.cancelling:
                    raise
                emission.reason = CANCEL  # it had not begun: its number is free
                return
            if body["type"] == "done":
                _read(partial(self._ended, emission, count), body)
                return
            drawn = _read(char, body)
            self.step = emission.number
            count += 1
            if count > len(emission.text):
                emission.text += drawn.char
            elif emission.text[count - 1] != drawn.char:
                raise ProtocolError(f"expected character {count} of step {emission.number} again, got another")
            if count > emission.seen:
                emission.seen = count
                yield Show(drawn)
                patience.renew()

    def _ended(self, emission: Emission, count: int, body: dict[str, Any]) -> None:
        if body["step"] != emission.number or count != len(emission.text):
            raise ProtocolError(
                f"expected the end of step {emission.number} after {len(emission.text)} characters, got {body} after {count}"
            )
        emission.reason = body["reason"]
        self.step, self.position, self.pending = emission.number, body["position"], None

    # --- messages ---------------------------------------------------------------------------------------------------------------------

    def _number_asked(self) -> int:
        """Return the step number of the message that has no answer yet."""
        return int(decode(self._unanswered or "{}").get("step", self.step + 1))

    def _claim(self, request: str) -> None:
        if self._unanswered not in (None, request):
            number = self._number_asked()
            raise Unanswered(f"step {number} has no answer yet, and this is another: make the same call again first", "unanswered")
        self._unanswered = request

    def _exchange(self, request: str, kind: str | tuple[str, ...], patience: Patience) -> Plan[dict[str, Any]]:
        yield from self._link(patience)
        yield from _say(request, patience)
        return (yield from _hear(kind, patience))

    def _ask_step(self, request: str, patience: Patience) -> Plan[tuple[dict[str, Any], tuple[Event, ...]]]:
        """Send a step and return its result, and the events that come before it: of this try, which tells all of them."""
        events: list[Event] = []
        body = yield from self._exchange(request, ("event", "result"), patience)
        while body["type"] == "event":
            events.append(_read(event, body))
            body = yield from _hear(("event", "result"), patience)
        return body, tuple(events)

    def _rewatch(self, patience: Patience) -> Plan[None]:
        if not self._linked:
            yield from self._link(patience)  # watches by itself
            if self._watching:
                return
        yield from self._say_watch(patience)

    def _say_watch(self, patience: Patience) -> Plan[None]:
        yield from _say(encode({"type": "watch", "neurons": self._watching}), patience)
        body = yield from _hear("watching", patience)
        self.parts = _read(lambda b: [Part(p["layer"], p["size"], p["activation"]) for p in b["parts"]], body)

    def _be_ready(self, patience: Patience) -> Plan[None]:
        """For the next number: knows where the session stands, and nothing is under way."""
        if not self._opened:
            yield from self.open(patience)
        yield from self.settle(patience)

    # --- the connection ---------------------------------------------------------------------------------------------------------------

    def _persist(self, patience: Patience, attempt: Callable[[], Plan[R]]) -> Plan[R]:
        """Tries until it succeeds, is refused, or the deadline has passed."""
        while True:
            try:
                return (yield from attempt())
            except _TryLater as later:
                yield Sleep(patience.pause(later.cause, later.pause))
            except _Broken as broken:
                self._linked = False
                yield Close()
                yield Sleep(patience.pause(broken.cause, broken.pause))
            except ClientError as error:
                if not isinstance(error, Refused):  # an answer may still come, and must not be taken for the next one's
                    self._linked = False
                    yield Close()
                raise

    def _link(self, patience: Patience) -> Plan[None]:
        """Connects and opens, if that is not so."""
        if self._linked:
            return
        _check((yield Connect(self._url, min(patience.left(), CONNECT_WITHIN))))
        session = {"session_id": self.session_id} if self.session_id else {}
        yield Send(encode({"type": "open", **self._opening, **session}), patience.left())  # lost: the server has said why before it closed
        try:
            body = yield from _hear("opened", patience)
        except _TryLater as later:
            raise _Broken(later.cause, later.pause) from None  # the server closes after it
        self._linked = True
        _read(self._stand_as, body)
        if self._watching:
            yield from self._say_watch(patience)

    def _stand_as(self, body: dict[str, Any]) -> None:
        if self._opened and body["session_id"] != self.session_id:
            raise ProtocolError(f"expected session {self.session_id}, got {body['session_id']}")
        if not self._opened:
            pending = body["pending"]
            self.pending = None if pending is None else Pending(pending["step"], pending["text"])
            self.step, self.position = body["step"], body["position"]
        self._opened, self.session_id = True, body["session_id"]
        self.model, self.version = body["model"], body["version"]


def _say(text: str, patience: Patience) -> Plan[None]:
    _check((yield Send(text, patience.left())))


def _hear(kind: str | tuple[str, ...], patience: Patience) -> Plan[dict[str, Any]]:
    """Receive the next message, of that kind. Raises Refused, and what _persist catches."""
    raw = _check((yield Receive(patience.left())))
    assert isinstance(raw, str | bytes), "Receive is answered with a message or Lost"
    body = decode(raw)
    if body.get("type") == "error":
        raise _error(body)
    if body.get("type") not in (kind if isinstance(kind, tuple) else (kind,)):
        raise ProtocolError(f"expected {kind}, got {body.get('type')!r:.80}")
    return body


def _error(body: dict[str, Any]) -> Exception:
    error = refused(body)
    if error.code not in TRANSIENT:
        return error
    pause = body.get("retry_after")
    seconds = float(pause) if isinstance(pause, int | float) else 0.0
    return _Broken(error, seconds) if error.code == "stopping" else _TryLater(error, seconds)


def _check(outcome: object) -> object:
    """Return the outcome of a command. Raises _Broken where it was lost, or the cause itself where trying again would not help."""
    if isinstance(outcome, Lost):
        if outcome.final:
            raise outcome.cause
        raise _Broken(outcome.cause)
    return outcome


def _cancel(emission: Emission) -> str:
    return encode({"type": "cancel", "step": emission.number})


def _read(reader: Callable[[dict[str, Any]], R], body: dict[str, Any]) -> R:
    try:
        return reader(body)
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"expected a message of its kind, got {body.get('type')!r} without {error}") from error
