"""Redis: who wins when two want the same session, what a broken connection leaves behind, and which Redis is refused."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_process import LossyProxy, RedisProcess, free_port, running_redis

from indrnn.frames.rate import Carry
from indrnn.service.errors import StoreFailed, Unreadable
from indrnn.service.session.ids import new_id
from indrnn.service.session.machine import Generated, History, Reason, Sampling, Scores, Session, Snapshot, Step
from indrnn.service.store import redis as redis_store
from indrnn.service.store.address import open_store
from indrnn.service.store.protocol import Change, StoreError
from indrnn.service.store.redis import RedisStore, tag


@pytest.fixture
def store(process: RedisProcess) -> Iterator[RedisStore]:
    made = RedisStore(process.url)
    yield made
    made.close()


@pytest.fixture
def other(process: RedisProcess) -> Iterator[RedisStore]:
    made = RedisStore(process.url)
    yield made
    made.close()


@pytest.fixture
def proxy(process: RedisProcess) -> Iterator[LossyProxy]:
    made = LossyProxy(process.port)
    yield made
    made.close()


def session(store: RedisStore, **changes: object) -> Session:
    now = time.time()
    base = Session(new_id(store.key), "m", "1", "d", "", np.arange(5, dtype=np.float32), 0, 0, now, now + 100)
    return base._replace(**changes)  # type: ignore[arg-type]


def advanced(s: Session, by: int = 1) -> Session:
    return s._replace(step=s.step + by, position=s.position + 3 * by, state=s.state + by)


def test_of_two_who_move_a_session_from_one_place_one_wins_and_the_other_is_named(store: RedisStore, other: RedisStore) -> None:
    contended, free = session(store), session(store)
    store.commit([Change(None, contended), Change(None, free)])
    assert store.commit([Change(contended, advanced(contended))]) == frozenset()
    lost = other.commit([Change(contended, advanced(contended, 5)), Change(free, advanced(free))])
    assert lost == {contended.id}
    assert {i: s.step for i, s in other.load([contended.id, free.id]).items()} == {contended.id: 1, free.id: 1}


def test_what_is_kept_in_memory_is_told_only_while_redis_has_the_same(process: RedisProcess, store: RedisStore, other: RedisStore) -> None:
    made = session(store)
    store.commit([Change(None, made)])
    process.client().config_resetstat()
    assert store.load([made.id])[made.id] is made
    assert "cmdstat_hmget" not in process.client().info("commandstats")  # its tag was enough
    moved = advanced(made)._replace(last=HALF)
    other.commit([Change(made, moved)])
    found = store.load([made.id])[made.id]
    assert (found.step, found.state.tolist(), found.last.digest if found.last else b"") == (1, moved.state.tolist(), HALF.digest)
    assert store.commit([Change(made, advanced(made, 2))]) == {made.id}
    assert store.load([made.id])[made.id].step == 1
    other.commit([Change(moved, None)])
    assert store.load([made.id]) == {}


def test_a_session_that_is_gone_is_neither_changed_nor_made_again(store: RedisStore, other: RedisStore) -> None:
    made = session(store)
    store.commit([Change(None, made)])
    store.commit([Change(made, None)])
    assert other.commit([Change(made, advanced(made))]) == {made.id}
    assert other.commit([Change(made, None)]) == frozenset()  # gone is what was asked for
    assert other.load([made.id]) == {}


def test_a_session_that_has_moved_is_not_removed(store: RedisStore, other: RedisStore) -> None:
    made = session(store)
    store.commit([Change(None, made)])
    store.commit([Change(made, advanced(made))])
    assert other.commit([Change(made, None)]) == {made.id}
    assert other.load([made.id])[made.id].step == 1


def test_who_lost_a_session_again_and_again_is_let_go_first(process: RedisProcess, store: RedisStore, other: RedisStore) -> None:
    """Otherwise a process that commits every character would keep another's cancel out for as long as it likes."""
    made, free = session(store), session(store)
    store.commit([Change(None, made), Change(None, free)])
    now = advanced(made)
    store.commit([Change(made, now)])
    assert other.commit([Change(made, advanced(made, 5), lost=redis_store.PATIENCE - 2)]) == {made.id}
    assert store.commit([Change(now, advanced(now))]) == frozenset()  # not claimed yet
    now = advanced(now)
    assert other.commit([Change(made, advanced(made, 5), lost=1000)]) == {made.id}
    assert store.commit([Change(now, advanced(now)), Change(free, advanced(free))]) == {made.id}
    assert 0 < process.client().pttl(f"indrnn:claim:{made.id}") <= redis_store.CLAIM_MOST
    assert other.commit([Change(now, advanced(now))]) == frozenset()
    assert process.client().exists(f"indrnn:claim:{made.id}") == 0
    assert store.commit([Change(advanced(now), None)]) == frozenset()


SAMPLING = Sampling(5, 1.0, 1.0, 1, ())
HALF = Step(b"d" * 16, Generated(SAMPLING, "ab", np.zeros(2, np.float32), None))
WHOLE = [
    {"step": 1},
    {"position": 1},
    {"state": np.array([0, 1, 2, 3, 5], np.float32)},
    {"expires_at": 7.5},
    {"last": HALF},
    {"last": Step(b"e" * 16, HALF.result)},
    {"last": Step(b"d" * 16, Generated(SAMPLING, "abc", np.zeros(3, np.float32), None))},
    {"last": Step(b"d" * 16, Generated(SAMPLING, "ab", np.zeros(2, np.float32), Reason.CANCELLED))},
    {"carry": Carry(25.0, np.ones((1, 3, 3), np.float32), 7, 6)},
    {"carry": Carry(25.0, np.ones((1, 3, 3), np.float32), 8, 6)},
    {"history": History(2)},
    {"history": History(3)},
    {"history": History(2, (), (("m", 0),))},
    {"history": History(2, (Snapshot(np.zeros(5, np.float32), 0, 0, None),))},
]


def test_the_tag_tells_apart_whatever_a_commit_may_change() -> None:
    """A cancel moves neither step nor position; a reset may bring back both."""
    base = Session("i", "m", "1", "d", "", np.arange(5, dtype=np.float32), 0, 0, 1.0, 100.0)
    tags = [tag(None), tag(base)] + [tag(base._replace(**change)) for change in WHOLE]  # type: ignore[arg-type]
    assert len(set(tags)) == len(tags)
    assert tag(base._replace(state=base.state.copy())) == tag(base)


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["make", "move", "remove"]), st.integers(0, 2), st.integers(0, 3), st.booleans()), min_size=1, max_size=40
    )
)
def test_random_commits_from_old_and_new_knowledge_move_what_a_dictionary_says(process: RedisProcess, moves: list[Any]) -> None:
    """`back` is how many versions old the committer's knowledge is; the model moves only from the newest."""
    stores = [RedisStore(process.url), RedisStore(process.url)]
    names = [new_id(stores[0].key) for _ in range(3)]
    history: dict[str, list[Session | None]] = {n: [None] for n in names}
    for number, (kind, which, back, by) in enumerate(moves):
        name = names[which]
        versions = history[name]
        before = versions[max(0, len(versions) - 1 - back)]
        after = session(stores[0], id=name, step=number, expires_at=9e9 + number) if kind != "remove" else None
        if kind == "make":
            before = None
        if before is None and after is None:
            continue
        lost = stores[by].commit([Change(before, after)])
        holds = versions[-1]
        moves_it = tag(holds) == tag(before) or tag(holds) == tag(after)
        assert lost == (frozenset() if moves_it else {name})
        if moves_it:
            versions.append(after)
        found = stores[not by].load([name]).get(name)
        assert tag(found) == tag(versions[-1])
    listed = {s.id for s in stores[0].list("", 0, 10_000)} & set(names)
    assert listed == {n for n in names if history[n][-1] is not None}
    for made in stores:
        made.close()


def test_a_session_that_keeps_nothing_has_the_fields_it_always_had_and_another_those_it_needs(
    process: RedisProcess, store: RedisStore
) -> None:
    plain, keeping = session(store), session(store, history=History(2))
    store.commit([Change(None, plain), Change(None, keeping)])
    for _ in range(5):
        after = advanced(keeping)._replace(history=keeping.left)
        store.commit([Change(keeping, after), Change(plain, plain := advanced(plain))])
        keeping = after
    client = process.client()
    assert set(client.hkeys(f"indrnn:session:{plain.id}")) == {b"tag", b"head", b"body"}
    assert set(client.hkeys(f"indrnn:session:{keeping.id}")) == {b"tag", b"head", b"body", b"history", b"kept:3", b"kept:4"}
    client.close()


def test_the_fields_of_a_session_that_was_lost_are_not_taken_for_the_next_ones(store: RedisStore, other: RedisStore) -> None:
    lost, moved = (session(store, history=History(2), state=np.full(5, n, np.float32)) for n in range(2))
    store.commit([Change(None, lost), Change(None, moved)])
    other.commit([Change(other.load([lost.id])[lost.id], lost._replace(position=7))])
    changes = [Change(s, advanced(s, 2)._replace(history=s.left)) for s in (lost, moved)]
    assert store.commit(changes) == {lost.id}
    found = other.load([lost.id, moved.id])
    assert found[lost.id].history == History(2)
    assert [at.state[0] for at in found[moved.id].history.past] == [1]  # type: ignore[union-attr]


def test_a_lost_answer_is_asked_for_again_and_the_commit_counts_once(store: RedisStore, proxy: LossyProxy) -> None:
    """The script has run, its answer is lost: sent again it finds its own tag and changes nothing."""
    through = RedisStore(proxy.url)
    made = session(store)
    through.commit([Change(None, made)])
    proxy.lose = 1
    assert through.commit([Change(made, advanced(made))]) == frozenset()
    assert store.load([made.id])[made.id].step == 1
    proxy.lose = 1
    assert list(through.load([made.id])) == [made.id]
    proxy.lose = 1
    assert through.commit([Change(advanced(made), None)]) == frozenset()
    assert store.load([made.id]) == {}
    through.close()


def test_after_two_lost_answers_nobody_claims_to_know(store: RedisStore, proxy: LossyProxy) -> None:
    through = RedisStore(proxy.url)
    made = session(store)
    through.commit([Change(None, made)])
    proxy.lose = 2
    with pytest.raises(StoreFailed, match="it is not known whether"):
        through.commit([Change(made, advanced(made))])
    assert through.load([made.id])[made.id].step == 1  # it was, as reading shows
    through.close()


def test_an_answer_that_takes_too_long_is_not_waited_for(process: RedisProcess, store: RedisStore) -> None:
    hasty = RedisStore(process.url + "?socket_timeout=1")
    made = session(store)
    store.commit([Change(None, made)])
    process.client().execute_command("CLIENT", "PAUSE", 30_000, "WRITE")
    try:
        began = time.monotonic()
        with pytest.raises(StoreFailed, match="it is not known whether"):
            hasty.commit([Change(made, advanced(made))])
        assert time.monotonic() - began < 10
    finally:
        process.client().execute_command("CLIENT", "UNPAUSE")
    assert store.load([made.id])[made.id].step in (0, 1)
    assert store.commit([Change(made, advanced(made))]) == frozenset()  # whichever it was, asking again makes it so
    assert store.load([made.id])[made.id].step == 1
    hasty.close()


def test_a_redis_that_forgets_its_scripts_is_told_them_again(process: RedisProcess, store: RedisStore) -> None:
    made = session(store)
    store.commit([Change(None, made)])
    process.client().script_flush()
    assert store.commit([Change(made, advanced(made))]) == frozenset()


def test_a_redis_that_was_emptied_fails_every_commit(tmp_path: Path) -> None:
    with running_redis(tmp_path) as process:
        store = RedisStore(process.url)
        made = session(store)
        store.commit([Change(None, made)])
        process.client().flushall()
        for again in range(2):
            with pytest.raises(StoreFailed, match="was emptied or replaced while the service runs"):
                store.commit([Change(made, advanced(made))])
            with pytest.raises(StoreFailed, match="was emptied or replaced"):
                store.check()
            if not again:
                RedisStore(process.url).close()  # another service makes a key of its own
        store.close()


def test_what_was_committed_outlives_kill_9_of_redis(tmp_path: Path) -> None:
    with running_redis(tmp_path) as process:
        store = RedisStore(process.url)
        made = session(store)
        store.commit([Change(None, made)])
        for step in range(1, 6):
            assert store.commit([Change(made, advanced(made))]) == frozenset()
            made = advanced(made)
            process.kill()
            with pytest.raises(StoreFailed):
                store.load([made.id])
            with pytest.raises(StoreFailed):
                store.check()
            process.start()
            store.check()
            assert store.load([made.id])[made.id].step == step
        store.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--appendfsync", "everysec"), "expected appendfsync always, got everysec"),
        (("--appendfsync", "always", "--appendonly", "no"), "expected appendonly yes, got no"),
        (("--appendfsync", "always", "--maxmemory-policy", "allkeys-lru"), "expected maxmemory-policy noeviction, got allkeys-lru"),
        (("--appendfsync", "always", "--rename-command", "CONFIG", ""), "its settings cannot be read"),
    ],
)
def test_a_redis_that_may_lose_what_it_acknowledged_is_refused_unless_that_is_wanted(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    with running_redis(tmp_path, *options) as process:
        with pytest.raises(StoreError) as refused:
            open_store(process.url)
        assert said in str(refused.value)
        assert "INDRNN_STORE_DURABILITY=relaxed" in str(refused.value)
        open_store(process.url, "relaxed").close()


def test_a_redis_that_stops_being_durable_is_noticed(tmp_path: Path) -> None:
    with running_redis(tmp_path) as process:
        store = RedisStore(process.url)
        process.client().config_set("appendfsync", "no")
        with pytest.raises(StoreFailed, match="expected appendfsync always, got no"):
            store.check()
        process.client().config_set("appendfsync", "always")
        store.check()
        store.close()


def test_a_full_redis_refuses_and_evicts_nothing(tmp_path: Path) -> None:
    with running_redis(tmp_path) as process:
        store = RedisStore(process.url)
        made = session(store)
        store.commit([Change(None, made)])
        process.client().config_set("maxmemory", "1")
        with pytest.raises(StoreFailed, match="maxmemory"):
            store.commit([Change(made, advanced(made))])
        with pytest.raises(StoreFailed):
            store.check()
        process.client().config_set("maxmemory", "0")
        assert store.load([made.id])[made.id].step == 0
        assert store.commit([Change(made, advanced(made))]) == frozenset()
        store.close()


def test_passwords_work_and_are_in_no_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_redis(tmp_path, "--appendfsync", "always", "--requirepass", "s3cret") as process:
        address = process.url.replace("127.0.0.1", ":s3cret@127.0.0.1")
        store = RedisStore(address)
        made = session(store)
        store.commit([Change(None, made)])
        for wrong in (process.url, address.replace("s3cret", "wr0ng")):
            with pytest.raises(StoreError) as refused:
                RedisStore(wrong)
            assert "wr0ng" not in str(refused.value)
        process.kill()
        with pytest.raises(StoreFailed) as failed:
            store.load([made.id])
        with pytest.raises(StoreError) as down:
            RedisStore(address)
        for text in (str(failed.value), str(down.value), caplog.text):
            assert "s3cret" not in text
            assert f"127.0.0.1:{process.port}" in text
        process.start()
        store.close()


def test_another_layout_and_a_cluster_are_refused(process: RedisProcess, store: RedisStore, tmp_path: Path) -> None:
    process.client().set("indrnn:schema", b"2")
    with pytest.raises(StoreError, match="expected schema 1, got b'2'"):
        RedisStore(process.url)
    process.client().set("indrnn:schema", b"1")
    options = ("--appendfsync", "always", "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with running_redis(tmp_path, *options) as cluster, pytest.raises(StoreError, match="expected one Redis, got a node of a cluster"):
        RedisStore(cluster.url)


def test_expired_sessions_leave_nothing_behind(process: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the set of an owner whose sessions are all gone; and a sweep goes on where its bound stopped it."""
    monkeypatch.setattr(redis_store, "SLICE", 10)
    monkeypatch.setattr(redis_store, "SWEPT", 20)
    client = process.client()
    client.flushall()
    store = RedisStore(process.url)
    made = [session(store, owner=f"o{i % 3}", expires_at=time.time() + (0.2 if i % 3 else 100)) for i in range(150)]
    store.commit([Change(None, s) for s in made])
    deadline = time.monotonic() + 20
    while client.dbsize() > 50 + 6:  # key, schema, owners, three sets
        assert time.monotonic() < deadline, client.keys()
    calls = [store.expire(0) for _ in range(20)]
    assert sum(calls) == 100
    assert max(calls) <= 20
    assert client.smembers("indrnn:owners") == {b"o0"}
    assert client.zcard("indrnn:owned:o0") == 50
    assert client.exists("indrnn:owned:o1", "indrnn:owned:o2") == 0
    store.close()


def test_redis_itself_removes_a_session_at_its_time(process: RedisProcess, store: RedisStore) -> None:
    made = session(store)
    store.commit([Change(None, made)])
    assert process.client().pexpiretime(f"indrnn:session:{made.id}") == pytest.approx(made.expires_at * 1000, abs=1)
    later = advanced(made)._replace(expires_at=made.expires_at + 50)
    store.commit([Change(made, later)])
    assert process.client().pexpiretime(f"indrnn:session:{made.id}") == pytest.approx(later.expires_at * 1000, abs=1)


def test_the_signing_key_is_made_once_whoever_comes_first(process: RedisProcess) -> None:
    process.client().flushall()
    stores = [RedisStore(process.url) for _ in range(3)]
    assert len({s.key for s in stores}) == 1
    for s in stores:
        s.close()


def test_a_replica_of_a_redis_is_refused(process: RedisProcess, tmp_path: Path) -> None:
    options = ("--appendfsync", "always", "--replicaof", f"127.0.0.1 {process.port}")
    with running_redis(tmp_path, *options) as replica, pytest.raises(StoreError, match="read only replica"):
        RedisStore(replica.url)


def test_an_unread_error_of_the_script_is_unknown_too(process: RedisProcess, store: RedisStore) -> None:
    """A key of another type stops the script in the middle: what came before it has moved."""
    first, second = session(store), session(store)
    process.client().set(f"indrnn:session:{second.id}", "not a hash")
    with pytest.raises(StoreFailed, match="it is not known whether"):
        store.commit([Change(None, first), Change(None, second)])
    with pytest.raises(redis.ResponseError):
        process.client().hget(f"indrnn:session:{second.id}", "tag")
    assert store.load([first.id])[first.id].step == 0


def test_what_a_session_has_behind_its_graph_is_nothing_that_an_older_service_reads(store: RedisStore, other: RedisStore) -> None:
    """0.1.0 takes all bytes of a state for the graph's, and of a last step the parts that it knows."""
    scores = Scores(np.ones(2, np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    fresh = session(store, state=np.zeros(5, np.float32))
    stepped = advanced(fresh)._replace(last=Step(bytes(16), scores))
    for one in (store, other):
        one.graphs["d"] = 3

    def stored() -> tuple[int, bytes]:
        head, body = store._redis.hmget(f"indrnn:session:{fresh.id}", "head", "body")
        return orjson.loads(head)[8], body

    assert not store.commit([Change(None, fresh)])
    assert stored() == (12, bytes(12))
    assert other.load([fresh.id])[fresh.id].state.tolist() == [0, 0, 0]
    assert not store.commit([Change(store.load([fresh.id])[fresh.id], stepped)])
    size, body = stored()
    assert size == 12
    assert body[:12] == stepped.state[:3].tobytes()
    found = other.load([fresh.id])[fresh.id]
    assert found.state.tolist() == stepped.state.tolist() == [1, 1, 1, 1, 1]
    assert found.last is not None
    assert found.last.result.logits.tolist() == [1, 1]  # type: ignore[union-attr]
    assert not other.commit([Change(found, advanced(found))])
    kept = found._replace(history=History(2))
    assert store.commit([Change(found, kept)]) == {fresh.id}
    now = store.load([fresh.id])[fresh.id]
    assert not store.commit([Change(now, now._replace(step=9, history=History(2)))])
    assert stored()[0] == 20  # no older service reads a session that keeps states


def spoil(db: "redis.Redis[bytes]", key: str, **fields: bytes | str | None) -> None:
    """Put fields of a session's hash out of order; where one is None, the key is not even a hash."""
    if None in fields.values():
        db.delete(key)
        db.set(key, "x")
    else:
        db.hset(key, mapping=fields)


HEADS = [
    b"",
    b"x",
    b"{}",
    b"[1,2]",
    b"7",
    b'["m","v","d","o",1,1,1,"x",1,1]',
    b'["m","v","d","o",1,1,1,9e9,null,1]',
    b'["m","v","d","o",1,1,null,9e9,1,1]',
    b"\xff",
    None,
]


@pytest.mark.parametrize("head", HEADS)
def test_a_damaged_head_hides_no_other_session(process: RedisProcess, store: RedisStore, head: bytes | None) -> None:
    one, damaged = (session(store) for _ in range(2))
    store.commit([Change(None, one), Change(None, damaged)])
    before = store.count(one.owner, 0), sum(p.sessions for p in store.census(0))
    key = f"indrnn:session:{damaged.id}"
    with redis.Redis.from_url(process.url) as db:
        spoil(db, key, head=head)
        listed = [s.id for s in store.list(one.owner, 0, 100)]
        assert one.id in listed
        assert damaged.id not in listed
        assert (store.count(one.owner, 0), sum(p.sessions for p in store.census(0))) == (before[0] - 1, before[1] - 1)
        db.delete(key)


@pytest.mark.parametrize("history", ["{}", "[1,5]", '[1,"a"]', "[1,[[2]]]", "[1,[null]]", "[[],5]", "[[],[[2]]]", "[[],[2]]", None])
def test_a_session_of_another_shape_takes_no_other_along(
    process: RedisProcess, store: RedisStore, other: RedisStore, history: str | None
) -> None:
    one, damaged = (session(store) for _ in range(2))
    store.commit([Change(None, one), Change(None, damaged)])
    key = f"indrnn:session:{damaged.id}"
    with redis.Redis.from_url(process.url) as db:
        spoil(db, key, tag="another", history=history)
        with pytest.raises(Unreadable) as told:
            other.load([damaged.id, one.id])
        assert told.value.idents == {damaged.id}
        assert list(other.load([one.id])) == [one.id]
        db.delete(key)
