"""Bodies of a frame stand in any order; whom a tracker knows keeps a seat, whoever else comes."""

import json

import numpy as np
import pytest

from indrnn.model.data.formats import mediapipe
from indrnn.model.data.formats.recording import seats

POSE = np.array([[1.0, 1], [1, 2], [2, 1], [2, 2]])
DIM = np.where(np.arange(4)[:, None] < 1, np.nan, POSE)  # a joint less is seen, so that others are looked at first


def at(x, pose=POSE):
    return pose + np.array([x, 0])


def places(frames, ids, persons=2, near=np.inf):
    """Return where in each frame the middles of the seats are [T, persons], 0 of an empty one, and how many found none."""
    x, left_over = seats(frames, persons, ids, near)
    return np.nan_to_num(np.nanmean(x[..., 0], 2)).round(1).tolist(), left_over


def test_who_comes_takes_no_seat_of_whom_the_tracker_knows():
    frames = [[at(0)], [at(0.1), at(9)], [at(0.2), at(9)]]
    expected = [[1.5, 0.0], [1.6, 10.5], [1.7, 10.5]]
    assert places(frames, [[1], [1, 2], [1, 2]]) == (expected, 0)
    assert places([frames[0], *(frame[::-1] for frame in frames[1:])], [[1], [2, 1], [2, 1]]) == (expected, 0)


def test_who_is_known_is_kept_where_there_are_fewer_seats_than_bodies():
    assert places([[at(0)], [at(0.1), at(0.2)]], [[1], [2, 1]], persons=1) == ([[1.5], [1.7]], 1)
    assert places([[at(0)], [at(0.1), at(0, DIM)]], [[1], [2, 1]], persons=1) == ([[1.5], [1.7]], 1)


def test_a_seat_is_that_of_the_id_that_took_it_last():
    """Id 1 left, id 3 sits where it sat; when 1 comes back elsewhere and is looked at first, 3 keeps the seat."""
    frames = [[at(0), at(9)], [at(9)], [at(0.1), at(9)], [at(0.2, DIM), at(5)]]
    x, left_over = seats(frames, 2, [[1, 2], [2], [3, 2], [3, 1]])
    middles = np.nanmean(x[..., 0], 2)
    np.testing.assert_allclose(middles[:, middles[0] < 5].ravel()[[0, 1, 2]], [1.5, 0, 1.6])
    np.testing.assert_allclose(np.sort(middles[3]), [1.5 + 0.2 + 1 / 6, 6.5])
    assert middles[3, middles[0] < 5] < 5
    assert left_over == 0


def test_an_id_twice_in_a_frame_and_bodies_without_ids_find_a_seat_each():
    x, left_over = seats([[at(0), at(9)], [at(0), at(9)], [at(9), at(0)]], 2, [[1, 1], [1, 1], [1, None]])
    assert x.any((2, 3)).all()
    assert left_over == 0


def test_a_new_id_elsewhere_takes_the_seat_that_nobody_had():
    """Whom the tracker loses for a moment still has a seat when it is found again."""
    frames = [[at(0)], [at(9)], [at(9), at(0.1)], [at(9), at(0.2)]]
    assert places(frames, [[1], [2], [2, 1], [2, 1]], near=1) == ([[1.5, 0.0], [0.0, 10.5], [1.6, 10.5], [1.7, 10.5]], 0)


def test_one_person_under_a_new_id_keeps_the_seat():
    assert places([[at(0)], [at(0.1)], [at(0.2)]], [[1], [2], [3]], near=1) == ([[1.5, 0.0], [1.6, 0.0], [1.7, 0.0]], 0)


def test_swapped_ids_do_not_swap_the_persons():
    assert places([[at(0), at(9)], [at(9), at(0)]], [[1, 2], [1, 2]], near=1) == ([[1.5, 10.5], [1.5, 10.5]], 0)


def test_who_has_no_id_sits_where_the_nearest_sat_however_far():
    assert places([[at(0)], [at(5)], [at(9)]], [[None], [None], [None]], near=1) == ([[1.5, 0.0], [6.5, 0.0], [10.5, 0.0]], 0)


POSES = np.random.default_rng(4).uniform(-0.5, 0.5, (40, 2, 33, 3))  # of two persons, no pose like the last


def persons_of(tmp_path, *names, order=lambda t: (0, 1), frames=40, persons=2):
    """Return which of two persons each seat has in each frame of landmarks of these names, -1 nobody."""
    told = []
    for t in range(frames):
        picture = [POSES[t, k, :, :2] * 0.1 + (0.3 + 0.4 * k, 0.5) for k in range(2)]
        kinds = {"pose_world_landmarks": POSES[t], "pose_landmarks": picture}
        told.append({name: [kinds[name][k].tolist() for k in order(t)] for name in names})
    (tmp_path / "a.json").write_text(json.dumps(told))
    (found,) = mediapipe.read(tmp_path / "a.json", persons)
    return [[next((k for k in range(2) if np.allclose(x, POSES[t, k])), -1) for x in f] for t, f in enumerate(found.x)]


@pytest.mark.parametrize("names", [("pose_landmarks", "pose_world_landmarks"), ("pose_world_landmarks", "pose_landmarks")])
@pytest.mark.parametrize("order", [lambda t: (0, 1), lambda t: (1, 0) if t % 3 else (0, 1), lambda t: (0, 1) if t != 7 else (1,)])
def test_persons_whose_hips_are_at_0_are_told_apart_by_the_picture(tmp_path, names, order):
    seen = persons_of(tmp_path, *names, order=order)
    assert seen == [[0 if 0 in order(t) else -1, 1] for t in range(40)] or seen == [[1, 0 if 0 in order(t) else -1] for t in range(40)]


def test_without_a_picture_persons_whose_hips_are_at_0_keep_their_order(tmp_path):
    assert persons_of(tmp_path, "pose_world_landmarks") == [[0, 1]] * 40
    assert persons_of(tmp_path, "pose_world_landmarks", persons=1) == [[0]] * 40
