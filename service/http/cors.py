"""Decide which pages' scripts may call the HTTP API from a browser: cross-origin requests, the Fetch standard's CORS."""

from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
ASKED = ("authorization", "x-api-key", "content-encoding", "inference-header-content-length")
TOLD = ("content-disposition", "inference-header-content-length", "retry-after", "www-authenticate")


def open_to(origins: Collection[str], app: ASGIApp) -> ASGIApp:
    """Return the application, open to the scripts of those origins; without origins return the application itself.

    The script sends keys as headers, and the browser never sends them on its own: a page finds no credentials here that it could misuse.
    """
    if not origins:
        return app
    return CORSMiddleware(app, allow_origins=origins, allow_methods=METHODS, allow_headers=ASKED, expose_headers=TOLD)
