"""Recordings that become one file of clips agree in joints, axes and unit, or are refused; those of another rate are brought to one."""

import json

import numpy as np
import pytest

from indrnn.frames import layouts
from indrnn.model.data.formats import predict_body
from indrnn.model.data.formats.recording import FormatError, Recording
from indrnn.model.data.formats.understood import Stated, understand

NAMES = layouts.KINECT20
POSE = np.random.default_rng(2).uniform(-0.5, 0.5, (20, 3))
MINE = ("left ear", "LeftHand", "tail", "nose")


def walk(frames=12, step=0.02, unit=1.0, joints=20):
    """Frames [T, 1, joints, 3] of a body that goes `step` metres to the side in each."""
    return (POSE[:joints] + step * np.arange(frames)[:, None, None] * np.array([1, 0, 0]))[:, None] * unit


def one(name, x=None, **more):
    return Recording(walk() if x is None else x, name, label="wave", **more)


def refused(*found, **stated):
    with pytest.raises(FormatError) as error:
        understand(found, Stated(**stated))
    return str(error.value)


def rate_of(*found, **stated):
    told = understand(found, Stated(**stated))
    return float(told.arrays["hz"]), dict(told.lines)["rate"], np.diff(told.arrays["off"]).tolist()


def test_bodies_of_two_layouts_are_not_taken_for_one(tmp_path):
    """They have the same joints in different orders, and came out as those of the first."""
    lines = [json.dumps({"sequences": [walk()[:, 0].tolist()], "layout": layout}) for layout in ("kinect20", "utd20")]
    (tmp_path / "sent.jsonl").write_text("\n".join(lines))
    found = predict_body.read(tmp_path / "sent.jsonl", 1)
    assert refused(*found) == (
        "sent 1: expected joint 0 'hip centre' (kinect20) as sent 0 has, got 'head' (utd20): convert them apart, or say --layout"
    )
    assert understand(found, Stated(layout="utd20")).names == layouts.UTD20


@pytest.mark.parametrize("names", [NAMES, MINE])
def test_joints_by_name_in_another_order_are_refused(names):
    x = walk(joints=len(names))
    said = refused(one("a", x, joint_names=names), one("b", x, joint_names=(names[1], names[0], *names[2:])))
    assert said.startswith("b: expected joint 0 ")
    assert said.endswith(": convert them apart, or say --layout")


def test_joints_without_names_are_not_taken_for_those_of_others():
    assert refused(one("a", joint_names=NAMES), one("b")).startswith("b: expected joint 0 'hip centre' as a has, got no name:")
    assert refused(one("a"), one("b", order="utd20")).startswith("b: expected joint 0 no name as a has, got 'head' (utd20):")
    assert refused(one("a", order="kinect20"), one("b", order="kinect25")).startswith("b: expected joint 0 'hip centre' (kinect20)")


def test_names_that_are_written_otherwise_and_a_layout_of_the_same_names_agree():
    written = tuple("".join(part.title() for part in name.replace("centre", "center").split()) for name in NAMES)
    for more in ({"joint_names": NAMES}, {"joint_names": written}):
        told = understand([one("a", order="kinect20"), one("b", **more)], Stated())
        assert (told.names, str(told.arrays["layout"])) == (NAMES, "kinect20")
    assert understand([one("a", walk(joints=4), joint_names=MINE)] * 2, Stated()).names == MINE


def test_two_units_are_not_taken_for_one():
    metres, millimetres, none = one("a", unit="m"), one("b", walk(unit=1000), unit="mm"), one("c")
    assert refused(metres, millimetres) == "b: expected the unit m as a has, got mm: convert them apart, or say --unit"
    assert refused(metres, none) == "c: expected the unit m as a has, got none: convert them apart, or say --unit"
    assert refused(none, metres) == "a: expected no unit as c has, got m: convert them apart, or say --unit"
    understand([metres, none], Stated(unit="m"))


def test_bodies_of_two_sizes_have_two_units_although_none_is_stated():
    said = refused(one("a"), one("b", walk(unit=1000)))
    assert said.startswith("b: expected bodies about as large as those of a, 0.45")
    assert said.endswith(": convert them apart, or say --unit")
    understand([one("a"), one("b", walk(unit=1000))], Stated(unit="m"))


def test_bodies_of_other_persons_and_numbers_that_stand_for_no_place_are_of_one_unit():
    lost = walk()
    lost[:, :, 4] = -9999
    hands = walk() * 0.05
    hands[:, :, 4:] = np.nan
    found = [one("a"), one("b", walk(unit=1.8)), one("c", walk() * 0), one("d", lost), one("e", hands)]
    assert dict(understand(found, Stated()).lines)["unit"].startswith("m, told from the bodies")


def test_pixels_of_which_one_file_says_so_are_pixels():
    flat = walk(unit=200)[..., :2]
    assert dict(understand([one("a", flat, unit="px"), one("b", flat)], Stated()).lines)["unit"].startswith("pixels, kept")


def test_rates_that_differ_as_clocks_do_are_one():
    hz, said, lengths = rate_of(one("a", hz=29.7), one("b", hz=30.1), one("c", hz=30.1))
    assert (hz, said, lengths) == (30.0, "30 Hz, by the files", [12, 12, 12])
    assert rate_of(one("a", hz=29.0), one("b", hz=30.9))[0] == 30.0


@pytest.mark.parametrize("slow_first", [True, False])
def test_a_recording_of_another_rate_is_brought_to_that_of_the_file(slow_first):
    slow, fast = one("slow", walk(10, 0.04), hz=15.0), one("fast", walk(40, 0.01), hz=60.0)
    hz, said, lengths = rate_of(*((slow, fast) if slow_first else (fast, slow)))
    assert (hz, lengths) == (15.0, [10, 10])
    assert said == "15 Hz, by the files; 1 of 60 Hz is brought to it"
    told = understand([fast, slow], Stated())
    np.testing.assert_allclose(told.arrays["x"][:10], told.arrays["x"][10:], atol=1e-6)


def test_the_rate_of_most_recordings_is_that_of_the_file():
    x = walk(16)
    x[6, 0, 3] = np.nan
    told = understand([one("a", hz=30.0), one("b", x, hz=15.0), one("c", hz=30.0)], Stated())
    assert np.diff(told.arrays["off"]).tolist() == [12, 31, 12]
    assert dict(told.lines)["rate"] == "30 Hz, by the files; 1 of 15 Hz is brought to it"
    brought = told.arrays["x"][12:43]
    np.testing.assert_allclose(np.diff(brought[:, 0, 0]), 0.01, atol=1e-5)
    assert np.flatnonzero(np.isnan(brought).any((1, 2))).tolist() == [11, 12, 13]  # between two frames where it is lost in either


def test_a_lost_joint_is_lost_in_no_frame_that_is_kept_as_it_is():
    x = walk(21)
    x[[3, 8], 0, 5] = np.nan
    told = understand([one("a", hz=15.0), one("b", hz=15.0), one("c", x, hz=30.0)], Stated())
    assert np.flatnonzero(np.isnan(told.arrays["x"][24:]).any((1, 2))).tolist() == [4]


def test_recordings_that_say_no_rate_are_counted():
    assert rate_of(one("a", hz=25.0), one("b"))[1] == "25 Hz, by the files; 1 that says none is taken to be of it"
    assert rate_of(one("a"), one("b"))[1] == "30 Hz, taken, for the files say none: --hz says another"


def test_a_stated_rate_is_that_of_all():
    assert rate_of(one("a", hz=15.0), one("b", hz=60.0), hz=20.0) == (20.0, "20 Hz, as --hz says", [12, 12])


def test_a_rate_that_no_camera_has_is_refused():
    assert refused(one("a", hz=30.0), one("b", hz=30.0), one("c", hz=0.0)).startswith("c: expected a rate from 1 to 1000 Hz, got 0:")
