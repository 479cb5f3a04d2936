"""An HTTP request as every protocol reads it: whose it is, and its body, bounded in length and time."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request

from indrnn.service.errors import BodyTimeout
from indrnn.service.serving.access import Access
from indrnn.service.serving.body import aside, parse_object, read_bounded
from indrnn.service.settings import Settings


def owner_of(request: Request) -> str:
    """Return whose request it is. Raises Unauthorized."""
    access: Access = request.app.state.access
    return access.owner_of(request.headers)


async def raw_body(request: Request) -> bytes:
    """Return the request's body. Raises TooLarge, BodyTimeout."""
    settings: Settings = request.app.state.settings
    chunks: AsyncIterator[bytes] = request.stream()
    try:
        async with asyncio.timeout(settings.body_timeout):
            return await read_bounded(chunks, request.headers.get("content-length"), settings.max_body, settings.max_drain)
    except TimeoutError:
        raise BodyTimeout(f"expected the whole body within {settings.body_timeout:g} s") from None


async def read_body(request: Request) -> dict[str, object]:
    """Return the request's body, a JSON object. Raises NotJson, BadInput, TooLarge, BodyTimeout."""
    data = await raw_body(request)
    return await aside(parse_object, len(data), data, "body")
