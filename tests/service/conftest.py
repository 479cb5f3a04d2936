"""The bench that most tests of the engine stand at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_process import RedisProcess, running_redis


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A Redis for all tests of a module."""
    with running_redis(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
def benches() -> Iterator[list[Any]]:
    """Benches that a test has made: their ends are seen to."""
    made: list[Any] = []
    yield made
    for bench in made:
        bench.engine.gate.set()
        bench.loop.stop(10)
        bench.store.close()


@pytest.fixture
def bench_settings() -> dict[str, Any]:
    """What a module's tests change of the engine's settings."""
    return {}


@pytest.fixture
def bench(tmp_path: Path, bench_settings: dict[str, Any], benches: list[Any]) -> Any:
    """An engine thread, its store, and the replies that have come."""
    from test_loop import make  # where it is described; not every test of the service needs it

    benches.append(make(tmp_path, **bench_settings))
    return benches[-1]
