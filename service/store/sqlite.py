"""Sessions in one SQLite file that one service has for itself.

The lock that keeps a second service out is on a file beside it. SQLite's own locks are taken per transaction only, so that a backup, or
anybody's `sqlite3`, may read while the service runs.
"""

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from indrnn.service.errors import StoreFailed, Unreadable
from indrnn.service.session.ids import new_key
from indrnn.service.session.machine import History, Session
from indrnn.service.store.protocol import Change, Durability, Population, StoreError
from indrnn.service.store.record import (
    Kept,
    decode_carry,
    decode_marks,
    decode_snapshot,
    decode_step,
    encode_carry,
    encode_marks,
    encode_snapshot,
    encode_step,
    little,
    read_each,
    rewritten,
)

T = TypeVar("T")
SLICE = 200  # sessions looked at by expire before it lets others at the file: about 4 ms
PAGE_SIZE = 8_192  # bytes, of a new file: a row of some 8 KB is one page and not two: a commit of 32 takes 0.85 of the time
APPLICATION_ID = int.from_bytes(b"IndR", "big")  # where SQLite and `file` look for whose file it is

PARAMETERS = 30_000  # of one statement at most; SQLite's own limit is 32,766 as it is usually built

_BEGINS = b"SQLite format 3\0"  # every file of SQLite's but an empty one
_UNTAGGED = b""  # nobody else may change the file
_TEXTS = "id", "model", "version", "digest", "owner"
_NUMBERS = "step", "position", "created_at", "expires_at"
_COLUMNS = ", ".join((*_TEXTS, *_NUMBERS, "state", "last", "carry"))
_WIDTH = _COLUMNS.count(",") + 1
_ROW = f"({','.join('?' * _WIDTH)})"
_ON_CONFLICT = """ON CONFLICT (id) DO UPDATE SET
    version = excluded.version, digest = excluded.digest, created_at = excluded.created_at,
    step = excluded.step, position = excluded.position, expires_at = excluded.expires_at,
    state = excluded.state, last = excluded.last, carry = excluded.carry"""

# The statements at n bring a file of schema n to n + 1; a new file goes through all of them.
_MIGRATIONS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, owner TEXT NOT NULL,
        step INTEGER NOT NULL, position INTEGER NOT NULL, created_at REAL NOT NULL, expires_at REAL NOT NULL,
        state BLOB NOT NULL, last BLOB, carry BLOB
    );
    CREATE INDEX sessions_by_owner ON sessions (owner, created_at);
    INSERT INTO meta VALUES ('key', :key);
    """,
    f"""
    PRAGMA application_id = {APPLICATION_ID};
    INSERT INTO meta VALUES ('probe', 0);
    """,
    # Only sessions that keep states have rows here, so that the others are what they were. Rows that belong to a session go with it.
    """
    CREATE TABLE histories (id TEXT PRIMARY KEY, keep INTEGER NOT NULL, marks BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE kept (id TEXT NOT NULL, step INTEGER NOT NULL, state BLOB NOT NULL, PRIMARY KEY (id, step));
    """,
)
SCHEMA_VERSION = len(_MIGRATIONS)


class SQLiteStore:
    """One file, write-ahead log, synchronous=FULL: a commit is on the disk before it returns. One process holds the file.

    Recently used sessions are also kept in memory, written through; nobody else may change the file. Threads of this process may want to
    change one session from where it no longer stands: the later is refused.
    `relaxed` leaves out the wait for the disk: a kill loses nothing, a power cut the last commits.
    """

    def __init__(self, path: Path | str, durability: Durability = "strict", key: bytes | None = None, lock: bool = True) -> None:
        """key: signs the ids of a new file, in place of one that is drawn; lock: False where whoever opens it holds the lock already."""
        self._path = Path(path)
        self._key_of_new = key
        self._lock = threading.Lock()
        self._kept = Kept()
        self._synchronous = "FULL" if durability == "strict" else "NORMAL"
        self._held: int | None = None
        if not str(path).strip():
            raise StoreError("store: expected the path of a file or the address of a Redis (INDRNN_STORE), got nothing")
        if str(path) == ":memory:":
            raise StoreError("store :memory:: expected a file, which outlives the service")
        self.graphs: dict[str, int] = {}
        try:
            _refuse_others(self._path)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if lock:
                self._held, self._new_lock = _hold(self._path)
            os.close(os.open(self._path, os.O_RDONLY | os.O_CREAT, 0o600))  # what lies in it is worth what its sessions are
            self._db = sqlite3.connect(self._path, timeout=1.0, isolation_level=None, check_same_thread=False)
            self.key = self._open()
            self._files = _identity(self._path)
        except (OSError, sqlite3.Error) as error:
            if self._held is not None and self._new_lock:
                os.unlink(f"{self._path}-lock")  # while it is held: _hold sees that the name is another file's
            self.close()
            raise StoreError(f"store {path}: {explained(error)}") from error

    def _open(self) -> bytes:
        db = self._db
        self._recognize()
        for pragma in (f"page_size={PAGE_SIZE}", "journal_mode=WAL", f"synchronous={self._synchronous}"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        (journal,) = db.execute("PRAGMA journal_mode").fetchone()
        if journal != "wal":
            raise sqlite3.DatabaseError(f"expected a file that can have a write-ahead log, got journal mode {journal}")
        db.execute("BEGIN IMMEDIATE")
        self._migrate()
        db.execute("UPDATE meta SET value = value + 1 WHERE name = 'probe'")  # makes the log, whose file is then known
        db.execute("COMMIT")
        (key,) = db.execute("SELECT value FROM meta WHERE name = 'key'").fetchone()
        return bytes(key)

    def _migrate(self) -> None:
        """Bring the file to this schema within the transaction that is open."""
        db = self._db
        (version,) = db.execute("PRAGMA user_version").fetchone()
        for statements in _MIGRATIONS[version:]:
            for statement in filter(str.strip, statements.split(";")):
                db.execute(statement, {"key": self._key_of_new or new_key()} if ":key" in statement else {})
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _recognize(self) -> None:
        """Look whose file it is, before anything in it is changed. Raises DatabaseError where it is somebody else's, or a newer one."""
        db = self._db
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (owner,) = db.execute("PRAGMA application_id").fetchone()
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        unmarked = (version == 0 and not tables) or (version == 1 and tables == {"meta", "sessions"})  # new, or from before the mark
        if owner != APPLICATION_ID and not unmarked:
            raise sqlite3.DatabaseError(f"expected a file of sessions, got a database of something else (application id {owner})")
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"expected schema {SCHEMA_VERSION} or older, got {version}: a newer service has written it")

    def load(self, ids: Sequence[str]) -> dict[str, Session]:
        """Load the sessions of these ids, as Store says.

        Those in memory are what the last commit has left, also while the next one runs, which has the lock: no wait for them.
        """
        known = self._kept.find(ids)
        if len(known) == len(ids):
            return {i: one.session for i, one in known.items()}
        with self._lock:
            try:
                found, wrong = self._read(ids)
            except sqlite3.Error as error:
                raise StoreFailed(f"the store could not be read: {error}") from error
        if wrong:
            raise Unreadable.of(wrong)
        return found

    def _read(self, ids: Sequence[str]) -> tuple[dict[str, Session], dict[str, Exception]]:
        """Return those of the sessions that exist, and what is wrong with those that cannot be read."""
        found = {i: known.session for i, known in self._kept.find(ids).items()}
        missing = [i for i in ids if i not in found]
        wrong: dict[str, Exception] = {}
        if missing:
            try:
                new = self._read_rows(missing)
            except Exception as error:
                if isinstance(error, sqlite3.Error) and not _of_a_row(error):
                    raise
                each, wrong = read_each({i: i for i in missing}, lambda i, _: self._read_rows([i]).get(i))
                for failed in wrong.values():
                    if isinstance(failed, sqlite3.Error) and not _of_a_row(failed):
                        raise failed from None
                new = {i: session for i, session in each.items() if session is not None}
            self._kept.keep((session, _UNTAGGED) for session in new.values())
            found |= new
        return found, wrong

    def _read_rows(self, ids: Sequence[str]) -> dict[str, Session]:
        found: dict[str, Session] = {}
        for some in _cut(ids, PARAMETERS):
            marks = ",".join("?" * len(some))
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM sessions WHERE id IN ({marks})", some).fetchall()
            new = {row[0]: _session(row) for row in rows}
            found |= new | self._read_histories(new) if new else new
        return found

    def _read_histories(self, sessions: Mapping[str, Session]) -> dict[str, Session]:
        """Return those of the sessions that keep states, with them."""
        ids = list(sessions)
        histories = self._db.execute(f"SELECT id, keep, marks FROM histories WHERE id IN ({','.join('?' * len(ids))})", ids).fetchall()
        found = {}
        for ident, keep, marks in histories:
            rows = self._db.execute("SELECT state FROM kept WHERE id = ? ORDER BY step", (ident,))
            past = tuple(decode_snapshot(state) for (state,) in rows)
            found[ident] = sessions[ident]._replace(history=History(keep, past, decode_marks(marks)))
        return found

    def commit(self, changes: Sequence[Change]) -> frozenset[str]:
        """Commit the changes, as Store says. All that are made are one transaction."""
        written = _Written.of(changes)
        with self._lock:
            try:
                self._need_files()
                if lost := self._moved(changes):
                    written = _Written.of([c for c in changes if c.id not in lost])
                self._write(written)
            except (OSError, sqlite3.Error) as error:
                self._abandon([c.id for c in changes])
                raise StoreFailed(f"the new state could not be stored: {error}") from error
            self._kept.keep((session, _UNTAGGED) for session in written.kept)
            self._kept.drop(written.gone)
        return lost

    def _moved(self, changes: Sequence[Change]) -> frozenset[str]:
        """Return the sessions whose `before` is not what the file has. Where it is the very object in memory, nothing is looked at."""
        unsure = [c for c in changes if c.before is None or self._kept.tag_of(c.before) is None]
        if not unsure:
            return frozenset()
        there, wrong = self._read([c.id for c in unsure])
        return frozenset(c.id for c in unsure if c.id in wrong or not _same(there.get(c.id), c.before))

    def _write(self, written: "_Written") -> None:
        kept, values, gone, keeping = written
        if not kept and not gone:
            return
        if not gone and not keeping and len(values) <= PARAMETERS:
            _upsert(self._db, values)  # one statement is one transaction, and gives up the interpreter lock only once
        else:
            self._commit_more(values, gone, keeping)

    def _commit_more(self, values: Sequence[object], gone: Sequence[str], keeping: Sequence[Change]) -> None:
        """Commit as many rows as there are, removals too, and what changes of the states that sessions keep."""
        self._db.execute("BEGIN IMMEDIATE")
        for some in _cut(values, PARAMETERS // _WIDTH * _WIDTH):
            _upsert(self._db, some)
        self._db.executemany("DELETE FROM sessions WHERE id = ?", [(i,) for i in gone])
        if keeping:
            self._write_histories(keeping)
        self._db.execute("COMMIT")

    def _write_histories(self, changes: Sequence[Change]) -> None:
        """Write what changes of kept states, within the transaction that is open."""
        made = [(c.id, rewritten(c.before, c.after)) for c in changes]
        _remove_histories(self._db, [c.id for c in changes if c.after is None or c.after.history is None])
        histories = [(i, m.history.keep, encode_marks(m.history.marks)) for i, m in made if m.history is not None]
        self._db.executemany("INSERT OR REPLACE INTO histories (id, keep, marks) VALUES (?, ?, ?)", histories)
        self._db.executemany("DELETE FROM kept WHERE id = ? AND step = ?", [(i, step) for i, m in made for step in m.gone])
        new = [(i, at.step, encode_snapshot(at)) for i, m in made for at in m.new]
        self._db.executemany("INSERT OR REPLACE INTO kept (id, step, state) VALUES (?, ?, ?)", new)

    def list(self, owner: str, now: float, limit: int) -> list[Session]:
        """List an owner's living sessions, as Store says."""
        texts, numbers = ", ".join(f"CAST({name} AS BLOB)" for name in _TEXTS), ", ".join(_NUMBERS)
        query = (
            f"SELECT {texts}, {numbers}, x'', NULL, NULL FROM sessions WHERE owner = ? AND expires_at > ? ORDER BY created_at DESC LIMIT ?"
        )
        with self._lock:
            try:
                rows = self._db.execute(query, (owner, now, limit)).fetchall()
            except sqlite3.Error as error:
                raise StoreFailed(f"the store could not be read: {error}") from error
        return _listed(rows)

    def count(self, owner: str, now: float) -> int:
        """Count an owner's living sessions, as Store says."""
        query = "SELECT count(*) + coalesce(sum(keep), 0) FROM sessions LEFT JOIN histories USING (id) WHERE owner = ? AND expires_at > ?"
        with self._lock:
            try:
                return int(self._db.execute(query, (owner, now)).fetchone()[0])
            except sqlite3.Error as error:
                raise StoreFailed(f"the store could not be read: {error}") from error

    def census(self, now: float) -> tuple[Population, ...]:
        """Count the living sessions of each model version, as Store says."""
        counted: Counter[tuple[str, str, str]] = Counter()
        stored: Counter[tuple[str, str, str]] = Counter()
        query = (
            "SELECT CAST(model AS BLOB), CAST(version AS BLOB), CAST(digest AS BLOB), count(*), sum(length(state)) FROM sessions"
            " WHERE rowid BETWEEN ? AND ? AND expires_at > ? GROUP BY model, version, digest"
        )
        try:
            for first, last in self._slices():
                with self._lock:
                    rows = self._db.execute(query, (first, last, now)).fetchall()
                for *texts, sessions, size in rows:
                    with contextlib.suppress(UnicodeDecodeError):  # of a damaged row
                        model, version, digest = (text.decode() for text in texts)
                        counted[model, version, digest] += sessions
                        stored[model, version, digest] += size
        except sqlite3.Error as error:
            raise StoreFailed(f"the store could not be read: {error}") from error
        return tuple(Population(*key, sessions, stored[key]) for key, sessions in sorted(counted.items()))

    def _slices(self) -> Iterator[tuple[int, int]]:
        """Yield the rows of the table, the first and the last of a slice at a time."""
        first = 0
        while True:
            with self._lock:
                slice_of = "SELECT max(rowid) FROM (SELECT rowid FROM sessions WHERE rowid >= ? ORDER BY rowid LIMIT ?)"
                (last,) = self._db.execute(slice_of, (first, SLICE)).fetchone()
            if last is None:
                return
            yield first, last
            first = last + 1

    def expire(self, now: float) -> int:
        """Remove expired sessions, as Store says. Goes through the table in slices, and commits of steps come in between."""
        removed = 0
        try:
            for first, last in self._slices():
                with self._lock:
                    removed += self._expire_slice(first, last, now)
        except sqlite3.Error as error:
            raise StoreFailed(f"the store could not be written: {error}") from error
        return removed

    def _expire_slice(self, first: int, last: int, now: float) -> int:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            delete = "DELETE FROM sessions WHERE rowid BETWEEN ? AND ? AND expires_at <= ? RETURNING id"
            gone = [i for (i,) in self._db.execute(delete, (first, last, now)).fetchall()]
            _remove_histories(self._db, gone)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self._abandon(())
            raise
        self._kept.drop(gone)
        return len(gone)

    def check(self) -> None:
        """Check that the store can be written, as Store says."""
        with self._lock:
            try:
                self._need_files()
                self._db.execute("UPDATE meta SET value = value + 1 WHERE name = 'probe'")
            except (OSError, sqlite3.Error) as error:
                self._abandon(())
                raise StoreFailed(f"the store could not be written: {error}") from error

    def mark(self, text: str) -> None:
        """Write into the file which part of a store it is (service/store/mark.py). Raises sqlite3.Error."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('shard', ?)", (text,))
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Close the database and let go of its lock, as Store says."""
        with self._lock:
            if hasattr(self, "_db"):
                self._db.close()
            if self._held is not None:
                os.close(self._held)
                self._held = None

    def _need_files(self) -> None:
        """SQLite writes to a file that was deleted as happily as to any other. 3 µs a commit."""
        if _identity(self._path) != self._files:
            raise FileNotFoundError(f"{self._path} or its log was replaced while the service runs: restart it")

    def _abandon(self, ids: Iterable[str]) -> None:
        self._kept.drop(ids)
        with contextlib.suppress(sqlite3.Error):  # the file is gone or full; the next commit says so again
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def looked_at(path: Path, immutable: bool = False) -> sqlite3.Connection:
    """Return a connection that only reads; immutable: the file as it is without its log. Raises sqlite3.Error."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' * immutable}", uri=True)


def back_up(source: Path, target: Path) -> None:
    """Copy a store as it is at one moment, while a service may be using it; `target` appears, or is replaced, when it is complete.

    Raises StoreError.
    """
    part = target.with_name(target.name + ".part")
    try:
        with contextlib.closing(looked_at(source)) as db:
            (owner,) = db.execute("PRAGMA application_id").fetchone()
            if owner != APPLICATION_ID:
                raise sqlite3.DatabaseError(f"expected a file of sessions, got application id {owner}")
            copied(db, part)
        part.replace(target)
    except (OSError, sqlite3.Error) as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"backup of {source} to {target}: {error}") from error


def copied(db: sqlite3.Connection, part: Path) -> None:
    """Copy a database, all pages in one read transaction, which hinders no writer, to a new file. Raises OSError, sqlite3.Error."""
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.closing(sqlite3.connect(part)) as copy:
        db.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    with part.open("rb") as written:
        os.fsync(written.fileno())


def _refuse_others(path: Path) -> None:
    """Refuse what is no SQLite file before a lock is made beside it. Raises OSError, DatabaseError."""
    if path.is_dir():
        raise IsADirectoryError("expected a file, got a folder")
    log = path.with_name(f"{path.name}-wal")
    if (
        log.is_file() and log.stat().st_size and not (path.exists() and path.stat().st_size)
    ):  # SQLite would delete the log, and what is in it
        there = "an empty one" if path.exists() else "none"
        raise sqlite3.DatabaseError(f"expected a file of sessions, got {there} beside its log {log.name}: move the log away to begin anew")
    if not path.exists():
        return
    if not path.is_file():
        raise FileExistsError("expected a file, got a device, a pipe or a socket")
    if (names := path.stat().st_nlink) > 1:  # each would have a log and a lock of its own
        raise FileExistsError(f"expected a file of one name, got one of {names} (hard links): remove the others, or copy the file")
    with path.open("rb") as file:
        begins = file.read(len(_BEGINS))
    if begins and begins != _BEGINS:
        raise sqlite3.DatabaseError("expected a file of sessions, got one that is not a database")


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of a store, without opening it. Raises BlockingIOError when another has it."""
    descriptor, _ = _hold(path)
    try:
        yield
    finally:
        os.close(descriptor)


def _hold(path: Path) -> tuple[int, bool]:
    """Lock the store for this process until the file descriptor is closed, and return that, and whether the lock's file is new.

    Raises BlockingIOError when another has it, also where another took the lock's file away in the meantime.

    On a file of its own: closing any descriptor of the database would drop SQLite's locks on it.
    """
    name = f"{path}-lock"
    new = not os.path.lexists(name)
    held = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.exists(name) or not os.path.samestat(os.fstat(held), os.stat(name)):
            raise BlockingIOError(f"{name} was replaced")
    except OSError:
        os.close(held)
        raise
    return held, new


class _Written(NamedTuple):
    """The contents of a commit: sessions and their rows' values, the ids of those it removes, and the changes of those that keep states."""

    kept: list[Session]
    values: list[object]
    gone: list[str]
    keeping: list[Change]

    @classmethod
    def of(cls, changes: Sequence[Change]) -> "_Written":
        kept = [c.after for c in changes if c.after is not None]
        gone = [c.before.id for c in changes if c.after is None and c.before is not None]
        keeping = [c for c in changes if (c.after and c.after.history) or (c.before and c.before.history)]
        return cls(kept, [value for s in kept for value in _row(s)], gone, keeping)


def _identity(path: Path) -> tuple[tuple[int, int], ...]:
    """Return the identity of the files that the names stand for: the database and its log."""
    stats = (os.stat(path), os.stat(f"{path}-wal"))
    return tuple((s.st_dev, s.st_ino) for s in stats)


def _upsert(db: sqlite3.Connection, values: Sequence[object]) -> None:
    """Write rows of sessions in one statement."""
    rows = ",".join([_ROW] * (len(values) // _WIDTH))
    db.execute(f"INSERT INTO sessions ({_COLUMNS}) VALUES {rows} {_ON_CONFLICT}", values)


def _cut(values: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Yield pieces of at most so many values."""
    return (values[at : at + most] for at in range(0, len(values), most))


def _remove_histories(db: sqlite3.Connection, ids: Sequence[str]) -> None:
    for table in ("histories", "kept"):
        db.executemany(f"DELETE FROM {table} WHERE id = ?", [(i,) for i in ids])


def _same(one: Session | None, other: Session | None) -> bool:
    """Return whether two sessions are stored alike."""
    if one is None or other is None:
        return one is other
    plain = [tuple(v.tobytes() if isinstance(v, np.ndarray) else v for v in _row(s)) for s in (one, other)]
    return plain[0] == plain[1] and _keeping(one.history) == _keeping(other.history)


def _keeping(history: History | None) -> tuple[object, ...]:
    return () if history is None else (history.keep, history.marks, *(encode_snapshot(at) for at in history.past))


def _row(s: Session) -> tuple[object, ...]:
    ident, model, version, digest, owner, state, step, position, created_at, expires_at, last, carry, _, _ = s
    step_bytes = None if last is None else encode_step(last)
    carry_bytes = None if carry is None else encode_carry(carry)
    memory = little(state)  # as it is
    return ident, model, version, digest, owner, step, position, created_at, expires_at, memory, step_bytes, carry_bytes


def _session(row: tuple[object, ...]) -> Session:
    ident, model, version, digest, owner, step, position, created_at, expires_at, state, last, carry = row
    return Session(
        id=str(ident),
        model=str(model),
        version=str(version),
        digest=str(digest),
        owner=str(owner),
        state=np.frombuffer(bytes(state), "<f4").astype(np.float32, copy=False),  # type: ignore[call-overload]  # a BLOB column
        step=int(step),  # type: ignore[call-overload]  # an INTEGER column
        position=int(position),  # type: ignore[call-overload]  # an INTEGER column
        created_at=float(created_at),  # type: ignore[arg-type]  # a REAL column
        expires_at=float(expires_at),  # type: ignore[arg-type]  # a REAL column
        last=decode_step(last) if isinstance(last, bytes) else None,
        carry=decode_carry(carry) if isinstance(carry, bytes) else None,
    )


def _listed(rows: Iterable[tuple[Any, ...]]) -> list[Session]:
    """Return the sessions of rows whose texts are bytes; a damaged row is told of when its session is asked for, and ends no list."""
    found = []
    for row in rows:
        with contextlib.suppress(TypeError, ValueError):
            found.append(_session((*(text.decode() for text in row[: len(_TEXTS)]), *row[len(_TEXTS) :])))
    return found


def _of_a_row(error: sqlite3.Error) -> bool:
    """Return whether a row, or the page that it lies on, is wrong, and not the file or the disk: the others may be read."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return type(error) is sqlite3.OperationalError  # a text that is not UTF-8; a closed database is a ProgrammingError
    return bool(code & 0xFF == sqlite3.SQLITE_CORRUPT)


def explained(error: Exception) -> str:
    """Return why a file could not be opened."""
    if isinstance(error, BlockingIOError) or (isinstance(error, sqlite3.OperationalError) and "locked" in str(error)):
        return "another process holds it (stop that one, or give this one a file of its own: INDRNN_STORE)"
    return str(error)
