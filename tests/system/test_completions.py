"""OpenAI's completions as the official client uses them."""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from ast import literal_eval
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from conftest import ROOT, Server
from test_readme import at, blocks
from test_stream import ask, hear_all, text_of

PROMPT = "The prince looked at the sky and said: "
Start = Callable[..., Server]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def create(client: openai.OpenAI, **wish: Any) -> Any:
    return client.completions.create(**{"model": "chars", "prompt": PROMPT, "max_tokens": 40, "seed": 3, **wish})


def test_the_models_that_complete_text_are_listed_and_no_others(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["chars"]
    model = client.models.retrieve("chars")
    assert (model.object, model.owned_by) == ("model", "indrnn")
    for name in ("action", "nope"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve(name)
        assert caught.value.code == "model_not_found"


def test_a_text_is_the_one_that_the_stream_generates_with_the_same_seed(server: Server, client: openai.OpenAI) -> None:
    wish: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9, "seed": 7}
    with server.socket("chars") as ws:
        ask(ws, type="open")
        ask(ws, type="step", text=PROMPT)
        ws.send(json.dumps({"type": "generate", "max_chars": 60, **wish}))
        generated = text_of(hear_all(ws))
    done = create(client, max_tokens=60, **wish)
    (choice,) = done.choices
    assert (choice.text, choice.index, choice.finish_reason, choice.logprobs) == (generated, 0, "length", None)
    assert (done.object, done.model) == ("text_completion", "chars")
    assert done.system_fingerprint.startswith("chars-2-")
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (len(PROMPT), 60, len(PROMPT) + 60)


def test_without_a_seed_texts_differ_and_without_temperature_they_do_not(client: openai.OpenAI) -> None:
    assert create(client, seed=openai.omit).choices[0].text != create(client, seed=openai.omit).choices[0].text
    sure = [create(client, seed=seed, temperature=0).choices[0].text for seed in (1, 2)]
    assert sure[0] == sure[1]


def test_a_streamed_text_is_the_whole_one_and_ends_with_reason_and_usage(client: openai.OpenAI) -> None:
    whole = create(client, n=2, logprobs=2, echo=True)
    text, reasons, tokens, usage = ["", ""], [[], []], [[], []], []  # type: ignore[var-annotated]
    for chunk in create(client, n=2, logprobs=2, echo=True, stream=True, stream_options={"include_usage": True}):
        usage.append(chunk.usage)
        for choice in chunk.choices:
            text[choice.index] += choice.text
            reasons[choice.index].append(choice.finish_reason)
            tokens[choice.index] += choice.logprobs.tokens
    assert text == [c.text for c in whole.choices]
    assert text[0] != text[1]
    assert tokens == [c.logprobs.tokens for c in whole.choices]
    assert all(r[-1] == "length" and not any(r[:-1]) and len(r) > 5 for r in reasons)
    assert usage[-1] == whole.usage
    assert not any(usage[:-1])


async def test_the_asyncio_client_runs_many_at_once(server: Server, client: openai.OpenAI) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as many:

        async def streamed(seed: int) -> str:
            chunks = await many.completions.create(model="chars", prompt=PROMPT, max_tokens=40, seed=seed, stream=True)
            return "".join([c.choices[0].text async for c in chunks])

        texts = await asyncio.gather(*(streamed(seed) for seed in range(12)))
    assert texts == [create(client, seed=seed).choices[0].text for seed in range(12)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_text_and_is_not_part_of_it(client: openai.OpenAI, stream: bool) -> None:
    free = create(client, max_tokens=200).choices[0].text
    stop = free[30:34]
    at = free.index(stop)
    answer = create(client, max_tokens=200, stop=[stop, "€"], stream=stream)
    chunks = list(answer) if stream else [answer]
    assert "".join(c.choices[0].text for c in chunks) == free[:at]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_several_prompts_are_answered_in_order_each_as_if_alone(client: openai.OpenAI) -> None:
    prompts = [PROMPT, "", "KING:\n"]
    together = create(client, prompt=prompts, n=2)
    assert [c.index for c in together.choices] == list(range(6))
    alone = [c.text for prompt in prompts for c in create(client, prompt=prompt, n=2).choices]
    assert [c.text for c in together.choices] == alone
    assert together.usage.prompt_tokens == len(PROMPT) + 6
    assert create(client, prompt=PROMPT, seed=4).choices[0].text == alone[1]


def test_numbers_are_places_in_the_alphabet(server: Server, client: openai.OpenAI) -> None:
    alphabet = server.get("/models/chars").json()["versions"][0]["alphabet"]
    numbers = [alphabet.index(c) for c in PROMPT]
    assert create(client, prompt=numbers).choices[0].text == create(client).choices[0].text
    assert create(client, prompt=[numbers, numbers[:5]], echo=True, max_tokens=0).choices[1].text == PROMPT[:5]


def test_echoed_log_probabilities_are_the_streams(server: Server, client: openai.OpenAI) -> None:
    with server.socket("chars") as ws:
        ask(ws, type="open")
        expected = [c["logprob"] for c in ask(ws, type="step", text=PROMPT)["chars"]]
    (choice,) = create(client, echo=True, logprobs=5, max_tokens=0).choices
    table = choice.logprobs
    assert (choice.text, choice.finish_reason) == (PROMPT, "length")
    assert table.tokens == list(PROMPT)
    assert table.text_offset == list(range(len(PROMPT)))
    assert (table.token_logprobs[0], table.top_logprobs[0]) == (None, None)
    assert table.token_logprobs[1:] == pytest.approx(expected[1:], abs=1e-4)
    for char, logprob, top in zip(PROMPT[1:], table.token_logprobs[1:], table.top_logprobs[1:], strict=True):
        assert top[char] == logprob
        assert len(top) == 5 or (len(top) == 6 and min(top, key=top.__getitem__) == char)
        assert sum(np.exp(list(top.values()))) <= 1 + 1e-5


def test_log_probabilities_of_drawn_characters_are_what_reading_them_gives(client: openai.OpenAI) -> None:
    drawn = create(client, logprobs=0).choices[0]
    read = create(client, prompt=PROMPT + drawn.text, echo=True, logprobs=0, max_tokens=0).choices[0]
    assert drawn.logprobs.token_logprobs == pytest.approx(read.logprobs.token_logprobs[len(PROMPT) :], abs=1e-4)
    assert drawn.logprobs.text_offset == read.logprobs.text_offset[len(PROMPT) :]
    assert [set(t) for t in drawn.logprobs.top_logprobs] == [{c} for c in drawn.text]


@pytest.mark.parametrize(
    ("wish", "param", "code", "said"),
    [
        ({"prompt": "5 € please"}, "prompt", "out_of_alphabet", "character '€' (U+20AC) at 2"),
        ({"prompt": ["a", "~"]}, "prompt[1]", "out_of_alphabet", "'~'"),
        ({"max_tokens": 5000}, "max_tokens", "invalid_input", "from 0 to 4096, got 5000"),
        ({"suffix": "the end"}, "suffix", "invalid_input", "not supported"),
        ({"frequency_penalty": 1}, "frequency_penalty", "invalid_input", "not supported"),
        ({"extra_body": {"top_k": 3}}, "top_k", "invalid_input", "unknown field"),
    ],
)
def test_bad_requests_are_told_in_openais_shape(client: openai.OpenAI, wish: dict[str, Any], param: str, code: str, said: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **wish)
    assert (caught.value.param, caught.value.code, caught.value.type) == (param, code, "invalid_request_error")
    assert said in caught.value.message


def test_every_error_under_v1_has_openais_shape_and_elsewhere_the_native_one(server: Server) -> None:
    replies = {
        400: httpx.post(f"{server.url}/v1/completions", content=b"{"),
        404: server.get("/v1/nothing"),
        405: server.get("/v1/completions"),
        413: server.post("/v1/completions", {"model": "chars", "prompt": "a" * 100_001}),
    }
    for code, reply in replies.items():
        assert (reply.status_code, reply.headers["content-type"]) == (code, "application/json")
        assert reply.json()["error"].keys() == {"message", "type", "param", "code"}
    assert server.post("/v1/completions", {"prompt": "a"}).json()["error"]["code"] == "model_not_found"
    assert "error" not in server.get("/nothing").json()


def test_a_full_queue_is_503_before_anything_is_streamed(own_server: Start) -> None:
    server = own_server(INDRNN_MAX_QUEUE="4")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        taken = [create(client, max_tokens=4096, stream=True) for _ in range(2)]
        texts = [iter(t) for t in taken]
        for t in texts:
            next(t)
        with pytest.raises(openai.InternalServerError) as caught:
            create(client, n=2, stream=True)
        assert (caught.value.status_code, caught.value.code) == (503, "overloaded")
        assert int(caught.value.response.headers["retry-after"]) >= 1
        for one in taken:
            one.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_takes_its_text_along(own_server: Start, stream: bool) -> None:
    server = own_server(INDRNN_MAX_QUEUE="8", INDRNN_MAX_GENERATE="100000000")
    wish = json.dumps({"model": "chars", "prompt": "a", "max_tokens": 100_000_000, "n": 4, "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(wish), wish))
        if stream:
            assert raw.recv(10).startswith(b"HTTP/1.1 2")
        until(lambda: refused(server), "the request does not take its places")
    until(lambda: not refused(server), "the places did not come back")


def refused(server: Server) -> bool:
    """Whether four more texts and their prompt find no place."""
    reply = server.post("/v1/completions", {"model": "chars", "prompt": "a", "max_tokens": 1, "n": 4})
    assert reply.status_code in (200, 503)
    return reply.status_code == 503


def until(true: Callable[[], bool], said: str) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, said


def test_a_client_that_does_not_read_is_dropped(own_server: Start) -> None:
    server = own_server(INDRNN_MAX_QUEUE="8", INDRNN_MAX_GENERATE="100000000", INDRNN_SEND_TIMEOUT="0.5", INDRNN_MAX_TEXT="900000000")
    size = {"prompt": "a" * 20_000, "echo": True, "logprobs": 5, "n": 4, "max_tokens": 100_000_000}  # more than what sockets hold
    wish = json.dumps({"model": "chars", "stream": True, **size}).encode()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", server.port))
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(wish), wish))
        until(lambda: refused(server), "the request does not take its places")
        until(lambda: not refused(server), "the places did not come back")


def test_completions_and_sessions_run_beside_each_other(server: Server, client: openai.OpenAI) -> None:
    expected = create(client).choices[0].text
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(create(client).choices[0].text)) for _ in range(8)]
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(server.socket("chars")) for _ in range(4)]
        for t in threads:
            t.start()
        results = []
        for ws in sockets:
            ask(ws, type="open")
            results.append([c["logprob"] for c in ask(ws, type="step", step=1, text=PROMPT)["chars"]])
        for t in threads:
            t.join(60)
    assert texts == [expected] * 8
    assert all(r == pytest.approx(results[0], abs=1e-4) for r in results)


def test_the_examples_of_the_documents_run(server: Server) -> None:
    (python,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/completions.md").read_text(), re.DOTALL)
    told = subprocess.run([sys.executable, "-c", at(server, python)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    chunks = re.findall(r"^([01]) ('.*'|\".*\")$", told.stdout, re.M)  # one holds what came since the last, so how many is not said
    drawn = {index: "".join(literal_eval(text) for i, text in chunks if i == index) for index, _ in chunks}
    assert {index: len(text) for index, text in drawn.items()} == {"0": 60, "1": 60}
    (curl,) = [b for b in blocks("bash") if "/v1/completions" in b]
    told = subprocess.run(["bash", "-ec", at(server, curl)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert len(json.loads(told.stdout)["choices"][0]["text"]) == 80
