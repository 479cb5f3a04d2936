"""The parent of a service's processes: binds the addresses, starts the engine's processes and the fronts, and starts again what ends.

It holds nothing that could be lost. Each front and each engine's process talk over a socket without a name, both ends of which they get
from here; a new one whenever one of them was started again. Where the service is in shards, the engine's process of the first has such
sockets to those of the others, too. Where the supervisor itself is killed, the system kills its children.
"""

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from indrnn.service.settings import MOST_SHARDS, Settings, SettingsError

log = logging.getLogger(__name__)

READY, ALIVE, LINK, NEED = b"R", b".", 0x40, 0x80
"""said over a child's line, a byte each. There: it is ready, it is alive; NEED and a shard: it needs a socket to that shard's engine. Here,
with a socket: a number below LINK is the shard whose engine is at the other end, LINK says that the other end will ask"""
GRACE = 2.0  # seconds beyond the drain's time after which a child is killed
LOOK = 0.5  # seconds between looks at children that are silent or wait to be started again
MOST = 2  # fronts that `auto` starts for an engine: a step costs one of them as much as it costs the engine's process (docs/scaling.md)
CORES = 4  # for each shard that `auto` starts
RELINK = 1.0  # seconds between two sockets for one front: where they understand each other not at all, it asks for the next at once
SLOWEST = 10.0  # seconds before a child that keeps ending is started again
STEADY = 10.0  # seconds that a child has to live for the next one to be started at once

Role = Literal["engine", "front"]


@dataclass(eq=False)
class Child:
    """A place for a process, and the process that is there, if any. `fails`: how often in a row it did not live for long, or was not there.

    linked: when it was last given a socket to the engine of each shard; link_at: when it is to be given one.
    """

    role: Role
    name: str
    process: "subprocess.Popen[bytes] | None" = None
    line: socket.socket | None = None
    ready: bool = False
    was_ready: bool = False
    began: float = 0.0
    heard: float = 0.0
    again_at: float = field(default=float("inf"))
    fails: int = 0
    linked: dict[int, float] = field(default_factory=dict)
    link_at: dict[int, float] = field(default_factory=dict)

    def say(self, what: int, link: socket.socket) -> bool:
        """Send a socket; False where nobody is there."""
        if self.line is None:
            return False
        try:
            socket.send_fds(self.line, [bytes([what])], [link.fileno()])
        except OSError:
            return False
        return True


class Supervisor:
    """Starts, watches and ends the processes of one service."""

    def __init__(self, settings: Settings, fronts: int, shards: int = 1) -> None:
        self._settings = settings
        self._engines = [Child("engine", "engine" if shards == 1 else f"engine-{k}") for k in range(shards)]
        self._fronts = [Child("front", f"front-{i}") for i in range(fronts)]
        self._listeners: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._asked = 0
        """how often the end was asked for"""
        self._until = float("inf")
        self._status = 0

    def run(self) -> int:
        """Serve until a signal says to end; return 1 where a process could not begin. Raises SettingsError."""
        self._listeners = listen(self._settings.host, self._settings.port)
        woken, wake = socket.socketpair()
        for end in (woken, wake):
            end.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._selector.register(woken, selectors.EVENT_READ, None)
        try:
            for child in self._all:
                self._start(child)
            while any(child.process is not None or child.again_at < float("inf") for child in self._all):
                for key, _ in self._selector.select(LOOK):
                    if key.data is None:
                        self._signalled(woken.recv(64))
                    else:
                        self._hear(key.data)
                self._reap()
                self._look()
        finally:
            signal.set_wakeup_fd(-1)
            for child in self._all:
                if child.process is not None:
                    child.process.kill()
            for one in self._listeners:
                one.close()
        if self._asked:
            self._end_as_told()
        return self._status

    @property
    def _address(self) -> str:
        """Return where clients find the service, also where the system chose the port."""
        host = self._settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._listeners[0].getsockname()[1]}"

    @property
    def _all(self) -> list[Child]:
        return [*self._engines, *self._fronts]

    @property
    def _asking(self) -> list[Child]:
        """Return who asks engines: fronts, and the engine of the first shard, which leads the others."""
        return [*self._fronts, *(self._engines[:1] if len(self._engines) > 1 else ())]

    # --- starting -----------------------------------------------------------------------------------------------------------------------

    def _start(self, child: Child) -> None:
        """Start a child. Where the system has no room for one that was there before, it is tried again; raises SettingsError for others."""
        try:
            child.process, ours = self._begun(child)
        except OSError as error:  # no descriptor, no process, no memory
            why = error.strerror or str(error)
            if not child.was_ready:
                raise SettingsError(f"{child.name} cannot be started: {why}") from error
            self._later(child, f"{child.name} cannot be started: {why}")
            return
        child.line, child.ready, child.again_at = ours, False, float("inf")
        child.began = child.heard = time.monotonic()
        self._selector.register(ours, selectors.EVENT_READ, child)
        child.linked, child.link_at = {}, {}
        if child.role == "front":
            self._link_all(child)

    def _begun(self, child: Child) -> "tuple[subprocess.Popen[bytes], socket.socket]":
        """Return the process and this end of its line. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            fds = [theirs.fileno(), *(one.fileno() for one in self._listeners if child.role == "front")]
            shards = str(len(self._engines))
            command = [sys.executable, "-m", "indrnn.service.process", child.role, child.name, shards, *map(str, fds)]
            try:  # a session of its own: a terminal's Ctrl-C comes here alone
                return subprocess.Popen(command, pass_fds=fds, start_new_session=True), ours
            except OSError:
                ours.close()
                raise

    def _link_all(self, asking: Child) -> None:
        """Give a front, or the leader, a socket to every engine that is ready."""
        for shard, engine in enumerate(self._engines):
            if engine.ready:
                self._link(asking, shard)

    def _link(self, asking: Child, shard: int) -> None:
        """Give who asks and a shard's engine both ends of a new socket; later, where the last one is new, or there is none to be had."""
        engine, now = self._engines[shard], time.monotonic()
        if asking is engine:
            return
        if now < (last := asking.linked.get(shard, 0.0)) + RELINK:
            asking.link_at[shard] = last + RELINK
            return
        asking.linked[shard] = now
        asking.link_at.pop(shard, None)
        try:
            one, other = socket.socketpair()
        except OSError as error:
            log.error("%s cannot be linked: %s", asking.name, error.strerror or error)
            asking.link_at[shard] = now + RELINK
            return
        with one, other:
            if engine.say(LINK, one):
                asking.say(shard, other)

    # --- hearing ------------------------------------------------------------------------------------------------------------------------

    def _hear(self, child: Child) -> None:
        if child.line is None:
            return
        try:
            said = child.line.recv(4_096)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._hang_up(child)
            return
        child.heard = time.monotonic()
        for what in (said[i : i + 1] for i in range(len(said))):
            if what == READY:
                if child.role == "front" and not any(front.was_ready for front in self._fronts):
                    log.info("the service answers at %s", self._address)
                child.ready = child.was_ready = True
                log.info("%s is ready", child.name)
                self._link_ready(child)
            elif what[0] >= NEED and (shard := what[0] - NEED) < len(self._engines) and self._engines[shard].ready:
                self._link(child, shard)

    def _link_ready(self, child: Child) -> None:
        """Give sockets to a child that is ready now, and to those that ask it."""
        if child.role != "engine":
            return
        shard = self._engines.index(child)
        for asking in self._asking:
            if asking.role == "front" or asking.ready:
                asking.linked.pop(shard, None)
                self._link(asking, shard)
        if child in self._asking:
            self._link_all(child)

    def _hang_up(self, child: Child) -> None:
        if child.line is not None:
            self._selector.unregister(child.line)
            child.line.close()
            child.line = None

    def _signalled(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()

    def _stop(self) -> None:
        """The first time, tell everybody to end, fronts before the engine; the second time, kill them."""
        self._asked += 1
        self._until = min(self._until, time.monotonic() + self._settings.drain_timeout + GRACE)
        for child in (*self._fronts, *self._engines):
            child.again_at = float("inf")
            if child.process is not None:
                _send(child.process, signal.SIGTERM if self._asked == 1 else signal.SIGKILL)

    # --- ending, and starting again -------------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Take note of what has ended, also of orphans that came here as to the first process of a container."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._all:
                if child.process is not None and child.process.pid == pid:
                    child.process.returncode = os.waitstatus_to_exitcode(status)
                    self._ended(child, child.process.returncode)

    def _ended(self, child: Child, code: int) -> None:
        child.process, child.ready = None, False
        self._hang_up(child)
        if self._asked:
            return
        if not child.was_ready:  # it says why itself
            self._status = 1
            self._asked, self._until = self._asked, time.monotonic() + GRACE
            for other in self._all:
                if other.process is not None:
                    _send(other.process, signal.SIGKILL)
                other.was_ready, other.again_at = False, float("inf")
            return
        if time.monotonic() - child.began >= STEADY:
            child.fails = -1
        self._later(child, f"{child.name} has ended with {code}")

    def _later(self, child: Child, why: str) -> None:
        """Start a child again, the later the more often it failed."""
        child.fails += 1
        wait = min(SLOWEST, 0.1 * 2**child.fails) if child.fails else 0.0
        log.error("%s: it is started again%s", why, f" in {wait:g} s" if wait else "")
        child.again_at = time.monotonic() + wait

    def _look(self) -> None:
        now = time.monotonic()
        for child in self._all:
            if child.process is None:
                if now >= child.again_at and not self._asked and not self._status:
                    self._start(child)
            elif due := [k for k, at in child.link_at.items() if now >= at and self._engines[k].ready]:
                for shard in due:
                    self._link(child, shard)
            elif now > self._until or (child.ready and now - child.heard > self._settings.hang_timeout):
                log.error("%s has given no sign of life and is killed", child.name)
                _send(child.process, signal.SIGKILL)
                child.heard = now

    def _end_as_told(self) -> None:
        """End by the signal that told so, as a process does that does not catch it."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() != 1:
            os.kill(os.getpid(), signal.SIGTERM)


def _send(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to a child that has not been reaped; by its Popen it might be reaped, and nobody would see its end."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)


def listen(host: str, port: int) -> list[socket.socket]:
    """Return sockets bound to every address of the host; the fronts begin to listen on them. Raises SettingsError."""
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
            one = socket.socket(family, kind, protocol)
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
    except OSError as error:
        for one in bound:
            one.close()
        why = (error.strerror or str(error)).lower()
        raise SettingsError(f"PORT: {host}:{port} cannot be listened on: {why}") from error
    return bound


def front_count(fronts: int | Literal["auto"], cores: int, shards: int = 1) -> int:
    """Return how many fronts there are beside the engine's processes; 0: one process does all."""
    if not hasattr(socket, "AF_UNIX") or not hasattr(socket, "send_fds"):
        return 0
    if fronts != "auto":
        return fronts
    return min(MOST, cores // 2) if shards == 1 else max(1, min(MOST * shards, cores * 3 // 8))


def shard_count(shards: int | Literal["auto"], cores: int) -> int:
    """Return how many shards there are: one takes up to four cores, with its fronts and its commit thread (docs/scaling.md)."""
    return max(1, min(MOST_SHARDS, cores // CORES)) if shards == "auto" else shards


def process_counts(settings: Settings, cores: int) -> tuple[int, int]:
    """Return how many fronts and shards a service has. Raises SettingsError for shards without fronts."""
    shards = shard_count(settings.shards, cores)
    fronts = front_count(settings.fronts, cores, shards)
    if not fronts and settings.shards == "auto":
        shards = 1
    if not fronts and shards > 1:
        raise SettingsError(f"INDRNN_SHARDS: {shards} of them expect INDRNN_FRONTS from 1, got {settings.fronts}")
    return fronts, shards


def supervise(settings: Settings, fronts: int, shards: int = 1) -> int:
    """Run the service as so many fronts and engine's processes."""
    return Supervisor(settings, fronts, shards).run()
