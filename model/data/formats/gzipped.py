"""Gzipped files, and texts in them: read whole, or refused in one sentence that names the file."""

import gzip
import zlib
from pathlib import Path

from indrnn.model.data.formats.npz import kind


class GzippedError(Exception):
    """A file is not what is expected in its place; the message names it, what was expected and what came."""


def content(path: Path, expected: str) -> bytes:
    """Return the unpacked bytes of a file; expected: what it should be, in words. Raises GzippedError."""
    packed = path.read_bytes()
    try:
        return gzip.decompress(packed)
    except gzip.BadGzipFile as error:
        raise GzippedError(f"{path}: expected {expected}, gzipped (gzip -c FILE > {path.name}), got {kind(packed[:4096])}") from error
    except (EOFError, zlib.error) as error:
        raise GzippedError(f"{path}: expected {expected}, gzipped, got a file that is damaged or cut off") from error


def text(path: Path) -> str:
    """Return the text of a gzipped file in UTF-8. Raises GzippedError."""
    expected = "a text in UTF-8"
    raw = content(path, expected)
    if not raw.strip():
        raise GzippedError(f"{path}: expected {expected}, gzipped, got an empty one")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or raw[:4096].count(0):
        raise GzippedError(f"{path}: expected {expected}, gzipped, got one in UTF-16 or no text: iconv -t UTF-8 turns it into one")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        at = raw[max(0, error.start - 20) : error.start + 20].decode("latin-1")
        told, name = western(raw)
        raise GzippedError(
            f"{path}: expected {expected}, gzipped, got another encoding at byte {error.start:,} ({at!r}): if it is {told}, "
            f"iconv -f {name} -t UTF-8 turns it into one"
        ) from error


def western(raw: bytes) -> tuple[str, str]:
    """Return which encoding of western Europe these bytes may be in, in words and as iconv calls it.

    Windows' has quotes and dashes where Latin-1 has control characters, which no text has.
    """
    return ("Windows-1252", "WINDOWS-1252") if any(0x80 <= byte < 0xA0 for byte in set(raw)) else ("Latin-1", "LATIN1")
