"""A file of sequences is read in either form, and one that is wrong is refused in one sentence."""

import numpy as np
import pytest

from indrnn.__main__ import main
from indrnn.model.data.series import SeriesFileError, read, series_set

X = np.arange(24, dtype=np.float64).reshape(3, 4, 2)


def one_after_another(**more):
    return {"x": X.reshape(12, 2), "off": np.array([0, 4, 6, 12])} | more


@pytest.mark.parametrize(
    ("arrays", "answer", "shapes"),
    [
        ({"x": X, "y": np.array([0, 1, 0])}, "end", [()] * 3),
        ({"x": X, "y": np.tile([0, 1, 0, 1], (3, 1))}, "step", [(4,)] * 3),
        ({"x": X, "labels": np.array(["b", "a", "b"])}, "end", [()] * 3),
        ({"x": X, "y": np.ones(3)}, "end", [(1,)] * 3),
        ({"x": X, "y": np.ones((3, 5))}, "end", [(5,)] * 3),
        ({"x": X, "y": np.ones((3, 4))}, "step", [(4, 1)] * 3),
        ({"x": X, "y": np.ones((3, 4, 2))}, "step", [(4, 2)] * 3),
        ({"x": X, "y": np.ones((3, 4, 2)), "lengths": np.array([1, 4, 2])}, "step", [(1, 2), (4, 2), (2, 2)]),
        (one_after_another(y=np.array([0, 1, 0])), "end", [()] * 3),
        (one_after_another(y=np.arange(12) % 3), "step", [(4,), (2,), (6,)]),
        (one_after_another(y=np.ones(12)), "step", [(4, 1), (2, 1), (6, 1)]),
        (one_after_another(y=np.ones((3, 2))), "end", [(2,)] * 3),
    ],
    ids=str,
)
def test_what_y_is_of_is_told_from_its_shape(arrays, answer, shapes):
    found = series_set(arrays, "mine.npz")
    assert found.answer == answer
    assert [s.y.shape for s in found.series] == shapes
    off = arrays.get("off", np.cumsum([0, *arrays.get("lengths", [4, 4, 4])]))
    assert [len(s.x) for s in found.series] == np.diff(off).tolist()
    assert {s.x.dtype for s in found.series} == {np.dtype(np.float32)}
    if answer == "step":
        assert all(len(s.y) == len(s.x) for s in found.series)


def test_a_shape_that_fits_both_is_decided_by_the_one_who_asks():
    arrays = {"x": X, "y": np.ones((3, 4))}
    assert series_set(arrays, "mine.npz", "end").series[0].y.shape == (4,)
    with pytest.raises(SeriesFileError, match=r"one a step, each a number .* got \[3\] \(--answer step\)"):
        series_set({"x": X, "y": np.ones(3)}, "mine.npz", "step")


def test_names_units_and_classes_are_those_of_the_file():
    y = {"y": np.ones((3, 2)), "features": ["t", "p"], "units": ["K", ""], "outputs": ["a", "b"], "output_units": ["m", ""], "hz": 0.1}
    found = series_set({"x": X} | {k: np.asarray(v) for k, v in y.items()}, "mine.npz")
    assert (found.features, found.units, found.values, found.value_units) == (("t", "p"), ("K", None), ("a", "b"), ("m", None))
    assert found.hz == 0.1
    assert found.classes is None
    plain = series_set({"x": X, "y": np.array([-1, 1, -1])}, "mine.npz")
    assert (plain.features, plain.units, plain.hz) == (("feature 0", "feature 1"), (None, None), None)
    assert (plain.classes, [s.label for s in plain.series]) == (("-1", "1"), [0, 1, 0])
    named = series_set({"x": X, "y": np.array([2, 1, 2]), "classes": np.array(["sit", "stand", "walk"])}, "mine.npz")
    assert (named.classes, [s.label for s in named.series]) == (("sit", "stand", "walk"), [2, 1, 2])
    texts = series_set({"x": X, "labels": np.array(["run", "sit", "run"]), "classes": np.array(["sit", "run"])}, "mine.npz")
    assert (texts.classes, [int(s.y) for s in texts.series]) == (("sit", "run"), [1, 0, 1])


def nan(*place):
    x = X.copy()
    x[place] = np.nan
    return x


Y = np.array([0, 1, 0])
WRONG = [
    ({}, "expected arrays x and either y or labels, found none"),
    ({"x": X}, "found x"),
    ({"x": X, "y": Y, "labels": Y}, "found labels, x, y"),
    ({"x": X[0], "y": Y}, r"x: expected numbers \[N, T, F\], or \[sum T, F\] with an array off, got float64 \[4, 2\]"),
    ({"x": X.astype(str), "y": Y}, "x: expected numbers .* got <U32"),
    ({"x": X.astype(complex), "y": Y}, "x: expected numbers .* got complex128"),
    ({"x": X[:0], "y": Y[:0]}, "x: expected a sequence, a step and a number at least"),
    ({"x": X[:, :, :0], "y": Y}, "x: expected a sequence, a step and a number at least"),
    ({"x": nan(1, 2, 1), "y": Y}, r"x: expected finite float32 numbers, got nan in sequence 1, place \[2, 1\]"),
    ({"x": X * 1e38, "y": Y}, "x: expected finite float32 numbers, got inf"),
    (one_after_another(y=Y, off=np.array([0, 4, 13])), "off: expected whole numbers that rise from 0 to the 12 steps of x"),
    (one_after_another(y=Y, off=np.array([0, 4, 4, 12])), "off: expected"),
    (one_after_another(y=Y, off=np.array([])), "off: expected .* got none"),
    ({"x": X, "y": Y, "lengths": np.array([4, 5, 4])}, "lengths: expected steps from 1 to the 4 of x, got 4 to 5"),
    ({"x": X, "y": Y, "lengths": np.array([4, 4])}, "lengths: expected 3 whole numbers, one a sequence"),
    ({"x": X, "y": np.arange(5)}, r"y: expected \[3\], one a sequence, or \[3, 4\], one a step as x has them, got \[5\]"),
    ({"x": X, "y": np.ones((3, 4, 2, 1))}, "y: expected"),
    ({"x": X, "y": np.ones((3, 0))}, "y: expected"),
    ({"x": X, "y": np.array(["a", "b", "a"])}, "y: expected whole or fractional numbers, got <U1"),
    ({"x": X, "labels": np.ones(3)}, "labels: expected texts, got float64"),
    ({"x": X, "y": np.array([0.0, np.nan, 1.0])}, "y: expected finite float32 numbers, got nan in sequence 1"),
    ({"x": X, "y": Y * 0}, "y: expected 2 to 1,000 classes, got 1"),
    ({"x": X, "y": Y, "classes": np.array(["a"])}, r"y: expected classes 0..0, as there are names in classes, got 0..1"),
    ({"x": X, "labels": np.array(["a", "b", "c"]), "classes": np.array(["a", "b"])}, "labels: expected names in classes, got c"),
    ({"x": X, "y": Y, "features": np.array(["a"])}, "features: expected 2 names, one for each number of a step"),
    ({"x": X, "y": Y, "features": np.array(["a", "a"])}, "features: expected different names"),
    ({"x": X, "y": np.ones(3), "outputs": np.array(["a", "b"])}, "outputs: expected 1 names"),
    ({"x": X, "y": Y, "subject": np.array(["a", "b", "c"])}, "subject: expected 3 whole numbers, one a sequence"),
    ({"x": X, "y": Y, "hz": np.array(0)}, "hz: expected one number above 0"),
]


@pytest.mark.parametrize(("arrays", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_a_wrong_array_is_named_with_what_was_expected_and_what_came(arrays, said):
    with pytest.raises(SeriesFileError, match=rf"^mine.npz: (expected arrays.*)?{said}"):
        series_set({k: np.asarray(v) for k, v in arrays.items()}, "mine.npz")


def test_what_lies_past_a_length_may_be_anything():
    found = series_set({"x": nan(0, 3, 0), "y": Y, "lengths": np.array([3, 4, 4])}, "mine.npz")
    assert np.isfinite(found.series[0].x).all()


@pytest.mark.parametrize("kind", ["none", "empty", "text", "cut", "npy", "objects", "folder"])
def test_a_file_that_is_none_is_one_line_and_no_traceback(tmp_path, capsys, kind):
    path = tmp_path / "mine.npz"
    if kind == "folder":
        path.mkdir()
    elif kind == "npy":
        np.save(tmp_path / "mine.npy", X)
        (tmp_path / "mine.npy").rename(path)
    elif kind == "objects":
        np.savez(path, x=np.array([X[0], X[0, :2]], dtype=object), y=Y[:2])
    elif kind != "none":
        np.savez(path, x=X, y=Y)
        path.write_bytes({"empty": b"", "text": b"a,b\n1,2\n", "cut": path.read_bytes()[:-80]}[kind])
    assert main(["train", "tensor", str(path), "--out", str(tmp_path / "run"), "--no-progress"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "mine.npz" in line
    assert "expected" in line
    assert ("with off" in line) == (kind == "objects")
    assert not (tmp_path / "run").exists()


def test_a_file_is_looked_for_among_the_data(tmp_path, monkeypatch):
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    np.savez(tmp_path / "mine.npz", x=X, y=Y)
    assert len(read("mine.npz").series) == 3
