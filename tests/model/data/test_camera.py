"""What cameras do to clips: joints held and rates changed as a slow reading of the same rules would."""

import numpy as np
import pytest

from indrnn.frames import joints, rate
from indrnn.model.data import camera


def hold(x: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Fills joints not seen (NaN) in x [T, P, J, 3] with their last place, starting from last [P, J, 3].

    A joint of a present person that was never seen stands where the mean of the person's first seen joints was; a person none of whose
    joints is seen, or all at the origin, is absent: all zeros, and starts anew when coming back.
    """
    missing = np.logical_or.reduce(np.isnan(x), axis=-1)
    if not missing.any():
        return x
    x = np.where(missing[..., None], np.float32(0), x)
    out = np.zeros_like(x)
    for t, now in enumerate(x):
        for p in range(x.shape[1]):
            if not now[p].any():
                continue  # absent
            before = out[t - 1, p] if t else last[p]
            seen = ~missing[t, p]
            fill = before if before.any() else now[p].sum(0) / max(1, seen.sum())
            out[t, p] = np.where(seen[:, None], now[p], fill)
    return out


def motion(rng, T=40, persons=2, joints=5):
    x = np.cumsum(rng.normal(size=(T, persons, joints, 3)), 0).astype(np.float32) + 2
    if persons > 1:
        a, b = sorted(rng.integers(0, T, 2))
        x[a:b, 1] = 0
    return x


@pytest.mark.parametrize("seed", range(20))
def test_lost_joints_are_held_as_the_service_holds_them(seed):
    rng = np.random.default_rng(seed)
    x = motion(rng, persons=1 + seed % 2)
    x = camera.lose(x, rng.uniform(0.05, 0.9), rng, stretch=rng.uniform(1, 12))
    last = motion(rng, 1, x.shape[1])[0] if seed % 3 else np.zeros(x.shape[1:], np.float32)
    np.testing.assert_allclose(joints.hold(x, last), hold(x, last), atol=1e-5)


@pytest.mark.parametrize("hz", [10, 12.5, 15, 24, 25, 29.97, 30, 45, 50, 60])
def test_other_rates_become_the_networks_as_the_service_makes_them(hz):
    x = motion(np.random.default_rng(3))
    expected = camera.sample(x, 0.0, hz / 30.0)
    ours, _ = rate.resample(x, hz, 30.0, None)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_a_camera_of_another_rate_sees_the_same_motion():
    t = np.arange(90, dtype=np.float32)
    x = np.broadcast_to(t[:, None, None, None], (90, 1, 2, 3)) + 1
    slow = camera.seen_at(x, 30.0, 10.0)
    np.testing.assert_allclose(slow[:, 0, 0, 0], np.arange(1, 91, 3), atol=1e-4)
    back = camera.resample(slow, 10.0, 30.0)
    np.testing.assert_allclose(back[:, 0, 0, 0], t[: len(back)] + 1, atol=1e-3)
    late = camera.seen_at(x, 30.0, 10.0, start=0.5)
    assert late[0, 0, 0, 0] == pytest.approx(1.5)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_about_the_share_asked_for_is_lost_in_stretches(share):
    x = np.ones((4000, 1, 20, 3), np.float32)
    lost = np.isnan(camera.lose(x, share, np.random.default_rng(0)))[..., 0]
    assert lost.mean() == pytest.approx(share, abs=0.03)
    begins = (lost[1:] & ~lost[:-1]).sum()
    assert lost[1:].sum() / begins == pytest.approx(10, rel=0.15)


def test_what_is_lost_now_does_not_change_what_came_before():
    rng = np.random.default_rng(1)
    x = motion(rng, persons=1)
    y = x.copy()
    y[20:, :, 2] = np.nan
    np.testing.assert_array_equal(joints.hold(y, x[0])[:20], x[:20])
    np.testing.assert_array_equal(joints.hold(y, x[0])[20:, 0, 2], np.broadcast_to(x[19, 0, 2], (20, 3)))


def test_a_joint_that_is_not_seen_has_no_part_in_the_frame_before():
    x = np.ones((9, 1, 2, 3), np.float32)
    x[3, 0, 1] = np.nan
    assert not np.isnan(camera.resample(x, 30.0, 15.0)).any()
    assert np.flatnonzero(np.isnan(camera.resample(x, 15.0, 30.0)).any((1, 2, 3))).tolist() == [5, 6, 7]
