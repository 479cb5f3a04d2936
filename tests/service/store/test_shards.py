"""A store that is parted: where sessions are, how they come from one number of shards to another, killed at any step, and copies."""

import contextlib
import json
import multiprocessing
import os
import shutil
import sqlite3
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indrnn.service.session.ids import issued, new_id
from indrnn.service.session.machine import History, Session, Snapshot
from indrnn.service.session.shard import UNDIVIDED, Shard, shard_of
from indrnn.service.store.address import divide, is_file, open_store
from indrnn.service.store.mark import held_by
from indrnn.service.store.protocol import Change, StoreError
from indrnn.service.store.shards import back_up_shards, bring_to, map_file, note_file, open_shard, read_map, shard_file, shard_files
from indrnn.service.store.sqlite import SQLiteStore

SESSIONS = 40


def session(ident: str, step: int) -> Session:
    now = time.time()
    made = Session(ident, "m", "1", "d", "", np.full(5, step, np.float32), step, step, now, now + 1_000)
    return made if step % 3 else made._replace(history=History(2, (Snapshot(made.state, step, step, None),)))


def filled(path: Path) -> dict[str, int]:
    """A store of one file; return the step of each session."""
    store = SQLiteStore(path)
    idents = [*(new_id(store.key) for _ in range(SESSIONS)), "a sequence", "another\u00fc"]
    store.commit([Change(None, session(ident, step)) for step, ident in enumerate(idents)])
    store.close()
    return {ident: step for step, ident in enumerate(idents)}


def steps_of(path: Path) -> dict[str, int]:
    """What all shards have, each session where it belongs and nowhere else."""
    known = read_map(path)
    shards = 1 if known is None else known.shards
    found: dict[str, int] = {}
    for k in range(shards):
        with contextlib.closing(sqlite3.connect(shard_file(path, Shard(k, shards)))) as db:
            rows = dict(db.execute("SELECT id, step FROM sessions").fetchall())
            kept = {ident for (ident,) in db.execute("SELECT id FROM histories UNION SELECT id FROM kept")}
        assert kept <= set(rows)
        assert not set(rows) & set(found)
        assert all(shard_of(ident, shards) == k for ident in rows)
        found |= rows
    return found


def test_the_shard_of_an_id_is_the_first_eight_bytes_of_its_digest() -> None:
    assert [shard_of("a", n) for n in (1, 2, 3, 64)] == [0xCA978112CA1BBDCA % n for n in (1, 2, 3, 64)]
    assert shard_of("\ud800", 2) in (0, 1), "an id that a client chose may be any text"


def test_new_ids_fall_to_the_shard_that_draws_them() -> None:
    key = b"k" * 32
    drawn = [new_id(key, "me", Shard(2, 5)) for _ in range(20)]
    assert {shard_of(ident, 5) for ident in drawn} == {2}
    assert all(issued(key, ident, "me") for ident in drawn)


def test_sessions_are_moved_to_any_number_and_back_under_one_key(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    before = filled(path)
    key = SQLiteStore(path)
    key.close()
    for shards in (2, 5, 3, 1):
        bring_to(path, shards)
        assert steps_of(path) == before
        assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".db") == sorted(p.name for p in shard_files(path, shards))
        stores = [open_store(str(path), shard=Shard(k, shards)) for k in range(shards)]
        assert {store.key for store in stores} == {key.key}
        for ident, step in before.items():
            there = stores[shard_of(ident, shards)].load([ident])[ident]
            assert (there.step, there.state.tolist(), there.keep) == (step, [step] * 5, 0 if step % 3 else 2)
        for store in stores:
            store.close()
    assert read_map(path) is None


def test_a_store_that_is_new_begins_with_its_shards_and_one_that_fits_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "s.db"
    divide(str(path), 1)
    assert not path.parent.exists()
    divide(str(path), 2)
    said = [(p.name, p.stat().st_mtime_ns) for p in sorted(path.parent.iterdir())]
    divide(str(path), 2)
    assert [(p.name, p.stat().st_mtime_ns) for p in sorted(path.parent.iterdir())] == said
    assert json.loads(map_file(path).read_text())["shards"] == 2
    divide("redis://nowhere", 2)
    assert not path.exists()


def _killed(path: Path, shards: int, at: str) -> None:
    bring_to(path, shards, lambda step: os._exit(9) if step == at else None)
    os._exit(0)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (3, 2), (2, 1)])
def test_a_move_that_is_killed_after_any_step_loses_nothing(tmp_path: Path, before: int, after: int) -> None:
    """The next start has another number still, or the same, or the old one again."""
    origin = tmp_path / "origin"
    origin.mkdir()
    sessions = filled(origin / "s.db")
    bring_to(origin / "s.db", before)
    steps: list[str] = []
    shutil.copytree(origin, tmp_path / "whole")
    bring_to(tmp_path / "whole" / "s.db", after, steps.append)
    assert steps == ["note", *(f"file {k}" for k in range(after)), "map", "old files"]
    fork = multiprocessing.get_context("fork")
    for i, at in enumerate(steps):
        folder = tmp_path / str(i)
        shutil.copytree(origin, folder)
        path = folder / "s.db"
        process = fork.Process(target=_killed, args=(path, after, at))
        process.start()
        process.join(30)
        assert process.exitcode == 9
        assert steps_of(path) == sessions
        with pytest.raises(StoreError, match="moves them at its start"):
            open_store(str(path), shard=Shard(0, after))
        for shards in ((after, before, 4)[i % 3], after):
            bring_to(path, shards)
            assert steps_of(path) == sessions
        assert not note_file(path).exists()
        assert sorted(p.name for p in folder.iterdir() if p.suffix == ".db") == sorted(p.name for p in shard_files(path, after))


def test_a_move_that_fails_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.db"
    sessions = filled(path)
    monkeypatch.setattr("indrnn.service.store.shards._rows", lambda path: 7 if "-of-" in path.name else 8)
    with pytest.raises(StoreError, match="8 rows became 14"):
        bring_to(path, 2)
    assert steps_of(path) == sessions
    assert [p.name for p in tmp_path.iterdir() if "-of-" in p.name or p == note_file(path)] == []


def test_what_does_not_fit_the_map_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    sessions = filled(path)
    with contextlib.closing(SQLiteStore(path)), pytest.raises(StoreError, match="another process holds it"):
        bring_to(path, 2)
    bring_to(path, 2)
    for shard in (UNDIVIDED, Shard(0, 3)):
        with pytest.raises(StoreError, match="its sessions are in 2 shards"):
            open_store(str(path), shard=shard)
    with contextlib.closing(open_store(str(path), shard=Shard(1, 2))), pytest.raises(StoreError, match="another process holds it"):
        bring_to(path, 1)
    filled(path)
    with pytest.raises(StoreError, match=r"s\.db is in the way"):
        bring_to(path, 1)
    for shards in (2, 3):
        with pytest.raises(StoreError, match=r"s\.db: it lies beside s\.db-shards, of 2 shards: which of them is meant\?"):
            bring_to(path, shards)
    path.unlink()
    map_file(path).rename(tmp_path / "map")
    with pytest.raises(StoreError, match=r"s-0-of-2\.db lies there without s\.db-shards"):
        bring_to(path, 1)
    (tmp_path / "map").rename(map_file(path))
    shard_file(path, Shard(0, 2)).rename(tmp_path / "away")
    for refused in (lambda: bring_to(path, 1), lambda: open_store(str(path), shard=Shard(0, 2))):
        with pytest.raises(StoreError, match=r"s-0-of-2\.db is missing"):
            refused()
    SQLiteStore(shard_file(path, Shard(0, 2))).close()
    for refused in (lambda: bring_to(path, 1), lambda: open_store(str(path), shard=Shard(0, 2))):
        with pytest.raises(StoreError, match="signing key"):
            refused()
    (tmp_path / "away").rename(shard_file(path, Shard(0, 2)))
    assert steps_of(path) == sessions
    map_file(path).write_text('{"shards": 2000, "key": ""}')
    with pytest.raises(StoreError, match="expected shards from 1 to 64"):
        bring_to(path, 2)


class SlowReader(sqlite3.Connection):
    """Takes its time between the read transactions of a backup."""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        found = super().execute(sql, *args)
        if sql == "SELECT count(*) FROM meta":
            time.sleep(0.05)
        return found


def test_a_backup_is_a_store_of_one_moment_also_while_all_shards_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer steps a session of one shard and then one of the other: no copy has the second's step without the first's."""
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=SlowReader))
    path, target = tmp_path / "s.db", tmp_path / "copies" / "c.db"
    target.parent.mkdir()
    filled(path)
    bring_to(path, 2)
    stores = [open_store(str(path), shard=Shard(k, 2)) for k in range(2)]
    pair = [session(new_id(store.key, "", Shard(k, 2)), 0)._replace(history=None) for k, store in enumerate(stores)]
    for store, one in zip(stores, pair, strict=True):
        store.commit([Change(None, one)])
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            for k, store in enumerate(stores):
                after = pair[k]._replace(step=pair[k].step + 1)
                assert not store.commit([Change(pair[k], after)])
                pair[k] = after

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            at_least = pair[1].step
            back_up_shards(path, target)
            found = steps_of(target)
            first, second = (found[one.id] for one in pair)
            assert second <= first <= second + 1
            assert second >= at_least
    finally:
        ended.set()
        writer.join(20)
    for store in stores:
        store.close()
    copy = open_store(str(target), shard=Shard(1, 2))
    copy.close()
    bring_to(path, 1)
    back_up_shards(path, target)
    assert steps_of(target) == steps_of(path)
    assert [p.name for p in target.parent.iterdir()] == ["c.db"]


def test_a_shard_is_not_opened_on_a_file_that_was_left_behind_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    filled(path)
    bring_to(path, 2)
    opened: list[SQLiteStore] = []

    def late(file: Path) -> SQLiteStore:
        bring_to(path, 3)
        opened.append(SQLiteStore(file))  # as whoever has looked at the map before, and had to wait
        return opened[-1]

    with pytest.raises(StoreError, match="its sessions are in 3 shards"):
        open_shard(path, Shard(0, 2), late)
    SQLiteStore(shard_file(path, Shard(0, 2))).close()  # it is not held


def test_a_backup_that_finds_a_shard_busy_lets_the_others_commit(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    filled(path)
    bring_to(path, 2)
    store = open_store(str(path), shard=Shard(0, 2))
    with contextlib.closing(sqlite3.connect(shard_file(path, Shard(1, 2)), isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        backup = threading.Thread(target=back_up_shards, args=(path, tmp_path / "c.db"))
        backup.start()
        until = time.monotonic() + 1.5  # longer than a commit waits
        while time.monotonic() < until:
            store.commit([Change(None, session(new_id(store.key, "", Shard(0, 2)), 1))])
        assert backup.is_alive()
        busy.execute("ROLLBACK")
    backup.join(20)
    store.close()
    assert steps_of(tmp_path / "c.db") == steps_of(path)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_copy_in_place_of_the_store_is_refused(tmp_path: Path, shards: int) -> None:
    path = tmp_path / "s.db"
    sessions = filled(path)
    bring_to(path, shards)
    (tmp_path / "link").symlink_to(tmp_path)
    own = [path, tmp_path / "link" / "s.db", *shard_files(path, shards), tmp_path / "s.db-shards", tmp_path / "s.db-wal"]
    for target in own:
        with pytest.raises(StoreError, match="expected the path of a copy, got the store's own"):
            back_up_shards(path, target)
    assert steps_of(path) == sessions


@pytest.mark.parametrize("address", ["sqlite:/x/y.db", "sqlite:///x", "file:x", "http://me:secret@host", "redis:/host"])
def test_an_address_of_something_else_is_refused_and_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.chdir(tmp_path)
    for refused in (is_file, open_store, partial(divide, shards=2)):
        with pytest.raises(StoreError, match=r"^store: expected redis://.*, or the path of a file, got \w+:…$"):
            refused(address)  # type: ignore[operator]  # each takes one
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_name_begins_as_an_address_is_taken_where_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_file("c:/sessions.db")
    assert is_file("./name:x")
    filled(tmp_path / "name:x")
    open_store("name:x").close()
    divide("name:x", 2)
    assert is_file("name:x"), "it has a map"


def forget_marks(path: Path, shards: int) -> None:
    """Leaves the files as a release before the mark has written them."""
    for file in shard_files(path, shards):
        with contextlib.closing(sqlite3.connect(file)) as db, db:
            db.execute("DELETE FROM meta WHERE name = 'shard'")


def swap(path: Path, end: str = "") -> None:
    one, other = (file.with_name(file.name + end) for file in shard_files(path, 2))
    one.rename(path.with_name("away"))
    other.rename(one)
    path.with_name("away").rename(other)


@pytest.mark.parametrize("marked", [True, False])
def test_files_that_lie_under_each_others_names_are_refused_and_left(tmp_path: Path, marked: bool) -> None:
    """Also those of an earlier release, which are told by the ids in them."""
    path = tmp_path / "s.db"
    sessions = filled(path)
    bring_to(path, 2)
    if not marked:
        forget_marks(path, 2)
    swap(path)
    said = [(p.name, p.stat().st_mtime_ns) for p in sorted(tmp_path.iterdir())]
    both = r"s-0-of-2\.db has shard 1 of 2, s-1-of-2\.db has shard 0 of 2: rename the .db files to s-1-of-2\.db, s-0-of-2\.db"
    for shards in (2, 3):
        with pytest.raises(StoreError, match=both) as told:
            bring_to(path, shards)
        assert "\n" not in str(told.value)
    with pytest.raises(StoreError, match=r"s-1-of-2\.db has shard 0 of 2"):
        open_store(str(path), shard=Shard(1, 2))
    assert [(p.name, p.stat().st_mtime_ns) for p in sorted(tmp_path.iterdir())] == said
    swap(path)
    bring_to(path, 2)
    assert steps_of(path) == sessions


def killed(path: Path, folder: Path) -> Path:
    """A store of two shards as a kill leaves it, with its logs, in a folder of its own."""
    stores = [open_store(str(path), shard=Shard(k, 2)) for k in range(2)]
    for k, store in enumerate(stores):
        store.commit([Change(None, session(new_id(store.key, "", Shard(k, 2)), step)) for step in range(40)])
    shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns("*-lock", "*-shm"))
    for store in stores:
        store.close()
    return folder / path.name


@pytest.mark.parametrize("marked", [True, False])
def test_logs_that_lie_beside_each_others_files_are_refused_and_left(tmp_path: Path, marked: bool) -> None:
    origin = tmp_path / "origin" / "s.db"
    filled(origin)
    bring_to(origin, 2)
    path = killed(origin, tmp_path / "copy")
    if not marked:
        for k, file in enumerate(shard_files(path, 2)):
            shutil.copyfile(file.with_name(f"{file.name}-wal"), tmp_path / f"log-{k}")
            file.with_name(f"{file.name}-wal").unlink()
        forget_marks(path, 2)
        for k, file in enumerate(shard_files(path, 2)):
            file.with_name(f"{file.name}-wal").unlink(missing_ok=True)
            shutil.copyfile(tmp_path / f"log-{k}", file.with_name(f"{file.name}-wal"))
    swap(path)
    with pytest.raises(StoreError, match=r"rename the \.db files to s-1-of-2\.db, s-0-of-2\.db, each with its -wal only where"):
        open_store(str(path), shard=Shard(0, 2))
    swap(path)
    swap(path, "-wal")
    files = [f.with_name(f.name + end) for f in shard_files(path, 2) for end in ("", "-wal")]
    before = [file.read_bytes() for file in files]
    strange = r"s-0-of-2\.db has shard 1 of 2, s-1-of-2\.db has shard 0 of 2, read with the -wal beside it: put each -wal beside the \.db"
    for refused in (lambda: bring_to(path, 2), lambda: bring_to(path, 1), lambda: open_store(str(path), shard=Shard(1, 2))):
        with pytest.raises(StoreError, match=strange):
            refused()
    assert [file.read_bytes() for file in files] == before
    swap(path, "-wal")
    bring_to(path, 2)
    for k in range(2):
        open_store(str(path), shard=Shard(k, 2)).close()
    assert steps_of(path) == steps_of(origin)


def test_no_file_is_said_to_be_renamed_over_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    filled(path)
    bring_to(path, 2)
    one, other = shard_files(path, 2)
    shutil.copy(one, other)
    for refused in (lambda: bring_to(path, 2), lambda: open_store(str(path), shard=Shard(1, 2))):
        with pytest.raises(
            StoreError, match=r"s-1-of-2\.db has shard 0 of 2: s-0-of-2\.db lies there already: rename none over it"
        ) as told:
            refused()
        assert told.value.__cause__ is None


def test_a_refusal_after_a_file_was_opened_is_no_cause_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    filled(path)
    bring_to(path, 2)
    map_file(path).write_text('{"shards": 2, "key": "another"}')
    with pytest.raises(StoreError, match="belongs to another store") as told:
        open_store(str(path), shard=Shard(1, 2))
    assert told.value.__cause__ is None


def test_a_file_of_an_earlier_release_is_taken_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    sessions = filled(path)
    bring_to(path, 2)
    forget_marks(path, 2)
    bring_to(path, 2)
    for k, file in enumerate(shard_files(path, 2)):
        assert held_by(file, Shard(k, 2)) is None
        open_store(str(path), shard=Shard(k, 2)).close()
        assert held_by(file, Shard(k, 2), immutable=True) == Shard(k, 2)
    back_up_shards(path, tmp_path / "c.db")
    assert held_by(shard_file(tmp_path / "c.db", Shard(1, 2)), UNDIVIDED) == Shard(1, 2)
    bring_to(path, 1)
    assert held_by(path, UNDIVIDED) is None
    assert steps_of(path) == steps_of(tmp_path / "c.db") == sessions


def test_the_file_of_one_shard_is_no_store_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    filled(path)
    bring_to(path, 2)
    one = shard_file(path, Shard(0, 2))
    alone = r"expected all sessions of a store, got shard 0 of 2 alone: give INDRNN_STORE the name of the whole, .*/s\.db"
    for _ in range(2):
        for refused in (lambda: open_store(str(one)), lambda: bring_to(one, 1), lambda: bring_to(one, 2)):
            with pytest.raises(StoreError, match=alone):
                refused()
        forget_marks(path, 2)  # then its name says it, beside the map
        assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".db") == ["s-0-of-2.db", "s-1-of-2.db"]
    open_store(str(path), shard=Shard(0, 2)).close()
    one.rename(tmp_path / "renamed.db")
    with pytest.raises(StoreError, match="got shard 0 of 2 alone: give INDRNN_STORE the name of the whole, as in that of its map"):
        open_store(str(tmp_path / "renamed.db"))


def test_a_map_that_is_wrong_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    sessions = filled(path)
    bring_to(path, 2)
    right = map_file(path).read_text()
    map_file(path).write_text(right.replace("2", "3", 1))
    wrong = r"s\.db-shards says 3 shards, whose files are missing, and those of 2 lie there: put the right map in its place, or correct"
    for shards in (1, 2, 3, 4):
        with pytest.raises(StoreError, match=wrong):
            bring_to(path, shards)
    with pytest.raises(StoreError, match=wrong):
        open_store(str(path), shard=Shard(0, 3))
    map_file(path).write_text(right)
    bring_to(path, 2)
    assert steps_of(path) == sessions


def test_a_mark_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with contextlib.closing(SQLiteStore(path)) as store:
        store.mark("1-of-1")
    with pytest.raises(StoreError, match=r"expected a mark like 0-of-2 in it, got '1-of-1'"):
        open_store(str(path))
