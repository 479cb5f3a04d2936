"""A store written while only version 1 was served: its sessions go on with version 1, new ones take version 2."""

import gzip
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ROOT, Server

PROMPT = (
    "It was late in the evening when the carriage that had left the city at noon came at last to the house on the hill, and "
    "the old prince, who had been walking up and down in the hall since the lamps were lit, went out to the steps himself — "
    "in his slippers — to see who it was that had come to him so late, and why."
)


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, Any]]]:
    """The service with both versions, on a store that it filled with version 1 alone; beside it what it said then."""
    folder = tmp_path_factory.mktemp("upgraded")
    for model in ("action", "chars"):
        shutil.copytree(ROOT / "bundles" / model / "1", folder / "bundles" / model / "1")
    server = Server(folder, {"INDRNN_BUNDLES": str(folder / "bundles"), "INDRNN_POLL": "0"}).start()
    before: dict[str, Any] = {}
    try:
        with server.socket("chars") as ws:
            before["opened"] = ask(ws, type="open")
            before["step"] = ask(ws, type="step", step=1, text="Prince Andrew ")
            before["other"] = server.post("/sessions", {"model": "chars"}).json()["session_id"]
            assert ask(ws, type="open")["code"] == "invalid_input"
        before["moves"] = server.post("/sessions", {"model": "action"}).json()["session_id"]
        before["moved"] = moved(server, before["moves"], 1)
        server.stop(signal.SIGTERM)
        for model in ("action", "chars"):
            shutil.copytree(ROOT / "bundles" / model / "2", folder / "bundles" / model / "2")
        yield server.start(), before
    finally:
        server.stop(signal.SIGKILL)


def moved(server: Server, ident: str, step: int) -> dict[str, Any]:
    """The answer to one half of the example's wave, all its scores."""
    (wave,) = json.loads((ROOT / "examples" / "wave.json").read_text())["sequences"]
    wish = {"sequences": [wave[36 * (step - 1) : 36 * step]], "session_id": ident, "step": step, "top_k": 100}
    answer: dict[str, Any] = server.post("/predict", wish).json()
    return answer


def ask(ws: Any, **message: object) -> dict[str, Any]:
    ws.send(json.dumps(message))
    reply: dict[str, Any] = json.loads(ws.recv(60))
    return reply


def test_a_session_of_version_1_goes_on_with_it_and_new_ones_take_2(upgraded: tuple[Server, dict[str, Any]]) -> None:
    server, before = upgraded
    ident = before["opened"]["session_id"]
    assert before["opened"]["version"] == "1"
    with server.socket("chars") as ws:
        assert ask(ws, type="open", session_id=ident)["version"] == "1"
        assert ask(ws, type="step", step=1, text="Prince Andrew ") == before["step"]
        assert ask(ws, type="step", step=2, text="looked at")["position"] == 23
    with server.socket("chars") as ws:  # the option is for models that have the symbol
        refused = ask(ws, type="open", session_id=ident, unknown="replace")
        assert (refused["field"], refused["detail"]) == (
            "unknown",
            "model chars 1 has no symbol for what its alphabet lacks: expected null, got 'replace'",
        )
    with server.socket("chars") as ws:
        assert ask(ws, type="open")["version"] == "2"
    assert server.post("/sessions", {"model": "chars"}).json()["version"] == "2"
    assert server.get("/models/chars").json()["versions"][-1]["unknown"] == "\ufffd"


def test_skeletons_of_a_session_of_version_1_are_answered_by_it(upgraded: tuple[Server, dict[str, Any]]) -> None:
    server, before = upgraded
    assert moved(server, before["moves"], 1) == before["moved"]
    second = moved(server, before["moves"], 2)
    assert (second["version"], second["session"]["position"], len(second["predictions"][0]["top"])) == ("1", 72, 27)
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    first = moved(server, ident, 1)
    assert (first["version"], first["session"]["position"], len(first["predictions"][0]["top"])) == ("2", 36, 54)
    assert moved(server, ident, 2)["predictions"][0]["label"] == "wave"


def test_a_stream_reads_what_the_alphabet_lacks_and_says_so_also_the_second_time(upgraded: tuple[Server, dict[str, Any]]) -> None:
    server, _ = upgraded
    with server.socket("chars") as ws:
        ask(ws, type="open", unknown="replace", top_k=200)
        read = ask(ws, type="step", step=1, text="the 猫 said: ☃")
        assert read["replaced"] == {"count": 2, "chars": "猫☃"}
        assert [c["logprob"] is None for c in read["chars"]] == [c["char"] == "\ufffd" for c in read["chars"]]
        assert ask(ws, type="step", step=1, text="the 猫 said: ☃") == read
        assert ask(ws, type="step", step=1, text="the 犬 said: ☃")["code"] == "step_conflict"
        assert "\ufffd" not in {n["char"] for n in read["next"]}
        assert "replaced" not in ask(ws, type="step", step=2, text=" plain")
    with server.socket("chars") as ws:
        ask(ws, type="open")
        assert ask(ws, type="step", step=1, text="the 猫")["code"] == "out_of_alphabet"


def test_a_completion_reads_it_too_and_says_so(upgraded: tuple[Server, dict[str, Any]]) -> None:
    server, _ = upgraded
    wish = {"model": "chars", "prompt": "the 猫 ", "max_tokens": 5, "seed": 1, "echo": True, "logprobs": 1}
    assert server.post("/v1/completions", wish).status_code == 400
    whole = server.post("/v1/completions", {**wish, "unknown": "replace"}).json()
    assert whole["replaced"] == {"count": 1, "chars": "猫"}
    (choice,) = whole["choices"]
    assert choice["text"].startswith("the 猫 ")
    assert choice["logprobs"]["token_logprobs"][4] is None
    with httpx.stream("POST", f"{server.url}/v1/completions", json={**wish, "unknown": "replace", "stream": True}, timeout=60) as events:
        chunks = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: {")]
    assert all(chunk["replaced"] == {"count": 1, "chars": "猫"} for chunk in chunks)
    refused = server.post("/v1/completions", {**wish, "unknown": "drop"}).json()
    assert refused["error"]["param"] == "unknown"


def test_a_long_line_is_continued_in_words(upgraded: tuple[Server, dict[str, Any]]) -> None:
    server, _ = upgraded
    assert len(PROMPT) > 300
    wish = {"model": "chars", "prompt": PROMPT, "max_tokens": 200, "temperature": 0.5, "seed": 1}
    text = server.post("/v1/completions", wish).json()["choices"][0]["text"]
    letters = sum(c.isalpha() or c == " " for c in text)
    assert letters > 0.85 * len(text), text


def test_the_same_passage_costs_the_same_in_every_layout(upgraded: tuple[Server, dict[str, Any]]) -> None:
    server, _ = upgraded
    novel = Path(os.environ.get("INDRNN_DATA", "data")) / "text" / "war_and_peace.txt.gz"
    if not novel.is_file():
        pytest.skip(f"data missing: {novel} (INDRNN_DATA)")
    whole = gzip.decompress(novel.read_bytes()).decode()
    words = whole[round(0.91 * len(whole)) :][:6_000].split()  # of the validation part
    costs = []
    for width in (70, 100, 120, 200, 10_000):
        text = filled(words, width)
        wish = {"model": "chars", "prompt": text, "max_tokens": 0, "echo": True, "logprobs": 0}
        scores = server.post("/v1/completions", wish).json()["choices"][0]["logprobs"]["token_logprobs"]
        costs.append(-sum(scores[1:]) / len(text) / 0.693147)
    assert max(costs) - min(costs) < 0.15, costs


def filled(words: list[str], width: int) -> str:
    """The words in lines of that width."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)
