"""Runs that benchmarks keep: none is lost, and none stands for one that was measured otherwise."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bench import depth, equal_size, runs


@pytest.mark.parametrize("text", ['[\n{"a": 1},\n{"a": 2}\n]\n', '{"a": 1}\n{"a": 2}\n', '[\n  {"a": 1},\n\n  {"a": 2}\n]'])
def test_rows_are_read_with_a_list_round_them_or_without(text: str, tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    file.write_text(text)
    assert runs.read(file) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("line", ['"a": 1', '[{"a": 2}, {"a": 3}]', "<<<<<<< ours", "NaN"])
def test_a_line_that_is_no_row_is_told_and_kept(line: str, tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    file.write_text(text := f'[\n{{"a": 1}},\n{line}\n]\n')
    with pytest.raises(ValueError, match=r"runs.json, line 3: expected \[, \] or one run in braces, got"):
        runs.once(file, {"a": 5}, dict)
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("bench", "args", "old"),
    [
        (depth, ["--cells", "indrnn", "--layers", "2"], {"cell": "indrnn", "layers": 2, "loss": 1.0, "error": 90.0}),
        (equal_size, ["--only", "tanh"], {"network": "tanh", "cell": "tanh", "bits": 9.0}),
    ],
)
def test_a_run_without_settled_statistics_stands_for_none_with_them(
    bench: ModuleType, args: list[str], old: runs.Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bench is depth:
        monkeypatch.setattr(bench, "pooled", lambda part: part)
    else:
        monkeypatch.setattr(bench.treebank, "characters", lambda part: part)
    monkeypatch.setattr(bench.torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(bench, "keep_memory", lambda: None)
    made: list[object] = []

    def trained(*given: object, **named: object) -> runs.Row:
        made.append((given, named))
        return {"parameters": 1, "steps": 1, "loss": 0.5, "error": 1.0, "bits": 2.0}

    monkeypatch.setattr(bench, "trained", trained)
    kept = tmp_path / "runs.json"
    kept.write_text(json.dumps({**old, "minutes": 1.0, "parameters": 1, "steps": 1}))
    monkeypatch.setattr(sys, "argv", ["bench", "--minutes", "1", "--log", str(kept), *args])
    for _ in range(2):
        bench.main()
    assert len(made) == 1, "the first is measured anew, and the second is what was kept of it"
    assert [row.get("settling") for row in runs.read(kept)] == [None, bench.SETTLING]
