"""Wire the application in one place: settings in, ASGI app out. Nothing is built at import."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, WebSocketRoute
from starlette.types import ASGIApp

from indrnn.service.drain import Goodbye
from indrnn.service.errors import SESSION, BadInput, MethodNotAllowed, NotFound, ServiceError, said, unanswered, unexpected
from indrnn.service.http.cors import METHODS
from indrnn.service.http.docs import Docs
from indrnn.service.http.metrics import AskedFor, Metrics, Sources
from indrnn.service.http.page import Page, PageRoute
from indrnn.service.http.routes import build_router, problem
from indrnn.service.http.session_routes import build_session_router
from indrnn.service.oip.http import OpenInference
from indrnn.service.oip.inference import Inference
from indrnn.service.openai.routes import PREFIX, build_completions, openai_problem
from indrnn.service.openapi import document
from indrnn.service.revision import revision
from indrnn.service.serving.backend import Backend
from indrnn.service.serving.request import Access, read_keys, watch_keys
from indrnn.service.serving.services import Services
from indrnn.service.settings import Settings
from indrnn.service.stream.plain_steps import Intake
from indrnn.service.stream.socket import Connections
from indrnn.service.tracing import Tracing, open_tracing
from indrnn.service.wire.http import Front, path_below

log = logging.getLogger(__name__)

GRPC_GRACE = 2.0  # seconds for open gRPC calls when the server stops; their steps are finished or refused by then


@dataclass(frozen=True)
class Application:
    """asgi: all of it; oip: the part behind /v2, which the wire may ask directly; goodbyes: who is told when the service stops."""

    asgi: ASGIApp
    oip: OpenInference
    access: Access
    goodbyes: list[Goodbye]
    lifespan: Callable[[], contextlib.AbstractAsyncContextManager[None]]
    """from the first request to the last; the server enters it through `asgi`"""


def create_application(settings: Settings, backend: Backend) -> Application:
    """Return the service, which closes the backend when it stops. Raises KeysError when the file of keys cannot be used."""
    return wired(Services.over(settings, read_access(settings), backend))


def read_access(settings: Settings) -> Access:
    """Return who is let in. Raises KeysError when the file of keys cannot be used."""
    keys = None if settings.keys is None else read_keys(settings.keys)
    return Access(keys, settings.origins.split(","), settings.metrics_open)


def wired(services: Services, tracing: Tracing | None = None) -> Application:
    """Return every protocol over the services, whose backend is closed at the end. Raises SettingsError where nothing can be traced."""
    tracing = tracing or open_tracing(services.settings)
    settings, access = services.settings, services.access
    oip = OpenInference(services, Inference(services))
    goodbyes: list[Goodbye] = []
    app = create_app(settings, services, goodbyes)

    def lifespan(app: object = None) -> contextlib.AbstractAsyncContextManager[None]:
        return _lifespan(services, oip, goodbyes, tracing)

    app.router.lifespan_context = lifespan
    front: ASGIApp = Front(app, oip, settings.root_path)
    if tracing is not None:
        tracing.models, services.steps.tickets.trace = services.models, tracing
        front = tracing.around(front)
    return Application(front, oip, access, goodbyes, lifespan)


def create_app(settings: Settings, services: Services | None = None, goodbyes: list[Goodbye] | None = None) -> FastAPI:
    """Return all protocols but /v2, which stands before them. Without services they can be described (openapi), and nothing else."""
    app = FastAPI(
        title="IndRNN",
        version="0.2.0",
        summary="Stateful sequence models: every client's per-neuron state is carried from request to request.",
        docs_url=None,
        redoc_url=None,
    )
    for mount in PROTOCOLS.values():
        mount(app, services or cast("Services", _Described(settings)), goodbyes if goodbyes is not None else [])
    page = Page(settings.page)
    app.add_route("/docs", Docs(page).answer, include_in_schema=False)
    app.router.routes.append(PageRoute(page))
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _bug)
    document(app, settings)
    return app


def _mount_native(app: FastAPI, services: Services, goodbyes: list[Goodbye]) -> None:
    s = services
    numbers: Metrics | AskedFor
    if s.scrape is None:
        assert s.census is not None, "the store is here, or somebody else has the numbers"
        numbers = Metrics(Sources(s.models.__iter__, s.totals, s.census, lambda: s.places.taken, s.repository.unavailable, revision()))
    else:
        numbers = AskedFor(s.scrape)
    app.include_router(build_router(services, numbers))
    app.include_router(build_session_router(services))


def _mount_openai(app: FastAPI, services: Services, goodbyes: list[Goodbye]) -> None:
    app.include_router(build_completions(services))


def _mount_stream(app: FastAPI, services: Services, goodbyes: list[Goodbye]) -> None:
    connections = Connections(services, Intake(services.steps.tickets))
    app.router.routes.append(WebSocketRoute("/stream/{model}", connections.accept))
    app.router.routes.append(WebSocketRoute("/{path:path}", connections.deny))
    goodbyes.append(connections.leave)


Mount = Callable[[FastAPI, Services, list[Goodbye]], None]
PROTOCOLS: dict[str, Mount] = {"http": _mount_native, "openai": _mount_openai, "stream": _mount_stream}
"""The protocols beside /v2, a line each: a function adds its routes, and who is to be told when the service stops."""


class _Described:
    """Stands where the services are, in an app that only describes itself: nobody asks its routes, and nothing of it is looked at."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __getattr__(self, name: str) -> "_Described":
        return self


@contextlib.asynccontextmanager
async def _lifespan(services: Services, oip: OpenInference, goodbyes: list[Goodbye], tracing: Tracing | None) -> AsyncIterator[None]:
    settings, backend = services.settings, services.backend
    backend.tickets.loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(chore) for chore in services.chores()]
    if settings.poll and settings.keys is not None:
        tasks.append(asyncio.create_task(watch_keys(services.access, settings.keys, settings.poll)))
    grpc = None
    try:
        if settings.grpc_port is not None:
            from indrnn.service.oip.grpc import serve_grpc  # some 30 MB that only those need who speak it

            grpc = await serve_grpc(oip.inference, services)
            goodbyes.append(grpc.leave)
        yield
    finally:
        if grpc is not None:
            await grpc.leave(GRPC_GRACE)
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(backend.close)
        if tracing is not None:
            await asyncio.to_thread(tracing.close)


def _problem(request: Request, error: ServiceError) -> Response:
    """Return an error in the shape of the request's protocol."""
    return openai_problem(error) if path_below(request.scope).startswith(PREFIX) else problem(error)


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError), "registered for it"
    return _problem(request, error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it"
    path = path_below(request.scope)[:200]
    if error.status_code == 405 and _OF_TENSORFLOW.fullmatch(path):
        return _problem(request, NotFound(f"there is nothing at {path}: expected POST /v1/completions, /predict or /v2/models/NAME/infer"))
    if error.status_code == 405:
        allowed = ", ".join(_allowed(request))
        return _problem(request, MethodNotAllowed(f"expected {allowed} for {path}, got {request.method}", allow=allowed))
    if error.status_code == 404 and _STREAM.fullmatch(path):
        return _problem(request, NotFound(f"there is a stream at {path}: expected a WebSocket's handshake, got {request.method}"))
    if error.status_code == 404:
        return _problem(request, NotFound(f"there is nothing at {path}"))
    return _problem(request, BadInput(str(error.detail)))


_OF_TENSORFLOW = re.compile(PREFIX + r"models/[^/]+:[a-z]+")
"""how TensorFlow Serving and KServe's first protocol name a model's methods"""
_STREAM = re.compile(r"/stream/[^/]+")


def _allowed(request: Request) -> list[str]:
    """Return the methods that a path may be asked with; HEAD is answered as GET (service/wire/http.py)."""
    routes = request.app.router.routes
    methods = [m for m in METHODS if any(r.matches({**request.scope, "method": m})[0] is Match.FULL for r in routes)]
    return [m for m in METHODS if m in methods or (m == "HEAD" and "GET" in methods)]


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for it"
    first = error.errors()[0]
    return _problem(request, BadInput(f"{first['msg']}, got {said(first.get('input'))}", field=str(first["loc"][-1])))


async def _gone(request: Request, error: Exception) -> Response:
    """Answer a client that left in the middle of its body: nobody reads the answer, and a client that leaves is no bug."""
    return Response(status_code=400)


async def _bug(request: Request, error: Exception) -> Response:
    changes = request.method not in ("GET", "HEAD") and path_below(request.scope).startswith("/sessions")
    return _problem(request, unanswered(error, what=SESSION) if changes else unexpected(error))
