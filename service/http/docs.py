"""Serve /docs, the API's documentation, to read and to try: a viewer that comes with the page, or without it a small one of our own."""

import base64
import hashlib
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from indrnn.service.http.page import HEADERS, POLICY, Page

VIEWER = "viewer/index.html"
_SMALL = (Path(__file__).parent / "docs.html").read_text("utf-8")


class Docs:
    """The documentation. Both viewers read /openapi.json, and the policy forbids them to load anything from elsewhere."""

    def __init__(self, page: Page) -> None:
        self._page = page
        script, style = (_digests(_SMALL, tag) for tag in ("script", "style"))
        policy = POLICY.replace("script-src 'self'", f"script-src {script}").replace("style-src 'self'", f"style-src {style}")
        self._headers = {**HEADERS, "Content-Security-Policy": policy}

    async def answer(self, request: Request) -> Response:
        """Return the page of the viewer that is there."""
        if VIEWER in self._page.names():
            return await self._page.file(VIEWER, request)
        return HTMLResponse(_SMALL, headers=self._headers)


def _digests(page: str, tag: str) -> str:
    """Return what the policy says of a page's own scripts or styles: these, and no others that somebody may have put there."""
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)
