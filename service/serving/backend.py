"""The store and the engines: what has to be there before the first request, and to be closed after the last."""

import asyncio
import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from indrnn.export.bundle import BundleError, read
from indrnn.service.engine.loop import Answer, EngineLoop, EngineSettings
from indrnn.service.engine.port import EnginePort
from indrnn.service.engine.runtime import Engine
from indrnn.service.engine.statistics import Totals
from indrnn.service.errors import ServiceError, StoreFailed
from indrnn.service.serving.modalities import StepLimits, served
from indrnn.service.serving.models import Models, ServedModel
from indrnn.service.serving.repository import Key, Stamp, load_at_start
from indrnn.service.serving.steps import Tickets
from indrnn.service.session.shard import UNDIVIDED, Shard
from indrnn.service.settings import Settings, cores
from indrnn.service.store.address import living_elsewhere, open_store
from indrnn.service.store.protocol import Store, StoreError
from indrnn.service.tracing import TimedAnswers

log = logging.getLogger(__name__)

SWEEP = 60.0  # seconds between looks for expired sessions
STOP_TIMEOUT = 10.0  # seconds for the steps in flight where nobody has set another time


def commits_aside(wanted: bool | Literal["auto"], fronts: bool, cores: int) -> bool:
    """Return whether commits have a thread of their own; fronts: whether the engines have a process for themselves.

    It takes a core that nobody else wants: where client, front and engine share two of them, batches only get smaller (docs/scaling.md).
    """
    return fronts and cores > 2 if wanted == "auto" else wanted


@dataclass(eq=False)
class Backend:
    """`stamps` and `skipped`: how the loaded files were at the start, and the versions that were left out.

    answer: takes the engines' deliveries, in place of `tickets`, where those who ask are in other processes.
    shard: whose sessions are here.
    `_engines` are all whose thread may not have ended, also of versions that have left the table of models.
    """

    settings: Settings
    store: Store
    models: Models = field(default_factory=Models)
    tickets: Tickets = field(default_factory=Tickets)
    stopping: bool = False
    stamps: dict[Key, Stamp] = field(default_factory=dict)
    skipped: Collection[Key] = ()
    answer: Answer | None = None
    shard: Shard = UNDIVIDED
    _engines: list[EngineLoop] = field(default_factory=list)

    @classmethod
    def open(cls, settings: Settings, answer: Answer | None = None, shard: Shard = UNDIVIDED) -> "Backend":
        """Open the backend; blocks while the models warm up. Raises BundleError, StoreError, EngineError."""
        if not settings.bundles.is_dir():
            raise BundleError(f"{settings.bundles}: no bundle found (expected {settings.bundles}/<name>/<version>/manifest.json)")
        backend = cls(settings, open_store(settings.store, settings.store_durability, shard), answer=answer, shard=shard)
        try:
            folders, backend.stamps, backend.skipped = load_at_start(settings.bundles, settings.versions, backend.living)
            for folder in folders:
                backend.models.add(backend.load(folder))  # one fails: the others stop
        except BaseException:
            backend.close()
            raise
        return backend

    def living(self) -> set[Key]:
        """Return the versions with living sessions, also in the files of other shards. Raises StoreError."""
        try:
            here = {Key(p.model, p.version) for p in self.store.census(time.time())}
        except StoreFailed as error:
            raise StoreError(f"store {error.detail}") from error
        return here | {Key(*one) for one in living_elsewhere(self.settings.store, self.shard, time.time())}

    def load(self, folder: Path) -> ServedModel:
        """Read a bundle, warm it up and start its engine. Blocks; raises BundleError, EngineError."""
        bundle, s = read(folder), self.settings
        max_batch = min(s.max_batch, bundle.manifest.limits.max_batch or s.max_batch)
        self.store.graphs[bundle.manifest.sha256] = bundle.manifest.state_size
        graph = Engine(bundle, s.provider, s.threads, max_batch)
        aside = commits_aside(s.commit_thread, self.answer is not None, cores() // self.shard.of)
        bounds = EngineSettings(max_batch, s.max_queue, s.step_timeout, s.session_ttl, s.max_frames, True, aside, self.shard)
        told = self.answer or self.tickets.answer
        timed = TimedAnswers(told) if s.otel and not aside else None  # beside the engine thread nobody knows which run was a reply's
        engine = EngineLoop(graph, self.store, bounds, timed or told)
        if timed is not None:
            timed.statistics = engine.snapshot().statistics
        self._engines = [*(e for e in self._engines if e.alive), engine]
        if self.stopping:
            engine.drain()
        m = bundle.manifest
        return ServedModel(m, engine, served(m, StepLimits(s.max_frames, s.max_text, s.max_every)), graph.provider, graph.kernel)

    @property
    def engines(self) -> list[EngineLoop]:
        """Return every engine whose thread may not have ended."""
        return self._engines

    def lively(self) -> bool:
        """Return whether every engine with something to do has got on with it lately."""
        return all(engine.lively for engine in self._engines)

    async def sweep(self, totals: Totals) -> None:
        """Remove expired sessions every so often, until it is cancelled."""
        while True:
            await asyncio.sleep(SWEEP)
            try:
                removed = await asyncio.to_thread(self.store.expire, time.time())
            except ServiceError as error:
                totals.store_failures += 1
                log.error("expired sessions could not be removed: %s", error)
                continue
            except Exception:  # a bug must not end the sweeps
                log.exception("expired sessions could not be removed")
                continue
            totals.swept += removed
            if removed:
                log.info("%d expired sessions removed", removed)

    async def unload(self, model: ServedModel, why: ServiceError, seconds: float) -> None:
        """Let what is in flight finish, end the engine's thread, and give back its memory, whoever still holds the model."""
        await self.end(model.port, why, seconds)

    async def end(self, port: EnginePort, why: ServiceError, seconds: float) -> None:
        """Unload the model of an engine."""
        engine = next(e for e in self._engines if e is port)
        engine.drain(why, seconds)
        await asyncio.to_thread(engine.stop, None)
        engine.engine.close()

    def drain(self, seconds: float = STOP_TIMEOUT) -> None:
        """Tell the engines that the end is near: what is in flight is finished, anything new is refused."""
        self.stopping = True
        for engine in self._engines:
            engine.drain(seconds=seconds)

    @property
    def busy(self) -> bool:
        """Return whether an engine has not finished."""
        return any(engine.alive for engine in self._engines)

    def close(self) -> None:
        """Stop the engines, which finish what is in flight, and release the store."""
        stopping = [threading.Thread(target=engine.stop, args=(STOP_TIMEOUT,)) for engine in self._engines]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        self.store.close()
