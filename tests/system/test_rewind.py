"""A session goes back, over HTTP: to its last steps, to marks, exactly once, whatever is killed meanwhile."""

import random
import signal
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from conftest import Server, scores
from cutter import cutting
from test_stream import ask

from indrnn.client import aio, sync
from indrnn.client.errors import Conflict, DeadlineExceeded, Unanswered

Start = Callable[..., Server]


def opened(server: Server, keep: int | None, model: str = "action") -> str:
    reply = server.post("/sessions", {"model": model, **({} if keep is None else {"keep": keep})})
    assert reply.status_code == 201, reply.text
    ident: str = reply.json()["session_id"]
    return ident


def step(server: Server, ident: str, number: int, frames: list[Any]) -> httpx.Response:
    return server.post("/predict", {"sequences": [frames], "session_id": ident, "step": number, "top_k": 99})


def rewind(server: Server, ident: str, **to: Any) -> httpx.Response:
    return server.post(f"/sessions/{ident}/rewind", to)


def mark(server: Server, ident: str, name: Any, **more: Any) -> httpx.Response:
    return server.post(f"/sessions/{ident}/mark", {"mark": name, **more})


def test_a_rewound_session_scores_as_one_that_never_went_further(server: Server, walk: list[Any]) -> None:
    ident, other = opened(server, 8), opened(server, None)
    for at in (ident, other):
        step(server, at, 1, walk[:20])
    assert mark(server, ident, "before the question").json()["marks"] == {"before the question": 1}
    step(server, ident, 2, walk[20:40])
    back = rewind(server, ident, step=1, number=3)
    assert (back.status_code, back.json()["rewound_to"], back.json()["step"], back.json()["position"]) == (200, 1, 3, 20)
    assert back.json()["kept"] == [0, 1, 2, 3]
    there, here = step(server, other, 2, walk[40:]).json(), step(server, ident, 4, walk[40:]).json()
    assert scores(there["predictions"][0]) == scores(here["predictions"][0])
    assert (here["session"]["step"], here["session"]["position"]) == (4, 40)
    forward = rewind(server, ident, step=2)
    assert (forward.json()["step"], forward.json()["position"]) == (5, 40)
    again = rewind(server, ident, mark="before the question").json()
    assert (again["rewound_to"], again["step"], again["position"]) == (1, 6, 20)
    start = rewind(server, ident, step=0).json()
    whole = server.post("/predict", {"sequences": [walk[:20]], "top_k": 99}).json()["predictions"][0]
    assert start["position"] == 0
    assert scores(step(server, ident, 8, walk[:20]).json()["predictions"][0]) == pytest.approx(scores(whole), abs=1e-5)


def test_a_repeated_rewind_is_answered_and_late_repeats_of_older_steps_are_gaps(server: Server, walk: list[Any]) -> None:
    ident = opened(server, 8)
    for n in (1, 2, 3):
        step(server, ident, n, walk[n : n + 2])
    first = rewind(server, ident, step=1, number=4)
    assert rewind(server, ident, step=1, number=4).json() == first.json()
    for reply, code in (
        (rewind(server, ident, step=2, number=4), "step_conflict"),
        (step(server, ident, 4, walk[:2]), "step_conflict"),
        (step(server, ident, 3, walk[3:5]), "step_gap"),
        (step(server, ident, 2, walk[2:4]), "step_gap"),
        (rewind(server, ident, step=1, number=9), "step_gap"),
    ):
        assert (reply.status_code, reply.json()["code"]) == (409, code), reply.text
    assert {**server.get(f"/sessions/{ident}").json(), "rewound_to": 1} == first.json()
    assert step(server, ident, 5, walk[:2]).json()["session"] == {"session_id": ident, "step": 5, "position": 4}


def test_what_is_not_kept_is_refused_by_name(server: Server, walk: list[Any]) -> None:
    ident, plain = opened(server, 2), opened(server, 0)
    for n in range(1, 5):
        step(server, ident, n, walk[n : n + 1])
    refused = rewind(server, ident, step=1)
    assert (refused.status_code, refused.json()["code"], refused.json()["kept"]) == (409, "not_kept", [2, 3, 4])
    refused = rewind(server, ident, mark="nowhere")
    assert (refused.status_code, refused.json()["code"], refused.json()["marks"]) == (409, "not_kept", {})
    for reply in (rewind(server, plain, step=0), mark(server, plain, "m")):
        assert (reply.status_code, reply.json()["code"]) == (409, "not_kept")
    assert "keep" not in server.get(f"/sessions/{plain}").json()
    assert server.get(f"/sessions/{ident}").json()["step"] == 4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("rewind", {}),
        ("rewind", {"step": 1, "mark": "m"}),
        ("rewind", {"step": -1}),
        ("rewind", {"step": 1, "number": 0}),
        ("rewind", {"step": True}),
        ("rewind", {"mark": ""}),
        ("rewind", {"step": 1, "steps": 2}),
        ("mark", {}),
        ("mark", {"mark": "x" * 65}),
        ("mark", {"mark": 3}),
        ("mark", {"mark": "m", "remove": "yes"}),
    ],
)
def test_wishes_that_make_no_sense_are_422(server: Server, path: str, body: dict[str, Any]) -> None:
    ident = opened(server, 4)
    reply = server.post(f"/sessions/{ident}/{path}", body)
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_input"), reply.text
    assert server.get(f"/sessions/{ident}").json()["step"] == 0


def test_no_session_keeps_more_than_the_setting_says(server: Server, own_server: Start) -> None:
    for keep in (-1, 65, "3", 1.5, True):
        assert server.post("/sessions", {"model": "action", "keep": keep}).json()["field"] == "keep"
    none = own_server(INDRNN_MAX_KEEP="0")
    assert none.post("/sessions", {"model": "action", "keep": 1}).status_code == 422
    assert none.post("/sessions", {"model": "action", "keep": 0}).status_code == 201


def test_kept_states_count_as_sessions_of_their_key(own_server: Start) -> None:
    server = own_server(INDRNN_MAX_SESSIONS="5")
    ident = opened(server, 3)
    refused = server.post(f"/sessions/{ident}/fork", None)
    assert (refused.status_code, refused.json()["code"]) == (429, "session_limit")
    assert server.post("/sessions", {"model": "action", "keep": 1}).status_code == 429
    assert server.post("/sessions", {"model": "action"}).status_code == 201
    assert server.post("/sessions", {"model": "action"}).status_code == 429
    httpx.delete(f"{server.url}/sessions/{ident}")
    assert server.post("/sessions", {"model": "action", "keep": 4}).status_code == 429
    assert server.post("/sessions", {"model": "action", "keep": 3}).status_code == 201


def test_a_session_of_a_stream_is_rewound_over_http_and_goes_on(server: Server) -> None:
    ident = opened(server, 4, "chars")
    with server.socket("chars") as ws:
        assert ask(ws, type="open", session_id=ident)["step"] == 0
        ask(ws, type="step", step=1, text="Prince Andrew ")
        asked = ask(ws, type="step", step=2, text="looked")
        assert rewind(server, ident, step=1, number=3).json()["position"] == 14
        assert ask(ws, type="step", step=2, text="looked")["code"] == "step_gap"
        assert ask(ws, type="step", step=3, text="looked")["code"] == "step_conflict"
        again = ask(ws, type="step", step=4, text="looked")
        assert (again["chars"], again["position"]) == (asked["chars"], 20)


def test_a_downloaded_state_has_no_kept_ones_and_a_reset_clears_them(server: Server, walk: list[Any]) -> None:
    ident = opened(server, 4)
    step(server, ident, 1, walk[:5])
    mark(server, ident, "m")
    data = server.get(f"/sessions/{ident}/state").content
    forked = server.post(f"/sessions/{ident}/fork", None).json()
    assert (forked["keep"], forked["kept"], forked["marks"]) == (4, [0, 1], {"m": 1})
    for reply in (
        httpx.put(f"{server.url}/sessions/{ident}/state", content=data, headers={"Content-Type": "application/octet-stream"}),
        server.post(f"/sessions/{forked['session_id']}/reset", None),
    ):
        assert (reply.json()["keep"], reply.json()["kept"], reply.json()["marks"]) == (4, [reply.json()["step"]], {})


def test_kill_between_and_during_rewinds_loses_nothing_and_applies_each_once(own_server: Start, walk: list[Any]) -> None:
    """Every other step is a rewind; a list of what the session has consumed says where it stands."""
    server = own_server()
    ident = opened(server, 6)
    rng = random.Random(1)
    consumed: dict[int, list[int]] = {0: []}
    number, raced = 1, set[int]()
    while number <= 24:
        if number % 5 == 0 and number not in raced:
            raced.add(number)
            threading.Timer(rng.uniform(0, 0.004), server.process.kill).start()  # type: ignore[union-attr]
        back = number - 3 if number % 2 == 0 and number > 3 else None
        try:
            reply = step(server, ident, number, [walk[number]]) if back is None else rewind(server, ident, step=back, number=number)
        except httpx.TransportError:
            server.process.wait(10)  # type: ignore[union-attr]
            server.start()
            continue
        assert reply.status_code == 200, reply.text
        consumed[number] = [*consumed[number - 1], number] if back is None else consumed[back]
        if number % 8 == 0:
            server.restart(signal.SIGKILL)
            told = server.get(f"/sessions/{ident}").json()
            assert (told["step"], told["position"], told["kept"]) == (number, len(consumed[number]), list(range(number - 6, number + 1)))
        number += 1
    last = step(server, ident, number, [walk[0]]).json()
    frames = [walk[n] for n in consumed[24]] + [walk[0]]
    whole = server.post("/predict", {"sequences": [frames], "top_k": 99}).json()["predictions"][0]
    assert last["session"]["position"] == len(frames)
    assert scores(last["predictions"][0]) == pytest.approx(scores(whole), abs=1e-4)


def test_a_client_marks_goes_on_and_goes_back(server: Server) -> None:
    with sync.Client(server.url) as client, client.session("chars", keep=4) as session:
        session.step("To be, or not to be: ")
        session.mark("before the question")
        first = session.step("that")
        session.step(" is the question")
        session.rewind(mark="before the question")
        assert (session.number, session.position) == (4, 21)
        again = session.step("that")
        assert (again.step, [c.logprob for c in again.chars]) == (5, [c.logprob for c in first.chars])
        session.rewind(step=3)
        assert (session.number, session.position) == (6, 41)
        told = client.look(session.id)
        assert (told.keep, told.kept, told.marks) == (4, [1, 3, 4, 5, 6], {"before the question": 1})
        with pytest.raises(Conflict, match="not kept") as refused:
            session.rewind(step=2)
        assert refused.value.code == "not_kept"
        session.mark("before the question", remove=True)
        with pytest.raises(Conflict):
            session.rewind(mark="before the question")
        assert session.step("!").step == 7
        by_id = client.new_session("chars", keep=2)
        assert client.rewind(by_id.session_id, step=0, number=1).step == 1
        assert client.mark(by_id.session_id, "here").marks == {"here": 1}


async def test_the_same_with_asyncio(server: Server) -> None:
    async with aio.Client(server.url) as client, client.session("chars", keep=4) as session:
        await session.step("To be")
        await session.mark("here")
        await session.step(" or not")
        await session.rewind(mark="here")
        assert (session.number, session.position) == (3, 5)
        assert (await session.step("!")).position == 6
        assert (await client.look(session.id)).marks == {"here": 1}


def test_a_client_whose_rewind_met_a_kill_makes_the_same_call_again_and_no_other(own_server: Start) -> None:
    server = own_server()
    with cutting(server.port, 1) as cutter, sync.Client(cutter.url) as client:
        cutter.gentle = True
        with client.session("chars", keep=4) as session:
            for text in "abc":
                session.step(text)
            server.stop(signal.SIGKILL)
            client.server.timeout = 0.5
            with pytest.raises(DeadlineExceeded):
                session.rewind(step=1)
            with pytest.raises(Unanswered):
                session.step("d")
            client.server.timeout = 30.0
            cutter.target = server.start().port
            session.rewind(step=1)
            assert (session.number, session.position) == (4, 1)
            assert session.step("d").step == 5


def test_through_connections_that_are_cut_each_rewind_is_applied_once(server: Server) -> None:
    def play(client: sync.Client, session: sync.Session) -> list[object]:
        told: list[object] = []
        for n in range(1, 13):
            told.append([c.logprob for c in session.step("To be, or not "[n : n + 3]).chars])
            if n % 3 == 0:
                session.mark("here")
            if n % 4 == 0:
                session.rewind(mark="here")
                told.append((session.number, session.position))
        return [told, client.look(session.id).kept]

    with sync.Client(server.url) as client, client.session("chars", keep=4) as session:
        undisturbed = play(client, session)
    with cutting(server.port, 5, 300, 2_500) as cutter, sync.Client(cutter.url) as client, client.session("chars", keep=4) as session:
        assert play(client, session) == undisturbed
        assert cutter.cuts > 5
