"""The files of a store whose sessions are parted over shards, the map that says how many there are, and how they come from one number to
another.

    sessions.db                  all sessions, where there is no map
    sessions-K-of-S.db           the sessions of shard K (service/session/shard.py), a store of its own with its lock; it has K and S in it
    sessions.db-shards           the map: S, and the digest of the signing key that all have
    sessions.db-shards-moving    from how many shards to how many sessions are being moved

A move writes its note, then the new files beside the old, then the map, renamed into place, then removes the old files and its note. What
the map says holds whole sessions at every moment; a note that was left says which files are not whole, or no longer needed.
"""

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from indrnn.service.session.shard import UNDIVIDED, Shard, shard_of
from indrnn.service.settings import MOST_SHARDS
from indrnn.service.store.mark import held_by, mark_of, named, whole_of
from indrnn.service.store.protocol import StoreError
from indrnn.service.store.sqlite import SQLiteStore, back_up, copied, explained, held, looked_at

log = logging.getLogger(__name__)

TABLES = ("sessions", "histories", "kept")
"""the tables whose rows belong to the session in their column `id`"""
BESIDE = ("", "-wal", "-shm", "-journal", "-lock")
"""the ends of the names of a store's files"""
BARRIER = 30.0  # seconds in which a backup tries to find all shards between two commits
PATIENCE = 0.05  # seconds for one shard's commit to end, while commits of others may wait for the backup
HELD = 0.3  # seconds that commits wait for one try; a service gives up after a second
PAUSE = 0.02  # seconds between two tries, for the commits that have waited


class ShardMap(NamedTuple):
    """The number of shards, and the digest of their signing key."""

    shards: int
    key: str


class Move(NamedTuple):
    """A change of the number of shards."""

    source: int
    target: int


def shard_file(store: Path, shard: Shard) -> Path:
    """Return the file of a shard of the store at that path."""
    return store if shard.of == 1 else store.with_name(f"{store.stem}-{shard.number}-of-{shard.of}{store.suffix}")


def shard_files(store: Path, shards: int) -> list[Path]:
    """Return the files of all shards."""
    return [shard_file(store, Shard(k, shards)) for k in range(shards)]


def map_file(store: Path) -> Path:
    """Return the file of the map."""
    return store.with_name(f"{store.name}-shards")


def note_file(store: Path) -> Path:
    """Return the file that says that sessions are being moved."""
    return store.with_name(f"{store.name}-shards-moving")


def read_map(store: Path) -> ShardMap | None:
    """Return the map of a store; None where all sessions are in one file. Raises StoreError."""
    said = _read(map_file(store), {"shards", "key"})
    return None if said is None else ShardMap(_count(map_file(store), said["shards"]), str(said["key"]))


def open_shard(store: Path, shard: Shard, open_file: Callable[[Path], SQLiteStore]) -> SQLiteStore:
    """Return the store of a shard, or all of it, as the map says. Raises StoreError, also where the map says another number of shards."""
    known = _fitting(store, shard.of)
    path = shard_file(store, shard)
    if known is not None:
        _need(path, store)
    _need_own(store, [shard])
    opened = open_file(path)
    try:
        known = _fitting(store, shard.of)  # again: whoever moves sessions had the lock of this file, if not before, then not any more
        if known is not None and key_digest(opened.key) != known.key:
            raise StoreError(f"store {path}: its signing key is not the one of {map_file(store)}: it belongs to another store")
        _need_own(store, [shard])
        if shard.of > 1:
            opened.mark(mark_of(shard))  # a file of an earlier release has none
    except StoreError:
        opened.close()
        raise
    except sqlite3.Error as error:
        opened.close()
        raise StoreError(f"store {path}: {explained(error)}") from error
    return opened


def _need_own(store: Path, shards: Sequence[Shard]) -> None:
    """Raises StoreError where the file of one of these shards has another's sessions, by itself, or with the log beside it.

    First without the log, which may be another file's; neither look changes anything, while an open file has taken its log in for good.
    """
    for with_log in (False, True):
        wrong = _others(store, shards, with_log)
        if not wrong:
            continue
        if UNDIVIDED in wrong:
            whole = whole_of(store)
            raise StoreError(
                f"store {store}: expected all sessions of a store, got shard {wrong[UNDIVIDED].number} of {wrong[UNDIVIDED].of} alone: give"
                f" INDRNN_STORE the name of the whole, {'as in that of its map' if whole is None else whole}, and set INDRNN_SHARDS"
            )
        wrong = _others(store, [Shard(k, shards[0].of) for k in range(shards[0].of)], with_log) | wrong
        said = ", ".join(f"{shard_file(store, shard).name} has shard {has.number} of {has.of}" for shard, has in wrong.items())
        raise StoreError(f"store {store}: {said}{_put_right(store, wrong, with_log)}, or put all back from one backup")


def _others(store: Path, shards: Sequence[Shard], with_log: bool) -> dict[Shard, Shard]:
    """Return those of the shards whose file has another's sessions, and whose."""
    wrong: dict[Shard, Shard] = {}
    for shard in shards:
        path = shard_file(store, shard)
        if with_log and not _has_log(path):
            continue
        whole = whole_of(path)
        lies_there = shard.of == 1 and path.is_file() and whole is not None and map_file(whole).exists()
        has = held_by(path, shard, immutable=not with_log) or (named(path) if lies_there else None)
        if has is not None and has != shard:
            wrong[shard] = has
    return wrong


def _has_log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.is_file() and log.stat().st_size > 0


def _put_right(store: Path, wrong: Mapping[Shard, Shard], with_log: bool) -> str:
    """Return what to do about files with others' sessions, where no file has to give way for it."""
    if with_log:
        return ", read with the -wal beside it: put each -wal beside the .db that it was written with"
    names = ", ".join(shard_file(store, has).name for has in wrong.values())
    if set(wrong) == set(wrong.values()):
        return f": rename the .db files to {names}, each with its -wal only where that was renamed with it"
    there = [shard_file(store, has).name for has in wrong.values() if shard_file(store, has).exists()]
    return f": {', '.join(there)} lies there already: rename none over it" if there else f": find the files of {names}"


def _fitting(store: Path, shards: int) -> ShardMap | None:
    """Return the map. Raises StoreError where it says another number of shards, or sessions are being moved."""
    known = read_map(store)
    there = 1 if known is None else known.shards
    if there != shards or note_file(store).exists():
        raise StoreError(f"store {store}: its sessions are in {there} shards, expected {shards}: `indrnn serve` moves them at its start")
    return known


def key_digest(key: bytes) -> str:
    """Return the digest of a signing key, by which files that belong together are told."""
    return hashlib.sha256(key).hexdigest()


def bring_to(store: Path, shards: int, done: Callable[[str], None] = lambda step: None) -> None:
    """Bring a store to so many shards, moving its sessions; what was cut by a kill is done anew, or cleared away.

    `done` is told after each step. Raises StoreError, also where a service has the store; then all is as it was.
    """
    if not note_file(store).exists() and _is(store, shards):
        for path in shard_files(store, shards) if shards > 1 else ():
            _need(path, store)
        _need_own(store, [Shard(k, shards) for k in range(shards)])
        return
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        with held(store):
            _clear_move(store)
            if not _is(store, shards):
                _move(store, shards, done)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"store {store}: its sessions could not be moved to {shards} shards: {explained(error)}") from error


def _is(store: Path, shards: int) -> bool:
    """Return whether a store has so many shards. Raises StoreError where it has files of shards and no map, or one file beside the map."""
    known = read_map(store)
    if known is not None:
        if min(known.shards, shards) > 1 and store.exists() and not note_file(store).exists():  # a move that was cut leaves its note
            raise StoreError(
                f"store {store}: it lies beside {map_file(store).name}, of {known.shards} shards: which of them is meant? Move one away"
            )
        return known.shards == shards
    stray = sorted(store.parent.glob(f"{_escaped(store.stem)}-*-of-*{_escaped(store.suffix)}")) if not note_file(store).exists() else []
    stray = [path for path in stray if whole_of(path) == store]
    if stray:
        raise StoreError(
            f"store {store}: {stray[0].name} lies there without {map_file(store).name}: put the map beside it, or move it away"
        )
    return shards == 1


def _escaped(part: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in part)


def _clear_move(store: Path) -> None:
    """Remove what a move that was cut has left: the new files where the map is the old one, the old ones where it is the new."""
    said = _read(note_file(store), {"source", "target"})
    if said is None:
        return
    moved = Move(*(_count(note_file(store), said[end]) for end in ("source", "target")))
    known = read_map(store)
    there = 1 if known is None else known.shards
    if there not in moved:
        raise StoreError(f"store {store}: expected {moved.source} or {moved.target} shards, got {there}: see docs/store.md")
    left = moved.target if there == moved.source else moved.source
    log.warning("sessions were being moved from %d to %d shards; %d are whole", *moved, there)
    _remove(shard_files(store, left), keep_lock=left == 1)
    _end_move(store)


def _end_move(store: Path) -> None:
    note_file(store).unlink()
    _sync_folder(store.parent)


def _move(store: Path, shards: int, done: Callable[[str], None]) -> None:
    known = read_map(store)
    before = 1 if known is None else known.shards
    sources, targets = shard_files(store, before), shard_files(store, shards)
    for path in sources if known is not None else ():
        _need(path, store)
    for path in targets:
        if path.exists():
            meant = store.name if known is None else f"the files of {before} shards and {map_file(store).name}"
            raise StoreError(
                f"store {store}: {path} is in the way of the sessions of {before} shard{'s' * (before > 1)}:"
                f" move it away, or, where it is what you mean to serve, {meant}"
            )
    _need_own(store, [Shard(k, before) for k in range(before)])
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(contextlib.closing(SQLiteStore(path, lock=before > 1))) for path in sources]
        keys = {one.key for one in opened}
        if len(keys) > 1 or (known is not None and known.key != key_digest(opened[0].key)):
            raise StoreError(f"store {store}: its files have not one signing key, that of the map: they do not belong together")
        (key,) = keys
        _write(note_file(store), Move(before, shards)._asdict())
        done("note")
        moved = 0
        try:
            for k, path in enumerate(targets):
                moved += _fill(path, key, Shard(k, shards), sources)
                done(f"file {k}")
            if moved != (there := sum(_rows(path) for path in sources)):
                raise StoreError(f"store {store}: {there} rows became {moved}")
        except (OSError, sqlite3.Error, StoreError):
            _remove(targets, keep_lock=shards == 1)
            _end_move(store)
            raise
        _sync_folder(store.parent)
        if shards == 1:
            map_file(store).unlink()
        else:
            _write(map_file(store), ShardMap(shards, key_digest(key))._asdict())
        _sync_folder(store.parent)
        done("map")
    _remove(sources, keep_lock=before == 1)
    done("old files")
    _end_move(store)
    if moved:
        log.info("%d sessions, and states that they keep, moved from %d to %d shards", moved, before, shards)


def _fill(path: Path, key: bytes, shard: Shard, sources: Sequence[Path]) -> int:
    """Make the file of a shard of those rows of the sources that belong there, and return how many they are."""
    with contextlib.closing(SQLiteStore(path, key=key, lock=False)) as made:
        if shard.of > 1:
            made.mark(mark_of(shard))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous=FULL")
        db.create_function("shard_of", 2, shard_of, deterministic=True)
        for source in sources:
            db.execute("ATTACH ? AS source", (str(source),))
            db.execute("BEGIN IMMEDIATE")
            for table in TABLES:
                columns = ", ".join(name for _, name, *_ in db.execute(f"PRAGMA main.table_info({table})"))
                db.execute(
                    f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM source.{table} WHERE shard_of(id, ?) = ?",
                    (shard.of, shard.number),
                )
            db.execute("COMMIT")
            db.execute("DETACH source")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return _rows(path)


def _rows(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return sum(int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in TABLES)


def living_in(paths: Sequence[Path], now: float) -> set[tuple[str, str]]:
    """Return the model versions with living sessions in files that others may be using. Raises StoreError."""
    found: set[tuple[str, str]] = set()
    for path in paths:
        try:
            with contextlib.closing(looked_at(path)) as db:
                found.update(db.execute("SELECT DISTINCT model, version FROM sessions WHERE expires_at > ?", (now,)))
        except sqlite3.Error as error:
            raise StoreError(f"store {path}: {error}") from error
    return found


def back_up_shards(store: Path, target: Path) -> None:
    """Copy a store, all its shards and their map, as it is at one moment, while a service may be using it.

    The copy is a store at the path `target`, with as many shards, and is there when its map is. Raises StoreError.
    """
    known, older = read_map(store), read_map(target)
    _refuse_own(store, target, known)
    if known is None:
        back_up(store, target)
        map_file(target).unlink(missing_ok=True)
    else:
        _back_up_all(store, target, known)
        target.unlink(missing_ok=True)  # a copy from before there were shards, which somebody might take for this one
    if older is not None and (known is None or known.shards != older.shards):
        _remove(shard_files(target, older.shards))


def _refuse_own(store: Path, target: Path, known: ShardMap | None) -> None:
    """Refuse a copy that would take the place of what is copied. Raises StoreError."""
    shards = 1 if known is None else known.shards
    own = {os.path.realpath(f"{path}{end}") for path in (store, *shard_files(store, shards), map_file(store)) for end in BESIDE}
    if any(os.path.realpath(path) in own for path in (target, *shard_files(target, shards), map_file(target))):
        raise StoreError(f"backup of {store} to {target}: expected the path of a copy, got the store's own")


def _back_up_all(store: Path, target: Path, known: ShardMap) -> None:
    sources, targets = shard_files(store, known.shards), shard_files(target, known.shards)
    parts = [path.with_name(f"{path.name}.part") for path in targets]
    try:
        for path in sources:
            _need(path, store)
        with _barrier(sources) as readers:
            for reader, part in zip(readers, parts, strict=True):
                copied(reader, part)
        map_file(target).unlink(missing_ok=True)  # what stands there until the end may be of two moments
        for part, path in zip(parts, targets, strict=True):
            part.replace(path)
        _write(map_file(target), known._asdict())
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"backup of {store} to {target}: {error}") from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def _barrier(sources: Sequence[Path]) -> Iterator[list[sqlite3.Connection]]:
    """Give connections that read every file as it is at one moment, at which no shard commits."""
    with contextlib.ExitStack() as stack:

        def connected(path: Path) -> sqlite3.Connection:
            uri = f"{path.absolute().as_uri()}?mode=rw"
            made = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None)
            return stack.enter_context(contextlib.closing(made))

        writers, readers = [connected(path) for path in sources], [connected(path) for path in sources]
        until = time.monotonic() + BARRIER
        while not _begun(writers, readers, time.monotonic() > until):
            time.sleep(PAUSE)
        yield readers


def _begun(writers: Sequence[sqlite3.Connection], readers: Sequence[sqlite3.Connection], last: bool) -> bool:
    """Begin to read with all readers while nobody commits; return whether it came to that, with none of them where it did not.

    Raises sqlite3.Error, also where a shard is busy at the last try.
    """
    until, begun = time.monotonic() + HELD, False
    try:
        for writer in writers:
            writer.execute("BEGIN IMMEDIATE")  # from here on nobody else commits
            if time.monotonic() > until and not last:
                return False
        for reader in readers:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM meta").fetchone()  # takes the read transaction
        begun = True
    except sqlite3.OperationalError as error:
        if last or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    finally:
        for db in writers if begun else (*writers, *readers):
            if db.in_transaction:
                db.execute("ROLLBACK")
    return True


# --- small files, and their folder ------------------------------------------------------------------------------------------------------


def _read(path: Path, fields: set[str]) -> dict[str, object] | None:
    """Return what a small file says; None where there is none. Raises StoreError where it is something else."""
    try:
        said = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"store: {path} could not be read: {error}") from error
    if type(said) is not dict or set(said) != fields:
        raise StoreError(f"store: expected {', '.join(sorted(fields))} in {path}, got {str(said)[:80]}")
    return said


def _count(path: Path, value: object) -> int:
    if type(value) is not int or not 1 <= value <= MOST_SHARDS:
        raise StoreError(f"store: expected shards from 1 to {MOST_SHARDS} in {path}, got {value!r}")
    return value


def _write(path: Path, said: dict[str, object]) -> None:
    """Write a small file, durably: it is there whole, or as it was."""
    part = path.with_name(f"{path.name}.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(json.dumps(said) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    held = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def _need(path: Path, store: Path) -> None:
    """Raises StoreError where a file is missing that the map says is there; it says so of a map that is wrong itself."""
    if path.is_file():
        return
    known = read_map(store)
    others = [n for n in range(2, MOST_SHARDS + 1) if known and n != known.shards and all(p.is_file() for p in shard_files(store, n))]
    if known and others and not any(p.is_file() for p in shard_files(store, known.shards)):
        raise StoreError(
            f"store {store}: {map_file(store)} says {known.shards} shards, whose files are missing, and those of"
            f" {' and of '.join(map(str, others))} lie there: put the right map in its place, or correct its number"
        )
    raise StoreError(f"store {store}: {path} is missing, which {map_file(store)} says is there: put it back")


def _remove(paths: Sequence[Path], keep_lock: bool = False) -> None:
    for path in paths:
        for end in BESIDE[:-1] if keep_lock else BESIDE:
            path.with_name(path.name + end).unlink(missing_ok=True)
