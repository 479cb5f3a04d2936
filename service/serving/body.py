"""Request bodies and messages: bounded reading, JSON with errors a client can use, and fields by name."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection
from typing import TypeVar

import orjson

from indrnn.service.errors import BadInput, NotFinite, NotJson, TooLarge, said

_NOT_FINITE = re.compile(r"-?(NaN|Infinity)\b")
R = TypeVar("R")

LONG = 2**17  # bytes of JSON, about 2 ms of reading
MAX_STEP = 2**53  # what JSON numbers count to
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]')


async def aside(read: Callable[..., R], size: int, *args: object) -> R:
    """Run a reader of `size` bytes, on another thread where it is long: the event loop has others to serve."""
    return await asyncio.to_thread(read, *args) if size > LONG else read(*args)


def size_of(clip: object) -> int:
    """Return about how many bytes of JSON a clip was."""
    return 500 * len(clip) if isinstance(clip, list) else 0


async def read_bounded(chunks: AsyncIterator[bytes], declared: str | None, limit: int, drain: int) -> bytes:
    """Return the whole body, at most `limit` bytes. A longer one is read to its end and dropped, up to `drain`, so that the client, which
    is still sending, gets to see the TooLarge that is raised."""
    size = int(declared) if declared is not None and declared.isdigit() else 0
    if size > drain:
        raise TooLarge(f"expected a body of at most {limit} bytes, got {size}")
    parts: list[bytes] = []
    received = 0
    async for chunk in chunks:
        received += len(chunk)
        if received <= limit and size <= limit:
            parts.append(chunk)
        else:
            parts.clear()
        if received > drain:
            break
    if max(received, size) > limit:
        raise TooLarge(f"expected a body of at most {limit} bytes, got {max(received, size)}{' or more' if received > drain else ''}")
    return b"".join(parts)


def parse_object(data: bytes | str, what: str) -> dict[str, object]:
    """Return a JSON object. Raises NotJson, NotFinite for the NaN and Infinity that some encoders write, BadInput for other JSON."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        found = _NOT_FINITE.match(text, max(error.pos - 1, 0)) or _NOT_FINITE.match(text, error.pos)
        if found or "infinity" in error.msg:
            came, where = (found[0], found.start()) if found else ("one beyond float64", error.pos)
            raise NotFinite(
                f"expected finite numbers, got {came} (write null for a joint not seen)", field=json_path(text, where) or None
            ) from None
        raise NotJson(f"expected a {what} of JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(value, dict):
        raise BadInput(f"expected a JSON object, got {said(value)}")
    return value


def json_path(text: str, end: int) -> str:
    """Return where in JSON text the value that begins at `end` stands, as `sequences[0][3]`."""
    path: list[str | int] = []
    key = ""
    for token in _TOKEN.finditer(text, 0, end):
        mark = token[0]
        if mark == "[":
            path.append(0)
        elif mark == "{":
            path.append("")
        elif mark in "]}" and path:
            path.pop()
        elif mark == "," and path and isinstance(path[-1], int):
            path[-1] += 1
        elif mark == ":" and path:
            path[-1] = key
        elif mark[0] == '"':
            key = mark[1:-1]
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")


def only(body: dict[str, object], known: Collection[str]) -> None:
    """Raises BadInput for a field that is not known: a misspelt option must not be ignored."""
    for name in body:
        if name not in known:
            raise BadInput(f"unknown field, expected {', '.join(known)}", field=str(name)[:80])


def integer(value: object, field: str, low: int, high: int, default: int | None = None) -> int:
    """Return a whole number in low..high; None takes the default if there is one. Raises BadInput."""
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadInput(f"expected a whole number from {low} to {high}, got {said(value)}", field=field)
    return value


def number(value: object, field: str, low: float, high: float, default: float) -> float:
    """Return a number in low..high. Raises BadInput."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadInput(f"expected a number from {low:g} to {high:g}, got {said(value)}", field=field)
    return float(value)


def boolean(value: object, field: str) -> bool:
    """True or false; null is false. Raises BadInput."""
    if value is not None and not isinstance(value, bool):
        raise BadInput(f"expected true or false, got {said(value)}", field=field)
    return bool(value)


def step_number(value: object) -> int | None:
    """Return a client's step number; None lets the server count. Raises BadInput."""
    return None if value is None else integer(value, "step", 1, MAX_STEP)
