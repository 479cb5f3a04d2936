"""The running service, as its protocols get it: one frozen table of what they share."""

from dataclasses import dataclass

from indrnn.service.engine.quota import Quotas
from indrnn.service.engine.registry import Registry
from indrnn.service.engine.statistics import Totals
from indrnn.service.serving.backend import Backend
from indrnn.service.serving.connections import Places
from indrnn.service.serving.models import Models
from indrnn.service.serving.repository import Repository, Rules
from indrnn.service.serving.request import Access
from indrnn.service.serving.sessions import Sessions
from indrnn.service.serving.steps import StepRouter
from indrnn.service.settings import Settings
from indrnn.service.store.refreshed import StoreProbe


@dataclass(frozen=True)
class Services:
    """What a protocol may use. Fronts own connections and owners; `registry` and the models' ports lead to the engines."""

    settings: Settings
    access: Access
    backend: Backend
    models: Models
    steps: StepRouter
    sessions: Sessions
    registry: Registry
    repository: Repository
    places: Places
    probe: StoreProbe
    totals: Totals

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
        places = Places(settings.max_connections)
        return cls(settings, access, backend, models, steps, Sessions(steps), registry, repository, places, StoreProbe(store), totals)
