"""Files of marked streams: what they say, and each thing that they cannot say, in a sentence with its place."""

import numpy as np
import pytest

from indrnn.model.data.clips import ClipFileError
from indrnn.model.detection import streams


def arrays(**change):
    rng = np.random.default_rng(0)
    body = rng.normal(0, 0.4, (4, 3)) + rng.normal(0, 0.01, (50, 4, 3))
    told = {
        "x": body.astype(np.float32),
        "off": np.array([0, 30, 50]),
        "event_stream": np.array([1, 0, 0]),
        "event_label": np.array([1, 0, 1]),
        "event_point": np.array([19, 25, 4]),
        "classes": np.array(["wave", "push"]),
        "subject": np.array([5, 6]),
    }
    return {k: v for k, v in (told | change).items() if v is not None}


def marks(found):
    return [[(e.label, e.point) for e in s.events] for s in found.clips]


def test_points_are_read_in_order_and_nothing_is_class_0():
    found = streams.stream_set(arrays(), "f")
    assert found.classes == ("nothing", "wave", "push")
    assert marks(found) == [[(2, 4), (1, 25)], [(2, 19)]]
    assert [s.subject for s in found.clips] == [5, 6]


def test_intervals_are_marked_within_and_points_come_before_them():
    intervals = {"event_start": np.array([0, 20, 3]), "event_end": np.array([11, 30, 4])}
    assert marks(streams.stream_set(arrays(event_point=None, **intervals), "f")) == [[(2, 3), (1, 24)], [(2, 5)]]
    assert marks(streams.stream_set(arrays(event_point=None, **intervals), "f", mark=1.0)) == [[(2, 3), (1, 29)], [(2, 10)]]
    assert marks(streams.stream_set(arrays(**intervals), "f")) == [[(2, 4), (1, 25)], [(2, 19)]]


def test_streams_without_events_and_classes_without_names_are_read():
    none = np.array([], np.int64)
    assert marks(streams.stream_set(arrays(event_stream=none, event_label=none, event_point=none), "f")) == [[], []]
    assert streams.stream_set(arrays(classes=None), "f").classes == ("nothing", "0", "1")
    assert streams.stream_set(arrays(event_point=np.array([19.0, 25.0, 4.0])), "f").clips[1].events[0].point == 19  # as MATLAB saves them


@pytest.mark.parametrize("shape", [(1, -1), (-1, 1)])
def test_matlabs_arrays_are_what_they_mean(shape):
    told = arrays()
    for name in ("off", "event_stream", "event_label", "event_point", "subject"):
        told[name] = told[name].reshape(shape).astype(np.float64)
    told["classes"] = np.array(["wave  ", "push  "])[None]  # rows of characters are as long as the longest
    found = streams.stream_set(told | {"hz": np.array([[25.0]])}, "f")
    assert (found.classes, found.hz) == (("nothing", "wave", "push"), 25.0)
    assert marks(found) == [[(2, 4), (1, 25)], [(2, 19)]]
    assert [s.subject for s in found.clips] == [5, 6]


def test_matlabs_empty_array_is_no_motion():
    none = np.zeros((0, 0))
    assert marks(streams.stream_set(arrays(event_stream=none, event_label=none, event_point=none), "f")) == [[], []]


def test_a_file_that_is_no_npz_is_named_for_what_it_is(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(ClipFileError, match="got an HDF5 file"):
        streams.read(tmp_path / "a.npz")
    with pytest.raises(ClipFileError, match=r"expected an \.npz file of plain arrays: No such file"):
        streams.read(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"off": np.array([0.5, 30, 50])}, "off: expected to rise from 0 to the 50 frames of x"),
        ({"off": np.array([[0, 30], [30, 50]])}, "off: expected to rise from 0 to the 50 frames of x"),
        ({"event_label": None}, "found no event_label"),
        ({"event_stream": None}, "found no event_stream"),
        ({"event_point": None}, "expected an array event_point, or event_start and event_end"),
        ({"event_point": np.array([20, 25, 4])}, r"event_point\[0\]: expected a frame of stream 1, 0..19, got 20"),
        ({"event_point": np.array([1, -1, 4])}, r"event_point\[1\]: expected a frame of stream 0"),
        ({"event_point": np.array([1.5, 2, 4])}, "expected 3 whole numbers, one a motion, got float64"),
        ({"event_point": np.array([1, 2])}, "expected 3 whole numbers"),
        ({"event_stream": np.array([2, 0, 0])}, "event_stream: expected streams 0..1, got 0..2"),
        ({"event_label": np.array([2, 0, 0])}, "event_label: expected classes 0..1, got 0..2"),
        ({"event_label": np.array(["wave", "push", "wave"])}, "event_label: expected whole numbers"),
        ({"event_point": None, "event_start": np.array([5, 5, 5]), "event_end": np.array([6, 5, 6])}, r"event_end\[1\]: expected more"),
        ({"classes": np.array(["nothing", "push"])}, "is what frames without a motion are called"),
        ({"off": None}, "expected arrays x, off and y"),
    ],
)
def test_a_file_that_cannot_be_is_refused(change, said):
    with pytest.raises(ClipFileError, match=said):
        streams.stream_set(arrays(**change), "f")


def test_a_file_of_clips_is_told_from_one_of_streams(tmp_path):
    np.savez(tmp_path / "clips.npz", x=np.zeros((4, 2, 3)), off=[0, 4], y=[0])
    with pytest.raises(ClipFileError, match="expected streams with marked motions"):
        streams.read(tmp_path / "clips.npz")
    (tmp_path / "no.npz").write_bytes(b"")
    with pytest.raises(ClipFileError, match=r"no\.npz"):
        streams.read(tmp_path / "no.npz")
