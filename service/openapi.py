"""openapi.yaml: what FastAPI derives from the routes, and what it cannot know."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from indrnn.service.http import schema
from indrnn.service.oip import openapi as documented
from indrnn.service.openai import schema as completion_schema
from indrnn.service.settings import Settings

_STANDING: list[list[float]] = [
    [0.0, 0.62, 2.8], [0.0, 0.42, 2.8], [0.0, 0.08, 2.8], [0.0, 0.0, 2.8], [-0.17, 0.35, 2.8], [-0.24, 0.1, 2.8], [-0.27, -0.12, 2.78],
    [-0.28, -0.2, 2.76], [0.17, 0.35, 2.8], [0.24, 0.1, 2.8], [0.27, -0.12, 2.78], [0.28, -0.2, 2.76], [-0.08, -0.06, 2.8],
    [-0.1, -0.45, 2.82], [-0.11, -0.8, 2.85], [-0.12, -0.86, 2.78], [0.08, -0.06, 2.8], [0.1, -0.45, 2.82], [0.11, -0.8, 2.85],
    [0.12, -0.86, 2.78],
]  # fmt: skip

_BODIES: tuple[type[BaseModel], ...] = (
    schema.PredictRequest,
    schema.ExplainRequest,
    schema.OpenRequest,
    schema.RewindBody,
    schema.MarkBody,
    schema.Problem,
    completion_schema.CompletionRequest,
    completion_schema.OpenAIError,
)


def document(app: FastAPI, settings: Settings) -> None:
    """Gives the app its OpenAPI document: request bodies of the hot routes, examples, limits and errors."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            spec = get_openapi(title=app.title, version=app.version, summary=app.summary, description=_text(settings), routes=app.routes)
            _add_schemas(spec)
            spec["paths"].update(documented.paths())
            spec["components"]["schemas"].update(documented.SCHEMAS)
            _add_examples(spec)
            _add_security(spec)
            app.openapi_schema = spec
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _text(s: Settings) -> str:
    return f"""Limits (each a setting): {s.max_keep} kept states of a session,
{s.max_body} bytes of a body or stream message, {s.max_frames} frames of a clip,
{s.max_sequences} clips of a request, {s.max_text} characters of a step, {s.max_generate} characters of a generate,
{s.max_queue} waiting steps of a model, {s.max_connections} stream connections, {s.session_ttl:g} s from a session's last step to its end;
of one key {_limit(s.max_sessions)} living sessions and {_limit(s.max_steps_per_second)} steps a second.

Where the service has keys, every request but those of health and documentation needs one, and a session is there for the key that opened
it alone. `GET` may also be asked as `HEAD`. `null` in a field that need not be there is as if it were not. Bodies may be sent with
`Content-Encoding: gzip` or `deflate`.

`WS /stream/{{model}}` speaks JSON messages: `open`, `step`, `generate`, `cancel`, `watch` in; `opened`, `result`, `char`, `done`,
`watching`, `error` out. It is described in docs/stream.md, since OpenAPI knows no WebSockets.

`/v2` is the Open Inference Protocol, also over gRPC on a port of its own; docs/inference-protocol.md.

Every error is `application/problem+json` (RFC 9457) with a `code`; under `/v1` it has OpenAI's shape,
under `/v2` it is `{{"error": …}}`."""


def _limit(value: float | None) -> str:
    return "any number of" if value is None else f"{value:g}"


def _add_security(spec: dict[str, Any]) -> None:
    """Keys are there where the operator wants them: either way of sending one, or none."""
    bearer = {"type": "http", "scheme": "bearer", "description": "an API key"}
    header = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    spec["components"]["securitySchemes"] = {"bearer": bearer, "header": header}
    spec["security"] = [{}, {"bearer": []}, {"header": []}]


def _add_schemas(spec: dict[str, Any]) -> None:
    schemas = spec.setdefault("components", {}).setdefault("schemas", {})
    for body in _BODIES:
        described = body.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(described.pop("$defs", {}))
        schemas[body.__name__] = described
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which no route answers with
        schemas.pop(unused, None)
    for operation in (operation for path in spec["paths"].values() for operation in path.values()):
        if "application/json" in operation["responses"].get("422", {}).get("content", {}):
            del operation["responses"]["422"]


def _add_examples(spec: dict[str, Any]) -> None:
    schemas = spec["components"]["schemas"]
    schemas["PredictRequest"]["example"] = {"sequences": [[_STANDING, _STANDING]], "model": "action", "layout": "utd20", "top_k": 2}
    schemas["PredictResponse"]["example"] = {
        "model": "action",
        "version": "1",
        "predictions": [
            {
                "label": "wave",
                "score": 0.97,
                "top": [{"label": "wave", "score": 0.97}, {"label": "clap", "score": 0.01}],
                "frames": 2,
            }
        ],
    }
    schemas["ExplainRequest"]["example"] = {"sequence": "to be", "model": "chars", "label": " "}
    schemas["OpenRequest"]["example"] = {"model": "action"}
    schemas["RewindBody"]["example"] = {"mark": "before the question", "number": 5}
    schemas["MarkBody"]["example"] = {"mark": "before the question"}
    schemas["SessionInfo"]["example"] = {
        "session_id": "pI0r3bA3Zz5kB6a1nV8mRyf2oQxU",
        "model": "action",
        "version": "1",
        "step": 3,
        "position": 76,
        "created_at": "2026-01-01T12:00:00Z",
        "expires_at": "2026-01-02T12:00:05Z",
    }
    schemas["Problem"]["example"] = {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "code": "invalid_input",
        "detail": "expected 20 joints, got 19",
        "field": "sequences[0][3]",
    }
