"""How many processes a service is, and what its supervisor binds; tests/system/test_fronts.py kills each of them."""

import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Literal

import pytest

from indrnn.service.errors import Overloaded
from indrnn.service.logs import TextFormatter, set_up
from indrnn.service.serving.connections import Places
from indrnn.service.settings import Settings, SettingsError
from indrnn.service.supervisor import RELINK, Child, Supervisor, front_count, listen, process_counts


@pytest.mark.parametrize(
    ("fronts", "cores", "expected"),
    [(0, 8, 0), (1, 1, 1), (3, 2, 3), ("auto", 1, 0), ("auto", 2, 1), ("auto", 3, 1), ("auto", 4, 2), ("auto", 64, 2)],
)
def test_fronts_are_as_many_as_are_asked_for_or_as_one_engine_can_feed(fronts: int | Literal["auto"], cores: int, expected: int) -> None:
    assert front_count(fronts, cores) == expected


@pytest.mark.parametrize(
    ("fronts", "shards", "cores", "expected"),
    [
        (0, 1, 8, (0, 1)),
        (0, "auto", 64, (0, 1)),
        (1, "auto", 7, (1, 1)),
        (3, "auto", 8, (3, 2)),
        ("auto", "auto", 2, (1, 1)),
        ("auto", "auto", 8, (3, 2)),
        ("auto", "auto", 16, (6, 4)),
        ("auto", 2, 1, (1, 2)),
        (1, 64, 2, (1, 64)),
    ],
)
def test_shards_are_as_many_as_are_asked_for_or_one_for_four_cores(
    fronts: int | Literal["auto"], shards: int | Literal["auto"], cores: int, expected: tuple[int, int]
) -> None:
    assert process_counts(Settings(fronts=fronts, shards=shards), cores) == expected


def test_shards_without_fronts_are_refused() -> None:
    with pytest.raises(SettingsError, match="INDRNN_SHARDS: 2 of them expect INDRNN_FRONTS from 1, got 0"):
        process_counts(Settings(shards=2), 8)


def test_where_there_are_no_unix_sockets_one_process_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    assert front_count(4, 8) == 0


def test_every_address_of_the_host_is_bound_and_none_is_listened_on_yet() -> None:
    (bound,) = listen("127.0.0.1", 0)
    with bound, pytest.raises(ConnectionRefusedError):
        socket.create_connection(bound.getsockname(), 1)


def test_an_address_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"PORT: 127.0.0.1:{port} cannot be listened on"):
            listen("127.0.0.1", port)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor(Settings(), 1)
    yield made
    made._selector.close()


def test_a_child_that_the_system_has_no_room_for_is_tried_again_later(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    (front,) = supervisor._fronts

    def no_room(*args: object, **options: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", no_room)
    with pytest.raises(SettingsError, match="front-0 cannot be started: Resource temporarily unavailable"):
        supervisor._start(front)
    front.was_ready = True
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        before = front.again_at
        supervisor._start(front)
        assert front.process is None
        assert time.monotonic() < front.again_at < min(before, time.monotonic()) + 11
        front.again_at = min(front.again_at, time.monotonic() + 5)
    assert front.fails == 5
    assert len(os.listdir("/proc/self/fd")) == open_before


BOTH_GONE = """
import os, signal, socket, subprocess, sys, threading, time
import indrnn.service.supervisor as s
from indrnn.service.settings import Settings

tries = {}

def begun(self, child):
    n = tries[child.name] = tries.get(child.name, 0) + 1
    if n == 2:
        raise OSError(11, "no room")
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        code = f"import os, time; os.write({theirs.fileno()}, b'R'); time.sleep({0.2 if n == 1 else 60})"
        return subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()]), ours

def end():
    while min(tries.get("engine", 0), tries.get("front-0", 0)) < 3:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

s.Supervisor._begun = begun
threading.Thread(target=end, daemon=True).start()
raise SystemExit(s.Supervisor(Settings(port=0, drain_timeout=1), 1).run())
"""


def test_where_all_children_wait_to_be_started_again_the_service_has_not_ended() -> None:
    done = subprocess.run([sys.executable, "-c", BOTH_GONE], timeout=60)
    assert done.returncode == -signal.SIGTERM, "it goes on until it is told to end"


def test_a_front_that_keeps_asking_for_a_socket_gets_one_a_second(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    (front,) = supervisor._fronts
    said: list[str] = []

    def say(child: Child, what: bytes, link: socket.socket) -> bool:
        said.append(child.name)
        return True

    monkeypatch.setattr(Child, "say", say)
    supervisor._engines[0].ready = True
    for _ in range(20):
        supervisor._link(front, 0)
    assert said == ["engine", "front-0"]
    assert front.link_at[0] <= time.monotonic() + RELINK
    front.linked[0] -= RELINK
    supervisor._link(front, 0)
    assert said == ["engine", "front-0"] * 2


def test_streams_that_other_fronts_have_open_take_places_too() -> None:
    places = Places(2)
    places.elsewhere = 1
    with places.one("stream"), pytest.raises(Overloaded), places.one("stream"):
        pass


def test_a_line_of_the_log_says_which_process_wrote_it(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[logging.Handler] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **options: handlers.extend(options["handlers"]))
    set_up("info", "text", "front-1")
    record = logging.LogRecord("indrnn", logging.INFO, "", 0, "ready", None, None)
    assert handlers[0].filter(record)
    assert TextFormatter().format(record).endswith("ready part=front-1")
