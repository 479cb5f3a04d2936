"""Session ids: 128 random bits and a short HMAC under a key kept in the store.

The signature tells an id that has expired (410) from one that never was (404), without keeping the expired ones. It covers the owner, so
that somebody else's id is one that never was, before and after it has expired.
"""

import base64
import hashlib
import hmac
import secrets

from indrnn.service.errors import Gone, ServiceError, UnknownSession
from indrnn.service.session.shard import UNDIVIDED, Shard

RANDOM_BYTES = 16
TAG_BYTES = 5  # with the random bits a multiple of three: no padding; guessing a tag does not give access, only 410 for 404


def new_key() -> bytes:
    """Return a new random signing key."""
    return secrets.token_bytes(32)


def new_id(key: bytes, owner: str = "", shard: Shard = UNDIVIDED) -> str:
    """Return a fresh id for an owner, 28 URL-safe characters, that falls to the shard: of as many as there are shards, one does."""
    while True:
        random = secrets.token_bytes(RANDOM_BYTES)
        drawn = base64.urlsafe_b64encode(random + _tag(key, random, owner)).decode()
        if shard.has(drawn):
            return drawn


def issued(key: bytes, session_id: str, owner: str = "") -> bool:
    """Return whether the id was signed with this key for this owner."""
    try:
        raw = base64.b64decode(session_id.encode(), altchars=b"-_", validate=True)
    except (ValueError, UnicodeEncodeError):
        return False
    random, tag = raw[:RANDOM_BYTES], raw[RANDOM_BYTES:]
    return len(raw) == RANDOM_BYTES + TAG_BYTES and hmac.compare_digest(tag, _tag(key, random, owner))


def not_there(key: bytes, session_id: str, owner: str, somebody_elses: bool = False) -> ServiceError:
    """Return the error for a session that its owner does not find: Gone where its id was once issued, else UnknownSession."""
    if not somebody_elses and issued(key, session_id, owner):
        return Gone("the session has expired or was deleted")
    return UnknownSession(f"there is no session {session_id[:64]!r}")


def _tag(key: bytes, random: bytes, owner: str) -> bytes:
    return hmac.digest(key, b"session" + random + owner.encode(), hashlib.sha256)[:TAG_BYTES]
