"""Every error of this client, in one tree.

ClientError
├── Refused            the server answered an error; `code` is its word for it (openapi.yaml), `detail` says what was expected
│   ├── BadInput       a field is not what it should be (`field` is its JSON path); also what cannot be said in JSON
│   ├── Unauthorized   no key, or one that is not known there
│   ├── NotFound       no such model, session or route
│   ├── SessionExpired the session was there, and is no more
│   ├── Conflict       the request does not fit where the session stands
│   │   ├── StepConflict   another client took this number with other content
│   │   └── StepGap        another client moved the session (`expected_step`)
│   ├── SessionLimit   the key has as many living sessions as it may
│   └── Unavailable    overloaded, stopping or over a rate: tried again, and so met as the cause of DeadlineExceeded
├── DeadlineExceeded   no answer in time. The step may have been applied or not: the same call again repeats its number
├── ConnectionLost     in the middle of a step without a number (`predict`): it may have been applied or not
├── Unanswered         an earlier step has no answer yet, and this is another one
└── ProtocolError      the server said what this client does not understand, or is no such server
"""


class ClientError(Exception):
    """Base of all. `code` is for programs, `detail` for people; `field`, `expected_step` and `status` (of HTTP) where there is one."""

    def __init__(
        self, detail: str, code: str = "", field: str | None = None, expected_step: int | None = None, status: int | None = None
    ) -> None:
        super().__init__(f"{field}: {detail}" if field else detail)
        self.code = code
        self.detail = detail
        self.field = field
        self.expected_step = expected_step
        self.status = status


class Refused(ClientError):
    """The server answered an error; nothing has moved, unless the detail says that nobody knows."""


class BadInput(Refused):
    """A field is not what it should be."""


class Unauthorized(Refused):
    """No key, or one that is not known."""


class NotFound(Refused):
    """There is nothing by that name."""


class SessionExpired(Refused):
    """The session has expired or was deleted."""


class Conflict(Refused):
    """The request does not fit where the session stands."""


class StepConflict(Conflict):
    """This number was taken before, with other content."""


class StepGap(Conflict):
    """Neither the session's last number nor the next."""


class SessionLimit(Refused):
    """The key has as many living sessions as it may."""


class Unavailable(Refused):
    """The server cannot do it now."""


class DeadlineExceeded(ClientError):
    """No answer in time; `__cause__` is what stood in the way last."""


class ConnectionLost(ClientError):
    """Nobody knows whether the step was applied, and without a number it cannot be repeated."""


class Unanswered(ClientError):
    """An earlier step has no answer yet."""


class ProtocolError(ClientError):
    """The server does not speak this protocol."""


TRANSIENT = frozenset({"overloaded", "stopping", "not_ready", "store_failed", "rate_limited"})
"""Codes after which the same request, a little later, may succeed; with `store_failed` alone it may have been carried out."""

_KINDS: dict[str, type[Refused]] = {
    "unauthorized": Unauthorized,
    "forbidden_origin": Unauthorized,
    "not_found": NotFound,
    "unknown_model": NotFound,
    "unknown_session": NotFound,
    "session_expired": SessionExpired,
    "step_conflict": StepConflict,
    "step_gap": StepGap,
    "no_stored_reply": Conflict,
    "model_gone": Conflict,
    "not_kept": Conflict,
    "mark_limit": Conflict,
    "cancelled": Conflict,
    "position_limit": Conflict,
    "session_limit": SessionLimit,
    **dict.fromkeys(TRANSIENT, Unavailable),
    **dict.fromkeys(("invalid_input", "not_finite", "out_of_range", "overflow", "out_of_alphabet", "not_json", "too_large"), BadInput),
    **dict.fromkeys(("not_a_state", "other_model", "unsupported_encoding"), BadInput),
}


def refused(body: dict[str, object], status: int | None = None) -> Refused:
    """Return the error that a problem document or a stream's error message tells of."""
    code, detail, field, expected = (body.get(name) for name in ("code", "detail", "field", "expected_step"))
    return _KINDS.get(str(code), Refused)(
        str(detail or body.get("title") or "no detail was given"),
        str(code or ""),
        field if isinstance(field, str) else None,
        expected if isinstance(expected, int) else None,
        status,
    )
