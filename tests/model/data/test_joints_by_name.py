"""Joints that have names are known by them, and by their numbers where these are the names, whatever is said of their order."""

import numpy as np
import pytest

from indrnn.frames import layouts
from indrnn.model.data.formats import csv_table
from indrnn.model.data.formats.recording import FormatError, Recording
from indrnn.model.data.formats.understood import Stated, understand

POSE = np.random.default_rng(2).uniform(-0.5, 0.5, (20, 3))
BY_TEXT = sorted(range(20), key=str)  # 0, 1, 10, 11, …


def body(names, places=None):
    x = np.tile(POSE if places is None else places, (4, 1, 1, 1))
    return Recording(x, "a", label="wave", joint_names=tuple(names), unit="m", axes="x y z")


def table(tmp_path, lines):
    (tmp_path / "a.csv").write_text("\n".join(",".join(map(str, line)) for line in lines))
    (found,) = csv_table.read(tmp_path / "a.csv", 1)
    return understand([found], Stated("utd20", "m", "x y z"))


@pytest.mark.parametrize("layout", ["kinect20", "utd20"])
@pytest.mark.parametrize("written", [str, str.title, lambda n: n.replace(" ", "_")])
def test_joints_with_the_names_of_a_layout_are_put_into_its_order(layout, written):
    """The places of the head were written as those of the hip centre."""
    told = understand([body(map(written, layouts.UTD20)), body(layouts.KINECT20, POSE[::-1])], Stated(layout))
    order = layouts.ORDERS[layout].names
    np.testing.assert_allclose(told.arrays["x"][0], [POSE[layouts.UTD20.index(n)] for n in order], atol=1e-6)
    np.testing.assert_allclose(told.arrays["x"][4], [POSE[::-1][layouts.KINECT20.index(n)] for n in order], atol=1e-6)
    assert told.names == order
    assert dict(told.lines)["joints"].endswith(", by the names of the joints")


def test_a_joint_that_is_called_as_another_of_the_layout_is_refused():
    with pytest.raises(FormatError) as error:
        understand([body([*layouts.UTD20[:-1], "tail"])], Stated("kinect20"))
    assert str(error.value) == (
        "a: expected the joints of kinect20, whose joint 0 is 'hip centre', got 'head' by the file's own names, "
        "which are not all of that layout: leave out --layout, or rename them"
    )


def test_names_that_no_joint_of_the_layout_has_elsewhere_may_be_any():
    told = understand([body(["head", "mid shoulder", *(f"marker {chr(97 + j)}" for j in range(18))])], Stated("utd20"))
    np.testing.assert_allclose(told.arrays["x"][0], POSE, atol=1e-6)
    assert told.names == layouts.UTD20


@pytest.mark.parametrize("first", [0, 1])
def test_joints_that_are_numbers_are_in_the_order_of_the_numbers(tmp_path, first):
    rows = [("frame", "joint", "x", "y", "z"), *((t, j + first, *POSE[j]) for t in range(3) for j in BY_TEXT)]
    assert table(tmp_path, rows).arrays["x"][0] == pytest.approx(POSE, abs=1e-6)
    for form in ("{1}{0}", "{0}_{1}", "joint{0}{1}"):
        columns = [form.format(j + first, a) for j in BY_TEXT for a in "xyz"]
        assert table(tmp_path, [columns, *[POSE[BY_TEXT].ravel().tolist()] * 3]).arrays["x"][0] == pytest.approx(POSE, abs=1e-6)


def test_numbered_joints_are_in_their_order_without_a_layout_too():
    told = understand([body([f"joint {j}" for j in BY_TEXT], POSE[BY_TEXT])], Stated())
    np.testing.assert_allclose(told.arrays["x"][0], POSE, atol=1e-6)
    assert told.names == tuple(f"joint {j}" for j in range(20))


def test_names_with_marks_are_those_of_their_layout():
    x = np.random.default_rng(3).uniform(-0.5, 0.5, (4, 1, 31, 3))
    told = understand([Recording(x[:, :, ::-1], "a", label="wave", joint_names=layouts.HDM31[::-1], unit="m", axes="x y z")], Stated())
    np.testing.assert_allclose(told.arrays["x"], x[:, 0], atol=1e-6)
    assert str(told.arrays["layout"]) == "hdm31"
