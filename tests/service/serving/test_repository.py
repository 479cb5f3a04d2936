"""Which versions are loaded, take new sessions and leave: the rules, and the repository with models that are pretended."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from indrnn.export.bundle import BundleError
from indrnn.service.engine.statistics import Totals
from indrnn.service.errors import BadInput, ModelGone, UnknownModel
from indrnn.service.serving.models import Models
from indrnn.service.serving.repository import Key, Repository, Rules, Stamp, load_at_start, newest, scan, to_load, to_retire
from indrnn.service.store.protocol import Population

A1, A2, A3, B1 = Key("a", "1"), Key("a", "2"), Key("a", "3"), Key("b", "1")
OLD, NEW = Stamp((1, 1, 1), (1, 1, 1)), Stamp((2, 1, 1), (1, 1, 1))


def test_versions_are_compared_as_numbers() -> None:
    assert newest([Key("a", "9"), Key("a", "10"), B1], 1) == {Key("a", "10"), B1}


def test_the_newest_that_can_be_loaded_is_and_older_ones_only_with_living_sessions() -> None:
    found = {A1: OLD, A2: OLD, A3: OLD, B1: OLD}
    assert to_load(found, (), {}, (), 1) == [A3, B1]
    assert to_load(found, (), {}, {A1}, 1) == [A1, A3, B1]
    assert to_load(found, (), {}, (), 2) == [A2, A3, B1]
    assert to_load(found, (A3, B1), {}, (), 1) == []
    assert to_load(found, (A1, B1), {A3: OLD}, (), 1) == [A2], "a broken newest leaves the next the newest"
    assert to_load(found, (A1, A2, B1), {A3: NEW}, (), 1) == [A3], "its files have changed since: it is tried again"


def test_a_version_takes_new_sessions_while_it_is_the_newest_that_is_loaded_and_there() -> None:
    assert to_retire({A1, A2}, {A1}, 1) == set(), "a newer one that is not loaded replaces nothing"
    assert to_retire({A1, A2}, {A1, A2}, 1) == {A1}
    assert to_retire({A1}, {A1, A2}, 1) == {A2}
    assert to_retire((), {A1}, 1) == {A1}
    assert to_retire({A1, A2, A3}, {A1, A2, A3}, 2) == {A1}


class World:
    """A folder, pretended models, and how many sessions live."""

    def __init__(self, root: Path, linger: float = 100.0) -> None:
        self.root, self.now = root, 0.0
        self.sessions: dict[Key, int] = {}
        self.asked = 0
        self.broken: dict[Key, str | Exception] = {}
        self.ended: list[Key] = []
        self.beside: list[bool] = []
        """whether another took its place before it ended"""
        self.forgotten: list[Key] = []
        self.why: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.models = Models()
        self.totals = Totals()
        self.repository = Repository(
            Rules(root, 1, linger),
            self.models,
            self,
            self,
            self._forget,
            self.totals,
            lambda: self.now,  # type: ignore[arg-type]
        )

    async def take(self, age: float) -> list[Population]:
        self.asked += 1
        return [Population(*key, "d", n, 8 * n) for key, n in self.sessions.items() if n]

    def add(self, key: Key, content: str = "x") -> None:
        folder = self.root / key.name / key.version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_text(content)
        (folder / "manifest.json").write_text(content)

    def drop(self, key: Key) -> None:
        for file in (folder := self.root / key.name / key.version).iterdir():
            file.unlink()
        folder.rmdir()

    def load(self, folder: Path) -> Any:
        assert self.gate.wait(10)
        key = Key(folder.parent.name, folder.name)
        if reason := self.broken.get(key):
            raise BundleError(reason) if isinstance(reason, str) else reason
        manifest = SimpleNamespace(name=key.name, version=key.version, sha256=(folder / "model.onnx").read_text(), state_size=1)
        return SimpleNamespace(manifest=manifest)

    async def unload(self, model: Any, why: Exception, seconds: float) -> None:
        key = Key(model.manifest.name, model.manifest.version)
        self.why.append(why)
        self.ended.append(key)
        self.beside.append(self.models.exactly(*key) is not None)

    def _forget(self, model: Any) -> None:
        self.forgotten.append(Key(model.manifest.name, model.manifest.version))

    def loaded(self) -> list[Key]:
        return [Key(m.manifest.name, m.manifest.version) for m in self.models]

    def offered(self, name: str) -> list[str]:
        return [m.manifest.version for m in self.models.versions(name)]

    def listed(self) -> dict[Key, tuple[str, str]]:
        return {Key(n, v): (state, reason) for n, v, state, reason in self.repository.index()}


Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(**changes: Any) -> World:
        return World(tmp_path, **changes)

    return made


async def test_a_new_version_takes_new_sessions_and_the_old_one_leaves_with_its_last(make: Make) -> None:
    w = make()
    w.add(A1)
    await w.repository.look()
    assert w.offered("a") == ["1"]
    w.sessions[A1] = 2
    w.add(A2)
    await w.repository.look()
    assert (w.offered("a"), w.loaded()) == (["2"], [A1, A2])
    for _ in range(3):
        await w.repository.look()
    assert w.loaded() == [A1, A2]
    w.sessions[A1] = 0
    await w.repository.look()
    assert (w.loaded(), w.ended, w.forgotten) == ([A2], [A1], [A1])
    assert isinstance(w.why[0], ModelGone)
    assert w.listed()[A1] == ("UNAVAILABLE", "unloaded: there is a newer version, and no session needs this one")
    await w.repository.look()
    assert w.loaded() == [A2], "it is not loaded again"


async def test_an_old_version_without_sessions_is_not_unloaded_before_the_next_look(make: Make) -> None:
    w = make()
    w.add(A1)
    await w.repository.look()
    w.add(A2)
    await w.repository.look()
    assert w.loaded() == [A1, A2], "a session of version 1 may be about to be stored"
    await w.repository.look()
    assert w.loaded() == [A2]


async def test_an_old_version_is_unloaded_at_the_bound_and_its_sessions_do_not_bring_it_back(make: Make) -> None:
    w = make(linger=10)
    w.add(A1)
    await w.repository.look()
    w.sessions[A1] = 1
    w.add(A2)
    await w.repository.look()
    w.now = 9.9
    await w.repository.look()
    assert w.loaded() == [A1, A2]
    w.now = 10
    await w.repository.look()
    assert w.loaded() == [A2]
    await w.repository.look()
    assert w.loaded() == [A2]
    assert w.listed()[A1][1] == "unloaded: its sessions had 10 s to end"


async def test_a_removed_folder_leaves_likewise_and_the_version_before_it_takes_over_again(make: Make) -> None:
    w = make()
    w.add(A1)
    await w.repository.look()
    w.sessions = {A1: 1, A2: 1}
    w.add(A2)
    await w.repository.look()
    w.drop(A2)
    await w.repository.look()
    assert (w.offered("a"), w.loaded()) == (["1"], [A1, A2])
    w.drop(A1)
    await w.repository.look()
    with pytest.raises(UnknownModel):
        w.models.latest("a")
    assert w.loaded() == [A1, A2], "both have sessions"
    w.sessions = {}
    await w.repository.look()
    await w.repository.look()
    assert w.loaded() == []


async def test_a_broken_bundle_changes_nothing_says_why_and_is_tried_again_when_it_changes(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    w = make()
    w.add(A1)
    await w.repository.look()
    w.broken[A2] = "model.onnx: expected sha256 1, got 2"
    w.add(A2)
    for _ in range(3):
        await w.repository.look()
    assert (w.offered("a"), w.loaded()) == (["1"], [A1])
    assert w.listed()[A2] == ("UNAVAILABLE", "model.onnx: expected sha256 1, got 2")
    assert w.repository.unavailable() == [A2]
    assert (w.totals.loads, w.totals.load_failures) == (1, 1), "the same files are not read again"
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == ["not served: model.onnx: expected sha256 1, got 2"]
    del w.broken[A2]
    w.add(A2, "whole now")
    await w.repository.look()
    assert w.offered("a") == ["2"]
    assert w.listed()[A2] == ("READY", "")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "model.onnx"), "[Errno 13] Permission denied: 'model.onnx'"),
        (MemoryError("no 4 GB"), "no 4 GB"),
        (ValueError("a bug"), "internal error: ValueError"),
    ],
)
async def test_one_version_that_fails_in_any_way_keeps_no_other_from_its_place(make: Make, error: Exception, said: str) -> None:
    w = make()
    w.add(A1)
    w.add(B1)
    w.broken[A1] = error
    w.sessions[Key("b", "0")] = 1
    await w.repository.look()
    assert w.loaded() == [B1]
    assert w.listed()[A1] == ("UNAVAILABLE", said)
    assert w.totals.load_failures == 1
    with pytest.raises(BadInput, match="failed to load 'a'"):
        await w.repository.load("a")


async def test_what_could_not_be_read_is_tried_again_by_itself_and_what_is_no_bundle_is_not(make: Make) -> None:
    w = make()
    for key in (A1, A2, B1):
        w.add(key)
    w.broken |= {A2: PermissionError(13, "Permission denied"), B1: "no manifest"}
    for _ in range(3):
        await w.repository.look()
    assert (w.loaded(), w.totals.load_failures) == ([A1], 2), "the next newest serves meanwhile"
    w.broken.clear()
    await w.repository.look()
    assert w.loaded() == [A1]
    w.now = 31.0
    await w.repository.look()
    assert w.offered("a") == ["2"]
    assert B1 not in w.loaded()


async def test_files_replaced_under_a_running_version_are_not_taken_and_said(make: Make) -> None:
    w = make()
    w.add(A1)
    await w.repository.look()
    w.add(A1, "another")
    await w.repository.look()
    assert w.listed()[A1][0] == "READY"
    assert "files have changed" in w.listed()[A1][1]
    assert (w.ended, w.totals.loads) == ([], 1)


async def test_a_root_that_cannot_be_read_unloads_nothing(make: Make, tmp_path: Path) -> None:
    w = make()
    w.add(A1)
    await w.repository.look()
    w.root.rename(tmp_path.parent / f"{tmp_path.name}-away")
    with pytest.raises(OSError, match="No such file"):
        await w.repository.look()
    assert w.loaded() == [A1]


async def test_the_store_is_not_asked_while_every_version_is_the_newest(make: Make) -> None:
    w = make()
    w.add(A1)
    w.add(B1)
    for _ in range(3):
        await w.repository.look()
    assert w.asked == 0


async def test_while_a_version_loads_the_index_says_so_and_the_table_stays(make: Make) -> None:
    w = make()
    w.add(A1)
    await w.repository.look()
    w.gate.clear()
    w.add(A2)
    looking = asyncio.create_task(w.repository.look())
    deadline = asyncio.get_running_loop().time() + 10
    while w.listed().get(A2) != ("LOADING", ""):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)
    assert w.offered("a") == ["1"]
    w.gate.set()
    await looking
    assert w.offered("a") == ["2"]


async def test_what_is_unloaded_by_command_stays_away_until_it_is_loaded_by_command(make: Make) -> None:
    w = make()
    w.add(A1)
    await w.repository.look()
    w.sessions[A1] = 5
    await w.repository.unload("a")
    assert (w.loaded(), w.ended) == ([], [A1])
    await w.repository.look()
    assert w.loaded() == []
    assert w.listed() == {A1: ("UNAVAILABLE", "unloaded")}
    await w.repository.unload("a")
    await w.repository.load("a")
    assert w.loaded() == [A1]
    with pytest.raises(UnknownModel, match="Request for unknown model: 'b' is not found"):
        await w.repository.unload("b")


async def test_loading_by_command_takes_changed_files_and_says_what_is_broken(make: Make) -> None:
    w = make()
    w.add(A1)
    await w.repository.look()
    await w.repository.load("a")
    assert w.ended == [], "nothing has changed"
    w.add(A1, "changed")
    await w.repository.load("a")
    assert (w.loaded(), w.ended) == ([A1], [A1])
    w.broken[A2] = "no good"
    w.add(A2)
    with pytest.raises(BadInput, match="failed to load 'a', no good"):
        await w.repository.load("a")
    assert w.loaded() == [A1]
    with pytest.raises(BadInput, match="failed to load 'b', no version is available"):
        await w.repository.load("b")


async def test_the_same_graph_loaded_again_takes_its_sessions_only_when_nobody_else_can_step_them(make: Make) -> None:
    w = make()
    w.add(A1)
    await w.repository.look()
    for content, beside in (("x", False), ("another", True)):
        w.drop(A1)
        w.add(A1, content)
        await w.repository.load("a")
        assert (w.loaded(), w.beside.pop()) == ([A1], beside), content
        assert w.listed() == {A1: ("READY", "")}


def test_only_numbered_folders_with_a_manifest_are_versions(tmp_path: Path) -> None:
    for name in ("a/1", "a/draft", "b/2", "c/٣"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "b" / "3").mkdir()
    assert set(scan(tmp_path)) == {A1, Key("b", "2")}
    assert scan(tmp_path)[A1].graph is None


def test_a_start_leaves_out_old_versions_that_nobody_needs(tmp_path: Path) -> None:
    for name in ("a/1", "a/2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").write_text("{}")
    folders, stamps, skipped = load_at_start(tmp_path, 1, lambda: ())
    assert ([f.name for f in folders], set(stamps), skipped) == (["2"], {A2}, [A1])
    folders, stamps, skipped = load_at_start(tmp_path, 1, lambda: {A1})
    assert ([f.name for f in folders], skipped) == (["1", "2"], [])
    with pytest.raises(BundleError, match="no bundle found"):
        load_at_start(tmp_path / "nothing", 1, lambda: ())
