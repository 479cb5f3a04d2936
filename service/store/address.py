"""Which store an address names."""

import re
from functools import partial
from pathlib import Path

from indrnn.service.session.shard import UNDIVIDED, Shard
from indrnn.service.store.protocol import Durability, Store, StoreError

SCHEMES = ("redis://", "rediss://", "unix://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""begins an address; the drive of a path has one letter"""


def open_store(address: str, durability: Durability = "strict", shard: Shard = UNDIVIDED) -> Store:
    """Return the store at the path of an SQLite file, or at a redis://, rediss:// or unix:// address. Raises StoreError.

    shard: whose sessions the caller wants. Each has a file of its own; a Redis has all.
    """
    if is_file(address):
        from indrnn.service.store.shards import open_shard
        from indrnn.service.store.sqlite import SQLiteStore

        opened = partial(SQLiteStore, durability=durability)
        return open_shard(path_of(address), shard, opened) if Path(address).name else opened(address)
    from indrnn.service.store.redis import RedisStore  # only where it is used: 80 ms of start-up

    return RedisStore(address, durability)


def is_file(address: str) -> bool:
    """Return whether the store is a file. Raises StoreError at an address of something else, which is no file that is there.

    SQLite takes what begins with `file:` for an address of its own.
    """
    if address.startswith(SCHEMES):
        return False
    scheme = _SCHEME.match(address)
    if scheme is not None and (scheme[0].lower() == "file:" or not any(Path(name).exists() for name in (address, f"{address}-shards"))):
        redis = "redis://[user:password@]host[:port][/db], rediss://… or unix://path[?db=n]"
        raise StoreError(f"store: expected {redis}, or the path of a file, got {scheme[0]}…")  # the rest may have a password
    return True


def path_of(address: str) -> Path:
    """Return the path of a store that is a file: where a link leads, since log, lock and shards lie beside the file, by its own name.

    Raises StoreError where it leads nowhere that can be looked at: in a circle, or into a folder that is closed.
    """
    path = Path(address)
    try:
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:
        raise StoreError(f"store {address}: expected a file, got a link that leads nowhere: {error}") from error


def divide(address: str, shards: int) -> None:
    """Bring a store to so many shards, before anybody opens it. Raises StoreError, also where a service has it."""
    if is_file(address) and Path(address).name and address.strip():
        from indrnn.service.store.shards import bring_to

        bring_to(path_of(address), shards)


def living_elsewhere(address: str, shard: Shard, now: float) -> set[tuple[str, str]]:
    """Return the model versions that have living sessions in the files of the other shards. Raises StoreError."""
    if shard.of == 1 or not is_file(address):
        return set()
    from indrnn.service.store.shards import living_in, shard_files

    return living_in([path for k, path in enumerate(shard_files(path_of(address), shard.of)) if k != shard.number], now)
