"""How many steps does an engine's process take, fed over its socket and asked by nobody else?

python bench/engine_alone.py [--groups 4] [--rows 32] [--seconds 3] [--rounds 3] [--model action] [--commit-thread] [--against FOLDER]

Engines' processes are children, each with a store of its own in a temporary folder, and are fed in turns: one with commits on the engine
thread, one with the commit thread, and one of another checkout's code where a folder is given, which has to speak the same messages. This
process is their front: `groups` times `rows` sessions of each, each group's next steps sent when its last were answered. Processor time is
of the child, all its threads, a step; ratios are medians of the rounds' own.
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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))
from bench.figure import Figure, table
from indrnn.service.engine.requests import CreateRequest, Exact, Frames, StepRequest
from indrnn.service.link.front import FrontBackend
from indrnn.service.session.machine import Result
from indrnn.service.settings import Settings
from indrnn.service.supervisor import LINK


def processor_time(pid: int) -> float:
    """Seconds that all threads of a process have run."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


class Child:
    """An engine's process, and this process's end of the line to it; steps: what a round's steps a second and their microseconds were."""

    def __init__(self, what: str, code: Path, settings: Mapping[str, str], folder: str) -> None:
        self.what = what
        self.rates: list[float] = []
        self.costs: list[float] = []
        self.line, theirs = socket.socketpair()
        env = {k: v for k, v in os.environ.items() if not k.startswith("INDRNN_")} | dict(settings)
        env |= {"INDRNN_STORE": f"{folder}/s.db", "INDRNN_LOG_LEVEL": "error", "PYTHONPATH": str(code)}
        command = [sys.executable, "-m", "indrnn.service.process", "engine", "engine", str(theirs.fileno())]
        self.process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], cwd=code)
        theirs.close()
        self.line.recv(1)  # it is ready

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait()


class Feeder:
    """A front of one child, with sessions of its own."""

    def __init__(self, child: Child, model: str, groups: int, rows: int) -> None:
        self.child = child
        self._model, self._groups, self._rows = model, groups, rows
        self.front = FrontBackend(Settings(), lambda: None)
        ours, theirs = socket.socketpair()
        socket.send_fds(child.line, [LINK], [theirs.fileno()])
        theirs.close()
        self.front.link.attach(ours)

    async def round(self, seconds: float) -> None:
        """Step new sessions for so long."""
        await self.front.known.wait()
        model, tickets = self.front.models.latest(self._model), self.front.tickets
        made = [a.reply for a in await tickets.ask_all(model.port, [CreateRequest("") for _ in range(self._groups * self._rows)])]
        idents = [reply.session.id for reply in made]  # type: ignore[union-attr]  # Created
        sample = np.random.default_rng(0).normal(size=(1, model.manifest.persons or 1, 20, 3)).astype(np.float32)
        content = Frames(sample, None, whole=True) if model.manifest.modality == "skeleton" else Exact(np.zeros(1, np.int64))
        begun, cost, answered = time.perf_counter(), processor_time(self.child.process.pid), 0

        async def group(mine: list[str]) -> None:
            nonlocal answered
            number = 0
            while time.perf_counter() < begun + seconds:
                number += 1
                requests = [StepRequest(i, "", number, secrets.token_bytes(16), content, protocol="stream", tell_state=False) for i in mine]
                replies = await tickets.ask_all(model.port, requests)
                assert all(isinstance(one.reply, Result) and one.reply.number == number for one in replies)
                answered += len(replies)

        await asyncio.gather(*(group(idents[at : at + self._rows]) for at in range(0, len(idents), self._rows)))
        self.child.rates.append(answered / (time.perf_counter() - begun))
        self.child.costs.append((processor_time(self.child.process.pid) - cost) / answered * 1e6)


async def measure(arguments: argparse.Namespace, children: Sequence[Child]) -> None:
    """Feed the children in turns."""
    feeders = [Feeder(child, arguments.model, arguments.groups, arguments.rows) for child in children]
    for n in range(arguments.rounds):
        for feeder in feeders if n % 2 == 0 else feeders[::-1]:
            await feeder.round(arguments.seconds)
    for feeder in feeders:
        feeder.front.link.close()


def figures_of(child: Child, first: Child, action: bool) -> list[Figure]:
    """Return the figures of a child, and its ratios to the first."""
    bar = (25_000 if child.what == "commit thread" else 15_000) if action else None
    found = [
        Figure(f"engine_alone, {child.what}", child.what, "steps/s", child.rates, bar),
        Figure(f"engine_processor, {child.what}", "… processor time of the engine's process a step", "µs", child.costs, more=False),
    ]
    if child is not first:
        for name, ours, theirs in (("steps/s", child.rates, first.rates), ("processor time", child.costs, first.costs)):
            ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
            found.append(Figure(f"{name}, {child.what}", f"… {name} against {first.what}", "times", ratios, more=name == "steps/s"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="action")
    parser.add_argument("--commit-thread", action="store_true", help="beside commits on the engine thread")
    parser.add_argument("--against", type=Path, help="a checkout whose engine is fed in the same run")
    arguments = parser.parse_args()
    with ExitStack() as stack:

        def child(what: str, code: Path, **settings: str) -> Child:
            made = Child(what, code, settings, stack.enter_context(tempfile.TemporaryDirectory()))
            stack.callback(made.close)
            return made

        children = [] if arguments.against is None else [child("the other checkout", arguments.against)]
        children.append(child("commits on the engine thread", HERE, INDRNN_COMMIT_THREAD="false"))
        if arguments.commit_thread:
            children.append(child("commit thread", HERE, INDRNN_COMMIT_THREAD="true"))
        asyncio.run(measure(arguments, children))
    print(f"steps of {arguments.groups} x {arguments.rows} sessions, {arguments.model}")
    figures = [f for one in children for f in figures_of(one, children[0], arguments.model == "action")]
    print(table(figures))
    print(json.dumps({"cores": os.cpu_count(), "python": sys.version.split()[0], **{f.name: f.json() for f in figures}}))


if __name__ == "__main__":
    main()
