"""Sessions in one Redis that several services share.

Each session is a hash. A commit is one script, run by Redis in one piece: a session is written where its tag still is the one of `before`.
The tag is a digest of what the session is, so that cancels, emitted characters and resets count as well as steps, and so that a commit
may be sent again: one that had got through finds the tag of `after` and is content.

Sessions that were used last are kept in memory with their tags. A look at them asks Redis for nothing but whether the tags still are these,
in one script; what another service has moved comes back whole. So nobody is ever told what is no longer so.

    indrnn:key, indrnn:schema      the key that signs ids; the layout of all this
    indrnn:session:<id>            tag, head (numbers and names), body (state, last step, carry); Redis removes it when its time is over
                                   of one that keeps states also history (marks, steps), and kept:<step> for each
    indrnn:owned:<owner>           sorted set of ids by time of creation; `expire` takes out those that are no more
    indrnn:owners                  who has such a set
    indrnn:claim:<id>              for some milliseconds, who alone may move a session that it lost again and again
"""

import hashlib
import logging
import math
import secrets
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import orjson
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from indrnn.service.errors import StoreFailed, Unreadable
from indrnn.service.session.ids import new_key
from indrnn.service.session.machine import Generated, History, Scores, Session
from indrnn.service.store.protocol import Change, Durability, Population, StoreError
from indrnn.service.store.record import (
    Kept,
    decode_beside,
    decode_carry,
    decode_snapshot,
    decode_step,
    encode_carry,
    encode_snapshot,
    encode_step,
    read_each,
    rewritten,
)

log = logging.getLogger(__name__)
R = TypeVar("R")

SCHEMA_VERSION = b"1"
CONNECT_TIMEOUT = 2.0  # seconds
TIMEOUT = 5.0  # seconds for one answer, a slow disk's fsync included; `?socket_timeout=` in the address says otherwise
TRIES = 2  # how often a command is sent when its connection breaks; the second time on a new one
SLICE = 200  # sessions of an owner looked at in one go
SWEPT = 20_000  # sessions looked at by one call of expire: some 50 ms of Redis, spread over slices
STRICT = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
PATIENCE = 3  # lost commits in a row before a session is claimed
CLAIM, CLAIM_MOST = (
    10,
    200,
)  # milliseconds that a claim holds for each commit lost beyond that: a step and a round trip, and more if need be
NO_TAG = b""  # of a session that is not there

_PREFIX = b"indrnn:"
_KEY, _SCHEMA, _OWNERS, _PROBE = (_PREFIX + name for name in (b"key", b"schema", b"owners", b"probe"))
_SESSION, _OWNED, _CLAIM = _PREFIX + b"session:", _PREFIX + b"owned:", _PREFIX + b"claim:"
_CREATED_AT, _EXPIRES_AT = 6, 7  # where they stand in a head
_KEEP = 10  # only in the head of a session that keeps states
# What stands in a head, with _KEEP, which only some have.
_KINDS: tuple[type | tuple[type, ...], ...] = (str, str, str, str, int, int, (int, float), (int, float), int, int, int)
_OTHER_STORE = -1

# KEYS: key, owners, then session and owned of each change. ARGV: the key's value, who commits, then seven values of each change, then the
# fields of sessions that keep states, in pairs of name and value; an empty value removes the field. `n_more` is how many values of these a
# change has. The numbers of the lost ones.
_COMMIT = f"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {{{_OTHER_STORE}}} end
local lost, more = {{}}, 7 * (#KEYS - 2) / 2 + 3
for i = 3, #KEYS, 2 do
  local session, owned, n = KEYS[i], KEYS[i + 1], (i - 3) / 2
  local before, after, expires, head, body, claims, n_more = unpack(ARGV, 7 * n + 3, 7 * n + 9)
  local id = string.sub(session, {len(_SESSION) + 1})
  local tag = redis.call('HGET', session, 'tag') or ''
  if tag ~= after then
    local claim = '{_CLAIM.decode()}' .. id
    local claimed = redis.call('GET', claim)
    if tag ~= before or (claimed and claimed ~= ARGV[2]) then
      lost[#lost + 1] = n
      if claims ~= '0' then redis.call('SET', claim, ARGV[2], 'NX', 'PX', claims) end
    elseif after == '' then
      redis.call('DEL', session)
      redis.call('ZREM', owned, id)
    else
      redis.call('HSET', session, 'tag', after, 'head', head, 'body', body)
      for at = more, more + n_more - 1, 2 do
        if ARGV[at + 1] == '' then
          redis.call('HDEL', session, ARGV[at])
        else
          redis.call('HSET', session, ARGV[at], ARGV[at + 1])
        end
      end
      redis.call('PEXPIREAT', session, expires)
      if before == '' then
        local created = cjson.decode(head)[{_CREATED_AT + 1}]
        redis.call('ZADD', owned, string.format('%.17g', created), id)
        redis.call('SADD', KEYS[2], string.sub(owned, {len(_OWNED) + 1}))
      end
      if claimed then redis.call('DEL', claim) end
    end
  end
  more = more + n_more
end
return lost
"""

# KEYS: sessions. ARGV: the tags that are known of them. For each 1 where that is its tag, else tag, head, body, history and what is kept.
_LOAD = """
local found = {}
for i = 1, #KEYS do
  if redis.pcall('HGET', KEYS[i], 'tag') == ARGV[i] then
    found[i] = 1
  else
    found[i] = redis.pcall('HMGET', KEYS[i], 'tag', 'head', 'body', 'history')
    if found[i].err then  -- what is wrong with one is no reason to refuse the others
      found[i] = {'', '', '', false}
    elseif found[i][4] then
      local _, history = pcall(cjson.decode, found[i][4])
      local steps = type(history) == 'table' and history[2]
      for n, step in ipairs(type(steps) == 'table' and steps or {}) do
        if type(step) ~= 'string' then break end
        found[i][4 + n] = redis.call('HGET', KEYS[i], 'kept:' .. step)
      end
    end
  end
end
return found
"""

# KEYS: owners, owned, then sessions. ARGV: the owner, then the sessions' ids. How many of them were no more.
_PRUNE = """
local gone = 0
for i = 3, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then gone = gone + redis.call('ZREM', KEYS[2], ARGV[i - 1]) end
end
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('SREM', KEYS[1], ARGV[1]) end
return gone
"""


class RedisStore:
    """A Redis 5 or newer, alone or as a master (no Redis Cluster), of which nobody else writes to keys that begin with `indrnn:`.

    Strict refuses a Redis that could lose what it has acknowledged; `relaxed` takes it as it is.
    """

    def __init__(self, address: str, durability: Durability = "strict") -> None:
        self._strict = durability == "strict"
        try:
            self._where = _without_password(address)
            self._redis: Any = redis.Redis.from_url(  # untyped where RESP2 and 3 differ
                address, socket_timeout=TIMEOUT, socket_connect_timeout=CONNECT_TIMEOUT, retry=Retry(NoBackoff(), 0)
            )
        except ValueError:
            raise StoreError("store: expected redis://[user:password@]host[:port][/db], rediss://… or unix://path[?db=n]") from None
        self._commit = self._redis.register_script(_COMMIT)
        self._prune = self._redis.register_script(_PRUNE)
        self._look = self._redis.register_script(_LOAD)
        self._kept = Kept()
        self.graphs: dict[str, int] = {}
        self._sweep: Iterator[int] | None = None
        self._name = secrets.token_bytes(8)
        try:
            self._need_durability()
            self.key = self._open()
        except (redis.RedisError, StoreFailed) as error:
            self.close()
            raise StoreError(f"store {self._where}: {error}") from error

    def _open(self) -> bytes:
        if self._redis.info("server").get("redis_mode") == "cluster":
            raise StoreFailed("expected one Redis, got a node of a cluster")
        self._redis.set(_SCHEMA, SCHEMA_VERSION, nx=True)
        if (version := self._redis.get(_SCHEMA)) != SCHEMA_VERSION:
            raise StoreFailed(f"expected schema {SCHEMA_VERSION.decode()}, got {version!r}: another release has written it")
        self._redis.set(_KEY, new_key(), nx=True)
        return bytes(self._redis.get(_KEY))

    def _need_durability(self) -> None:
        if not self._strict:
            return
        try:
            found = {name: self._redis.config_get(name).get(name) for name in STRICT}
        except redis.ResponseError as error:
            raise StoreFailed(f"its settings cannot be read ({error}); INDRNN_STORE_DURABILITY=relaxed takes them on trust") from error
        wrong = [f"{name} {wanted}, got {found[name]}" for name, wanted in STRICT.items() if _text(found[name]) != wanted]
        if wrong:
            raise StoreFailed(f"expected {'; '.join(wrong)}; INDRNN_STORE_DURABILITY=relaxed may lose what was answered, and takes it")

    def load(self, ids: Sequence[str]) -> dict[str, Session]:
        """Load the sessions of these ids, as Store says. Takes one round trip, of the tags alone where they are the known ones."""
        if not ids:
            return {}
        known = self._kept.find(ids)
        tags = [known[i].tag if i in known else NO_TAG for i in ids]
        answers = self._try(lambda: self._run(self._look, [_SESSION + i.encode() for i in ids], tags))
        found: dict[str, Session] = {}
        gone: list[str] = []
        rows: dict[str, Sequence[bytes | None]] = {}
        for i, answer in zip(ids, answers, strict=True):
            if i in known and answer == 1:
                found[i] = known[i].session
            elif answer[0] is None:
                gone.append(i)
            else:
                rows[i] = answer
        new, wrong = read_each(rows, lambda i, row: _session(i, row[1:]))
        self._kept.drop([*gone, *wrong])
        self._kept.keep((session, rows[i][0] or NO_TAG) for i, session in new.items())
        if wrong:
            raise Unreadable.of(wrong)
        return found | new

    def stepped_here(self, ttl: float, seconds: float) -> int:
        """Return how many sessions, as far as they are kept in memory, this service has stepped or read in so many last seconds."""
        return self._kept.living_beyond(time.time() + ttl - seconds)

    def commit(self, changes: Sequence[Change]) -> frozenset[str]:
        """Commit the changes, as Store says, in one round trip."""
        keys: list[bytes] = [_KEY, _OWNERS]
        values: list[bytes | int] = [self.key, self._name]
        more: list[bytes] = []
        tags = [(self._tag(change.before), tag(change.after)) for change in changes]
        for change, (before, after) in zip(changes, tags, strict=True):
            keys += _keys_of(change)
            fields = _history_fields(change)
            values += (before, after, *_values(change, self.graphs), len(fields))
            more += fields
        values += more
        try:
            lost = self._send(lambda: self._run(self._commit, keys, values))
        except redis.RedisError as error:
            raise StoreFailed(f"it is not known whether the new state was stored: {error or type(error).__name__}") from error
        if lost == [_OTHER_STORE]:
            raise StoreFailed(f"{self._where} was emptied or replaced while the service runs: restart it")
        self._kept.drop(change.id for change in changes if change.after is None)
        self._kept.keep((c.after, tags[n][1]) for n, c in enumerate(changes) if c.after is not None and n not in lost)
        return frozenset(changes[n].id for n in lost)

    def _tag(self, session: Session | None) -> bytes:
        """Return the session's tag; what has been loaded or committed here has been given its own (8 µs less)."""
        known = None if session is None else self._kept.tag_of(session)
        return tag(session) if known is None else known

    def list(self, owner: str, now: float, limit: int) -> list[Session]:
        """List an owner's living sessions, as Store says."""
        found: list[Session] = []
        for session in self._each(_owned(owner), _listed, "ZREVRANGE"):
            found += [session] if session.expires_at > now else []
            if len(found) == limit:
                break
        return found[:limit]

    def count(self, owner: str, now: float) -> int:
        """Count an owner's living sessions, as Store says. Looks at each of them."""
        return sum(1 + sum(head[_KEEP:]) for head in self._each(_owned(owner), _head) if head[_EXPIRES_AT] > now)

    def census(self, now: float) -> tuple[Population, ...]:
        """Count the living sessions of each model version, as Store says."""
        counted: Counter[tuple[str, str, str]] = Counter()
        stored: Counter[tuple[str, str, str]] = Counter()
        (owners,) = self._read([("SMEMBERS", _OWNERS)])
        for owner in owners:
            for model, version, digest, _, _, _, _, expires_at, n_state, *_ in self._each(_OWNED + owner, _head):
                if expires_at > now:
                    counted[model, version, digest] += 1
                    stored[model, version, digest] += n_state
        return tuple(Population(*key, sessions, stored[key]) for key, sessions in sorted(counted.items()))

    def _each(self, owned: bytes, read: Callable[[str, bytes], R], order: str = "ZRANGE") -> Iterator[R]:
        """Yield what `read` makes of the heads of an owner's sessions, which are asked for a slice at a time; of a damaged one nothing."""
        ids: Sequence[bytes] = ()
        at = 0
        while at == 0 or len(ids) == SLICE:
            (ids,) = self._read([(order, owned, at, at + SLICE - 1)])
            heads = self._read([("HGET", _SESSION + i, "head") for i in ids], damaged=True)
            rows = {i.decode(): head for i, head in zip(ids, heads, strict=True) if head is not None}
            yield from read_each(rows, read)[0].values()
            at += SLICE

    def expire(self, now: float) -> int:
        """Remove expired sessions, as Store says. Redis removes them itself: this counts them, and takes them out of their owners' sets.

        One call looks at up to SWEPT of them, and the next goes on from there.
        """
        looked = removed = 0
        while looked < SWEPT:
            self._sweep = self._sweep or self._gone()
            try:
                removed += next(self._sweep)
            except StopIteration:
                self._sweep = None
                break
            except BaseException:
                self._sweep = None
                raise
            looked += SLICE
        return removed

    def _gone(self) -> Iterator[int]:
        """Go once through all owners' sets, a slice at a time; how many of each slice were no more."""
        (owners,) = self._read([("SMEMBERS", _OWNERS)])
        for owner in owners:
            owned, at = _OWNED + owner, 0
            while True:
                (ids,) = self._read([("ZRANGE", owned, at, at + SLICE - 1)])
                keys = [_OWNERS, owned, *(_SESSION + i for i in ids)]
                removed = int(self._try(lambda: self._run(self._prune, keys, [owner, *ids])))  # noqa: B023  # called at once
                yield removed
                at += SLICE - removed  # those that are left have moved up
                if len(ids) < SLICE:
                    break

    def check(self) -> None:
        """Check that the store can be written and is still the same, as Store says."""
        (key, _) = self._read([("GET", _KEY), ("INCR", _PROBE)])
        if key != self.key:
            raise StoreFailed(f"{self._where} was emptied or replaced while the service runs: restart it")
        self._try(self._need_durability)

    def close(self) -> None:
        """Close the connections to Redis, as Store says."""
        self._redis.close()

    def _read(self, commands: Sequence[tuple[object, ...]], damaged: bool = False) -> Sequence[Any]:
        """Return the answers to commands that may be repeated, in one round trip. Raises StoreFailed.

        damaged: a key of another type than the command's is no failure, the error is its answer.
        """

        def ask() -> Sequence[Any]:
            if len(commands) == 1 and not damaged:
                return [self._redis.execute_command(*commands[0], NEVER_DECODE=True)]
            with self._redis.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command, NEVER_DECODE=True)
                answers: Sequence[Any] = pipeline.execute(raise_on_error=not damaged)
            for answer in answers:
                if isinstance(answer, redis.RedisError) and not str(answer).startswith("WRONGTYPE"):
                    raise answer
            return answers

        return self._try(ask) if commands else []

    def _run(self, script: Any, keys: Sequence[bytes], values: Sequence[bytes | int]) -> Any:
        """Return a script's answer, in bytes whatever the address says of decoding."""
        command = ("EVALSHA", script.sha, len(keys), *keys, *values)
        try:
            return self._redis.execute_command(*command, NEVER_DECODE=True)
        except redis.exceptions.NoScriptError:
            self._redis.script_load(script.script)
            return self._redis.execute_command(*command, NEVER_DECODE=True)

    def _try(self, ask: Callable[[], R]) -> R:
        try:
            return self._send(ask)
        except redis.RedisError as error:
            raise StoreFailed(f"{self._where} could not be asked: {error or type(error).__name__}") from error

    def _send(self, ask: Callable[[], R]) -> R:
        """Ask, and once more on a new connection where one broke: whatever this module sends may be sent twice (docs/store.md)."""
        for left in reversed(range(TRIES)):
            try:
                return ask()
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if not left or isinstance(error, redis.AuthenticationError | redis.exceptions.MaxConnectionsError):
                    raise
                log.warning("%s: %s", self._where, error or type(error).__name__)
                self._redis.connection_pool.disconnect(inuse_connections=False)
        raise AssertionError("the last try returns or raises")


def tag(session: Session | None) -> bytes:
    """Return what two sessions share exactly when they are the same: a digest of all that a client can tell, but for the last result.

    That one follows from the state, the step's digest, and how much of it has been generated.
    """
    if session is None:
        return NO_TAG
    digest = hashlib.blake2b(struct.pack("<qqdd", session.step, session.position, session.created_at, session.expires_at), digest_size=16)
    if session.last is not None:
        digest.update(session.last.digest)
        if isinstance(session.last.result, Generated):
            reason = session.last.result.reason
            digest.update(struct.pack("<q", len(session.last.result.text)) + (reason.value.encode() if reason else b""))
    if session.carry is not None:
        digest.update(encode_carry(session.carry))
    digest.update(np.ascontiguousarray(session.state, "<f4").data)
    if session.history is not None:
        digest.update(b"%d" % session.history.keep + _encode_history(session.history))
    return digest.digest()


def _owned(owner: str) -> bytes:
    return _OWNED + owner.encode()


def _keys_of(change: Change) -> tuple[bytes, bytes]:
    session = change.after or change.before
    assert session is not None, "a change has a side"
    return _SESSION + session.id.encode(), _owned(session.owner)


def _values(change: Change, graphs: Mapping[str, int]) -> tuple[bytes | int, ...]:
    s = change.after
    claims = min(CLAIM_MOST, CLAIM * max(0, change.lost + 1 - PATIENCE))
    if s is None:
        return 0, b"", b"", claims
    state, last = _state_and_last(s, graphs.get(s.digest))
    carry = encode_carry(s.carry) if s.carry else b""
    names = (s.model, s.version, s.digest, s.owner)
    keep = () if s.history is None else (s.history.keep,)
    head = orjson.dumps([*names, s.step, s.position, s.created_at, s.expires_at, len(state), len(last), *keep])
    return math.ceil(s.expires_at * 1000), head, state + last + carry, claims


def _state_and_last(s: Session, N: int | None) -> tuple[bytes, bytes]:
    """Return the bytes of the state and of the last step; N: numbers of the graph's state.

    What a session has behind these (the evidence on bodies) goes beside the last step, where a service of 0.1.0 that shares this Redis
    during an upgrade reads past it: the model would refuse a longer state. One that keeps states has no such reader.
    """
    state = s.state.astype("<f4", copy=False)
    if N is not None and len(state) > N and s.history is None:
        if s.last is None and not state[N:].any():
            return state[:N].tobytes(), b""
        if s.last is not None and isinstance(s.last.result, Scores):
            return state[:N].tobytes(), encode_step(s.last, state[N:])
    return state.tobytes(), encode_step(s.last) if s.last else b""


def _history_fields(change: Change) -> list[bytes]:
    """Return the names and values of the fields that a commit changes of the states that a session keeps."""
    after = change.after
    if after is None or not (after.history or (change.before and change.before.history)):
        return []  # nothing is kept, or all of it goes
    made = rewritten(change.before, after)
    fields = [b"history", b"" if after.history is None else _encode_history(after.history)]
    for step in made.gone:
        fields += (_kept(step), b"")
    for at in made.new:
        fields += (_kept(at.step), encode_snapshot(at))
    return fields


def _kept(step: int) -> bytes:
    return b"kept:%d" % step


def _encode_history(history: History) -> bytes:
    """Encode marks and steps; these as texts, since the script makes names of them."""
    return orjson.dumps([history.marks, [str(step) for step in history.steps]])


def _head(ident: str, head: bytes | redis.RedisError) -> Sequence[Any]:
    """Return a session's head. Raises ValueError where damage leaves none."""
    if isinstance(head, redis.RedisError):
        raise ValueError(str(head))
    read = orjson.loads(head)
    if not isinstance(read, list) or len(read) < len(_KINDS) - 1 or not all(isinstance(v, k) for v, k in zip(read, _KINDS, strict=False)):
        raise ValueError("expected names and numbers in a head")
    return read


def _listed(ident: str, head: bytes) -> Session:
    _head(ident, head)  # that it is one
    return _session(ident, (head, b"", None))


def _session(ident: str, row: Sequence[bytes | None]) -> Session:
    head, body, history, *kept = row
    model, version, digest, owner, step, position, created_at, expires_at, n_state, n_last, *keep = orjson.loads(head or b"")
    body = body or b""
    state, last, carry = body[:n_state], body[n_state : n_state + n_last], body[n_state + n_last :]
    if (beside := decode_beside(last)) is not None:
        state += beside.tobytes()
    return Session(
        ident,
        model,
        version,
        digest,
        owner,
        np.frombuffer(state, "<f4").astype(np.float32, copy=False),
        step,
        position,
        created_at,
        expires_at,
        decode_step(last) if last else None,
        decode_carry(carry) if carry else None,
        _history(keep[0], history, kept) if history else None,
    )


def _history(keep: int, encoded: bytes, kept: Sequence[bytes | None]) -> History:
    marks, steps = orjson.loads(encoded)
    if len(steps) != len(kept):
        raise ValueError(f"expected the names of {len(kept)} steps, got {len(steps)}")
    past = tuple(decode_snapshot(at) for at in kept if at is not None)
    return History(keep, past, tuple((name, step) for name, step in marks))


def _without_password(address: str) -> str:
    """Return the address as it may be shown. Raises ValueError."""
    url = urlsplit(address)
    host = f"[{url.hostname}]" if url.hostname and ":" in url.hostname else url.hostname or ""
    return f"{url.scheme}://{host}{f':{url.port}' if url.port else ''}{url.path}"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
