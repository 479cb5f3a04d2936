"""bench/train_step.py gone through on a net that takes no time: what it prints for people and for programs."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bench(monkeypatch):
    spec = importlib.util.spec_from_file_location("bench_train_step", ROOT / "bench" / "train_step.py")
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    for name, value in {"T": 8, "B": 2, "H": 4, "LAYERS": 2, "ROUNDS": 1, "keep_memory": lambda: None}.items():
        monkeypatch.setattr(made, name, value)
    return made


def printed(bench, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["train_step.py", *arguments])
    bench.main()
    *table, last = capsys.readouterr().out.splitlines()
    return table, json.loads(last)["train_step"]


def test_the_step_stands_beside_its_floor_its_peers_and_the_bar(bench, monkeypatch, capsys):
    table, told = printed(bench, monkeypatch, capsys, "--only", "time", "--seconds", "0")
    ms = told["time"]["ms"]
    assert set(ms) == {"indrnn", "maps", "rnn", "lstm"}
    assert told["time"]["ratio"] == ms["indrnn"] / ms["maps"]
    assert told["time"]["bar"] == 1.5
    assert "memory" not in told
    assert [line.split()[0] for line in table[-4:]] == ["indrnn", "maps", "rnn", "lstm"]


def test_memory_stands_beside_its_floor_and_the_growth_that_was_asked_for(bench, monkeypatch, capsys):
    mib = {"maps": lambda t: 2 * t, "kept": lambda t: 3 * t, "checkpointed": lambda t: 4 * t**0.5}
    monkeypatch.setattr(bench, "measured", lambda t, kind: mib[kind](t))
    table, told = printed(bench, monkeypatch, capsys, "--only", "memory", "--lengths", "4", "16", "64")
    _, kept, _ = told["memory"]
    assert [row["kind"] for row in told["memory"]] == ["maps", "kept", "checkpointed"]
    assert [round(row["power"], 6) for row in told["memory"]] == [1, 1, 0.5]
    assert [row["asked"] for row in told["memory"]] == [1, 1, 0.5]
    assert [row["ratio"] for row in told["memory"]] == [1, 1.5, 0.25]
    assert kept["mib"] == [12, 48, 192]
    assert [line.split()[-1] for line in table[-3:]] == ["T^1", "T^1", "T^0.5"]
    assert "time" not in told


def test_what_a_step_takes_is_measured_in_a_process_of_its_own(bench):
    """Of the net in full width, since the process takes it from the file: two arrays of 12 MiB a layer at T = 784, 147 MiB in all."""
    held = bytearray(2**30)  # a parent that holds more than the process will
    assert len(held) == 2**30
    assert 120 < bench.measured(784, "kept") < 220
