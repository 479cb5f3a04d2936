"""bench/equal_time.py: runs are kept and not made again, rates are chosen on validation, and the page says what the file of runs says."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bench(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("bench_equal_time", ROOT / "bench" / "equal_time.py")
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_equal_time", made)  # its data class looks its module up
    spec.loader.exec_module(made)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(made, "keep_memory", lambda: None)
    return made


def test_the_page_says_what_the_runs_say(bench):
    text, rows = bench.PAGE.read_text(encoding="utf-8"), bench.read(bench.FILE)
    assert [name for name in bench.TABLES if f"<!-- equal time: {name} -->\n|" not in text] == []
    assert bench.page(text, rows) == text, "python bench/equal_time.py --page"


def test_what_stands_behind_a_table_stays_and_a_mark_without_one_gets_it(bench):
    mark = "<!-- equal time: leaky -->"
    made = bench.table([], "leaky")
    text = bench.page(f"before\n{mark}\n\n## After\n\nwords | of it\n", [])
    assert text == f"before\n{mark}\n{made}\n\n## After\n\nwords | of it\n"
    assert bench.page(text, []) == text


def test_every_kept_run_has_what_its_table_reads(bench):
    for row in bench.read(bench.FILE):
        assert row["network"] in bench.NETWORKS
        assert row["task"] in bench.PROBLEMS
        if row["seed"]:
            assert row["seconds"] <= 60 * row["budget"] * 1.2
            assert row["rate"] == bench.chosen(bench.read(bench.FILE), row["task"], row["network"], row["budget"])
            assert row["curve"][-1] == [row["seconds"], row["steps"], row["validation"]]


def test_the_race_of_two_is_to_the_figure_that_both_reach(bench):
    def row(network, curve):
        ended = {"rate": 0.001, "seconds": curve[-1][0], "steps": curve[-1][1], "validation": curve[-1][2], "test": 0.5, "curve": curve}
        return {"task": "adding-200", "network": network, "seed": 1, "budget": 1.0} | ended

    rows = [row("indrnn", [[10, 1, 0.2], [40, 4, 0.1]]), row("indrnn, subsampled", [[10, 3, 0.1], [40, 9, 0.05]])]
    assert [line.split(" | ")[-1] for line in bench.table(rows, "subsampled").splitlines()[2:4]] == ["40 |", "10 |"]
    solved = [row("indrnn", [[10, 1, 0.0009]]), row("indrnn, subsampled", [[10, 3, 0.1], [40, 9, 0.0002]])]  # both are below 0.001
    assert [line.split(" | ")[-1] for line in bench.table(solved, "subsampled").splitlines()[2:4]] == ["10 |", "40 |"]
    solved[0] = row("indrnn", [[5, 1, 0.00099], [10, 2, 0.0004]])
    assert [line.split(" | ")[-1] for line in bench.table(solved, "subsampled").splitlines()[2:4]] == ["5 |", "40 |"]
    rows[0] = row("indrnn", [[10, 1, None]])
    assert [line.split(" | ")[-1] for line in bench.table(rows, "subsampled").splitlines()[2:4]] == ["∞ |", "10 |"]


def test_a_table_goes_on_where_it_was_stopped_and_the_first_seed_of_all_comes_first(bench, monkeypatch, tmp_path, capsys):
    file = tmp_path / "runs.json"
    made = []

    def train(task, network, seed, rate, seconds, looks):
        made.append((network, seed, rate))
        learner = bench.PROBLEMS[task].learner(bench.NETWORKS[network], rate, seed)
        watch = bench.Watch(seconds, looks, 0.0)
        watch.curve = [(seconds, 10, abs(rate - 0.001) + seed)]
        return learner, watch

    monkeypatch.setattr(bench, "train", train)
    nothing = bench.Problem(lambda network, rate, seed: bench.lightning.LightningModule(), lambda learner: {"test": 0.5}, 0.0, "of all")
    monkeypatch.setitem(bench.PROBLEMS, "adding-200", nothing)
    monkeypatch.setattr(bench.lightning.LightningModule, "net", torch.nn.Linear(1, 1), raising=False)
    argv = ["equal_time.py", "--table", "leaky", "--tasks", "adding-200", "--budget", "1", "--file", str(file), "--seeds"]
    monkeypatch.setattr(sys, "argv", [*argv, "1"])
    bench.main()
    relu = [("indrnn", 0, rate) for rate in bench.RATES] + [("indrnn", 1, 0.001)]
    leaky = [("indrnn, leaky relu", seed, rate) for _, seed, rate in relu]
    assert made == relu + leaky
    monkeypatch.setattr(sys, "argv", [*argv, "1", "2"])
    bench.main()
    assert made == [*relu, *leaky, ("indrnn", 2, 0.001), ("indrnn, leaky relu", 2, 0.001)]
    rows = json.loads(file.read_text())
    assert len(rows) == len(file.read_text().splitlines()) - 2 == 6
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["runs"] == 6
    assert bench.table(rows, "leaky").splitlines()[2:4] == [
        "| adding-200 | indrnn | 0.001 | 1 × 2 | 10 | 60 | 1.5 (1.000 to 2.0) | 0.500 | 60 |",
        "| adding-200 | indrnn, leaky relu | 0.001 | 1 × 2 | 10 | 60 | 1.5 (1.000 to 2.0) | 0.500 | 60 |",
    ]


@pytest.mark.parametrize(("network", "away"), [("goru", 1e-5), ("indrnn, leaky relu", None)])
def test_a_run_ends_with_its_time_and_says_how_far_its_matrix_is_from_unitary(bench, monkeypatch, network, away):
    small = bench.copying_task.CopyingConfig(length=2, hidden=8, cell=bench.NETWORKS[network]["cell"])
    learner = bench.copying_task.CopyingLearner(small, bench.copying_task.CopyingRecipe(rate=0.01, **bench.SHARED), 1)
    monkeypatch.setitem(bench.PROBLEMS, "copying-200", bench.Problem(lambda *_: learner, bench._copied, 0.0, "nats"))
    row = bench.run("copying-200", network, 1, 0.005, 0.01)
    assert 0.3 <= row["seconds"] < 0.6
    assert len(row["curve"]) <= bench.LOOKS
    assert row["steps"] > 3
    assert row["validation"] < row["curve"][0][2]
    assert (row.get("from unitary") is None) if away is None else row["from unitary"] <= away


def test_what_is_tested_is_what_was_validated_last(bench, monkeypatch):
    small = bench.copying_task.CopyingConfig(length=2, hidden=8)
    learner = bench.copying_task.CopyingLearner(small, bench.copying_task.CopyingRecipe(rate=0.01, **bench.SHARED), 1)
    monkeypatch.setitem(bench.PROBLEMS, "copying-200", bench.Problem(lambda *_: learner, bench._copied, 0.0, "nats"))
    _, watch = bench.train("copying-200", "indrnn", 1, 0.01, 0.2, 2)
    assert learner.validate() == {"val_nats": watch.curve[-1][2]}


def test_a_run_that_has_solved_its_problem_or_diverged_ends(bench, monkeypatch):
    for figure, kept in ((1e-4, 1e-4), (float("nan"), None)):
        small = bench.adding_task.AddingConfig(length=4, hidden=4)
        learner = bench.adding_task.AddingLearner(small, bench.adding_task.AddingRecipe(rate=0.01, **bench.SHARED), 1)
        monkeypatch.setattr(learner, "validate", lambda figure=figure: {"val": figure})
        monkeypatch.setitem(bench.PROBLEMS, "adding-200", bench.Problem(lambda *_, made=learner: made, lambda _: {"test": 0.0}, 1e-3, ""))
        row = bench.run("adding-200", "indrnn", 1, 0.05, 0.01)
        assert (row["validation"], len(row["curve"])) == (kept, 1)


def test_where_every_rate_diverged_the_middle_one_is_taken(bench):
    key = {"task": "adding-200", "network": "relu", "seed": 0, "budget": 1.0}
    assert bench.chosen([key | {"search": dict.fromkeys(["0.0003", "0.001", "0.003"])}], "adding-200", "relu", 1.0) == 0.001
    assert bench.chosen([key | {"search": {"0.0003": 5.0, "0.001": None, "0.003": 4.0}}], "adding-200", "relu", 1.0) == 0.003
