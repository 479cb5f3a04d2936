"""Frames that say when they were taken: the same on any clock, in any split."""

import numpy as np
import pytest

from indrnn.frames.rate import Carry, due, may_be_left_over, resample_at

CLOCKS = [0.0, 1e3, 1.7e9, 1.7e9 + 0.123, -5e8, 1.7e10]


@pytest.mark.parametrize("begins", CLOCKS)
@pytest.mark.parametrize("hz", [30.0, 25.0, 29.97, 60.0])
def test_a_frame_at_its_moment_is_due_on_any_clock(begins: float, hz: float) -> None:
    for k in range(1, 400):
        assert due(begins + np.arange(k) / hz, hz, None) == k


@pytest.mark.parametrize("begins", CLOCKS)
def test_pieces_are_the_whole_on_any_clock(begins: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 1, 3, 3)).astype(np.float32)
    for t in (np.arange(200) / 30, np.cumsum(rng.uniform(0.01, 0.07, 200)), np.arange(200) / 60):
        whole = resample_at(x, begins + t, 30.0, None).frames
        pieces, carry, at = [], None, 0
        while at < 200:
            n = int(rng.integers(1, 9))
            made = resample_at(x[at : at + n], begins + t[at : at + n], 30.0, carry)
            carry, at = made.carry, at + n
            assert may_be_left_over(carry, 30.0)
            pieces.append(made.frames)
        assert len(whole) == sum(map(len, pieces))
        np.testing.assert_allclose(np.concatenate(pieces), whole, atol=2e-3)  # 2e-4 of a frame, of jumps of several units
        on_zero = resample_at(x, t, 30.0, None).frames
        assert len(on_zero) == len(whole)
        np.testing.assert_allclose(whole, on_zero, atol=2e-3)


def test_a_carry_that_no_resampling_leaves_is_none() -> None:
    frame = np.zeros((1, 3, 3), np.float32)
    assert not may_be_left_over(Carry(0.0, frame, 1, 1, 1.7e9, 1.7e9 + 1, 20), 30.0)
    assert may_be_left_over(Carry(0.0, frame, 1, 1, 1.7e9, 1.7e9 + 1, 31), 30.0)
