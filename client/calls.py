"""The HTTP calls, without any I/O: what to send, what to make of the answer, and when to try again."""

import json
from typing import Any
from urllib.parse import quote

from indrnn.client.answers import Predicted, SessionInfo, predicted, session_info
from indrnn.client.commands import HttpRequest, HttpResponse, Lost, Plan, Sleep
from indrnn.client.errors import TRANSIENT, BadInput, ConnectionLost, Refused, SessionExpired, Unavailable, refused
from indrnn.client.messages import decode, encode
from indrnn.client.patience import Patience

JSON = {"content-type": "application/json"}
BYTES = {"content-type": "application/octet-stream"}
GATEWAY = (502, 504)  # whoever stands between could not reach the server


def predict(sequences: list[Any], options: dict[str, object], patience: Patience) -> Plan[Predicted]:
    """Classifies. A step of a session without a number is not tried again once the server may have seen it."""
    safe = "session_id" not in options or "step" in options
    answer = yield from ask("POST", "/predict", patience, content=encode({"sequences": sequences, **options}).encode(), again=safe)
    return predicted(decode(answer.content))


def models(patience: Patience) -> Plan[list[dict[str, Any]]]:
    """Every served model, as GET /models tells."""
    answer = yield from ask("GET", "/models", patience)
    found: list[dict[str, Any]] = decode(answer.content)["models"]
    return found


def new_session(model: str, patience: Patience, keep: int = 0) -> Plan[SessionInfo]:
    """Opens a session. A try whose answer was lost may leave one that nobody knows; it expires."""
    wish: dict[str, object] = {"model": model, "keep": keep} if keep else {"model": model}
    answer = yield from ask("POST", "/sessions", patience, content=encode(wish).encode())
    return session_info(decode(answer.content))


def new_session_at(state: bytes, patience: Patience) -> Plan[SessionInfo]:
    """Opens a session where a downloaded state stood."""
    answer = yield from ask("POST", "/sessions", patience, content=state, kind=BYTES)
    return session_info(decode(answer.content))


def sessions(limit: int, patience: Patience) -> Plan[list[SessionInfo]]:
    """One's own sessions, newest first."""
    answer = yield from ask("GET", f"/sessions?limit={limit}", patience)
    return [session_info(s) for s in decode(answer.content)["sessions"]]


def look(session_id: str, patience: Patience) -> Plan[SessionInfo]:
    """Return where a session stands."""
    answer = yield from ask("GET", _of(session_id), patience)
    return session_info(decode(answer.content))


def delete(session_id: str, patience: Patience) -> Plan[None]:
    """Ends a session. Gone at a second try means that the first has done it."""
    tries = [0]
    try:
        yield from ask("DELETE", _of(session_id), patience, tries=tries)
    except SessionExpired:
        if tries[0] == 1:
            raise


def download(session_id: str, patience: Patience) -> Plan[bytes]:
    """The session's state as a file."""
    answer = yield from ask("GET", _of(session_id, "/state"), patience)
    return answer.content


def upload(session_id: str, state: bytes, patience: Patience) -> Plan[SessionInfo]:
    """Puts a downloaded state in place of the session's."""
    answer = yield from ask("PUT", _of(session_id, "/state"), patience, content=state, kind=BYTES)
    return session_info(decode(answer.content))


def fork(session_id: str, patience: Patience) -> Plan[SessionInfo]:
    """A second session that stands where this one does. A try whose answer was lost may leave one that nobody knows; it expires."""
    answer = yield from ask("POST", _of(session_id, "/fork"), patience)
    return session_info(decode(answer.content))


def reset(session_id: str, patience: Patience) -> Plan[SessionInfo]:
    """Puts the session back at the start."""
    answer = yield from ask("POST", _of(session_id, "/reset"), patience)
    return session_info(decode(answer.content))


def rewind(session_id: str, to: dict[str, object], number: int | None, patience: Patience) -> Plan[SessionInfo]:
    """Goes back to a step or a mark. One without a number is not tried again once the server may have seen it."""
    wish = to if number is None else {**to, "number": number}
    answer = yield from ask("POST", _of(session_id, "/rewind"), patience, content=encode(wish).encode(), again=number is not None)
    return session_info(decode(answer.content))


def mark(session_id: str, name: str, remove: bool, patience: Patience) -> Plan[SessionInfo]:
    """Names the step where the session stands, or takes the name away."""
    content = encode({"mark": name, "remove": remove}).encode()
    answer = yield from ask("POST", _of(session_id, "/mark"), patience, content=content)
    return session_info(decode(answer.content))


def ask(
    method: str,
    path: str,
    patience: Patience,
    content: bytes = b"",
    kind: dict[str, str] = JSON,
    again: bool = True,
    tries: list[int] | None = None,
) -> Plan[HttpResponse]:
    """One request until it is answered; `again`: also where the server may have seen it before. Counts its tries."""
    while True:
        if tries is not None:
            tries[0] += 1
        outcome = yield HttpRequest(method, path, kind if content else {}, content, patience.left())
        if isinstance(outcome, Lost):
            if outcome.final:
                raise outcome.cause
            if outcome.sent and not again:
                raise ConnectionLost(f"it is not known whether the step was applied: {outcome.cause}", "lost") from outcome.cause
            cause, pause = outcome.cause, 0.0
        else:
            assert isinstance(outcome, HttpResponse), "an HttpRequest is answered with HttpResponse or Lost"
            if outcome.status < 400:
                return outcome
            error = _refused(outcome)
            if not (error.code in TRANSIENT or isinstance(error, Unavailable)) and not (again and outcome.status in GATEWAY):
                raise error
            cause, pause = error, _retry_after(outcome)
        yield Sleep(patience.pause(cause, pause))


def _refused(answer: HttpResponse) -> Refused:
    try:
        body = json.loads(answer.content)
    except ValueError:
        body = None
    if isinstance(body, dict) and "code" in body:
        return refused(body, answer.status)
    kind = Unavailable if answer.status in (429, 503) else Refused
    return kind(f"HTTP {answer.status}, and no reason was given", f"http_{answer.status}", status=answer.status)


def _retry_after(answer: HttpResponse) -> float:
    said = answer.headers.get("retry-after", "")
    return float(said) if said.isdigit() else 0.0


def _of(session_id: str, rest: str = "") -> str:
    if not session_id:
        raise BadInput("expected a session's id, got an empty text", "invalid_input", "session_id")
    return f"/sessions/{quote(session_id, safe='')}{rest}"
