"""What every store promises, whichever it is."""

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from redis_process import RedisProcess

from indrnn.frames.rate import Carry
from indrnn.service.errors import Unreadable
from indrnn.service.session.ids import issued, new_id
from indrnn.service.session.machine import Generated, History, Reason, Return, Sampling, Scores, Session, Snapshot, Step
from indrnn.service.store.address import open_store
from indrnn.service.store.protocol import Change, Population, Store, StoreError

SCORES = Scores(np.array([1.5, -2.0], np.float32), np.ones((3, 2), np.float32), np.array([-0.25], np.float32))
GENERATED = Generated(Sampling(5, 0.8, 0.9, 2**63 - 1, ("\n\n", "é")), "añ\n", np.array([-1, -2, -3], np.float32), Reason.CANCELLED)
CARRY = Carry(25.0, np.ones((1, 3, 3), np.float32), 7, 6)


@pytest.fixture(params=["sqlite", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "deep" / "sessions.db")
    process: RedisProcess = request.getfixturevalue("process")
    process.client().flushall()
    return process.url


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    made = open_store(address)
    yield made
    made.close()


def session(store: Store, **changes: object) -> Session:
    now = time.time()
    base = Session(new_id(store.key), "m", "1", "d", "", np.arange(5, dtype=np.float32), 0, 0, now, now + 100)
    return base._replace(**changes)  # type: ignore[arg-type]


def same(one: Session, other: Session) -> bool:
    plain = {"state": None, "last": None, "carry": None, "history": None}
    parts = all(repr(getattr(one, name)) == repr(getattr(other, name)) for name in plain)
    return one._replace(**plain) == other._replace(**plain) and parts


@pytest.mark.parametrize("last", [None, Step(b"\x01" * 16, SCORES), Step(b"\n\x00" * 8, GENERATED), Step(b"\x02" * 16, Return(7))])
@pytest.mark.parametrize("carry", [None, CARRY])
def test_what_was_committed_is_there_for_the_next_process(address: str, last: Step | None, carry: Carry | None) -> None:
    store = open_store(address)
    state = np.array([0.1, -0.0, 1e-40, 3.4e38, 1 / 3], np.float32)
    written = session(store, step=3, position=2**40, last=last, carry=carry, owner="Ω\x00:", state=state)
    assert store.commit([Change(None, written)]) == frozenset()
    store.close()
    store = open_store(address)
    read = store.load([written.id])[written.id]
    store.close()
    assert read.state.tobytes() == state.tobytes()
    assert same(read, written)


def test_a_session_in_flight_is_stored_without_its_flight_and_a_change_from_it_counts(store: Store) -> None:
    """The state machine puts the flight into `before`; no store may take that for a difference."""
    from indrnn.service.session.machine import Flight

    new = session(store)
    store.commit([Change(None, new)])
    flying = new._replace(flight=Flight(1, b"x"))
    assert store.commit([Change(flying, flying._replace(step=1))]) == frozenset()
    assert store.load([new.id])[new.id].flight is None


def test_removed_sessions_are_gone_and_the_others_stay(store: Store) -> None:
    removed, kept, changed = session(store), session(store), session(store)
    store.commit([Change(None, s) for s in (removed, kept, changed)])
    assert store.commit([Change(removed, None), Change(changed, changed._replace(step=1))]) == frozenset()
    found = store.load([removed.id, kept.id, changed.id, "never made"])
    assert {i: s.step for i, s in found.items()} == {kept.id: 0, changed.id: 1}
    assert issued(store.key, removed.id)
    assert [s.id for s in store.list("", 0, 9)].count(removed.id) == 0


def test_a_change_from_where_a_session_no_longer_stands_is_refused_and_the_others_of_its_commit_are_made(store: Store) -> None:
    deleted, moved, big, fresh, other = (session(store) for _ in range(5))
    long = Step(b"\x01" * 16, Scores(np.zeros(2, np.float32), np.zeros((4_000, 2), np.float32), np.zeros(0, np.float32)))
    store.commit([Change(None, s) for s in (deleted, moved, big, other)])
    store.commit([Change(deleted, None), Change(moved, moved._replace(position=7)), Change(big, big._replace(step=1, last=long))])
    late = [
        Change(deleted, deleted._replace(step=1)),
        Change(moved, moved._replace(step=1)),
        Change(big, None),
        Change(None, other._replace(step=9)),
        Change(None, fresh),
    ]
    assert store.commit(late) == {deleted.id, moved.id, big.id, other.id}
    found = store.load([deleted.id, moved.id, big.id, fresh.id, other.id])
    assert {i: (s.step, s.position) for i, s in found.items()} == {
        moved.id: (0, 7),
        big.id: (1, 0),
        fresh.id: (0, 0),
        other.id: (0, 0),
    }
    assert store.commit([Change(found[big.id], None)]) == frozenset(), "of what was read again, nothing is refused"


def test_a_session_that_was_swept_as_expired_is_not_brought_back_by_a_late_step(store: Store) -> None:
    now = time.time()
    old = session(store, expires_at=now + 0.2)
    store.commit([Change(None, old)])
    deadline = time.monotonic() + 20
    while not store.expire(time.time()):
        assert time.monotonic() < deadline, "the session does not expire"
    assert store.commit([Change(old, old._replace(step=1, expires_at=now + 100))]) == {old.id}
    assert store.load([old.id]) == {}


def test_a_list_is_the_owners_living_sessions_newest_first(store: Store) -> None:
    now = time.time()
    made = [session(store, created_at=now + i, owner=o) for i, o in enumerate(["a", "b", "a", "a"])]
    dead = session(store, owner="a", expires_at=now + 2, created_at=now + 9)
    store.commit([Change(None, s) for s in [*made, dead]])
    assert [s.id for s in store.list("a", now + 3, 2)] == [made[3].id, made[2].id]
    assert [s.id for s in store.list("a", now + 3, 9)] == [made[3].id, made[2].id, made[0].id]
    assert store.list("a", now, 9)[0].id == dead.id
    assert store.list("nobody", now, 9) == []


def test_an_owners_sessions_are_counted_and_removed_ones_are_not(store: Store) -> None:
    made = [session(store, owner=o) for o in ("a", "b", "a", "a")]
    store.commit([Change(None, s) for s in made])
    store.commit([Change(made[0], None)])
    assert [store.count(owner, time.time()) for owner in ("a", "b", "nobody")] == [2, 1, 0]
    store.commit([Change(None, session(store, owner="a", expires_at=time.time() + 50))])
    assert [store.count("a", time.time() + ahead) for ahead in (0, 60, 200)] == [3, 2, 0]


def test_a_long_list_is_whole(store: Store) -> None:
    made = [session(store, created_at=float(i)) for i in range(450)]
    store.commit([Change(None, s) for s in made])
    assert [s.id for s in store.list("", 0, 1000)] == [s.id for s in reversed(made)]
    assert [s.id for s in store.list("", 0, 250)] == [s.id for s in reversed(made)][:250]


def test_expired_sessions_are_counted_once_and_gone(store: Store) -> None:
    now = time.time()
    soon = [session(store, expires_at=now + 0.3) for _ in range(3)]
    kept = session(store)
    store.commit([Change(None, s) for s in [*soon, kept]])
    deadline = time.monotonic() + 20
    removed = 0
    while removed < 3:
        assert time.monotonic() < deadline, "the sessions do not expire"
        removed += store.expire(time.time())
    assert removed == 3
    assert list(store.load([s.id for s in [*soon, kept]])) == [kept.id]
    assert store.expire(time.time()) == 0
    assert [s.id for s in store.list("", 0, 9)] == [kept.id]


def test_the_key_outlives_the_process_and_is_the_stores_own(address: str, tmp_path: Path) -> None:
    one, other = open_store(address), open_store(str(tmp_path / "other.db"))
    made = new_id(one.key)
    one.close()
    one = open_store(address)
    assert issued(one.key, made)
    assert not issued(other.key, made)
    assert not any(issued(one.key, wrong) for wrong in ("", "x", made[:-1], made + "AAAA", "é" * 28, made[::-1]))
    one.close()
    other.close()


def test_an_empty_commit_and_an_empty_load_are_nothing(store: Store) -> None:
    assert store.commit([]) == frozenset()
    assert store.load([]) == {}
    store.check()


def test_a_store_survives_a_thousand_sessions_in_one_commit(store: Store) -> None:
    made = [session(store, last=Step(bytes([i % 256]) * 16, SCORES)) for i in range(1000)]
    store.commit([Change(None, s) for s in made])
    assert store.commit([Change(s, s._replace(step=1)) for s in made]) == frozenset()
    assert all(s.step == 1 for s in store.load([s.id for s in made]).values())


@pytest.mark.parametrize("wrong", ["http://x", "redis://h:notaport", "redis://user:secret@/x?db=secret", "postgres://user:secret@h"])
def test_an_address_of_something_else_is_refused_without_its_password(wrong: str) -> None:
    with pytest.raises(StoreError, match=r"expected redis://") as refused:
        open_store(wrong)
    assert "secret" not in str(refused.value)


def test_changes_know_their_session() -> None:
    class Keyed:
        key = b"k" * 32

    s = session(Keyed())  # type: ignore[arg-type]
    assert {Change(a, b).id for a, b in itertools.product([s, None], repeat=2) if a or b} == {s.id}


def test_a_census_counts_the_living_by_model_and_graph(store: Store) -> None:
    now = time.time()
    assert store.census(now) == ()
    kinds = [("m", "1", "d", ""), ("m", "1", "d", "me"), ("m", "1", "e", ""), ("m", "2", "d", ""), ("n", "1", "d", "")]
    for i in range(450):  # more than one slice
        model, version, digest, owner = kinds[i % 5]
        new = session(store, model=model, version=version, digest=digest, owner=owner, state=np.zeros(i % 5 + 1, np.float32))
        store.commit([Change(None, new)])
    late = session(store, model="late", expires_at=now + 50)
    store.commit([Change(None, late)])
    assert [p for p in store.census(now) if p.model != "late"] == [
        Population("m", "1", "d", 180, 90 * 4 * 1 + 90 * 4 * 2),
        Population("m", "1", "e", 90, 90 * 4 * 3),
        Population("m", "2", "d", 90, 90 * 4 * 4),
        Population("n", "1", "d", 90, 90 * 4 * 5),
    ]
    assert "late" in {p.model for p in store.census(now + 49)}
    assert "late" not in {p.model for p in store.census(now + 51)}


# --- states that a session keeps ------------------------------------------------------------------------------------------------------


def at(step: int, carry: Carry | None = None) -> Snapshot:
    return Snapshot(np.arange(5, dtype=np.float32) + step, step, 10 * step, carry)


def keeping(store: Store, keep: int, steps: int, marks: tuple[tuple[str, int], ...] = ()) -> Session:
    return session(store, step=steps, history=History(keep, tuple(at(n) for n in range(steps)), marks))


def read_anew(address: str, store: Store, ident: str) -> Session:
    """What another process would read; the first store stays in use where two may."""
    if "://" not in address:
        store.close()
    other = open_store(address)
    read = other.load([ident])[ident]
    other.close()
    return read


def test_kept_states_marks_and_carries_are_there_for_the_next_process(address: str) -> None:
    store = open_store(address)
    history = History(5, (at(0), at(3, CARRY), at(4)), (("é \x00", 3), ("now", 5)))
    written, plain = session(store, step=5, history=history), session(store)
    store.commit([Change(None, written), Change(None, plain)])
    read, other = read_anew(address, store, written.id), read_anew(address, store, plain.id)
    assert same(read, written)
    assert other.history is None


def test_a_step_adds_a_kept_state_and_drops_the_one_that_gave_way(address: str) -> None:
    store = open_store(address)
    before = keeping(store, 3, 3, (("m", 0),))
    assert before.history is not None
    store.commit([Change(None, before)])
    for n in range(3, 9):
        left = before.history.beyond(at(n))
        after = before._replace(step=n + 1, history=left)
        assert store.commit([Change(before, after)]) == frozenset()
        before = after
    assert before.history.steps == [0, 7, 8]
    assert same(read_anew(address, store, before.id), before)


def test_steps_that_come_again_after_a_reset_have_their_new_states(address: str) -> None:
    store = open_store(address)
    first = keeping(store, 4, 4)
    store.commit([Change(None, first)])
    anew = first._replace(step=1, history=History(4, (Snapshot(np.full(5, 9, np.float32), 0, 0, None),)))
    store.commit([Change(first, anew)])
    assert same(read_anew(address, store, first.id), anew)


def test_a_mark_alone_is_a_change_that_others_see_and_a_change_from_before_it_is_refused(address: str) -> None:
    store = open_store(address)
    first = keeping(store, 4, 2)
    store.commit([Change(None, first)])
    assert first.history is not None
    marked = first._replace(history=first.history._replace(marks=(("m", 1),)))
    assert store.commit([Change(first, marked)]) == frozenset()
    assert store.commit([Change(first, first._replace(step=3))]) == {first.id}
    assert same(read_anew(address, store, first.id), marked)


def test_what_was_loaded_by_another_process_is_changed_from_there(address: str) -> None:
    """The kept states of `before` are equal then, and not the same objects."""
    store = open_store(address)
    first = keeping(store, 3, 3)
    store.commit([Change(None, first)])
    store.close()
    store = open_store(address)
    loaded = store.load([first.id])[first.id]
    assert loaded.history is not None
    after = loaded._replace(step=4, history=loaded.history.beyond(at(3)))
    assert store.commit([Change(first, after)]) == frozenset()
    assert same(read_anew(address, store, first.id), after)


def test_a_session_that_keeps_states_counts_with_them_and_nothing_is_left_of_a_removed_one(store: Store) -> None:
    one, two, plain = keeping(store, 7, 3), keeping(store, 2, 2), session(store)
    store.commit([Change(None, s) for s in (one, two, plain)])
    assert store.count("", time.time()) == 8 + 3 + 1
    assert sum(p.sessions for p in store.census(time.time())) == 3
    assert sorted(s.step for s in store.list("", time.time(), 9)) == [0, 2, 3]
    store.commit([Change(one, None)])
    assert store.count("", time.time()) == 3 + 1
    assert store.commit([Change(None, one._replace(step=0, history=None))]) == frozenset()
    assert store.load([one.id])[one.id].history is None


def test_the_cache_counts_kept_states_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from indrnn.service.store import record

    class Keyed:
        key = b"k" * 32

    monkeypatch.setattr(record, "CACHED_SESSIONS", 10)
    kept = record.Kept()
    big = [keeping(Keyed(), 4, 4) for _ in range(3)]  # type: ignore[arg-type]
    for s in (*big, big[2]):
        kept.keep([(s, b"")])
    assert set(kept.find([s.id for s in big])) == {big[1].id, big[2].id}
    kept.drop([big[1].id, big[2].id])
    small = [session(Keyed()) for _ in range(12)]  # type: ignore[arg-type]
    kept.keep([(s, b"") for s in small])
    assert len(kept.find([s.id for s in small])) == 10


def spoil(address: str, ident: str, how: str) -> None:
    """Leaves behind what no service has written."""
    if address.startswith("redis"):
        db = redis.Redis.from_url(address)
        fields = {"json": {"head": "{"}, "blob": {"body": b"x"}, "history": {"history": "x"}}[how]
        db.hset(f"indrnn:session:{ident}", mapping={"tag": "another", **fields})
        return
    with contextlib.closing(sqlite3.connect(address)) as file, file:
        if how == "history":
            file.execute("INSERT INTO histories VALUES (?, 1, ?)", (ident, b"x"))
        else:
            file.execute(f"UPDATE sessions SET {'last' if how == 'json' else 'state'} = ? WHERE id = ?", (b"x", ident))


@pytest.mark.parametrize("how", ["json", "blob", "history"])
def test_a_session_that_cannot_be_read_takes_no_other_along(address: str, how: str) -> None:
    store = open_store(address)
    three = [session(store) for _ in range(3)]
    store.commit([Change(None, one) for one in three])
    store.close()
    spoil(address, three[1].id, how)
    store = open_store(address)
    idents = [one.id for one in three]
    with pytest.raises(Unreadable) as told:
        store.load([*idents, "nobody's"])
    assert told.value.idents == {idents[1]}
    assert idents[1] not in told.value.detail
    with pytest.raises(Unreadable):
        store.load(idents[1:2])
    others = store.load([idents[0], idents[2], "nobody's"])
    assert [same(others[i], one) for i, one in zip(idents, three, strict=True) if i in others] == [True, True]
    assert store.commit([Change(one, one._replace(step=1)) for one in three[::2]]) == set()
    store.close()
    store = open_store(address)  # nothing is known of what the changes go on from
    assert store.commit([Change(one._replace(step=one is not three[1]), one._replace(step=2)) for one in three]) == {idents[1]}
    store.close()
