"""Runs that a benchmark has made, kept in a file of JSON with a line for each, so that none is made again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read(file: Path | None) -> list[Row]:
    """Return the rows that are kept; lines of JSON with no list round them are read too. Raises ValueError for a line that is no row."""
    rows = []
    for n, line in enumerate(file.read_text(encoding="utf-8").splitlines() if file and file.is_file() else [], 1):
        if (row := line.strip().rstrip(",")).startswith("{"):
            rows.append(json.loads(row))
        elif row not in ("[", "]", ""):  # the next run that is kept would drop it
            raise ValueError(f"{file}, line {n}: expected [, ] or one run in braces, got {row[:40]}")
    return rows


def once(file: Path | None, key: Row, make: Callable[[], Row]) -> Row:
    """Return the row that has all of `key`: a kept one, or what is made now, and kept; the file appears whole."""
    for row in read(file):
        if row.items() >= key.items():
            return row
    made = key | make()
    if file:
        partial = file.with_suffix(".partial")
        rows = [*read(file), made]  # read again: another process may have kept some
        partial.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")
        partial.replace(file)
    return made
