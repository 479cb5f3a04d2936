"""bench/serve.py gone through in seconds: every row runs against the real service, and the last line holds what the table shows."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Server
from websockets.sync.server import ServerConnection, serve

sys.path.insert(0, str(ROOT))
from bench import http_load, load_tool, paced_load
from bench import server as bench_server
from bench.figure import Figure
from indrnn.service.oip import message

TINY = ["--seconds", "0.2", "--rounds", "1", "--sessions", "4", "--most-sessions", "6", "--idle", "64", "128", "192", "--max-time", "120"]


def ran(*options: str) -> tuple[list[str], dict[str, Any]]:
    """The lines of a run, and the last of them read."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("INDRNN_")}
    command = [sys.executable, "bench/serve.py", *TINY, *options]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return lines, json.loads(lines[-1])["serve"]


def test_every_row_is_measured_in_one_run_and_no_answer_is_an_error() -> None:
    lines, said = ran()
    found = said["figures"]
    redis = {"store_redis"} if shutil.which("redis-server") else set()
    named = "inference_1 inference_16 inference_64 stream_64 batch_64 store_sqlite live_p99 live_dropped live_limit idle_few idle_many"
    assert set(found) == set(named.split()) | redis
    assert said["left_out"] == []
    assert said["environment"]["store_filesystem"]
    assert not any(f.get("errors") for f in found.values())
    for name in ("inference_1", "inference_64", "stream_64", "batch_64", "live_p99"):
        assert found[name]["best"] > 0, name
    for name in ("store_sqlite", *redis):
        assert 0 < found[name]["own_percent"] <= found[name]["median"] * 1.01 < 101, name
        assert 0 < found[name]["commit_p50_ms"] <= found[name]["commit_p99_ms"]
        assert 1 <= found[name]["rows_per_commit"] <= 64
    assert found["live_dropped"]["median"] == 0
    assert found["live_p99"]["messages"] == 4 * max(1, round(0.2 * 6))
    assert sum("of received to replied" in line for line in lines) == 1 + len(redis)


def test_a_peer_sets_the_bars(server: Server) -> None:
    _, said = ran("--only", "stream", "inference", "--peer", f"127.0.0.1:{server.port}")
    found = said["figures"]
    assert found["inference_1"]["bar"] is None
    assert found["inference_16"]["bar"] == found["inference_16"]["peer"] > 0
    assert found["stream_64"]["bar"] == 2 * found["inference_64"]["peer"]
    assert found["stream_64"]["met"] is (found["stream_64"]["median"] >= found["stream_64"]["bar"])


def test_rows_without_time_are_named_and_not_measured() -> None:
    lines, said = ran("--max-time", "0")
    assert said["figures"] == {}
    assert said["left_out"] == ["inference", "stream", "batch", "store", "live", "idle"]
    assert lines[-2].startswith("no time for: inference, stream")


def test_the_named_load_tool_is_asked_and_its_words_are_read(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text(
        f'#!/bin/sh\necho "$LD_LIBRARY_PATH $@" >> {tmp_path}/asked\necho "    Throughput: 17.5 infer/sec\n    p50 latency: 1000 usec'
    )
    tool.write_text(tool.read_text() + '\n    p99 latency: 2000 usec"\n')
    tool.chmod(0o755)
    _, said = ran("--only", "inference", "--load-tool", str(tool), "--library-path", "/where")
    assert said["figures"]["inference_16"]["median"] == 17.5
    assert said["figures"]["inference_16"]["p99_ms"] == pytest.approx(2)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split("--concurrency-range ")[1].split()[0] for line in asked] == ["1", "16", "64"]
    assert all(line.startswith("/where ") and "--sequence-length 20" in line for line in asked)


def test_a_load_tool_whose_windows_never_agree_still_tells_its_last_ones() -> None:
    windows = "".join(
        f"  Pass [{i}] throughput: {rate} infer/sec. Avg latency: 7274 usec (std 7348 usec). \n" for i, rate in enumerate([9, 1, 2, 3])
    )
    said = load_tool.read(windows + "Failed to obtain stable measurement.")
    assert said is not None
    assert said.per_second == 2
    assert np.isnan(said.p50)
    assert load_tool.read("error: connection refused") is None


@pytest.mark.parametrize(("value", "bar", "more", "errors", "met"), [(5, 5, True, 0, True), (4, 5, True, 0, False), (6, 5, False, 0, False),
                                                                     (6, 5, True, 1, False), (6, None, True, 0, None)])  # fmt: skip
def test_the_median_has_to_clear_the_bar_and_an_error_misses_it(
    value: float, bar: float | None, more: bool, errors: int, met: bool | None
) -> None:
    best = 1e9 if more else 0
    figure = Figure("f", "f", "", [best, value, value], bar, more, details={"errors": errors})
    assert figure.best == best
    assert figure.met is met


def test_the_http_client_asks_for_whole_sequences_of_its_own() -> None:
    x = np.arange(60, dtype=np.float32).reshape(1, 1, 1, 20, 3)
    requests = iter(http_load.Requests("action", x, 3))
    seen = []
    for _ in range(6):
        head, _, body = next(requests).partition(b"\r\n\r\n")
        fields = dict(line.split(": ") for line in head.decode().split("\r\n")[1:])
        assert int(fields["Content-Length"]) == len(body)
        ask = message.read(body, int(fields["Inference-Header-Content-Length"]))
        assert ask.inputs[0].raw == x.tobytes()
        seen.append((ask.sequence, ask.start, ask.end))
    first, second = seen[0][0], seen[3][0]
    assert first != second
    assert seen == [(i, at == 0, at == 2) for i in (first, second) for at in range(3)]


@contextmanager
def answering(answer: Callable[[ServerConnection, int], None]) -> Iterator[bench_server.Server]:
    """A WebSocket server that does as it likes with each connection's n-th message."""

    def talk(connection: ServerConnection) -> None:
        for n, _ in enumerate(connection, 1):
            answer(connection, n)

    with serve(talk, "127.0.0.1", 0, compression=None) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield bench_server.Server(listening.socket.getsockname()[1], os.getpid(), Path())
        finally:
            listening.shutdown()
            thread.join(10)


def seen_of(answer: Callable[[ServerConnection, int], None], sessions: int, period: float, seconds: float) -> paced_load.Seen:
    with answering(answer) as server:
        return asyncio.run(paced_load._follow(paced_load.Plan(server, "/", None, [], sessions, period, seconds)))


def test_messages_without_an_answer_and_answers_that_are_errors_are_dropped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced_load, "PATIENCE", 0.2)

    def answer(connection: ServerConnection, n: int) -> None:
        if n == 3:
            connection.send('{"type":"error","code":"overloaded"}')
        elif n < 3:
            connection.send("{}")

    seen = seen_of(answer, sessions=3, period=0.02, seconds=0.1)
    assert (seen.sent, seen.errors, seen.missing) == (15, 3, 6)
    assert seen.dropped == 9


def test_a_server_that_stalls_is_late_for_every_message_that_was_due_meanwhile() -> None:
    def answer(connection: ServerConnection, n: int) -> None:
        if n == 1:
            time.sleep(0.4)  # the stall that is to be seen
        connection.send("{}")

    seen = seen_of(answer, sessions=1, period=0.02, seconds=0.6)
    assert seen.dropped == 0
    assert (seen.latencies > 0.1).sum() >= 10  # a client that waits for each answer would count one


def test_a_client_that_stalls_counts_against_the_server_and_says_so() -> None:
    async def follow(plan: paced_load.Plan) -> paced_load.Seen:
        asyncio.get_running_loop().call_later(0.2, time.sleep, 0.4)  # the stall that is to be seen
        return await paced_load._follow(plan)

    with answering(lambda connection, _: connection.send("{}")) as server:
        seen = asyncio.run(follow(paced_load.Plan(server, "/", None, [], 1, 0.02, 1)))
    assert (seen.lateness > 0.1).sum() >= 10
    assert (seen.latencies > 0.1).sum() >= 10
