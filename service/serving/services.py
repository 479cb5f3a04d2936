"""The running service, as its protocols get it: one frozen table of what they share."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from indrnn.service.engine.port import RegistryPort
from indrnn.service.engine.quota import Quotas
from indrnn.service.engine.registry import Registry
from indrnn.service.engine.statistics import Totals
from indrnn.service.serving.backend import Backend
from indrnn.service.serving.connections import Places
from indrnn.service.serving.models import Models
from indrnn.service.serving.repository import Listed, Repository, Rules
from indrnn.service.serving.request import Access
from indrnn.service.serving.sessions import Sessions
from indrnn.service.serving.steps import StepRouter, Tickets
from indrnn.service.settings import Settings
from indrnn.service.store.protocol import Population
from indrnn.service.store.refreshed import Refreshed, StoreProbe

Scraper = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Returns the metrics in the form that a scraper accepts, and the name of that form."""


class BackendPort(Protocol):
    """The engines as a whole, in this process or behind a socket."""

    models: Models
    tickets: Tickets

    @property
    def stopping(self) -> bool:
        """Return whether the end has begun."""

    @property
    def busy(self) -> bool:
        """Return whether something is in flight."""

    def drain(self, seconds: float) -> None:
        """Take nothing new, and finish what is in flight."""

    def close(self) -> None:
        """Release everything."""


class RepositoryPort(Protocol):
    """The model repository, as who asks sees it; all of it is as serving/repository.py says."""

    async def load(self, name: str) -> None:
        """Load the newest versions of a model by command. Raises BadInput."""

    async def unload(self, name: str) -> None:
        """Unload every version of a model by command. Raises UnknownModel."""

    def index(self, ready_only: bool = False) -> list[Listed]:
        """Return every version that is loaded, and every one that is not and why."""

    def unavailable(self) -> list[tuple[str, str]]:
        """Return the versions that are there, or were, and are not served."""


class ProbePort(Protocol):
    """Whether the store takes commits."""

    async def need_store(self) -> None:
        """Raises Unavailable while commits would fail."""


@dataclass(frozen=True)
class Services:
    """What a protocol may use. Fronts own connections and owners; `registry` and the models' ports lead to the engines.

    chores: what goes on beside the requests, from the first to the last; census: of the store, where it is here; scrape: who has the
    metrics, where it is not.
    """

    settings: Settings
    access: Access
    backend: BackendPort
    models: Models
    steps: StepRouter
    sessions: Sessions
    registry: RegistryPort
    repository: RepositoryPort
    places: Places
    probe: ProbePort
    totals: Totals
    chores: Callable[[], Sequence[Coroutine[Any, Any, None]]]
    census: Refreshed[Sequence[Population]] | None = None
    scrape: Scraper | None = None

    @classmethod
    def over(cls, settings: Settings, access: Access, backend: Backend) -> "Services":
        """Return the services over what is loaded."""
        store, models, totals = backend.store, backend.models, Totals()
        quotas = Quotas(settings.max_sessions, settings.max_steps_per_second, store.count)
        registry = Registry(store, settings.session_ttl, quotas)
        steps = StepRouter(models, registry, backend.tickets)
        rules = Rules(settings.bundles, settings.versions, settings.linger)
        repository = Repository(rules, models, registry.census, backend, steps.forget, totals)
        repository.began_with(backend.stamps, backend.skipped)
        places, census = Places(settings.max_connections), registry.census

        def chores() -> Sequence[Coroutine[Any, Any, None]]:
            watching = [repository.watch(settings.poll)] if settings.poll else []
            return [backend.sweep(totals), *watching]

        sessions, probe = Sessions(steps), StoreProbe(store)
        return cls(settings, access, backend, models, steps, sessions, registry, repository, places, probe, totals, chores, census)
