"""How many processes a service is, and what its supervisor binds; tests/system/test_fronts.py kills each of them."""

import logging
import socket
from typing import Literal

import pytest

from indrnn.service.errors import Overloaded
from indrnn.service.logs import TextFormatter, set_up
from indrnn.service.serving.connections import Places
from indrnn.service.settings import SettingsError
from indrnn.service.supervisor import front_count, listen


@pytest.mark.parametrize(
    ("fronts", "cores", "expected"),
    [(0, 8, 0), (1, 1, 1), (3, 2, 3), ("auto", 1, 0), ("auto", 2, 1), ("auto", 3, 1), ("auto", 4, 2), ("auto", 64, 2)],
)
def test_fronts_are_as_many_as_are_asked_for_or_as_one_engine_can_feed(fronts: int | Literal["auto"], cores: int, expected: int) -> None:
    assert front_count(fronts, cores) == expected


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
