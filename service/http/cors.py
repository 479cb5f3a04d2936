"""Cross-origin requests (the Fetch standard's CORS): which pages' scripts may call the HTTP API from a browser."""

from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
ASKED = ("authorization", "x-api-key", "content-encoding", "inference-header-content-length")
TOLD = ("content-disposition", "inference-header-content-length", "retry-after", "www-authenticate")


def open_to(origins: Collection[str], app: ASGIApp) -> ASGIApp:
    """The application for scripts of those origins too; itself where there are none, at no cost.

    Keys are sent as headers by the script, never by the browser on its own: there are no credentials here that a page could misuse.
    """
    if not origins:
        return app
    return CORSMiddleware(app, allow_origins=origins, allow_methods=METHODS, allow_headers=ASKED, expose_headers=TOLD)
