"""The Python client against the real service, through connections that are cut, servers that are killed, and callers that leave."""

import asyncio
import itertools
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, ROOT, Server
from cutter import Cutter, cutting
from test_readme import at

from indrnn.client import aio, sync
from indrnn.client.answers import Result
from indrnn.client.errors import BadInput, DeadlineExceeded, NotFound, Refused, SessionExpired, StepConflict, StepGap, Unanswered

TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n"
PIECES = [TEXT[i : i + 2] for i in range(0, len(TEXT), 2)]
WISH: dict[str, Any] = {"max_chars": 60, "temperature": 0.8, "seed": 5}
Start = Callable[..., Server]


@pytest.fixture
def client(server: Server) -> Iterator[sync.Client]:
    with sync.Client(server.url) as made:
        yield made


def logprobs(results: list[Result]) -> list[float]:
    return [c.logprob for r in results for c in r.chars]


def undisturbed(client: sync.Client) -> tuple[list[float], str, list[float]]:
    """Log-probabilities of the pieces, then a generate and its own."""
    with client.session("chars") as session:
        results = [session.step(piece) for piece in PIECES]
        chars = list(session.generate(**WISH))
        return logprobs(results), "".join(c.char for c in chars), [c.logprob for c in chars]


@pytest.mark.parametrize("seed", range(4))
def test_through_cut_connections_every_step_is_applied_once_with_the_same_numbers(client: sync.Client, server: Server, seed: int) -> None:
    steps, text, drawn = undisturbed(client)
    with cutting(server.port, seed) as cutter, sync.Client(cutter.url) as disturbed, disturbed.session("chars") as session:
        results = [session.step(piece) for piece in PIECES]
        chars = list(session.generate(**WISH))
        last = session.step("x")
        assert cutter.cuts > 5
        assert [r.step for r in results] == list(range(1, len(PIECES) + 1))
        assert (session.number, last.step, last.position) == (len(PIECES) + 2, len(PIECES) + 2, len(TEXT) + 61)
        there = client.look(session.id)
    assert (there.step, there.position) == (last.step, last.position)
    assert logprobs(results) == pytest.approx(steps, abs=1e-4)
    assert "".join(c.char for c in chars) == text
    assert [c.logprob for c in chars] == pytest.approx(drawn, abs=1e-4)


async def test_many_asyncio_sessions_through_cut_connections(client: sync.Client, server: Server) -> None:
    steps, text, _ = undisturbed(client)

    async def one(disturbed: aio.Client) -> tuple[list[Result], str]:
        async with disturbed.session("chars") as session:
            results = [await session.step(piece) for piece in PIECES]
            chars = [c.char async for c in session.generate(**WISH)]
            assert (session.number, session.position) == (len(PIECES) + 1, len(TEXT) + 60)
            return results, "".join(chars)

    with cutting(server.port, 7) as cutter:
        async with aio.Client(cutter.url) as disturbed:
            answers = await asyncio.gather(*(one(disturbed) for _ in range(10)))
        assert cutter.cuts > 50
    for results, generated in answers:
        assert logprobs(results) == pytest.approx(steps, abs=1e-4)
        assert generated == text


def test_frames_in_numbered_requests_through_cut_connections(client: sync.Client, server: Server, walk: list[Any]) -> None:
    whole = client.predict([walk], top_k=99).predictions[0]
    with cutting(server.port, 3, 3_000, 20_000) as cutter, sync.Client(cutter.url) as disturbed:
        ident = disturbed.new_session("action").session_id
        for step in range(1, 31):
            frames = walk[2 * step - 2 : 2 * step]
            answer = disturbed.predict([frames], session_id=ident, step=step, top_k=99)
        assert cutter.cuts > 5
        assert (answer.step, answer.position) == (30, 60)
        assert dict(answer.predictions[0].top) == pytest.approx(dict(whole.top), abs=1e-4)
        assert ident in [s.session_id for s in disturbed.sessions()]
        disturbed.delete(ident)
    with pytest.raises(SessionExpired):
        client.look(ident)


class Killer:
    """Ends the server in the middle of what a client does: a moment after every so many of its answers; and starts it anew."""

    def __init__(self, server: Server, cutter: Cutter, how: int) -> None:
        self.kills = 0
        self._server, self._cutter, self._how = server, cutter, how
        self._random = Random(how)
        self._answers = threading.Semaphore(0)
        self._over = False
        self._thread = threading.Thread(target=self._run)

    def answered(self) -> None:
        self._answers.release()

    def _run(self) -> None:
        while True:
            for _ in range(self._random.randint(15, 30)):
                self._answers.acquire()
                if self._over:
                    return
            threading.Event().wait(self._random.uniform(0, 0.01))  # anywhere within the next steps
            self._server.restart(self._how)
            self._cutter.target = self._server.port
            self.kills += 1

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._answers.release()
        self._thread.join(60)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_client_goes_on_while_its_server_is_ended_again_and_again(own_server: Start, how: int) -> None:
    server = own_server()
    with sync.Client(server.url) as direct:
        steps, text, drawn = undisturbed(direct)
    with cutting(server.port) as cutter, sync.Client(cutter.url) as client, client.session("chars") as session:
        cutter.gentle = True
        results, chars = [], []
        with Killer(server, cutter, how) as killer:
            for piece in PIECES:
                results.append(session.step(piece))
                killer.answered()
            at_steps = killer.kills
            for char in session.generate(**WISH):
                chars.append(char)
                killer.answered()
        assert killer.kills > at_steps >= 1
        last = session.step("x")
        assert (last.step, last.position) == (len(PIECES) + 2, len(TEXT) + 61)
    assert logprobs(results) == pytest.approx(steps, abs=1e-4)
    assert "".join(c.char for c in chars) == text
    assert [c.logprob for c in chars] == pytest.approx(drawn, abs=1e-4)


def test_a_deadline_is_kept_and_the_same_call_finds_out_what_became_of_the_step(own_server: Start) -> None:
    server = own_server()
    with cutting(server.port) as cutter, sync.Client(cutter.url) as client, client.session("chars") as session:
        cutter.gentle = True
        session.step("a")
        server.stop(signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            session.step("b", timeout=1.5)
        assert 1.4 < time.monotonic() - began < 10
        with pytest.raises(Unanswered):
            session.step("c")
        with pytest.raises(DeadlineExceeded):
            client.predict([], timeout=0.5)
        server.start()
        cutter.target = server.port
        assert session.step("b").position == 2
        assert session.step("c").position == 3


def test_a_server_that_says_nothing_does_not_hold_a_caller() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with sync.Client(url, timeout=1) as client:
            with pytest.raises(DeadlineExceeded):
                client.session("chars")
            with pytest.raises(DeadlineExceeded):
                client.models()
        assert time.monotonic() - began < 20


def test_a_server_that_no_longer_reads_does_not_hold_a_caller(server: Server) -> None:
    with cutting(server.port) as cutter, sync.Client(cutter.url, timeout=1) as client, client.session("chars") as session:
        cutter.gentle = cutter.frozen = True
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            session.step("x" * 30_000_000)  # more than sockets hold
        with pytest.raises(DeadlineExceeded):
            client.predict(["x" * 30_000_000])
        assert time.monotonic() - began < 20


async def test_a_server_that_no_longer_reads_does_not_hold_a_task(server: Server) -> None:
    with cutting(server.port) as cutter:
        async with aio.Client(cutter.url, timeout=1) as client, client.session("chars") as session:
            cutter.gentle = cutter.frozen = True
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await session.step("x" * 30_000_000)
            with pytest.raises(DeadlineExceeded):
                await client.predict(["x" * 30_000_000])
            assert time.monotonic() - began < 20


async def test_a_cancelled_task_leaves_a_step_that_the_same_call_finishes(own_server: Start) -> None:
    server = own_server()
    with cutting(server.port) as cutter:
        cutter.gentle = True
        async with aio.Client(cutter.url) as client, client.session("chars") as session:
            assert (await session.step("a")).position == 1
            server.stop(signal.SIGKILL)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await session.step("b")
            with pytest.raises(Unanswered):
                await session.step("c")
            await asyncio.to_thread(server.start)
            cutter.target = server.port
            assert (await session.step("b")).position == 2


async def test_a_task_that_is_cancelled_while_it_waits_for_a_character_may_go_on(server: Server) -> None:
    async with aio.Client(server.url) as client, client.session("chars") as session:
        generation, five = session.generate(max_chars=4000, seed=1), asyncio.Event()

        async def read() -> None:
            async for _ in generation:
                if len(generation.text) == 5:
                    five.set()

        task = asyncio.create_task(read())
        await five.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Unanswered):
            await session.step("x")
        again = session.generate(max_chars=4000, seed=1)
        async for _ in again:
            if len(again.text) == len(generation.text) + 10:
                break
        assert again.text.startswith(generation.text)
        assert (await session.step("x")).step == 2  # the rest is cancelled
        assert again.reason == "cancelled"
        assert session.position == len(again.text) + 1


def test_a_generate_that_is_left_is_cancelled_by_the_next_call_and_its_text_is_what_was_consumed(client: sync.Client) -> None:
    with client.session("chars") as session:
        generation = session.generate(max_chars=4000, seed=2)
        first = [c.char for c in itertools.islice(generation, 10)]
        result = session.step("x")
        assert (generation.reason, result.step) == ("cancelled", 2)
        assert generation.text.startswith("".join(first))
        assert result.position == len(generation.text) + 1 < 4000


def test_cancel_from_another_thread_ends_the_iteration(client: sync.Client) -> None:
    with client.session("chars") as session:
        generation = session.generate(max_chars=4000, seed=2)
        for i, _ in enumerate(generation):
            if i == 20:
                thread = threading.Thread(target=session.cancel)
                thread.start()
                thread.join(10)
        assert generation.reason == "cancelled"
        assert 20 < len(generation.text) == session.position < 4000


def test_a_pending_generate_is_gone_on_with_by_another_process(client: sync.Client) -> None:
    with client.session("chars") as session:
        whole = "".join(c.char for c in session.generate(**WISH))
    session = client.session("chars")
    list(itertools.islice(session.generate(**WISH), 7))
    session._socket.close_socket()  # type: ignore[union-attr]  # as if the process had died
    ident, pending = session.id, None
    end = time.monotonic() + 20
    while pending is None or not pending.text:
        assert time.monotonic() < end
        with client.session("chars", ident) as later:
            pending = later.pending
    with client.session("chars", ident) as later:
        assert later.pending is not None
        assert "".join(c.char for c in later.generate(**WISH, number=later.pending.step)) == whole
    session.close()


def test_watched_neurons_options_and_errors_come_as_the_server_says(client: sync.Client, walk: list[Any]) -> None:
    with client.session("action", every=True, top_k=3, layout="utd20", hz=30) as session:
        layers = session.watch()
        result = session.step(np.array(walk[:4]))
        assert result.states is not None
        states = np.frombuffer(result.states.data, "<f2").reshape(result.states.shape)
        assert states.shape == (4, sum(layer.size for layer in layers))
        assert len(result.predictions[0].top) == 3
        assert np.shape(result.scores) == (4, CLASSES)
        with pytest.raises(BadInput) as bad:
            session.step([[[0, 0, 0]]])
        assert (bad.value.code, bad.value.field) == ("invalid_input", "frames[0]")
        with pytest.raises(StepGap) as gap:
            session.step(walk[4:5], number=9)
        assert gap.value.expected_step == 2
        with pytest.raises(StepConflict):
            session.step(walk[4:5], number=1)
        assert session.step(walk[4:5]).step == 2
        with client.session("action", session.id) as other, pytest.raises(Refused):
            other.step("text")
        session.delete()
    with pytest.raises(SessionExpired):
        client.session("action", session.id)
    with pytest.raises(NotFound):
        client.session("nope")
    with pytest.raises(NotFound):
        client.session("chars", "A" * 28)
    with pytest.raises(Refused) as refused, sync.Client(f"{client.server.url}/nowhere") as elsewhere:
        elsewhere.session("chars")
    assert refused.value.status in (403, 404)


async def test_why_a_server_closes_at_once_is_told(own_server: Start, server: Server) -> None:
    full = own_server(INDRNN_MAX_CONNECTIONS="1")
    async with aio.Client(server.url) as client:
        for _ in range(20):
            with pytest.raises(NotFound):
                await client.session("nope")
    with sync.Client(server.url) as blocking:
        for _ in range(20):
            with pytest.raises(NotFound):
                blocking.session("nope")
    async with aio.Client(full.url, timeout=1) as client, client.session("chars") as session:
        with pytest.raises(DeadlineExceeded):
            await client.session("chars")
        assert (await session.step("x")).step == 1


def test_models_are_listed(client: sync.Client) -> None:
    assert {m["name"] for m in client.models()} == {"action", "chars"}


def test_the_examples_of_its_readme_run(server: Server) -> None:
    text, frames = re.findall(r"```python\n(.*?)```", (ROOT / "client/README.md").read_text(), re.DOTALL)
    ran = [
        subprocess.run([sys.executable, "-c", at(server, example)], cwd=ROOT, capture_output=True, text=True, timeout=60)
        for example in (text, frames)
    ]
    assert [done.returncode for done in ran] == [0, 0], [done.stderr for done in ran]
    written = ran[0].stdout.splitlines()
    assert written[0].startswith("['")
    ident, number, position = written[-1].split()[-3:]
    assert (number, len(ident)) == ("2", 28)
    assert int(position) > 42
    told = ran[1].stdout.splitlines()
    assert told[-2].startswith("6 72 Label(label='wave'")
    gone = re.findall(r"session_id='([^']{28})'", told[-1])[0]
    assert server.get(f"/sessions/{gone}").status_code == 410
