"""Drawing characters: reproducible, and true to the distribution."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indrnn.service.session.machine import Sampling
from indrnn.service.session.sampling import draw, log_softmax, uniform

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


def sampling(temperature: float = 1.0, top_p: float = 1.0, seed: int = 3) -> Sampling:
    return Sampling(10, temperature, top_p, seed, ())


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_a_draw_is_decided_by_seed_and_index_alone(seed: int, index: int) -> None:
    assert 0 <= uniform(seed, index) < 1
    assert uniform(seed, index) == uniform(seed, index)
    assert uniform(seed, index) != uniform(seed, index + 1)


def frequencies(s: Sampling, n: int = 4000) -> np.ndarray:
    return np.bincount([draw(LOGITS, s, i)[0] for i in range(n)], minlength=4) / n


def test_draws_follow_the_distribution() -> None:
    assert np.allclose(frequencies(sampling()), [0.5, 0.3, 0.15, 0.05], atol=0.03)


def test_a_low_temperature_sharpens_and_zero_takes_the_best() -> None:
    assert np.allclose(frequencies(sampling(temperature=0.5)), np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365, atol=0.03)
    assert draw(LOGITS, sampling(temperature=0), 0)[0] == 0


@pytest.mark.parametrize("temperature", [1e-308, 1e-30, 1e-3])
def test_a_tiny_temperature_takes_the_best(temperature: float) -> None:
    assert draw(np.array([10, 30, -20], np.float32), sampling(temperature=temperature), 0) == (1, 0.0)


@pytest.mark.parametrize(("top_p", "kept"), [(0.0, 1), (0.4, 1), (0.6, 2), (0.9, 3), (1.0, 4)])
def test_the_nucleus_is_the_smallest_that_holds_top_p(top_p: float, kept: int) -> None:
    assert set(np.flatnonzero(frequencies(sampling(top_p=top_p)))) == set(range(kept))


def test_the_log_probability_is_the_models_own_whatever_the_sampling() -> None:
    k, logprob = draw(LOGITS, sampling(temperature=0.1, top_p=0.3), 0)
    assert (k, logprob) == (0, pytest.approx(np.log(0.5)))


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=50))
def test_log_softmax_is_normalised_for_any_logits(logits: list[float]) -> None:
    assert np.exp(log_softmax(np.array(logits, np.float32)).astype(np.float64)).sum() == pytest.approx(1, abs=1e-3)
