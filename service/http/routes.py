"""Define the native HTTP routes but those of sessions. They translate to and from serving/sessions.py, and know nothing else."""

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import orjson
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from indrnn.export.bundle import Layout, Manifest
from indrnn.export.modalities.skeleton import anatomy
from indrnn.service.engine.requests import Content, Frames, LookRequest
from indrnn.service.engine.runtime import longest
from indrnn.service.errors import (
    BadInput,
    MethodNotAllowed,
    NotFound,
    ServiceError,
    Stopping,
    TooLarge,
    Unauthorized,
    UnknownEncoding,
    problem_document,
    said,
    status,
    unanswered,
)
from indrnn.service.http import schema
from indrnn.service.http.explain import add_explain
from indrnn.service.http.metrics import AskedFor, Metrics
from indrnn.service.revision import revision
from indrnn.service.serving.modality import READ_OPTIONS, EventModality, Place, Words, at_times, innermost, more_options, with_more
from indrnn.service.serving.models import ServedModel
from indrnn.service.serving.request import CODINGS, aside, integer, only, read_body, size_of, step_number, while_there
from indrnn.service.serving.services import Services
from indrnn.service.serving.steps import StepOptions, StepRouter, native_step, options_key, same_version
from indrnn.service.session.machine import Scores
from indrnn.service.settings import Settings

log = logging.getLogger(__name__)

_PREDICT_FIELDS = ("sequences", "model", "version", "layout", "hz", "t", *READ_OPTIONS, "top_k", "session_id", "step")
MOST_WARNINGS = 16  # of one reply
JSON = "application/json"
_PROBLEM = "application/problem+json"
_BYTES = "application/octet-stream"


def problem(error: ServiceError) -> Response:
    """Return an error as an RFC 9457 document."""
    code = status(error)
    headers = {"Retry-After": str(error.extra.get("retry_after", 1))} if code in (429, 503) else {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, UnknownEncoding):
        headers["Accept-Encoding"] = ", ".join(CODINGS)
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = str(error.extra["allow"])
    return Response(orjson.dumps(problem_document(error), default=str), code, headers, _PROBLEM)


def problems(*codes: int) -> dict[int | str, dict[str, object]]:
    """Return what the API's documentation says about answers of these status codes."""
    content = {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {c: {"description": _MEANING[c], "content": content} for c in codes}


_MEANING = {
    400: "not_json, not_a_state: the body is no JSON, or no downloaded state",
    401: "unauthorized: no API key came, or one that is not known; only where the service has keys",
    408: "body_timeout: the body did not come in time",
    404: "unknown_model, unknown_session: there is nothing by that name",
    409: "step_conflict, step_gap, no_stored_reply (with expected_step), model_gone, position_limit, not_kept (with kept), mark_limit: "
    "does not fit where the session stands",
    410: "session_expired: the session has expired or was deleted",
    413: "too_large: the body, a clip or the number of clips is over its limit",
    415: "unsupported_encoding: the body is compressed in another way than gzip or deflate",
    429: "rate_limited, session_limit: more than one key may have; try again after Retry-After seconds",
    422: "invalid_input, not_finite, out_of_range, overflow, other_model: `detail` says what was expected and what came, `field` where",
    500: "engine_failed, internal: nothing has moved, unless `detail` says that it is not known: then repeat the step with its number",
    503: "overloaded, stopping: nothing has moved; store_failed: repeat the step with its number; try again after Retry-After seconds",
}


def _layouts(model: ServedModel, full: bool) -> dict[str, object]:
    """Describe every layout that clips may come in, and in full which of its joints each of the model's own is the mean of."""
    known: Mapping[str, Layout] = getattr(innermost(model.modality), "layouts", model.manifest.layouts)
    return {name: {"joints": x.joints, "joint_names": x.joint_names, **({"table": x.table} if full else {})} for name, x in known.items()}


def _bodies(m: Manifest) -> dict[str, object] | None:
    """Describe what a model's bodies are looked at by; None where they are not."""
    found = anatomy(m)
    return None if found is None else {"pairs": found.pairs, "limits": asdict(found.limits)}


def _model_info(versions: list[ServedModel], settings: Settings, full: bool, weights: bool = False) -> dict[str, object]:
    described = []
    for model in versions:
        m = model.manifest
        described.append(
            {
                "version": m.version,
                "digest": m.sha256,
                "provider": model.provider,
                "kernel": model.kernel,
                "labels": m.labels,
                "alphabet": m.alphabet,
                "unknown": m.unknown,
                "explain": m.explain is not None,
                "layout": m.layout,
                "layouts": _layouts(model, full),
                "unit": m.unit,
                "metres": m.metres,
                "axes": m.axes,
                "dims": m.dims,
                "persons": m.persons,
                "hz": m.hz,
                "other_below": m.other_below,
                "features": m.features and [{"name": f.name, "unit": f.unit} for f in m.features],
                "values": m.values and [{"name": v.name, "unit": v.unit} for v in m.values],
                "answer": m.answer,
                "words": m.words,
                "width": m.width,
                "events": m.events and m.events.model_dump(),
                "window": m.window,
                "streams": m.streams,
                "delay": m.delay,
                **({"bodies": _bodies(m)} if full else {}),
                "limits": {
                    "max_frames": settings.max_frames if model.modality.field == "text" else model.modality.max_steps,
                    "max_text": settings.max_text,
                    "max_generate": settings.max_generate,
                    "max_position": m.limits.max_position,
                },
                "state_size": m.state_size,
                "state": [p.model_dump(exclude=None if weights else {"u"}, exclude_none=True) for p in m.state],
            }
        )
    return {
        "name": versions[0].manifest.name,
        "kind": versions[0].manifest.kind,
        "modality": versions[0].manifest.modality,
        "versions": described,
    }


def build_router(services: Services, numbers: Metrics | AskedFor) -> APIRouter:
    """Return the routes over the running service."""
    router = APIRouter()
    settings, served, access = services.settings, services.models, services.access
    predict_body = {"required": True, "content": {JSON: {"schema": {"$ref": "#/components/schemas/PredictRequest"}}}}

    @router.post(
        "/predict",
        response_model=schema.PredictResponse,
        responses=problems(400, 401, 404, 408, 409, 410, 413, 415, 422, 429, 500, 503),
        openapi_extra={"requestBody": predict_body},
        tags=["predict"],
    )
    async def predict(request: Request) -> Response:
        """Answer skeleton clips, rows of numbers or sentences.

        Without `session_id` each of `sequences` starts anew. With it, the one sequence goes on where the session stands, and the reply is
        sent after the new state is stored; a repeated `step` is answered from the stored result.
        """
        owner = access.owner_of(request.headers)
        body = await read_body(request, settings)
        only(body, _PREDICT_FIELDS)
        if body.get("session_id") is None and body.get("step") is not None and "x-session-id" in request.headers:
            body["session_id"] = _named_in(request)
        if body.get("session_id") is None:
            reply = await while_there(request.receive, _predict_once(body, services, owner))
        else:
            try:
                reply = await _predict_in_session(body, services, owner)
            except (ServiceError, ClientDisconnect):
                raise
            except Exception as error:  # the step may be stored
                log.exception("a step could not be answered")
                raise unanswered(error) from error
        return Response(orjson.dumps(reply), media_type=JSON)

    @router.get("/models", response_model=schema.ModelList, response_model_exclude_none=True, responses=problems(401), tags=["models"])
    async def models(request: Request) -> Response:
        """List every served model, without the recurrent weights."""
        access.owner_of(request.headers)
        return JSONResponse({"models": [_model_info(served.versions(n), settings, full=False) for n in served.names()]})

    @router.get("/models/{name}", response_model=schema.ModelInfo, responses=problems(401, 404, 422), tags=["models"])
    async def model(request: Request, name: str, weights: bool = False) -> Response:
        """Describe one model: versions, labels or alphabet, layouts, unit, rate, limits, state; with `weights=true` each neuron's."""
        access.owner_of(request.headers)
        return JSONResponse(_model_info(served.versions(name), settings, full=True, weights=weights))

    _add_graph(router, services)
    add_explain(router, services, problems(400, 401, 404, 408, 413, 415, 422, 503))
    _add_health(router, services, numbers)
    return router


def _add_graph(router: APIRouter, services: Services) -> None:
    said_of_it: dict[int | str, dict[str, object]] = {
        200: {"content": {_BYTES: {"schema": {"type": "string", "format": "binary", "description": "an ONNX file"}}}}
    }

    @router.get("/models/{name}/graph", response_class=Response, responses={**said_of_it, **problems(401, 404)}, tags=["models"])
    async def graph(request: Request, name: str, version: str | None = None) -> Response:
        """Download the ONNX file of a model's version, the highest by default, to run it elsewhere; its `ETag` is its sha256."""
        services.access.owner_of(request.headers)
        manifest = services.models.choose(name, version).manifest
        tag = f'"{manifest.sha256}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if not services.settings.model_download:
            raise NotFound("the files of models are not given out here (INDRNN_MODEL_DOWNLOAD)")
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        file = services.settings.bundles / manifest.name / manifest.version / "model.onnx"
        content = await asyncio.to_thread(_file_of_digest, file, manifest.sha256)
        if content is None:
            raise NotFound(f"the file of {manifest.name}/{manifest.version} is no longer what was loaded from it")
        return Response(content, headers=headers, media_type=_BYTES)


def _file_of_digest(file: Path, digest: str) -> bytes | None:
    """Return a file's content, None where it is another than its digest says, or is gone."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == digest else None


def _add_health(router: APIRouter, services: Services, numbers: Metrics | AskedFor) -> None:
    served = services.models

    @router.get("/health/live", response_model=schema.Live, tags=["health"])
    async def live() -> Response:
        """Answer that the process is up."""
        return JSONResponse({"status": "live"})

    @router.get("/health/ready", response_model=schema.Ready, responses=problems(503), tags=["health"])
    async def ready() -> Response:
        """Answer that every model is warm and the store takes commits; name the provider and the implementation of the recurrence."""
        if services.backend.stopping:
            raise Stopping("the service is shutting down", retry_after=1)
        await services.probe.need_store()
        described = [{"name": m.manifest.name, "version": m.manifest.version, "provider": m.provider, "kernel": m.kernel} for m in served]
        providers = {m.provider for m in served}
        return JSONResponse(
            {
                "status": "ready",
                "revision": revision(),
                "provider": "mixed" if len(providers) > 1 else "".join(providers),
                "kernel": ", ".join(sorted({m.kernel for m in served})),
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
        services.access.owner_of_scrape(request.headers)
        return await numbers.answer(request.headers.get("accept", ""))


def _named_in(request: Request) -> str:
    """Return the session that the headers name. Raises BadInput where they name two."""
    named = request.headers.getlist("x-session-id")
    if len(named) > 1:
        raise BadInput(f"expected x-session-id once beside a step without a session_id, got it {len(named)} times", field="session_id")
    return named[0]


async def _predict_once(body: dict[str, object], services: Services, owner: str) -> dict[str, object]:
    if body.get("step") is not None:
        raise BadInput("expected a session_id beside it, got none", field="step")
    name, s = body.get("model"), services.settings
    model = services.models.choose("action" if name is None else name, body.get("version"))
    top_k = integer(body.get("top_k"), "top_k", 1, 2**31, 5)
    clips = _clips(body, min(s.max_sequences, s.max_queue), model)
    contents = [await _read(model, clip, body, i, len(clips)) for i, clip in enumerate(clips)]
    for i, content in enumerate(contents):
        _need_room(model, content, f"sequences[{i}]")
    scores = await services.steps.infer(model, contents, owner)
    worded = model.modality.word(list(zip(scores, contents, strict=True)), top_k)
    for words, answer, content in zip(worded, scores, contents, strict=True):
        _add_events(words, model, answer, Place(len(content.x), _rate(content)))
    return {"model": model.manifest.name, "version": model.manifest.version, **_together(worded, model)}


def _rate(content: Content) -> float | None:
    return content.hz if isinstance(content, Frames) else None


def _add_events(words: Words, model: ServedModel, scores: Scores, place: Place) -> None:
    """Add its events to an answer, where the model tells some."""
    if isinstance(model.modality, EventModality):
        words["predictions"][0]["events"] = model.modality.events(scores, place)


def _together(worded: Sequence[Words], model: ServedModel) -> Words:
    """Return the answers to several sequences as one: predictions, or of each value one a sequence, or as many as it has rows."""
    if "predictions" in worded[0]:
        return {"predictions": [p for words in worded for p in words["predictions"]], **_warnings(worded)}
    each = model.modality.each_step
    return {"outputs": {name: [w["outputs"][name] if each else w["outputs"][name][-1] for w in worded] for name in worded[0]["outputs"]}}


def _warnings(worded: Sequence[Words]) -> Words:
    """Return the warnings of several answers, each with its sequence's place, at most MOST_WARNINGS; nothing where there are none."""
    where = [f"sequences[{i}]: " if len(worded) > 1 else "" for i in range(len(worded))]
    told = [place + text for place, words in zip(where, worded, strict=True) for text in words.get("warnings", ())]
    more = [f"and {len(told) - MOST_WARNINGS} more"] if len(told) > MOST_WARNINGS else []
    return {"warnings": told[:MOST_WARNINGS] + more} if told else {}


def _need_sequences(model: ServedModel) -> None:
    """Raise BadInput for a model of text, which reads streams alone."""
    if model.modality.field == "text":
        name = model.manifest.name
        raise BadInput(f"model {name} reads text, not frames: expected WS /stream/{name} with text")


async def _read(model: ServedModel, clip: object, body: dict[str, object], i: int, clips: int) -> Content:
    """Return the i-th clip of a request; of one alone the times may stand in no list of their own."""
    _need_sequences(model)
    times, where = body.get("t"), f"t[{i}]"
    if clips == 1 and isinstance(times, list) and times and not isinstance(times[0], list):
        where = "t"
    elif times is not None:
        if not isinstance(times, list) or len(times) != clips:
            raise BadInput(f"expected {clips} lists of seconds, one for each sequence, got {said(times)}", field="t")
        times = times[i]
    read = model.modality.read
    if times is not None or any(body.get(name) is not None for name in READ_OPTIONS):
        more = at_times(model.modality, more_options(model.modality, body), times, where)
        read = partial(read, **with_more(more))
    return await aside(read, size_of(clip), clip, body.get("layout"), body.get("hz"), f"sequences[{i}]")


def _need_room(model: ServedModel, content: Content, field: str) -> None:
    """Raise TooLarge for a sequence longer than the model was made for, as its engine would, which does not know where it stands."""
    if isinstance(content, Frames) and content.t is not None:
        return  # how many of the model's frames that is, its engine says
    limits, hz = model.manifest.limits, content.hz if isinstance(content, Frames) else None
    most = longest(limits.max_position, hz, model.manifest.hz)
    if most is not None and len(content.x) > most:
        raise TooLarge(f"expected at most {most} in a sequence, got {len(content.x)}: the model was made for {most}", field=field)


async def _predict_in_session(body: dict[str, object], services: Services, owner: str) -> dict[str, object]:
    session_id = body["session_id"]
    if not isinstance(session_id, str):
        raise BadInput(f"expected a session's id, got {said(session_id)}", field="session_id")
    steps = services.steps
    model = await steps.model_of(session_id, owner)
    return await steps.where_it_runs(session_id, owner, model, partial(_step, body, steps, session_id, owner))


async def _step(body: dict[str, object], steps: StepRouter, session_id: str, owner: str, model: ServedModel) -> dict[str, object]:
    if body.get("model") not in (None, model.manifest.name):
        raise BadInput(f"expected {model.manifest.name!r}, the session's model, got {said(body['model'])}", field="model")
    same_version(body.get("version"), model)
    options = StepOptions(top_k=integer(body.get("top_k"), "top_k", 1, 2**31, 5))
    content = await _read(model, _clips(body, 1, model)[0], body, 0, 1)
    if isinstance(content, Frames):
        options = options._replace(hz=content.hz)
    key = options_key(model.modality.field, options)
    request = native_step(session_id, owner, step_number(body.get("step")), content, key, model.modality.each_step)
    result = (await steps.step(model, request)).result
    worded = model.modality.word([(result.result, content)], options.top_k)
    if isinstance(model.modality, EventModality):
        rate = _rate(content) or await _rate_of_session(steps, model, session_id, owner)
        _add_events(worded[0], model, result.result, Place(result.position, rate))
    return {
        "model": model.manifest.name,
        "version": model.manifest.version,
        **_together(worded, model),
        "session": {"session_id": session_id, "step": result.number, "position": result.position},
    }


async def _rate_of_session(steps: StepRouter, model: ServedModel, session_id: str, owner: str) -> float | None:
    """Return the frames per second of a session whose client does not repeat them; None for the model's own."""
    carry = (await steps.ask(model, LookRequest(session_id, owner))).session.carry
    return None if carry is None else carry.hz


_SEQUENCES = {"frames": "clips", "values": "sequences, each of rows", "sentences": "stories, each of sentences"}
"""what `sequences` are called of a model, by the field that its streams have"""


def _clips(body: dict[str, object], most: int, model: ServedModel) -> list[object]:
    clips = body.get("sequences")
    if not isinstance(clips, list) or not clips:
        _need_sequences(model)
        raise BadInput(f"expected a list of {_SEQUENCES[model.modality.field]}, got {said(clips)}", field="sequences")
    if len(clips) > most and most == 1:
        raise BadInput(f"expected exactly one sequence with a session_id, got {len(clips)}", field="sequences")
    if len(clips) > most:
        raise TooLarge(f"expected at most {most} sequences, got {len(clips)}", field="sequences")
    return clips
