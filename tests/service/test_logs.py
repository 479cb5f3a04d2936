"""How log lines look, in both forms."""

import json
import logging
import sys
from types import SimpleNamespace

import pytest

from indrnn.service.logs import SHOWN, JsonFormatter, TextFormatter, about

MODEL = SimpleNamespace(name="chars", version="2")


def record(message: str, **extra: object) -> logging.LogRecord:
    return logging.getLogger("x").makeRecord(
        "indrnn.service.engine.batcher", logging.WARNING, "f.py", 1, message, ("a",), None, extra=extra
    )


def test_a_line_names_only_what_it_is_about() -> None:
    assert about(MODEL) == {"model": "chars/2"}
    assert about(None, None, 3) == {"step": 3}
    assert about(MODEL, "abcdefghijklmnopqrstuvwxyz12", 1) == {"model": "chars/2", "session": "abcdefghij…", "step": 1}


def test_an_id_that_is_logged_leaves_enough_of_it_unsaid() -> None:
    assert SHOWN * 6 <= 64, "bits said of 128"


def test_json_is_one_object_a_line_whatever_the_message_holds() -> None:
    line = JsonFormatter().format(record("two\nlines and %s", **about(MODEL, "0123456789abcdef", 7)))
    assert "\n" not in line
    told = json.loads(line)
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "warning",
        "logger": "indrnn.service.engine.batcher",
        "message": "two\nlines and a",
        "model": "chars/2",
        "session": "0123456789…",
        "step": 7,
    }


def test_text_says_the_same_at_the_end_of_the_line() -> None:
    assert (
        TextFormatter()
        .format(record("%s", **about(MODEL, None, 7)))
        .endswith("WARNING indrnn.service.engine.batcher: a model=chars/2 step=7")
    )
    assert TextFormatter().format(record("%s")).endswith("WARNING indrnn.service.engine.batcher: a")


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_traceback_is_kept(formatter: logging.Formatter) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        made = record("%s")
        made.exc_info = sys.exc_info()
    assert "ValueError: why" in formatter.format(made)
