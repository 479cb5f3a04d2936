"""Tables are read as spreadsheets and other programs write them, with their commas, units and columns beside places."""

import numpy as np
import pytest

from indrnn.model.data.formats import csv_table
from indrnn.model.data.formats.recording import FormatError

PLACES = np.array([[0.5, -1.25, 1.5e-05], [0.75, -1.5, 3.0], [-0.125, 2.0, 1e6]])
HEAD = ["head_x", "head_y", "head_z"]


def read(tmp_path, text, encoding="utf-8"):
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    (found,) = csv_table.read(tmp_path / "a.csv", 1)
    return found


def table(head, rows, delimiter=",", end="\n"):
    return end.join(delimiter.join(map(str, row)) for row in [head, *rows])


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("form", ["{}", "{:.6E}", "{:+}", "{:+.6e}"])
def test_decimal_commas_are_read_in_every_form_of_a_number(tmp_path, delimiter, form):
    rows = [[form.format(v).replace(".", ",") for v in row] for row in PLACES.tolist()]
    np.testing.assert_array_equal(read(tmp_path, table(HEAD, rows, delimiter)).x[:, 0, 0], PLACES)


def test_commas_of_thousands_and_commas_alone(tmp_path):
    rows = [("1.234,5", "-1.234.567,0", ",5"), ("5,", "+,5", "1,25")]
    assert read(tmp_path, table(HEAD, rows, ";")).x[:, 0, 0].tolist() == [[1234.5, -1234567, 0.5], [5, 0.5, 1.25]]
    for wrong in ("1,2,3", "12.34,5", ",", "1,234.5"):
        with pytest.raises(FormatError, match="head_y: expected a number"):
            read(tmp_path, table(HEAD, [(1, wrong, 2)], ";"))


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "sep=;;;"])
@pytest.mark.parametrize(("encoding", "end"), [("utf-8-sig", "\r\n"), ("utf-16", "\r\n")])
def test_excels_first_line_states_the_delimiter(tmp_path, first, encoding, end):
    rows = [[str(v).replace(".", ",") for v in row] for row in PLACES.tolist()]
    np.testing.assert_array_equal(read(tmp_path, first + end + table(HEAD, rows, ";", end), encoding).x[:, 0, 0], PLACES)


@pytest.mark.parametrize(("in_header", "in_rows"), [(0, 1), (1, 0), (1, 1), (0, 3)])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_delimiters_at_the_ends_of_lines_are_no_columns(tmp_path, in_header, in_rows, delimiter):
    text = table([*HEAD, *[""] * in_header], [[*row, *[" "] * in_rows] for row in PLACES.tolist()], delimiter)
    np.testing.assert_array_equal(read(tmp_path, text).x[:, 0, 0], PLACES)


@pytest.mark.parametrize("form", ["head_{} ({})", "head {} [{}]", "Head{}({})", "{}_head ({})", "head_{}_{}", "head {} {}"])
@pytest.mark.parametrize(
    ("said", "unit"), [("mm", "mm"), ("cm", "cm"), ("m", "m"), ("px", "px"), ("pixels", "px"), ("metres", "m"), ("in", "in")]
)
def test_a_unit_in_the_names_of_columns_is_that_of_the_places(tmp_path, form, said, unit):
    found = read(tmp_path, table(["time (ms)", *(form.format(a, said) for a in "XYZ")], [[40 * t, *row] for t, row in enumerate(PLACES)]))
    assert (found.joint_names, found.unit, found.hz) == (("head",), unit, 25)
    np.testing.assert_array_equal(found.x[:, 0, 0], PLACES)


def test_units_in_a_row_a_joint_and_units_that_differ(tmp_path):
    found = read(tmp_path, "frame,joint,x [mm],y [mm]\n0,head,1,2\n1,head,3,4\n")
    assert (found.unit, found.joint_names, found.x[:, 0, 0].tolist()) == ("mm", ("head",), [[1, 2], [3, 4]])
    with pytest.raises(FormatError, match="expected one unit of all columns, got cm and mm"):
        read(tmp_path, "head_x (mm),head_y (cm)\n1,2\n")
    found = read(tmp_path, "frame,joint,x_mm,y_mm\n0,in,1,2\n")
    assert (found.unit, found.joint_names) == ("mm", ("in",))


BESIDE = ["head_q{}", "headQ{}", "head_v{}", "head_rot_{}", "HeadVelocity{}", "head.quat.{}", "vel_head_{}"]


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("place", ["head_{}", "head_pos_{}", "head.position.{}"])
def test_turns_and_speeds_of_joints_are_no_joints(tmp_path, beside, place):
    head = [*(place.format(a) for a in "xyz"), *(beside.format(a) for a in "xyzw")]
    found = read(tmp_path, table(head, [[*row, 0, 0, 0, 1] for row in PLACES.tolist()]))
    np.testing.assert_array_equal(found.x[:, 0, 0], PLACES)
    assert found.x.shape[2] == 1
    assert found.notes[0].startswith("columns that tell no places are left out: ")


def test_turns_beside_a_row_a_joint_and_joints_that_are_called_so(tmp_path):
    found = read(tmp_path, "frame,joint,x,y,z,qx,qy,qz,qw\n0,head,1,2,3,0,0,0,1\n1,head,4,5,6,0,0,0,1\n")
    assert found.x[:, 0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    hips = "hip_x,hip_y,hip_r_x,hip_r_y,hip_l_x,hip_l_y\n1,2,3,4,5,6\n"
    assert read(tmp_path, hips).joint_names == ("hip", "hip r", "hip l")
    assert read(tmp_path, "hip_x,hip_y,hip_rx,hip_ry\n1,2,3,4\n").joint_names == ("hip",)
    assert read(tmp_path, "a_x,a_y,marker_q_x,marker_q_y\n1,2,3,4\n").joint_names == ("a", "marker q")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-8"])
def test_labels_are_read_in_the_encodings_of_spreadsheets(tmp_path, encoding):
    label = "Grüße" if encoding == "latin-1" else "“Grüße” – 5 €"
    assert read(tmp_path, f"head_x,head_y,label\n1,2,{label}\n", encoding).label == label
