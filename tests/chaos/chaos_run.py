"""Chaos: mixed load on a real service while it is killed, stopped, starved and lied to; every answer is checked.

    python tests/chaos/chaos_run.py --seconds 600 --seed 1 [--redis] [--fronts 2] [--shards 2] [--only starve]

Ends with a table of what was asked, done to the service and found, and with 1 where anything was lost, applied twice, answered wrongly,
never answered, refused without a reason, or left behind. docs/reliability.md has what was measured.
"""

import argparse
import json
import math
import os
import random
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # redis_process, where this is run as a file

import httpx
from chaos_load import SCRIPTS, WAVE, Tally, Truth, go_through
from chaos_service import FULL, READ_ONLY, ChaosService, Gone
from websockets.sync.client import connect

CLIENTS = 3  # of each script
PACE = 0.05  # seconds between two steps of a client
SETTLED = 3.0  # seconds after which what hangs of a closed connection is gone
TRACEBACK = re.compile(r"^(?:.*ERROR.*\n)?Traceback .*\n(?:[ \t].*\n|\n)*.*", re.MULTILINE)
MORE_DESCRIPTORS, MORE_KILOBYTES = 30, 200_000


@dataclass
class Found:
    """What a run saw."""

    seconds: float
    seed: int
    counts: Counter[str]
    faults: Counter[str]
    failures: list[str]

    @property
    def steps(self) -> int:
        """Return how many steps were answered and compared."""
        return sum(n for name, n in self.counts.items() if name.startswith("steps "))

    def table(self) -> str:
        """Return it all as lines."""
        lines = [f"{self.seconds:.0f} s, seed {self.seed}"]
        for title, counts in (("asked", self.counts), ("done to it", self.faults)):
            lines += [f"{title}: " + ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items()))]
        return "\n".join([*lines, f"failures: {len(self.failures)}", *(f"  {one}" for one in self.failures)])


class Chaos:
    """One run: a service, clients that know the truth, rude ones, and faults, all by a seed."""

    def __init__(self, folder: Path, seed: int, redis: bool, only: str | None = None, **env: str) -> None:
        self.only = only
        self.service = ChaosService(folder, redis, **env)
        self.rng, self.seed = random.Random(seed), seed
        self.tally, self.faults = Tally(), Counter[str]()
        self.end = threading.Event()
        self.quiet = threading.Event()
        """set while rude clients are to let go of everything"""

    # --- faults -----------------------------------------------------------------------------------------------------------------------

    def _kill(self) -> None:
        self.service.kill(self.rng)

    def _kill_twice(self) -> None:
        self.service.kill(self.rng)
        time.sleep(self.rng.uniform(0, 1.5))
        self.service.kill(self.rng)

    def _stop_still(self) -> None:
        self.service.stand_still(self.rng.uniform(0.2, 2.5), self.rng)

    def _starve(self) -> None:
        self.service.starve(self.rng.uniform(0.5, 3), self.rng)

    def _redis(self) -> None:
        assert self.service.redis is not None, "asked for where there is one"
        self.service.redis.kill()
        time.sleep(self.rng.uniform(0, 2))
        self.service.redis.start()

    def _full(self) -> None:
        self._pretend(error=FULL)

    def _read_only(self) -> None:
        self._pretend(error=READ_ONLY)

    def _slow(self) -> None:
        self._pretend(delay=self.rng.choice([20, 200]))

    def _full_and_killed(self) -> None:
        self.service.pretend(error=FULL)
        time.sleep(self.rng.uniform(0.1, 1))
        self.service.kill(self.rng)
        self.service.pretend()

    def _clock(self) -> None:
        ahead = self.rng.choice([-3600, -60, 60, 3600])
        self.tally.leapt = math.inf  # a clock that was behind leaps ahead when it is right again
        self._pretend(ahead=ahead)
        self.tally.leapt = time.monotonic()

    def _pretend(self, **what: int) -> None:
        self.service.pretend(**what)
        time.sleep(self.rng.uniform(0.5, 2.5))
        self.service.pretend()

    def _reload(self) -> None:
        model = self.rng.choice(["action", "chars"])
        for what in ("unload", "load"):
            with suppress(httpx.TransportError):
                httpx.post(f"{self.service.url}/v2/repository/models/{model}/{what}", timeout=30)
            time.sleep(self.rng.uniform(0, 0.3))

    def _reloaded(self) -> None:
        """Both models are there again, whatever was killed in between."""
        for model in ("action", "chars"):
            with suppress(httpx.TransportError):
                if not httpx.get(f"{self.service.url}/v2/models/{model}/ready", timeout=10).is_success:
                    httpx.post(f"{self.service.url}/v2/repository/models/{model}/load", timeout=30)

    def kinds(self) -> list[str]:
        """Return the names of the faults that can be had here."""
        always = ["kill", "kill", "kill_twice", "stop_still", "starve", "reload"]
        disk = ["full", "read_only", "slow", "full_and_killed"] if self.service.redis is None else []
        return always + (["redis"] if self.service.redis else []) + ([*disk, "clock"] if self.service.obeys else [])

    def harm(self, seconds: float) -> None:
        """Do one thing after another to the service for so long, and see each time that it comes back. Raises Gone."""
        until, kinds = time.monotonic() + seconds, [self.only] if self.only else self.kinds()
        while time.monotonic() < until:
            time.sleep(min(self.rng.uniform(0.5, 4), max(0.0, until - time.monotonic())))
            kind = self.rng.choice(kinds)
            self.faults[kind] += 1
            getattr(self, f"_{kind}")()
            self.service.ready()
            self._reloaded()

    # --- rude clients -----------------------------------------------------------------------------------------------------------------

    def _half_open(self, rng: random.Random) -> None:
        """Connections that begin a request and say no more."""
        with ExitStack() as held:
            for _ in range(rng.randint(1, 20)):
                s = held.enter_context(socket.create_connection(("127.0.0.1", self.service.port), 5))
                s.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"[: rng.randint(1, 66)])
            self.quiet.wait(rng.uniform(0, 3))

    def _vanish(self, rng: random.Random) -> None:
        """A stream that steps and is cut before it hears."""
        with connect(f"ws://127.0.0.1:{self.service.port}/stream/action", compression=None, open_timeout=5) as ws:
            ws.send(json.dumps({"type": "open", "every": True}))
            ws.recv(5)
            for n in range(1, rng.randint(2, 6)):
                ws.send(json.dumps({"type": "step", "step": n, "frames": WAVE[:8]}))
            ws.socket.close()

    def _read_nothing(self, rng: random.Random) -> None:
        """A stream that asks for much and reads none of it."""
        s = socket.create_connection(("127.0.0.1", self.service.port), 5)
        with s, connect(f"ws://127.0.0.1:{self.service.port}/stream/chars", sock=s, compression=None, max_queue=1, open_timeout=5) as ws:
            ws.send(json.dumps({"type": "open"}))
            ws.recv(5)
            ws.send(json.dumps({"type": "watch", "neurons": True}))
            for n in range(1, 20):
                ws.send(json.dumps({"type": "step", "step": n, "text": "x" * 64}))
            self.quiet.wait(rng.uniform(0.5, 4))

    def _leave(self, rng: random.Random) -> None:
        """Sessions that are opened and never used."""
        with httpx.Client(base_url=self.service.url, timeout=10) as http:
            for _ in range(rng.randint(50, 300)):
                if http.post("/sessions", json={"model": rng.choice(["action", "chars"])}).is_success:
                    self.tally.count("sessions left")

    def annoy(self, seed: int) -> None:
        """Be rude until the end."""
        rng = random.Random(seed)
        while not self.end.is_set():
            what = rng.choice([self._half_open, self._vanish, self._read_nothing, self._leave])
            try:
                what(rng)
                self.tally.count(f"rude {what.__name__.strip('_')}")
            except Exception:  # the service is away, or has had enough of it
                time.sleep(0.2)
            self.end.wait(rng.uniform(0.05, 0.5))

    # --- a run ------------------------------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> Found:
        """Go through it all."""
        begun = time.monotonic()
        self.service.ready()
        truths = {kind: Truth.of(kind, self.service.url) for kind in SCRIPTS}
        calm = self.service.holds()
        arguments = [(kind, self.service.url, truths[kind], self.tally, self.end, PACE) for kind in SCRIPTS for _ in range(CLIENTS)]
        threads = [threading.Thread(target=go_through, args=one, daemon=True) for one in arguments]
        threads += [threading.Thread(target=self.annoy, args=(self.seed * 1_000 + n,), daemon=True) for n in range(2)]
        for thread in threads:
            thread.start()
        try:
            self.harm(seconds - (time.monotonic() - begun))
            self.service.ready()
        except Gone as error:
            self.tally.fail(str(error))
        self.end.set()
        self.quiet.set()
        for thread in threads:
            thread.join(120)
            if thread.is_alive():
                self.tally.fail("a client hangs")
        self._look_for_leaks(calm)
        with suppress(Exception):
            self.service.end()
        return Found(time.monotonic() - begun, self.seed, self.tally.counts, self.faults, self.tally.failures)

    def _look_for_leaks(self, calm: dict[str, int]) -> None:
        with suppress(Gone):
            self.service.ready()
        time.sleep(SETTLED)
        now = self.service.holds()
        for name, most in (("descriptors", MORE_DESCRIPTORS), ("kilobytes", MORE_KILOBYTES), ("processes", 0)):
            if now[name] > calm[name] + most:
                self.tally.fail(f"{name}: {calm[name]} at the beginning, {now[name]} at the end")
        self.tally.counts.update({f"{name} at the end": n for name, n in now.items()})


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("CHAOS_SEED", "1")))
    parser.add_argument("--redis", action="store_true", help="on a Redis, which is killed too")
    parser.add_argument("--fronts", help="a service of several processes, of which each is killed (INDRNN_FRONTS)")
    parser.add_argument("--only", help="one kind of fault alone, as starve")
    parser.add_argument("--commit-thread", action="store_true", help="with commits on a thread of their own (INDRNN_COMMIT_THREAD)")
    parser.add_argument("--shards", help="of so many engine's processes, with fronts (INDRNN_SHARDS)")
    asked = parser.parse_args()
    env = {"INDRNN_FRONTS": asked.fronts} if asked.fronts else {}
    if asked.commit_thread:
        env["INDRNN_COMMIT_THREAD"] = "true"
    if asked.shards:
        env["INDRNN_SHARDS"] = asked.shards
    with tempfile.TemporaryDirectory() as folder:
        found = Chaos(Path(folder), asked.seed, asked.redis, asked.only, **env).run(asked.seconds)
        print(found.table())
        if found.failures:
            log = Path(folder, "log").read_text()
            print(*TRACEBACK.findall(log)[:20], log[-6_000:], sep="\n")
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
