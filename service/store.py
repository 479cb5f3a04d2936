"""Where sessions live: one protocol, and SQLite behind it.

A change is durable when `commit` returns, and none of a commit's changes is when it raises.
"""

import contextlib
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from service.errors import StoreFailed
from service.record import decode_carry, decode_step, encode_carry, encode_step
from service.session import Session
from service.session_id import new_key

SCHEMA_VERSION = 1
CACHED_SESSIONS = 4_096
SLICE = 200  # sessions looked at by expire before it lets others at the file: about 4 ms
CACHED_RESULT = 4_096  # bytes; a longer stored result is read back from the file


class StoreError(Exception):
    """The store cannot be opened; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """One session before and after; `before` None creates it, `after` None removes it."""

    before: Session | None
    after: Session | None


class Store(Protocol):
    """What the service asks of a store. Every method may block, and may be called from any thread."""

    key: bytes
    """signs session ids; made once and kept in the store"""

    def load(self, ids: Sequence[str]) -> dict[str, Session]:
        """The sessions of these ids that exist. Raises StoreFailed."""

    def commit(self, changes: Sequence[Change]) -> None:
        """Makes all changes durable, or none. Raises StoreFailed."""

    def list(self, owner: str, now: float, limit: int) -> list[Session]:
        """An owner's living sessions, newest first; their results are left out. Raises StoreFailed."""

    def count(self, owner: str, now: float) -> int:
        """How many living sessions an owner has. Raises StoreFailed."""

    def expire(self, now: float) -> int:
        """Removes the sessions whose time is over; how many. Raises StoreFailed."""

    def close(self) -> None:
        """Releases the store for other processes."""


_COLUMNS = "id, model, version, digest, owner, step, position, created_at, expires_at, state, last, carry"
_ROW = f"({','.join('?' * (_COLUMNS.count(',') + 1))})"
_ON_CONFLICT = """ON CONFLICT (id) DO UPDATE SET
    step = excluded.step, position = excluded.position, expires_at = excluded.expires_at,
    state = excluded.state, last = excluded.last, carry = excluded.carry"""
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, owner TEXT NOT NULL,
    step INTEGER NOT NULL, position INTEGER NOT NULL, created_at REAL NOT NULL, expires_at REAL NOT NULL,
    state BLOB NOT NULL, last BLOB, carry BLOB
);
CREATE INDEX sessions_by_owner ON sessions (owner, created_at);
"""


class SQLiteStore:
    """One file, write-ahead log, synchronous=FULL: a commit is on the disk before it returns. One process holds the file.

    Recently used sessions are also kept in memory, written through; nobody else can change the file.
    """

    def __init__(self, path: Path | str) -> None:
        if "://" in str(path):
            raise StoreError(f"store: expected the path of a file, got the address {path}")
        path = Path(path)
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, Session] = OrderedDict()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
            self.key = self._open()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"store {path}: {_explain(error)}") from error

    def _open(self) -> bytes:
        db = self._db
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        (journal,) = db.execute("PRAGMA journal_mode").fetchone()
        if journal != "wal":
            raise sqlite3.DatabaseError(f"expected a file that can have a write-ahead log, got journal mode {journal}")
        db.execute("BEGIN IMMEDIATE")  # takes the lock now, and keeps it
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                db.execute(statement)
            db.execute("INSERT INTO meta VALUES ('key', ?)", (new_key(),))
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
        if version not in (0, SCHEMA_VERSION):
            raise sqlite3.DatabaseError(f"expected schema {SCHEMA_VERSION}, got {version}")
        (key,) = db.execute("SELECT value FROM meta WHERE name = 'key'").fetchone()
        return bytes(key)

    def load(self, ids: Sequence[str]) -> dict[str, Session]:
        """See Store."""
        with self._lock:
            found = {i: self._cache[i] for i in ids if i in self._cache}
            for i in found:
                self._cache.move_to_end(i)
            missing = [i for i in ids if i not in found]
            if missing:
                marks = ",".join("?" * len(missing))
                try:
                    rows = self._db.execute(f"SELECT {_COLUMNS} FROM sessions WHERE id IN ({marks})", missing).fetchall()
                except sqlite3.Error as error:
                    raise StoreFailed(f"the store could not be read: {error}") from error
                for row in rows:
                    found[row[0]] = _session(row)
                    self._keep(found[row[0]])
        return found

    def commit(self, changes: Sequence[Change]) -> None:
        """See Store."""
        kept = [c.after for c in changes if c.after is not None]
        gone = [c.before.id for c in changes if c.after is None and c.before is not None]
        upsert = f"INSERT INTO sessions ({_COLUMNS}) VALUES {','.join([_ROW] * len(kept))} {_ON_CONFLICT}"
        values = [value for s in kept for value in _row(s)]
        with self._lock:
            try:
                if not gone:
                    self._db.execute(upsert, values)  # one statement is one transaction, and gives up the interpreter lock only once
                else:
                    self._commit_with_removals(upsert if kept else "SELECT 1", values, gone)
            except sqlite3.Error as error:
                self._abandon([*(s.id for s in kept), *gone])
                raise StoreFailed(f"the new state could not be stored: {error}") from error
            for session in kept:
                self._keep(session)
            for i in gone:
                self._cache.pop(i, None)

    def _commit_with_removals(self, upsert: str, values: Sequence[object], gone: Sequence[str]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(upsert, values)
        self._db.executemany("DELETE FROM sessions WHERE id = ?", [(i,) for i in gone])
        self._db.execute("COMMIT")

    def list(self, owner: str, now: float, limit: int) -> list[Session]:
        """See Store."""
        columns = _COLUMNS.replace("state, last, carry", "x'', NULL, NULL")
        query = f"SELECT {columns} FROM sessions WHERE owner = ? AND expires_at > ? ORDER BY created_at DESC LIMIT ?"
        with self._lock:
            try:
                return [_session(row) for row in self._db.execute(query, (owner, now, limit))]
            except sqlite3.Error as error:
                raise StoreFailed(f"the store could not be read: {error}") from error

    def count(self, owner: str, now: float) -> int:
        """See Store."""
        query = "SELECT count(*) FROM sessions WHERE owner = ? AND expires_at > ?"
        with self._lock:
            try:
                return int(self._db.execute(query, (owner, now)).fetchone()[0])
            except sqlite3.Error as error:
                raise StoreFailed(f"the store could not be read: {error}") from error

    def expire(self, now: float) -> int:
        """See Store. Goes through the table in slices, and commits of steps come in between."""
        removed, first = 0, 0
        try:
            while True:
                with self._lock:
                    slice_of = "SELECT max(rowid) FROM (SELECT rowid FROM sessions WHERE rowid >= ? ORDER BY rowid LIMIT ?)"
                    (last,) = self._db.execute(slice_of, (first, SLICE)).fetchone()
                    if last is None:
                        break
                    delete = "DELETE FROM sessions WHERE rowid BETWEEN ? AND ? AND expires_at <= ?"
                    removed += self._db.execute(delete, (first, last, now)).rowcount
                first = last + 1
        except sqlite3.Error as error:
            raise StoreFailed(f"the store could not be written: {error}") from error
        with self._lock:
            for i in [i for i, s in self._cache.items() if s.expires_at <= now]:
                del self._cache[i]
        return removed

    def close(self) -> None:
        """See Store."""
        with self._lock:
            self._db.close()

    def _keep(self, session: Session) -> None:
        size = 0 if session.last is None else _result_size(session)
        if size > CACHED_RESULT:
            self._cache.pop(session.id, None)
            return
        self._cache[session.id] = session if session.flight is None else session._replace(flight=None)
        self._cache.move_to_end(session.id)
        if len(self._cache) > CACHED_SESSIONS:
            self._cache.popitem(last=False)

    def _abandon(self, ids: Iterable[str]) -> None:
        for i in ids:
            self._cache.pop(i, None)
        with contextlib.suppress(sqlite3.Error):  # the file is gone or full; the next commit says so again
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _result_size(session: Session) -> int:
    result = session.last.result if session.last else None
    return sum(getattr(result, name).nbytes for name in ("logits", "every", "logprobs") if hasattr(result, name))


def _row(s: Session) -> tuple[object, ...]:
    last = encode_step(s.last) if s.last else None
    carry = encode_carry(s.carry) if s.carry else None
    state = s.state.astype("<f4", copy=False).tobytes()
    return s.id, s.model, s.version, s.digest, s.owner, s.step, s.position, s.created_at, s.expires_at, state, last, carry


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


def _explain(error: Exception) -> str:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return "another process holds it (stop that one, or give this one a file of its own: INDRNN_STORE)"
    return str(error)
