"""Who may come in: API keys, and which pages' scripts may open a stream or read what the HTTP API answers.

A key is a secret of its client. The service has a file of names and hashes (`name:sha256hex`, a line each), so that reading the file opens
nothing. The name is the owner of whatever the key opens; two keys of one name are one owner, so that a key can be replaced without a gap.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from indrnn.service.errors import Unauthorized, said

ANONYMOUS = ""  # the owner of everything where there are no keys
PREFIX = "indrnn_"  # so that a secret that has leaked into some text can be recognised
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}):([0-9a-f]{64})")


class KeysError(Exception):
    """The file of keys cannot be used; the message names it and says why."""


class Access:
    """The known keys and allowed origins. Without keys everybody is one anonymous owner."""

    def __init__(self, keys: Iterable[tuple[str, str]] | None, origins: Iterable[str] = (), metrics_open: bool = True) -> None:
        """`keys`: pairs of name and SHA-256 in hex; None lets everybody in."""
        # Looked up by a digest under a key of this process: how long that takes says nothing of the secrets.
        self._salt = secrets.token_bytes(32)
        self._owners = None if keys is None else {self._blind(bytes.fromhex(digest)): (name, digest) for name, digest in keys}
        self.origins = frozenset(origin.strip().rstrip("/").lower() for origin in origins if origin.strip())
        self._metrics_open = metrics_open

    def owner_of(self, headers: Mapping[str, str]) -> str:
        """Return whose request it is, by `Authorization: Bearer` or `X-API-Key`; names of headers in lower case. Raises Unauthorized."""
        if self._owners is None:
            return ANONYMOUS
        bearer = headers.get("authorization", "")
        scheme, _, secret = bearer.partition(" ")
        return self.owner_of_key(secret.strip() if scheme.lower() == "bearer" else headers.get("x-api-key"))

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

    def allows_origin(self, headers: Mapping[str, str]) -> bool:
        """Return whether a script of that page may open a stream: of this host, allowed by name, or no browser's script at all."""
        origin = headers.get("origin")
        if origin is None or "*" in self.origins or origin.lower() in self.origins:
            return True
        return _host(origin) == _host(f"//{headers.get('host', '')}") is not None

    def _blind(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, digest_size=32, key=self._salt).digest()


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
        lines = path.read_text().splitlines()
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


def new_key(name: str) -> tuple[str, str]:
    """Return a fresh secret and its line for the file. Raises KeysError for a name that may not stand there."""
    secret = PREFIX + secrets.token_urlsafe(32)
    line = f"{name}:{hashlib.sha256(secret.encode()).hexdigest()}"
    if not _LINE.fullmatch(line):
        raise KeysError(f"expected a name of up to 64 letters, digits, dots, dashes and underscores, got {name!r:.80}")
    return secret, line
