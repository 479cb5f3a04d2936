"""The model repository while the service runs: which versions are loaded, which take new sessions, and which leave.

The newest versions of a model take new sessions. An older one, or one whose folder was removed, stays for the sessions it has, at most for
a time, and is unloaded then; its sessions are `model_gone` from there on, and can still be downloaded. A bundle that cannot be loaded
changes nothing: the index and the log say why, and it is looked at again when its files change.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from indrnn.export.bundle import BundleError
from indrnn.service.engine.runtime import EngineError
from indrnn.service.engine.statistics import Totals
from indrnn.service.errors import BadInput, ModelGone, ServiceError, UnknownModel, lacks_memory
from indrnn.service.logs import about
from indrnn.service.serving.models import Models, ServedModel
from indrnn.service.store.protocol import Population
from indrnn.service.store.refreshed import Refreshed

log = logging.getLogger(__name__)

CENSUS_AGE = 60.0  # seconds; other services on the same store may make sessions of a version that is not loaded here
UNLOAD_TIMEOUT = 30.0  # seconds for the steps in flight of a version that is unloaded


class Key(NamedTuple):
    """A version of a model."""

    name: str
    version: str


class Stamp(NamedTuple):
    """Whether files have changed: time, size and inode of the manifest and of the graph."""

    manifest: tuple[int, int, int]
    graph: tuple[int, int, int] | None


class Listed(NamedTuple):
    """A line of the repository's index, in Triton's words."""

    name: str
    version: str
    state: str
    reason: str


def scan(root: Path) -> dict[Key, Stamp]:
    """Return every folder that has a manifest. Raises OSError where the root cannot be read: that is no empty repository."""
    found = {}
    next(root.iterdir(), None)
    for manifest in root.glob("*/*/manifest.json"):
        folder = manifest.parent
        if not (folder.name.isascii() and folder.name.isdigit()):
            continue
        try:
            found[Key(folder.parent.name, folder.name)] = Stamp(_stamp(manifest), _stamp_if_there(folder / "model.onnx"))
        except FileNotFoundError:  # removed meanwhile
            continue
    return found


def _stamp(path: Path) -> tuple[int, int, int]:
    s = path.stat()
    return s.st_mtime_ns, s.st_size, s.st_ino


def _stamp_if_there(path: Path) -> tuple[int, int, int] | None:
    try:
        return _stamp(path)
    except FileNotFoundError:
        return None


def newest(keys: Iterable[Key], keep: int) -> set[Key]:
    """Return the highest `keep` versions of every name."""
    by_name: dict[str, list[Key]] = {}
    for key in keys:
        by_name.setdefault(key.name, []).append(key)
    return {key for same in by_name.values() for key in sorted(same, key=lambda k: int(k.version))[-keep:]}


def to_load(
    found: Mapping[Key, Stamp], loaded: Collection[Key], refused: Mapping[Key, Stamp], living: Collection[Key], keep: int
) -> list[Key]:
    """Return what should be loaded and is not: the newest of each model that can be, and older ones with living sessions.

    `refused`: what could not be loaded, or was given up, and how its files were then.
    """
    candidates = [key for key, stamp in found.items() if refused.get(key) != stamp]
    wanted = newest(candidates, keep) | {key for key in candidates if key in living}
    return sorted(wanted - set(loaded), key=lambda k: (k.name, int(k.version)))


def to_retire(found: Collection[Key], loaded: Collection[Key], keep: int) -> set[Key]:
    """Return the loaded versions that take no new sessions: all but the newest of those that are loaded and still there."""
    return set(loaded) - newest([key for key in loaded if key in found], keep)


@dataclass(slots=True)
class Rules:
    """root: the folder; keep: versions of a model that take new sessions; linger: seconds an older one stays at most for its sessions."""

    root: Path
    keep: int
    linger: float


@dataclass(slots=True)
class _Book:
    """The facts that are known of versions beside the loaded models themselves."""

    stamps: dict[Key, Stamp] = field(default_factory=dict)
    """of what is loaded, as its files were"""
    refused: dict[Key, Stamp] = field(default_factory=dict)
    again: dict[Key, float] = field(default_factory=dict)
    """when to try what was refused for a reason that may pass"""
    reasons: dict[Key, str] = field(default_factory=dict)
    """why it is not served, or not as its files say"""
    retired_at: dict[Key, float] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    """names that were unloaded by command, and wait for one"""
    loading: set[Key] = field(default_factory=set)
    unloading: set[Key] = field(default_factory=set)


class Loader(Protocol):
    """Whoever starts and ends the engines of models."""

    def load(self, folder: Path) -> ServedModel:
        """Read a bundle, warm it up and start its engine. Blocks; raises BundleError, EngineError."""

    async def unload(self, model: ServedModel, why: ServiceError, seconds: float) -> None:
        """Let what is in flight of a model finish, at most so long, refuse the rest with `why`, and give back its memory."""


class Repository:
    """Keeps the table of models as the folder says. Everything here runs on the event loop; what blocks goes to worker threads.

    `forget` is told of what was unloaded.
    """

    def __init__(
        self,
        rules: Rules,
        models: Models,
        census: Refreshed[Sequence[Population]],
        loader: Loader,
        forget: Callable[[ServedModel], None],
        totals: Totals,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._models = models
        self._census = census
        self._loader = loader
        self._forget = forget
        self._totals = totals
        self._clock = clock
        self._book = _Book()
        self._one_at_a_time = asyncio.Lock()

    async def watch(self, seconds: float) -> None:
        """Look every so often, until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.look()
            except (OSError, ServiceError) as error:
                log.error("the model repository could not be looked at: %s", error)
            except Exception:
                log.exception("the model repository could not be looked at")

    async def look(self) -> None:
        """Compare the folder with what is loaded, load what is new, and let go of what is not needed. Raises OSError, StoreFailed."""
        async with self._one_at_a_time:
            found = await asyncio.to_thread(scan, self._rules.root)
            self._note_changes(found)
            living = await self._living(found)
            held, again = self._book.held, self._book.again
            for key in [k for k, when in again.items() if when <= self._clock()]:
                del again[key]
                self._book.refused.pop(key, None)
            for key in to_load(
                {k: s for k, s in found.items() if k.name not in held}, self._loaded(), self._book.refused, living, self._rules.keep
            ):
                await self._load(key, found[key])
            retired = self._retire(found)
            for key in retired:
                await self._let_go(key, found, living)

    async def load(self, name: str) -> None:
        """Load the newest versions of a model by command, again where their files have changed. Raises BadInput."""
        async with self._one_at_a_time:
            try:
                found = {k: s for k, s in (await asyncio.to_thread(scan, self._rules.root)).items() if k.name == name}
            except OSError as error:
                raise BadInput(f"failed to load '{name[:80]}', {error}") from error
            if not found:
                raise BadInput(f"failed to load '{name[:80]}', no version is available")
            self._book.held.discard(name)
            wanted = newest(found, self._rules.keep)
            changed = [k for k in wanted if k not in self._loaded() or self._book.stamps.get(k) != found[k]]
            failed = [key for key in changed if not await self._load(key, found[key])]
            self._retire(await asyncio.to_thread(scan, self._rules.root))
            if failed:
                raise BadInput(f"failed to load '{name}', {'; '.join(self._book.reasons[k] for k in failed)}")

    async def unload(self, name: str) -> None:
        """Unload every version of a model by command, with living sessions or without. Raises UnknownModel."""
        async with self._one_at_a_time:
            loaded = [k for k in self._loaded() if k.name == name]
            if not loaded and name not in self._book.held:
                raise UnknownModel(f"Request for unknown model: '{name[:80]}' is not found")
            self._book.held.add(name)
            for key in loaded:
                await self._unload(key, "unloaded")

    def index(self, ready_only: bool = False) -> list[Listed]:
        """Return every version that is loaded, and every one that is not and why."""
        book = self._book
        lines = {key: Listed(*key, "READY", book.reasons.get(key, "")) for key in self._loaded()}
        if not ready_only:
            others = {key: Listed(*key, "UNAVAILABLE", reason) for key, reason in book.reasons.items() if key not in lines}
            busy = {**dict.fromkeys(book.loading - set(lines), "LOADING"), **dict.fromkeys(book.unloading, "UNLOADING")}
            lines |= others | {key: Listed(*key, state, "") for key, state in busy.items()}
        return [lines[key] for key in sorted(lines, key=lambda k: (k.name, int(k.version)))]

    def unavailable(self) -> list[tuple[str, str]]:
        """Versions that are there, or were, and are not served."""
        return [(line.name, line.version) for line in self.index() if line.state == "UNAVAILABLE"]

    def began_with(self, stamps: Mapping[Key, Stamp], skipped: Collection[Key]) -> None:
        """Note what was loaded before the first request, and what was left out as old and without sessions."""
        self._book.stamps.update(stamps)
        self._book.reasons.update(dict.fromkeys(skipped, SUPERSEDED))

    def _loaded(self) -> list[Key]:
        return [Key(m.manifest.name, m.manifest.version) for m in self._models]

    def _note_changes(self, found: Mapping[Key, Stamp]) -> None:
        """A version whose files are replaced while it runs is not taken: its sessions' states belong to the file it was."""
        for key in self._loaded():
            loaded_as = self._book.stamps.get(key)
            if key in found and loaded_as is not None and found[key] != loaded_as:
                self._say(key, "the files have changed since it was loaded: expected a folder of its own for a change (the next number)")
            elif key in found:
                self._book.reasons.pop(key, None)

    async def _living(self, found: Mapping[Key, Stamp]) -> set[Key]:
        """Versions with living sessions; asked for only where some version is not the newest."""
        loaded = set(self._loaded())
        retired = to_retire(found, loaded, self._rules.keep)
        candidates = {k for k, stamp in found.items() if self._book.refused.get(k) != stamp}
        if not retired and candidates == newest(candidates, self._rules.keep):
            return set()
        populations = await self._census.take(0 if retired else CENSUS_AGE)
        return {Key(p.model, p.version) for p in populations}

    async def _load(self, key: Key, stamp: Stamp) -> bool:
        """Load beside what runs; the table changes in one step when it is warm. Return whether it is served.

        Files that are no bundle are not tried again until they change; what may pass, such as a file that nobody may read yet or a lack of
        memory, is after RETRY seconds.
        """
        book = self._book
        before = self._models.exactly(*key)
        book.loading.add(key)
        try:
            model = await asyncio.to_thread(self._loader.load, self._rules.root / key.name / key.version)
        except Exception as error:  # one version that cannot be loaded is no reason to leave the others as they are
            self._totals.load_failures += 1
            book.refused[key] = stamp
            if may_pass(error):
                book.again[key] = self._clock() + RETRY
            foreseen = isinstance(error, (BundleError, EngineError, OSError)) or lacks_memory(error)
            if not foreseen:
                log.exception("not loaded", extra={"model": f"{key.name}/{key.version}"})
            self._say(key, str(error) if foreseen and str(error) else f"internal error: {type(error).__name__}")
            return False
        finally:
            book.loading.discard(key)
        if before is not None and before.manifest.sha256 == model.manifest.sha256:
            await self._unload(key, "unloaded: it is loaded again")  # first: its sessions go on, and two engines must not step one
            before = None
        self._totals.loads += 1
        book.refused.pop(key, None)
        book.again.pop(key, None)
        book.reasons.pop(key, None)
        book.stamps[key] = stamp
        self._models.add(model)
        log.info("loaded", extra=about(model.manifest))
        if before is not None:
            await self._end(before)
        return True

    def _retire(self, found: Collection[Key]) -> set[Key]:
        retired = to_retire([k for k in found if k.name not in self._book.held], self._loaded(), self._rules.keep)
        self._models.retire(retired)
        at = self._book.retired_at
        for key in [k for k in at if k not in retired]:
            del at[key]
        return retired

    async def _let_go(self, key: Key, found: Mapping[Key, Stamp], living: Collection[Key]) -> None:
        """Unload a retired version that nobody needs, not before the next look: a session may be about to be stored."""
        at, now = self._book.retired_at, self._clock()
        if key not in at:
            at[key] = now
            log.info("takes no new sessions", extra={"model": f"{key.name}/{key.version}"})
        elif key not in living:
            await self._unload(key, SUPERSEDED if key in found else "unloaded: its folder was removed")
        elif now - at[key] >= self._rules.linger:
            if key in found:
                self._book.refused[key] = found[key]  # its sessions are no reason to load it again
            await self._unload(key, f"unloaded: its sessions had {self._rules.linger:g} s to end")

    async def _unload(self, key: Key, reason: str) -> None:
        book = self._book
        model = self._models.exactly(*key)
        assert model is not None, "it is loaded"
        book.unloading.add(key)
        self._models.remove(model)
        book.stamps.pop(key, None)
        book.retired_at.pop(key, None)
        try:
            await self._end(model)
        finally:
            book.unloading.discard(key)
        book.reasons[key] = reason
        log.info("%s", reason, extra=about(model.manifest))

    async def _end(self, model: ServedModel) -> None:
        """Let what is in flight finish, end the engine's thread, and give back its memory, whoever still holds the model."""
        m = model.manifest
        self._forget(model)
        await self._loader.unload(model, ModelGone(f"the session's model {m.name}/{m.version} was unloaded"), UNLOAD_TIMEOUT)

    def _say(self, key: Key, reason: str) -> None:
        if self._book.reasons.get(key) != reason:
            log.warning("not served: %s", reason, extra={"model": f"{key.name}/{key.version}"})
        self._book.reasons[key] = reason


def may_pass(error: Exception) -> bool:
    """Return whether loading the same files may succeed later: they could not be read, or memory was short."""
    return isinstance(error, OSError) or isinstance(error.__cause__, OSError) or lacks_memory(error)


RETRY = 30.0  # seconds
SUPERSEDED = "unloaded: there is a newer version, and no session needs this one"


def load_at_start(root: Path, keep: int, living: Callable[[], Collection[Key]]) -> tuple[list[Path], dict[Key, Stamp], list[Key]]:
    """Return what to load before the first request: folders, their stamps, and the versions left out. Raises BundleError."""
    try:
        found = scan(root)
    except OSError:
        found = {}
    if not found:
        raise BundleError(f"{root}: no bundle found (expected {root}/<name>/<version>/manifest.json)")
    old = newest(found, keep) != set(found)
    wanted = to_load(found, (), {}, living() if old else (), keep)
    return [root / k.name / k.version for k in wanted], {k: found[k] for k in wanted}, sorted(set(found) - set(wanted))
