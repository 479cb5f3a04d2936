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
