"""What Ray costs a request: one service on a Redis, and one replica on Ray Serve on that Redis, asked in turns in one run.

    python bench/on_ray.py [--rounds 5] [--seconds 2]

`POST /predict` in sessions, a frame a step, stored before its answer, by 1 and by 16 clients. Needs the packages of `indrnn[ray]`, and
redis-server. Processor time is of the service, and of Ray's proxy and replica, a step.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from statistics import median

import httpx
import orjson

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.asked import frames
from bench.server import ROOT, TICKS, free_port, redis_server, service

CLIENTS = (1, 16)


def steps(url: str, until: float) -> list[float]:
    """Seconds of each step of one client."""
    took = []
    with httpx.Client(base_url=url, timeout=30) as client:
        ident = client.post("/sessions", json={"model": "action"}).json()["session_id"]
        body = {"sequences": [frames(1)], "session_id": ident, "step": 0}
        while time.perf_counter() < until:
            body["step"] = int(str(body["step"])) + 1
            sent, began = orjson.dumps(body), time.perf_counter()
            client.post("/predict", content=sent, headers={"x-session-id": ident}).raise_for_status()
            took.append(time.perf_counter() - began)
    return took


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time of these processes so far."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(f[11]) + int(f[12]) for f in fields) / TICKS


def serve_processes() -> list[int]:
    """Ray's proxy and replica of this machine, as they name themselves."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name = line.read_bytes()
        except OSError:
            continue
        if name.startswith((b"ray::ServeReplica", b"ray::ProxyActor")):
            found.append(int(line.parent.name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of one measurement")
    args = parser.parse_args()
    import ray
    from ray import serve

    from indrnn.service.cluster import app

    with redis_server() as store:
        os.environ |= {"INDRNN_STORE": store, "INDRNN_BUNDLES": str(ROOT / "bundles"), "INDRNN_POLL": "0", "PYTHONPATH": str(ROOT)}
        port = free_port()
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app({"max_replicas": "1"}), name="indrnn")
        with service(env={"INDRNN_STORE": store}) as alone:
            measured = {"service": (f"http://127.0.0.1:{alone.port}", [alone.pid]), "ray": (f"http://127.0.0.1:{port}", serve_processes())}
            found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
            for _ in range(args.rounds):
                for clients in CLIENTS:
                    for name, (url, pids) in measured.items():
                        before, until = cpu_seconds(pids), time.perf_counter() + args.seconds
                        with ThreadPoolExecutor(clients) as pool:
                            took = list(chain.from_iterable(pool.map(steps, [url] * clients, [until] * clients)))
                        cpu = (cpu_seconds(pids) - before) / len(took)
                        found.setdefault((name, clients), []).append((len(took) / args.seconds, median(took), cpu))
        serve.shutdown()
        ray.shutdown()
    said = {}
    for (name, clients), runs in found.items():
        rate, p50, cpu = (median(run[i] for run in runs) for i in range(3))
        said[f"{name}_{clients}"] = {"steps_per_second": rate, "p50_ms": p50 * 1e3, "cpu_us": cpu * 1e6}
        print(f"{name:8} {clients:3} clients {rate:7.0f} steps/s, p50 {p50 * 1e3:.2f} ms, {cpu * 1e6:.0f} µs processor a step")
    print(orjson.dumps({"ray": said}).decode())


if __name__ == "__main__":
    main()
