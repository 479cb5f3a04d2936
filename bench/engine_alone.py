"""How many steps does an engine's process take, fed over its socket and asked by nobody else?

python bench/engine_alone.py [--groups 4] [--rows 32] [--seconds 3] [--rounds 3] [--model action] [--commit-thread] [--against FOLDER]

Engines' processes are children, each with a store of its own in a temporary folder, and are fed in turns: one with commits on the engine
thread, one with the commit thread, and one of another checkout's code where a folder is given, which has to speak the same messages. This
process is their front, and a cheap one: `groups` times `rows` sessions of each, each group's next steps sent when its last were answered.
Processor time is of the child, all its threads, a step; ratios are medians of the rounds' own.
"""

import argparse
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench.figure import Figure, say
from indrnn.export.bundle import Manifest
from indrnn.service.engine.calls import Hello, Roster
from indrnn.service.engine.codec import decode, encode
from indrnn.service.engine.requests import Asked, CreateRequest, Exact, Frames, StepRequest, Ticket
from indrnn.service.link.message import (
    FORMAT,
    HEAD,
    PART,
    RESULTS,
    STEPS,
    Kind,
    Packed,
    PartForm,
    Reader,
    asked_parts,
    framed,
    messages,
    parts,
    read_told,
)
from indrnn.service.supervisor import LINK

HERE = Path(__file__).parent.parent
DIGEST = 16  # bytes


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
        command = [sys.executable, "-m", "indrnn.service.process", "engine", "engine", "1", str(theirs.fileno())]
        self.process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], cwd=code)
        theirs.close()
        self.line.recv(1)  # it is ready

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait()


class Feeder:
    """A front of one child that costs little beside it: its messages are packed once a round, and of the answers it reads numbers alone."""

    def __init__(self, child: Child, model: str, groups: int, rows: int) -> None:
        self.child = child
        self._groups, self._rows = groups, rows
        self._link, theirs = socket.socketpair()
        socket.send_fds(child.line, [bytes([LINK])], [theirs.fileno()])
        theirs.close()
        self._reader = Reader()
        self._epoch = secrets.randbits(62)
        self._link.sendall(framed(Kind.HELLO, encode(Hello(FORMAT, self._epoch))))
        roster = next(note for kind, note in self._heard() if kind == Kind.NOTE and isinstance(note, Roster))
        found = [(one.number, Manifest.model_validate_json(one.manifest)) for one in roster.models]
        self._number, self._manifest = next((number, m) for number, m in found if m.name == model)

    def _heard(self) -> Iterator[tuple[int, object]]:
        while True:
            for kind, body in self._reader.take(self._link.recv(2**20)):
                yield kind, decode(body, tuple) if kind == Kind.NOTE else body

    def _told(self) -> Iterator[Packed]:
        for kind, body in self._heard():
            if kind == Kind.TOLD:
                yield from parts(body)  # type: ignore[arg-type]  # bytes

    def _open(self) -> list[str]:
        count = self._groups * self._rows
        asked = [Asked(Ticket(self._epoch, n), CreateRequest("")) for n in range(count)]
        self._link.sendall(b"".join(messages(Kind.ASKED, list(asked_parts(self._number, asked, False)))))
        made: dict[int, str] = {}
        for part in self._told():
            made |= {d.ticket.number: d.reply.session.id for d in read_told(part, self._epoch)}  # type: ignore[union-attr]  # Created
            if len(made) == count:
                return [made[n] for n in range(count)]
        raise AssertionError("the link has an end")

    def _message(self, idents: Sequence[str], group: int) -> bytearray:
        sample = np.random.default_rng(0).normal(size=(1, self._manifest.persons or 1, 20, 3)).astype(np.float32)
        content = Frames(sample, None, whole=True) if self._manifest.modality == "skeleton" else Exact(np.zeros(1, np.int64))
        asked = [
            Asked(
                Ticket(self._epoch, group * self._rows + i),
                StepRequest(ident, "", 0, bytes(DIGEST), content, protocol="stream", tell_state=False),
            )
            for i, ident in enumerate(idents)
        ]
        return bytearray(b"".join(messages(Kind.ASKED, list(asked_parts(self._number, asked, False)))))

    def round(self, seconds: float) -> None:
        """Step new sessions for so long."""
        rows, idents = self._rows, self._open()
        of_group = [idents[at : at + rows] for at in range(0, len(idents), rows)]
        ready = [self._message(mine, g) for g, mine in enumerate(of_group)]
        at = HEAD.size + PART.size + -(-STEPS.size // 8) * 8 + 8 * rows
        places = [np.frombuffer(one, "<i8", 3 * rows, at) for one in ready]  # numbers, and digests, which are numbers here
        numbers, left, answered = [0] * self._groups, np.zeros(self._groups, np.int64), 0
        told, begun, cost = self._told(), time.perf_counter(), processor_time(self.child.process.pid)

        def ask(g: int) -> None:
            if time.perf_counter() < begun + seconds:
                numbers[g], left[g] = numbers[g] + 1, rows
                places[g][:] = numbers[g]
                self._link.sendall(ready[g])

        for g in range(self._groups):
            ask(g)
        while left.any():
            part = next(told)
            assert part.form == PartForm.RESULTS, [d.reply for d in read_told(part, self._epoch)]
            tickets = np.frombuffer(part.data, "<u8", part.rows, part.at + RESULTS.size).astype(np.int64)
            steps = np.frombuffer(part.data, "<i8", part.rows, part.at + RESULTS.size + 8 * part.rows)
            assert (steps == np.array(numbers)[tickets // rows]).all()
            before = left > 0
            left -= np.bincount(tickets // rows, minlength=self._groups)
            answered += part.rows
            for g in np.flatnonzero(before & (left == 0)).tolist():
                ask(g)
        self.child.rates.append(answered / (time.perf_counter() - begun))
        self.child.costs.append((processor_time(self.child.process.pid) - cost) / answered * 1e6)

    def close(self) -> None:
        """Leave the child."""
        self._link.close()


def measure(arguments: argparse.Namespace, children: Sequence[Child]) -> None:
    """Feed the children in turns."""
    feeders = [Feeder(child, arguments.model, arguments.groups, arguments.rows) for child in children]
    for n in range(arguments.rounds):
        for feeder in feeders if n % 2 == 0 else feeders[::-1]:
            feeder.round(arguments.seconds)
    for feeder in feeders:
        feeder.close()


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
        measure(arguments, children)
    print(f"steps of {arguments.groups} x {arguments.rows} sessions, {arguments.model}")
    figures = [f for one in children for f in figures_of(one, children[0], arguments.model == "action")]
    say(figures)


if __name__ == "__main__":
    main()
