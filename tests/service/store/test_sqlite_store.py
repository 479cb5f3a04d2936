"""SQLite: what commit promises, and what a second process gets."""

import contextlib
import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from indrnn.service.errors import StoreFailed, Unreadable
from indrnn.service.session.ids import issued, new_id
from indrnn.service.session.machine import History, Scores, Session, Snapshot, Step
from indrnn.service.session.shard import Shard
from indrnn.service.store.address import divide, open_store
from indrnn.service.store.protocol import Change, StoreError
from indrnn.service.store.record import read_each
from indrnn.service.store.sqlite import APPLICATION_ID, SCHEMA_VERSION, SQLiteStore, back_up


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "sessions.db"


def session(store: SQLiteStore, **changes: object) -> Session:
    base = Session(new_id(store.key), "m", "1", "d", "", np.arange(5, dtype=np.float32), 0, 0, 1.0, 100.0)
    return base._replace(**changes)  # type: ignore[arg-type]


def reopened(store: SQLiteStore, path: Path) -> SQLiteStore:
    store.close()
    return SQLiteStore(path)


def test_a_commit_that_fails_half_way_moves_nothing(path: Path) -> None:
    store = SQLiteStore(path)
    first, second = session(store), session(store)
    store.commit([Change(None, first), Change(None, second)])
    store._db.execute(f"CREATE TRIGGER no BEFORE UPDATE ON sessions WHEN new.id = '{second.id}' BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(StoreFailed, match="full"):
        store.commit([Change(first, first._replace(step=1)), Change(second, second._replace(step=1))])
    assert [s.step for s in store.load([first.id, second.id]).values()] == [0, 0]
    store._db.execute("DROP TRIGGER no")
    store.commit([Change(first, first._replace(step=1))])
    store = reopened(store, path)
    assert {i: s.step for i, s in store.load([first.id, second.id]).items()} == {first.id: 1, second.id: 0}
    store.close()


def test_a_second_process_is_refused_by_name(path: Path) -> None:
    store = SQLiteStore(path)
    code = f"from indrnn.service.store.sqlite import SQLiteStore; from pathlib import Path; SQLiteStore(Path({str(path)!r}))"
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    store.close()
    assert refused.returncode != 0
    assert f"store {path}: another process holds it" in refused.stderr


def test_a_file_of_a_newer_schema_is_refused(path: Path) -> None:
    store = SQLiteStore(path)
    store._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    store.close()
    with pytest.raises(StoreError, match=f"expected schema {SCHEMA_VERSION} or older, got {SCHEMA_VERSION + 1}: a newer service"):
        SQLiteStore(path)


# What the first release wrote, word for word.
VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, owner TEXT NOT NULL,
    step INTEGER NOT NULL, position INTEGER NOT NULL, created_at REAL NOT NULL, expires_at REAL NOT NULL,
    state BLOB NOT NULL, last BLOB, carry BLOB
);
CREATE INDEX sessions_by_owner ON sessions (owner, created_at);
PRAGMA user_version = 1;
"""


def version_1(path: Path) -> tuple[bytes, str]:
    """A file of the first release with one session at step 7: its key, the session's id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    key = b"k" * 32
    ident = new_id(key)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL").fetchall()
        db.executescript(VERSION_1)
        db.execute("INSERT INTO meta VALUES ('key', ?)", (key,))
        last = b'{"digest":"00","k":1,"n":0}\n' + np.float32(2.5).tobytes()
        state = np.arange(3, dtype="<f4").tobytes()
        db.execute("INSERT INTO sessions VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", (ident, "m", "1", "d", "o", 7, 70, 1.5, 9e9, state, last, None))
        db.commit()
    return key, ident


def test_a_file_of_the_first_release_is_brought_up_to_date_with_its_sessions(path: Path) -> None:
    key, ident = version_1(path)
    for _ in range(2):  # and again, when there is nothing left to do
        store = SQLiteStore(path)
        read = store.load([ident])[ident]
        assert store.key == key
        assert (read.step, read.position, read.owner, read.state.tolist()) == (7, 70, "o", [0, 1, 2])
        assert read.last is not None
        assert isinstance(read.last.result, Scores)
        assert read.last.result.logits == [2.5]
        assert store._db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert store._db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        store.check()
        store.close()


def test_a_migration_that_is_interrupted_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, ident = version_1(path)
    monkeypatch.setattr("indrnn.service.store.sqlite._MIGRATIONS", ("", "CREATE TABLE half (x); CREATE TABLE half (x);"))
    with pytest.raises(StoreError, match="half already exists"):
        SQLiteStore(path)
    monkeypatch.undo()
    store = SQLiteStore(path)
    assert store.load([ident])[ident].step == 7
    assert store.key == key
    store.close()


@pytest.mark.parametrize("version", [0, 1])
def test_somebody_elses_database_is_refused_and_left_alone(path: Path, version: int) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(f"CREATE TABLE customers (name TEXT); PRAGMA user_version = {version};")
    with pytest.raises(StoreError, match="a database of something else"):
        SQLiteStore(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_schema").fetchall() == [("customers",)]


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match="not a database"):
        SQLiteStore(path)


@pytest.mark.parametrize("content", [b"# a page\n" * 900, "customers", "folder"])
def test_what_is_refused_is_left_without_litter(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "theirs"
    if content == "folder":
        path.mkdir()
    elif content == "customers":
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE customers (name TEXT)")
    else:
        path.write_bytes(content)  # type: ignore[arg-type]  # bytes, as the others are names
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(StoreError, match="expected a file"):
        SQLiteStore(path)
    assert [p.name for p in tmp_path.iterdir()] == ["theirs"]
    assert before is None or path.read_bytes() == before


def test_a_store_without_a_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="got nothing"):
        SQLiteStore("")
    assert list(tmp_path.iterdir()) == []


def test_a_store_by_a_link_has_log_and_lock_beside_the_file_itself(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link, file = tmp_path / "sessions.db", tmp_path / "disk" / "own.db"
    link.symlink_to(file)  # which is not there yet
    with contextlib.closing(open_store(str(link))):
        assert (tmp_path / "disk" / "own.db-lock").exists()
        with pytest.raises(StoreError, match="another process holds it"):
            open_store(str(file))
    divide(str(link), 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "sessions.db"]
    with contextlib.closing(open_store(str(link), shard=Shard(1, 2))):
        assert (tmp_path / "disk" / "own-1-of-2.db-lock").exists()
    circle = tmp_path / "circle.db"
    circle.symlink_to(circle)
    with pytest.raises(StoreError, match=r"circle\.db: "):
        open_store(str(circle))


def test_a_file_of_two_names_is_refused_and_left_alone(path: Path, tmp_path: Path) -> None:
    SQLiteStore(path).close()
    other = tmp_path / "other.db"
    os.link(path, other)
    with pytest.raises(StoreError, match=r"expected a file of one name, got one of 2 \(hard links\)"):
        SQLiteStore(other)
    assert not tmp_path.joinpath("other.db-lock").exists()
    other.unlink()
    SQLiteStore(path).close()


def test_a_lock_that_was_there_before_stays(path: Path) -> None:
    """Whoever waits for it would otherwise hold another file than the next who comes."""
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
    lock = Path(f"{path}-lock")
    lock.touch()
    with pytest.raises(StoreError, match="a database of something else"):
        SQLiteStore(path)
    assert lock.exists()


def test_a_lock_whose_name_is_another_files_by_now_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    lock = Path(f"{path}-lock")
    flock = fcntl.flock

    def late(held: int, how: int) -> None:
        lock.unlink()  # by one that was refused
        flock(held, how)

    monkeypatch.setattr("indrnn.service.store.sqlite.fcntl.flock", late)
    with pytest.raises(StoreError, match="another process holds it"):
        SQLiteStore(path)


def test_sessions_and_copies_are_for_their_owner_alone(path: Path, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = SQLiteStore(path)
        store.commit([Change(None, session(store))])
        back_up(path, tmp_path / "copy.db")
        files = [*path.parent.iterdir(), tmp_path / "copy.db"]
        assert {p.name: oct(p.stat().st_mode & 0o777) for p in files} == {p.name: "0o600" for p in files}
        assert len(files) == 5  # with log, index and lock
        store.close()
        path.chmod(0o640)
        SQLiteStore(path).close()
        assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_commits_are_synchronous(path: Path) -> None:
    store = SQLiteStore(path)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


def test_what_is_in_memory_is_read_while_a_commit_runs(path: Path) -> None:
    store = SQLiteStore(path)
    first = session(store)
    store.commit([Change(None, first)])
    found: list[object] = []
    with store._lock:  # as a commit has it
        reader = threading.Thread(target=lambda: found.append(store.load([first.id])))
        reader.start()
        reader.join(20)
        assert found == [{first.id: first}]
    store.close()


def test_removed_and_expired_sessions_are_gone_and_the_others_stay(path: Path) -> None:
    store = SQLiteStore(path)
    old, removed, kept = session(store, expires_at=5.0), session(store), session(store)
    store.commit([Change(None, s) for s in (old, removed, kept)])
    store.commit([Change(removed, None)])
    assert store.expire(5.0) == 1
    assert list(store.load([old.id, removed.id, kept.id])) == [kept.id]
    store = reopened(store, path)
    assert list(store.load([old.id, removed.id, kept.id])) == [kept.id]
    assert issued(store.key, old.id)
    store.close()


def test_expiry_goes_through_the_whole_table_in_slices(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indrnn.service.store.sqlite.SLICE", 3)
    store = SQLiteStore(path)
    made = [session(store, expires_at=float(i % 2)) for i in range(20)]
    store.commit([Change(None, s) for s in made])
    assert store.expire(0.5) == 10
    assert sorted(store.load([s.id for s in made])) == sorted(s.id for s in made[1::2])
    store.close()


def test_long_results_are_not_kept_in_memory_but_are_there(path: Path) -> None:
    store = SQLiteStore(path)
    long = Step(b"\x03" * 16, Scores(np.ones(27, np.float32), np.ones((5000, 27), np.float32), np.zeros(0, np.float32)))
    written = session(store, last=long)
    store.commit([Change(None, written)])
    assert store._kept.find([written.id]) == {}
    last = store.load([written.id])[written.id].last
    assert last is not None
    assert isinstance(last.result, Scores)
    assert last.result.every.shape == (5000, 27)
    store.close()


def test_a_file_that_is_deleted_or_replaced_fails_every_commit_until_it_is_back(path: Path) -> None:
    store = SQLiteStore(path)
    made = session(store)
    store.commit([Change(None, made)])
    for name in (path, Path(f"{path}-wal")):
        aside = path.with_name("aside")
        name.rename(aside)
        with pytest.raises(StoreFailed, match="No such file"):
            store.commit([Change(made, made._replace(step=1))])
        with pytest.raises(StoreFailed):
            store.check()
        name.write_bytes(b"another file")
        with pytest.raises(StoreFailed, match="was replaced while the service runs"):
            store.commit([Change(made, made._replace(step=1))])
        aside.rename(name)
        store.check()
    assert store.load([made.id])[made.id].step == 0
    store.close()


def test_relaxed_does_not_wait_for_the_disk(path: Path) -> None:
    store = SQLiteStore(path, "relaxed")
    assert store._db.execute("PRAGMA synchronous").fetchone() == (1,)
    store.close()


def test_a_backup_under_load_is_one_moment_of_the_store(path: Path, tmp_path: Path) -> None:
    """All sessions move in step, in one transaction each time: a copy in which they differ would be of two moments."""
    store = SQLiteStore(path)
    sessions = [session(store, state=np.zeros(1000, np.float32)) for _ in range(50)]
    store.commit([Change(None, s) for s in sessions])
    stop = threading.Event()
    seen: set[int] = set()

    def load() -> None:
        now = sessions
        while not stop.is_set():
            after = [s._replace(step=s.step + 1) for s in now]
            store.commit([Change(a, b) for a, b in zip(now, after, strict=True)])
            now = after

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for n in range(20):
            target = tmp_path / "copies" / f"{n % 2}.db"
            target.parent.mkdir(exist_ok=True)
            back_up(path, target)
            assert [p.name for p in target.parent.iterdir() if p.suffix != ".db"] == []
            copy = SQLiteStore(target)
            steps = {s.step for s in copy.load([s.id for s in sessions]).values()}
            assert len(steps) == 1
            seen |= steps
            assert copy.key == store.key
            copy.close()
            for left in target.parent.iterdir():
                if left.name.endswith("-lock"):
                    left.unlink()
    finally:
        stop.set()
        thread.join(20)
    assert len(seen) > 1, "nothing moved while copies were made"
    store.close()


def test_a_backup_of_nothing_or_to_nowhere_says_so(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open"):
        back_up(path, tmp_path / "copy.db")
    store = SQLiteStore(path)
    with pytest.raises(StoreError, match="nowhere"):
        back_up(path, tmp_path / "nowhere" / "copy.db")
    store.close()
    back_up(path, tmp_path / "copy.db")  # also of a store that nobody uses
    (tmp_path / "other.db").write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match="not a database"):
        back_up(tmp_path / "other.db", tmp_path / "copy.db")
    SQLiteStore(tmp_path / "copy.db").close()


def test_of_sessions_that_keep_states_nothing_is_left_and_of_others_nothing_is_written(path: Path) -> None:
    store = SQLiteStore(path)
    history = History(4, (Snapshot(np.zeros(5, np.float32), 0, 0, None),))
    removed, expired, plain = session(store, history=history), session(store, history=history, expires_at=2.0), session(store)
    store.commit([Change(None, plain)])
    assert [store._db.execute(f"SELECT count(*) FROM {t}").fetchone() for t in ("histories", "kept")] == [(0,), (0,)]
    store.commit([Change(None, removed), Change(None, expired)])
    assert [store._db.execute(f"SELECT count(*) FROM {t}").fetchone() for t in ("histories", "kept")] == [(2,), (2,)]
    assert store.expire(3.0) == 1
    store.commit([Change(removed, None)])
    assert [store._db.execute(f"SELECT count(*) FROM {t}").fetchone() for t in ("histories", "kept")] == [(0,), (0,)]
    store.close()


def test_a_commit_whose_kept_states_cannot_be_written_moves_nothing(path: Path) -> None:
    store = SQLiteStore(path)
    first = session(store, history=History(4))
    store.commit([Change(None, first)])
    store._db.execute("CREATE TRIGGER no BEFORE INSERT ON kept BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(StoreFailed, match="full"):
        store.commit([Change(first, first._replace(step=1, history=History(4, (first.standing,))))])
    store._db.execute("DROP TRIGGER no")
    store = reopened(store, path)
    found = store.load([first.id])[first.id]
    assert (found.step, found.history) == (0, History(4))
    store.close()


def test_what_is_no_sessions_fault_is_no_unreadable_session(tmp_path: Path) -> None:
    def read(ident: str, row: str) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        read_each({"a": "a"}, read)
    store = SQLiteStore(tmp_path / "s.db")
    store.close()
    with pytest.raises(StoreFailed, match="closed database") as told:
        store.load(["a"])
    assert not isinstance(told.value, Unreadable)


def test_damage_is_logged_in_one_line_and_a_fault_of_the_code_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    def read(ident: str, row: Exception) -> None:
        raise row

    found, wrong = read_each({"a": ValueError("x" * 1_000), "b": AttributeError("y")}, read)
    assert (found, set(wrong)) == ({}, {"a", "b"})
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]
    assert len(caplog.records[0].getMessage()) < 300


def test_a_text_that_is_not_utf_8_is_one_sessions(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    SQLiteStore(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO sessions VALUES ('a', CAST(x'ff' AS TEXT), '', '', '', 0, 0, 0, 0, x'', NULL, NULL)")
    with contextlib.closing(SQLiteStore(path)) as store, pytest.raises(Unreadable) as told:
        store.load(["a", "b"])
    assert told.value.idents == {"a"}


@pytest.mark.parametrize(
    "damage", ["version = CAST(x'ff' AS TEXT)", "digest = CAST(x'c328' AS TEXT)", "step = 'many'", "position = x'01ff'"]
)
def test_a_damaged_row_hides_no_other_session(path: Path, damage: str) -> None:
    store = SQLiteStore(path)
    one, damaged = session(store, created_at=2.0), session(store)
    store.commit([Change(None, one), Change(None, damaged)])
    store._db.execute(f"UPDATE sessions SET {damage} WHERE id = '{damaged.id}'")
    store = reopened(store, path)
    assert [s.id for s in store.list("", 5.0, 10)] == [one.id]
    assert store.list("", 5.0, 10)[0].created_at == 2.0
    assert ("m", "1", "d") in {(p.model, p.version, p.digest) for p in store.census(5.0)}
    assert store.count("", 5.0) == 2
    store.close()


def test_a_commit_has_as_many_rows_as_are_asked_for(path: Path) -> None:
    store = SQLiteStore(path)
    many = [session(store) for _ in range(21_000)]  # 252,000 values; a statement of SQLite's has 32,766, or 250,000
    assert store.commit([Change(None, s) for s in many]) == frozenset()
    store = reopened(store, path)
    idents = [s.id for s in many] + [f"nobody {i}" for i in range(240_000)]
    assert len(store.load(idents)) == len(many)
    store._db.execute("CREATE TRIGGER no BEFORE UPDATE ON sessions WHEN new.step = 7 BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(StoreFailed, match="full"):
        store.commit([Change(s, s._replace(step=7 if i == 20_500 else 1)) for i, s in enumerate(many)])
    store = reopened(store, path)
    assert {s.step for s in store.load([many[0].id, many[20_999].id]).values()} == {0}, "all of a commit or nothing"
    store.close()


@pytest.mark.parametrize("left", ["empty", "gone"])
def test_a_log_without_its_file_is_not_thrown_away(path: Path, left: str) -> None:
    store = SQLiteStore(path)
    store.commit([Change(None, session(store)) for _ in range(20)])
    logs = {name: path.with_name(f"{path.name}{name}").read_bytes() for name in ("", "-wal")}
    store.close()
    path.with_name(f"{path.name}-wal").write_bytes(logs["-wal"])
    path.write_bytes(b"") if left == "empty" else path.unlink()
    with pytest.raises(StoreError, match=r"beside its log sessions\.db-wal: move the log away"):
        SQLiteStore(path)
    assert path.with_name(f"{path.name}-wal").read_bytes() == logs["-wal"]
    path.write_bytes(logs[""])
    with contextlib.closing(SQLiteStore(path)) as store:
        assert store.count("", 5.0) == 20
