"""Read the settings from the environment; no other file of the service does."""

import os
import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "INDRNN_"
OF_TESTS = ("CHAOS", "CONTAINER", "FRONTS", "FUZZ", "INSTALL", "PAGE", "RAY", "REPLICAS", "SHARDS", "SILERO")
ELSEWHERE = frozenset({"INDRNN_DATA", *(f"INDRNN_TEST_{name}" for name in OF_TESTS)})  # of model/ and of tests
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^\s/?#@,]+/?", re.IGNORECASE)
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def _bundles() -> Path:
    """Return ./bundles, or where there is none the bundles that came with the package."""
    here = Path("bundles")
    return here if here.is_dir() else Path(__file__).parents[1] / here


MOST_SHARDS = 64  # engine's processes of one service; a map of a store that says more is none


class SettingsError(Exception):
    """An error of the environment; the message names the variable."""


class Settings(BaseSettings):
    """All settings, with defaults. The variable INDRNN_X sets the field `x`; HOST and PORT set host and port as well."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", populate_by_name=True)

    host: str = Field("127.0.0.1", description="address to listen on", validation_alias=AliasChoices("HOST", "INDRNN_HOST"))
    port: int = Field(8000, ge=0, le=65535, description="port to listen on", validation_alias=AliasChoices("PORT", "INDRNN_PORT"))
    grpc_port: int | None = Field(None, ge=0, le=65535, description="port of the Open Inference Protocol over gRPC; none by default")
    grpc_keepalive: float = Field(
        60.0, ge=1, le=2e6, description="seconds of silence after which a gRPC connection is asked for a sign of life"
    )
    grpc_keepalive_timeout: float = Field(20.0, gt=0, le=2e6, description="seconds for that sign, before the connection is closed")
    grpc_ping_interval: float = Field(
        10.0, ge=0, le=2e6, description="seconds that a gRPC client leaves between its own pings; more often ends the connection"
    )
    root_path: str = Field(
        "", description="path below which a proxy shows the service: /api; X-Forwarded-Prefix says it of one request; none by default"
    )
    bundles: Path = Field(default_factory=_bundles, description="the model repository; default: ./bundles, or what came with the package")
    page: Path = Field(
        default_factory=lambda: Path(__file__).parent / "http" / "static",
        description="the built live page; default: what `make page` has made",
    )
    poll: float = Field(5.0, ge=0, description="seconds between looks at the model repository for new and removed versions; 0: never")
    versions: int = Field(
        1, ge=1, description="newest versions of a model that take new sessions; older ones stay for the sessions they have"
    )
    linger: float = Field(86_400.0, ge=0, description="seconds an older or removed version stays loaded at most for the sessions it has")
    model_control: bool = Field(False, description="whether clients may load and unload models over the Open Inference Protocol")
    model_download: bool = Field(True, description="whether clients may download the graphs of models, as the page does to run them itself")
    store: str = Field("var/sessions.db", description="where sessions live: the path of an SQLite file, or redis://, rediss://, unix://")
    store_durability: Literal["strict", "relaxed"] = Field(
        "strict",
        description="strict: on the disk before the reply, or no start; relaxed: a power cut, or how Redis is set, may lose steps",
    )
    provider: Literal["auto", "cuda", "cpu"] = Field("auto", description="auto takes the GPU where it is the faster at warm-up")
    fronts: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = Field(
        0,
        description="processes that speak with clients, beside one that has the models and the store; 0: one process does all; "
        "auto: 1 where there are two cores, 2 from four on",
    )
    shards: Annotated[int, Field(ge=1, le=MOST_SHARDS)] | Literal["auto"] = Field(
        1,
        description="processes that have the models and a part of the sessions each, where there are fronts; "
        "auto: one for each four cores, from eight on",
    )
    commit_thread: bool | Literal["auto"] = Field(
        "auto",
        description="whether what a run came to is stored on a thread of its own while the next one runs; "
        "auto: with fronts, where there are more than two cores",
    )
    hang_timeout: float = Field(
        30.0, gt=1, le=3600, description="seconds without a sign of life after which a process is killed and started again; with fronts"
    )
    threads: int = Field(1, ge=1, le=256, description="threads of one run of a model")
    max_body: int = Field(16 * 2**20, ge=1024, description="bytes of a request body or stream message")
    max_drain: int = Field(64 * 2**20, ge=1024, description="bytes read and dropped so that a client sees its 413")
    max_frames: int = Field(5_000, ge=1, description="frames of a clip, or of one step")
    max_text: int = Field(100_000, ge=1, description="characters of one step")
    max_every: int = Field(1_024, ge=1, description="frames or characters of one step that are scored one by one")
    max_generate: int = Field(4_096, ge=1, description="characters of one generate")
    max_keep: int = Field(64, ge=0, description="states after earlier steps that one session may keep; 0: no session keeps any")
    max_sequences: int = Field(256, ge=1, description="clips of one request")
    max_batch: int = Field(64, ge=1, description="rows of one run of a model")
    max_queue: int = Field(1_024, ge=1, description="steps that may wait for a model; more are answered 503")
    max_connections: int = Field(4_096, ge=1, description="open streams, WebSocket and gRPC together; more are refused")
    step_timeout: float = Field(30.0, gt=0, description="seconds a step may wait to begin before 503")
    body_timeout: float = Field(60.0, gt=0, description="seconds for a request's body to come in")
    send_timeout: float = Field(
        30.0, gt=0, description="seconds a client may leave an answer or a stream's message unread before it is dropped"
    )
    session_ttl: float = Field(86_400.0, gt=0, le=316e6, description="seconds a session lives after its last step")
    keys: Path | None = Field(None, description="file of API keys, a line name:sha256 each (indrnn key NAME); none lets all in")
    metrics_open: bool = Field(True, description="whether /metrics is answered without a key")
    origins: str = Field(
        "", description="other hosts' pages whose scripts may open streams and call the HTTP API: https://example.org by commas; * is all"
    )
    max_sessions: int | None = Field(
        None,
        ge=1,
        description="living sessions of one key, and sequences; one that keeps n states counts as 1 + n; more are refused, 429 and 503",
    )
    max_steps_per_second: float | None = Field(None, gt=0, description="steps, clips and generated characters a second of one key; 429")
    header_timeout: float = Field(10.0, gt=0, description="seconds for a request's headers, or a stream's handshake, to come in")
    drain_timeout: float = Field(10.0, gt=0, le=3600, description="seconds from SIGTERM to the end of the process at most")
    otel: bool = Field(False, description="whether OpenTelemetry's spans are sent where OTEL_… variables say; wants indrnn[otel]")
    log_format: Literal["text", "json"] = Field("text", description="how log lines are written; json: an object a line")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="how much is logged")

    @field_validator("root_path")
    @classmethod
    def _is_path(cls, path: str) -> str:
        """Raises ValueError at what no address has below its host."""
        if path.rstrip("/") and not _PATH.fullmatch(path.rstrip("/")):
            raise ValueError(f"expected a path like /api, got {path!r}")
        return path.rstrip("/")

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, origins: str) -> str:
        """Raises ValueError at an entry that no browser sends as an origin: the pages it was meant for would be refused."""
        for entry in filter(None, map(str.strip, origins.split(","))):
            if not _ORIGIN.fullmatch(entry):
                raise ValueError(f"expected origins like https://example.org by commas, or *, got {entry!r}")
        return origins


def read_settings() -> Settings:
    """Return the settings of the environment. Raises SettingsError on an unknown INDRNN_… variable or a value that does not fit."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | ELSEWHERE
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name not in known)
    if unknown:
        raise SettingsError(f"unknown variable {', '.join(unknown)}: expected one of {', '.join(sorted(known))}")
    try:
        settings = Settings()
    except ValidationError as error:
        said = dict.fromkeys(f"{name}: {_refusal(name, e)}" for e in error.errors() for name in [_name(e)])  # each kind of a field refuses
        raise SettingsError("; ".join(said)) from error
    if settings.grpc_port and settings.grpc_port == settings.port:
        raise SettingsError(f"INDRNN_GRPC_PORT: expected another port than PORT, got {settings.port} for both")
    return settings


def _name(error: Any) -> str:
    """Return the variable that pydantic's error is about."""
    return variable(str(error["loc"][0]))


def _refusal(name: str, error: Any) -> str:
    """Return what was expected of a variable and what came."""
    if error["type"] == "value_error":  # of a validator here, which says both
        return str(error["ctx"]["error"])
    field = Settings.model_fields[name.removeprefix(PREFIX).lower()]
    return f"expected {_expected(field)}, got {error['input']!r}"


def _expected(field: FieldInfo) -> str:
    """Return which values a field takes."""
    several = get_origin(field.annotation) in (Union, types.UnionType)
    kinds: list[Any] = [k for k in (get_args(field.annotation) if several else (field.annotation,)) if k is not type(None)]
    kind, limits = kinds[0], list(field.metadata)
    if get_origin(kind) is Annotated:
        kind, limits = get_args(kind)[0], [m for told in get_args(kind)[1:] for m in told.metadata]
    if get_origin(kind) is Literal:
        *first, last = map(repr, get_args(kind))
        return f"{', '.join(first)} or {last}"
    words = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a text")
    for limit, before in (("ge", "from"), ("gt", "above"), ("le", "to")):
        words += "".join(f" {before} {getattr(m, limit):.10g}" for m in limits if hasattr(m, limit))
    for other in kinds[1:]:
        words += "".join(f" or {value!r}" for value in get_args(other))
    return words


def variable(field: str) -> str:
    """Return the name of the variable that sets a field."""
    return field.upper() if field.lower() in ("host", "port") else PREFIX + field.upper()


def cores() -> int:
    """Return on how many cores this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
