"""The bench that most tests of the engine stand at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def bench_settings() -> dict[str, Any]:
    """What a module's tests change of the engine's settings."""
    return {}


@pytest.fixture
def bench(tmp_path: Path, bench_settings: dict[str, Any]) -> Iterator[Any]:
    """An engine thread, its store, and the replies that have come."""
    from test_loop import make  # where it is described; not every test of the service needs it

    made = make(tmp_path, **bench_settings)
    yield made
    made.engine.gate.set()
    made.loop.stop(10)
    made.store.close()
