"""bench/op.py gone through on shapes that take no time: what it prints for people and for programs."""

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from indrnn.kernels.build import KernelMissing, build
from indrnn.kernels.native import Library

BENCH = Path(__file__).parent.parent.parent / "bench" / "op.py"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    try:
        path = build()
    except KernelMissing as missing:
        pytest.skip(f"no kernel: {missing}")
    spec = importlib.util.spec_from_file_location("bench_op", BENCH)
    assert spec
    assert spec.loader
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    small = {"SHAPES": [(3, 1, 4)], "STEPS": [(1, 1, 4)], "DIAGONALS": [(3, 1, 4)], "TURN": 1e-3, "ROUNDS": 1}
    ours = {"registered": lambda: path, "library": lambda: Library(path), "keep_freed_memory": lambda: None}
    for name, value in (small | ours).items():
        monkeypatch.setattr(made, name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    before = torch.get_num_threads()
    yield made
    torch.set_num_threads(before)


def test_the_last_line_holds_every_contestant_on_one_thread_and_on_all(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["op.py", "--seconds", "0"])
    bench.main()
    said = capsys.readouterr().out.splitlines()
    found = json.loads(said[-1])
    peers = {"op": {"fused", "loop", "ort_lstm", "ort_gru", "torch_lstm", "memcpy"}, "train": {"fused", "loop", "torch_lstm", "memcpy"}}
    peers["diagonal"] = {"fused", "fused_both", "loop", "memcpy"}  # and LinearAttention, where the runtime has it
    for part, names in peers.items():
        assert [row["threads"] for row in found[part]] == [1, 2]
        for row in found[part]:
            assert [row[axis] for axis in "TBH"] == [3, 1, 4]
            assert all(row[f"{name}_ms"] > 0 for name in names)
    assert any("memcpy of Y" in line for line in said)
