"""Serve /docs, the API's documentation: one page, which loads nothing but /openapi.json."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse

_PAGE = (Path(__file__).parent / "docs.html").read_text("utf-8")
_POLICY = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'"


async def docs(request: Request) -> HTMLResponse:
    """Return the page. Its script reads /openapi.json, and the page's policy forbids it to load anything else."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})
