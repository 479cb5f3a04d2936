"""SQLite: what commit promises, and what a second process gets."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.errors import StoreFailed
from service.session import Carry, Generated, Reason, Sampling, Scores, Session, Step
from service.session_id import issued, new_id
from service.store import Change, SQLiteStore, StoreError

SCORES = Scores(np.array([1.5, -2.0], np.float32), np.ones((3, 2), np.float32), np.array([-0.25], np.float32))
GENERATED = Generated(Sampling(5, 0.8, 0.9, 2**63 - 1, ("\n\n", "é")), "añ\n", np.array([-1, -2, -3], np.float32), Reason.CANCELLED)
CARRY = Carry(25.0, np.ones((1, 3, 3), np.float32), 7, 6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "sessions.db"


def session(store: SQLiteStore, **changes: object) -> Session:
    base = Session(new_id(store.key), "m", "1", "d", "", np.arange(5, dtype=np.float32), 0, 0, 1.0, 100.0)
    return base._replace(**changes)  # type: ignore[arg-type]


def reopened(store: SQLiteStore, path: Path) -> SQLiteStore:
    store.close()
    return SQLiteStore(path)


@pytest.mark.parametrize("last", [None, Step(b"\x01" * 16, SCORES), Step(b"\x02" * 16, GENERATED)])
@pytest.mark.parametrize("carry", [None, CARRY])
def test_what_was_committed_is_there_after_a_restart(path: Path, last: Step | None, carry: Carry | None) -> None:
    store = SQLiteStore(path)
    written = session(store, step=3, position=9, last=last, carry=carry, owner="o")
    store.commit([Change(None, written)])
    store = reopened(store, path)
    read = store.load([written.id])[written.id]
    store.close()
    assert np.array_equal(read.state, written.state)
    plain = {"state": None, "last": None, "carry": None}
    assert read._replace(**plain) == written._replace(**plain)
    assert repr(read.last) == repr(last)
    assert repr(read.carry) == repr(carry)


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
    code = f"from service.store import SQLiteStore; from pathlib import Path; SQLiteStore(Path({str(path)!r}))"
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    store.close()
    assert refused.returncode != 0
    assert f"store {path}: another process holds it" in refused.stderr


def test_a_file_of_another_schema_is_refused(path: Path) -> None:
    store = SQLiteStore(path)
    store._db.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(StoreError, match="expected schema 1, got 99"):
        SQLiteStore(path)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match="not a database"):
        SQLiteStore(path)


def test_commits_are_synchronous(path: Path) -> None:
    store = SQLiteStore(path)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
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
    monkeypatch.setattr("service.store.SLICE", 3)
    store = SQLiteStore(path)
    made = [session(store, expires_at=float(i % 2)) for i in range(20)]
    store.commit([Change(None, s) for s in made])
    assert store.expire(0.5) == 10
    assert sorted(store.load([s.id for s in made])) == sorted(s.id for s in made[1::2])
    store.close()


def test_a_list_is_the_owners_living_sessions_newest_first(path: Path) -> None:
    store = SQLiteStore(path)
    made = [session(store, created_at=float(i), owner=o) for i, o in enumerate(["a", "b", "a", "a"])]
    dead = session(store, owner="a", expires_at=2.0)
    store.commit([Change(None, s) for s in [*made, dead]])
    assert [s.id for s in store.list("a", 3.0, 2)] == [made[3].id, made[2].id]
    assert [s.id for s in store.list("a", 3.0, 9)] == [made[3].id, made[2].id, made[0].id]
    store.close()


def test_an_id_of_another_store_was_never_issued(path: Path, tmp_path: Path) -> None:
    one, other = SQLiteStore(path), SQLiteStore(tmp_path / "other.db")
    made = new_id(one.key)
    assert issued(one.key, made)
    assert not issued(other.key, made)
    assert not any(issued(one.key, wrong) for wrong in ("", "x", made[:-1], made + "AAAA", "é" * 28, made[::-1]))
    one.close()
    other.close()


def test_long_results_are_not_kept_in_memory_but_are_there(path: Path) -> None:
    store = SQLiteStore(path)
    long = Step(b"\x03" * 16, Scores(np.ones(27, np.float32), np.ones((5000, 27), np.float32), np.zeros(0, np.float32)))
    written = session(store, last=long)
    store.commit([Change(None, written)])
    assert written.id not in store._cache
    last = store.load([written.id])[written.id].last
    assert last is not None
    assert isinstance(last.result, Scores)
    assert last.result.every.shape == (5000, 27)
    store.close()
