"""Joined streams: each clip once, continuous, marked within the motion, and made again from the seed and the subject alone."""

import numpy as np
import pytest

from indrnn.model.data import bodies
from indrnn.model.data.clips import HZ, Clip
from indrnn.model.data.sets import DataMissingError
from indrnn.model.detection import joining, streams

BODY = bodies.Body(0, (0, 0, 0, 1, 2), ((1, 2), (3, 4)), ((1, 2), (3, 4)))
STAND = np.array([[0, 1, 3], [-0.2, 1.4, 3], [0.2, 1.4, 3], [-0.1, 0.0, 3], [0.1, 0.0, 3]], np.float32)


def clip(label, to=STAND, begin=STAND, T=40):
    """Joint 1 goes up and down on the way from one pose to another, and stands still for a moment before and after."""
    u = np.linspace(0, 1, T, dtype=np.float32)[:, None, None]
    x = (1 - u) * begin + u * to
    x[:, 1, 1] += np.sin(np.pi * u[:, 0, 0])
    still = [x[:1]] * 7, [x[-1:]] * 7  # as recorded clips begin and end
    return Clip(np.concatenate([*still[0], x, *still[1]])[:, None].astype(np.float32), label, 0, "")


def test_a_stream_is_continuous_and_its_events_are_the_clips():
    rng = np.random.default_rng(0)
    away = STAND + np.array([5, 0, 1], np.float32)  # another recording, elsewhere in the room
    motions = [clip(3), clip(1, away, away), clip(2)]
    made = joining.join(motions, [], BODY, rng)
    assert [label for label, *_ in made.events] == [3, 1, 2]
    for motion, (_, start, end, point) in zip(motions, made.events, strict=True):
        np.testing.assert_allclose(np.diff(made.x[start:end], axis=0), np.diff(motion.x[:, 0], axis=0), atol=1e-6)
        assert start < point < end
    assert np.linalg.norm(np.diff(made.x, axis=0), axis=2).max() < 0.15


def test_standing_begins_with_a_clip_s_last_frame():
    moving = clip(1)
    made = joining.join([Clip(moving.x[:-7], 1, 0, "")], [], BODY, np.random.default_rng(0))
    (_, _, end, _) = made.events[0]
    np.testing.assert_allclose(made.x[end], made.x[end - 1], atol=1e-3)


def test_the_mark_is_where_most_of_the_way_is_made():
    x = np.zeros((50, 2, 3), np.float32)
    x[10:30, 0, 1] = np.linspace(0, 2, 20)
    x[30:, 0, 1] = 2
    assert joining.mark(x) == 10 + 12  # of 19 steps
    assert joining.mark(np.zeros((9, 2, 3), np.float32)) == 8


def test_a_clip_of_one_frame_is_marked_in_it():
    assert joining.mark(STAND[None]) == 0
    stream = joining.join([clip(3), Clip(STAND[None, None], 1, 0, "")], [], BODY, np.random.default_rng(0))
    label, start, end, point = stream.events[1]
    assert (label, end - start, point) == (1, 1, start)


def test_bodies_turn_on_the_shorter_way_and_keep_their_size():
    rng = np.random.default_rng(0)
    back = joining.turned(STAND, np.pi - 0.1, STAND[0])
    assert joining.turn_of(back, BODY.across) == pytest.approx(np.pi - 0.1, abs=1e-5)
    between = joining.transition(STAND, back, 31, BODY, rng)
    assert np.linalg.norm(between[:, 1] - between[:, 2], axis=1) == pytest.approx(0.4, abs=0.02)
    assert joining.turn_of(between[15], BODY.across) == pytest.approx((np.pi - 0.1) / 2, abs=0.1)


def test_who_sits_is_not_stood_up_by_a_transition():
    sit = STAND - np.array([[0, 0.4, 0], [0, 0.4, 0], [0, 0.4, 0], [0, 0, 0.4], [0, 0, 0.4]], np.float32)
    motions = [clip(0), clip(1, sit), clip(2, begin=sit), clip(3), clip(1, sit), clip(2, begin=sit)]
    for seed in range(20):
        order = [c.label for c in joining.ordered(motions, 0, np.random.default_rng(seed))]
        assert sorted(order) == sorted(c.label for c in motions)
        assert all(order[i + 1] == 2 for i, k in enumerate(order) if k == 1)


@pytest.fixture(scope="module")
def made():
    try:
        return joining.made(1, 5, [7])
    except DataMissingError as missing:
        pytest.skip(str(missing))


def test_a_subject_s_streams_come_from_the_seed_and_the_subject_alone(made):
    again = joining.made(1, 5, [7, 2])
    n = made["off"][-1]
    np.testing.assert_array_equal(again["x"][:n], made["x"])
    assert len(joining.made(1, 6, [7])["x"]) != n


def test_the_file_is_one_of_streams(made):
    found = streams.stream_set(made, "joined")
    assert (found.hz, found.unit, len(found.classes)) == (HZ, 1.0, 28)
    assert len(found.clips) >= 9
    assert sum(len(s.events) for s in found.clips) > 100
    step = np.concatenate([np.linalg.norm(np.diff(s.x[:, 0], axis=0), axis=2).mean(1) for s in found.clips])
    assert np.quantile(step, 0.999) < 0.15


def test_the_walkers_of_test_and_training_subjects_are_other_people():
    walks = joining.Walks([np.zeros((1, 2, 3), np.float32)] * 6, [1, 2, 3, 4, 5, 5])
    parts = [len(walks.of(part, 3)) for part in range(3)]
    assert sum(parts) == 6
    assert parts == [2, 3, 1]
