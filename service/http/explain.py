"""POST /explain: what an answer depends on, of every modality; translates to and from http/explanation.py."""

import contextlib
from collections.abc import Iterator
from functools import partial

import orjson
from fastapi import APIRouter, Request, Response

from indrnn.service.engine.requests import Content
from indrnn.service.errors import BadInput, ServiceError, said
from indrnn.service.http import schema
from indrnn.service.http.explanation import Explainer, need_explanation, weights_of
from indrnn.service.serving.modality import READ_OPTIONS, more_options, with_more
from indrnn.service.serving.models import ServedModel
from indrnn.service.serving.request import aside, only, read_body, size_of, while_there
from indrnn.service.serving.services import Services
from indrnn.service.serving.text import TextModality, replaced, replaces

_FIELDS = ("sequence", "model", "version", "label", "weights", "layout", "hz", *READ_OPTIONS, "unknown")


def add_explain(router: APIRouter, services: Services, problems: dict[int | str, dict[str, object]]) -> None:
    """Add the route. problems: what the API's documentation says of its errors."""
    explainer = Explainer(services.settings.bundles)
    body_schema = {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ExplainRequest"}}}}

    @router.post(
        "/explain",
        response_model=schema.ExplainResponse,
        responses=problems,
        openapi_extra={"requestBody": body_schema},
        tags=["predict"],
    )
    async def explain(request: Request) -> Response:
        """Tell what an answer depends on.

        The exact gradient of one logit against the others, or of any weighted sum of logits, by everything that the model read, from the
        start of a sequence; nothing is stored. For models whose bundle has an explain.onnx.
        """
        owner = services.access.owner_of(request.headers)
        body = await read_body(request, services.settings)
        only(body, _FIELDS)
        name, sequence = body.get("model"), body.get("sequence")
        model = services.models.choose("action" if name is None else name, body.get("version"))
        with _unnamed(name):
            need_explanation(model.manifest)
            weights = weights_of(model.manifest, body.get("label"), body.get("weights"))
            if sequence is None:
                raise BadInput(f"expected frames, rows or a text, got {said(sequence)}", field="sequence")
            content, unread = await _read(model, body)
        services.steps.charge(owner)
        explainer.follow(services.models)
        found = await while_there(request.receive, explainer.explain(model, content, weights))
        reply = {
            "model": model.manifest.name,
            "version": model.manifest.version,
            "logit": found.logit,
            "gradient": found.gradient,
            "relevance": found.relevance,
            "off": found.off,
            **({"replaced": replaced(unread)} if unread else {}),
        }
        packed = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in reply.items()}
        return Response(orjson.dumps(packed), media_type="application/json")


@contextlib.contextmanager
def _unnamed(name: object) -> Iterator[None]:
    """Where a request names no model, say in a refusal of what it holds which one was taken: another may be meant."""
    try:
        yield
    except ServiceError as error:
        if name is None:
            error.detail += '; no model is named, so "action" was taken'
        raise


async def _read(model: ServedModel, body: dict[str, object]) -> tuple[Content, str]:
    """Return what a request holds as content, and the characters in it that were read as the model's unknown symbol."""
    modality, sequence = model.modality, body["sequence"]
    if replaces(modality, body.get("unknown")) and isinstance(modality, TextModality):
        modality.check_options(body.get("layout"), body.get("hz"))
        return modality.read_replacing(sequence, "sequence")
    read = modality.read
    if more := more_options(modality, body):
        read = partial(read, **with_more(more))
    return await aside(read, size_of(sequence), sequence, body.get("layout"), body.get("hz"), "sequence"), ""
