"""Serve OpenAI's completions with models that read characters: POST /v1/completions and GET /v1/models.

A completion has no session and no store: a prompt is read from the start of a sequence and texts are drawn after it, in the same batches
as everybody else's steps. When a client leaves, its texts are not drawn any further.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from datetime import datetime
from functools import partial

import orjson
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from indrnn.service.errors import MethodNotAllowed, ServiceError, UnknownEncoding, UnknownModel
from indrnn.service.openai import schema
from indrnn.service.openai.reply import Head, error_body, error_status
from indrnn.service.openai.request import CompletionLimits, read_wish
from indrnn.service.openai.run import CompletionRun
from indrnn.service.serving.models import Models, ServedModel, one_of
from indrnn.service.serving.request import CODINGS, LONG, read_body, while_there
from indrnn.service.serving.services import Services
from indrnn.service.serving.text import TextModality
from indrnn.service.settings import Settings

PREFIX = "/v1/"


def openai_problem(error: ServiceError) -> Response:
    """Return an error in OpenAI's shape."""
    code = error_status(error)
    headers = {"Retry-After": str(error.extra.get("retry_after", 1))} if code in (429, 503) else {}
    if code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, UnknownEncoding):
        headers["Accept-Encoding"] = ", ".join(CODINGS)
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = str(error.extra["allow"])
    return Response(orjson.dumps(error_body(error)), code, headers, "application/json")


def _errors(*codes: int) -> dict[int | str, dict[str, object]]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
    return {c: {"description": _MEANING[c], "content": content} for c in codes}


_CHUNK = {"type": "string", "description": "with `stream`: a chunk of the same shape as JSON, `[DONE]` at the end"}
_MEANING = {
    400: "invalid_request_error: `param` names what is wrong",
    401: "unauthorized: no API key came, or one that is not known; only where the service has keys",
    404: "model_not_found: no such model, or one that reads no text",
    408: "body_timeout: the body did not come in time",
    413: "too_large: the body, a prompt, the number of choices or of characters with log-probabilities is over its limit",
    415: "unsupported_encoding: the body is compressed in another way than gzip or deflate",
    429: "rate_limited: more steps and characters a second than a key may have; try again after Retry-After seconds",
    500: "server_error: the model could not answer",
    503: "server_error: overloaded or stopping; try again after Retry-After seconds",
}


def build_completions(services: Services) -> APIRouter:
    """Return the routes over the running service."""
    settings, served, access, steps = services.settings, services.models, services.access, services.steps
    router = APIRouter(prefix=PREFIX.rstrip("/"), tags=["openai"])
    body_shape = {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/CompletionRequest"}}}}
    stream_shape: dict[int | str, dict[str, object]] = {
        200: {"content": {"text/event-stream": {"schema": {"type": "object", "properties": {"data": _CHUNK}}}}}
    }

    @router.post(
        "/completions",
        response_model=schema.Completion,
        responses={**stream_shape, **_errors(400, 401, 404, 408, 413, 415, 429, 500, 503)},
        openapi_extra={"requestBody": body_shape},
    )
    async def completions(request: Request) -> Response:
        """Continue texts as OpenAI's completions do. A token is a character."""
        owner = access.owner_of(request.headers)
        body = await read_body(request, settings)
        model, text = _reader_of_text(served, body.get("model"))
        wish = read_wish(body, text.alphabet, _bounds(settings), text.replaces(body.get("unknown")))
        make = partial(CompletionRun, model, text, wish, steps.tickets, partial(steps.owe, owner, 1))
        run = await asyncio.to_thread(make) if wish.prompt_tokens > LONG else make()
        head = _head(model)
        steps.charge(owner, len(wish.prompts))
        run.submit()
        try:
            await while_there(request.receive, run.take())  # what is refused now still has a status of its own
            if wish.stream:
                return EventStream(run, head, settings.send_timeout)
            await while_there(request.receive, run.finish())
        except BaseException:
            run.leave()
            raise
        return Response(await _whole(run, head), media_type="application/json")

    @router.get("/models", response_model=schema.OpenAIModelList, responses=_errors(401))
    async def models(request: Request) -> Response:
        """List the models that complete text."""
        access.owner_of(request.headers)
        return JSONResponse({"object": "list", "data": [_model_info(m) for m, _ in _readers_of_text(served)]})

    @router.get("/models/{model}", response_model=schema.OpenAIModel, responses=_errors(401, 404))
    async def model(request: Request, model: str) -> Response:
        """Describe one model that completes text."""
        access.owner_of(request.headers)
        return JSONResponse(_model_info(_reader_of_text(served, model)[0]))

    return router


def _bounds(settings: Settings) -> CompletionLimits:
    return CompletionLimits(
        settings.max_text, settings.max_generate, max(1, min(settings.max_sequences, settings.max_queue // 2)), settings.max_text
    )


def _readers_of_text(models: Models) -> list[tuple[ServedModel, TextModality]]:
    latest = map(models.latest, models.names())
    return [(model, model.modality) for model in latest if isinstance(model.modality, TextModality)]


def _reader_of_text(models: Models, name: object) -> tuple[ServedModel, TextModality]:
    readers = _readers_of_text(models)
    found = next((one for one in readers if one[0].manifest.name == name), None)
    if found is None:
        raise UnknownModel(one_of([m.manifest.name for m, _ in readers], name, "no model that completes text is served"), field="model")
    return found


def _model_info(model: ServedModel) -> dict[str, object]:
    created = int(datetime.fromisoformat(model.manifest.created).timestamp())
    return {"id": model.manifest.name, "object": "model", "created": created, "owned_by": "indrnn"}


def _head(model: ServedModel) -> Head:
    m = model.manifest
    return Head(f"cmpl-{secrets.token_urlsafe(18)}", int(time.time()), m.name, f"{m.name}-{m.version}-{m.sha256[:12]}")


async def _whole(run: CompletionRun, head: Head) -> bytes:
    """Return the whole answer as JSON; a long one is put together on another thread."""

    def made() -> bytes:
        choices = [piece for choice in run.choices if (piece := choice.piece()) is not None]
        return orjson.dumps({**head.body(choices), "usage": run.usage(), **run.replaced()})

    return await asyncio.to_thread(made) if run.wish.logprobs is not None or run.wish.echo else made()


class EventStream(Response):
    """A reply of server-sent events: a chunk for each piece of text, then `[DONE]`. It ends early if the client leaves or does not read."""

    media_type = "text/event-stream"

    def __init__(self, run: CompletionRun, head: Head, send_timeout: float) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._run = run
        self._head = head
        self._send_timeout = send_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; take the jobs back when the client no longer reads."""
        try:
            with suppress(ClientDisconnect, OSError, TimeoutError):
                await while_there(receive, self._send_all(send))
        finally:
            if self._run.open:
                self._run.leave()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._chunks():
            await self._within(send({"type": "http.response.body", "body": b"data: " + chunk + b"\n\n", "more_body": True}))
        await self._within(send({"type": "http.response.body", "body": b"", "more_body": False}))

    async def _within(self, sending: Awaitable[None]) -> None:
        async with asyncio.timeout(self._send_timeout):
            await sending

    async def _chunks(self) -> AsyncIterator[bytes]:
        run = self._run
        extra = {**run.replaced(), **({"usage": None} if run.wish.include_usage else {})}
        grown = run.choices
        try:
            while True:
                for choice in grown:
                    long = run.wish.echo and not choice.began  # a prompt of many characters: the event loop has others to serve
                    piece = await asyncio.to_thread(choice.piece) if long else choice.piece()
                    if piece is not None:
                        yield orjson.dumps({**self._head.body([piece]), **extra})
                if not run.open:
                    break
                grown = await run.take()
        except ServiceError as error:  # too late for a status
            yield orjson.dumps(error_body(error))
            return
        if run.wish.include_usage:
            yield orjson.dumps({**self._head.body([]), "usage": run.usage()})
        yield b"[DONE]"
