"""A service of a front and two engine's processes, each killed under load: its own sessions wait, the others do not notice; then three."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from test_fronts import Client, Processes, answered, check, counted, state_of, until

from indrnn.service.session.shard import shard_of
from indrnn.service.store.shards import bring_to, read_map
from indrnn.service.store.sqlite import SQLiteStore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
HANG = 3.0
TEXTS = ["the cat", "a dog", "many words"]
STEPS = 30


class Sharded(Processes):
    """The service, and how many shards it has."""

    shards = 2

    def is_whole(self) -> bool:
        """Whether all processes are there, and the service is ready."""
        return set(self.pids()) == {"front-0", *(f"engine-{k}" for k in range(self.shards))} and self.ready()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sharded]:
    settings = {"INDRNN_FRONTS": "1", "INDRNN_SHARDS": "2", "INDRNN_HANG_TIMEOUT": str(HANG), "INDRNN_POLL": "0"}
    with Sharded(tmp_path_factory.mktemp("shards"), settings).to_the_end() as made:
        yield made


@pytest.fixture
def server(service: Sharded) -> Sharded:
    return service.whole()


def load(server: Sharded) -> tuple[list[Client], list[Client]]:
    """Clients that step, of the first shard and of the second."""
    parted: tuple[list[Client], list[Client]] = ([], [])
    while any(len(clients) < len(TEXTS) for clients in parted):
        client = Client(server, [f"{TEXTS[0]} {n}"[: 3 + n % 6] for n in range(STEPS)])
        of_shard = parted[shard_of(client.session, 2)]
        if len(of_shard) < len(TEXTS):
            client.texts = [f"{TEXTS[len(of_shard)]} {n}"[: 3 + n % 6] for n in range(STEPS)]
            of_shard.append(client)
    for client in (*parted[0], *parted[1]):
        client.start()
    return parted


@pytest.mark.parametrize("shard", [1, 0])
def test_an_engine_that_is_killed_costs_its_own_sessions_a_repeat_and_the_others_nothing(server: Sharded, shard: int) -> None:
    before = counted(server, "indrnn_steps_total")
    both = load(server)
    of_killed, of_other = both[shard], both[1 - shard]
    until(lambda: answered(of_killed) > 10)
    assert shard == 0 or counted(server, "indrnn_steps_total") > before
    old = server.kill(f"engine-{shard}")
    until(lambda: httpx.get(f"{server.url}/health/ready", timeout=10).status_code == 503, 5)
    assert httpx.get(f"{server.url}/health/live", timeout=10).status_code == 200
    so_far = counted(server, "indrnn_steps_total") if shard else 0.0
    until(lambda: server.pids().get(f"engine-{shard}", old) != old)
    for client in (*of_killed, *of_other):
        client.join(60)
    assert answered([*of_killed, *of_other]) == 2 * len(TEXTS) * STEPS
    assert all(client.again == 0 for client in of_other), "they never heard of it"
    assert sum(client.again for client in of_killed) > 0
    until(server.is_whole)
    assert counted(server, "indrnn_steps_total") >= so_far
    check(server, [of_killed[0], of_other[0]])
    listed = {one["session_id"] for one in server.get("/sessions").json()["sessions"]}
    assert {client.session for client in (*of_killed, *of_other)} <= listed


def test_an_engine_that_gives_no_sign_of_life_is_killed_while_the_other_goes_on(server: Sharded) -> None:
    both = load(server)
    old = server.kill("engine-1", signal.SIGSTOP)
    some = min(answered(both[0]) + 5, len(TEXTS) * STEPS)
    until(lambda: answered(both[0]) >= some)
    assert state_of(old) == "T", "the other goes on before it is killed"
    for client in both[0]:
        client.join(30)
    until(lambda: server.pids().get("engine-1", old) != old, HANG * 5)
    for client in both[1]:
        client.join(60)
    assert answered([*both[0], *both[1]]) == 2 * len(TEXTS) * STEPS
    assert all(client.again == 0 for client in both[0])


def test_sessions_go_on_with_another_number_of_shards_and_in_a_copy(server: Sharded) -> None:
    store = server.folder / "sessions.db"
    both = load(server)
    clients = [*both[0], *both[1]]
    for client in clients:
        client.join(60)
    copy = server.folder / "copy.db"
    env = {key: value for key, value in os.environ.items() if not key.startswith("INDRNN_")} | {"INDRNN_STORE": str(store)}
    subprocess.run([sys.executable, "-m", "indrnn", "backup", str(copy)], env=env, check=True, timeout=60)
    pids = list(server.pids().values())
    assert server.stop() in (0, -signal.SIGTERM)
    assert [pid for pid in pids if state_of(pid)] == []
    server.env["INDRNN_SHARDS"], server.shards = "3", 3
    server.start()
    try:
        until(server.is_whole)
        for client in clients:
            assert server.get(f"/sessions/{client.session}").json()["step"] == STEPS
        check(server, [both[0][0]])
    finally:
        pids = list(server.pids().values())
        server.stop(signal.SIGKILL)
        until(lambda: all(state_of(pid) in ("", "Z") for pid in pids), 10)
        server.env["INDRNN_SHARDS"], server.shards = "2", 2
    there, copied = read_map(store), read_map(copy)
    assert there is not None
    assert copied is not None
    assert (there.shards, copied.shards) == (3, 2)
    bring_to(copy, 1)
    held = SQLiteStore(copy)
    assert {i: one.step for i, one in held.load([client.session for client in clients]).items()} == {c.session: STEPS for c in clients}
    held.close()
