"""MATLAB's structs and cells say what each clip in them is: the fields beside an array, or as many cells as there are clips."""

import struct

import numpy as np
import pytest

from indrnn.model.data.formats import table

X = np.random.default_rng(6).normal(size=(20, 3, 7))
ONE, TWO = X, X[..., :5] + 1


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def matrix(name, v):
    """Return a MATLAB matrix of version 5: of an array, a text, a list (cells), or a list of dicts (a struct array)."""
    kind, shape, data = 1, (1, len(v)), b""
    if isinstance(v, np.ndarray):
        kind, shape, data = 6, v.shape, element(9, v.astype("<f8").tobytes("F"))
    elif isinstance(v, str):
        kind, data = 4, element(16, v.encode())
    elif v and isinstance(v[0], dict):
        kind, names = 2, b"".join(n.encode().ljust(16, b"\0") for n in v[0])
        data = element(5, struct.pack("<i", 16)) + element(1, names) + b"".join(matrix("", one) for row in v for one in row.values())
    else:
        data = b"".join(matrix("", one) for one in v)
    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, name.encode())
    return element(14, head + data)


def read(tmp_path, **variables):
    file = tmp_path / "mine.mat"
    file.write_bytes(b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x100) + b"IM" + b"".join(matrix(n, v) for n, v in variables.items()))
    return table.read([file], None, 2)[0]


def number(n):
    return np.array([[n]], float)


FORMS = {
    "struct array": {"clips": [{"skel": ONE, "label": "wave"}, {"skel": TWO, "label": "push"}]},
    "cells": {"clips": [ONE, TWO], "labels": ["wave", "push"]},
    "cells of structs": {"clips": [[{"skel": ONE, "Action": "wave"}], [{"skel": TWO, "Action": "push"}]]},
    "struct of cells": {"data": [{"skeletons": [ONE, TWO], "classes": ["wave", "push"]}]},
    "cells of structs, labels beside": {"clips": [[{"skel": ONE}], [{"skel": TWO}]], "activity": ["wave", "push"]},
}


@pytest.mark.parametrize("form", FORMS)
def test_each_clip_has_the_label_that_stands_beside_it(tmp_path, form):
    """All had the file's name as their class."""
    found = read(tmp_path, **FORMS[form])
    assert [r.label for r in found] == ["wave", "push"]
    np.testing.assert_array_equal(found[1].x[:, 0], TWO.transpose(2, 0, 1))


@pytest.mark.parametrize("labels", [np.array([[3.0, 12.0]]), np.array([[3.0], [12.0]]), [number(3), number(12)]])
@pytest.mark.parametrize("name", ["label", "y", "classes", "action"])
def test_labels_may_be_numbers(tmp_path, labels, name):
    assert [r.label for r in read(tmp_path, clips=[ONE, TWO], **{name: labels})] == ["3", "12"]


def test_subject_view_and_rate_of_a_clip_and_of_all(tmp_path):
    rows = [{"skel": ONE, "subject": number(4), "camera": number(2)}, {"skel": TWO, "subject": number(5), "camera": number(1)}]
    found = read(tmp_path, clips=rows, fps=number(25), label="jump")
    assert [(r.label, r.subject, r.view, r.hz) for r in found] == [("jump", 4, 2, 25), ("jump", 5, 1, 25)]


def test_what_does_not_fit_the_clips_is_no_label(tmp_path):
    for labels in (["a", "b", "c"], np.array([[1.0, 2, 3]]), np.array([[0.5, 1.5]]), np.array([[np.nan, 1]]), np.eye(2), ["a", np.eye(3)]):
        assert [r.label for r in read(tmp_path, clips=[ONE, TWO], labels=labels)] == ["mine", "mine"]
    assert read(tmp_path, skel=ONE, fps=number(-3), subject=number(0.5))[0].hz is None


@pytest.mark.parametrize("name", ["rot", "rotation", "vel", "jointVelocity", "quat_xyz"])
def test_turns_beside_places_make_no_clip(tmp_path, name):
    for variables in ({"pos": ONE, name: ONE * 0 + 0.5}, {"data": [{"pos": ONE, name: ONE * 0 + 0.5}]}):
        (found,) = read(tmp_path, **variables)
        np.testing.assert_array_equal(found.x[:, 0], ONE.transpose(2, 0, 1))
        assert found.notes[0].startswith("mine.mat: arrays that tell no places are left out: ")
    assert len(read(tmp_path, **{name: ONE})) == 1
    assert len(read(tmp_path, v=ONE, a=ONE)) == 2
