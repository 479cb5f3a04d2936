from pathlib import Path

import numpy as np
import pytest

from model import skeletons
from model.augment import joined, resize, rotation, symmetric_bones, warp
from model.layouts import KINECT20, LAYOUTS, NTU25, UTD20, UTD20_PARENTS, UTD20_ROOT
from model.task import Job
from model.train_action import ActionRecipe, begin

FILE = "skeleton/utd_mhad.npz"


def body(T=30, seed=0):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.standard_normal((T, 20, 3), dtype=np.float32) * np.float32(0.02), 0) + rng.standard_normal(
        (20, 3), dtype=np.float32
    )


def bone_lengths(x):
    return np.linalg.norm(x - x[:, UTD20_PARENTS], axis=-1)


def test_the_test_subjects_are_in_no_training_and_a_held_subject_is_not_trained_on(needs):
    assert not set(skeletons.SUBJECTS["train"]) & set(skeletons.SUBJECTS["test"])
    needs(FILE)
    job = Job(seed=1, out=Path(), command="", steps=1, decay=1)
    for held, trained in ((7, [1, 3, 5]), (1, [3, 5, 7]), (0, [1, 3, 5, 7])):
        learner, _ = begin(job, {"hidden": 8}, ActionRecipe(steps=1, decay=1, held=held))
        assert list(learner.by_subject) == trained
        assert {c.subject for c in learner.validation} == {held} - {0}


def test_the_real_clips_are_whole(needs):
    needs(FILE)
    clips, labels = skeletons.read()
    assert (len(clips), len(labels)) == (861, 27)
    assert len(skeletons.of_subjects(clips, skeletons.SUBJECTS["test"])) == 430
    assert all(c.x.shape[1:] == (20, 3) and c.x.dtype == np.float32 and len(c.x) > 20 for c in clips)
    assert {c.label for c in clips} == set(range(27))
    first = next(c for c in clips if c.name == "a10_s1_t1")
    assert (first.label, first.subject) == (9, 1)


@pytest.mark.parametrize(("file", "layout"), [(FILE, "utd20"), ("skeleton/nwucla.npz", "kinect20")])
def test_the_joints_stand_where_their_names_say(file, layout, needs):
    needs(file)
    names, table = LAYOUTS[layout]
    with np.load(skeletons.find(file)) as d:
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
    clips, labels = skeletons.read()
    path = np.mean([np.abs(np.diff(c.x, axis=0)).sum((0, 2)) for c in clips if labels[c.label] == "throw"], 0)
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


def test_a_rotation_keeps_distances_and_a_turn_keeps_heights():
    x = body()
    turned = x @ rotation(0.7, 0, 0).T
    np.testing.assert_allclose(turned[..., 1], x[..., 1], atol=1e-6)
    np.testing.assert_allclose(bone_lengths(x @ rotation(0.7, 0.2, -0.1).T), bone_lengths(x), atol=1e-5)


def test_another_body_has_the_hip_in_place_and_the_bones_asked_for():
    x, bones = body(), symmetric_bones(np.random.default_rng(1))
    y = resize(x, bones)
    np.testing.assert_array_equal(y[:, UTD20_ROOT], x[:, UTD20_ROOT])
    np.testing.assert_allclose(bone_lengths(y), bone_lengths(x) * bones, atol=1e-5)
    np.testing.assert_array_equal(bones[4:8], bones[8:12])
    np.testing.assert_array_equal(bones[12:16], bones[16:20])


@pytest.mark.parametrize(("speed", "sway"), [(0.7, 0.0), (1.4, 0.3), (1.0, 0.2)])
def test_playing_faster_or_slower_never_shows_the_future(speed, sway):
    x = body(60)
    changed = x.copy()
    changed[40:] += 1
    same = np.isclose(warp(x, speed, sway, 1.0), warp(changed, speed, sway, 1.0)).all((1, 2))
    first = int(np.argmin(same))
    assert same[:first].all()
    assert not same[first:].any()  # once the change is seen it stays: time only runs forward
    assert len(same) == round(60 / speed)
    np.testing.assert_allclose(warp(x, 1.0, 0.0, 0.0), x, atol=1e-5)


def test_joined_clips_are_of_one_body_before_one_camera():
    x = body()
    first, second = joined([x, x], np.random.default_rng(0))
    np.testing.assert_allclose(bone_lengths(first).mean(0)[4:], bone_lengths(second).mean(0)[4:], rtol=0.1)
    assert first.dtype == np.float32
    again, _ = joined([x, x], np.random.default_rng(0))
    np.testing.assert_array_equal(first, again)
