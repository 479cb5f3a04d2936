"""The service on Ray Serve, two nodes on this machine: a node killed under load, up, and down with open streams. Nothing is lost.

`make test-ray` runs this by itself: Ray starts a dozen processes.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from numbered_load import BITS, Load, frames
from redis_process import free_port, running_redis

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of its processes and their sockets

ray = pytest.importorskip("ray", reason="needs ray (make test-ray installs it)")
if os.environ.get("INDRNN_TEST_RAY") != "1":
    pytest.skip("starts a cluster: set INDRNN_TEST_RAY=1, or make test-ray", allow_module_level=True)
ROOT = Path(__file__).parents[2]
CORES = 2  # that the second node says it has; the head says one, so that of two replicas one is on the second
STREAMS = 16  # opened over three replicas: of a thousand runs one or two have none at the replica that ends
OPTIONS = {"min_replicas": "2", "max_replicas": "3", "sessions": "4", "recent": "5", "upscale_delay": "1", "downscale_delay": "2"}


class Clustered:
    """A cluster of two nodes with the service on it."""

    def __init__(self, url: str, cluster: Any, killed: Any) -> None:
        self.url, self.cluster, self.node = url, cluster, killed

    def replicas(self) -> dict[str, int]:
        """How many replicas there are of each state."""
        from ray import serve

        return dict(serve.status().applications["indrnn"].deployments["indrnn"].replica_states)

    def until(self, replicas: int, seconds: float = 60) -> None:
        """Wait until so many run, and none begins or ends."""
        deadline = time.monotonic() + seconds
        while self.replicas() != {"RUNNING": replicas}:
            assert time.monotonic() < deadline, f"{self.replicas()} in place of {replicas} replicas"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    from ray import serve
    from ray.cluster_utils import Cluster

    from indrnn.service.cluster import app

    folder = tmp_path_factory.mktemp("ray")
    with running_redis(folder) as redis, pytest.MonkeyPatch.context() as patch:
        own = {"INDRNN_STORE": redis.url, "INDRNN_BUNDLES": str(ROOT / "bundles"), "INDRNN_POLL": "0", "INDRNN_DRAIN_TIMEOUT": "1"}
        for name, value in {**own, **BITS}.items():
            patch.setenv(name, value)
        for name in ("INDRNN_DATA", "INDRNN_TEST_RAY"):
            patch.delenv(name, raising=False)
        patch.setenv("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-session-id")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_health_check_period_ms", "500")
        patch.setenv("RAY_health_check_failure_threshold", "3")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        other = cluster.add_node(num_cpus=CORES)
        try:
            ray.init(address=cluster.address, log_to_driver=False)
            port = free_port()
            serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
            serve.run(app(OPTIONS), name="indrnn")
            yield Clustered(f"http://127.0.0.1:{port}", cluster, other)
        finally:
            with contextlib.suppress(Exception):
                serve.shutdown()
            ray.shutdown()
            cluster.shutdown()


def test_x_session_id_goes_to_one_replica_and_any_other_answers_too(clustered: Clustered) -> None:
    with httpx.Client(base_url=clustered.url, timeout=30) as client:
        made = client.post("/sessions", json={"model": "action"})
        ident = made.json()["session_id"]
        assert made.headers["x-session-id"] == ident
        for step in range(1, 9):
            headers = {"x-session-id": ident} if step % 2 else {}
            body = {"sequences": [frames(step)], "session_id": ident, "step": step}
            reply = client.post("/predict", json=body, headers=headers)
            assert (reply.status_code, reply.json()["session"]["step"]) == (200, step)
            assert reply.headers.get("x-session-id") == headers.get("x-session-id")


def test_a_node_that_is_killed_under_load_loses_nothing(clustered: Clustered) -> None:
    load = Load(clustered.url, http=3, sockets=3, pace=0.01)
    load.go_on(20)
    clustered.cluster.remove_node(clustered.node, allow_graceful=False)
    load.go_on(20)
    clustered.node = clustered.cluster.add_node(num_cpus=CORES)
    clustered.until(2)
    load.go_on(10)
    load.finish()
    print(f"{load.steps} steps, {load.counts}")
    assert load.counts["repeats"], "nobody noticed"
    load.check(clustered.url)


def test_replicas_follow_the_sessions_that_step_and_not_the_streams_that_are_open(clustered: Clustered) -> None:
    asking = Load(clustered.url, http=10, sockets=0, pace=0.05)
    clustered.until(3)
    streams = Load(clustered.url, http=0, sockets=STREAMS, pace=0.1)
    streams.go_on(3)
    asking.finish()
    streams.going.clear()
    clustered.until(2)  # whose clients are asked no more
    streams.going.set()
    streams.go_on(3)
    streams.finish()
    for load in (asking, streams):
        print(f"{load.steps} steps, {load.counts}")
        load.check(clustered.url)
    assert streams.counts["repeats"], "no stream was at the replica that ended"
