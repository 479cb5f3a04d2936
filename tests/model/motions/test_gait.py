"""Walking and jogging that are made: bones keep their lengths, legs take turns, who does not stand does not go."""

import numpy as np
import pytest

from indrnn.frames.layouts import UTD20
from indrnn.model.data import bodies
from indrnn.model.motions import gait

BODY = bodies.kinect(UTD20)
HEIGHTS = {"head": 1.7, "shoulder centre": 1.4, "spine": 1.1, "hip centre": 0.9}
LIMBS = {"shoulder": (0.2, 1.4), "elbow": (0.25, 1.1), "wrist": (0.27, 0.85), "hand": (0.27, 0.78)}
LIMBS |= {"hip": (0.1, 0.88), "knee": (0.1, 0.47), "ankle": (0.1, 0.08), "foot": (0.1, 0.02)}
HZ = 30.0


def standing() -> np.ndarray:
    """A body that faces the camera, 2 m away; its right is at greater x."""
    pose = np.zeros((20, 3), np.float32)
    for j, name in enumerate(UTD20):
        side, _, joint = name.partition(" ")
        x, y = LIMBS[joint] if side in ("left", "right") else (0.0, HEIGHTS[name])
        pose[j] = (-x if side == "left" else x, y, 2.0 - (0.1 if joint == "foot" else 0.0))
    return pose


def own(x: np.ndarray, joint: str) -> np.ndarray:
    return x[:, 0, UTD20.index(joint)] - x[:, 0, UTD20.index("hip centre")]


@pytest.mark.parametrize("jogs", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_bones_keep_their_lengths_and_the_lower_foot_its_ground(jogs: bool, seed: int) -> None:
    pose = standing()
    x = gait.going(pose, BODY, jogs, HZ, np.random.default_rng(seed))
    assert x.shape[1:] == (1, 20, 3)
    assert x.dtype == np.float32
    for j, parent in enumerate(BODY.parents):
        if UTD20[j] in ("left hip", "right hip", "spine"):
            continue  # the trunk leans about the hips
        length = np.linalg.norm(x[:, 0, j] - x[:, 0, parent], axis=-1)
        assert length == pytest.approx(np.linalg.norm(pose[j] - pose[parent]), abs=1e-4), UTD20[j]
    lowest = x[:, 0, [UTD20.index("left ankle"), UTD20.index("right ankle")], 1].min(1)
    assert 0.08 - 1e-4 < lowest.min() < 0.09
    assert lowest.max() < 0.14


def test_legs_take_turns_and_arms_go_with_the_other_leg() -> None:
    seen = 0
    for seed in range(12):
        x = gait.going(standing(), BODY, False, HZ, np.random.default_rng(seed))
        straight = np.ptp(own(x, "right shoulder")[:, 0]) < 0.02  # does not turn
        left, right, arm = own(x, "left knee")[:, 2], own(x, "right knee")[:, 2], own(x, "left elbow")[:, 2]
        if straight and np.ptp(arm) > 0.05:
            assert np.corrcoef(left, right)[0, 1] < -0.5
            assert np.corrcoef(left, arm)[0, 1] < -0.2
            seen += 1
    assert seen > 2


def test_who_goes_about_goes_to_where_it_faces() -> None:
    """The camera is at smaller z, which a standing body faces."""
    ways = []
    for seed in range(30):
        x = gait.going(standing(), BODY, False, HZ, np.random.default_rng(seed))
        right = x[:, 0, UTD20.index("right hip")] - x[:, 0, UTD20.index("left hip")]
        forward = np.stack([right[:, 2], -right[:, 0]], 1)  # seen from above, x and z
        steps = np.diff(x[:, 0, UTD20.index("hip centre")][:, [0, 2]], axis=0)
        ways.append(float((steps * forward[1:]).sum()))
    assert min(ways) > -0.01
    assert sum(w > 0.05 for w in ways) > 10


def test_who_sits_or_lifts_a_hand_does_not_stand() -> None:
    pose = standing()
    assert gait.stands(pose)
    lifted, sits = pose.copy(), pose.copy()
    lifted[UTD20.index("left wrist"), 1] = 1.5
    for side in ("left", "right"):
        sits[UTD20.index(f"{side} knee")] = sits[UTD20.index(f"{side} hip")] + (0, 0, -0.4)
        sits[UTD20.index(f"{side} ankle"), 1] = 0.45
    assert not gait.stands(lifted)
    assert not gait.stands(sits)
    assert not gait.stands(np.zeros((20, 3), np.float32))
