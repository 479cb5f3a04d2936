"""Frames, and the files of a folder, are in the order of their numbers and times, however a file lists them."""

import json

import numpy as np
import pytest

from indrnn.model.data.formats import csv_table, openpose
from indrnn.model.data.formats.table import read


def numbered(folder, names):
    """Write a frame of one person, at k + 1, for the k-th name."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        people = [{"pose_keypoints_2d": [n for j in range(15) for n in (k + 1, j + 1, 1)]}]
        (folder / f"{name}_keypoints.json").write_text(json.dumps({"people": people}))


def test_frames_of_openpose_are_in_the_order_of_their_numbers(tmp_path):
    for form in ("frame_{}", "{}", "cam2_take_10_{}_rendered", "{:03}"):
        numbered(tmp_path / form.strip("{:}"), [form.format(k) for k in range(120)])
        (found,) = openpose.read(tmp_path / form.strip("{:}"), 1)
        assert found.x[:, 0, 0, 0].tolist() == list(range(1, 121))


def test_files_of_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    names = ["clip 2/take 7b", "clip 2/take 7b3", "clip 2/take 9", "clip 2/take 10", "clip 10/take 1"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.csv").write_text("head_x,head_y\n1,2\n")
    numbered(tmp_path / "clip 3", ["1"])
    found, _ = read([tmp_path], None, 1)
    assert [r.name for r in found] == ["take 7b3", "take 7b", "take 9", "take 10", "clip 3", "take 1"]


def table(tmp_path, head, rows, persons=2):
    (tmp_path / "a.csv").write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]))
    (found,) = csv_table.read(tmp_path / "a.csv", persons)
    return found


def heads(found):
    """Return where the head is in x, of each person in each frame."""
    return found.x[:, :, 0, 0].T.tolist()


@pytest.mark.parametrize("moment", ["frame", "time", "time_ms"])
def test_who_is_listed_first_and_comes_later_puts_no_frame_out_of_order(tmp_path, moment):
    rows = [(t, "b", 100 + t, 0) for t in range(5, 12)] + [(t, "a", t + 1, 0) for t in range(12)]
    found = table(tmp_path, f"{moment},person,head_x,head_y", rows)
    assert heads(found) == [[t + 1 for t in range(12)], [0] * 5 + [100 + t for t in range(5, 12)]]


def test_a_joint_that_is_seen_later_puts_no_frame_out_of_order(tmp_path):
    rows = [(t, "head", t, 0) for t in range(15, 30)] + [(t, "neck", t, 0) for t in range(30)]
    found = table(tmp_path, "frame,joint,x,y", rows)
    assert found.x[:, 0, 1, 0].tolist() == list(range(30))
    np.testing.assert_array_equal(found.x[:, 0, 0, 0], [np.nan] * 15 + list(range(15, 30)))


@pytest.mark.parametrize(("head", "step"), [("frame", 1), ("frame", 4), ("time", 0.04), ("time_ms", 40)])
def test_rows_are_sorted_by_frame_or_time(tmp_path, head, step):
    for order in (sorted(range(30), key=str), range(29, -1, -1)):
        found = table(tmp_path, f"{head},head_x,head_y", [(t * step, t, 0) for t in order])
        assert heads(found) == [list(range(30))]
        assert (found.hz, found.notes) == (None if head == "frame" else 25, ())


def test_frames_are_sorted_within_each_clip(tmp_path):
    rows = [(clip, t, 10 * t + k, 0) for k, clip in enumerate(("b", "a")) for t in (2, 0, 1)]
    (tmp_path / "a.csv").write_text("\n".join(["clip,frame,head_x,head_y", *(",".join(map(str, row)) for row in rows)]))
    assert [(r.name, heads(r)) for r in csv_table.read(tmp_path / "a.csv", 1)] == [("b", [[0, 10, 20]]), ("a", [[1, 11, 21]])]


def test_numbers_that_do_not_tell_the_rows_apart_leave_them_as_they_are(tmp_path):
    found = table(tmp_path, "frame,head_x,head_y", [(t, k, 0) for k, t in enumerate((0, 1, 2, 0, 1, 2))])
    assert heads(found) == [[0, 1, 2, 3, 4, 5]]
    assert found.notes == ("a: frame: neither rises nor tells all rows apart: they stay in the order of the file",)
    found = table(tmp_path, "time,head_x,head_y", [(t // 3, t, 0) for t in range(9)])
    assert (heads(found), found.notes) == ([list(range(9))], ())
    found = table(tmp_path, "frame,head_x,head_y", [(t, k, 0) for k, t in enumerate(("first", "second", "nan"))])
    assert (heads(found), found.notes) == ([[0, 1, 2]], ())


@pytest.mark.parametrize("step", [1, 3])
def test_frames_that_are_missing_by_their_numbers_are_frames_in_which_nothing_is_seen(tmp_path, step):
    there = [t for t in range(100) if not 20 <= t < 60]
    found = table(tmp_path, "frame,head_x,head_y", [(7 + step * t, t, 0) for t in there])
    np.testing.assert_array_equal(found.x[:, 0, 0, 0], [t if t in there else np.nan for t in range(100)])
    ends = f"from {7 + 19 * step} to {7 + 60 * step}"
    assert found.notes == (f"a: frame: 40 frames are missing, most of them {ends}; joints are not seen in them",)


def test_few_frames_of_a_long_recording_are_not_filled_up(tmp_path):
    found = table(tmp_path, "frame,head_x,head_y", [(t, t, 0) for t in (0, 1, 2, 3, 10**9, 10**9 + 1)])
    assert len(found.x) == 6
    assert found.notes[0].startswith("a: frame: 999,999,996 frames are missing, most of them from 3 to 1e+09; what is there follows on")
