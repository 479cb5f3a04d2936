"""Anybody's file of clips, never seen before, is read, split and described; what is wrong with one is said."""

import numpy as np
import pytest

from indrnn.model.data import bodies
from indrnn.model.data.clips import PERSON, Clip, ClipFileError, clip_set, read
from indrnn.model.data.splits import SplitError, each, pick


def arrays(lengths=(5, 7, 3), joints=6, dims=3, persons=None, **more):
    rng = np.random.default_rng(0)
    shape = (sum(lengths), joints, dims) if persons is None else (sum(lengths), persons, joints, dims)
    off = np.cumsum([0, *lengths])
    return {"x": rng.normal(scale=0.4, size=shape).astype(np.float32), "off": off, "y": np.arange(len(lengths)) % 2} | more


def test_the_least_file_is_clips_and_their_classes():
    found = clip_set(arrays(), "f")
    assert [c.x.shape for c in found.clips] == [(5, 1, 6, 3), (7, 1, 6, 3), (3, 1, 6, 3)]
    assert (found.classes, found.hz, found.joint_names, found.unit) == (("0", "1"), 30.0, None, 1.0)
    assert len({c.subject for c in found.clips}) == 3


def test_two_persons_in_two_dimensions_get_a_third_of_zeros():
    found = clip_set(arrays(persons=2, dims=2, hz=np.array(25)), "f")
    assert found.clips[0].x.shape == (5, 2, 6, 3)
    assert not any(c.x[..., 2].any() for c in found.clips)
    assert (found.flat, found.persons, found.hz) == (True, 2, 25.0)


@pytest.mark.parametrize("times", [1000.0, 40.0, 0.01])
def test_other_units_are_told_from_the_bodies(times):
    plain = arrays()
    found = clip_set(plain | {"x": plain["x"] * np.float32(times)}, "f")
    size = np.median([np.sqrt(((f - f.mean(0)) ** 2).sum(1).mean()) for c in found.clips for f in c.x[:, 0]])
    assert size == pytest.approx(PERSON, rel=0.02)
    assert clip_set(plain | {"x": plain["x"] * 1000}, "f", unit=0.001).clips[0].x == pytest.approx(plain["x"][:5, None], rel=1e-5)


def test_joints_not_seen_hold_their_last_place():
    plain = arrays()
    plain["x"][3, 2] = np.nan
    x = clip_set(plain, "f", 1.0).clips[0].x
    np.testing.assert_array_equal(x[3, 0, 2], x[2, 0, 2])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y": np.array([0, 1])}, "y: expected 3 whole numbers"),
        ({"y": np.array([0.5, 1, 1])}, "y: expected 3 whole numbers"),
        ({"classes": np.array(["a"])}, r"y: expected classes 0\.\.0, got 0\.\.1"),
        ({"off": np.array([0, 5, 5, 15])}, "off: expected to rise"),
        ({"off": np.array([0, 5, 12])}, "off: expected to rise from 0 to the 15 frames"),
        ({"x": np.zeros((15, 6, 4))}, "x: expected numbers"),
        ({"x": np.full((15, 6, 3), np.inf)}, "got infinity"),
        ({"joint_names": np.array(["a"])}, "joint_names: expected 6"),
        ({"subject": np.array([1])}, "subject: expected 3 whole numbers"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(change, said):
    with pytest.raises(ClipFileError, match=said):
        clip_set(arrays() | change, "f")


def test_a_file_without_clips_says_what_it_has(tmp_path):
    np.savez(tmp_path / "a.npz", frames=np.zeros(3))
    with pytest.raises(ClipFileError, match="expected arrays x, off and y, found frames"):
        read(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_text("no")
    with pytest.raises(ClipFileError, match=r"b\.npz"):
        read(tmp_path / "b.npz")


def clips(subjects, views=None, tests=None, labels=None):
    x = np.ones((2, 1, 3, 3), np.float32)
    return [
        Clip(x, labels[i] if labels else i % 2, s, f"c{i}", views[i] if views else None, tests[i] if tests else None)
        for i, s in enumerate(subjects)
    ]


def test_clips_are_picked_by_subject_view_and_flag():
    some = clips([1, 2, 3, 1], views=[1, 1, 2, 3], tests=[True, False, False, True])
    for what, expected in (("subject=1", [0, 3]), ("subject=2,3", [1, 2]), ("view=1", [0, 1]), ("flag", [0, 3]), ("none", [])):
        rest, picked = pick(some, what)
        assert picked == [some[i] for i in expected]
        assert rest == [some[i] for i in range(4) if i not in expected]


def test_folds_part_all_clips_and_no_subject_is_in_two():
    some = clips([i % 7 for i in range(35)])
    parts = [pick(some, f"fold={i}/3")[1] for i in (1, 2, 3)]
    assert sorted(c.name for p in parts for c in p) == sorted(c.name for c in some)
    assert all(not {c.subject for c in parts[i]} & {c.subject for c in parts[j]} for i in range(3) for j in range(i))


def test_folds_of_few_subjects_have_their_share_of_every_class():
    some = clips([1] * 30, labels=[0] * 20 + [1] * 10)
    for i in range(1, 6):
        labels = [c.label for c in pick(some, f"fold={i}/5")[1]]
        assert (labels.count(0), labels.count(1)) == (4, 2)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("subject=9", "expected among subjects 1, 2"),
        ("view=1", "expected among views None"),
        ("flag", "array `test`"),
        ("fold=6/5", "expected flag"),
        ("half", "expected flag"),
        ("subject=1,2", "picked 3"),
        ("cross-view", "expected a name such as"),
    ],
)
def test_a_split_that_cannot_be_is_said(what, said):
    with pytest.raises(SplitError, match=said):
        pick(clips([1, 2, 1]), what)


NAMES = ("pelvis", "chest", "Left Hand", "Right Hand", "left_shoulder", "right_shoulder", "lfoot", "rfoot")


def test_twins_and_what_lies_across_are_told_from_names():
    assert bodies.twins(NAMES) == ((2, 3), (4, 5), (6, 7))
    assert bodies.across(NAMES) == ((4, 5),)
    assert bodies.twins(("elbow", "left", "wrist")) == ()


def test_bones_are_the_pairs_never_far_apart():
    rng = np.random.default_rng(0)
    frames = np.zeros((200, 5, 3), np.float32)  # a chain 2-0-4-1-3 of unit bones, each turning freely
    for parent, child in ((2, 0), (0, 4), (4, 1), (1, 3)):
        step = rng.normal(size=(200, 3))
        frames[:, child] = frames[:, parent] + step / np.linalg.norm(step, axis=1, keepdims=True)
    body = bodies.tree(frames, root=2)
    assert body.parents == (2, 4, 2, 1, 0)
    assert body.order == (0, 4, 1, 3)
    assert bodies.tree(frames).root == 4  # the middle of the chain
    assert bodies.of(("a", "b", "root", "c", "d"), frames).root == 2


def recorded(rooms, n=12):
    x = np.ones((2, 1, 3, 3), np.float32)
    return [Clip(x, i % 2, i // 2, f"c{i}", more={"room": rooms[i % len(rooms)], "day": i % 4, "late": i % 3 == 0}) for i in range(n)]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("room=kitchen", [0, 3, 6, 9]),
        ("room=hall,yard", [1, 2, 4, 5, 7, 8, 10, 11]),
        ("day=3", [3, 7, 11]),
        ("late", [0, 3, 6, 9]),
        ("names=c1,c2", [1, 2]),
        ("fold=2/2:day", [1, 3, 5, 7, 9, 11]),
        ("fold=1/all:room", [1, 4, 7, 10]),
        ("fold=3/all:subject", [4, 5]),
    ],
)
def test_clips_are_picked_by_any_array_of_the_file(what, expected):
    some = recorded(["kitchen", "hall", "yard"])
    rest, picked = pick(some, what)
    assert [c.name for c in picked] == [f"c{i}" for i in expected]
    assert len(rest) + len(picked) == 12


def test_each_fold_is_one_test_and_together_they_are_all_clips():
    some = recorded(["kitchen", "hall", "yard"])
    assert each(some, "fold=each/all:room") == ["fold=1/all:room", "fold=2/all:room", "fold=3/all:room"]
    assert each(some, "fold=each/4:subject") == [f"fold={i}/4:subject" for i in (1, 2, 3, 4)]
    assert each(some, "subject=1") == ["subject=1"]
    for words in ("fold=each/all:room", "fold=each/all:day", "fold=each/3"):
        parts = [pick(some, one)[1] for one in each(some, words)]
        assert sorted(c.name for p in parts for c in p) == sorted(c.name for c in some)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("house=1", "arrays with a value for each are day, late, name, room, subject, test, view, got 'house'"),
        ("room=attic", "expected among rooms hall, kitchen, yard"),
        ("day", "expected an array of 0 and 1, got 0, 1, 2, 3: day=VALUE picks"),
        ("fold=5/all:room", "a fold from 1/3 to 3/3, got 5/3"),
        ("fold=1/9:room", "at most 3 parts, as room has values"),
        ("fold=each/3", "expected flag, subject=1,2"),
        ("room", "expected an array of 0 and 1, got hall, kitchen, yard"),
    ],
)
def test_an_array_that_the_file_has_not_is_said_with_those_it_has(what, said):
    with pytest.raises(SplitError, match=said):
        pick(recorded(["kitchen", "hall", "yard"]), what)


def test_arrays_with_a_value_a_clip_come_with_the_clips():
    more = {"room": np.array([b"a", b"b", b"a"]), "day": np.array([[1.0, 2.0, 3.0]]), "weights": np.array([0.5, 1, 2]), "pair": np.zeros(2)}
    found = clip_set(arrays(**more, classes=np.array(["x", "y", "z"])), "f")
    assert [c.more for c in found.clips] == [{"room": r, "day": d, "y": y} for r, d, y in (("a", 1, 0), ("b", 2, 1), ("a", 3, 0))]
