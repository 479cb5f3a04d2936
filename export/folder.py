"""The folder of a bundle, and the text of its manifest: what everybody needs who writes one."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from indrnn.export.bundle import Manifest
from indrnn.export.errors import ExportError


def check_names(name: str, version: str) -> None:
    """Raises ExportError before either stands in a path; both are what a manifest takes, and a version has no zeros before it."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", name):
        raise ExportError(f"name: expected up to 64 small letters, digits, - and _ that begin with a letter, got {name!r}")
    if not re.fullmatch(r"[1-9][0-9]{0,8}", version):
        raise ExportError(f"version: expected a whole number, 1, 2, 3 and so on, got {version!r}")


def reasons(invalid: ValidationError) -> str:
    """Return what a manifest is refused for, in one line."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in invalid.errors())


def source_revision() -> str:
    """Return the commit this code is from, with -dirty when files differ from it; "unknown" outside git."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def to_json(m: Manifest) -> str:
    """Return manifest.json, one entry a line; what is not stated is left out."""
    said = m.model_dump(mode="json", exclude_none=True)
    if m.streams:  # as nearly all do: an older service refuses fields that it does not know
        del said["streams"]
    return as_lines(said)


def as_lines(entries: Mapping[str, object]) -> str:
    """Return a JSON object, one entry a line."""
    lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in entries.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


@contextmanager
def appearing(folder: Path, partial: Path) -> Iterator[Path]:
    """Gives an empty folder to fill; it takes its place when the block ends well, and is removed when not.

    partial lies one level above versions, where a reader of bundles does not look, in case the process is killed half-way.
    """
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            replaced = partial.with_name(partial.name + "-replaced")
            shutil.rmtree(replaced, ignore_errors=True)
            folder.replace(replaced)
            partial.replace(folder)
            shutil.rmtree(replaced)
        else:
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
