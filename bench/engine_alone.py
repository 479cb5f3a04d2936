"""How many steps does an engine's process take, fed over its socket and asked by nobody else?

python bench/engine_alone.py [--groups 4] [--rows 32] [--seconds 3] [--rounds 3] [--model action]

The engine's process is a child, with a store of its own in a temporary folder; this one is its front: `groups` times `rows` sessions, each
group's next steps sent when its last were answered. Processor time is of the child, all its threads, a step.
"""

import argparse
import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench.figure import Figure, table
from indrnn.service.engine.requests import CreateRequest, Exact, Frames, StepRequest
from indrnn.service.link.front import FrontBackend
from indrnn.service.session.machine import Result
from indrnn.service.settings import Settings
from indrnn.service.supervisor import LINK


def processor_time(pid: int) -> float:
    """Seconds that all threads of a process have run."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


async def feed(front: FrontBackend, model_name: str, groups: int, rows: int, seconds: float) -> int:
    """Step all sessions for so long, and return how many steps were answered."""
    model = front.models.latest(model_name)
    made = [a.reply for a in await front.tickets.ask_all(model.port, [CreateRequest("") for _ in range(groups * rows)])]
    idents = [reply.session.id for reply in made]  # type: ignore[union-attr]  # Created
    sample = np.random.default_rng(0).normal(size=(1, model.manifest.persons or 1, 20, 3)).astype(np.float32)
    content = Frames(sample, None, whole=True) if model.manifest.modality == "skeleton" else Exact(np.zeros(1, np.int64))
    until, answered = time.perf_counter() + seconds, 0

    async def group(mine: list[str]) -> None:
        nonlocal answered
        number = 0
        while time.perf_counter() < until:
            number += 1
            requests = [StepRequest(i, "", number, secrets.token_bytes(16), content, protocol="stream", tell_state=False) for i in mine]
            replies = await front.tickets.ask_all(model.port, requests)
            assert all(isinstance(one.reply, Result) and one.reply.number == number for one in replies)
            answered += len(replies)

    await asyncio.gather(*(group(idents[at : at + rows]) for at in range(0, len(idents), rows)))
    return answered


async def measure(arguments: argparse.Namespace, pid: int, line: socket.socket) -> tuple[list[float], list[float]]:
    front = FrontBackend(Settings(), lambda: None)
    ours, theirs = socket.socketpair()
    socket.send_fds(line, [LINK], [theirs.fileno()])
    theirs.close()
    front.link.attach(ours)
    await front.known.wait()
    rates, costs = [], []
    for _ in range(arguments.rounds):
        begun, cost = time.perf_counter(), processor_time(pid)
        steps = await feed(front, arguments.model, arguments.groups, arguments.rows, arguments.seconds)
        rates.append(steps / (time.perf_counter() - begun))
        costs.append((processor_time(pid) - cost) / steps * 1e6)
    front.link.close()
    return rates, costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="action")
    arguments = parser.parse_args()
    line, theirs = socket.socketpair()
    with tempfile.TemporaryDirectory() as folder:
        env = {**{k: v for k, v in os.environ.items() if not k.startswith("INDRNN_")}, "INDRNN_STORE": f"{folder}/s.db"}
        command = [sys.executable, "-m", "indrnn.service.process", "engine", "engine", str(theirs.fileno())]
        child = subprocess.Popen(command, env={**env, "INDRNN_LOG_LEVEL": "warning"}, pass_fds=[theirs.fileno()])
        theirs.close()
        line.recv(1)  # it is ready
        try:
            rates, costs = asyncio.run(measure(arguments, child.pid, line))
        finally:
            child.terminate()
            child.wait()
    what = f"steps of {arguments.groups} x {arguments.rows} sessions, {arguments.model}"
    figures = [
        Figure("engine_alone", what, "steps/s", rates, 15_000 if arguments.model == "action" else None),
        Figure("engine_processor", "… processor time of the engine's process a step", "µs", costs, more=False),
    ]
    print(table(figures))
    print(json.dumps({"cores": os.cpu_count(), "python": sys.version.split()[0], **{f.name: f.json() for f in figures}}))


if __name__ == "__main__":
    main()
