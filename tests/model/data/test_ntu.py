"""NTU RGB+D's reader and splits on files written here in its format: the data itself may not be passed on."""

import numpy as np
import pytest

from indrnn.frames.layouts import NTU25
from indrnn.model.data import clips, ntu
from indrnn.model.data.formats import table
from indrnn.model.data.splits import pick

POSE = np.random.default_rng(0).uniform(-0.4, 0.4, (25, 3)).astype(np.float32)


def standing(x, z=3.0):
    """A body whose middle is x metres to the side."""
    return POSE - POSE.mean(0) + np.array([x, 0, z], np.float32)


def written(frames):
    """Frames, each a list of (id, joints [25, 3]) in the order they stand in the file -> the text of a .skeleton file."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for ident, joints in bodies:
            lines += [f"{ident} 0 1 1 1 1 0 0.05 -0.02 2", str(len(joints))]
            for x, y, z in joints:
                lines.append(f"{x:.7f} {y:.7f} {z:.7f} 250.1 200.2 960.3 540.4 0.1 0.2 0.3 0.4 2")
    return "\n".join(lines) + "\n"


def read(frames):
    return ntu.align(ntu.bodies(written(frames), "a file"))


def test_joints_come_back_as_they_were_written_for_both_persons():
    x = read([[("7", standing(0)), ("8", standing(1))], [("7", standing(0.01)), ("8", standing(1.01))]])
    assert x.shape == (2, 2, 25, 3)
    np.testing.assert_allclose(x[0, 0], standing(0), atol=1e-6)
    np.testing.assert_allclose(x[1, 1], standing(1.01), atol=1e-6)


def test_the_order_of_bodies_within_a_frame_does_not_matter():
    a, b = ("7", standing(0)), ("8", standing(1))
    np.testing.assert_array_equal(read([[a, b], [a, b], [b, a]]), read([[a, b], [a, b], [a, b]]))


def test_who_leaves_and_comes_back_under_another_id_sits_where_he_sat():
    a = ("7", standing(0))
    frames = [[a, ("8", standing(1))]] * 3 + [[a]] * 4 + [[a, ("9", standing(1.1))]] * 2
    x = read(frames)
    there = x.any((2, 3))
    assert there[:, 0].all()
    assert there[:, 1].tolist() == [True] * 3 + [False] * 4 + [True] * 2
    np.testing.assert_allclose(x[-1, 1], standing(1.1), atol=1e-6)


def test_one_person_whose_id_changes_in_place_keeps_one_slot():
    x = read([[("7", standing(0))]] * 5 + [[("9", standing(0.02))]] * 5)
    assert x[:, 0].any((1, 2)).all()
    assert not x[:, 1].any()


def test_somebody_new_elsewhere_does_not_take_the_seat_of_who_left():
    x = read([[("7", standing(0))]] * 6 + [[("9", standing(1.5))]] * 3)
    assert x[:6, 0].any((1, 2)).all()
    assert not x[6:, 0].any()
    assert x[6:, 1].any((1, 2)).all()


def test_swapped_ids_do_not_swap_the_persons():
    before = [("7", standing(0)), ("8", standing(1))]
    after = [("8", standing(0.02)), ("7", standing(0.98))]
    x = read([before] * 4 + [after] * 4)
    np.testing.assert_allclose(x[:, 0].mean((1, 2)), standing(0).mean(), atol=0.05)
    assert (x[:, 0, :, 0].mean(1) < 0.5).all()
    assert (x[:, 1, :, 0].mean(1) > 0.5).all()


def test_persons_who_walk_past_each_other_keep_their_slots():
    way = np.linspace(0, 1, 41)
    x = read([[("7", standing(w)), ("8", standing(1 - w, z=3.4))] for w in way])
    np.testing.assert_allclose(x[:, 0, :, 0].mean(1), way, atol=1e-5)


def test_frames_without_anybody_are_left_out_and_bodies_of_zeros_are_nobody():
    nobody = ("7", np.zeros((25, 3)))
    x = read([[], [("7", standing(0))], [], [nobody], [("7", standing(0.01)), ("8", np.zeros((25, 3)))], []])
    assert len(x) == 2
    assert not x[:, 1].any()
    assert read([[], [nobody]]).shape == (0, 2, 25, 3)


def test_of_three_bodies_the_two_seen_longest_are_kept():
    a, b, ghost = ("7", standing(0)), ("8", standing(1)), ("6", standing(2))
    x = read([[a, b]] * 5 + [[ghost, a, b]] * 2)
    assert (x[..., 0].mean(2) < 1.5).all()
    np.testing.assert_allclose(x[-1, 1], standing(1), atol=1e-6)


def test_the_person_seen_longest_is_first():
    x = read([[("8", standing(1))]] * 2 + [[("8", standing(1)), ("7", standing(0))]] * 2 + [[("7", standing(0))]] * 6)
    np.testing.assert_allclose(x[-1, 0], standing(0), atol=1e-6)
    assert x[:, 0].any((1, 2)).sum() == 8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2\n1\n7 0 1 1 1 1 0 0 0 2\n25\n0.1 0.2",
        "1\n1\n7 0 1 1 1 1 0 0 0 2\n20\n",
        "one\n",
        "1\n1\n7 0 1 1 1 1 0 0 0 2\n25\n" + "x " * 300,
    ],
)
def test_a_broken_file_is_named(text):
    with pytest.raises(ntu.NtuError, match="broken"):
        ntu.bodies(text, "broken")


def test_a_name_says_who_was_seen_doing_what_from_where():
    n = ntu.Name.of("S018C003P042R002A120.skeleton")
    assert (n.setup, n.camera, n.subject, n.repetition, n.action) == (18, 3, 42, 2, 120)
    with pytest.raises(ntu.NtuError, match="wave"):
        ntu.Name.of("wave.skeleton")


def test_the_published_splits():
    assert len(ntu.TRAINING_SUBJECTS) == len(set(ntu.TRAINING_SUBJECTS)) == 53
    assert sum(s <= 40 for s in ntu.TRAINING_SUBJECTS) == 20
    first, second = ntu.Name.of("S001C002P001R001A001"), ntu.Name.of("S002C001P003R001A001")
    assert (first.cross_subject_test, first.cross_view_test, first.cross_setup_test) == (False, False, True)
    assert (second.cross_subject_test, second.cross_view_test, second.cross_setup_test) == (True, True, False)


LIST = """samples with missing or incomplete skeletons:
S001C002P005R002A008
S001C002P006R001A008.skeleton
(end)
"""


def test_the_list_of_missing_skeletons_is_read_and_heeded(tmp_path, capsys):
    assert ntu.missing(LIST) == {"S001C002P005R002A008", "S001C002P006R001A008"}
    text = written([[("7", standing(0)), ("8", standing(1))]] * 3)
    (tmp_path / "deep").mkdir()
    for name in ("S001C002P001R001A002", "S002C001P003R001A060", "S001C002P005R002A008"):
        (tmp_path / "deep" / f"{name}.skeleton").write_text(text)
    (tmp_path / "missing.txt").write_text(LIST)
    assert ntu.main([str(tmp_path / "deep"), str(tmp_path / "ntu.npz"), "--missing", str(tmp_path / "missing.txt")]) == 0
    found = clips.read(tmp_path / "ntu.npz")
    assert [c.name for c in found.clips] == ["S001C002P001R001A002", "S002C001P003R001A060"]
    assert [(c.subject, c.view, c.label) for c in found.clips] == [(1, 2, 1), (3, 1, 59)]
    assert (found.persons, found.joints, len(found.classes), found.joint_names) == (2, 25, 60, NTU25)
    for what, tested in (("cross-subject", [3]), ("cross-view", [3]), ("cross-setup", [1])):
        assert [c.subject for c in pick(found.clips, what)[1]] == tested
    assert ntu.main([str(tmp_path / "none"), str(tmp_path / "no.npz")]) == 1
    assert "found none" in capsys.readouterr().err


def test_a_joint_that_is_not_a_number_or_at_the_camera_is_lost_and_time_does_not_jump():
    frames = [[("7", standing(0.01 * t)), ("8", standing(1))] for t in range(10)]
    for t, word in ((3, np.nan), (4, np.inf), (7, 0.0)):
        joints = frames[t][0][1].copy()
        joints[6] = word
        frames[t][0] = ("7", joints)
    x = read(frames)
    assert len(x) == 10
    assert np.argwhere(np.isnan(x).any(-1)).tolist() == [[3, 0, 6], [4, 0, 6], [7, 0, 6]]
    np.testing.assert_allclose(x[:, 0, 5, 0], standing(0)[5, 0] + 0.01 * np.arange(10), atol=1e-6)
    np.testing.assert_allclose(ntu.align(ntu.bodies(written(frames).replace("nan", "-1.#IND"), "a file")), x)


def test_lost_joints_are_held_and_what_was_lost_is_said(tmp_path, capsys):
    joints = standing(0)
    joints[6] = np.nan
    gone = np.full((25, 3), np.nan)
    files = {
        "S001C002P001R001A002": [[("7", joints)]] * 4,  # the same joint in every frame: the clip stays
        "S001C002P003R001A001": [[("7", standing(0))], [("7", joints)], [], [("7", standing(0))]],
        "S001C003P003R001A001": [[("7", gone)]] * 2,
    }
    for name, frames in files.items():
        (tmp_path / f"{name}.skeleton").write_text(written(frames))
    assert ntu.main([str(tmp_path), str(tmp_path / "ntu.npz")]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "5 of 175 joints were not seen (NaN or 0 on all axes)",
        "3 frames with nobody in them are left out",
        "1 clips with nobody in them are left out: S001C003P003R001A001",
    ]
    found = clips.read(tmp_path / "ntu.npz").clips
    assert [len(c.x) for c in found] == [4, 3]
    assert np.isfinite(found[0].x).all()
    np.testing.assert_allclose(found[1].x[1, 0], standing(0), atol=1e-6)  # held
    assert ntu.main([str(tmp_path), "/proc/none/ntu.npz"]) == 1
    (tmp_path / "S001C003P003R001A009.skeleton").write_bytes(b"\xff\xfe1\n")
    assert ntu.main([str(tmp_path), str(tmp_path / "ntu.npz")]) == 1
    assert "expected numbers in ASCII" in capsys.readouterr().err


@pytest.mark.parametrize(("persons", "expected", "beside"), [(1, [0], 9), (2, [0, 1], 4), (3, [0, 1, 2], 0), (5, [0, 1, 2], 0)])
def test_as_many_persons_as_asked_for_are_taken_and_the_others_counted(tmp_path, persons, expected, beside):
    """A third was left out without a word, also where three were asked for."""
    frames = [[(str(7 + k), standing(k)) for k in range(3)]] * 4 + [[("7", standing(0)), ("8", standing(1))], [("7", standing(0))]]
    (tmp_path / "S001C001P001R001A050.skeleton").write_text(written(frames))
    (found,), _ = table.read([tmp_path], None, persons)
    there = [k for k in range(found.x.shape[1]) if found.x[:, k].any()]
    assert there == expected
    np.testing.assert_allclose(found.x[0, there], [standing(k) for k in expected], atol=1e-6)
    said = f"S001C001P001R001A050.skeleton: {beside} bodies beside the {persons} of a frame are left out (--persons takes more)"
    assert found.notes == ((said,) if beside else ())
    _, notes = ntu.convert([tmp_path / "S001C001P001R001A050.skeleton"], frozenset())
    assert notes == ("4 bodies beside the 2 of a frame are left out",)
