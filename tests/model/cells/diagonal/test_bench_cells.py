"""bench/cells.py gone through on layers that take no time: what it prints for people and for programs."""

import importlib.util
import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[4]


def test_a_row_for_each_cell_beside_the_floor(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("bench_cells", ROOT / "bench" / "cells.py")
    monkeypatch.setattr(sys, "path", list(sys.path))
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    small = {"T": 4, "B": 2, "H": 4, "LAYERS": 1, "CALLS": 2, "ROUNDS": 1, "keep_memory": lambda: None}
    for name, value in small.items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(sys, "argv", ["cells.py", "--seconds", "0", "--only", "mingru", "lru"])
    bench.main()
    *table, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert set(told["cells"]) == {"mingru", "lru"}
    assert [row["state_bytes"] for row in told["cells"].values()] == [16, 32]
    assert all(row["training_ms"] > 0 and row["streaming_ms"] > 0 for row in told["cells"].values())
    assert told["floor_ms"] > 0
    assert [line.split()[0] for line in table[-3:-1]] == ["mingru", "lru"]
