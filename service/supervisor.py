"""The parent of a service's processes: binds the addresses, starts the engine's process and the fronts, and starts again what ends.

It holds nothing that could be lost. Each front and the engine's process talk over a socket without a name, both ends of which they get from
here; a new one whenever one of them was started again. Where the supervisor itself is killed, the system kills its children.
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

from indrnn.service.settings import Settings, SettingsError

log = logging.getLogger(__name__)

LINK, READY, ALIVE, NEED = b"L", b"R", b".", b"N"
"""said over a child's line; here: this is a socket to the other side; there: it is ready, it is alive, it needs such a socket"""
GRACE = 2.0  # seconds beyond the drain's time after which a child is killed
LOOK = 0.5  # seconds between looks at children that are silent or wait to be started again
MOST = 2  # fronts that `auto` starts: a step costs one of them as much as it costs the engine's process (docs/scaling.md)
RELINK = 1.0  # seconds between two sockets for one front: where they understand each other not at all, it asks for the next at once
SLOWEST = 10.0  # seconds before a child that keeps ending is started again
STEADY = 10.0  # seconds that a child has to live for the next one to be started at once

Role = Literal["engine", "front"]


@dataclass(eq=False)
class Child:
    """A place for a process, and the process that is there, if any. `fails`: how often in a row it did not live for long, or was not there.

    linked: when it was last given a socket to the other side; link_at: when it is to be given one.
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
    linked: float = 0.0
    link_at: float = field(default=float("inf"))

    def say(self, what: bytes, link: socket.socket) -> bool:
        """Send a socket; False where nobody is there."""
        if self.line is None:
            return False
        try:
            socket.send_fds(self.line, [what], [link.fileno()])
        except OSError:
            return False
        return True


class Supervisor:
    """Starts, watches and ends the processes of one service."""

    def __init__(self, settings: Settings, fronts: int) -> None:
        self._settings = settings
        self._engine = Child("engine", "engine")
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
        return [self._engine, *self._fronts]

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
        if child.role == "front" and self._engine.ready:
            child.linked = 0.0
            self._link(child)

    def _begun(self, child: Child) -> "tuple[subprocess.Popen[bytes], socket.socket]":
        """Return the process and this end of its line. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            fds = [theirs.fileno(), *(one.fileno() for one in self._listeners if child.role == "front")]
            command = [sys.executable, "-m", "indrnn.service.process", child.role, child.name, *map(str, fds)]
            try:  # a session of its own: a terminal's Ctrl-C comes here alone
                return subprocess.Popen(command, pass_fds=fds, start_new_session=True), ours
            except OSError:
                ours.close()
                raise

    def _link(self, front: Child) -> None:
        """Give a front and the engine's process both ends of a new socket; later, where the last one is new, or there is none to be had."""
        now = time.monotonic()
        if now < front.linked + RELINK:
            front.link_at = front.linked + RELINK
            return
        front.linked, front.link_at = now, float("inf")
        try:
            one, other = socket.socketpair()
        except OSError as error:
            log.error("%s cannot be linked: %s", front.name, error.strerror or error)
            front.link_at = now + RELINK
            return
        with one, other:
            if self._engine.say(LINK, one):
                front.say(LINK, other)

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
                for front in self._fronts if child is self._engine else ():
                    front.linked = 0.0
                    self._link(front)
            elif what == NEED and self._engine.ready:
                self._link(child)

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
        for child in (*self._fronts, self._engine):
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
            elif now >= child.link_at and self._engine.ready:
                self._link(child)
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


def front_count(fronts: int | Literal["auto"], cores: int) -> int:
    """Return how many fronts there are beside the engine's process; 0: one process does all."""
    if not hasattr(socket, "AF_UNIX") or not hasattr(socket, "send_fds"):
        return 0
    return min(MOST, cores // 2) if fronts == "auto" else fronts


def supervise(settings: Settings, fronts: int) -> int:
    """Run the service as so many fronts and an engine's process."""
    return Supervisor(settings, fronts).run()
