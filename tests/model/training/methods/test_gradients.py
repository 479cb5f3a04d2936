"""bench/methods: the ways to a gradient that are exact give that of backpropagation through time, and where they break is known."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[4] / "bench"))

from methods import gradients
from methods.gradients import WAYS, drawn

EXACT = [way for way in WAYS if "truncated" not in way and "through time" not in way]


def numeric(way, w, x, g):
    """Central differences of sum g h, by each weight."""
    run = gradients.indrnn_forward if way.startswith("IndRNN") else lambda w, x: gradients.forward(w, x)[0]
    found = np.zeros_like(w)
    for place in np.ndindex(*w.shape):
        step = np.zeros_like(w)
        step[place] = 1e-6
        found[place] = ((run(w + step, x) - run(w - step, x)) * g).sum() / 2e-6
    return found


@pytest.mark.parametrize("way", [way for way in WAYS if "through time" in way])
def test_backpropagation_through_time_is_the_gradient(way):
    w, x, g = drawn(way, 5, 20)
    np.testing.assert_allclose(WAYS[way](w, x, g), numeric(way, w, x, g), atol=1e-8)


@pytest.mark.parametrize("way", EXACT)
@pytest.mark.parametrize(("N", "T"), [(6, 50), (16, 50), (7, 33)])
def test_exact_ways_give_it_to_a_millionth(way, N, T):
    w, x, g = drawn(way, N, T)
    want = WAYS["IndRNN: backpropagation through time" if way.startswith("IndRNN") else "backpropagation through time"](w, x, g)
    np.testing.assert_allclose(WAYS[way](w, x, g), want, atol=1e-6 * np.abs(want).max())


def test_a_truncated_gradient_is_another_one():
    w, x, g = drawn("", 16, 50)
    want, got = gradients.through_time(w, x, g), gradients.truncated(w, x, g)
    assert np.linalg.norm(got - want) > 0.01 * np.linalg.norm(want)
    np.testing.assert_allclose(gradients.through_time(w, x, g, 50), want, atol=1e-12)


@pytest.mark.parametrize("way", ["fast forward propagation", "Green's function"])
def test_what_divides_by_a_forgotten_state_is_wrong_where_the_others_are_not(way):
    w, x, g = drawn("", 16, 50)
    w[:, :16] = np.random.default_rng(0).normal(size=(16, 16)) * 0.15  # forgets some directions much sooner than others
    want = gradients.through_time(w, x, g)
    np.testing.assert_allclose(gradients.block_update(w, x, g), want, atol=1e-9 * np.abs(want).max())
    off = np.abs(WAYS[way](w, x, g) - want).max() / np.abs(want).max()
    assert not off < 1e-6
