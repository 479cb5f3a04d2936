"""Define the native HTTP routes but those of sessions. They translate to and from serving/sessions.py, and know nothing else."""

from functools import partial
from http import HTTPStatus

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from indrnn.service.errors import BadInput, MethodNotAllowed, ServiceError, Stopping, TooLarge, Unauthorized, said, status
from indrnn.service.http import schema
from indrnn.service.revision import revision
from indrnn.service.serving.body import aside, integer, only, size_of, step_number
from indrnn.service.serving.disconnect import while_there
from indrnn.service.serving.models import Models, ServedModel, same_version
from indrnn.service.serving.request import owner_of, read_body
from indrnn.service.serving.sessions import Sessions, content_digest, digest_key
from indrnn.service.session.machine import Feed, Scores
from indrnn.service.settings import Settings

_PREDICT_FIELDS = ("sequences", "model", "version", "layout", "hz", "top_k", "session_id", "step")
JSON = "application/json"
_PROBLEM = "application/problem+json"


def problem(error: ServiceError) -> Response:
    """Return an error as an RFC 9457 document."""
    code = status(error)
    body = {"type": "about:blank", "title": HTTPStatus(code).phrase, "status": code, **error.body()}
    headers = {"Retry-After": str(error.extra.get("retry_after", 1))} if code in (429, 503) else {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = str(error.extra["allow"])
    return Response(orjson.dumps(body, default=str), code, headers, _PROBLEM)


def problems(*codes: int) -> dict[int | str, dict[str, object]]:
    """Return what the API's documentation says about answers of these status codes."""
    content = {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {c: {"description": _MEANING[c], "content": content} for c in codes}


_MEANING = {
    400: "not_json, not_a_state: the body is no JSON, or no downloaded state",
    401: "unauthorized: no API key came, or one that is not known; only where the service has keys",
    408: "body_timeout: the body did not come in time",
    404: "unknown_model, unknown_session: there is nothing by that name",
    409: "step_conflict, step_gap, no_stored_reply (with expected_step), model_gone, position_limit: does not fit where the session stands",
    410: "session_expired: the session has expired or was deleted",
    413: "too_large: the body, a clip or the number of clips is over its limit",
    429: "rate_limited, session_limit: more than one key may have; try again after Retry-After seconds",
    422: "invalid_input, not_finite, out_of_range, overflow, other_model: `detail` says what was expected and what came, `field` where",
    500: "engine_failed, internal: nothing has moved",
    503: "overloaded, stopping: nothing has moved; store_failed: repeat the step with its number; try again after Retry-After seconds",
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
    """Return the routes. A request finds the parts of the running service in app.state."""
    router = APIRouter()
    predict_body = {"required": True, "content": {JSON: {"schema": {"$ref": "#/components/schemas/PredictRequest"}}}}

    @router.post(
        "/predict",
        response_model=schema.PredictResponse,
        responses=problems(400, 401, 404, 408, 409, 410, 413, 422, 429, 500, 503),
        openapi_extra={"requestBody": predict_body},
        tags=["predict"],
    )
    async def predict(request: Request) -> Response:
        """Classify skeleton clips.

        Without `session_id` each clip is a sequence of its own. With it, the one clip goes on where the session stands, and the reply is
        sent after the new state is stored; a repeated `step` is answered from the stored result.
        """
        owner = owner_of(request)
        body = await read_body(request)
        only(body, _PREDICT_FIELDS)
        sessions: Sessions = request.app.state.sessions
        if body.get("session_id") is None:
            reply = await while_there(request.receive, _predict_once(body, request.app.state.models, sessions, settings, owner))
        else:
            reply = await _predict_in_session(body, sessions, owner)
        return Response(orjson.dumps(reply), media_type=JSON)

    @router.get("/models", response_model=schema.ModelList, response_model_exclude_none=True, responses=problems(401), tags=["models"])
    async def models(request: Request) -> Response:
        """List every served model, without the recurrent weights."""
        owner_of(request)
        served: Models = request.app.state.models
        return JSONResponse({"models": [_model_info(served.versions(n), settings, full=False) for n in served.names()]})

    @router.get("/models/{name}", response_model=schema.ModelInfo, responses=problems(401, 404), tags=["models"])
    async def model(request: Request, name: str) -> Response:
        """Describe one model: versions, labels or alphabet, layouts, rate, limits, and the state with each neuron's recurrent weight."""
        owner_of(request)
        served: Models = request.app.state.models
        return JSONResponse(_model_info(served.versions(name), settings, full=True))

    @router.get("/health/live", response_model=schema.Live, tags=["health"])
    async def live() -> Response:
        """Answer that the process is up."""
        return JSONResponse({"status": "live"})

    @router.get("/health/ready", response_model=schema.Ready, responses=problems(503), tags=["health"])
    async def ready(request: Request) -> Response:
        """Answer that every model is warm and the store takes commits; name the provider and the implementation of the recurrence."""
        if request.app.state.backend.stopping:
            raise Stopping("the service is shutting down", retry_after=1)
        await request.app.state.probe.need_store()
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
                "provider": "mixed" if len(providers) > 1 else "".join(providers),
                "kernel": ", ".join(sorted({m.engine.kernel for m in served})),
                "models": described,
            }
        )

    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **problems(401),
        },
        tags=["health"],
    )
    async def metrics(request: Request) -> Response:
        """Report sessions, steps, batches, times and the store, by model and protocol; docs/operations.md lists the metrics."""
        answer: Response = await request.app.state.metrics.answer(request)
        return answer

    return router


async def _predict_once(body: dict[str, object], models: Models, sessions: Sessions, settings: Settings, owner: str) -> dict[str, object]:
    if body.get("step") is not None:
        raise BadInput("expected a session_id beside it, got none", field="step")
    name = body.get("model")
    model = models.choose("action" if name is None else name, body.get("version"))
    top_k = integer(body.get("top_k"), "top_k", 1, 2**31, 5)
    clips = _clips(body, min(settings.max_sequences, settings.max_queue))
    layout, hz = body.get("layout"), body.get("hz")
    contents = [await aside(model.frames, size_of(clip), clip, layout, hz, f"sequences[{i}]") for i, clip in enumerate(clips)]
    scores = await sessions.predict(model, contents, owner)
    best = model.best(np.stack([s.logits for s in scores]), top_k)
    predictions = [model.prediction(b, c.length) for b, c in zip(best, contents, strict=True)]
    return {"model": model.manifest.name, "version": model.manifest.version, "predictions": predictions}


async def _predict_in_session(body: dict[str, object], sessions: Sessions, owner: str) -> dict[str, object]:
    session_id = body["session_id"]
    if not isinstance(session_id, str):
        raise BadInput(f"expected a session's id, got {said(session_id)}", field="session_id")
    model = await sessions.model_of(session_id, owner)
    return await sessions.where_it_runs(session_id, owner, model, partial(_step, body, sessions, session_id, owner))


async def _step(body: dict[str, object], sessions: Sessions, session_id: str, owner: str, model: ServedModel) -> dict[str, object]:
    if body.get("model") not in (None, model.manifest.name):
        raise BadInput(f"expected {model.manifest.name!r}, the session's model, got {said(body['model'])}", field="model")
    same_version(body.get("version"), model)
    top_k = integer(body.get("top_k"), "top_k", 1, 2**31, 5)
    clips = _clips(body, 1)
    content = await aside(model.frames, size_of(clips[0]), clips[0], body.get("layout"), body.get("hz"), "sequences[0]")
    digest = content_digest(digest_key("frames", [content.hz, top_k, False]), content.x.tobytes())
    event = Feed(step_number(body.get("step")), digest, content.length, model.manifest.limits.max_position)
    answered = await sessions.feed(model, session_id, owner, event, content)
    result = answered.result.result
    assert isinstance(result, Scores), "a feed's result"
    return {
        "model": model.manifest.name,
        "version": model.manifest.version,
        "predictions": [model.prediction(model.best(result.logits[None], top_k)[0], content.length)],
        "session": {"session_id": session_id, "step": answered.result.number, "position": answered.result.position},
    }


def _clips(body: dict[str, object], most: int) -> list[object]:
    clips = body.get("sequences")
    if not isinstance(clips, list) or not clips:
        raise BadInput(f"expected a list of clips, got {said(clips)}", field="sequences")
    if len(clips) > most and most == 1:
        raise BadInput(f"expected exactly one sequence with a session_id, got {len(clips)}", field="sequences")
    if len(clips) > most:
        raise TooLarge(f"expected at most {most} sequences, got {len(clips)}", field="sequences")
    return clips
