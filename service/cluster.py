"""The service on Ray Serve: `indrnn serve --ray [NAME=VALUE...]`, or `serve run indrnn.service.cluster:app [NAME=VALUE...]`.

A replica is the whole service but its socket: front and engines in one actor, so that a step costs no call between machines beside the one
of Ray's proxy. Sessions are in Redis, so any replica answers any step; a request with `x-session-id` comes to the replica that had the
session last, as long as that is there, which spares a read. How many replicas there are follows the sessions that step and the steps that
wait, and not the sockets that are open.
"""

import asyncio
import math
import os
import signal
import sys
import threading
from dataclasses import dataclass, fields
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from indrnn.service.app import create_application
from indrnn.service.logs import set_up
from indrnn.service.serving.backend import Backend
from indrnn.service.settings import PREFIX, Settings, SettingsError, read_settings
from indrnn.service.store.record import CACHED_SESSIONS
from indrnn.service.store.redis import RedisStore

ROUTER = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"
DRAINING = 2.0  # seconds beyond the drain's after which Ray kills a replica that is to end
PATIENT = 10_000  # requests and streams that a replica may have at a time; the service has limits of its own


@dataclass(frozen=True)
class ClusterOptions:
    """What may be said beside the settings: numbers of replicas, what one may use, and what one is to carry.

    cpus, gpus: of a replica, in cores and GPUs; a GPU may be shared. sessions: that have stepped within the `recent` last seconds; waiting:
    steps that wait in it; upscale_delay, downscale_delay: seconds.
    """

    min_replicas: int = 1
    max_replicas: int = 4
    cpus: float = 1.0
    gpus: float = 0.0
    sessions: int = 1_000
    recent: float = 60.0
    waiting: int = 64
    upscale_delay: float = 5.0
    downscale_delay: float = 120.0

    @classmethod
    def read(cls, given: dict[str, Any]) -> "ClusterOptions":
        """Return the options of `NAME=VALUE` on a command line. Raises SettingsError."""
        known: dict[str, Any] = {f.name: type(f.default) for f in fields(cls)}
        if unknown := sorted(set(given) - set(known)):
            raise SettingsError(f"unknown option {', '.join(unknown)}: expected one of {', '.join(known)}")
        try:
            made = cls(**{name: known[name](value) for name, value in given.items()})
        except ValueError as error:
            raise SettingsError(f"expected numbers, got {given}: {error}") from None
        if not 1 <= made.min_replicas <= made.max_replicas or min(made.sessions, made.waiting) < 1 or min(made.cpus, made.gpus) < 0:
            raise SettingsError(f"expected 1 <= min_replicas <= max_replicas, and numbers above 0, got {given}")
        if made.sessions > CACHED_SESSIONS:  # those that step are counted in memory
            raise SettingsError(f"expected at most {CACHED_SESSIONS} sessions of a replica, got {made.sessions}")
        return made


def replicas_for(waiting: float, sessions: float, options: ClusterOptions) -> int:
    """Return how many replicas carry so many waiting steps and stepping sessions, at least one."""
    return max(1, math.ceil(sessions / options.sessions), math.ceil(waiting / options.waiting))


class ScaleBySteps:
    """Ray's autoscaling policy: by what the replicas say of themselves (`ServedReplica.record_autoscaling_stats`)."""

    def __init__(self, **options: Any) -> None:
        self._options = ClusterOptions(**options)

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """Return how many replicas there should be; Ray bounds it and waits out the delays."""
        said = ctx.aggregated_metrics or {}
        if not said:
            return ctx.target_num_replicas, {}
        waiting, sessions = (sum(said.get(name, {}).values()) for name in ("waiting", "sessions"))
        return replicas_for(waiting, sessions, self._options), {}


class Replica:
    """The service as an ASGI application that says how busy it is. Made in the actor."""

    def __init__(self, settings: Settings, recent: float) -> None:
        """Start the engines; recent: seconds after its last step that a session counts.

        Raises BundleError, StoreError, EngineError, KeysError; SettingsError where other replicas would not see the sessions.
        """
        _need_shared(settings)
        set_up(settings.log_level, settings.log_format)
        sys.setswitchinterval(5e-4)  # as serve_alone does
        self._backend = Backend.open(settings)
        self._asgi: ASGIApp = create_application(settings, self._backend).asgi
        self._ttl, self._recent = settings.session_ttl, recent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._asgi(scope, receive, send)

    async def load(self) -> dict[str, float]:
        """Return how many steps wait, and how many sessions have stepped here lately."""
        store = self._backend.store
        recent = await asyncio.to_thread(store.stepped_here, self._ttl, self._recent) if isinstance(store, RedisStore) else 0
        return {"waiting": float(sum(engine.snapshot().waiting for engine in self._backend.engines)), "sessions": float(recent)}


def _need_shared(settings: Settings) -> None:
    if "://" not in settings.store:
        raise SettingsError(f"INDRNN_STORE: expected a Redis, which all replicas share, got {settings.store!r}")


def app(given: dict[str, Any]) -> Any:
    """Return the application for `serve run`; given: the options, as `NAME=VALUE` there. Raises SettingsError."""
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

    options, settings = ClusterOptions.read(given), read_settings()
    _need_shared(settings)

    def replica() -> Replica:  # in the actor, which has the settings in its environment
        return Replica(read_settings(), options.recent)

    class ServedReplica(serve.ingress(replica)()):  # type: ignore[misc]
        """A replica of the service."""

        async def record_autoscaling_stats(self) -> dict[str, float]:
            """Tell the policy how busy this replica is."""
            return await self.app.load()  # type: ignore[no-any-return]

    shared = {name: value for name, value in os.environ.items() if name.startswith((PREFIX, "OTEL_"))}
    scale = AutoscalingConfig(
        min_replicas=options.min_replicas,
        max_replicas=options.max_replicas,
        upscale_delay_s=options.upscale_delay,
        downscale_delay_s=options.downscale_delay,
        policy=AutoscalingPolicy(policy_function=ScaleBySteps, policy_kwargs=vars(options)),
    )
    deployment = serve.deployment(
        name="indrnn",
        max_ongoing_requests=PATIENT,
        autoscaling_config=scale,
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus, "runtime_env": {"env_vars": shared}},
        graceful_shutdown_timeout_s=settings.drain_timeout + DRAINING,
        health_check_period_s=2,
        health_check_timeout_s=settings.hang_timeout,
    )
    return deployment(ServedReplica).bind()


def serve_on_ray(settings: Settings, given: dict[str, Any]) -> int:
    """Run the service on the Ray that is there, or on one of its own, until it is stopped. Raises SettingsError without the packages."""
    try:
        import ray
        from ray import serve
    except ModuleNotFoundError as error:
        raise SettingsError(f"--ray: {error.name} is missing: pip install 'indrnn[serve,ray]'") from error
    made = app(given)
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False)
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())  # in place of Ray's own, which aborts with a trace
    serve.start(proxy_location="EveryNode", http_options={"host": settings.host, "port": settings.port})
    serve.run(made, name="indrnn")
    told.wait()
    serve.shutdown()
    ray.shutdown()
    return 0
