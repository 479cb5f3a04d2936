"""The rate of a recording is that of its frames' times, whatever their unit is called and whoever is seen in them."""

import json

import numpy as np
import pytest

from indrnn.model.data.formats import azure, csv_table, mediapipe
from indrnn.model.data.formats.recording import FormatError

SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
NAMED = [
    *(("s", name) for name in ("seconds", "sec", "time_s", "time (s)", "timeSeconds", "Time [sec]")),
    *(("ms", name) for name in ("ms", "time_ms", "timestampMs", "timestamp_msec", "milliseconds", "t [ms]")),
    *(("us", name) for name in ("timestamp_us", "timestamp_usec", "time (µs)", "time_microseconds")),
    *(("ns", name) for name in ("timestamp_ns", "time (nanoseconds)")),
]


def table(tmp_path, head, rows):
    (tmp_path / "a.csv").write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]))
    (found,) = csv_table.read(tmp_path / "a.csv", 2)
    return found


def dump(tmp_path, name, times):
    (tmp_path / "a.json").write_text(json.dumps([{name: t, "world": np.ones((33, 3)).tolist()} for t in times]))
    (found,) = mediapipe.read(tmp_path / "a.json", 1)
    return found.hz


@pytest.mark.parametrize(("unit", "name"), NAMED)
@pytest.mark.parametrize("hz", [0.5, 1, 25, 400])
def test_a_time_is_in_the_unit_that_its_name_states(tmp_path, unit, name, hz):
    times = [round(t * SECOND[unit] / hz, 6) for t in range(5)]
    assert table(tmp_path, f"{name},head_x,head_y", [(t, 1, 2) for t in times]).hz == pytest.approx(hz, rel=1e-3)
    assert dump(tmp_path, name, times) == pytest.approx(hz, rel=1e-3)


@pytest.mark.parametrize("name", ["t", "time", "timestamp", "TimeStamp"])
@pytest.mark.parametrize("unit", SECOND)
@pytest.mark.parametrize("hz", [1, 1.02, 0.98, 25, 400])
def test_the_unit_of_a_time_without_one_is_told_from_its_steps(tmp_path, name, unit, hz):
    times = [t * SECOND[unit] / hz for t in range(5)]
    assert table(tmp_path, f"{name},head_x,head_y", [(t, 1, 2) for t in times]).hz == pytest.approx(hz, rel=1e-3)
    assert dump(tmp_path, name, times) == pytest.approx(hz, rel=1e-3)


def test_a_time_that_names_its_unit_is_preferred(tmp_path):
    frames = [{"t": 7 * t, "timestamp_ms": 40 * t, "world": np.ones((33, 3)).tolist()} for t in range(4)]
    (tmp_path / "a.json").write_text(json.dumps(frames))
    assert mediapipe.read(tmp_path / "a.json", 1)[0].hz == 25


def test_persons_of_a_frame_who_were_seen_one_after_another_do_not_raise_the_rate(tmp_path):
    rows = [(t, who, 40 * t + late, t, t) for t in range(6) for who, late in (("a", 0), ("b", 1))]
    found = table(tmp_path, "frame,person,time_ms,head_x,head_y", rows)
    assert (found.hz, found.x.shape) == (25, (6, 2, 1, 2))


def test_joints_of_a_frame_that_were_seen_one_after_another_are_one_frame(tmp_path):
    rows = [(t, 40 * t + late, joint, t, late) for t in range(6) for late, joint in enumerate(("head", "neck", "hip"))]
    found = table(tmp_path, "frame,time_ms,joint,x,y", rows)
    assert (found.hz, found.x.shape) == (25, (6, 1, 3, 2))
    assert found.x[4, 0].tolist() == [[4, 0], [4, 1], [4, 2]]


@pytest.mark.parametrize("hz", [24, 25, 30, 50, 60, 90, 100, 120, 144, 200, 240])
@pytest.mark.parametrize("whole", [int, round])
def test_whole_milliseconds_give_the_rate_that_they_are_of(tmp_path, hz, whole):
    """Their median said 125 Hz of 120."""
    times = [whole(1_000 * t / hz) for t in range(400) if not 100 <= t < 130]
    assert table(tmp_path, "time_ms,head_x,head_y", [(t, 1, 2) for t in times]).hz == pytest.approx(hz, rel=5e-3)
    assert dump(tmp_path, "timestamp", times) == pytest.approx(hz, rel=5e-3)


def test_a_clock_of_whole_seconds_tells_the_rate_by_its_ticks(tmp_path):
    assert table(tmp_path, "time_s,head_x,head_y", [((t + 11) // 30, 1, 2) for t in range(100)]).hz == pytest.approx(30)


@pytest.mark.parametrize("start", [0, 638_000_000_000_000_000])
@pytest.mark.parametrize("hz", [30, 15])
def test_kinects_ticks_of_100_ns_are_known(tmp_path, start, hz):
    times = [start + t * (10_000_000 // hz) for t in range(20)]
    assert table(tmp_path, "timestamp,head_x,head_y", [(t, 1, 2) for t in times]).hz == pytest.approx(hz, rel=1e-2)
    assert table(tmp_path, "timestamp_us,head_x,head_y", [(10 * t, 1, 2) for t in range(0, 10**6, 33_333)]).hz == pytest.approx(3, rel=1e-2)


CLOCKS = [
    *("2026-01-31T23:59:{:09.6f}", "2026-01-31 23:59:{:09.6f}", "2026-01-31T23:59:{:09.6f}Z", "2026-01-31T23:59:{:09.6f}+02:00"),
    *("23:59:{:06.3f}", "0:{:.3f}", "00:00:{:010.7f}"),
]


@pytest.mark.parametrize("form", CLOCKS)
@pytest.mark.parametrize("name", ["time", "timestamp", "time_ms"])
def test_times_by_a_clock_are_read_and_sorted(tmp_path, form, name):
    found = table(tmp_path, f"{name},head_x,head_y", [(form.format(t / 20), t, 2) for t in reversed(range(30))])
    assert (found.hz, found.notes, found.x[:, 0, 0, 0].tolist()) == (20, (), list(range(30)))
    assert dump(tmp_path, name, [form.format(t / 20) for t in range(30)]) == 20


@pytest.mark.parametrize("text", ["31.01.2026 12:00", "00:00:01:12", "soon", "inf", "", None, True, [1], 10**400, "9" * 400])
def test_times_that_are_none_are_told(tmp_path, text):
    """The rate was said to be taken, for the files say none; 400 digits were an OverflowError."""
    times = [0, 40, text, 120]
    expected = "expected times as numbers, or as 12:34:56.7, got "
    (tmp_path / "a.json").write_text(json.dumps([{"time_ms": t, "world": np.ones((33, 3)).tolist()} for t in times]))
    (found,) = mediapipe.read(tmp_path / "a.json", 1)
    assert (found.hz, found.notes[0].startswith(f"time_ms: {expected}")) == (None, True)
    joints = np.ones((32, 3)).tolist()
    frames = [{"timestamp_usec": t, "bodies": [{"body_id": 1, "joint_positions": joints}]} for t in times]
    (tmp_path / "a.json").write_text(json.dumps({"frames": frames}))
    (found,) = azure.read(tmp_path / "a.json", 1)
    assert (found.hz, found.notes[0].startswith(f"timestamp_usec: {expected}")) == (None, True)
    if isinstance(text, str):
        found = table(tmp_path, "time_ms,head_x,head_y", [(t, 1, 2) for t in times])
        assert (found.hz, found.notes[0].startswith(f"a: time_ms: {expected}{text[:20]!r}")) == (None, True)


def test_times_that_stand_still_are_told(tmp_path):
    found = table(tmp_path, "time_ms,head_x,head_y", [(7, 1, 2)] * 3)
    assert (found.hz, found.notes) == (None, ("a: time_ms: times that do not rise are not used: --hz says the rate",))


@pytest.mark.parametrize("digits", [400, 5_000])
@pytest.mark.parametrize("lines", [False, True])
def test_numbers_of_hundreds_of_digits_end_in_a_sentence(tmp_path, digits, lines):
    text = json.dumps({"world": [[1, 2, 3]] * 33}).replace("2", "9" * digits, 1)
    (tmp_path / "a.json").write_text(f"{text}\n{text}" if lines else text)
    with pytest.raises(FormatError, match=r"a.json: expected"):
        mediapipe.read(tmp_path / "a.json", 1)
