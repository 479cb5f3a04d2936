"""What a span costs a step: the service without OpenTelemetry, with it, and with one trace of a hundred sampled, in turns in one run.

    python bench/tracing.py [--rounds 6] [--seconds 2]

64 WebSockets, a frame a step, each stored before its answer. Spans go by OTLP over HTTP to a collector here, which throws them away.
Processor time is the service's, all its threads, a step. Needs the packages of `indrnn[otel]`.
"""

import argparse
import sys
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

import orjson

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import websocket_load
from bench.asked import MANY, OPEN, frames
from bench.server import service

SAMPLED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}


class Sink(BaseHTTPRequestHandler):
    """A collector that throws away what it gets."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2, help="of one measurement")
    args = parser.parse_args()
    sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    on = {"INDRNN_OTEL": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink.server_port}"}
    found: dict[str, list[tuple[float, float]]] = {"off": [], "every step": [], "one of a hundred": []}
    with ExitStack() as stack:
        envs = zip(found, ({}, on, {**on, **SAMPLED}), strict=True)
        servers = {name: stack.enter_context(service(env=env)) for name, env in envs}
        message = websocket_load.steps(frames(1))
        for _ in range(args.rounds):
            for name, server in servers.items():
                before = server.cpu_seconds()
                rate, tally = websocket_load.load(server.port, "/stream/action", OPEN, message, MANY, args.seconds)
                assert not tally.errors, name
                found[name].append((rate, (server.cpu_seconds() - before) / tally.replies))
    said = {}
    for name, runs in found.items():
        rates = median(rate / off for (rate, _), (off, _) in zip(runs, found["off"], strict=True))
        cpus = median(cpu / off for (_, cpu), (_, off) in zip(runs, found["off"], strict=True))
        rate, cpu = median(r for r, _ in runs), median(c for _, c in runs) * 1e6
        said[name] = {"steps_per_second": rate, "cpu_us": cpu, "rate_ratio": rates, "cpu_ratio": cpus}
        print(f"{name:18} {rate:8.0f} steps/s {cpu:6.0f} µs processor a step; against off {rates:.2f}, {cpus:.2f}")
    print(orjson.dumps({"tracing": said}).decode())


if __name__ == "__main__":
    main()
