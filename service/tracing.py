"""OpenTelemetry, where it is asked for: a span for each request, with what its engine did for it. Nothing of it is imported otherwise.

A request over HTTP or a call over gRPC is a span of its own, which the middleware and the gRPC service begin. Steps of a WebSocket,
requests of a gRPC stream and the short way of /v2 have no such frame around them: their span begins where an engine is asked, and ends
with its answer. Whichever it is, the answer leaves its attributes on that one span (docs/operations.md lists them). A client's
`traceparent` (W3C Trace Context) is the parent: of a WebSocket that of its handshake. No id of a session is told, only a digest of it.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indrnn.service.engine.port import EnginePort
from indrnn.service.engine.requests import Delivery, Reply, Request
from indrnn.service.engine.statistics import Statistics
from indrnn.service.errors import status
from indrnn.service.session.machine import Refused
from indrnn.service.settings import Settings, SettingsError

LAST = 2.0  # seconds for the spans that were not sent when the service ends
API = frozenset({"predict", "explain", "models", "sessions", "v1", "v2"})
"""the first parts of paths whose requests have spans: probes, scrapes and the page's files have none"""
CARRIED = ("traceparent", "tracestate")

Span = Any  # opentelemetry.trace.Span; the package need not be there
Parent = Any  # opentelemetry.context.Context


class Times(NamedTuple):
    """The engine's turn that answered: rows of its last run of the model, nanoseconds of that run and of the commit; 0 where none was."""

    rows: int
    run_ns: int
    store_ns: int


class TimedAnswers:
    """Hands an engine's deliveries on, with the times of the turn they come from. Called on the engine's thread."""

    def __init__(self, told: Callable[..., None]) -> None:
        self.statistics = Statistics()
        self._told = told
        self._seen: object = None

    def __call__(self, deliveries: Sequence[Delivery]) -> None:
        """Hand on deliveries."""
        self._told(deliveries, self._times())

    def _times(self) -> Times:
        s = self.statistics
        try:  # what the engine has just noted; whoever counts that now takes it away
            run, (kind, ns) = s.noted_runs[-1], s.noted[-1]
        except IndexError:
            return Times(0, 0, 0)
        fresh, self._seen = run is not self._seen, run
        return Times(run[0], run[2], ns if kind is s.store else 0) if fresh else Times(0, 0, 0)


class Asking:
    """A span that engines answer to: `own` where it ends with the last of `left` answers, else with the request around it."""

    __slots__ = ("begun", "kind", "left", "own", "span")

    def __init__(self, span: Span, own: bool, left: int, kind: str) -> None:
        self.span = span
        self.own = own
        self.left = left
        self.kind = kind
        self.begun = time.perf_counter_ns()


class Tracing:
    """The spans of this process. Everything but `close` runs on the event loop's thread."""

    def __init__(self, provider: Any) -> None:
        """provider: opentelemetry.sdk.trace.TracerProvider."""
        from opentelemetry import context, trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.models: Iterable[Any] = ()
        """the served models, to name whose engine it is that was asked"""
        self._provider = provider
        self._tracer = provider.get_tracer("indrnn")
        self._context, self._trace = context, trace
        self._server = trace.SpanKind.SERVER
        self._failed = trace.Status(trace.StatusCode.ERROR)
        self._extract = TraceContextTextMapPropagator().extract
        self._request: ContextVar[Span | None] = ContextVar("request", default=None)
        self._asking: dict[int, Asking] = {}
        self._named: WeakKeyDictionary[EnginePort, tuple[str, str]] = WeakKeyDictionary()

    def close(self) -> None:
        """Send what has not been sent, for some seconds at most."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(LAST)

    # --- the request around it ------------------------------------------------------------------------------------------------------------

    def parent(self, headers: Mapping[str, str]) -> Parent:
        """Return the parent that a client names; None where it names none."""
        return self._extract(headers) if "traceparent" in headers else None

    @property
    def here(self) -> Parent:
        """Return the parent of what is asked in this context from now on."""
        return self._context.get_current()

    def under(self, headers: Mapping[str, str]) -> None:
        """Let the client's span be the parent of all that this task asks from now on."""
        if (parent := self.parent(headers)) is not None:
            self._context.attach(parent)

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str], attributes: Mapping[str, object]) -> Iterator[Span]:
        """Make a span around a request."""
        with self._tracer.start_as_current_span(
            name, self.parent(headers), self._server, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            token = self._request.set(span)
            try:
                yield span
            finally:
                self._request.reset(token)

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return the application with a span around each HTTP request, and the handshake's parent around each WebSocket."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            route = _route(scope["path"]) if scope["type"] == "http" else ""
            if scope["type"] == "websocket":
                self.under(_carried(scope["headers"]))
            if not route:
                await app(scope, receive, send)
                return
            named = {"http.request.method": scope["method"], "http.route": route, "url.scheme": scope["scheme"]}
            with self.request(f"{scope['method']} {route}", _carried(scope["headers"]), named) as span:

                async def sent(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        span.set_attribute("http.response.status_code", message["status"])
                        if message["status"] >= 500:
                            span.set_status(self._failed)
                    await send(message)

                await app(scope, receive, sent)

        return traced

    # --- what engines are asked -----------------------------------------------------------------------------------------------------------

    def asked(self, numbers: Sequence[int], port: EnginePort, request: Request, parent: Parent = None) -> None:
        """Take note of requests of one kind that go to an engine together, under tickets of these numbers."""
        span, kind = self._request.get(), _kind(type(request).__name__)
        own = span is None or parent is not None
        if own:
            span = self._tracer.start_span(f"{request.protocol} {kind}", parent, self._server)
        asking = Asking(span, own, len(numbers), kind)
        if span.is_recording():  # type: ignore[union-attr]
            self._describe(span, port, request, kind)
        for number in numbers:
            self._asking[number] = asking

    def _describe(self, span: Span, port: EnginePort, request: Request, kind: str) -> None:
        name, version = self._name(port)
        said: dict[str, object] = {
            "indrnn.request": kind,
            "indrnn.protocol": request.protocol,
            "indrnn.model": name,
            "indrnn.version": version,
        }
        if (session_id := getattr(request, "session_id", None)) is not None:
            said["indrnn.session"] = digest(session_id)
        if (content := getattr(request, "content", None)) is not None:
            said["indrnn.length"] = len(content.x)
        span.set_attributes(said)

    def _name(self, port: EnginePort) -> tuple[str, str]:
        named = self._named.get(port)
        if named is None:
            manifest = next((m.manifest for m in self.models if m.port is port), None)
            named = ("", "") if manifest is None else (manifest.name, manifest.version)
            self._named[port] = named
        return named

    def answered(self, number: int, reply: Reply, times: Times | None) -> None:
        """Take note of a last answer."""
        asking = self._asking.pop(number, None)
        if asking is None:
            return
        asking.left -= 1
        if asking.span.is_recording() and (asking.left <= 0 or type(reply) is Refused):
            took = time.perf_counter_ns() - asking.begun
            asking.span.set_attributes(_outcome(reply, took, times))
            if asking.own and type(reply) is Refused and status(reply.error) >= 500:
                asking.span.set_status(self._failed)
        if asking.own and asking.left <= 0:
            asking.span.end()

    def left(self, numbers: Iterable[int]) -> None:
        """Take note that nobody waits for the answers any more."""
        for number in numbers:
            asking = self._asking.pop(number, None)
            if asking is None:
                continue
            asking.left -= 1
            asking.span.set_attribute("indrnn.withdrawn", True)
            if asking.own and asking.left <= 0:
                asking.span.end()


def _outcome(reply: Reply, took_ns: int, times: Times | None) -> dict[str, object]:
    """Return the attributes of an answer; took_ns: since it was asked for."""
    said: dict[str, object] = {"indrnn.engine_seconds": took_ns * 1e-9}
    if times is not None and times.run_ns:
        said["indrnn.batch"] = times.rows
        said["indrnn.run_seconds"] = times.run_ns * 1e-9
        said["indrnn.store_seconds"] = times.store_ns * 1e-9
        said["indrnn.queue_seconds"] = max(0, took_ns - times.run_ns - times.store_ns) * 1e-9
    if type(reply) is Refused:
        said["error.type"] = reply.error.code
        return said
    told = getattr(reply, "session", reply)  # a session that was made or looked at stands somewhere too
    for attribute, names in (("indrnn.step", ("number", "step")), ("indrnn.position", ("position",))):
        value = next((found for name in names if type(found := getattr(told, name, None)) is int), None)
        if value is not None:
            said[attribute] = value
    if (session_id := getattr(told, "id", None)) is not None:
        said["indrnn.session"] = digest(session_id)
    return said


@lru_cache(65_536)
def digest(session_id: str) -> str:
    """Return what stands for a session in spans: enough to find its other spans, and not to use it."""
    return hashlib.blake2b(session_id.encode("utf-8", "replace"), digest_size=8).hexdigest()


@lru_cache
def _kind(name: str) -> str:
    return name.removesuffix("Request").lower()


def _route(path: str) -> str:
    """Return a request's path without what a client chose in it; empty where its requests have no spans."""
    first, *rest = path.lstrip("/").split("/")
    if first not in API:
        return ""
    if first == "sessions" and rest:
        rest = ["{session_id}", *rest[1:2]]
    elif first == "models" and rest:
        rest = ["{model}", *rest[1:2]]
    elif first == "v2" and len(rest) > 1 and rest[0] == "models":
        rest = ["models", "{model}", *(["versions", "{version}"] if rest[2:3] == ["versions"] else []), *rest[2:][-1:]]
    elif first == "v2" and rest[:1] == ["repository"]:
        rest = ["repository", *rest[-1:]]
    return "/" + "/".join(part[:20] for part in (first, *rest[:6]))


def _carried(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in (b"traceparent", b"tracestate")}


def open_tracing(settings: Settings) -> Tracing | None:
    """Return what sends spans where OTEL_… variables say; None where it is off. Raises SettingsError without the packages."""
    if not settings.otel:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise SettingsError(f"INDRNN_OTEL: {error.name} is missing: pip install 'indrnn[otel]'") from error
    resource = Resource.create({SERVICE_NAME: "indrnn"}).merge(OTELResourceDetector().detect())  # the environment's word is the last
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
