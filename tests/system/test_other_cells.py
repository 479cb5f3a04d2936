"""A GRU's and an LSTM's state is kept as an IndRNN's is: from request to request, through `kill -9`, as a file, in any split."""

import contextlib
import json
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from conftest import Server, scores
from numpy.typing import NDArray
from safetensors.numpy import load as load_state
from test_stream import ask

from indrnn.export.write import write
from indrnn.frames.layouts import LAYOUTS
from indrnn.model.cells import table
from indrnn.model.cells.layer import Layer
from indrnn.model.cells.stacks import Chain, StackConfig, build_stack
from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.training.checkpoint import Meta, load, save

CELLS = ("gru", "lstm")
# A cell of each family of docs/cells.md.
FAMILIES = {"classic": "scrn", "gated": "lstm_peephole", "diagonal": "lru", "unitary": "urnn", "orthogonal": "goru"}
STREAMED = (*CELLS, "mingru")  # one of each family
ALPHABET = "abcdefghijklmnopqrstuvwxyz ,"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`action`, `chars` and `tensor` of each cell, whose weights nobody trained and whose scores differ all the same."""
    folder = tmp_path_factory.mktemp("cells")
    text = Meta("chars", "", 0, 0, alphabet=ALPHABET)
    frames = Meta("action", "", 0, 0, labels=("a", "b", "c"), layout="utd20", layouts=LAYOUTS, persons=1, hz=30.0)
    numbers = Meta("tensor", "", 0, 0, labels=("a", "b"), told={"features": [{"name": "x"}, {"name": "y"}], "answer": "end"})
    for cell in STREAMED:
        torch.manual_seed(0)
        nets = (
            (CharsNet(CharsConfig(len(ALPHABET), hidden=24, layers=2, cell=cell)), text),
            (
                ActionNet(ActionConfig(classes=3, hidden=16, layers=2, cell=cell)),
                frames,
            ),
            (TensorNet(TensorConfig((0.0, 0.0), (1.0, 1.0), 2, hidden=16, layers=2, cell=cell)), numbers),
        )
        for net, meta in nets:
            torch.nn.init.normal_(net.readout.weight, std=0.5)
            save(folder / "net.pt", net, meta)
            write(*load(folder / "net.pt"), folder / "bundles", f"{meta.kind}-{cell}", "1", command="")
    return folder / "bundles"


@pytest.mark.parametrize("cell", CELLS)
def test_a_kill_between_and_during_steps_loses_nothing(
    cell: str, own_server: Callable[..., Server], bundles: Path, walk: list[Any]
) -> None:
    server = own_server(INDRNN_BUNDLES=str(bundles))
    ident = server.post("/sessions", {"model": f"action-{cell}"}).json()["session_id"]
    rng, step, tried = random.Random(1), 1, set()
    while step <= 20:
        body = {"sequences": [walk[3 * step - 3 : 3 * step]], "session_id": ident, "step": step, "top_k": 3}
        if step % 5 == 0 and step not in tried:  # during: the kill races the step
            tried.add(step)
            threading.Timer(rng.uniform(0, 0.004), server.process.kill).start()  # type: ignore[union-attr]
        try:
            reply = server.post("/predict", body)
        except httpx.TransportError:
            server.process.wait(10)  # type: ignore[union-attr]
            server.start()
            continue
        assert reply.status_code == 200, reply.text
        step += 1
        if step == 8:  # between
            server.restart(signal.SIGKILL)
            assert server.post("/predict", body).content == reply.content
    assert reply.json()["session"]["position"] == 60
    whole = server.post("/predict", {"model": f"action-{cell}", "sequences": [walk], "top_k": 3}).json()["predictions"][0]
    assert scores(reply.json()["predictions"][0]) == pytest.approx(scores(whole), abs=1e-4)
    first = server.post("/predict", {"model": f"action-{cell}", "sequences": [walk[:3]], "top_k": 3}).json()["predictions"][0]
    assert max(abs(s - scores(whole)[label]) for label, s in scores(first).items()) > 1e-3, "these scores tell nothing apart"


@pytest.mark.parametrize("cell", CELLS)
def test_a_stream_goes_on_from_its_state_and_from_its_file(cell: str, own_server: Callable[..., Server], bundles: Path) -> None:
    server, model = own_server(INDRNN_BUNDLES=str(bundles)), f"chars-{cell}"
    with server.socket(model) as ws:
        ident = ask(ws, type="open", top_k=28)["session_id"]
        ask(ws, type="step", step=1, text="to be, or ")
    server.restart(signal.SIGKILL)
    content = server.get(f"/sessions/{ident}/state").content
    taken = httpx.post(f"{server.url}/sessions", content=content, headers={"Content-Type": "application/octet-stream"}, timeout=60)
    assert taken.status_code == 201, taken.text
    answers = []
    for session, number, piece in ((ident, 2, "not to be"), (taken.json()["session_id"], 2, "not to be"), (None, 1, "to be, or not to be")):
        with server.socket(model) as ws:
            ask(ws, type="open", session_id=session, top_k=28)
            answers.append({n["char"]: n["logprob"] for n in ask(ws, type="step", step=number, text=piece)["next"]})
    assert answers[0] == answers[1]
    assert answers[0] == pytest.approx(answers[2], abs=1e-4)
    parts = server.get(f"/models/{model}").json()["versions"][0]["state"]
    assert [p["name"] for p in parts if p["role"] == "hidden"] == (["h", "h"] if cell == "gru" else ["h", "c", "h", "c"])


def told(reply: dict[str, Any]) -> dict[str, float]:
    """The scores or chances in a reply, by name."""
    return scores(reply["predictions"][0]) if "predictions" in reply else {n["char"]: n["logprob"] for n in reply["next"]}


def test_a_kill_in_a_stream_of_each_kind_and_cell_loses_nothing(own_server: Callable[..., Server], bundles: Path, walk: list[Any]) -> None:
    """One stream of each model: all have a step under way when the server is killed, and go on on the next one."""
    server = own_server(INDRNN_BUNDLES=str(bundles))
    text = "to be, or not to be, that is the question"
    rows = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).tolist()
    content: dict[str, tuple[str, Any]] = {"action": ("frames", walk), "chars": ("text", text), "tensor": ("values", rows)}
    models = [(f"{kind}-{cell}", *content[kind]) for kind in content for cell in STREAMED]

    def step(ws: Any, n: int, field: str, value: Any) -> dict[str, float]:
        return told(ask(ws, type="step", step=n, **{field: value[4 * n - 4 : 4 * n]}))

    idents, firsts = [], []
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(server.socket(model)) for model, _, _ in models]
        for ws, (_, field, value) in zip(streams, models, strict=True):
            idents.append(ask(ws, type="open", top_k=28)["session_id"])
            first, _ = (step(ws, n, field, value) for n in (1, 2))
            firsts.append(first)
        for ws, (_, field, value) in zip(streams, models, strict=True):
            ws.send(json.dumps({"type": "step", "step": 3, field: value[8:12]}))
        server.restart(signal.SIGKILL)
    for ident, first, (model, field, value) in zip(idents, firsts, models, strict=True):
        with server.socket(model) as ws:
            assert ask(ws, type="open", session_id=ident, top_k=28)["step"] in (2, 3)
            went_on = [step(ws, n, field, value) for n in (3, 4, 5)][-1]
        with server.socket(model) as ws:
            ask(ws, type="open", top_k=28)
            whole = told(ask(ws, type="step", step=1, **{field: value[:20]}))
        assert went_on == pytest.approx(whole, abs=1e-4), model
        assert max(abs(first[name] - whole[name]) for name in whole) > 1e-3, "these scores tell nothing apart"


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small network that nobody trained, `late`: layers of each family, a subsampled one on top, and answers that come later."""
    folder = tmp_path_factory.mktemp("families")
    torch.manual_seed(0)
    net = TensorNet(TensorConfig((0.0, 0.0), (1.0, 1.0), 2, hidden=8, layers=1, pools=(), norm=False, cell="scrn"))
    windows = build_stack(StackConfig("subsampled", layers=2, hidden=8, norm="none", T=30, cell="tanh"), 8).indrnns()
    cells = [table.CELLS[name](2 if i == 0 else 8, 8) for i, name in enumerate(FAMILIES.values())]
    net.stack = Chain([*(Layer(None, cell, 0.0) for cell in cells), *windows])
    net.sizes = [net.stack.state_size, 0, 2]
    torch.nn.init.normal_(net.readout.weight, std=0.5)
    told = {"features": [{"name": "x"}, {"name": "y"}], "answer": "step", "delay": 2}
    meta = Meta("tensor", "", 0, 0, labels=("a", "b"), told=told, cell="scrn", parts=net.parts(), parameters=1)
    write(net.eval().requires_grad_(False), meta, folder, "late", "1", command="", max_position=60)
    return folder


def parts_of(server: Server, model: str, ident: str) -> dict[str, NDArray[np.float32]]:
    """The parts of a session's state by number, role and name."""
    state = load_state(server.get(f"/sessions/{ident}/state").content)["state"].ravel()
    listed = server.get(f"/models/{model}").json()["versions"][0]["state"]
    return {f"{i} {p['role']} {p.get('name')}": state[p["offset"] : p["offset"] + p["size"]] for i, p in enumerate(listed)}


def test_a_kill_in_a_stream_of_each_family_loses_nothing(own_server: Callable[..., Server], families: Path) -> None:
    """Steps of five numbers, so that windows of four are cut, and the fourth step is under way when the server is killed.

    Each part of the state, of which every layer has its own, is afterwards that of a session that nothing happened to.
    """
    server, rows = own_server(INDRNN_BUNDLES=str(families)), torch.randn(30, 2, generator=torch.Generator().manual_seed(0)).tolist()

    def step(ws: Any, n: int) -> dict[str, float]:
        return told(ask(ws, type="step", step=n, values=rows[5 * n - 5 : 5 * n]))

    with server.socket("late") as ws:
        ident = ask(ws, type="open")["session_id"]
        first = [step(ws, n) for n in (1, 2, 3)]
        before = parts_of(server, "late", ident)
        ws.send(json.dumps({"type": "step", "step": 4, "values": rows[15:20]}))
        server.restart(signal.SIGKILL)
    with server.socket("late") as ws:
        assert ask(ws, type="open", session_id=ident)["step"] in (3, 4)
        went_on = [step(ws, n) for n in (4, 5, 6)]
    with server.socket("late") as ws:
        other = ask(ws, type="open")["session_id"]
        whole = told(ask(ws, type="step", step=1, values=rows))
    assert went_on[-1] == pytest.approx(whole, abs=1e-4)
    assert len({repr(s) for s in first + went_on}) == 6, "these scores tell nothing apart"
    after, undisturbed = parts_of(server, "late", ident), parts_of(server, "late", other)
    assert len(after) == 13  # six layers' own, h and c, real and imaginary; the window, its last answer, the last scores
    for name, part in after.items():
        np.testing.assert_allclose(part, undisturbed[name], atol=1e-4, err_msg=name)
        assert not np.allclose(part, before[name], atol=1e-3), f"{name} stands still"
