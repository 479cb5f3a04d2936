"""The state is the client's: out, in, elsewhere, twice, and back to the start."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import ROOT, VERSION, Server, scores
from safetensors.numpy import load, save
from test_stream import ask, hear, hear_all

Start = Callable[..., Server]
BYTES = {"Content-Type": "application/octet-stream"}
ALL = 99


def opened(server: Server, model: str = "action") -> str:
    ident: str = server.post("/sessions", {"model": model}).json()["session_id"]
    return ident


def step(server: Server, ident: str, number: int, frames: list[Any], **more: Any) -> httpx.Response:
    return server.post("/predict", {"sequences": [frames], "session_id": ident, "step": number, "top_k": ALL, **more})


def download(server: Server, ident: str) -> bytes:
    reply = server.get(f"/sessions/{ident}/state")
    assert reply.status_code == 200, reply.text
    return reply.content


def put(server: Server, ident: str, data: bytes) -> httpx.Response:
    return httpx.put(f"{server.url}/sessions/{ident}/state", content=data, headers=BYTES, timeout=60)


def upload(server: Server, data: bytes) -> httpx.Response:
    return httpx.post(f"{server.url}/sessions", content=data, headers=BYTES, timeout=60)


@pytest.mark.parametrize("hz", [30, 25, 60])
def test_a_session_moves_to_another_server_and_goes_on_with_the_same_numbers(
    server: Server, own_server: Start, walk: list[Any], hz: float
) -> None:
    other = own_server()
    here = opened(server)
    step(server, here, 1, walk[:17], hz=hz)  # ends between two frames of the model where it resamples
    moved = upload(other, download(server, here))
    assert moved.status_code == 201
    assert {k: moved.json()[k] for k in ("model", "version", "step", "position")} == {
        "model": "action",
        "version": VERSION,
        "step": 1,
        "position": 17,
    }
    there = moved.json()["session_id"]
    for number, at in ((2, 17), (3, 18), (4, 40)):
        one, two = (step(s, i, number, walk[at : at + 20], hz=hz).json() for s, i in ((server, here), (other, there)))
        assert one["predictions"] == two["predictions"]
        assert one["session"]["position"] == two["session"]["position"]
    assert download(server, here) == download(other, there)


def test_a_text_goes_on_elsewhere_with_the_same_characters(server: Server, own_server: Start) -> None:
    other = own_server()
    wish = json.dumps({"type": "generate", "step": 2, "max_chars": 80, "seed": 3})
    with server.socket("chars") as ws:
        here = ask(ws, type="open")["session_id"]
        ask(ws, type="step", step=1, text="Prince Andrew looked")
        data = download(server, here)
        ws.send(wish)
        expected = hear_all(ws)
    there = upload(other, data).json()["session_id"]
    with other.socket("chars") as ws:
        assert ask(ws, type="open", session_id=there)["step"] == 1
        assert ask(ws, type="step", step=1, text="Prince Andrew looked")["code"] == "no_stored_reply"
        ws.send(wish)
        assert hear_all(ws) == expected


def test_a_state_is_a_file_with_a_name_and_what_it_is(server: Server, walk: list[Any]) -> None:
    ident = opened(server)
    step(server, ident, 1, walk[:5])
    reply = server.get(f"/sessions/{ident}/state")
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"] == f'attachment; filename="action-{VERSION}-step1.safetensors"'
    assert set(load(reply.content)) == {"state"}
    info = server.get("/models/action").json()["versions"][0]
    assert load(reply.content)["state"].shape == (info["state_size"],)


def test_an_upload_puts_a_session_back_and_its_last_number_has_no_answer(server: Server, walk: list[Any]) -> None:
    ident = opened(server)
    step(server, ident, 1, walk[:20])
    saved = download(server, ident)
    second = step(server, ident, 2, walk[20:40]).json()
    back = put(server, ident, saved)
    assert (back.status_code, back.json()["step"], back.json()["position"]) == (200, 1, 20)
    again = step(server, ident, 1, walk[:20])
    assert (again.status_code, again.json()["code"], again.json()["expected_step"]) == (409, "no_stored_reply", 2)
    assert step(server, ident, 2, walk[20:40]).json() == second


def test_numbers_under_which_the_state_would_overflow_are_the_clients_error_and_move_nothing(server: Server, walk: list[Any]) -> None:
    """Each finite and within its bounds, so that the upload takes them: the next step is where they do not fit."""
    ident = opened(server)
    step(server, ident, 1, walk[:20])
    hidden = [p for p in server.get("/models/action").json()["versions"][0]["state"] if p["role"] == "hidden"]

    def enlarge(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
        tensors["state"][: sum(p["size"] for p in hidden)] = 3e38

    huge = altered(download(server, ident), enlarge)
    reply = put(server, ident, huge)
    assert reply.status_code == 200, reply.text
    before = download(server, ident)
    refused = step(server, ident, 2, walk[:3])
    assert (refused.status_code, refused.json()["code"]) == (422, "overflow")
    with server.socket("action") as ws:
        assert ask(ws, type="open", session_id=ident)["step"] == 1
        assert ask(ws, type="step", step=2, frames=walk[:3])["code"] == "overflow"
    assert download(server, ident) == before


def test_a_fork_answers_the_last_step_and_goes_its_own_way(server: Server, walk: list[Any]) -> None:
    ident = opened(server)
    first = step(server, ident, 1, walk[:20]).json()
    forked = server.post(f"/sessions/{ident}/fork", None)
    assert (forked.status_code, forked.json()["step"], forked.json()["position"]) == (201, 1, 20)
    twin = forked.json()["session_id"]
    assert step(server, twin, 1, walk[:20]).json() == {**first, "session": {**first["session"], "session_id": twin}}
    theirs, mine = step(server, twin, 2, walk[40:]).json(), step(server, ident, 2, walk[20:40]).json()
    assert theirs["predictions"] != mine["predictions"]
    assert server.get(f"/sessions/{ident}").json()["step"] == 2
    httpx.delete(f"{server.url}/sessions/{ident}")
    assert step(server, twin, 3, walk[:5]).status_code == 200


def test_a_reset_session_scores_as_a_new_one(server: Server, walk: list[Any]) -> None:
    ident = opened(server)
    step(server, ident, 1, walk[:30], hz=60)
    back = server.post(f"/sessions/{ident}/reset", None)
    assert (back.status_code, back.json()["step"], back.json()["position"]) == (200, 0, 0)
    whole = server.post("/predict", {"sequences": [walk], "top_k": ALL}).json()["predictions"][0]
    again = step(server, ident, 1, walk)  # also at another rate than before
    assert scores(again.json()["predictions"][0]) == pytest.approx(scores(whole), abs=1e-4)


def altered(data: bytes, change: Callable[[dict[str, np.ndarray], dict[str, str]], object]) -> bytes:
    tensors = load(data)
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    change(tensors, metadata)
    return save(tensors, metadata)


def test_uploads_that_are_no_state_of_the_model_are_refused_and_move_nothing(server: Server, walk: list[Any]) -> None:
    ident, chars = opened(server), opened(server, "chars")
    step(server, ident, 1, walk[:5])
    good, before = download(server, ident), server.get(f"/sessions/{ident}").json()
    wrong: list[tuple[bytes, int, str]] = [
        (b"", 400, "not_a_state"),
        (b"not safetensors at all", 400, "not_a_state"),
        (good[:-1], 400, "not_a_state"),
        (download(server, chars), 422, "other_model"),
        (altered(good, lambda t, m: m.update(digest="0" * 64)), 422, "other_model"),
        (altered(good, lambda t, m: m.update(step="-1")), 400, "not_a_state"),
        (altered(good, lambda t, m: t.update(state=t["state"][:-1])), 422, "invalid_input"),
        (altered(good, lambda t, m: t.update(state=t["state"] * np.float32(np.nan))), 422, "not_finite"),
        (altered(good, lambda t, m: t.update(state=t["state"] - np.float32(1))), 422, "out_of_range"),
        (b" " * (17 * 2**20), 413, "too_large"),
    ]
    for data, status, code in wrong:
        reply = put(server, ident, data)
        assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
        if code != "other_model":
            assert upload(server, data).json()["code"] == code
    assert upload(server, altered(good, lambda t, m: m.update(digest="0" * 64))).json()["code"] == "other_model"
    assert upload(server, altered(good, lambda t, m: m.update(digest="0" * 64, model="../../etc"))).json()["code"] == "unknown_model"
    assert server.get(f"/sessions/{ident}").json() == before
    assert download(server, ident) == good


def test_a_session_whose_version_is_gone_can_still_be_taken_away(own_server: Start, tmp_path: Path, walk: list[Any]) -> None:
    shutil.copytree(ROOT / "bundles" / "action" / "1", tmp_path / "bundles" / "action" / "1")
    newer = shutil.copytree(ROOT / "bundles" / "action" / "1", tmp_path / "bundles" / "action" / "2")
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps({**manifest, "version": "2"}))
    server = own_server(INDRNN_BUNDLES=str(tmp_path / "bundles"))
    ident = opened(server)
    before = step(server, ident, 1, walk[:20]).json()
    assert before["version"] == "2"
    server.stop()
    server.env["INDRNN_SESSION_TTL"] = "1"
    server.start()
    other = opened(server)
    server.stop()
    del server.env["INDRNN_SESSION_TTL"]
    shutil.rmtree(newer)
    server.start()
    assert step(server, ident, 2, walk[20:]).json()["code"] == "model_gone"
    for path in ("fork", "reset"):
        assert server.post(f"/sessions/{ident}/{path}", None).json()["code"] == "model_gone"
    data = download(server, ident)
    assert put(server, ident, data).json()["code"] == "model_gone"
    assert ident in [s["session_id"] for s in server.get("/sessions").json()["sessions"]]
    moved = upload(server, data).json()  # version 1 has the very same file
    assert (moved["version"], moved["step"]) == ("1", 1)
    assert step(server, moved["session_id"], 2, walk[20:]).status_code == 200
    assert httpx.delete(f"{server.url}/sessions/{ident}").status_code == 204
    assert server.get(f"/sessions/{ident}/state").status_code == 410
    deadline = time.monotonic() + 60
    while server.get(f"/sessions/{other}").status_code == 200 and time.monotonic() < deadline:
        pass  # its time is over long before anybody sweeps
    assert server.get(f"/sessions/{other}/state").json()["code"] == "session_expired"


def together(*works: Callable[[], object]) -> None:
    failed: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # told by the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if failed:
        raise failed[0]


def test_forks_and_downloads_beside_steps_are_always_whole(server: Server, walk: list[Any]) -> None:
    ident, twins, files, replies = opened(server), [], [], {}
    begun = threading.Barrier(3)  # a fork and a download were taken, and the last step is still to come

    def stepping() -> None:
        for n in range(1, 31):
            if n == 30:
                begun.wait(60)
            replies[n] = step(server, ident, n, walk[2 * n - 2 : 2 * n]).json()["predictions"]

    def forking() -> None:
        for i in range(15):
            twins.append(server.post(f"/sessions/{ident}/fork", None).json())
            if i == 0:
                begun.wait(60)

    def downloading() -> None:
        for i in range(15):
            files.append(download(server, ident))
            if i == 0:
                begun.wait(60)

    together(stepping, forking, downloading)
    loaded = [upload(server, data).json() for data in files]
    assert all(any(twin["step"] < 30 for twin in taken) for taken in (twins, loaded)), "nothing was taken beside the steps"
    for twin in twins + loaded:
        n = twin["step"]
        assert twin["position"] == 2 * n
        if n < 30:
            ours = step(server, twin["session_id"], n + 1, walk[2 * n : 2 * n + 2]).json()["predictions"]
            assert scores(ours[0]) == pytest.approx(scores(replies[n + 1][0]), abs=1e-4)


def test_two_uploads_at_once_leave_one_of_them(server: Server, walk: list[Any]) -> None:
    ident = opened(server)
    files = []
    for n in (1, 2):
        step(server, ident, n, walk[10 * n : 10 * n + 10])
        files.append(download(server, ident))
    for _ in range(10):
        together(*(lambda data=data: put(server, ident, data).raise_for_status() for data in files * 2))
        assert download(server, ident) in files


def test_an_upload_never_brings_a_deleted_session_back(server: Server, walk: list[Any]) -> None:
    def race() -> None:
        ident = opened(server)
        step(server, ident, 1, walk[:10])
        data, codes = download(server, ident), []
        uploads = [lambda: codes.append(put(server, ident, data).status_code)] * 3
        together(*uploads, lambda: codes.append(httpx.delete(f"{server.url}/sessions/{ident}").status_code))
        assert set(codes) <= {200, 204, 410}
        assert server.get(f"/sessions/{ident}").status_code == 410

    for _ in range(10):
        race()


def test_a_reset_in_the_middle_of_a_generate_comes_after_it(server: Server) -> None:
    with server.socket("chars") as ws:
        ident = ask(ws, type="open")["session_id"]
        ws.send(json.dumps({"type": "generate", "step": 1, "max_chars": 100, "seed": 1}))
        heard = [hear(ws)]
        back: list[httpx.Response] = []
        resetting = threading.Thread(target=lambda: back.append(server.post(f"/sessions/{ident}/reset", None)))
        resetting.start()
        heard += hear_all(ws)
        resetting.join(60)
        assert (len(heard), heard[-1]["reason"]) == (101, "length")
        assert (back[0].json()["step"], back[0].json()["position"]) == (0, 0)
        assert ask(ws, type="step", step=1, text="a")["position"] == 1


def test_a_model_whose_folder_is_removed_stays_for_the_sequences_it_has(own_server: Start, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bundles", tmp_path / "bundles")
    server = own_server(INDRNN_BUNDLES=str(tmp_path / "bundles"), INDRNN_POLL="0.1")
    url = "/v2/models/chars/infer"

    def infer(**parameters: Any) -> httpx.Response:
        tensor = {"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [1]}
        return server.post(url, {"inputs": [tensor], "parameters": {"sequence_id": 7, **parameters}})

    assert infer(sequence_start=True, indrnn_step=1).status_code == 200
    shutil.rmtree(tmp_path / "bundles" / "chars")
    deadline = time.monotonic() + 30
    while server.post("/sessions", {"model": "chars"}).status_code == 201:
        assert time.monotonic() < deadline, "the folder is gone, and the model still takes new sessions"
    reply = infer(indrnn_step=2)
    assert (reply.status_code, reply.json().get("parameters")) == (200, {"indrnn_step": 2, "indrnn_position": 2}), reply.text
    assert infer(indrnn_step=2).content == reply.content
    assert infer(sequence_start=True, sequence_id=8).status_code == 404
