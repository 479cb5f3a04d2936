"""Recordings of other tools become the clips that they are, and what was understood of them is shown."""

import base64
import contextlib
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indrnn.__main__ import main
from indrnn.frames import layouts
from indrnn.model.data import clips
from indrnn.model.data.formats import matlab, pickles, predict_body
from indrnn.model.data.formats.recording import FormatError, seats

# Both written by SciPy 1.17's savemat with do_compression.
UTD = (
    "TUFUTEFCIDUuMCBNQVQtZmlsZSBQbGF0Zm9ybTogcG9zaXgsIENyZWF0ZWQgb246IFNhdCBOb3YgMjggMTE6NDA6MTUgMjAyNgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABSU0PAAAAowAAAHic42NgYDjAzsDABqQ5GCA0CLACMQ8QiwAxMxCzQMUZoWpS4ouzU3MYGDiB7AZ2qCTDh/0Q+oE9hD4A"
    "5b+A0TBxKP0AKv4Byr8BpS9Axd9A6Sf2DCjgCUweph6mH2YeDnfQ2z5S/U1v+0j190CHDyH3DnT4EPT3AKV7Yv094OFDwL0DHT6E/D1Y8ikudwx0+BBy70CHDyF/D5Z8iu"
    "kOAAQ5OOg="
)
OWN = (
    "TUFUTEFCIDUuMCBNQVQtZmlsZSBQbGF0Zm9ybTogcG9zaXgsIENyZWF0ZWQgb246IFNhdCBOb3YgMjggMTE6NDA6MTUgMjAyNgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABSU0PAAAAMwAAAHic42NgYIhgZGBgA9IcQMzOAAGsQMzDABFnAWJmqDgjEFZA1SkwgkQa7EcxbgwAs3029Q8AAAAwAAAA"
    "eJzjY2Bg8ABiNiDmAGI+BghghfIZgZgZTDMz5KelMfAA2RIMCMAMpdmgNABVAAHwDwAAACwAAAB4nONjYGBwAGI2IOaA0iDACuUzAjETmGZkqATSnEAswAADH+yhDAcAOB"
    "ECdg8AAABAAAAAeJzjY2BgWADEbEDMAcSMDBDAisRngtLsQJyck1hcnFrMwAdkGyDpY8GijwXJPAEgrzyxLJUcfQWlxRkAg9EIJQ8AAAAmAAAAeJzjY2BgsABiNiDmgNIg"
    "wArlM8IxE0NGFQMDJ1QcAuwcACoyAd4="
)
T = 12


def body(order: str, unit: float = 1.0) -> np.ndarray:
    """Return frames [T, J, 3] of a person in this project's axes, whose head is up and whose left is at negative x, 3 m away."""
    rng = np.random.default_rng(3)
    heights = {"head": 0.75, "nose": 0.72, "eye": 0.76, "ear": 0.74, "mouth": 0.68, "neck": 0.6, "shoulder": 0.5, "clavicle": 0.55}
    heights |= {"elbow": 0.2, "wrist": 0.0, "hand": -0.05, "thumb": -0.05, "pinky": -0.08, "index": -0.08, "hip": 0.0, "pelvis": 0.0}
    heights |= {"knee": -0.45, "ankle": -0.85, "foot": -0.9, "heel": -0.9, "toe": -0.92, "spine": 0.25}
    rows = []
    for name in layouts.ORDERS[order].names:
        y = next((h for part, h in heights.items() if part in name), 0.1)
        x = 0.0 if not name.startswith(("left", "right")) else (-0.2 if name.startswith("left") else 0.2)
        rows.append((x, y + 0.02 * rng.random(), 3 + 0.1 * rng.random()))
    x = np.array(rows) + 0.01 * np.arange(T)[:, None, None]
    return x * unit


def converted(tmp_path: Path, capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[clips.ClipSet, dict[str, str]]:
    """Convert, and return the clips of the file and what was said, by its first words."""
    out = tmp_path / "out.npz"
    assert main(["convert", *map(str, argv), str(out), "--force"]) == 0
    said = capsys.readouterr().out
    lines = dict(line.split(None, 1) for line in said.splitlines() if line[:1].isalpha() and " " in line)
    assert "from the front" in said or "--svg" in argv
    return clips.read(out), lines


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    assert main(["convert", *map(str, argv)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_utd_mhads_matlab_files(tmp_path, capsys):
    (tmp_path / "a3_s2_t1_skeleton.mat").write_bytes(base64.b64decode(UTD))
    found, said = converted(tmp_path, capsys, tmp_path / "a3_s2_t1_skeleton.mat", "--axes=x,y,z")
    x = (np.arange(20 * 3 * 4).reshape(20, 3, 4) % 17 - 8) / 8
    with np.load(tmp_path / "out.npz") as d:
        np.testing.assert_array_equal(d["x"], x.transpose(2, 0, 1))
    assert (found.classes, found.clips[0].subject, found.hz, found.joint_names) == (("a03",), 2, 30.0, layouts.UTD20)
    assert said["joints"].startswith("20: utd20")


def test_matlab_files_with_x_off_and_y(tmp_path, capsys):
    (tmp_path / "mine.mat").write_bytes(base64.b64decode(OWN))
    found = matlab.load(tmp_path / "mine.mat")
    assert found["classes"] == ["wave", "push"]
    assert main(["convert", str(tmp_path / "mine.mat"), str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as d:
        assert (d["off"].tolist(), d["y"].tolist(), d["classes"].tolist(), float(d["hz"])) == ([0, 3, 6], [1, 0], ["push", "wave"], 30.0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "got an empty file"),
        (b"MATLAB 7.3 MAT-file" + bytes(600), "got one of 7.3, which is HDF5: in MATLAB save(…, '-v7')"),
        (b"\x00\x00\x00\x00" * 60, "another kind of file, or one of version 4"),
        (base64.b64decode(UTD)[:220], "damaged or cut off"),
        (base64.b64decode(UTD)[:128], "found none that are arrays"),
    ],
)
def test_other_matlab_files_are_refused_in_a_sentence(tmp_path, capsys, content, said):
    (tmp_path / "a.mat").write_bytes(content)
    assert said in refused(capsys, tmp_path / "a.mat", tmp_path / "out.npz")


def test_any_byte_of_a_matlab_file_may_be_wrong(tmp_path):
    good = base64.b64decode(OWN)
    for at in range(124, len(good), 3):
        for byte in (0, 1, 255):
            (tmp_path / "a.mat").write_bytes(good[:at] + bytes([byte]) + good[at + 1 :])
            try:
                matlab.load(tmp_path / "a.mat")
            except FormatError:
                continue


def test_openpose_folders_are_clips_with_the_label_of_their_folder(tmp_path, capsys):
    x = body("openpose25")[..., :2] * (-200, -200) + (600, 500)  # pixels: the picture's x is a mirror of ours, its y down
    x[4, 7] = 0
    for name in ("wave/one", "wave/two", "push/one"):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        for t in range(T):
            confidence = (x[t] != 0).any(1, keepdims=True) * 0.8
            people = [{"pose_keypoints_2d": np.concatenate([x[t], confidence], 1).ravel().tolist()}]
            (folder / f"v_{t:012}_keypoints.json").write_text(json.dumps({"version": 1.3, "people": people if t != 2 else []}))
    found, said = converted(tmp_path, capsys, tmp_path / "in", "--hz", 25)
    assert (found.classes, [c.label for c in found.clips], found.flat, found.hz) == (("push", "wave"), [0, 1, 1], True, 25.0)
    assert said["lost"].startswith("3 of 825 joints")
    y = found.clips[0].x[0, 0, :, 1]
    assert y[0] > y[8] > y[11]  # nose, mid hip, right ankle
    assert not found.clips[0].x[2].any()
    assert found.clips[0].x[0, 0, 5, 0] < found.clips[0].x[0, 0, 2, 0]  # left shoulder, right shoulder


def landmarks(x: np.ndarray) -> list[dict[str, float]]:
    return [{"x": a, "y": b, "z": c, "visibility": 0.9} for a, b, c in x.tolist()]


@pytest.mark.parametrize("form", ["tasks", "solutions", "lists", "lines"])
def test_mediapipes_landmarks_in_several_forms(tmp_path, capsys, form):
    x = body("mediapipe33") * (-1, -1, 1)
    if form == "tasks":
        frames = [{"timestamp_ms": 40 * t, "landmarks": [landmarks(f * 0.1)], "worldLandmarks": [landmarks(f)]} for t, f in enumerate(x)]
        text = json.dumps({"frames": frames})
    elif form == "solutions":
        text = json.dumps([{"time": 0.04 * t, "pose_world_landmarks": {"landmark": landmarks(f)}} for t, f in enumerate(x)])
    elif form == "lists":
        text = json.dumps([{"t": 0.04 * t, "world": f.tolist()} for t, f in enumerate(x)])
    else:
        text = "\n".join(json.dumps({"timestamp_us": 40_000 * t, "world_landmarks": landmarks(f)}) for t, f in enumerate(x))
    (tmp_path / "wave_3.json").write_text(text)
    found, said = converted(tmp_path, capsys, tmp_path / "wave_3.json")
    np.testing.assert_allclose(found.clips[0].x[:, 0], body("mediapipe33"), atol=1e-5)
    assert (found.hz, found.classes) == (25.0, ("wave",))
    assert said["joints"].startswith("33: mediapipe33")


def test_azure_kinects_millimetres(tmp_path, capsys):
    x = body("azure32", 1000) * (-1, -1, 1)
    frames = [
        {"frame_id": t, "timestamp_usec": 1_000_000 + 33_333 * t, "bodies": [{"body_id": 2, "joint_positions": f.tolist()}]}
        for t, f in enumerate(x)
    ]
    (tmp_path / "jump-01.json").write_text(json.dumps({"frames": frames, "joint_names": []}))
    found, said = converted(tmp_path, capsys, tmp_path / "jump-01.json")
    np.testing.assert_allclose(found.clips[0].x[:, 0], body("azure32"), atol=1e-5)
    assert (found.hz, found.classes, found.unit) == (30.0, ("jump",), 1.0)
    assert said["unit"].startswith("mm, written as metres")


HEADERS = [
    lambda j, a: f"{j.replace(' ', '_')}_{a}",
    lambda j, a: "".join(w.title() for w in j.split()) + a.upper(),
    lambda j, a: f"{a}_{j.replace(' ', '_')}",
    lambda j, a: f"{j.replace('centre', 'center')}.{a}",
]


def test_what_was_sent_to_predict_becomes_the_clips_that_it_was(tmp_path, capsys):
    x = body("kinect20")
    clip = x.tolist()
    clip[3][5] = None
    sent = {"sequences": [clip, x[:7].tolist()], "model": "action", "layout": "kinect20", "hz": 25, "top_k": 3}
    (tmp_path / "wave 1.json").write_text(json.dumps(sent))
    found, said = converted(tmp_path, capsys, tmp_path / "wave 1.json")
    assert ([len(c.x) for c in found.clips], found.classes, found.hz) == ([T, 7], ("wave",), 25.0)
    assert said["joints"].startswith("20: kinect20")
    assert said["lost"].startswith("1 of 380 joints")
    assert "POST /predict" in said["read"]
    np.testing.assert_allclose(found.clips[1].x[:, 0], x[:7], atol=1e-5)


def test_a_body_says_unit_axes_persons_lost_joints_and_times(tmp_path, capsys):
    x = body("utd20", 1000) * (-1, -1, 1)
    x[4, 7] = 0
    two = np.stack([x, np.zeros_like(x)], 1).tolist()
    two[5][1] = x[5].tolist()
    sent = {"sequences": [two], "unit": "mm", "axes": "-x -y z", "lost": "zero", "layout": "utd20", "t": [[0.05 * t for t in range(T)]]}
    (tmp_path / "wave.json").write_text(json.dumps(sent))
    found, said = converted(tmp_path, capsys, tmp_path / "wave.json")
    assert (found.hz, found.clips[0].x.shape) == (20.0, (T, 2, 20, 3))
    assert said["unit"].startswith("mm")
    assert said["axes"].startswith("x, y, z are -x, -y, z of the file")
    assert said["lost"].startswith("1 of 260 joints")
    np.testing.assert_allclose(found.clips[0].x[0, 0], body("utd20")[0], atol=1e-5)


def test_steps_of_a_session_are_one_clip_and_one_sent_twice_counts_once(tmp_path, capsys):
    x = body("utd20")
    pieces = [(1, x[:4]), (2, x[4:9]), (2, x[4:9]), (3, x[9:])]
    lines = [json.dumps({"sequences": [p.tolist()], "session_id": "s", "step": n, "layout": "utd20"}) for n, p in pieces]
    (tmp_path / "sent.jsonl").write_text("\n".join([*lines, json.dumps({"sequences": [x.tolist()], "layout": "utd20"})]))
    found, _ = converted(tmp_path, capsys, tmp_path / "sent.jsonl")
    assert len(found.clips) == 2
    for clip in found.clips:
        np.testing.assert_allclose(clip.x[:, 0], x, atol=1e-5)


def steps_of(*bodies, **all_of):
    return "\n".join(json.dumps({"session_id": "s", **all_of, **one}) for one in bodies)


def test_steps_of_a_session_are_joined_in_the_order_of_their_numbers(tmp_path):
    clips_then = [{"sequences": [[[[n, n, n]]]], "step": n} for n in (2, 10, 1)]
    (tmp_path / "sent.jsonl").write_text(steps_of(*clips_then))
    (found,) = predict_body.read(tmp_path / "sent.jsonl", 1)
    assert found.x[:, 0, 0, 0].tolist() == [1, 2, 10]


def test_the_rate_of_a_session_is_that_of_the_times_of_all_its_steps(tmp_path):
    frames = [{"sequences": [[[[n, n, n]]]], "step": n, "t": [0.04 * n]} for n in range(5)]
    (tmp_path / "sent.jsonl").write_text(steps_of(*frames))
    (found,) = predict_body.read(tmp_path / "sent.jsonl", 1)
    assert (found.hz, found.notes) == (25.0, ())
    del frames[3]["t"]
    (tmp_path / "sent.jsonl").write_text(steps_of(*frames))
    (found,) = predict_body.read(tmp_path / "sent.jsonl", 1)
    assert found.hz is None
    assert "times (t) that do not fit the frames are not used" in found.notes[0]


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"unit": "m"}, {"unit": "cm"}, "expected unit m in all steps of a session as in its first, got cm"),
        ({}, {"unit": "cm"}, "expected unit null in"),
        ({}, {"axes": "-x y z"}, "expected axes x y z in"),
        ({"layout": "utd20"}, {"layout": "kinect20"}, "expected layout utd20 in"),
        ({"layout": "mine"}, {"layout": "yours"}, "expected layout mine in"),
        ({"hz": 30}, {"hz": 60}, "expected hz 30 in"),
    ],
)
def test_steps_of_a_session_that_are_of_different_kinds_are_refused(tmp_path, one, other, said):
    clip = {"sequences": [[[[1, 2, 3]] * 20] * 2]}
    (tmp_path / "sent.jsonl").write_text(steps_of({**clip, **one}, {**clip, **other}))
    with pytest.raises(FormatError, match=re.escape(said)):
        predict_body.read(tmp_path / "sent.jsonl", 1)


@pytest.mark.parametrize("joint", [[True, 2, 3], ["1", 2, 3], [1, 2, "3e0"], "123"])
def test_booleans_and_texts_are_no_places(tmp_path, joint):
    (tmp_path / "a.json").write_text(json.dumps({"sequences": [[[[1, 2, 3], joint]]]}))
    with pytest.raises(FormatError, match=r"expected 2 joints of 3 numbers or null"):
        predict_body.read(tmp_path / "a.json", 1)


@pytest.mark.parametrize("t", [["0", "1"], [False, True], "01"])
def test_booleans_and_texts_are_no_times(tmp_path, t):
    (tmp_path / "a.json").write_text(json.dumps({"sequences": [[[[1, 2, 3]]] * 2], "t": t}))
    (found,) = predict_body.read(tmp_path / "a.json", 1)
    assert found.hz is None
    assert "times (t) that do not fit the frames are not used" in found.notes[0]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"sequences": [[[0.1, 0.2], [0.3, 0.4]]]}, "sequences[0]: expected a clip of joints, got rows of numbers: `indrnn train tensor`"),
        ({"sequences": []}, "expected a list of clips, got an empty one"),
        ({"sequences": ["to be"]}, "sequences[0]: expected a clip [T][J][3] or [T][P][J][3], got a text"),
        ({"sequences": [[[[1, 2, 3]], [[1, 2]]]]}, "sequences[0][1]: expected 1 joints of 3 numbers or null as in the others"),
        ({"sequences": [[[[1, 2, 3]]], [[[1, 2, 3]]]], "session_id": "s"}, "expected one clip, as a session takes, got 2"),
        ({"sequences": [[[[1, 2, 3, 4]]]]}, "expected joints of 2 or 3 numbers, got 4"),
        ({"sequences": [[[[1, 2, 3]] * 3]], "axes": "up"}, "expected axes such as '-x -y z', got 'up'"),
        ({"sequences": [[[[1, 2, 3]] * 3]], "axes": 3}, "axes: expected a text such as"),
        ({"sequences": [[None, [None]]]}, "expected a clip"),
        ({"model": "chars", "sequence": "to be"}, "expected frames with 33 landmarks"),
    ],
)
def test_a_body_that_holds_no_clips_is_refused_in_a_sentence(tmp_path, capsys, sent, said):
    (tmp_path / "a.json").write_text(json.dumps(sent))
    assert said in refused(capsys, tmp_path / "a.json", tmp_path / "out.npz")


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=12,
)
OPTIONS = st.dictionaries(st.sampled_from(["layout", "hz", "t", "unit", "axes", "lost", "session_id", "step"]), JSONS)


@given(OPTIONS, st.lists(JSONS, max_size=2) | JSONS | st.just([[[[1, 2, 3]] * 2] * 3]))
def test_a_body_of_any_shape_is_read_or_refused_and_nothing_else_happens(tmp_path_factory, options, sequences):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps({**options, "sequences": sequences}))
    with contextlib.suppress(FormatError):
        assert all(r.x.ndim == 4 for r in predict_body.read(path, 2))


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_with_a_header(tmp_path, capsys, header, delimiter):
    x, names = body("kinect25", 100), layouts.ORDERS["kinect25"].names
    columns = ["frame", "time_ms", *(header(j, a) for j in names for a in "xyz")]
    rows = [[str(t), str(50 * t), *(f"{v:.4f}" for v in f.ravel())] for t, f in enumerate(x)]
    rows[3][2:5] = ["", "nan", ""]
    lines = [delimiter.join(r).replace(".", ",") if delimiter == ";" else delimiter.join(r) for r in rows]
    (tmp_path / "sit down_2.csv").write_text("\n".join([delimiter.join(columns), *lines]))
    found, said = converted(tmp_path, capsys, tmp_path / "sit down_2.csv")
    expected = body("kinect25")
    expected[3, 0] = expected[2, 0]
    np.testing.assert_allclose(found.clips[0].x[:, 0], expected, atol=1e-4)
    assert (found.classes, found.hz, found.joint_names) == (("sit down",), 20.0, names)
    assert said["joints"] == "25: kinect25 by the names of the joints"
    assert said["unit"].startswith("cm, told from the bodies")
    assert said["lost"].startswith("1 of 300 joints")


def test_a_table_of_several_clips_with_labels_and_a_row_a_joint(tmp_path, capsys):
    names = list(layouts.ORDERS["kinect20"].names)
    shuffled = names[::-1]
    lines = ["clip,label,subject,frame,joint,x,y,z"]
    for clip, label in (("c1", "wave"), ("c2", "push")):
        for t, f in enumerate(body("kinect20")):
            lines += [f"{clip},{label},{clip[1]},{t},{j},{','.join(map(str, f[names.index(j)]))}" for j in shuffled]
    (tmp_path / "all.csv").write_text("\n".join(lines))
    found, said = converted(tmp_path, capsys, tmp_path / "all.csv")
    assert [(c.name, found.classes[c.label], c.subject) for c in found.clips] == [("c1", "wave", 1), ("c2", "push", 2)]
    index = [names.index(n) for n in layouts.UTD20]
    np.testing.assert_allclose(found.clips[1].x[:, 0], body("kinect20")[:, index], atol=1e-5)
    assert said["joints"] == "20: utd20 by the names of the joints, its joints put into that order"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty file"),
        ("a_x,a_y\n", "one line"),
        ("1,2\n3,4\n", "expected a header"),
        ("a,b\n1,2\n", "expected columns with the coordinates of joints"),
        ("head_x,head_y\n1,2\n1\n", "expected 2 columns in each row as the header has, got 1 in row 3"),
        ("head_x,head_y\n1,two\n", "head_y: expected a number in row 2, got 'two'"),
        ("head_x,head_y,label\n1,2,a\n1,2,b\n", "expected one label a clip, got a, b"),
        ("joint,x,y\nhead,1,2\nfoot,1,2\n", "expected a column frame or time beside joint"),
    ],
)
def test_a_table_that_is_none_is_refused_in_a_sentence(tmp_path, capsys, text, said):
    (tmp_path / "a.csv").write_text(text)
    assert said in refused(capsys, tmp_path / "a.csv", tmp_path / "out.npz")


def annotations() -> dict[str, object]:
    one = body("kinect25")
    names = [f"S001C00{1 + k % 3}P00{1 + k}R001A00{1 + k % 2}" for k in range(4)]
    each = [
        {"frame_dir": n, "label": np.int64(k % 2), "total_frames": T, "keypoint": np.stack([one, 0 * one]).astype(np.float32)}
        for k, n in enumerate(names)
    ]
    return {"split": {"xsub_train": names[:2], "xsub_val": set(names[2:])}, "annotations": each}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_pyskl_are_read_without_running_them(tmp_path, capsys, protocol):
    (tmp_path / "ntu.pkl").write_bytes(pickle.dumps(annotations(), protocol))
    found, said = converted(tmp_path, capsys, tmp_path / "ntu.pkl")
    np.testing.assert_allclose(found.clips[0].x[:, 0], body("kinect25"), atol=1e-5)
    assert [(c.label, c.subject, c.view) for c in found.clips] == [(0, 1, 1), (1, 2, 2), (0, 3, 3), (1, 4, 1)]
    assert said["persons"].startswith("1 in a frame; 4 subjects")
    with np.load(tmp_path / "out.npz") as d:
        assert d["xsub_val"].tolist() == [False, False, True, True]


def test_coco_keypoints_of_a_pickle_are_pixels(tmp_path, capsys):
    x = (body("coco17")[..., :2] * (-200, -200) + (600, 500))[None]
    score = np.ones(x.shape[:-1])
    x[0, 4, 9] = score[0, 4, 9] = 0
    one = {
        "frame_dir": "v1",
        "label": 7,
        "keypoint": x.astype(np.float16),
        "keypoint_score": score.astype(np.float16),
        "img_shape": (1080, 1920),
    }
    (tmp_path / "k400.pkl").write_bytes(pickle.dumps([one]))
    found, said = converted(tmp_path, capsys, tmp_path / "k400.pkl")
    assert (found.flat, found.classes, said["joints"].split(",")[0]) == (True, ("7",), "17: coco17")
    assert said["lost"].startswith("1 of 204 joints")


class Evil:
    """Its pickle would run a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_would_run_something_runs_nothing(tmp_path, capsys):
    ran = tmp_path / "ran"
    for k, content in enumerate(
        ([Evil(ran)], {"annotations": [{"keypoint": Evil(ran)}]}, annotations() | {"more": np.array([Evil(ran)], object)})
    ):
        (tmp_path / f"{k}.pkl").write_bytes(pickle.dumps(content))
        assert "system in it, which is not run or opened" in refused(capsys, tmp_path / f"{k}.pkl", tmp_path / "out.npz")
    for name in (b"cbuiltins\neval\n(V1\ntR.", b"cindrnn.model.data.formats.pickles\nload\n.", b"cnumpy\nload\n.", b"Ppid\n."):
        (tmp_path / "a.pkl").write_bytes(name)
        with pytest.raises(FormatError, match="not run or opened"):
            pickles.load(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(annotations())[:-40])
    with pytest.raises(FormatError, match="damaged or cut off"):
        pickles.load(tmp_path / "a.pkl")
    assert not ran.exists()


def test_ntus_skeleton_files_in_a_folder(tmp_path, capsys):
    lines = [str(T)]
    for t, f in enumerate(body("kinect25")):
        lines += ["1", "7 0 1 1 1 1 0 0.05 -0.02 2", "25"]
        lines += [f"{'nan' if (t, j) == (5, 3) else a} {b} {c} 0 0 0 0 0 0 0 0 2" for j, (a, b, c) in enumerate(f.tolist())]
    for name in ("S001C002P003R002A013", "S001C001P004R002A014"):
        (tmp_path / f"{name}.skeleton").write_text("\n".join(lines))
    found, said = converted(tmp_path, capsys, tmp_path)
    assert [(found.classes[c.label], c.subject, c.view) for c in found.clips] == [("A014", 4, 1), ("A013", 3, 2)]
    assert said["lost"].startswith("2 of 600 joints")
    assert len(found.clips[0].x) == T


@pytest.mark.parametrize("unit", [1000.0, 100.0, 1.0])
@pytest.mark.parametrize(("up", "axes"), [("y", "x y z"), ("z", "x -z y"), ("-y", "-x -y z"), ("x", "y -x z")])
def test_whatever_is_up_and_whatever_the_unit_the_clips_are_the_same(tmp_path, capsys, unit, up, axes):
    index, sign = ["xyz".index(w[-1]) for w in axes.split()], [-1 if w[0] == "-" else 1 for w in axes.split()]
    x = body("kinect25", unit)[..., index] * sign
    np.savez(tmp_path / "a.npz", x=x.astype(np.float32), joint_names=np.array(layouts.ORDERS["kinect25"].names))
    found, said = converted(tmp_path, capsys, tmp_path / "a.npz")
    np.testing.assert_allclose(found.clips[0].x[:, 0], body("kinect25"), atol=1e-5)
    assert ("turned" in said["axes"]) == (up != "y")
    assert said["axes"].split("; ")[1].startswith(f"{up} was up there" if up != "y" else "y is up")


def test_labels_subjects_and_views_come_from_names_by_a_pattern(tmp_path, capsys):
    for name in ("s1_wave_c2", "s2_push_c1"):
        np.save(tmp_path / f"{name}.npy", body("kinect20"))
    pattern = r"(?P<subject>s\d)_(?P<label>[a-z]+)_(?P<view>c\d)"
    found, said = converted(tmp_path, capsys, tmp_path, "--label", pattern, "--layout", "kinect20", "--hz", 15)
    assert [(c.subject, found.classes[c.label], c.view) for c in found.clips] == [(1, "wave", 2), (2, "push", 1)]
    assert (found.hz, said["rate"]) == (15.0, "15 Hz, as --hz says")


def test_the_picture_may_be_an_svg_with_the_joints_names(tmp_path, capsys):
    np.save(tmp_path / "a.npy", body("kinect20"))
    _, said = converted(tmp_path, capsys, tmp_path / "a.npy", "--layout", "kinect20", "--svg", tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text.count("<circle") == 40
    assert "<title>0: hip centre</title>" in text
    assert said["picture"] == str(tmp_path / "a.svg")


def test_what_is_asked_wrongly_is_refused_in_a_sentence(tmp_path, capsys):
    np.save(tmp_path / "a.npy", body("kinect20"))
    np.save(tmp_path / "b.npy", body("kinect25"))
    (tmp_path / "empty").mkdir()
    a, out = tmp_path / "a.npy", tmp_path / "out.npz"
    assert "kinect25 has 25 joints, the recording has 20; 20 joints have kinect20" in refused(capsys, a, out, "--layout", "kinect25")
    assert "expected --layout as one of utd20" in refused(capsys, a, out, "--layout", "mine")
    assert "expected --axes such as" in refused(capsys, a, out, "--axes=x,x,z")
    assert "expected --unit as one of" in refused(capsys, a, out, "--unit", "ells")
    assert "expected 20 joints of 3 numbers as a 0 has, got 25" in refused(capsys, a, tmp_path / "b.npy", out)
    assert "found none" in refused(capsys, tmp_path / "empty", out)
    assert "there is no such file or folder" in refused(capsys, tmp_path / "none.mat", out)
    assert "expected a file to write that ends in .npz" in refused(capsys, a, tmp_path / "out.csv")
    (tmp_path / "a.bin").write_bytes(b"x")
    assert "expected a name that ends in one of .mat" in refused(capsys, tmp_path / "a.bin", out)
    out.write_bytes(b"mine")
    assert "--force replaces it" in refused(capsys, a, out)
    assert out.read_bytes() == b"mine"


@pytest.mark.parametrize("suffix", [".mat", ".skeleton", ".json", ".jsonl", ".csv", ".pkl", ".npz", ".npy"])
def test_whatever_is_in_a_file_the_command_says_why_not(tmp_path, capsys, suffix):
    texts = ("", "{}", "[]", "null", '{"frames": [1, {"bodies": 3}]}', '{"people": 1}', "1\n1\n", "[" * 5000, "x,y\n" * 3)
    noise = (b"\x00", b"\xff\xfea\x00", bytes(range(256)), b"\x80\x04.", b"PK\x03\x04", b"\x93NUMPY")
    bodies = '{"frames": [{"bodies": [{"joint_positions": "x"}]}]}'
    for content in (*map(str.encode, (*texts, bodies)), *noise):
        (tmp_path / f"a{suffix}").write_bytes(content)
        said = refused(capsys, tmp_path / f"a{suffix}", tmp_path / "out.npz")
        assert f"a{suffix}" in said or str(tmp_path) in said
    assert not (tmp_path / "out.npz").exists()


def test_bodies_keep_their_seats_whatever_their_order():
    one = np.array([[1.0, 1], [1, 2], [2, 1], [2, 2]])
    two = one + np.array([10, 0])
    x, left_over = seats([[one, two], [two + 0.1, one + 0.1], [one + 0.2], [two + 0.3, one + 0.3, one + 5]], 2)
    assert left_over == 1
    np.testing.assert_allclose(x[:, 0, 0, 0], [1, 1.1, 1.2, 1.3])
    np.testing.assert_allclose(x[:, 1, 0, 0], [11, 11.1, 0, 11.3])


def test_a_subject_of_too_many_digits_is_refused_in_a_sentence(tmp_path, capsys):
    np.save(tmp_path / f"s{'7' * 30}_wave.npy", body("kinect20"))
    argv = (tmp_path, tmp_path / "out.npz", "--label", r"s(?P<subject>\d+)", "--layout", "kinect20")
    assert refused(capsys, *argv).startswith("expected subject and view of at most 18 digits, got 777")
