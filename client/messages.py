"""JSON as it goes over the wire, and its errors as this client's."""

import json
from typing import Any

from indrnn.client.errors import BadInput, ProtocolError


def encode(message: dict[str, object]) -> str:
    """Return a message as text; arrays of NumPy or the like as lists. Raises BadInput for what JSON does not know."""
    try:
        return json.dumps(message, allow_nan=False, separators=(",", ":"), default=_plain)
    except ValueError as error:
        raise BadInput(f"expected finite numbers (None for a joint not seen): {error}", "not_finite") from error
    except TypeError as error:
        raise BadInput(str(error), "invalid_input") from error


def decode(raw: str | bytes) -> dict[str, Any]:
    """Read an object from a text. Raises ProtocolError."""
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ProtocolError(f"expected a JSON object, got {raw[:80]!r}")
    return body


def _plain(value: object) -> object:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"expected numbers, lists and texts, got a {type(value).__name__}")
