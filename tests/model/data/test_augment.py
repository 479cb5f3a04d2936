from pathlib import Path

import numpy as np
import pytest

from indrnn.frames.layouts import KINECT20, LAYOUTS, NTU25, UTD20, known
from indrnn.model.data import bodies, clips
from indrnn.model.data.augment import (
    Augment,
    glided,
    joined,
    mirrored,
    misplacement,
    resize,
    rotation,
    seen_by,
    shortened,
    symmetric_bones,
    trunk,
    warp,
)
from indrnn.model.tasks.action import ActionRecipe, begin
from indrnn.model.training.task import Job

FILE = "skeleton/utd_mhad.npz"


PARENTS = (1, 2, 3, 3, 1, 4, 5, 6, 1, 8, 9, 10, 3, 12, 13, 14, 3, 16, 17, 18)
BODY = bodies.Body(3, PARENTS, bodies.twins(UTD20))


def motion(T=30, seed=0, persons=1):
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((T, persons, 20, 3), dtype=np.float32) * np.float32(0.02)
    return np.cumsum(steps, 0) + rng.standard_normal((persons, 20, 3), dtype=np.float32)


def bone_lengths(x):
    return np.linalg.norm(x - x[..., PARENTS, :], axis=-1)


def test_the_test_subjects_are_in_no_training_and_a_held_subject_is_not_trained_on(needs):
    assert not set(clips.SUBJECTS["train"]) & set(clips.SUBJECTS["test"])
    needs(FILE)
    job = Job(seed=1, out=Path(), command="", steps=1, decay=1)
    for held, trained in ((7, [1, 3, 5]), (1, [3, 5, 7]), (0, [1, 3, 5, 7])):
        learner, _ = begin(job, {"hidden": 8}, ActionRecipe(steps=1, decay=1, held=held))
        assert sorted({c.subject for group in learner.groups for c in group}) == trained
        assert {c.subject for c in learner.validation} == {held} - {0}


def test_the_real_clips_are_whole(needs):
    needs(FILE)
    found = clips.read()
    every = found.clips
    assert (len(every), len(found.classes), found.unit) == (861, 27, 1.0)
    assert sum(clip.subject in clips.SUBJECTS["test"] for clip in every) == 430
    assert all(c.x.shape[1:] == (1, 20, 3) and c.x.dtype == np.float32 and len(c.x) > 20 for c in every)
    assert {c.label for c in every} == set(range(27))
    first = next(c for c in every if c.name == "a10_s1_t1")
    assert (first.label, first.subject) == (9, 1)


@pytest.mark.parametrize(("file", "layout"), [(FILE, "utd20"), ("skeleton/nwucla.npz", "kinect20")])
def test_the_joints_stand_where_their_names_say(file, layout, needs):
    needs(file)
    names, table = LAYOUTS[layout]
    with np.load(clips.find(file)) as d:
        sent = d["x"][d["off"][:-1]].mean(0)  # the mean first frame: most people stand, facing the camera
    at = dict(zip(names, sent, strict=True))
    up = [at[n][1] for n in ("left foot", "left knee", "left hip", "hip centre", "spine", "shoulder centre", "head")]
    assert up == sorted(up)
    for side, sign in (("left", -1), ("right", 1)):
        assert all(
            sign * (at[f"{side} {j}"][0] - at["hip centre"][0]) > 0.03 for j in ("shoulder", "elbow", "wrist", "hand", "hip", "knee")
        )
    own = dict(zip(UTD20, [sent[list(sources)].mean(0) for sources in table], strict=True))
    assert all(np.array_equal(own[n], at[n]) for n in UTD20)


def test_the_right_arm_is_the_one_that_throws(needs):
    needs(FILE)
    found = clips.read()
    throws = [c.x[:, 0] for c in found.clips if found.classes[c.label] == "throw"]
    path = np.mean([np.abs(np.diff(x, axis=0)).sum((0, 2)) for x in throws], 0)
    assert path[UTD20.index("right hand")] > 3 * path[UTD20.index("left hand")]


def test_every_layout_fills_every_own_joint_with_joints_of_that_name():
    for name, (names, table) in LAYOUTS.items():
        assert len(table) == 20, name
        assert all(0 <= s < len(names) for sources in table for s in sources)
        for own, sources in zip(UTD20[4:], table[4:], strict=True):
            assert [names[s] for s in sources] == [own]
    assert LAYOUTS["utd20"][1] == tuple((i,) for i in range(20))
    assert (len(KINECT20), len(NTU25), len(set(NTU25))) == (20, 25, 25)
    assert [NTU25[i] for i in (3, 20, 0, 23)] == ["head", "spine shoulder", "spine base", "right hand tip"]


def test_a_layout_of_the_same_joints_in_another_order_is_mapped_by_their_names():
    others = known(KINECT20)
    assert others["kinect20"][1] == tuple((i,) for i in range(20))
    names, table = others["utd20"]
    assert [names[sources[0]] for sources in table] == list(KINECT20)
    assert others["ntu25"][1][KINECT20.index("head")] == LAYOUTS["ntu25"][1][UTD20.index("head")]
    assert known(["nose", "neck"]) == {}


def test_a_rotation_keeps_distances_and_a_turn_keeps_heights():
    x = motion()
    turned = x @ rotation(0.7, 0, 0).T
    np.testing.assert_allclose(turned[..., 1], x[..., 1], atol=1e-6)
    np.testing.assert_allclose(bone_lengths(x @ rotation(0.7, 0.2, -0.1).T), bone_lengths(x), atol=1e-5)


def test_another_body_has_the_root_in_place_and_the_bones_asked_for():
    x, bones = motion(), symmetric_bones(BODY, Augment(), np.random.default_rng(1))
    y = resize(x, bones, BODY)
    np.testing.assert_array_equal(y[..., 3, :], x[..., 3, :])
    np.testing.assert_allclose(bone_lengths(y), bone_lengths(x) * bones, atol=1e-5)
    np.testing.assert_array_equal(bones[4:8], bones[8:12])
    np.testing.assert_array_equal(bones[12:16], bones[16:20])
    assert bones.std() > 0


@pytest.mark.parametrize(("speed", "sway"), [(0.7, 0.0), (1.4, 0.3), (1.0, 0.2)])
def test_playing_faster_or_slower_never_shows_the_future(speed, sway):
    x = motion(60)
    changed = x.copy()
    changed[40:] += 1
    same = np.isclose(warp(x, speed, sway, 1.0), warp(changed, speed, sway, 1.0)).all((1, 2, 3))
    first = int(np.argmin(same))
    assert same[:first].all()
    assert not same[first:].any()  # once the change is seen it stays: time only runs forward
    assert len(same) == round(60 / speed)
    np.testing.assert_allclose(warp(x, 1.0, 0.0, 0.0), x, atol=1e-5)


def test_a_mirror_swaps_left_and_right_and_twice_is_nothing():
    x = motion()
    y = mirrored(x, BODY)
    np.testing.assert_array_equal(y[..., UTD20.index("left hand"), 0], -x[..., UTD20.index("right hand"), 0])
    np.testing.assert_array_equal(y[..., UTD20.index("head"), 1:], x[..., UTD20.index("head"), 1:])
    np.testing.assert_array_equal(mirrored(y, BODY), x)


def test_joined_clips_are_of_one_body_before_one_camera():
    x = motion()
    first, second = joined([x, x], BODY, Augment(), 30.0, np.random.default_rng(0))
    np.testing.assert_allclose(bone_lengths(first).mean((0, 1))[4:], bone_lengths(second).mean((0, 1))[4:], rtol=0.1)
    assert first.dtype == np.float32
    again, _ = joined([x, x], BODY, Augment(), 30.0, np.random.default_rng(0))
    np.testing.assert_array_equal(first, again)


def test_an_absent_person_stays_absent_however_a_clip_is_changed():
    x = motion(40, persons=2)
    x[10:20, 1] = 0
    everything = Augment(speed=0, sway=0, lossy=1.0, lost=0.3, mirror=1.0)
    (y,) = joined([x], BODY, everything, 30.0, np.random.default_rng(2))
    there = y.any((2, 3))
    assert there[:, 0].all()
    np.testing.assert_array_equal(there[:, 1], x[:, 1].any((1, 2)))


def test_a_flat_clip_stays_flat():
    x = motion()
    x[..., 2] = 0
    (y,) = joined([x], BODY, Augment(turn=1.0, misplaced=0.05, trunk=0.2), 30.0, np.random.default_rng(0), flat=True)
    assert not y[..., 2].any()
    assert np.abs(y[..., :2] - x[: len(y), ..., :2][:5].mean()).max() > 0.1


KINECT = bodies.kinect(UTD20)


def standing(T=30):
    """Faces the camera; breathes."""
    rng = np.random.default_rng(1)
    one = rng.uniform(-0.2, 0.2, (20, 3)).astype(np.float32) + np.float32([0, 0, 3])
    one[[4, 12], 0], one[[8, 16], 0] = -0.2, 0.2
    one[[4, 8, 12, 16], 2] = 3
    return one + rng.standard_normal((T, 1, 20, 3), dtype=np.float32) * np.float32(0.001)


def test_the_kinect_s_bones_are_those_of_a_body():
    assert [UTD20[p] for p in KINECT.parents] == [
        *("shoulder centre", "spine", "hip centre", "hip centre"),
        *(
            "shoulder centre",
            "left shoulder",
            "left elbow",
            "left wrist",
            "shoulder centre",
            "right shoulder",
            "right elbow",
            "right wrist",
        ),
        *("hip centre", "left hip", "left knee", "left ankle", "hip centre", "right hip", "right knee", "right ankle"),
    ]
    assert (KINECT.root, KINECT.twins) == (3, bodies.twins(UTD20))


def test_a_clip_loses_at_most_the_part_of_its_beginning_and_end():
    x, rng = standing(100), np.random.default_rng(0)
    for _ in range(50):
        y = shortened(x, 0.2, rng)
        first = next(t for t in range(100) if np.array_equal(x[t], y[0]))
        assert first < 20
        assert 100 - first - len(y) < 20
    assert len(shortened(x[:2], 0.4, rng)) == 2


def test_a_body_glides_mostly_forward_or_stays_in_place_and_keeps_its_shape():
    x, rng = standing() + np.linspace(0, 0.3, 30, dtype=np.float32)[:, None, None, None] * np.float32([1, 0, 0]), np.random.default_rng(0)
    steps = []
    for _ in range(200):
        y = glided(x, KINECT, 0.05, rng)
        assert y - y[..., [3], :] == pytest.approx(x - x[..., [3], :], abs=1e-5)
        assert np.array_equal(y[..., 1], x[..., 1])
        steps.append(y[-1, 0, 3] - y[0, 0, 3])
    still = [s for s in steps if abs(s[0]) < 1e-5 and abs(s[2]) < 1e-5]
    assert 30 < len(still) < 70
    assert np.mean([s[2] for s in steps]) < -0.2  # towards the camera, which they face


def test_misplaced_joints_are_off_alike_on_both_sides_and_turn_with_the_body():
    off = misplacement(KINECT, 0.02, np.random.default_rng(0))
    for left, right in KINECT.twins:
        assert off[right] == pytest.approx(off[left] * [-1, 1, 1])
    assert 0 < np.abs(off).max() < 0.09
    x, turn = standing(), rotation(1.0, 0, 0)
    assert seen_by(x, off, KINECT) - x == pytest.approx(np.broadcast_to(off, x.shape), abs=0.005)
    assert seen_by(x @ turn.T, off, KINECT) == pytest.approx(seen_by(x, off, KINECT) @ turn.T, abs=1e-5)


def test_a_trunk_changes_as_one():
    factors = trunk(KINECT, 0.2, np.random.default_rng(0))
    spine, neck, hips, shoulders = (
        factors[[UTD20.index(n) for n in names]] for names in (["spine", "shoulder centre"], ["head"], HIPS, SHOULDERS)
    )
    assert len(set(spine)) == len(set(hips)) == len(set(shoulders)) == 1
    assert len({spine[0], hips[0], shoulders[0], 1.0}) == 4
    assert neck == 1
    assert {float(f) for f in factors} == {float(spine[0]), float(hips[0]), float(shoulders[0]), 1.0}


HIPS, SHOULDERS = ["left hip", "right hip"], ["left shoulder", "right shoulder"]


def test_a_clip_that_plays_twice_as_fast_as_life_is_slowed_down():
    still = Augment(speed=0, sway=0, noise=0)
    one, two = joined([standing(), standing()], KINECT, still, 30.0, np.random.default_rng(0), paces=[1.0, 2.0])
    assert (len(one), len(two)) == (30, 60)
