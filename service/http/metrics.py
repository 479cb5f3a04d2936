"""Answer GET /metrics: put the numbers of service/engine/statistics.py in Prometheus' format when somebody asks."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from indrnn.service.engine.requests import ClientProtocol
from indrnn.service.engine.statistics import BOUNDS_NS, Happened, Spread, Statistics, Totals
from indrnn.service.errors import EngineAway, ServiceError, StoreFailed
from indrnn.service.serving.models import ServedModel
from indrnn.service.store.protocol import Population
from indrnn.service.store.refreshed import Refreshed

CENSUS_AGE = 15.0  # seconds; counting looks at every session of the store
PATIENCE = 3.0  # seconds that a scraper waits for the count, which goes on; then it gets the one before
MODEL = ("model", "version")
SPOKEN = (*MODEL, "protocol")
STORED: dict[Happened, str] = {
    "opened": "Sessions begun, sequences of the Open Inference Protocol too",
    "imported": "Sessions made or moved by an uploaded state",
    "forked": "Sessions that began as a copy of another",
    "reset": "Sessions put back to the start",
    "rewound": "Sessions gone back to an earlier step, each a step of its own",
    "deleted": "Sessions their client ended",
}


@dataclass(frozen=True, slots=True)
class Sources:
    """The places of the numbers: loaded models, totals of no model, the census, open streams, and versions that are not served."""

    models: Callable[[], Iterable[ServedModel]]
    totals: Totals
    census: Refreshed[Sequence[Population]]
    streams: Callable[[], Mapping[ClientProtocol, int]]
    unavailable: Callable[[], Sequence[tuple[str, str]]]
    revision: str


class Metrics:
    """The registry of one application, and its route."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._counting: asyncio.Future[None] | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def collect(self) -> Iterator[Metric]:
        """Return every family of metrics; prometheus_client calls this."""
        s = self._sources
        models = [(m.manifest.name, m.manifest.version, m, m.port.snapshot()) for m in s.models()]
        statistics = [((name, version), snapshot.statistics) for name, version, _, snapshot in models]
        info = GaugeMetricFamily("indrnn_model_info", "What runs a model", labels=(*MODEL, "provider", "kernel"))
        waiting = GaugeMetricFamily("indrnn_waiting", "Steps that wait for a model or run", labels=MODEL)
        for name, version, model, snapshot in models:
            info.add_metric((name, version, model.provider, model.kernel), 1)
            waiting.add_metric((name, version), snapshot.waiting)
        yield info
        yield waiting
        yield from _of_service(s)
        yield from _of_sessions(statistics, s.census.value, s.totals)
        yield from _of_steps(statistics)
        yield from _of_times(statistics)
        yield from _of_store(statistics, s.totals.store_failures)

    async def answer(self, accept: str) -> Response:
        """Return the numbers in the form that a scraper accepts."""
        body, content_type = await self.text(accept)
        return Response(body, headers={"Content-Type": content_type})

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Return the numbers, and the name of the form that they are in."""
        if self._counting is None or self._counting.done():
            self._counting = asyncio.ensure_future(self._count())
        counted, _ = await asyncio.wait((self._counting,), timeout=PATIENCE)
        for one in counted:
            one.result()
        encode, content_type = choose_encoder(accept)
        return await asyncio.to_thread(encode, self._registry), content_type

    async def _count(self) -> None:
        try:
            await self._sources.census.take(CENSUS_AGE)
        except ServiceError as error:  # the numbers of the store are old then; how often it fails is one of the others
            if isinstance(error, StoreFailed) and not isinstance(error, EngineAway):  # an engine that is away or out of memory comes back
                self._sources.totals.store_failures += 1


class AskedFor:
    """The metrics where another process has them."""

    def __init__(self, scrape: Callable[[str], Awaitable[tuple[bytes, str]]]) -> None:
        self._scrape = scrape

    async def answer(self, accept: str) -> Response:
        """Return the numbers in the form that a scraper accepts."""
        body, content_type = await self._scrape(accept)
        return Response(body, headers={"Content-Type": content_type})


Counted = Sequence[tuple[tuple[str, str], Statistics]]
"""Each model's name and version, and its numbers."""


def _counter(name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family


def _gauge(name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family


def _of_service(s: Sources) -> Iterator[Metric]:
    yield _gauge("indrnn_info", "The running source", ("revision",), [((s.revision,), 1)])
    yield _gauge("indrnn_connections", "Open connections", ("protocol",), [((protocol,), n) for protocol, n in s.streams().items()])
    text = "Versions in the repository that could not be loaded, or were unloaded"
    yield _gauge("indrnn_model_unavailable", text, MODEL, [(key, 1) for key in s.unavailable()])
    loads = [(("loaded",), s.totals.loads), (("failed",), s.totals.load_failures)]
    yield _counter("indrnn_model_loads", "Bundles loaded beside the running ones, and those that could not be", ("result",), loads)


def _of_sessions(counted: Counted, living: Sequence[Population], totals: Totals) -> Iterator[Metric]:
    numbers: dict[tuple[str, str], list[int]] = {}
    for one in living:  # two graphs may have been served under one version
        total = numbers.setdefault((one.model, one.version), [0, 0])
        total[0] += one.sessions
        total[1] += one.state_bytes
    text = f"Living sessions in the store, counted at most {CENSUS_AGE:g} s ago"
    yield _gauge("indrnn_sessions_active", text, MODEL, [(key, n) for key, (n, _) in numbers.items()])
    yield _gauge("indrnn_state_bytes", "Bytes of their states", MODEL, [(key, size) for key, (_, size) in numbers.items()])
    for kind, text in STORED.items():
        values = [((*key, p), n) for key, s in counted for (k, p), n in dict(s.happened).items() if k == kind]
        yield _counter(f"indrnn_sessions_{kind}", text, SPOKEN, values)
    expired = [(key, sum(n for (kind, _), n in dict(s.happened).items() if kind == "expired")) for key, s in counted]
    text = "Sessions whose time was over: found by a request, or, without a model, by the sweep"
    yield _counter("indrnn_sessions_expired", text, MODEL, [*expired, (("", ""), totals.swept)])
    yield _counter(
        "indrnn_sessions_resumed",
        "Sessions that a stream went on with",
        MODEL,
        list({**dict.fromkeys((key for key, _ in counted), 0), **totals.resumed}.items()),  # a model without any says so
    )


def _of_steps(counted: Counted) -> Iterator[Metric]:
    steps = [((*key, p), n) for key, s in counted for (kind, p), n in dict(s.happened).items() if kind == "step"]
    yield _counter("indrnn_steps", "Steps applied and stored", SPOKEN, steps)
    repeats = [((*key, p), n) for key, s in counted for p, n in dict(s.repeats).items()]
    yield _counter("indrnn_steps_repeated", "Steps answered from the stored result", SPOKEN, repeats)
    refused = [((*key, p, code), n) for key, s in counted for (code, p), n in _added(s.refused, s.turned_away).items()]
    yield _counter("indrnn_steps_refused", "Requests for a session or a model that moved nothing, by code", (*SPOKEN, "code"), refused)
    failed = [((*key, code), n) for key, s in counted for code, n in dict(s.failed).items()]
    yield _counter("indrnn_steps_failed", "Steps the engine began and could not end, by code", (*MODEL, "code"), failed)
    stateless = [((*key, p), n) for key, s in counted for p, n in dict(s.answered).items()]
    yield _counter("indrnn_stateless", "Clips, texts and rows answered without a session", SPOKEN, stateless)
    yield _counter("indrnn_characters", "Characters generated", MODEL, [(key, s.characters) for key, s in counted])


def _added(
    one: Mapping[tuple[str, ClientProtocol], int], other: Mapping[tuple[str, ClientProtocol], int]
) -> dict[tuple[str, ClientProtocol], int]:
    both = dict(one)
    for key, n in dict(other).items():
        both[key] = both.get(key, 0) + n
    return both


def _of_times(counted: Counted) -> Iterator[Metric]:
    sizes = HistogramMetricFamily("indrnn_batch_size", "Rows of a run of the model", labels=MODEL)
    for key, s in counted:
        sizes.add_metric(key, _sizes(s.batch_sizes), s.rows)
    yield sizes
    yield _histogram("indrnn_queue_wait_seconds", "From a step's arrival to its first run", [(key, s.queue) for key, s in counted])
    yield _histogram("indrnn_engine_seconds", "Each run of the model", [(key, s.engine) for key, s in counted])
    yield _histogram("indrnn_store_seconds", "Each commit of a batch", [(key, s.store) for key, s in counted])


def _of_store(counted: Counted, others: int) -> Iterator[Metric]:
    failures = [*((key, s.store_failures) for key, s in counted), (("", ""), others)]
    yield _counter("indrnn_store_failures", "Times the store failed: a batch, or, without a model, a sweep or a count", MODEL, failures)


def _sizes(runs: Mapping[int, int]) -> list[tuple[str, float]]:
    """Return how many runs had at most so many rows: for each power of two to the largest run, and for infinity."""
    bounds = [2**i for i in range(max(7, (max(runs, default=1) - 1).bit_length() + 1))]
    up_to = [(str(float(bound)), float(sum(n for size, n in runs.items() if size <= bound))) for bound in bounds]
    return [*up_to, ("+Inf", float(sum(runs.values())))]


def _histogram(name: str, text: str, spreads: Sequence[tuple[Sequence[str], Spread]]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=MODEL)
    for key, spread in spreads:
        seen, so_far = list(spread.buckets), 0
        buckets = []
        for bound, n in zip((*(b / 1e9 for b in BOUNDS_NS), float("inf")), seen, strict=True):
            so_far += n
            buckets.append(("+Inf" if bound == float("inf") else f"{bound:g}", float(so_far)))
        family.add_metric(key, buckets, spread.ns / 1e9)
    return family
