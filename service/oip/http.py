"""The Open Inference Protocol over HTTP: an ASGI application for /v2, beside FastAPI and not inside it.

An infer request costs 40 µs less so. Its errors are {"error": …} with Triton's status; a reply that is no error has status 200.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from indrnn.service.errors import (
    BadInput,
    BodyTimeout,
    MethodNotAllowed,
    NotFound,
    NotSupported,
    ServiceError,
    Stopping,
    said,
    unanswered,
    unexpected,
)
from indrnn.service.oip import describe, message
from indrnn.service.oip.compression import accepted, compress
from indrnn.service.oip.inference import InferAsked, Inference
from indrnn.service.oip.message import JSON, LENGTH, HttpReply, inferred
from indrnn.service.oip.refusal import refusal
from indrnn.service.serving.request import aside, decompress, parse_object, read_bounded, while_there
from indrnn.service.serving.services import Services

log = logging.getLogger(__name__)

Headers = Mapping[bytes, bytes]
OwnerOf = Callable[[Mapping[str, str]], str]
"""Whose request it is, by its headers with names in lower case. Raises ServiceError for who may not come in."""

OPERATIONS = {"": "GET", "infer": "POST", "config": "GET", "ready": "GET", "stats": "GET"}
NO_LOADING = "explicit model load / unload is not allowed if polling is enabled"


class Target(NamedTuple):
    """The model, version and operation that a path under /v2/models names."""

    model: str
    version: str | None
    operation: str


class OpenInference:
    """The ASGI application."""

    def __init__(self, services: Services, inference: Inference) -> None:
        self.inference = inference
        self._repository = services.repository
        self._settings = services.settings
        self.access = services.access
        self.owner_of: OwnerOf = services.access.owner_of
        self.again: set[asyncio.Task[None]] = set()
        """steps that came the short way, and are asked again where their sequences are now"""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of the protocol."""
        headers: Headers = dict(scope["headers"])
        model, target = "", None
        try:
            target = target_of(scope["path"])
            if target is not None:
                model = target.model
            reply = await self._answer(scope["method"], scope["path"], target, headers, receive)
        except ClientDisconnect:
            return
        except ServiceError as error:
            reply = failure(error, model)
        except Exception as error:
            log.exception("a request to %s failed", scope["path"][:200])
            asks_a_step = target is not None and target.operation == "infer"
            reply = failure(unanswered(error) if asks_a_step else unexpected(error), model)
        await self._send(reply, headers, scope["method"], send)

    async def _answer(self, method: str, path: str, target: Target | None, headers: Headers, receive: Receive) -> HttpReply:
        if target is not None:
            _only(method, OPERATIONS[target.operation], path)
            if target.operation == "infer":
                return await self._infer(target, headers, receive)
            self._owner(headers)
            return await self._describe(target)
        return await self._of_server(method, path, headers, receive)

    async def _infer(self, target: Target, headers: Headers, receive: Receive) -> HttpReply:
        owner = self._owner(headers)
        body = await self._body(headers, receive)
        length = message.header_length(_text(headers, LENGTH), len(body))
        inference = self.inference
        raw = length == 0
        size = len(body) if length is None else length  # of the JSON; what is raw costs next to nothing
        if raw:
            ask = message.read_raw(body, inference.model(target.model, target.version).tensors)
        else:
            ask = await aside(message.read, size, body, length)
        answering = inference.answer(InferAsked(ask, target.model, target.version, owner, size))
        try:
            answered = await (answering if ask.sequence is not None else while_there(receive, answering))
        except ServiceError as error:
            return failure(error, target.model, ask.sequence)
        return await aside(inferred, sum(o.array.nbytes for o in answered.outputs), answered)

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        s = self._settings
        try:
            async with asyncio.timeout(s.body_timeout):
                first = await receive()
                if first["type"] == "http.request" and not first.get("more_body") and len(first["body"]) <= s.max_body:
                    body: bytes = first["body"]
                else:
                    body = await read_bounded(_chunks(first, receive), _text(headers, b"content-length"), s.max_body, s.max_drain)
        except TimeoutError:
            raise BodyTimeout(f"expected the whole body within {s.body_timeout:g} s") from None
        encoding = headers.get(b"content-encoding")
        return body if encoding is None else await asyncio.to_thread(decompress, body, encoding.decode("latin-1"), s.max_body)

    async def _describe(self, target: Target) -> HttpReply:
        inference = self.inference
        model = inference.model(target.model, target.version)
        if target.operation == "ready":
            return _json({"ready": True}) if model.port.ready else failure(Stopping("not ready"), target.model)
        if target.operation == "config":
            return _json(describe.config(model, self._settings, inference.max_rows))
        if target.operation == "stats":
            return _json({"model_stats": [await describe.statistics(m) for m in inference.versions(target.model, target.version)]})
        return _json(describe.metadata(model, inference.models))

    async def _of_server(self, method: str, path: str, headers: Headers, receive: Receive) -> HttpReply:
        if path in ("/v2/health/live", "/v2/health/ready"):
            _only(method, "GET", path)
            return self._health(path)
        self._owner(headers)
        parts = path.removeprefix("/v2").strip("/").split("/")
        if parts == [""]:
            _only(method, "GET", path)
            return _json(describe.server())
        if parts == ["models", "stats"]:
            _only(method, "GET", path)
            return _json({"model_stats": [await describe.statistics(m) for m in self.inference.models]})
        if parts[0] == "repository" and parts[-1] == "index" and len(parts) <= 3:
            _only(method, "POST", path)
            return await self._index(parts[1:-1], headers, receive)
        if parts[0] == "repository" and parts[-1] in ("load", "unload") and parts[-3:-2] == ["models"] and len(parts) in (4, 5):
            _only(method, "POST", path)
            await self._command(parts[-1], parts[-2], headers, receive)
            return HttpReply(200, b"")
        raise NotFound(f"there is nothing at {path[:200]}")

    def _health(self, path: str) -> HttpReply:
        if path.endswith("live"):
            return _json({"live": True})
        ready = all(m.port.ready for m in self.inference.models)
        return _json({"ready": ready}, 200 if ready else 400)

    async def _index(self, repository: list[str], headers: Headers, receive: Receive) -> HttpReply:
        if repository:
            raise BadInput("'repository_name' specification is not supported")
        body = await self._body(headers, receive)
        try:
            asked = orjson.loads(body) if body else {}
        except orjson.JSONDecodeError as error:
            raise BadInput(f"failed to parse the request JSON buffer: {error.msg} at {error.pos}") from None
        if not isinstance(asked, dict | None):
            raise BadInput(f"failed to parse the request JSON buffer: expected an object, got {said(asked)}")
        ready = (asked or {}).get("ready")
        if not isinstance(ready, bool | None):
            raise BadInput(f"unable to parse 'ready': expected true or false, got {said(ready)}")
        return _json([line._asdict() for line in self._repository.index(bool(ready))])

    async def _command(self, command: str, name: str, headers: Headers, receive: Receive) -> None:
        """Load or unload a model. Parameters of the body would be another graph or another configuration than the folder's."""
        if not self._settings.model_control:
            raise NotSupported(NO_LOADING)
        body = await self._body(headers, receive)
        asked = parse_object(body, "body") if body else {}
        refuse_parameters(asked.get("parameters"))
        await (self._repository.load(name) if command == "load" else self._repository.unload(name))

    def _owner(self, headers: Headers) -> str:
        return self.owner_of({name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()})

    async def _send(self, reply: HttpReply, asked: Headers, method: str, send: Send) -> None:
        body = reply.body
        headers = list(reply.headers)
        encoding = accepted(_text(asked, b"accept-encoding") or "") if reply.inferred else None
        if encoding is not None:
            with suppress(MemoryError):  # then it goes as it is: what it answers is stored
                body = await aside(compress, len(body), body, encoding)
                headers.append((b"content-encoding", encoding.encode()))
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


def target_of(path: str) -> Target | None:
    """Return what /v2/models/NAME[/versions/V][/OPERATION] names; None for another path."""
    parts = path.rstrip("/").split("/")
    if parts[:3] != ["", "v2", "models"] or len(parts) < 4 or parts[3:] == ["stats"]:
        return None
    name, rest = parts[3], parts[4:]
    version = None
    if rest[:1] == ["versions"] and len(rest) >= 2 and rest[1].isascii() and rest[1].isdigit():
        version, rest = rest[1], rest[2:]
    operation = "/".join(rest)
    return Target(name, version, operation) if operation in OPERATIONS else None


def refuse_parameters(parameters: object) -> None:
    """Refuse the parameters of a load or an unload. Raises BadInput for what would change anything."""
    names = [name for name, value in parameters.items() if value is not None] if isinstance(parameters, Mapping) else []
    if others := [name for name in names if name != "unload_dependents"]:
        raise BadInput(f"parameter '{others[0][:80]}' is not supported: the repository's folder says what is loaded")


def failure(error: ServiceError, model: str, sequence: int | str | None = None) -> HttpReply:
    """Return an error as the protocol says it; sequence: the correlation id of the request that made it."""
    said_so = refusal(error, model, sequence)
    hints: dict[int, tuple[bytes, bytes]] = {
        405: (b"allow", str(error.extra.get("allow", "")).encode()),
        429: (b"retry-after", str(error.extra.get("retry_after", 1)).encode()),
        501: (b"accept-encoding", b"gzip, deflate"),
        503: (b"retry-after", str(error.extra.get("retry_after", 1)).encode()),
    }
    headers = (JSON, hints[said_so.http]) if said_so.http in hints else (JSON,)
    return HttpReply(said_so.http, orjson.dumps({"error": said_so.text}), headers)


def _only(method: str, expected: str, path: str) -> None:
    allowed = "GET, HEAD" if expected == "GET" else expected
    if method not in allowed.split(", "):
        raise MethodNotAllowed(f"Method Not Allowed: expected {allowed} for {path[:200]}, got {method[:20]}", allow=allowed)


def _json(value: object, status: int = 200) -> HttpReply:
    return HttpReply(status, orjson.dumps(value))


def _text(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


async def _chunks(first: Mapping[str, object], receive: Receive) -> AsyncIterator[bytes]:
    event: Mapping[str, object] = first
    while True:
        if event["type"] != "http.request":
            raise BadInput("the client left in the middle of its body")
        body = event.get("body", b"")
        assert isinstance(body, bytes), "as ASGI has it"
        yield body
        if not event.get("more_body"):
            return
        event = await receive()
