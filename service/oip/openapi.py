"""The protocol's routes for openapi.yaml, which FastAPI cannot derive: they go past it."""

from typing import Any

_TAG = "open inference protocol"
_ERROR = {"$ref": "#/components/schemas/InferenceError"}
_MEANING = {
    400: "the request is not what the model or the protocol expects; a sequence that is not there has to begin with START",
    401: "no API key came, or one that is not known; only where the service has keys",
    404: "no such model or version",
    405: "the route is for another method",
    408: "the body did not come in time",
    409: "indrnn_step is neither the last number with the same content nor the next; the text ends with `expected step N` for a gap",
    429: "the key's steps per second are used up; Retry-After says for how long",
    500: "the model could not answer: nothing has moved, unless the error says that it is not known",
    501: "not supported here",
    503: "the queue is full, a deadline passed, the store failed or the server stops: nothing has moved, unless the error "
    "says that it is not known; try again",
}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "description": "a model", "example": "action"}
_VERSION = {"name": "version", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}, "example": "1"}
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {
            "type": "string",
            "description": "x, or the own inputs of an adopted file; lengths [B, 1] and state [B, N] can be left out",
        },
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "description": "as the metadata has it", "example": "FP32"},
        "data": {"type": "array", "items": {}, "description": "numbers, flat or nested; or binary_data_size in parameters"},
        "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer", "minimum": 0}}},
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}},
        "parameters": {
            "type": "object",
            "properties": {
                "sequence_id": {
                    "description": "text or unsigned 64-bit number; 0 and the empty text are none",
                    "type": ["string", "integer"],
                },
                "sequence_start": {"type": "boolean"},
                "sequence_end": {"type": "boolean"},
                "indrnn_step": {"type": "integer", "minimum": 1, "description": "the number of this step; without it the server counts"},
                "indrnn_flush": {"type": "boolean", "description": "fills the window that is begun with zeros, and answers it"},
                "timeout": {"type": "integer", "minimum": 0, "description": "microseconds it may wait"},
                "binary_data_output": {"type": "boolean"},
            },
        },
    },
    "example": {
        "inputs": [{"name": "x", "shape": [1, 5], "datatype": "INT64", "data": [20, 47, 1, 40, 43]}],
        "parameters": {"sequence_id": "reader 1", "sequence_start": True, "indrnn_step": 1},
    },
}
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def _with_nulls(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose optional properties may be null, which is as if they were not there."""
    described = dict(schema)
    if "items" in schema:
        described["items"] = _with_nulls(schema["items"])
    if "properties" in schema:
        required = schema.get("required", ())
        described["properties"] = {
            n: _with_nulls(p) if n in required else _or_null(_with_nulls(p)) for n, p in schema["properties"].items()
        }
    return described


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    types = schema["type"]
    return {**schema, "type": [*(types if isinstance(types, list) else [types]), "null"]}


SCHEMAS: dict[str, Any] = {
    "InferenceRequest": _with_nulls(_REQUEST),
    "InferenceError": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
}


def paths() -> dict[str, Any]:
    """Every path under /v2."""
    of_model = {
        "": ("get", "Inputs and outputs of a model; B and T are -1.", {}, (404,)),
        "/ready": ("get", "Whether a model answers.", {}, (404, 503)),
        "/config": ("get", "A model's configuration, as Triton words it.", {}, (404,)),
        "/stats": ("get", "Counts and nanoseconds; inference_count over execution_count is how well sequences share runs.", {}, (404,)),
        "/infer": ("post", _INFER, _INFER_BODY, (400, 404, 408, 409, 429, 500, 501, 503)),
    }
    found: dict[str, Any] = {
        "/v2": _path("get", "The server's name, version and extensions.", {}, ()),
        "/v2/health/live": _path("get", _FOR_ALL[0], {}, ()),
        "/v2/health/ready": _path("get", _FOR_ALL[1], {}, (400,)),
        "/v2/models/stats": _path("get", "The statistics of every model.", {}, ()),
        "/v2/repository/index": _path(
            "post", "Every model and version of the repository, whether it is served, and if not, why.", _JSON_BODY, (400, 408)
        ),
    }
    for suffix, described in of_model.items():
        found[f"/v2/models/{{name}}{suffix}"] = _path(*described, names=(_NAME,))
        found[f"/v2/models/{{name}}/versions/{{version}}{suffix}"] = _path(*described, names=(_NAME, _VERSION))
    for what in ("load", "unload"):
        text = f"To {what} a model by command, where INDRNN_MODEL_CONTROL allows it; docs/operations.md."
        found[f"/v2/repository/models/{{name}}/{what}"] = _path("post", text, {}, (400, 404, 408, 501), names=(_NAME,))
    return found


_INFER = (
    "Runs a model; docs/inference-protocol.md. With sequence_id the state is kept here and stored before the reply. "
    "Raw tensors may follow the JSON (Inference-Header-Content-Length)."
)
_INFER_BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferenceRequest"}}, **_BINARY},
}
_INDEX = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
_JSON_BODY = {"content": {"application/json": {"schema": _with_nulls(_INDEX)}}}


_FOR_ALL = ("The process is up.", "Every model answers; 400 where the server stops.")  # probes have no keys


def _path(method: str, text: str, body: dict[str, Any], errors: tuple[int, ...], names: tuple[object, ...] = ()) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {}}}
    if body is _INFER_BODY:
        content |= _BINARY
    responses: dict[str, Any] = {"200": {"description": "done", "content": content}}
    for code in errors if text in _FOR_ALL else sorted({401, *errors}):
        responses[str(code)] = {"description": _MEANING[code], "content": {"application/json": {"schema": _ERROR}}}
    described: dict[str, Any] = {"tags": [_TAG], "summary": text.split(";")[0].split(". ")[0], "description": text, "responses": responses}
    if names:
        described["parameters"] = list(names)
    if body:
        described["requestBody"] = body
    return {method: described}
