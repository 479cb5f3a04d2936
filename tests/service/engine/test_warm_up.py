"""A graph is run before its first request, and not for minutes where a step takes half a second."""

from types import SimpleNamespace
from typing import Any

import pytest

from indrnn.service.engine import runtime
from indrnn.service.engine.runtime import Engine


@pytest.mark.parametrize(("step", "longest"), [(0.5, 32), (1e-4, 256)])
def test_a_slow_graph_does_without_the_rest_of_its_warm_up(monkeypatch: pytest.MonkeyPatch, step: float, longest: int) -> None:
    clock, ran = [0.0], []

    def zeros(session: Any, B: int, T: int) -> None:
        ran.append((B, T))
        clock[0] += step * T

    monkeypatch.setattr(runtime.time, "perf_counter", lambda: clock[0])
    engine: Any = object.__new__(Engine)
    engine.manifest = SimpleNamespace(window=None)
    engine._run_zeros = zeros
    assert engine._warm_up(None, 64) == pytest.approx(3 * step * (1 + 1 + 32))
    assert max(T for _, T in ran) == longest
    assert {(1, 1), (64, 1), (1, 32)} <= set(ran)


@pytest.mark.parametrize("step", [0.1, 0.5, 1.1, 11.0, 30.0])
def test_a_warm_up_ends_with_the_run_that_is_under_way(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    clock, ran = [0.0], []

    def zeros(session: Any, B: int, T: int) -> None:
        ran.append(step * T)
        clock[0] += step * T

    monkeypatch.setattr(runtime.time, "perf_counter", lambda: clock[0])
    engine: Any = object.__new__(Engine)
    engine.manifest = SimpleNamespace(window=None)
    engine._run_zeros = zeros
    seconds = engine._warm_up(None, 64)
    assert clock[0] <= runtime.WARM + max(ran)
    assert seconds >= 3 * step * (1 + 1), "a provider that ran out of time is not the faster one"
