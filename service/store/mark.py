"""The mark in a shard's file, which says whose sessions it has, whatever its name is.

It stands in the table `meta`, where earlier releases read past it. A file that one of them has written has none: then its sessions say it.
"""

import contextlib
import re
import sqlite3
from pathlib import Path

from indrnn.service.session.shard import Shard, shard_of
from indrnn.service.store.protocol import StoreError
from indrnn.service.store.sqlite import looked_at

SAMPLE = 1_000  # sessions that are looked at, by id and from the newest back: all of them are of one shard, or it is no shard's file

_SOME = "SELECT * FROM (SELECT id FROM sessions ORDER BY rowid DESC LIMIT ?) UNION ALL SELECT * FROM (SELECT id FROM sessions LIMIT ?)"
_NUMBERS = re.compile(r"([0-9]{1,3})-of-([0-9]{1,3})")
_NAME = re.compile(r"(.+)-([0-9]+-of-[0-9]+)")


def mark_of(shard: Shard) -> str:
    """Return the mark of a shard."""
    return f"{shard.number}-of-{shard.of}"


def held_by(path: Path, shard: Shard, immutable: bool = False) -> Shard | None:
    """Return whose sessions a file has: by its mark, or by ids that fall to another shard than this one.

    None where nothing says so: a file that is new, or no store's, of which whoever opens it says more. Raises StoreError at a mark that is
    none. immutable: the file is looked at without its log, which may be another file's, and by its ids only where it has no mark. With its
    log by both: the log need not have the page of the mark, and may be another file's all the same.
    """
    said: Shard | None = None
    try:
        if not path.is_file():
            return None
        with contextlib.closing(looked_at(path, immutable)) as db:
            mark = db.execute("SELECT value FROM meta WHERE name = 'shard'").fetchone()
            if mark is not None and (said := _shard(str(mark[0]))) is None:
                raise StoreError(f"store {path}: expected a mark like 0-of-2 in it, got {str(mark[0])[:40]!r}")
            if said in (None, shard) and shard.of > 1 and not (said and immutable):
                for (ident,) in db.execute(_SOME, (SAMPLE, SAMPLE)):
                    if (number := shard_of(str(ident), shard.of)) != shard.number:
                        return Shard(number, shard.of)
    except sqlite3.Error:
        return None
    return said


def _shard(text: str) -> Shard | None:
    """Return the shard that K-of-S says."""
    found = _NUMBERS.fullmatch(text)
    return None if found is None or int(found[1]) >= int(found[2]) else Shard(int(found[1]), int(found[2]))


def named(path: Path) -> Shard | None:
    """Return the shard that a file has by its name."""
    found = _NAME.fullmatch(path.stem)
    return None if found is None else _shard(found[2])


def whole_of(path: Path) -> Path | None:
    """Return the path of the store of which a file is a shard by its name."""
    found = _NAME.fullmatch(path.stem)
    return None if found is None else path.with_name(found[1] + path.suffix)
