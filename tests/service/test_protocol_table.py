"""A fifth protocol, registered through the public table: what it needs to know of ours, and that it does what the others do."""

import ast
import inspect
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from indrnn.service.app import PROTOCOLS, create_application
from indrnn.service.serving.backend import Backend
from indrnn.service.settings import Settings

NEWEST = max((path.name for path in (Path(__file__).parents[2] / "bundles" / "chars").iterdir()), key=int)

ROOT = Path(__file__).parents[2]


def mount(app: FastAPI, services: Any, goodbyes: list[Any]) -> None:
    """`POST /plain/{session}/{step}` with a text answers with the likeliest next character; `POST /plain` opens a session of `chars`."""
    from indrnn.service.serving.steps import StepOptions, native_step, options_key

    async def begin(request: Request) -> PlainTextResponse:
        session = await services.sessions.open(services.models.latest("chars"), "", protocol="plain")
        return PlainTextResponse(session.id)

    async def step(request: Request) -> PlainTextResponse:
        ident, number = request.path_params["session"], int(request.path_params["step"])
        model = await services.steps.model_of(ident, "")
        content = model.modality.read((await request.body()).decode(), None, None, "body")
        key = options_key(model.modality.field, StepOptions(top_k=1))
        result, _ = await services.steps.step(model, native_step(ident, "", number, content, key, protocol="plain"))
        return PlainTextResponse(model.modality.word([(result.result, content)], 1)[0]["next"][0]["char"])

    app.add_route("/plain", begin, methods=["POST"])
    app.add_route("/plain/{session}/{step}", step, methods=["POST"])


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setitem(PROTOCOLS, "plain", mount)
    settings = Settings(store=str(tmp_path / "s.db"), bundles=ROOT / "bundles", poll=0)
    application = create_application(settings, Backend.open(settings))
    async with application.lifespan(), httpx.AsyncClient(transport=httpx.ASGITransport(application.asgi), base_url="http://x") as made:
        yield made


async def test_a_toy_protocol_steps_repeats_and_is_refused_as_every_other(client: httpx.AsyncClient) -> None:
    ident = (await client.post("/plain")).text
    first = (await client.post(f"/plain/{ident}/1", content="To be, or not to b")).text
    assert first == "e"
    assert (await client.post(f"/plain/{ident}/1", content="To be, or not to b")).text == first
    assert (await client.post(f"/plain/{ident}/1", content="other")).json()["code"] == "step_conflict"
    assert (await client.post(f"/plain/{ident}/7", content="x")).json()["expected_step"] == 2
    assert (await client.get(f"/sessions/{ident}")).json()["step"] == 1
    metrics = (await client.get("/metrics")).text
    assert f'indrnn_steps_total{{model="chars",protocol="plain",version="{NEWEST}"}} 1.0' in metrics


def test_a_fifth_protocol_needs_at_most_four_files_of_ours() -> None:
    """The table, the services it is handed, where steps are made, and no more: what it imports and what registers it."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(mount)))
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    touched = {"indrnn.service.app", "indrnn.service.serving.services", *imported}
    assert len(touched) <= 4, touched
    named = [p for p in (ROOT / "service").rglob("*.py") if '"plain"' in p.read_text()]
    assert named == [], "nothing of ours knows its name"
