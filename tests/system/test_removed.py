"""A model whose folder was removed while it has sessions: they go on, nothing new begins, and the other models are none the worse."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import ROOT, Server
from test_stream import ask


def infer(server: Server, text: int, **parameters: Any) -> tuple[int, dict[str, Any]]:
    x = {"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [text]}
    reply = server.post("/v2/models/chars/infer", {"inputs": [x], "parameters": {"sequence_id": 7, **parameters}})
    return reply.status_code, reply.json()


def test_sessions_of_a_removed_model_go_on_and_the_lists_leave_it_out(own_server: Callable[..., Server], tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    shutil.copytree(ROOT / "bundles", bundles)
    server = own_server(INDRNN_BUNDLES=str(bundles), INDRNN_POLL="0.1")
    assert infer(server, 1, sequence_start=True, indrnn_step=1)[0] == 200
    with server.socket("chars") as socket:
        opened = ask(socket, type="open")
        ask(socket, type="step", step=1, text="a")
    shutil.rmtree(bundles / "chars")
    deadline = time.monotonic() + 30
    while server.get("/models/chars").status_code == 200:
        assert time.monotonic() < deadline
    assert [m["name"] for m in server.get("/models").json()["models"]] == ["action"]
    assert server.get("/v1/models").json()["data"] == []
    with server.socket("chars") as socket:
        assert ask(socket, type="open")["code"] == "unknown_model"
        assert ask(socket, type="open", session_id=opened["session_id"])["step"] == 1
        assert ask(socket, type="step", step=2, text="b")["type"] == "result"
    status, reply = infer(server, 2, indrnn_step=2)
    assert (status, reply.get("parameters")) == (200, {"indrnn_step": 2, "indrnn_position": 2})
    status, reply = infer(server, 2, sequence_start=True, indrnn_step=1)
    assert (status, "takes nothing new" in reply["error"]) == (404, True)
