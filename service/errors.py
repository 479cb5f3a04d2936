"""Every error a client can meet, in one tree, and the one table of their HTTP statuses.

ServiceError
├── BadInput           invalid_input       what a field should have been, and what came
│   ├── NotFinite      not_finite          NaN or infinity
│   ├── OutOfRange     out_of_range        a coordinate no skeleton in metres has, a state no step of the model leaves
│   ├── Overflow       overflow            numbers, each of them finite, that take the model's state to one that is not
│   ├── OutOfAlphabet  out_of_alphabet     a character the model has no symbol for
│   ├── NotJson        not_json            the body or message is no JSON
│   ├── NotState       not_a_state         the body is no downloaded state: no safetensors, or not the tensors and metadata of one
│   └── OtherModel     other_model         the state belongs to another model or version than the session
├── Unauthorized       unauthorized        no key, or one that is not known
├── ForbiddenOrigin    forbidden_origin    a page of another host, which may open no stream here
├── BodyTimeout        body_timeout        the body did not come in time
├── TooLarge           too_large           a body, message, clip or batch over its limit
├── NotFound           not_found           no such route, method's target or resource
│   ├── UnknownModel   unknown_model
│   └── UnknownSession unknown_session     never issued by this store
├── Gone               session_expired     issued by this store, and no longer there
├── Conflict
│   ├── StepConflict   step_conflict       the last number again, with other content
│   ├── StepGap        step_gap            neither the last number nor the next (expected_step)
│   ├── NoStoredReply  no_stored_reply     the last number again, after an upload that brought no result along (expected_step)
│   ├── ModelGone      model_gone          the session's model version is not loaded
│   ├── NotKept        not_kept            a rewind to a step or mark whose state is not kept, or no longer (kept, marks)
│   ├── MarkLimit      mark_limit          more marks than a session may have
│   ├── Cancelled      cancelled           a generate was cancelled before it began
│   └── PositionLimit  position_limit      the model was not made for a longer session
├── TooMany
│   ├── RateLimited    rate_limited        more steps a second than a key may take
│   └── SessionLimit   session_limit       more living sessions than a key may have
│       └── SequenceLimit                  as many sequences of the Open Inference Protocol
├── Unavailable
│   ├── Overloaded     overloaded          the queue is full
│   │   └── Late       overloaded          a deadline passed while waiting
│   ├── Stopping       stopping            the server is shutting down
│   ├── NotReady       not_ready           the model is being loaded or unloaded
│   └── StoreFailed    store_failed        the state could not be stored, as far as is known: repeat the step with its number
│       ├── EngineAway                     the engine's process that would ask the store is away, or does not answer
│       └── Unreadable                     what the store has of a session cannot be read, while it has others
├── NotSupported       not_supported       the protocol has it, this server has not
│   └── UnknownEncoding unsupported_encoding  the body is compressed in a way that is not known here
└── EngineFailed       engine_failed       the model could not answer: nothing has moved, unless `detail` says that nobody knows
"""

from collections.abc import Mapping
from errno import ENOMEM
from http import HTTPStatus
from typing import ClassVar


class ServiceError(Exception):
    """Base of all errors with an answer of their own: `detail` says what was expected and what came."""

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str, *, field: str | None = None, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.extra = extra

    def body(self) -> dict[str, object]:
        """The members of a problem document or of a stream's error message."""
        where = {} if self.field is None else {"field": self.field}
        return {"code": self.code, "detail": self.detail, **where, **self.extra}


class BadInput(ServiceError):
    """A field is not what it should be."""

    code = "invalid_input"


class NotFinite(BadInput):
    """A number is NaN or infinite."""

    code = "not_finite"


class OutOfRange(BadInput):
    """A coordinate no skeleton in metres has, or a state that no step of the model leaves behind."""

    code = "out_of_range"


class Overflow(BadInput):
    """Numbers, each of them finite, that take the model's state to one that is not; nothing has moved."""

    code = "overflow"


class OutOfAlphabet(BadInput):
    """A character the model has no symbol for."""

    code = "out_of_alphabet"


class NotJson(BadInput):
    """What came is no JSON."""

    code = "not_json"


class NotState(BadInput):
    """The body is no downloaded state."""

    code = "not_a_state"


class OtherModel(BadInput):
    """The state belongs to another model or version."""

    code = "other_model"


class Unauthorized(ServiceError):
    """No key came, or one that is not known."""

    code = "unauthorized"


class ForbiddenOrigin(ServiceError):
    """A page of another host may open no stream here."""

    code = "forbidden_origin"


class BodyTimeout(ServiceError):
    """The body did not come in time."""

    code = "body_timeout"


class TooLarge(ServiceError):
    """A body, message, clip or batch over its limit."""

    code = "too_large"


class MethodNotAllowed(ServiceError):
    """The route is for other methods."""

    code = "method_not_allowed"


class NotFound(ServiceError):
    """There is nothing by that name."""

    code = "not_found"


class UnknownModel(NotFound):
    """No bundle by that name is served."""

    code = "unknown_model"


class UnknownSession(NotFound):
    """An id this store never issued, or somebody else's."""

    code = "unknown_session"


class Gone(ServiceError):
    """A session that was here and has expired or was deleted."""

    code = "session_expired"


class Conflict(ServiceError):
    """The request does not fit where the session stands."""


class StepConflict(Conflict):
    """The last number again, with other content."""

    code = "step_conflict"


class StepGap(Conflict):
    """Neither the last number nor the next."""

    code = "step_gap"


class NoStoredReply(Conflict):
    """The last number again, after an upload: its result stayed where the state came from."""

    code = "no_stored_reply"


class ModelGone(Conflict):
    """The session's model version is not loaded."""

    code = "model_gone"


class NotKept(Conflict):
    """The state that is to be gone back to is not kept, or no longer."""

    code = "not_kept"


class MarkLimit(Conflict):
    """More marks than a session may have."""

    code = "mark_limit"


class Cancelled(Conflict):
    """A generate was cancelled before it began; nothing has moved."""

    code = "cancelled"


class PositionLimit(Conflict):
    """The model was not made for a longer session."""

    code = "position_limit"


class TooMany(ServiceError):
    """More than one key may have; the same request may succeed later."""


class RateLimited(TooMany):
    """More steps a second than a key may take; nothing has moved."""

    code = "rate_limited"


class SessionLimit(TooMany):
    """More living sessions than a key may have."""

    code = "session_limit"


class SequenceLimit(SessionLimit):
    """As many living sequences of the Open Inference Protocol as a key may have sessions."""


class Unavailable(ServiceError):
    """Not now; the same request may succeed later."""


class Overloaded(Unavailable):
    """The queue is full, or a deadline passed while waiting."""

    code = "overloaded"


class Late(Overloaded):
    """A deadline passed while the step waited."""


class Stopping(Unavailable):
    """The server is shutting down."""

    code = "stopping"


class NotReady(Unavailable):
    """The model is being loaded or unloaded."""

    code = "not_ready"


class StoreFailed(Unavailable):
    """The new state could not be stored, or the store broke off before it said so: then only a repeat of the step's number tells."""

    code = "store_failed"


class EngineAway(StoreFailed):
    """The engine's process that would ask the store is away, or does not answer: the store itself has not failed."""


class Unreadable(StoreFailed):
    """What the store has of the sessions `idents` cannot be read; that of others can. The ids are told nobody."""

    idents: frozenset[str] = frozenset()

    @classmethod
    def of(cls, wrong: Mapping[str, Exception]) -> "Unreadable":
        """Return the error for those sessions, and what was wrong with each."""
        made = cls("what the store has of the session cannot be read: " + "; ".join(sorted({type(e).__name__ for e in wrong.values()})))
        made.idents = frozenset(wrong)
        return made


class NotSupported(ServiceError):
    """The protocol has it, this server has not."""

    code = "not_supported"


class UnknownEncoding(NotSupported):
    """The body is compressed in a way that is not known here."""

    code = "unsupported_encoding"


class EngineFailed(ServiceError):
    """The model could not answer; nothing has moved, unless the detail says that nobody knows (`unanswered`)."""

    code = "engine_failed"


STEP = "whether the step is stored is not known; repeat it with its number"
SESSION = "whether the session was changed is not known; look at it before you repeat what has no number"
"""what is said of a request that may have been carried out"""


NO_THREAD = "can't start new thread"
"""what Python says, as RuntimeError, where there is no memory for a thread's stack, or the system lets no more begin"""


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error is a lack of memory, which passes: of Python's, of the system's, or of a new thread's stack."""
    if isinstance(error, RuntimeError):
        return str(error) == NO_THREAD
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == ENOMEM)


def unexpected(error: Exception, kind: type[ServiceError] = ServiceError) -> ServiceError:
    """Return what is said of an error that nothing foresaw where nothing has moved: a bug, of some kind, or a lack of memory, which passes.

    Where a step may have been submitted by then it is `unanswered`.
    """
    if lacks_memory(error):
        return Overloaded("the service is out of memory", retry_after=1)
    return kind(f"internal error: {type(error).__name__}")


def unanswered(error: Exception, kind: type[ServiceError] = ServiceError, what: str = STEP) -> ServiceError:
    """Return what is said of an error that nothing foresaw where a step, or something else, may be stored: nobody knows whether it is."""
    if lacks_memory(error):
        return not_known("no memory to answer", what)
    return kind(f"{unexpected(error).detail}: {what}")


def not_known(why: str, what: str = STEP) -> StoreFailed:
    """Return what is said of a step that may be stored or not: a client that repeats it without a number could apply it twice."""
    return StoreFailed(f"{why}: {what}", retry_after=1)


STATUS: dict[type[ServiceError], int] = {
    BadInput: 422,
    NotJson: 400,
    NotState: 400,
    Unauthorized: 401,
    ForbiddenOrigin: 403,
    TooLarge: 413,
    BodyTimeout: 408,
    NotFound: 404,
    MethodNotAllowed: 405,
    Gone: 410,
    Conflict: 409,
    TooMany: 429,
    Unavailable: 503,
    NotSupported: 501,
    UnknownEncoding: 415,
    EngineFailed: 500,
    ServiceError: 500,
}


def status(error: ServiceError) -> int:
    """The HTTP status of an error: its own class's or its nearest ancestor's."""
    return next(STATUS[c] for c in type(error).__mro__ if c in STATUS)


def problem_document(error: ServiceError) -> dict[str, object]:
    """Return an error as an RFC 9457 document has it."""
    code = status(error)
    return {"type": "about:blank", "title": HTTPStatus(code).phrase, "status": code, **error.body()}


def said(value: object) -> str:
    """What came, for a message: short, however long or deep it is."""
    if isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "an object"
        return f"{kind} of {len(value)}" if value else f"an empty {kind.split()[1]}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return repr(value[:40]) if isinstance(value, str) else f"{value!r:.40}"
