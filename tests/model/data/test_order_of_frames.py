"""Frames, and the files of a folder, are in the order of their numbers and times, however a file lists them."""

import json

from indrnn.model.data.formats import openpose
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
