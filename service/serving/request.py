"""A request as every protocol reads it: whose it is, and what it holds, bounded in length and time.

A key is a secret of its client. The service has a file of names and hashes (`name:sha256hex`, a line each), so that reading the file opens
nothing. The name is the owner of whatever the key opens; two keys of one name are one owner, so that a key can be replaced without a gap.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from indrnn.service.errors import BadInput, BodyTimeout, NotFinite, NotJson, TooLarge, Unauthorized, UnknownEncoding, said
from indrnn.service.settings import Settings

log = logging.getLogger(__name__)

# --- whose it is ------------------------------------------------------------------------------------------------------------------------

ANONYMOUS = ""  # the owner of everything where there are no keys
PREFIX = "indrnn_"  # so that a secret that has leaked into some text can be recognised
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}):([0-9a-f]{64})")


class KeysError(Exception):
    """The file of keys cannot be used; the message names it and says why."""


class Access:
    """The known keys and allowed origins. Without keys everybody is one anonymous owner.

    `generation` counts how often the keys were exchanged: what somebody remembers of a key holds for one generation.
    """

    def __init__(self, keys: Iterable[tuple[str, str]] | None, origins: Iterable[str] = (), metrics_open: bool = True) -> None:
        """`keys`: pairs of name and SHA-256 in hex; None lets everybody in."""
        # Looked up by a digest under a key of this process: how long that takes says nothing of the secrets.
        self._salt = secrets.token_bytes(32)
        self._owners = None if keys is None else self._by_digest(keys)
        self.generation = 0
        self.origins = frozenset(origin.strip().rstrip("/").lower() for origin in origins if origin.strip())
        self._metrics_open = metrics_open

    def take_keys(self, keys: Iterable[tuple[str, str]]) -> None:
        """Take other keys in place of those that are known, from the next request on; whoever is let in already stays."""
        self._owners = self._by_digest(keys)
        self.generation += 1

    def owner_of(self, headers: Mapping[str, str]) -> str:
        """Return whose request it is, by `Authorization: Bearer` or `X-API-Key`; names of headers in lower case. Raises Unauthorized."""
        if self._owners is None:
            return ANONYMOUS
        bearer = headers.get("authorization", "")
        scheme, _, secret = bearer.partition(" ")
        return self.owner_of_key(secret.strip() if scheme.lower() == "bearer" else _bare(headers.get("x-api-key")))

    def owner_of_key(self, secret: object) -> str:
        """Return whose key it is. Raises Unauthorized."""
        if self._owners is None:
            return ANONYMOUS
        if secret is None:
            raise Unauthorized("expected an API key (Authorization: Bearer …, X-API-Key, or api_key in a stream's open), got none")
        if not isinstance(secret, str):
            raise Unauthorized(f"expected an API key, got {said(secret)}")
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass"))
        name, known = self._owners.get(self._blind(digest.digest()), ("", ""))
        if not hmac.compare_digest(known, digest.hexdigest()):
            raise Unauthorized("expected an API key that is known here, got another")
        return name

    def owner_of_scrape(self, headers: Mapping[str, str]) -> str:
        """Return who may read /metrics: everybody, or the owner of a key where the setting says so. Raises Unauthorized."""
        return ANONYMOUS if self._metrics_open else self.owner_of(headers)

    def check_named_key(self, headers: Mapping[str, str]) -> None:
        """Raises Unauthorized where a request names a key that is not known; one that names none may do so later."""
        if "x-api-key" in headers or headers.get("authorization", "").lower().startswith("bearer "):
            self.owner_of(headers)

    def allows_origin(self, headers: Mapping[str, str]) -> bool:
        """Return whether a script of that page may open a stream: of this host, allowed by name, or no browser's script at all."""
        origin = headers.get("origin")
        if origin is None or "*" in self.origins or origin.lower() in self.origins:
            return True
        return _host(origin) == _host(f"//{headers.get('host', '')}") is not None

    def _by_digest(self, keys: Iterable[tuple[str, str]]) -> dict[bytes, tuple[str, str]]:
        return {self._blind(bytes.fromhex(digest)): (name, digest) for name, digest in keys}

    def _blind(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, digest_size=32, key=self._salt).digest()


def _bare(value: str | None) -> str | None:
    """Return a header's value without the blanks around it, tabs too, which are no part of it (RFC 9110, section 5.5)."""
    return value if value is None else value.strip(" \t")


def _host(url: str) -> tuple[str, int | None] | None:
    """Return host and port of an address; a scheme's own port is none. None for what is no address."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname:
        return None
    return parts.hostname, None if port in (80, 443) else port


def read_keys(path: Path) -> list[tuple[str, str]]:
    """Names and hashes; empty lines and those that begin with # do not count. Raises KeysError."""
    try:
        if path.exists() and not path.is_file():
            raise KeysError(f"keys {path}: expected a regular file")  # a pipe would be waited for, for ever
        lines = path.read_text().splitlines()
    except FileNotFoundError as error:
        raise KeysError(f"keys {path}: there is no such file (indrnn key NAME makes it)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"keys {path}: {error}") from error
    keys = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if not found:
            raise KeysError(f"keys {path}: line {number}: expected name:sha256 in hex (indrnn key NAME makes one)")
        keys.append((found[1], found[2]))
    return keys


async def watch_keys(access: Access, path: Path, seconds: float) -> None:
    """Look at the file of keys every so many seconds, and take its keys when it has changed. One that cannot be used changes nothing."""
    seen = await asyncio.to_thread(_stamp, path)
    while True:
        await asyncio.sleep(seconds)
        found = await asyncio.to_thread(_stamp, path)
        if found == seen:
            continue
        try:
            keys = await asyncio.to_thread(read_keys, path)
        except KeysError as error:
            log.error("%s; the keys stay those of before", error)
        else:
            access.take_keys(keys)
            log.info("keys %s: %d of %d names", path, len(keys), len({name for name, _ in keys}))
        seen = found


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is written or another one takes its place; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def new_key(name: str) -> tuple[str, str]:
    """Return a fresh secret and its line for the file. Raises KeysError for a name that may not stand there."""
    secret = PREFIX + secrets.token_urlsafe(32)
    line = f"{name}:{hashlib.sha256(secret.encode()).hexdigest()}"
    if not _LINE.fullmatch(line):
        raise KeysError(f"expected a name of up to 64 letters, digits, dots, dashes and underscores, got {name!r:.80}")
    return secret, line


# --- what it holds ----------------------------------------------------------------------------------------------------------------------

_NOT_FINITE = re.compile(r"-?(NaN|Infinity)\b")
R = TypeVar("R")

LONG = 2**17  # bytes of JSON, about 2 ms of reading
MAX_STEP = 2**53  # what JSON numbers count to
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]')


async def aside(read: Callable[..., R], size: int, *args: object) -> R:
    """Run a reader of `size` bytes, on another thread where it is long: the event loop has others to serve."""
    return await asyncio.to_thread(read, *args) if size > LONG else read(*args)


def size_of(clip: object) -> int:
    """Return about how many bytes of JSON a clip was, or rows of numbers."""
    if not isinstance(clip, list):
        return 0
    row = clip[0] if clip else None
    wide = 8 * len(row) if isinstance(row, list) and row and not isinstance(row[0], list) else 0
    return max(500, wide) * len(clip)


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
            where = found.start() if found else error.pos
            field = json_path(text, where)
            raise NotFinite(
                f"expected finite numbers, got {found[0] if found else _beyond(text, where)}{_OF_A_JOINT if '[' in field else ''}",
                field=field or None,
            ) from None
        raise NotJson(f"expected a {what} of JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(value, dict):
        raise BadInput(f"expected a JSON object, got {said(value)}")
    return value


_OF_A_JOINT = " (write null for a joint not seen)"
_DIGITS = re.compile(r"-?(\d+)")


def _beyond(text: str, where: int) -> str:
    """Return what is said of a number that no float64 holds."""
    digits = _DIGITS.match(text, where)
    return f"one of {len(digits[1])} digits, beyond float64" if digits and len(digits[1]) > 300 else "one beyond float64"


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
    """Raises BadInput for a field that is not known: a misspelt option must not be ignored. One that is null asks for nothing."""
    for name, value in body.items():
        if value is not None and name not in known:
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


async def raw_body(request: Request, settings: Settings) -> bytes:
    """Return the request's body, unpacked where it was sent compressed. Raises TooLarge, BodyTimeout, UnknownEncoding, BadInput."""
    body = await _sent_body(request, settings)
    encoding = ",".join(request.headers.getlist("content-encoding"))
    return body if not encoding else await asyncio.to_thread(decompress, body, encoding, settings.max_body)


async def _sent_body(request: Request, settings: Settings) -> bytes:
    chunks: AsyncIterator[bytes] = request.stream()
    try:
        async with asyncio.timeout(settings.body_timeout):
            return await read_bounded(chunks, request.headers.get("content-length"), settings.max_body, settings.max_drain)
    except TimeoutError:
        raise BodyTimeout(f"expected the whole body within {settings.body_timeout:g} s") from None


async def read_body(request: Request, settings: Settings) -> dict[str, object]:
    """Return the request's body, a JSON object. Raises NotJson, BadInput, TooLarge, BodyTimeout."""
    data = await raw_body(request, settings)
    return await aside(parse_object, len(data), data, "body")


# --- how it is packed ----------------------------------------------------------------------------------------------------

CODINGS = {"gzip": 31, "deflate": 15}
"""what a body may be packed in (RFC 9110, section 8.4.1), and zlib's number for it"""
_ALIASES = {"x-gzip": "gzip"}
_RAW = -15  # deflate without zlib's header: what the name says, and not what RFC 9110 means by it; some clients send it
_PIECE = 2**16  # bytes that are unpacked at a time: what is left behind a member is copied, and many members would copy it often
_MOST_CODINGS = 2  # one inside the other
_MOST_MEMBERS = 2**12  # of a gzip file; empty ones cost time and give nothing


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body as it was before Content-Encoding, at most `limit` bytes. Raises UnknownEncoding, TooLarge, BadInput."""
    codings = [_known(name) for name in encoding.split(",") if name.strip().lower() not in ("", "identity")]
    if len(codings) > _MOST_CODINGS:
        raise BadInput(f"expected a body in at most {_MOST_CODINGS} encodings, got {len(codings)}")
    for name in reversed(codings):
        body = _unpacked(body, name, limit) if body else body  # some clients say it of no body too
    return body


def coding(name: str) -> str:
    """Return the name of a coding as it is usual, whatever its case."""
    plain = name.strip().lower()
    return _ALIASES.get(plain, plain)


def _known(name: str) -> str:
    if coding(name) not in CODINGS:
        raise UnknownEncoding(f"unsupported Content-Encoding {said(coding(name))}, expected one of {', '.join(CODINGS)}")
    return coding(name)


def _unpacked(body: bytes, name: str, limit: int) -> bytes:
    """Return what one coding holds; a gzip file may have several members, one behind the other (RFC 1952, section 2.2)."""
    plain, at, whole, members = bytearray(), 0, False, 0
    wbits = CODINGS[name] if name == "gzip" or _has_header(body) else _RAW
    inflate = zlib.decompressobj(wbits)
    while at < len(body):
        if whole and (name != "gzip" or members == _MOST_MEMBERS):
            break
        if whole:
            inflate, whole = zlib.decompressobj(wbits), False
        piece = body[at : at + _PIECE]
        try:
            plain += inflate.decompress(piece, limit + 1 - len(plain))
        except zlib.error as error:
            raise BadInput(f"the body cannot be decompressed as {name}: {error}") from None
        if len(plain) > limit:
            raise TooLarge(f"expected a body of at most {limit} bytes after decompression, got more")
        at += len(piece) - len(inflate.unused_data)
        whole = inflate.eof
        members += whole
    if not whole or at < len(body):
        raise BadInput(f"the body is not one whole {name} stream")
    return bytes(plain)


def _has_header(body: bytes) -> bool:
    """Return whether it begins as a zlib stream (RFC 1950, section 2.2)."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] * 256 + body[1]) % 31 == 0


# --- a client that leaves takes its work along -------------------------------------------------------------------------------------------


async def while_there(receive: Receive, work: Coroutine[object, object, R]) -> R:
    """Do the work while the client waits for it. Raises ClientDisconnect once it is gone; the work is cancelled then."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return await working
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
