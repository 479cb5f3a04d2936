"""One step sent by every pair of native protocols that can carry it: the second gets the stored answer, and anything else is a conflict.

Text has only the stream. Its plain steps take a short way through the service, and those with a joint that was not seen a longer one.
"""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Server

OPTIONS: dict[str, dict[str, Any]] = {
    "no options": {},
    "hz": {"hz": 60},
    "the model's own hz": {"hz": 30},
    "top_k": {"top_k": 3},
    "layout": {"layout": "ntu25"},
    "the model's own layout": {"layout": "utd20"},
    "all": {"hz": 12.5, "top_k": 27, "layout": "kinect20"},
}
OTHERS: list[dict[str, Any]] = [{"hz": 50}, {"top_k": 4}]


def by_http(server: Server, ident: str, frames: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    reply = server.post("/predict", {"sequences": [frames], "session_id": ident, "step": 1, **options})
    answer: dict[str, Any] = reply.json()
    if reply.status_code != 200:
        return {"code": answer["code"]}
    told = {"warnings": answer["warnings"]} if "warnings" in answer else {}
    return {"predictions": answer["predictions"], **told, **{name: answer["session"][name] for name in ("step", "position")}}


def by_stream(server: Server, ident: str, frames: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    return stream(server, "action", {"session_id": ident, **options}, {"frames": frames})


def stream(server: Server, model: str, opening: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    with server.socket(model) as ws:
        ws.send(json.dumps({"type": "open", **opening}))
        assert json.loads(ws.recv(timeout=30))["type"] == "opened"
        ws.send(json.dumps({"type": "step", "step": 1, **content}))
        answer: dict[str, Any] = json.loads(ws.recv(timeout=30))
    if answer["type"] == "error":
        return {"code": answer["code"]}
    assert answer.pop("type") == "result"
    return answer


Send = Callable[[Server, str, list[Any], dict[str, Any]], dict[str, Any]]
WAYS: dict[str, Send] = {"http": by_http, "stream": by_stream}
PAIRS = [(one, other) for one in WAYS for other in WAYS]


def new(server: Server, model: str = "action") -> str:
    ident: str = server.post("/sessions", {"model": model}).json()["session_id"]
    return ident


def frames_of(walk: list[Any], options: dict[str, Any], unseen: bool) -> list[Any]:
    """Eight frames in the layout, where wanted with a joint that was not seen."""
    joints = 25 if options.get("layout") == "ntu25" else 20
    frames = [(frame + frame)[:joints] for frame in walk[:8]]
    if unseen:
        frames[3] = [None, *frames[3][1:]]
    return frames


@pytest.mark.parametrize("unseen", [False, True], ids=["", "unseen"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_the_same_step_by_two_protocols_is_one_step(
    server: Server, walk: list[Any], one: str, other: str, options: dict[str, Any], unseen: bool
) -> None:
    ident, frames = new(server), frames_of(walk, options, unseen)
    first = WAYS[one](server, ident, frames, options)
    assert first["step"] == 1
    assert WAYS[other](server, ident, frames, options) == first
    shorter = WAYS[other](server, ident, frames[:-1], options)
    assert shorter == {"code": "step_conflict"}
    for changed in OTHERS:
        assert WAYS[other](server, ident, frames, options | changed) == {"code": "step_conflict"}
    assert server.get(f"/sessions/{ident}").json()["step"] == 1


@pytest.mark.parametrize(("first", "second"), [({"hz": 30}, {}), ({}, {"hz": 30})])
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_every_pair_takes_a_rate_that_is_named_and_one_that_is_not_alike(
    server: Server, walk: list[Any], one: str, other: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Whether these are the same step is one rule, whichever protocol they come by."""
    answers = []
    for way in (one, other):
        ident = new(server)
        WAYS[one](server, ident, walk[:8], first)
        answers.append(WAYS[way](server, ident, walk[:8], second))
    assert answers[0] == answers[1]


def test_a_step_of_text_is_the_same_over_another_stream_and_another_is_not(server: Server) -> None:
    ident = new(server, "chars")
    first = stream(server, "chars", {"session_id": ident}, {"text": "To be"})
    assert first["step"] == 1
    assert stream(server, "chars", {"session_id": ident, "hz": None}, {"text": "To be"}) == first
    assert stream(server, "chars", {"session_id": ident}, {"text": "To bee"}) == {"code": "step_conflict"}
    assert stream(server, "chars", {"session_id": ident, "top_k": 4}, {"text": "To be"}) == {"code": "step_conflict"}


def test_the_same_step_after_a_restart_is_answered_from_the_store(own_server: Callable[..., Server], walk: list[Any]) -> None:
    server = own_server()
    asked = [(one, other, options, new(server)) for one, other in PAIRS for options in ({}, {"hz": 60, "top_k": 3})]
    told = [WAYS[one](server, ident, walk[:8], options) for one, _, options, ident in asked]
    text = new(server, "chars")
    said = stream(server, "chars", {"session_id": text}, {"text": "To be"})
    server.restart(signal.SIGKILL)
    assert [WAYS[other](server, ident, walk[:8], options) for _, other, options, ident in asked] == told
    assert stream(server, "chars", {"session_id": text}, {"text": "To be"}) == said
    assert [WAYS[other](server, ident, walk[:7], options)["code"] for _, other, options, ident in asked] == ["step_conflict"] * len(asked)
