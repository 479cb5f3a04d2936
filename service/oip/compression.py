"""gzip and deflate of replies, where a client asks for it."""

import zlib

from indrnn.service.serving.request import CODINGS, coding

_LEVEL = 1  # a reply is some 300 bytes of JSON and float32, which nothing makes much smaller


def accepted(header: str) -> str | None:
    """Return which of the two an Accept-Encoding asks for, by weight, then by order; None for neither."""
    best, weight = None, 0.0
    for item in header.split(","):
        name, _, rest = item.partition(";")
        try:
            q = float(rest.strip().removeprefix("q=")) if rest.strip() else 1.0
        except ValueError:
            q = 0.0
        if coding(name) in CODINGS and q > weight:
            best, weight = coding(name), q
    return best


def compress(body: bytes, encoding: str) -> bytes:
    """Return the body in that encoding; the same bytes for the same body."""
    deflate = zlib.compressobj(_LEVEL, wbits=CODINGS[encoding])
    return deflate.compress(body) + deflate.flush()
