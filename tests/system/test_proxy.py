"""Three services on one Redis behind nginx with TLS, each killed and started again under load: nothing is lost, nothing comes twice."""

import os
import re
import signal
from collections.abc import Iterator

import httpx
import pytest
from nginx_proxy import Proxied, proxy
from numbered_load import BITS, Load, frames
from redis_process import running_redis
from replica_process import Replica

pytestmark = pytest.mark.skipif(os.environ.get("INDRNN_TEST_REPLICAS") != "1", reason="takes a minute: set INDRNN_TEST_REPLICAS=1")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("proxied")
    with running_redis(folder) as redis:
        replicas = [Replica(folder, {"INDRNN_STORE": redis.url, **BITS}).start(wait=False) for _ in range(3)]
        try:
            with proxy(folder, replicas) as made:
                for replica in replicas:
                    replica.ready()
                yield made
                for replica in replicas:
                    assert replica.stop() in (0, -signal.SIGTERM), replica.log()
                    assert "Traceback" not in replica.log()
        finally:
            for replica in replicas:
                replica.kill()


def test_kill_9_of_one_replica_after_another_loses_nothing(proxied: Proxied) -> None:
    load = Load(proxied.url, http=4, sockets=4, trust=proxied.trust)
    for replica in proxied.replicas:
        load.go_on(20)
        replica.stop(signal.SIGKILL)
        load.go_on(10)  # by the others
        replica.start()
    load.go_on(20)
    load.finish()
    print(f"{load.steps} steps, {load.counts}")
    assert load.counts["repeats"], "nobody noticed"
    load.check(proxied.url, proxied.trust)


def test_replicas_that_are_stopped_as_an_operator_stops_them_lose_nothing(proxied: Proxied) -> None:
    load = Load(proxied.url, http=4, sockets=4, trust=proxied.trust)
    for replica in proxied.replicas:
        load.go_on(10)
        assert replica.stop() in (0, -signal.SIGTERM)
        replica.start()
    load.go_on(10)
    load.finish()
    print(f"{load.steps} steps, {load.counts}")
    load.check(proxied.url, proxied.trust)


def test_a_client_with_x_session_id_comes_to_one_replica_and_others_take_turns(proxied: Proxied) -> None:
    def applied() -> list[int]:
        found = [httpx.get(f"{replica.url}/metrics", timeout=20).text for replica in proxied.replicas]
        return [sum(int(float(n)) for n in re.findall(r"^indrnn_steps_total{[^}]*} (\S+)", text, re.MULTILINE)) for text in found]

    with httpx.Client(base_url=proxied.url, verify=proxied.trust, timeout=20) as client:
        for named in (True, False):
            ident = client.post("/sessions", json={"model": "action"}).json()["session_id"]
            headers, began = {"x-session-id": ident} if named else {}, applied()
            for step in range(1, 13):
                body = {"sequences": [frames(step)], "session_id": ident, "step": step}
                assert client.post("/predict", json=body, headers=headers).status_code == 200
            took = sorted(now - before for now, before in zip(applied(), began, strict=True))
            assert took == [0, 0, 12] if named else min(took) >= 2, took
