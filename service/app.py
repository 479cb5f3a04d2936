"""Wire the application in one place: settings in, ASGI app out. Nothing is built at import."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from indrnn.service.engine.population import Census
from indrnn.service.engine.quota import Quotas
from indrnn.service.engine.statistics import Totals
from indrnn.service.errors import BadInput, MethodNotAllowed, NotFound, ServiceError, said
from indrnn.service.http.docs import docs
from indrnn.service.http.metrics import Metrics, Sources
from indrnn.service.http.routes import build_router, problem
from indrnn.service.http.session_routes import build_session_router
from indrnn.service.oip.http import OpenInference
from indrnn.service.oip.inference import Inference
from indrnn.service.openai.routes import PREFIX, build_completions, openai_problem
from indrnn.service.openapi import document
from indrnn.service.revision import revision
from indrnn.service.serving.access import Access, read_keys
from indrnn.service.serving.backend import Backend
from indrnn.service.serving.connections import Places
from indrnn.service.serving.repository import Repository, Rules
from indrnn.service.serving.sessions import Sessions
from indrnn.service.settings import Settings
from indrnn.service.store.probe import StoreProbe
from indrnn.service.store.protocol import Store
from indrnn.service.stream.plain_steps import Intake
from indrnn.service.stream.socket import Connections

log = logging.getLogger(__name__)

SWEEP = 60.0  # seconds between looks for expired sessions
GRPC_GRACE = 2.0  # seconds for open gRPC calls when the server stops; their steps are finished or refused by then


class _Front(FastAPI):
    """A FastAPI application that hands the paths of the Open Inference Protocol to that protocol's own application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["path"].startswith("/v2/") or scope["path"] == "/v2"):
            await self.state.oip(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings, backend: Backend | None = None) -> FastAPI:
    """Return the service; it closes the backend when it stops. Without a backend it can only describe itself (openapi).

    Raises KeysError when the file of keys cannot be used.
    """
    app = _Front(
        title="IndRNN",
        version="0.2.0",
        summary="Stateful sequence models: every client's per-neuron state is carried from request to request.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.backend = backend
    keys = None if settings.keys is None else read_keys(settings.keys)
    app.state.access = Access(keys, settings.origins.split(","), settings.metrics_open)
    app.state.oip = OpenInference(settings, app.state.access.owner_of)
    app.include_router(build_router(settings))
    app.include_router(build_session_router())
    app.include_router(build_completions(settings))
    app.add_route("/docs", docs, include_in_schema=False)
    app.state.places = Places(settings.max_connections)
    app.state.connections = Connections(app.state.places)
    app.router.routes.append(WebSocketRoute("/stream/{model}", app.state.connections.accept))
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _bug)
    app.add_middleware(_HeadAsGet)
    document(app, settings)
    return app


class _HeadAsGet:
    """A middleware that answers HEAD as GET. The server knows the request's method, and leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    backend: Backend | None = app.state.backend
    assert backend is not None, "a service that answers has a backend"
    backend.loop = asyncio.get_running_loop()
    state = app.state
    totals, census = Totals(), Census(backend.store)
    quotas = Quotas(settings.max_sessions, settings.max_steps_per_second, backend.store.count)
    state.models = backend.models
    state.sessions = Sessions(state.models, backend.store, settings.session_ttl, quotas)
    rules = Rules(settings.bundles, settings.versions, settings.linger)
    state.repository = Repository(rules, state.models, census, backend.load, state.sessions.forget, totals)
    state.repository.began_with(backend.stamps, backend.skipped)
    state.intake = Intake()
    state.probe = StoreProbe(backend.store)
    places: Places = state.places
    state.metrics = Metrics(Sources(state.models.__iter__, totals, census, lambda: places.taken, state.repository.unavailable, revision()))
    state.oip.inference = Inference(state.models, state.sessions, settings, state.repository)
    state.oip.repository = state.repository
    state.goodbyes = [state.connections.leave]
    tasks = [asyncio.create_task(_sweep(backend.store, totals))]
    if settings.poll:
        tasks.append(asyncio.create_task(state.repository.watch(settings.poll)))
    grpc = None
    if settings.grpc_port is not None:
        from indrnn.service.oip.grpc import serve_grpc  # some 30 MB that only those need who speak it

        grpc = await serve_grpc(state.oip.inference, state.repository, settings, state.oip.owner_of, places)
        state.goodbyes.append(grpc.leave)
    try:
        yield
    finally:
        if grpc is not None:
            await grpc.leave(GRPC_GRACE)
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(backend.close)


async def _sweep(store: Store, totals: Totals) -> None:
    while True:
        await asyncio.sleep(SWEEP)
        try:
            removed = await asyncio.to_thread(store.expire, time.time())
        except ServiceError as error:
            totals.store_failures += 1
            log.error("expired sessions could not be removed: %s", error)
            continue
        except Exception:  # a bug must not end the sweeps
            log.exception("expired sessions could not be removed")
            continue
        totals.swept += removed
        if removed:
            log.info("%d expired sessions removed", removed)


def _problem(request: Request, error: ServiceError) -> Response:
    """Return an error in the shape of the request's protocol."""
    return openai_problem(error) if request.url.path.startswith(PREFIX) else problem(error)


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError), "registered for it"
    return _problem(request, error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return _problem(request, MethodNotAllowed(f"expected {allowed} for {request.url.path}, got {request.method}", allow=allowed))
    if error.status_code == 404:
        return _problem(request, NotFound(f"there is nothing at {request.url.path[:200]}"))
    return _problem(request, BadInput(str(error.detail)))


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for it"
    first = error.errors()[0]
    return _problem(request, BadInput(f"{first['msg']}, got {said(first.get('input'))}", field=str(first["loc"][-1])))


async def _gone(request: Request, error: Exception) -> Response:
    """Answer a client that left in the middle of its body: nobody reads the answer, and a client that leaves is no bug."""
    return Response(status_code=400)


async def _bug(request: Request, error: Exception) -> Response:
    return _problem(request, ServiceError(f"internal error: {type(error).__name__}"))
