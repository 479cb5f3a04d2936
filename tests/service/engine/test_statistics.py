"""The plain numbers behind /metrics, and their words."""

import asyncio
import itertools
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from indrnn.service.engine.port import EngineSnapshot
from indrnn.service.engine.statistics import BOUNDS_NS, Spread, Statistics, Totals
from indrnn.service.errors import EngineAway, Overloaded, ServiceError, StoreFailed
from indrnn.service.http import metrics as page
from indrnn.service.http.metrics import Metrics, Sources
from indrnn.service.store.protocol import Population
from indrnn.service.store.refreshed import census_of


@given(st.lists(st.integers(0, 20_000_000_000)))
def test_a_spread_counts_each_duration_in_the_bucket_of_its_bound(durations: list[int]) -> None:
    spread = Spread()
    for ns in durations:
        spread.add(ns)
    bounds = [-1, *BOUNDS_NS, float("inf")]
    expected = [sum(low < ns <= high for ns in durations) for low, high in itertools.pairwise(bounds)]
    assert (spread.count, spread.ns, spread.buckets) == (len(durations), sum(durations), expected)


def test_counting_costs_the_engine_thread_less_than_a_microsecond_a_step() -> None:
    statistics, n = Statistics(), 64
    happened: list[Any] = [("step", "stream")] * n
    best = float("inf")
    for _ in range(200):  # the best of many: others may use the machine
        begun = time.perf_counter_ns()
        for _ in range(n):
            statistics.queue.add(300_000)
        statistics.happened.update(happened)
        statistics.store.add(1_000)
        best = min(best, (time.perf_counter_ns() - begun) / n)
    assert best < 1_000


def scrape(statistics: Statistics, populations: tuple[Population, ...] = (), swept: int = 0) -> dict[Any, float]:
    manifest = SimpleNamespace(name='m"\\', version="1")
    model: Any = SimpleNamespace(
        manifest=manifest,
        port=SimpleNamespace(snapshot=lambda: EngineSnapshot(statistics, 0)),
        provider="cpu",
        kernel="loop",
    )
    census: Any = SimpleNamespace(value=populations)
    metrics = Metrics(Sources(lambda: [model], Totals(swept=swept), census, lambda: {"stream": 0}, lambda: [("m", "2")], "r"))
    text = generate_latest(metrics._registry).decode()
    families = list(text_string_to_metric_families(text))
    return {(s.name, *(v for k, v in sorted(s.labels.items()) if k != "model")): s.value for f in families for s in f.samples}


@pytest.mark.parametrize(("kind", "failures"), [(StoreFailed, 1), (EngineAway, 0), (Overloaded, 0)])
async def test_a_shard_that_is_away_is_no_failure_of_the_store(kind: type[ServiceError], failures: int) -> None:
    async def take(age: float) -> None:
        raise kind("not now", retry_after=1)

    totals, census = Totals(), cast(Any, SimpleNamespace(value=(), take=take))
    await Metrics(Sources(lambda: [], totals, census, dict, lambda: [], "r")).text("")
    assert totals.store_failures == failures


async def test_a_scraper_does_not_wait_for_a_count_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PATIENCE", 0.01)
    go, taken = asyncio.Event(), []

    async def take(age: float) -> None:
        taken.append(age)
        await go.wait()

    metrics = Metrics(Sources(lambda: [], Totals(), cast(Any, SimpleNamespace(value=(), take=take)), dict, lambda: [], "r"))
    async with asyncio.timeout(5):
        for _ in range(2):
            assert b"indrnn_info" in (await metrics.text(""))[0]
        go.set()
        await metrics.text("")
    assert len(taken) == 1, "the count goes on, and the next scrape waits for the same one"


def test_refusals_of_both_threads_are_one_number() -> None:
    statistics = Statistics()
    statistics.refused["overloaded", "http"] = 2
    statistics.turned_away["overloaded", "http"] = 3
    assert scrape(statistics)["indrnn_steps_refused_total", "overloaded", "http", "1"] == 5


@pytest.mark.parametrize("sizes", [{}, {1: 3}, {64: 1, 3: 2}, {65: 1}, {1000: 2}])
def test_every_run_is_in_one_bucket_of_the_batch_sizes(sizes: dict[int, int]) -> None:
    statistics = Statistics()
    for rows, count in sizes.items():
        for _ in range(count):
            statistics.ran(rows, 1, 1, 1, 0.0)
    found = scrape(statistics)
    for bound in (1, 2, 4, 64):
        assert found["indrnn_batch_size_bucket", f"{bound:.1f}", "1"] == sum(n for rows, n in sizes.items() if rows <= bound)
    assert found["indrnn_batch_size_bucket", "+Inf", "1"] == found["indrnn_batch_size_count", "1"] == sum(sizes.values())


def test_sessions_of_two_graphs_under_one_version_are_added_and_the_swept_belong_to_no_model() -> None:
    found = scrape(Statistics(), (Population("m", "1", "a", 2, 80), Population("m", "1", "b", 1, 8)), swept=4)
    assert (found["indrnn_sessions_active", "1"], found["indrnn_state_bytes", "1"]) == (3, 88)
    assert found["indrnn_sessions_expired_total", ""] == 4


class Store:
    def __init__(self) -> None:
        self.asked = 0
        self.broken = False

    def census(self, now: float) -> tuple[Population, ...]:
        self.asked += 1
        if self.broken:
            raise StoreFailed("broken on purpose")
        return (Population("m", "1", "d", self.asked, 0),)


async def test_the_store_is_counted_at_most_once_in_a_while_and_by_one_at_a_time() -> None:
    store, now = Store(), [0.0]
    census = census_of(store, lambda: now[0])  # type: ignore[arg-type]
    answers = await asyncio.gather(*(census.take(10) for _ in range(5)))
    assert {a[0].sessions for a in answers} == {1}
    now[0] = 10
    store.broken = True
    with pytest.raises(StoreFailed):
        await census.take(10)
    assert census.value[0].sessions == 1, "the last answer stands"
    store.broken = False
    assert (await census.take(10))[0].sessions == 3
