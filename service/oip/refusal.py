"""Errors in the Open Inference Protocol: Triton's status, in its words where clients look for them."""

from typing import NamedTuple

from indrnn.service.errors import (
    BadInput,
    BodyTimeout,
    Conflict,
    Gone,
    Late,
    MethodNotAllowed,
    NotFound,
    NotSupported,
    Overloaded,
    SequenceLimit,
    ServiceError,
    Stopping,
    TooLarge,
    Unavailable,
    UnknownSession,
    status,
)


class Refusal(NamedTuple):
    """An error's HTTP status, the name of its gRPC status, and its text."""

    http: int
    grpc: str
    text: str


_STATUS: dict[type[ServiceError], tuple[int, str]] = {
    BadInput: (400, "INVALID_ARGUMENT"),
    TooLarge: (400, "INVALID_ARGUMENT"),
    BodyTimeout: (408, "DEADLINE_EXCEEDED"),
    Gone: (400, "INVALID_ARGUMENT"),
    NotFound: (404, "NOT_FOUND"),
    UnknownSession: (400, "INVALID_ARGUMENT"),
    MethodNotAllowed: (405, "UNIMPLEMENTED"),
    NotSupported: (501, "UNIMPLEMENTED"),
    Conflict: (409, "ABORTED"),
    SequenceLimit: (503, "UNAVAILABLE"),
    Unavailable: (503, "UNAVAILABLE"),
}
_GRPC = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED"}
"""of the errors that this protocol says as the native routes do"""


def refusal(error: ServiceError, model: str, sequence: int | str | None = None) -> Refusal:
    """Return how an error is said to a client of this protocol; sequence: the correlation id of the request that made it."""
    known = next((_STATUS[c] for c in type(error).__mro__ if c in _STATUS), None)
    http, grpc = known or (status(error), _GRPC.get(status(error), "INTERNAL"))
    return Refusal(http, grpc, _text(error, model, sequence))


def _text(error: ServiceError, model: str, sequence: int | str | None) -> str:
    if isinstance(error, Gone | UnknownSession):
        which = f"sequence {sequence} to model '{model}'"
        return f"inference request for {which} must specify the START flag on the first request of the sequence"
    if isinstance(error, Late):
        return f"Request timeout expired: {error.detail}"
    if isinstance(error, Overloaded):
        return f"Exceeds maximum queue size: {error.detail}"
    if isinstance(error, SequenceLimit):
        return f"Exceeds maximum number of sequences: {error.detail}"
    if isinstance(error, Stopping):
        return f"Server is stopping, scheduler for model has stopped accepting new inference requests: {error.detail}"
    return error.detail
