"""x-session-id: routers look at it, so the service tells it of a new session, sends it back, and takes it for a step that names none."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from indrnn.service.app import create_application
from indrnn.service.serving.backend import Backend
from indrnn.service.settings import Settings

ROOT = Path(__file__).parents[3]
CLIP = {"sequences": [[[[0.1, 0.5, 2.0]] * 20]]}
NAME = "x-session-id"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(store=str(tmp_path / "s.db"), bundles=ROOT / "bundles", poll=0)
    application = create_application(settings, Backend.open(settings))
    async with application.lifespan(), httpx.AsyncClient(transport=httpx.ASGITransport(application.asgi), base_url="http://x") as made:
        yield made


async def test_a_session_is_named_in_the_headers_that_make_it_and_its_steps_may_be_named_there(client: httpx.AsyncClient) -> None:
    made = await client.post("/sessions", json={"model": "action"})
    ident = made.json()["session_id"]
    assert made.headers[NAME] == ident
    first = await client.post("/predict", json={**CLIP, "step": 1}, headers={NAME: ident})
    assert (first.json()["session"], first.headers[NAME]) == ({"session_id": ident, "step": 1, "position": 1}, ident)
    forked = await client.post(f"/sessions/{ident}/fork", headers={NAME: ident})
    assert forked.headers.get_list(NAME) == [forked.json()["session_id"]]  # of the new one, once
    without = await client.post("/predict", json={**CLIP, "session_id": ident, "step": 2})
    assert without.status_code == 200
    assert NAME not in without.headers


async def test_one_that_is_no_session_s_harms_nothing_but_a_step_that_names_none(client: httpx.AsyncClient) -> None:
    """Others use the header for things of their own."""
    stateless = await client.post("/predict", json=CLIP, headers={NAME: "of-somebody"})
    assert (stateless.status_code, stateless.headers[NAME]) == (200, "of-somebody")
    assert "session" not in stateless.json()
    assert (await client.post("/predict", json={**CLIP, "step": 1}, headers={NAME: "of-somebody"})).status_code == 404
    assert (await client.get("/v2/models/action", headers={NAME: "x"})).headers[NAME] == "x"


async def test_a_step_is_not_given_to_one_of_two_sessions_that_headers_name(client: httpx.AsyncClient) -> None:
    idents = [(await client.post("/sessions", json={"model": "action"})).json()["session_id"] for _ in range(2)]
    refused = await client.post("/predict", json={**CLIP, "step": 1}, headers=[(NAME, ident) for ident in idents])
    assert (refused.status_code, refused.json()["field"]) == (422, "session_id")
    named = await client.post("/predict", json={**CLIP, "session_id": idents[1], "step": 1}, headers=[(NAME, ident) for ident in idents])
    assert named.status_code == 200
