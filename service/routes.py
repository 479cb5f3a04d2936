"""The native HTTP routes: they translate to and from sessions.py, and know nothing else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TypeVar

import orjson
from fastapi import APIRouter, Query, Request, Response
from starlette.responses import JSONResponse

from service import schema
from service.body import integer, only, parse_object, read_bounded, step_number
from service.errors import BadInput, BodyTimeout, MethodNotAllowed, ServiceError, TooLarge, said, status
from service.models import Models, ServedModel
from service.revision import revision
from service.session import Feed, Scores, Session
from service.sessions import Sessions, content_digest
from service.settings import Settings
from service.work import Frames

R = TypeVar("R")

LISTED = 1_000  # sessions of one answer
LONG = 2**17  # bytes of JSON, about 2 ms of reading
ANONYMOUS = ""  # whose session it is while there are no keys

_PREDICT_FIELDS = ("sequences", "model", "layout", "hz", "top_k", "session_id", "step")
_JSON = "application/json"
_PROBLEM = "application/problem+json"


def problem(error: ServiceError) -> Response:
    """An error as an RFC 9457 document."""
    code = status(error)
    body = {"type": "about:blank", "title": HTTPStatus(code).phrase, "status": code, **error.body()}
    headers = {"Retry-After": str(error.extra.get("retry_after", 1))} if code == 503 else {}
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = str(error.extra["allow"])
    return Response(orjson.dumps(body, default=str), code, headers, _PROBLEM)


def _problems(*codes: int) -> dict[int | str, dict[str, object]]:
    """Documents error answers."""
    content = {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {c: {"description": _MEANING[c], "content": content} for c in codes}


_MEANING = {
    400: "not_json: the body is no JSON",
    408: "body_timeout: the body did not come in time",
    404: "unknown_model, unknown_session: there is nothing by that name",
    409: "step_conflict, step_gap (with expected_step), model_gone, position_limit: the request does not fit where the session stands",
    410: "session_expired: the session has expired or was deleted",
    413: "too_large: the body, a clip or the number of clips is over its limit",
    422: "invalid_input, not_finite, out_of_range: `field` names what is wrong, `detail` says what was expected and what came",
    500: "engine_failed, internal: nothing has moved",
    503: "overloaded, stopping, store_failed: nothing has moved; try again after Retry-After seconds",
}


async def _body(request: Request) -> dict[str, object]:
    settings: Settings = request.app.state.settings
    chunks: AsyncIterator[bytes] = request.stream()
    try:
        async with asyncio.timeout(settings.body_timeout):
            data = await read_bounded(chunks, request.headers.get("content-length"), settings.max_body, settings.max_drain)
    except TimeoutError:
        raise BodyTimeout(f"expected the whole body within {settings.body_timeout:g} s") from None
    return await _aside(parse_object, len(data), data, "body")


async def _aside(read: Callable[..., R], size: int, *args: object) -> R:
    """Runs a reader of `size` bytes, on another thread where it is long: the event loop has others to serve."""
    return await asyncio.to_thread(read, *args) if size > LONG else read(*args)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def session_info(session: Session) -> dict[str, object]:
    """A session as the API shows it."""
    return {
        "session_id": session.id,
        "model": session.model,
        "version": session.version,
        "step": session.step,
        "position": session.position,
        "created_at": _time(session.created_at),
        "expires_at": _time(session.expires_at),
    }


def _model_info(versions: list[ServedModel], settings: Settings, full: bool) -> dict[str, object]:
    described = []
    for model in versions:
        m = model.manifest
        described.append(
            {
                "version": m.version,
                "digest": m.sha256,
                "provider": model.engine.provider,
                "kernel": model.engine.kernel,
                "labels": m.labels,
                "alphabet": m.alphabet,
                "layout": m.layout,
                "layouts": {name: {"joints": x.joints, "joint_names": x.joint_names} for name, x in m.layouts.items()},
                "persons": m.persons,
                "hz": m.hz,
                "other_below": m.other_below,
                "limits": {
                    "max_frames": settings.max_frames,
                    "max_text": settings.max_text,
                    "max_generate": settings.max_generate,
                    "max_position": m.limits.max_position,
                },
                "state_size": m.state_size,
                "state": [p.model_dump(exclude=None if full else {"u"}, exclude_none=True) for p in m.state],
            }
        )
    return {"name": versions[0].manifest.name, "kind": versions[0].manifest.kind, "versions": described}


def build_router(settings: Settings) -> APIRouter:
    """The routes. What a request needs of the running service lies in app.state."""
    router = APIRouter()
    predict_body = {"required": True, "content": {_JSON: {"schema": {"$ref": "#/components/schemas/PredictRequest"}}}}
    open_body = {"required": True, "content": {_JSON: {"schema": {"$ref": "#/components/schemas/OpenRequest"}}}}

    @router.post(
        "/predict",
        response_model=schema.PredictResponse,
        responses=_problems(400, 404, 408, 409, 410, 413, 422, 500, 503),
        openapi_extra={"requestBody": predict_body},
        tags=["predict"],
    )
    async def predict(request: Request) -> Response:
        """Classifies skeleton clips.

        Without `session_id` each clip is a sequence of its own. With it, the one clip goes on where the session stands, and the reply is
        sent after the new state is stored; a repeated `step` is answered from the stored result.
        """
        body = await _body(request)
        only(body, _PREDICT_FIELDS)
        sessions: Sessions = request.app.state.sessions
        if body.get("session_id") is None:
            reply = await _predict_once(body, request.app.state.models, sessions, settings)
        else:
            reply = await _predict_in_session(body, sessions)
        return Response(orjson.dumps(reply), media_type=_JSON)

    @router.get("/models", response_model=schema.ModelList, response_model_exclude_none=True, tags=["models"])
    async def models(request: Request) -> Response:
        """Every served model, without the recurrent weights."""
        served: Models = request.app.state.models
        names = dict.fromkeys(m.manifest.name for m in served)
        return JSONResponse({"models": [_model_info(served.versions(n), settings, full=False) for n in names]})

    @router.get("/models/{name}", response_model=schema.ModelInfo, responses=_problems(404), tags=["models"])
    async def model(request: Request, name: str) -> Response:
        """One model: versions, labels or alphabet, layouts, rate, limits, and the state's parts with each neuron's recurrent weight."""
        served: Models = request.app.state.models
        return JSONResponse(_model_info(served.versions(name), settings, full=True))

    @router.post(
        "/sessions",
        status_code=201,
        response_model=schema.SessionInfo,
        responses=_problems(400, 404, 408, 413, 422, 503),
        openapi_extra={"requestBody": open_body},
        tags=["sessions"],
    )
    async def open_session(request: Request) -> Response:
        """Opens a session at the start of a sequence."""
        body = await _body(request)
        only(body, ("model",))
        if "model" not in body:
            raise BadInput("expected the name of a model, got nothing", field="model")
        served: Models = request.app.state.models
        sessions: Sessions = request.app.state.sessions
        return JSONResponse(session_info(await sessions.open(served.latest(body["model"]), ANONYMOUS)), 201)

    @router.get("/sessions", response_model=schema.SessionList, responses=_problems(422, 503), tags=["sessions"])
    async def list_sessions(request: Request, limit: int = Query(100, ge=1, le=LISTED)) -> Response:
        """One's own living sessions, newest first. Without keys, everybody is one and the same."""
        sessions: Sessions = request.app.state.sessions
        return JSONResponse({"sessions": [session_info(s) for s in await sessions.list(ANONYMOUS, limit)]})

    @router.get("/sessions/{session_id}", response_model=schema.SessionInfo, responses=_problems(404, 409, 410, 503), tags=["sessions"])
    async def get_session(request: Request, session_id: str) -> Response:
        """Where a session stands. Looking does not prolong its life."""
        sessions: Sessions = request.app.state.sessions
        return JSONResponse(session_info(await sessions.look(session_id, ANONYMOUS)))

    @router.delete("/sessions/{session_id}", status_code=204, responses=_problems(404, 409, 410, 503), tags=["sessions"])
    async def delete_session(request: Request, session_id: str) -> Response:
        """Ends a session and forgets its state. A generate in flight ends with it."""
        sessions: Sessions = request.app.state.sessions
        await sessions.delete(session_id, ANONYMOUS)
        return Response(status_code=204)

    @router.get("/health/live", response_model=schema.Live, tags=["health"])
    async def live() -> Response:
        """The process is up."""
        return JSONResponse({"status": "live"})

    @router.get("/health/ready", response_model=schema.Ready, tags=["health"])
    async def ready(request: Request) -> Response:
        """Every model is loaded and warm. Names the provider and the implementation of the recurrence in use."""
        served = list(request.app.state.models)
        described = [
            {"name": m.manifest.name, "version": m.manifest.version, "provider": m.engine.provider, "kernel": m.engine.kernel}
            for m in served
        ]
        providers = {m.engine.provider for m in served}
        return JSONResponse(
            {
                "status": "ready",
                "revision": revision(),
                "provider": providers.pop() if len(providers) == 1 else "mixed",
                "kernel": ", ".join(sorted({m.engine.kernel for m in served})),
                "models": described,
            }
        )

    return router


async def _predict_once(body: dict[str, object], models: Models, sessions: Sessions, settings: Settings) -> dict[str, object]:
    if body.get("step") is not None:
        raise BadInput("expected a session_id beside it, got none", field="step")
    name = body.get("model")
    model = models.latest("action" if name is None else name)
    top_k = integer(body.get("top_k"), "top_k", 1, 2**31, 5)
    clips = _clips(body, min(settings.max_sequences, settings.max_queue))
    layout, hz = body.get("layout"), body.get("hz")
    contents = [await _aside(model.frames, _size(clip), clip, layout, hz, f"sequences[{i}]") for i, clip in enumerate(clips)]
    scores = await sessions.predict(model, contents)
    predictions = [model.prediction(s.logits, top_k, c.length) for s, c in zip(scores, contents, strict=True)]
    return {"model": model.manifest.name, "version": model.manifest.version, "predictions": predictions}


async def _predict_in_session(body: dict[str, object], sessions: Sessions) -> dict[str, object]:
    session_id = body["session_id"]
    if not isinstance(session_id, str):
        raise BadInput(f"expected a session's id, got {said(session_id)}", field="session_id")
    model = await sessions.model_of(session_id)
    if body.get("model") not in (None, model.manifest.name):
        raise BadInput(f"expected {model.manifest.name!r}, the session's model, got {said(body['model'])}", field="model")
    top_k = integer(body.get("top_k"), "top_k", 1, 2**31, 5)
    clips = _clips(body, 1)
    content = await _aside(model.frames, _size(clips[0]), clips[0], body.get("layout"), body.get("hz"), "sequences[0]")
    event = frames_event(content, step_number(body.get("step")), model, top_k, every=False)
    answered = await sessions.feed(model, session_id, ANONYMOUS, event, content)
    result = answered.result.result
    assert isinstance(result, Scores), "a feed's result"
    return {
        "model": model.manifest.name,
        "version": model.manifest.version,
        "predictions": [model.prediction(result.logits, top_k, content.length)],
        "session": {"session_id": session_id, "step": answered.result.number, "position": answered.result.position},
    }


def frames_event(content: Frames, number: int | None, model: ServedModel, top_k: int, every: bool) -> Feed:
    """A clip as an event of the session's state machine."""
    digest = content_digest("frames", content.x.tobytes(), [content.hz, top_k, every])
    return Feed(number, digest, content.length, model.manifest.limits.max_position)


def _size(clip: object) -> int:
    """About how many bytes of JSON a clip was."""
    return 500 * len(clip) if isinstance(clip, list) else 0


def _clips(body: dict[str, object], most: int) -> list[object]:
    clips = body.get("sequences")
    if not isinstance(clips, list) or not clips:
        raise BadInput(f"expected a list of clips, got {said(clips)}", field="sequences")
    if len(clips) > most and most == 1:
        raise BadInput(f"expected exactly one sequence with a session_id, got {len(clips)}", field="sequences")
    if len(clips) > most:
        raise TooLarge(f"expected at most {most} sequences, got {len(clips)}", field="sequences")
    return clips
