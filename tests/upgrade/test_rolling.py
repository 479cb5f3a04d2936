"""Three services of 0.1.0 on one Redis become this version one after another, under load: nothing is lost, nothing comes twice."""

import os
import signal
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from nginx_proxy import proxy
from numbered_load import BITS, Load
from redis_process import running_redis
from replica_process import ROOT, SERVE, Replica

pytestmark = pytest.mark.skipif(os.environ.get("INDRNN_TEST_REPLICAS") != "1", reason="takes a minute: set INDRNN_TEST_REPLICAS=1")
OLD = "f1f9fca"  # release 0.1.0


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of 0.1.0, its kernel built."""
    packed = subprocess.run(["git", "archive", OLD], cwd=ROOT, capture_output=True)
    if packed.returncode:
        pytest.skip(f"needs the history of the repository: {packed.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    env = {**os.environ, "PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, "-m", "kernels"], cwd=folder, env=env, check=True, capture_output=True)
    return folder


def test_a_rolling_upgrade_loses_nothing(old: Path, tmp_path: Path) -> None:
    with running_redis(tmp_path) as redis:
        env = {"INDRNN_STORE": redis.url, "INDRNN_BUNDLES": str(old / "bundles"), **BITS}  # first the code, then the bundles
        replicas = [Replica(tmp_path, env, ("-m", "service"), old).start(wait=False) for _ in range(3)]
        try:
            with proxy(tmp_path, replicas) as proxied:
                for replica in replicas:
                    replica.ready()
                load = Load(proxied.url, http=4, sockets=4, trust=proxied.trust)
                for replica in replicas:
                    load.go_on(20)
                    assert replica.stop() in (0, -signal.SIGTERM), replica.log()
                    replica.command, replica.checkout = SERVE, ROOT
                    replica.start()
                load.go_on(20)
                replicas[0].stop(signal.SIGKILL)  # then the new bundles: a second version of both models stands beside the first
                replicas[0].env = {**env, "INDRNN_BUNDLES": str(ROOT / "bundles")}
                replicas[0].start()
                load.go_on(20)
                versions = [m["version"] for m in httpx.get(f"{replicas[0].url}/models/action", timeout=20).json()["versions"]]
                assert versions == ["1", "2"]
                load.finish()
                print(f"{load.steps} steps, {load.counts}")
                load.check(replicas[1].url, near=2e-6)  # 0.1.0 does not round
        finally:
            for replica in replicas:
                replica.kill()
