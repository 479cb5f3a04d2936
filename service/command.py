"""`indrnn serve`, and what belongs to it: `settings` lists the variables that can be set, `key NAME` makes an API key and prints the
secret, once, `backup FILE` copies the SQLite store, `openapi` prints openapi.yaml."""

import argparse
import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from io import RawIOBase
from pathlib import Path

import orjson

from indrnn.export.bundle import BundleError
from indrnn.service.app import create_app
from indrnn.service.engine.runtime import EngineError
from indrnn.service.logs import set_up
from indrnn.service.process import serve_alone
from indrnn.service.serving.request import KeysError, new_key, read_keys
from indrnn.service.settings import Settings, SettingsError, cores, read_settings, variable
from indrnn.service.store.address import divide, is_file, path_of
from indrnn.service.store.protocol import StoreError
from indrnn.service.store.shards import back_up_shards
from indrnn.service.supervisor import process_counts, supervise


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Settings are environment variables; only two commands take an argument."""
    if command == "backup":
        parser.add_argument("file", type=Path, help="where the copy goes; replaced when the copy is complete")
    if command == "key":
        parser.add_argument("name", help="of the key's owner; the key's hash is added to the file INDRNN_KEYS")
    if command == "serve":
        parser.add_argument(
            "--ray",
            nargs="*",
            metavar="NAME=VALUE",
            help="on Ray Serve, as replicas over machines: min_replicas, max_replicas, cpus, gpus, sessions, waiting (docs/scaling.md)",
        )
        parser.description = f"{parser.description} Settings are environment variables: `indrnn settings` lists them."


def run(command: str, args: argparse.Namespace, argv: list[str]) -> int:
    """Runs the command. Returns 1 when the service cannot start, with one line that says why."""
    if command == "settings":
        return _print_settings()
    try:
        settings = read_settings()
        if command == "openapi":
            return _print_openapi(settings)
        if command == "backup":
            return _back_up(settings, args.file)
        if command == "serve" and (given := getattr(args, "ray", None)) is not None:
            return _serve_on_ray(settings, given)
        return _add_key(settings, args.name) if command == "key" else _serve(settings)
    except (SettingsError, BundleError, EngineError, StoreError, KeysError) as error:
        print(f"indrnn: {error}", file=sys.stderr)
        return 1


def _serve(settings: Settings) -> int:
    set_up(settings.log_level, settings.log_format)
    _check(settings)
    fronts, shards = process_counts(settings, cores())
    divide(settings.store, shards)
    return supervise(settings, fronts, shards) if fronts else serve_alone(settings)


def _serve_on_ray(settings: Settings, given: Sequence[str]) -> int:
    from indrnn.service.cluster import serve_on_ray  # what serves alone needs none of it

    if wrong := [one for one in given if "=" not in one]:
        raise SettingsError(f"--ray: expected NAME=VALUE, got {', '.join(wrong)}")
    return serve_on_ray(settings, dict(one.split("=", 1) for one in given))


def _check(settings: Settings) -> None:
    """Refuse what would be refused when the models have been loaded. Raises KeysError, SettingsError."""
    if settings.keys is not None:
        read_keys(settings.keys)
    if not settings.grpc_port:
        return
    try:
        found = socket.getaddrinfo(settings.host, settings.grpc_port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            try:
                tried = socket.socket(family, kind, protocol)
            except OSError:
                continue  # a kernel without that family: the others will do
            with tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise SettingsError(f"INDRNN_GRPC_PORT: {settings.host}:{settings.grpc_port} cannot be listened on: {why}") from error


def _add_key(settings: Settings, name: str) -> int:
    """Makes a key: the secret to standard output and nowhere else, and when it has been shown its hash into the file."""
    if settings.keys is None:
        raise SettingsError("INDRNN_KEYS: expected the file that the key shall be added to")
    secret, line = new_key(name)
    with _appending(settings.keys) as (file, begun):
        print(secret, flush=True)  # before its hash is there: no key is active whose secret nobody has seen
        try:
            file.write(f"{begun}{line}\n".encode())
        except OSError as error:
            raise KeysError(f"keys {settings.keys}: {error}: the secret is not valid") from error
    print(
        f"{name} is in {settings.keys} now; the secret is shown only here. A running service looks at the file every INDRNN_POLL seconds.",
        file=sys.stderr,
    )
    return 0


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[tuple[RawIOBase, str]]:
    """Give the file to append to, and what ends a last line that has no end yet. A new file that stays empty is removed.

    Raises KeysError where it cannot be read and written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "ab+", buffering=0)
        size = file.seek(0, os.SEEK_END)
        begun = "\n" if size and os.pread(file.fileno(), 1, size - 1) != b"\n" else ""
    except OSError as error:
        raise KeysError(f"keys {path}: {error}") from error
    try:
        with file:
            yield file, begun
    finally:
        if new and not path.stat().st_size:
            path.unlink()


def _back_up(settings: Settings, target: Path) -> int:
    if not is_file(settings.store):
        raise StoreError("backup: expected a store in an SQLite file; Redis has ways of its own (docs/store.md)")
    back_up_shards(path_of(settings.store), target)
    return 0


def _print_openapi(settings: Settings) -> int:
    """The document of the service as it is set, as YAML that is also JSON, key by key."""
    import yaml

    yaml.safe_dump(orjson.loads(orjson.dumps(create_app(settings).openapi())), sys.stdout, sort_keys=False, width=120, allow_unicode=True)
    return 0


def _print_settings() -> int:
    """Each variable, its default, and what it means."""
    for name, field in Settings.model_fields.items():
        print(f"{variable(name):24} {field.get_default(call_default_factory=True)!s:18} {field.description or ''}")
    return 0
