"""Undo the Content-Encoding of request bodies, and compress replies: gzip and deflate (RFC 9110, section 8.4.1)."""

import zlib

from indrnn.service.errors import BadInput, TooLarge, UnknownEncoding, said

WBITS = {"gzip": 31, "deflate": 15}
_ALIASES = {"x-gzip": "gzip"}
_RAW = -15  # deflate without zlib's header: what the name says, and not what RFC 9110 means by it; some clients send it
_LEVEL = 1  # a reply is some 300 bytes of JSON and float32, which nothing makes much smaller
_PIECE = 2**16  # bytes that are unpacked at a time: what is left behind a member is copied, and many members would copy it often
_MOST_CODINGS = 2  # one inside the other
_MOST_MEMBERS = 2**16  # of a gzip file; empty ones cost time and give nothing


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body as it was before Content-Encoding, at most `limit` bytes. Raises UnknownEncoding, TooLarge, BadInput."""
    codings = [_known(name) for name in encoding.split(",") if name.strip().lower() not in ("", "identity")]
    if len(codings) > _MOST_CODINGS:
        raise BadInput(f"expected a body in at most {_MOST_CODINGS} encodings, got {len(codings)}")
    for name in reversed(codings):
        body = _unpacked(body, name, limit) if body else body  # some clients say it of no body too
    return body


def _known(name: str) -> str:
    coding = name.strip().lower()
    coding = _ALIASES.get(coding, coding)
    if coding not in WBITS:
        raise UnknownEncoding(f"unsupported Content-Encoding {said(coding)}, expected one of {', '.join(WBITS)}")
    return coding


def _unpacked(body: bytes, name: str, limit: int) -> bytes:
    """Return what one coding holds; a gzip file may have several members, one behind the other (RFC 1952, section 2.2)."""
    plain, at, whole, members = bytearray(), 0, False, 0
    wbits = WBITS[name] if name == "gzip" or _has_header(body) else _RAW
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


def accepted(header: str) -> str | None:
    """Return which of the two an Accept-Encoding asks for, by weight, then by order; None for neither."""
    best, weight = None, 0.0
    for item in header.split(","):
        name, _, rest = item.partition(";")
        try:
            q = float(rest.strip().removeprefix("q=")) if rest.strip() else 1.0
        except ValueError:
            q = 0.0
        coding = name.strip().lower()
        coding = _ALIASES.get(coding, coding)
        if coding in WBITS and q > weight:
            best, weight = coding, q
    return best


def compress(body: bytes, encoding: str) -> bytes:
    """Return the body in that encoding; the same bytes for the same body."""
    deflate = zlib.compressobj(_LEVEL, wbits=WBITS[encoding])
    return deflate.compress(body) + deflate.flush()
