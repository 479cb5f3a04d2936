"""gzip and deflate of request and reply bodies."""

import zlib

from indrnn.service.errors import BadInput, NotSupported, TooLarge, said

_WBITS = {"gzip": 31, "deflate": 15}
_LEVEL = 1  # a reply is some 300 bytes of JSON and float32, which nothing makes much smaller


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body as it was before Content-Encoding, at most `limit` bytes. Raises NotSupported, TooLarge, BadInput."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WBITS:
        raise NotSupported(f"unsupported Content-Encoding {said(name)}, expected one of {', '.join(_WBITS)}")
    inflate = zlib.decompressobj(_WBITS[name])
    try:
        plain = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadInput(f"the body cannot be decompressed as {name}: {error}") from None
    if len(plain) > limit:
        raise TooLarge(f"expected a body of at most {limit} bytes after decompression, got more")
    if not inflate.eof or inflate.unused_data:
        raise BadInput(f"the body is not one whole {name} stream")
    return plain


def accepted(header: str) -> str | None:
    """Return which of the two an Accept-Encoding asks for, by weight, then by order; None for neither."""
    best, weight = None, 0.0
    for item in header.split(","):
        name, _, rest = item.partition(";")
        try:
            q = float(rest.strip().removeprefix("q=")) if rest.strip() else 1.0
        except ValueError:
            q = 0.0
        if name.strip().lower() in _WBITS and q > weight:
            best, weight = name.strip().lower(), q
    return best


def compress(body: bytes, encoding: str) -> bytes:
    """Return the body in that encoding; the same bytes for the same body."""
    deflate = zlib.compressobj(_LEVEL, wbits=_WBITS[encoding])
    return deflate.compress(body) + deflate.flush()
