"""The pages name what is there: files, sections, error codes, settings, and the service's own words."""

import re
from pathlib import Path

import pytest

from indrnn.service import errors
from indrnn.service.settings import ELSEWHERE, PREFIX, Settings

ROOT = Path(__file__).parents[2]
TOPS = ("client", "export", "frames", "kernels", "model", "service")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "client" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The sections of a page as links name them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", title).lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, section = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if section and found.suffix == ".md":
            assert section in anchors(found), target


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_settings_that_pages_name_are_there() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | ELSEWHERE
    for page in PAGES:
        if page.name in ("moves.md", "decisions.md"):
            continue
        for name in re.findall(r"\bINDRNN_[A-Z_]+\b", page.read_text()):
            assert name in known, f"{page.name}: {name}"


MAP = (ROOT / "docs" / "architecture.md").read_text().partition("## Rooms")[2].partition("\n## ")[0]
EACH = {"model/tasks": "a file for each task", "model/data/formats": "a file for each format"}  # what the map says in place of names


def mapped() -> list[Path]:
    """The files that the map of rooms lists. A name without a folder lies in the room, or where the one before it in its line does."""
    found, room = [], ROOT
    for told, names in re.findall(r"^\| (?:`([^`]+)`)? ?\| (.+?) \| .+ \|$", MAP, re.M):
        room = ROOT / told if told else room
        beside = room
        for name in re.findall(r"`([^`]+)`", names):
            if name.endswith("/"):  # of static/ and the like nothing is listed
                continue
            beside = (room / name).parent if "/" in name else beside
            found.append(room / name if "/" in name or not (beside / name).exists() else beside / name)
    return found


def test_the_map_of_rooms_lists_every_file_once_and_none_that_is_not_there() -> None:
    listed = mapped()
    assert [str(path) for path in listed if not path.exists()] == []
    assert [str(path) for path in set(listed) if listed.count(path) > 1] == []
    assert all(words in MAP for words in EACH.values())
    kinds = {".py", ".cpp", ".h", ".cu", ".toml"}
    there = {path for top in TOPS for path in (ROOT / top).rglob("*") if path.suffix in kinds and ".build" not in path.parts}
    there |= set((ROOT / "indrnn").glob("*.py"))
    left = {str(path.relative_to(ROOT)) for path in there - set(listed) if path.name != "__init__.py"}
    assert sorted(name for name in left if not name.startswith(tuple(f"{room}/" for room in EACH))) == []


TROUBLES = (ROOT / "docs" / "troubleshooting.md").read_text()


def test_troubleshooting_speaks_of_codes_that_there_are() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.ServiceError)]
    codes = {c.code for c in classes}
    rows = re.findall(r"^\| (.+?) \|", TROUBLES, re.M)
    named = {word for row in rows for word in re.findall(r"`([a-z]+_[a-z_]+)`", row)} - {"too_many_pings"}
    assert len(named) > 8
    assert named <= codes


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("expected an open message", "service/stream/socket.py"),
        ("unknown variable", "service/settings.py"),
        ("there is no such file", "service/serving/request.py"),
        ("another process holds it", "service/store/sqlite.py"),
        ("expected a file of sessions, got a database of something else", "service/store/sqlite.py"),
        ("a newer service has written it", "service/store/sqlite.py"),
        ("its settings cannot be read", "service/store/redis.py"),
        ("expected one Redis, got a node of a cluster", "service/store/redis.py"),
        ("another release has written it", "service/store/redis.py"),
        ("of them expect INDRNN_FRONTS from 1", "service/supervisor.py"),
        ("`indrnn serve` moves them at its start", "service/store/shards.py"),
        ("its sessions could not be moved to", "service/store/shards.py"),
        ("which of them is meant? Move one away", "service/store/shards.py"),
        ("put the map beside it, or move it away", "service/store/shards.py"),
        ("is in the way of the sessions of", "service/store/shards.py"),
        ("move it away, or, ", "service/store/shards.py"),
        ("rename the .db files to", "service/store/shards.py"),
        ("lies there already: rename none over it", "service/store/shards.py"),
        ("put each -wal beside the .db that it was written with", "service/store/shards.py"),
        ("expected all sessions of a store, got shard", "service/store/shards.py"),
        ("shards, whose files are missing, and those of", "service/store/shards.py"),
        ("expected a mark like 0-of-2 in it", "service/store/mark.py"),
        ("of the session cannot be read", "service/errors.py"),
        ("is missing, which", "service/store/shards.py"),
        ("have not one signing key", "service/store/shards.py"),
        ("its signing key is not the one of", "service/store/shards.py"),
        ("could not be read", "service/store/shards.py"),
        ("cannot be listened on", "service/command.py"),
        ("model.onnx: expected sha256", "export/bundle.py"),
        ("which comes with the extra", "indrnn/__main__.py"),
        ("INDRNN_DATA says where the data is", "model/data/sets.py"),
        ("differ by", "export/write.py"),
        ("lengths: expected 0 to T in each row", "export/graph.py"),
    ],
)
def test_words_that_pages_quote_are_said(words: str, file: str) -> None:
    assert words in (ROOT / file).read_text()
    assert words in TROUBLES or words in (ROOT / "docs" / "tutorial-onnx.md").read_text()
