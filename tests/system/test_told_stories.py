"""A story is told over many requests, and the service is killed between them: what is asked then is answered as if told at once."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from conftest import Server, scores
from test_stream import ask

from indrnn.client.errors import Refused
from indrnn.client.sync import Client
from indrnn.export.write import write
from indrnn.model.data.texts import stories as data
from indrnn.model.nets.stories import MemoryNet, StoriesConfig
from indrnn.model.tasks.drawn.stories import network
from indrnn.model.training.checkpoint import Meta, load, save

STORY = [
    "Anna walked to the garden.",
    "Boris hurried to the attic.",
    "Anna took the apple.",
    "It rained outside.",
    "Anna came into the market.",
    "Greta spoke of the harbour.",
]
QUESTION = "Where is the apple?"
K = len(data.PLACES)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory and an LSTM that nobody trained, whose scores differ all the same."""
    folder = tmp_path_factory.mktemp("stories")
    meta = Meta("stories", "", 0, 0, labels=data.PLACES, told={"words": data.WORDS, "width": data.WIDTH})
    for cell in ("memory", "lstm"):
        torch.manual_seed(0)
        net = network(StoriesConfig(len(data.WORDS), data.WIDTH, K, cell=cell, hidden=16, slots=8))
        if isinstance(net, MemoryNet):
            torch.nn.init.normal_(net.memory.embedding, std=0.5)
        torch.nn.init.normal_(net.readout.weight, std=0.5)
        save(folder / "net.pt", net, meta)
        write(*load(folder / "net.pt"), folder / "bundles", cell, "1", command="")
    return folder / "bundles"


def answered(reply: dict[str, Any]) -> dict[str, float]:
    return scores(reply["predictions"][0])


def tell(server: Server, ident: str, step: int, *sentences: str) -> httpx.Response:
    reply = server.post("/predict", {"sequences": [list(sentences)], "session_id": ident, "step": step, "top_k": K})
    assert reply.status_code == 200, reply.text
    return reply


def test_a_story_outlives_connections_kills_forks_and_files(own_server: Callable[..., Server], bundles: Path) -> None:
    server = own_server(INDRNN_BUNDLES=str(bundles))
    for model in ("memory", "lstm"):
        whole = server.post("/predict", {"model": model, "sequences": [[*STORY, QUESTION], [QUESTION]], "top_k": K}).json()
        want, of_nothing = (scores(p) for p in whole["predictions"])
        assert max(abs(want[label] - of_nothing[label]) for label in want) > 1e-3, "these scores tell nothing apart"
        _over_requests(server, model, want)
    _is_refused(server)
    _over_v2(server)


def _over_requests(server: Server, model: str, want: dict[str, float]) -> None:
    ident = server.post("/sessions", {"model": model}).json()["session_id"]
    assert tell(server, ident, 1, STORY[0]).json()["predictions"][0]["answers"] == []
    told = tell(server, ident, 2, *STORY[1:3])
    server.restart(signal.SIGKILL)
    assert tell(server, ident, 2, *STORY[1:3]).content == told.content, "a repeat is answered from the store, and told once"
    with server.socket(model) as ws:
        assert ask(ws, type="open", session_id=ident, top_k=K)["position"] == 3
        ask(ws, type="step", step=3, sentences=STORY[3:5])
        ws.send(json.dumps({"type": "step", "step": 4, "sentences": STORY[5:]}))
        server.restart(signal.SIGKILL)
    with server.socket(model) as ws:
        assert ask(ws, type="open", session_id=ident, top_k=K)["step"] in (3, 4)
        ask(ws, type="step", step=4, sentences=STORY[5:])
        result = ask(ws, type="step", step=5, sentences=[QUESTION])
        assert answered(result) == pytest.approx(want, abs=1e-4)
        assert [a["sentence"] for a in result["predictions"][0]["answers"]] == [0]
        assert answered(ask(ws, type="step", step=6, sentences=["it rained outside", QUESTION])).keys() == want.keys()
    content = server.get(f"/sessions/{ident}/state").content
    taken = httpx.post(f"{server.url}/sessions", content=content, headers={"Content-Type": "application/octet-stream"}, timeout=60)
    forked = server.post(f"/sessions/{ident}/fork", {})
    assert (taken.status_code, forked.status_code) == (201, 201)
    with Client(server.url) as client, client.session(model, session_id=forked.json()["session_id"], top_k=K) as session:
        there = session.step([QUESTION]).predictions[0]
    assert there.answers is not None
    assert there.answers[0].top == there.top
    asked = answered(tell(server, taken.json()["session_id"], 7, QUESTION).json())
    assert {one.label: one.score for one in there.top} == pytest.approx(asked, abs=1e-6)


def _is_refused(server: Server) -> None:
    ident = server.post("/sessions", {"model": "memory"}).json()["session_id"]
    reply = server.post("/predict", {"sequences": [["Anna walked to the kitchen."]], "session_id": ident, "step": 1})
    assert reply.status_code == 422
    assert "the word 'kitchen' is not one that the model knows" in reply.json()["detail"]
    assert server.get(f"/sessions/{ident}").json()["position"] == 0
    with server.socket("memory") as ws:
        ask(ws, type="open")
        assert ask(ws, type="step", step=1, text="anna sang")["type"] == "error"
        assert ask(ws, type="step", step=1, sentences=["anna sang"])["type"] == "result"

    empty = server.post("/predict", {"model": "memory", "sequences": []}).json()
    assert (empty["detail"], empty["field"]) == ("expected a list of stories, each of sentences, got an empty list", "sequences")
    with server.socket("memory") as ws:
        every = ask(ws, type="open", every=True)
        assert (every["code"], every["field"]) == ("invalid_input", "every")
        assert "expected false" in every["detail"]
    with Client(server.url) as client, client.session("memory") as session:
        for content, detail in (
            ("anna sang", "unknown field: model memory reads sentences, in the field sentences"),
            ([], "expected a list of sentences, got an empty list"),
        ):
            with pytest.raises(Refused, match=detail):
                session.step(content)
        assert session.step(["anna sang"]).position == 1


def _over_v2(server: Server) -> None:
    """Word numbers go through the Open Inference Protocol as they are."""
    rows = [(data.numbers(s) + [0] * data.WIDTH)[: data.WIDTH] for s in ("anna walked to the attic", "where is anna ?")]
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2, data.WIDTH], "data": rows}
    reply = server.post("/v2/models/memory/infer", {"inputs": [x]})
    assert reply.status_code == 200, reply.text
    assert reply.json()["outputs"][0]["shape"] == [1, 2, K]
    reply = server.post("/v2/models/memory/infer", {"inputs": [{**x, "data": [[0.5] * data.WIDTH, rows[1]]}]})
    assert "expected 0 or the number of a word, from 1 to" in reply.json()["error"]
