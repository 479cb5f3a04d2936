"""How many steps a second do 64 WebSocket clients get, one frame per step, store on, against a bare echo of the same messages?

python bench/stream.py [--clients 64] [--seconds 5] [--rounds 3]
"""

import argparse
import os
import platform
import sys
from pathlib import Path

import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench.server import free_port, running, service
from bench.websocket_load import load

ECHO = """
import sys, uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
app = FastAPI()
@app.websocket("/echo")
async def echo(ws: WebSocket):
    await ws.accept()
    try:
        while True:
            await ws.send_text(await ws.receive_text())
    except WebSocketDisconnect:
        pass
@app.get("/health/live")
async def live():
    return {}
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False, ws="websockets-sansio",
            ws_per_message_deflate=False)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    frame = np.random.default_rng(0).uniform(-1, 1, (20, 3)).round(3).tolist()
    message = {"type": "step", "frames": [frame]}
    rows = []
    echo_port = free_port()
    with running([sys.executable, "-c", ECHO, str(echo_port)], echo_port), service() as port:
        for _ in range(args.rounds):
            echoed, _ = load(echo_port, "/echo", None, message, args.clients, args.seconds)
            served, tally = load(port, "/stream/action", {"type": "open"}, message, args.clients, args.seconds)
            p50, p99 = (np.percentile(tally.latencies, [50, 99]) * 1e3).tolist()
            rows.append({"echo_per_s": echoed, "steps_per_s": served, "p50_ms": p50, "p99_ms": p99, "errors": tally.errors})
    print(f"{args.clients} clients, one frame of {len(orjson.dumps(message))} bytes per step, client and server on {os.cpu_count()} cores")
    print(f"{'echo /s':>10} {'steps /s':>10} {'ratio':>7} {'p50 ms':>8} {'p99 ms':>8} {'errors':>7}")
    for r in rows:
        ratio = r["steps_per_s"] / r["echo_per_s"]
        print(f"{r['echo_per_s']:10.0f} {r['steps_per_s']:10.0f} {ratio:7.2f} {r['p50_ms']:8.2f} {r['p99_ms']:8.2f} {r['errors']:7d}")
    best = max(rows, key=lambda r: r["steps_per_s"])
    print(orjson.dumps({"stream": {"clients": args.clients, "python": platform.python_version(), **best}}).decode())


if __name__ == "__main__":
    main()
