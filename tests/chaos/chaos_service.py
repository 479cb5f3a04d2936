"""The service under attack: it is started again whenever it is killed, and its clock and disk obey."""

import errno
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
from redis_process import RedisProcess, free_port
from replica_process import clean_environment

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 60.0  # seconds in which it has to be back


class Gone(AssertionError):
    """The service did not come back, or something of it stayed."""


def preload(folder: Path) -> Path | None:
    """Compile what makes the clock jump and the disk fail; None where there is no compiler."""
    if (compiler := shutil.which("cc") or shutil.which("gcc")) is None:
        return None
    made = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, Path(__file__).parent / "faults.c"], check=True)
    return made


class ChaosService:
    """A service in `folder` with a store of its own, Redis or a file."""

    def __init__(self, folder: Path, redis: bool = False, **env: str) -> None:
        self.folder, self.port = folder, free_port()
        self.redis = RedisProcess(folder).start() if redis else None
        self.faults = self._faults()
        self.kills = 0
        self._library = preload(folder)
        self._env = {
            **clean_environment(),
            **{"PORT": str(self.port), "INDRNN_MODEL_CONTROL": "true", "INDRNN_POLL": "0", "CHAOS_FAULTS": str(folder / "faults")},
            **{"INDRNN_STORE": self.redis.url if self.redis else str(folder / "sessions.db")},
            **({"LD_PRELOAD": str(self._library)} if self._library else {}),
            **env,
        }
        self._gate = threading.Lock()
        self.process = self._begin()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def obeys(self) -> bool:
        """Return whether its clock and disk do."""
        return self._library is not None

    def _faults(self) -> mmap.mmap:
        path = self.folder / "faults"
        path.write_bytes(bytes(32))
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), 32)

    def pretend(self, ahead: int = 0, delay: int = 0, error: int = 0) -> None:
        """ahead: seconds of the wall clock; delay: milliseconds of a flush; error: errno of the store's writes."""
        self.faults[:32] = struct.pack("<4q", ahead, delay, error, 0)

    def _begin(self) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "indrnn", "serve"]
            return subprocess.Popen(command, cwd=ROOT, env=self._env, stdout=log, stderr=log)

    def ready(self, within: float = PATIENCE) -> None:
        """Wait until it takes sessions; a process that has ended is started again. Raises Gone."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            with self._gate:
                if self.process.poll() is not None:
                    self.process = self._begin()
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health/ready", timeout=5).status_code == 200:
                    return
            time.sleep(0.05)
        raise Gone(f"not ready within {within:g} s:\n" + (self.folder / "log").read_text()[-4_000:])

    def family(self) -> list[int]:
        """Return the process and all that descend from it."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError, IndexError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
        found, new = [], [self.process.pid]
        while new:
            found += new
            new = [child for one in new for child in children.get(one, [])]
        return found

    def kill(self, rng: random.Random, how: int = signal.SIGKILL) -> None:
        """Send a signal to one of its processes, whichever."""
        self.kills += 1
        with suppress(ProcessLookupError):
            os.kill(rng.choice(self.family()), how)

    def stand_still(self, seconds: float, rng: random.Random) -> None:
        """Stop one of its processes for some time."""
        one = rng.choice(self.family())
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(one, signal.SIGCONT)

    def starve(self, seconds: float, rng: random.Random) -> None:
        """Leave its processes a few megabytes more of address space than they have, for some time: what asks for more is refused."""
        limited = self.family()
        for pid in limited:
            with suppress(OSError):
                size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * mmap.PAGESIZE
                resource.prlimit(pid, resource.RLIMIT_AS, (size + rng.choice([0, 2**20, 2**23]), resource.RLIM_INFINITY))
        time.sleep(seconds)
        for pid in {*limited, *self.family()}:  # also those that were started meanwhile, by one that had little
            with suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def end(self) -> None:
        """Stop it as an operator would. Raises Gone where a process stays."""
        family = self.family()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        time.sleep(0.5)
        if self.redis:
            self.redis.kill()
        if left := [pid for pid in family if Path(f"/proc/{pid}").exists()]:
            raise Gone(f"processes stay behind: {left}")

    def holds(self) -> dict[str, int]:
        """Return what all its processes have in use: descriptors, threads, kilobytes, processes."""
        found = {"descriptors": 0, "threads": 0, "kilobytes": 0, "processes": 0}
        for pid in self.family():
            with suppress(OSError):
                lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
                found["descriptors"] += len(list(Path(f"/proc/{pid}/fd").iterdir()))
                found["threads"] += int(lines["Threads"])
                found["kilobytes"] += int(lines["VmRSS"].split()[0])
                found["processes"] += 1
        return found


FULL, READ_ONLY = errno.ENOSPC, errno.EROFS
