"""Two services on one Redis: what clients see of it, and what kills of a service or of Redis cost them. Nothing that was answered."""

import itertools
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Server, scores
from redis_process import RedisProcess, running_redis
from test_stream import ask, hear, hear_all, text_of

Start = Callable[..., Server]
Pair = tuple[Server, Server]
DEADLINE = 120.0  # seconds for a load to get through its disturbances
CLIENTS, STEPS, FRAMES = 8, 20, 3


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two services for all tests that hurt neither."""
    folders = [tmp_path_factory.mktemp(name) for name in ("redis", "one", "other")]
    with running_redis(folders[0]) as made:
        servers = [Server(folder, {"INDRNN_STORE": made.url}).start() for folder in folders[1:]]
        yield servers[0], servers[1]
        for server in servers:
            assert server.stop() in (0, -signal.SIGTERM), server.log()
            assert "Traceback" not in server.log()


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[RedisProcess]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with running_redis(folder) as made:
        yield made


@pytest.fixture
def own_pair(own_server: Start, redis_process: RedisProcess) -> Pair:
    return own_server(INDRNN_STORE=redis_process.url), own_server(INDRNN_STORE=redis_process.url)


def step_body(walk: list[Any], ident: str, step: int) -> dict[str, Any]:
    return {"sequences": [walk[FRAMES * (step - 1) : FRAMES * step]], "session_id": ident, "step": step, "top_k": 99}


def test_a_session_goes_through_both_and_ends_where_one_service_would(pair: Pair, walk: list[Any]) -> None:
    ident = pair[0].post("/sessions", {"model": "action"}).json()["session_id"]
    for step in range(1, STEPS + 1):
        here, there = pair[step % 2], pair[(step + 1) % 2]
        body = step_body(walk, ident, step)
        reply = here.post("/predict", body)
        assert reply.status_code == 200, reply.text
        assert there.post("/predict", body).content == reply.content
        assert there.get(f"/sessions/{ident}").json()["step"] == step
        gap = there.post("/predict", {**body, "step": step + 2})
        assert (gap.status_code, gap.json()["expected_step"]) == (409, step + 1)
    whole = pair[1].post("/predict", {"sequences": [walk], "top_k": 99}).json()["predictions"][0]
    assert scores(reply.json()["predictions"][0]) == pytest.approx(scores(whole), abs=1e-4)
    assert ident in [s["session_id"] for s in pair[1].get("/sessions").json()["sessions"]]
    assert httpx.delete(f"{pair[1].url}/sessions/{ident}").status_code == 204
    assert pair[0].get(f"/sessions/{ident}").status_code == 410


def test_a_step_sent_to_both_at_once_is_applied_once_and_answered_alike(pair: Pair, walk: list[Any]) -> None:
    ident = pair[0].post("/sessions", {"model": "action"}).json()["session_id"]
    with ThreadPoolExecutor(6) as pool:
        for step in range(1, STEPS + 1):
            body = step_body(walk, ident, step)
            replies = list(pool.map(lambda server, body=body: server.post("/predict", body), pair * 3))
            assert [r.status_code for r in replies] == [200] * 6, [r.text for r in replies]
            assert len({r.content for r in replies}) == 1
    assert pair[1].get(f"/sessions/{ident}").json()["position"] == FRAMES * STEPS


def test_a_generate_goes_on_at_the_other_service_while_the_first_still_runs_it(pair: Pair) -> None:
    wish = json.dumps({"type": "generate", "step": 1, "max_chars": 300, "seed": 5})
    with pair[0].socket("chars") as ws:
        ask(ws, type="open")
        ws.send(wish)
        undisturbed = text_of(hear_all(ws))
    with pair[0].socket("chars") as first, pair[1].socket("chars") as second:
        ident = ask(first, type="open")["session_id"]
        first.send(wish)
        began = [hear(first) for _ in range(10)]
        assert ask(second, type="open", session_id=ident)["step"] == 1
        second.send(wish)
        assert text_of(hear_all(second)) == undisturbed
        assert text_of(began + hear_all(first)) == undisturbed
    assert pair[1].get(f"/sessions/{ident}").json()["position"] == 300


class Load:
    """Clients that each take a session of their own through its steps, at whichever service answers, and repeat what was not answered."""

    def __init__(self, servers: Pair, walk: list[Any]) -> None:
        self._servers = servers
        self._walk = walk
        self.answers: list[dict[int, Any]] = [{} for _ in range(CLIENTS)]
        self.errors: set[str] = set()
        self.idents = [servers[0].post("/sessions", {"model": "action"}).json()["session_id"] for _ in range(CLIENTS)]
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._clients = [self._pool.submit(self._client, n) for n in range(CLIENTS)]

    def _client(self, n: int) -> None:
        deadline = time.monotonic() + DEADLINE
        chosen = itertools.cycle(self._servers)
        for step in range(1, STEPS + 1):
            while step not in self.answers[n]:
                assert time.monotonic() < deadline, f"client {n} is stuck at step {step}: {self.errors}"
                try:
                    reply = httpx.post(next(chosen).url + "/predict", json=step_body(self._walk, self.idents[n], step), timeout=20)
                except httpx.TransportError:
                    continue  # nobody is there, or left in the middle: the number makes a repeat safe
                if reply.status_code == 200:
                    self.answers[n][step] = reply.json()
                else:
                    self.errors.add(reply.json()["code"])
                    assert reply.status_code == 503, reply.text

    def reach(self, step: int) -> None:
        """Waits until some client has had the answer to a step."""
        deadline = time.monotonic() + DEADLINE
        while not any(step in a for a in self.answers):
            assert time.monotonic() < deadline, self.errors
            assert not any(c.done() and c.exception() for c in self._clients), self._clients

    def finish(self) -> None:
        for client in self._clients:
            client.result(DEADLINE)
        self._pool.shutdown()


def check_undisturbed(load: Load, servers: Pair, walk: list[Any]) -> None:
    """Every session is where its client's last answer says, and its scores after each step are those of a session that nobody disturbed."""
    twin = servers[0].post("/sessions", {"model": "action"}).json()["session_id"]
    for step in range(1, STEPS + 1):
        alone = servers[0].post("/predict", step_body(walk, twin, step)).json()["predictions"][0]
        for answer in load.answers:
            assert answer[step]["session"] == {**answer[step]["session"], "step": step, "position": FRAMES * step}
            assert scores(answer[step]["predictions"][0]) == pytest.approx(scores(alone), abs=1e-5)
    for ident in load.idents:
        stands = servers[1].get(f"/sessions/{ident}").json()
        assert (stands["step"], stands["position"]) == (STEPS, FRAMES * STEPS)


def test_kill_9_of_services_in_the_middle_of_load_loses_nothing(own_pair: Pair, walk: list[Any]) -> None:
    rng = random.Random(2)
    load = Load(own_pair, walk)
    for at, server in ((4, own_pair[0]), (9, own_pair[1]), (14, own_pair[0])):
        load.reach(at)
        threading.Event().wait(rng.uniform(0, 0.01))  # the kill falls anywhere between two answers
        server.restart(signal.SIGKILL)
    load.finish()
    check_undisturbed(load, own_pair, walk)


def test_kill_9_of_redis_in_the_middle_of_load_loses_nothing(own_pair: Pair, walk: list[Any], redis_process: RedisProcess) -> None:
    load = Load(own_pair, walk)
    for at in (4, 9, 14):
        load.reach(at)
        redis_process.kill()
        deadline = time.monotonic() + 30
        while (reply := own_pair[0].get("/health/ready")).status_code == 200:  # asked of the store at most once a second
            assert time.monotonic() < deadline, "ready without a store"
        assert (reply.status_code, reply.json()["code"], int(reply.headers["retry-after"])) == (503, "store_failed", 1)
        assert own_pair[0].get("/health/live").status_code == 200
        redis_process.start()
        while own_pair[0].get("/health/ready").status_code != 200:
            assert time.monotonic() < deadline, "not ready again"
    load.finish()
    assert load.errors <= {"store_failed", "overloaded"}
    check_undisturbed(load, own_pair, walk)
    assert "Traceback" not in own_pair[0].log()


def test_a_redis_that_is_not_durable_stops_the_start_with_one_line(own_server: Start, tmp_path: Path) -> None:
    with running_redis(tmp_path, "--appendfsync", "everysec") as weak:
        with pytest.raises(AssertionError) as refused:
            own_server(INDRNN_STORE=weak.url)
        assert f"indrnn: store {weak.url}: expected appendfsync always, got everysec" in str(refused.value)
        assert own_server(INDRNN_STORE=weak.url, INDRNN_STORE_DURABILITY="relaxed").get("/health/ready").status_code == 200
