"""The store and the engines: what has to be there before the first request, and to be closed after the last."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from indrnn.export.bundle import BundleError, read
from indrnn.service.engine.batcher import Batcher
from indrnn.service.errors import StoreFailed
from indrnn.service.serving.models import Models, ServedModel, serve
from indrnn.service.serving.repository import Key, Stamp, load_at_start
from indrnn.service.settings import Settings
from indrnn.service.store.address import open_store
from indrnn.service.store.protocol import Store, StoreError

STOP_TIMEOUT = 10.0  # seconds for the steps in flight where nobody has set another time


@dataclass(eq=False)
class Backend:
    """`stamps` and `skipped`: how the loaded files were at the start, and the versions that were left out.

    `_engines` are all whose thread may not have ended, also of versions that have left the table of models.
    """

    settings: Settings
    store: Store
    models: Models = field(default_factory=Models)
    loop: asyncio.AbstractEventLoop | None = None
    stopping: bool = False
    stamps: dict[Key, Stamp] = field(default_factory=dict)
    skipped: Collection[Key] = ()
    _engines: list[Batcher] = field(default_factory=list)

    @classmethod
    def open(cls, settings: Settings) -> "Backend":
        """Open the backend; blocks while the models warm up. Raises BundleError, StoreError, EngineError."""
        if not settings.bundles.is_dir():
            raise BundleError(f"{settings.bundles}: no bundle found (expected {settings.bundles}/<name>/<version>/manifest.json)")
        backend = cls(settings, open_store(settings.store, settings.store_durability))
        try:
            folders, backend.stamps, backend.skipped = load_at_start(settings.bundles, settings.versions, backend.living)
            for folder in folders:
                backend.models.add(backend.load(folder))  # one fails: the others stop
        except BaseException:
            backend.close()
            raise
        return backend

    def living(self) -> set[Key]:
        """Return the versions with living sessions. Raises StoreError."""
        try:
            return {Key(p.model, p.version) for p in self.store.census(time.time())}
        except StoreFailed as error:
            raise StoreError(f"store {error.detail}") from error

    def load(self, folder: Path) -> ServedModel:
        """Read a bundle, warm it up and start its engine. Blocks; raises BundleError, EngineError."""
        model = serve(read(folder), self.settings, self.store, self.post)
        self._engines = [*(e for e in self._engines if e.alive), model.batcher]
        if self.stopping:
            model.batcher.drain()
        return model

    def post(self, deliver: Callable[[], None]) -> None:
        """Hand replies from an engine thread to the event loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            if self.loop is not None:
                self.loop.call_soon_threadsafe(deliver)

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
