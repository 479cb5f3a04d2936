"""How log lines are written: as text, or as JSON, a line each; with the model, session and step that a line is about, and which part of
the service writes it, where it has more than one process.

Of a session's id only the beginning is said: where there are no keys, whoever has the whole id has the session.
"""

import logging
from datetime import UTC, datetime
from functools import partial
from typing import Literal, Protocol

import orjson

FIELDS = ("part", "model", "session", "step")
SHOWN = 10  # characters of an id, of 22 random ones: enough to tell sessions apart, not to go on with one


class Named(Protocol):
    """Whatever says of which model it is: a manifest."""

    @property
    def name(self) -> str:
        """The model's."""

    @property
    def version(self) -> str:
        """The model's."""


def about(model: Named | None, session_id: str | None = None, step: int | None = None) -> dict[str, object]:
    """What a line is about, as `extra` of a log call."""
    fields = {
        "model": model and f"{model.name}/{model.version}",
        "session": session_id and f"{session_id[:SHOWN]}…",
        "step": step,
    }
    return {name: value for name, value in fields.items() if value is not None}


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What the line is about."""
    return {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}


class TextFormatter(logging.Formatter):
    """A line of text; what it is about stands at its end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # named by logging
        """The line without a traceback."""
        return super().formatMessage(record) + "".join(f" {name}={value}" for name, value in fields_of(record).items())


class JsonFormatter(logging.Formatter):
    """An object: time, level, logger, message, what it is about, and a traceback in `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def set_up(level: str, form: Literal["text", "json"], part: str | None = None) -> None:
    """All lines, the web server's too, to standard error in one form; part: which of the service's processes writes them."""
    handler = logging.StreamHandler()
    if part is not None:
        handler.addFilter(partial(_name_part, part))
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in ("uvicorn.error", "websockets"):  # their debug lines hold what clients send, keys too
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))
    logging.getLogger("uvicorn.error").addFilter(without_query)


def without_query(record: logging.LogRecord) -> bool:
    """Leave the query out of a line on a WebSocket's handshake: nothing here reads it, and who errs puts a key there."""
    if isinstance(record.args, tuple) and "WebSocket %s" in str(record.msg):
        record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
    return True


def _name_part(part: str, record: logging.LogRecord) -> bool:
    record.part = part
    return True
