"""The rate of a recording is that of its frames' times, whatever their unit is called and whoever is seen in them."""

import json

import numpy as np
import pytest

from indrnn.model.data.formats import csv_table, mediapipe

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
