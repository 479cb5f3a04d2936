"""bench/training_methods.py: each method lowers the error of a small problem, derivatives are right, and the tables say what was run."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[4] / "bench"))

from methods.descent import truncated
from methods.problem import Problem

BENCH = Path(__file__).parents[4] / "bench"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_training_methods", BENCH / "training_methods.py")
    made = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(made)
    sys.path[:] = path
    return made


NEEDS_SCIPY = ("differential evolution, 19 weights", "dual annealing, 19 weights")


def named():
    """Every method of the file, by its table; without importing it here."""
    text = (BENCH / "training_methods.py").read_text().split("METHODS: dict")[1].split("CLIPPING")[0]
    return [line.split('"')[1] for line in text.splitlines() if line.startswith('    "')]


@pytest.mark.parametrize("name", ["adam", "lbfgs", *named()])
def test_a_method_lowers_the_error(name, bench):
    if name in NEEDS_SCIPY:
        pytest.importorskip("scipy", reason="SciPy is no package of ours")
    train, _ = bench.METHODS[name]
    problem, seen = Problem(T=8, H=3), []

    def report(theta):
        seen.append(problem.error(theta))
        if len(seen) == 60:
            raise bench.OverError

    begun = problem.error(problem.start())
    with pytest.raises(bench.OverError):
        train(problem, problem.start(), report)
    assert min(seen[10:]) < 0.9 * begun
    assert seen[-1] < begun


def test_every_method_of_the_issue_is_there(bench):
    assert len(named()) >= 7
    assert set(NEEDS_SCIPY) <= set(bench.METHODS)


def test_problems_that_want_memory_differ_in_their_marks_and_their_start():
    plain, early, forgets = Problem(T=10, H=4), Problem(T=10, H=4, early=True), Problem(T=10, H=4, forgets=True)
    marked = [p.batch(0, 50)[0][..., 1].nonzero()[:, 1].max().item() for p in (plain, early)]
    assert marked[0] > 5 > marked[1]
    x, total = early.batch(0, 50)
    assert x.shape == (50, 10, 2)
    torch.testing.assert_close((x[..., 0] * x[..., 1]).sum(1), total)
    u2 = [p.parts(p.start())["u2"] for p in (plain, forgets)]
    assert u2[0].min() > 0.9
    assert u2[1].max() < 0.5


def test_the_derivative_of_each_answer_is_that_of_autograd():
    problem = Problem(T=9, H=4)
    theta, (x, _) = problem.start() + 0.1, problem.batch(0, 5)
    want = torch.autograd.functional.jacobian(lambda t: problem.answers(t, x), theta)
    torch.testing.assert_close(problem.jacobian(theta, x), want, rtol=1e-4, atol=1e-6)


def test_a_truncated_gradient_is_whole_where_nothing_is_cut_off():
    problem = Problem(T=9, H=4)
    theta, (x, _) = problem.start().requires_grad_(), problem.batch(0, 5)
    grads = [torch.autograd.grad(a.sum(), theta)[0] for a in (problem.answers(theta, x), truncated(problem, theta, x, 9))]
    torch.testing.assert_close(grads[1], grads[0])
    cut = torch.autograd.grad(truncated(problem, theta, x, 3).sum(), theta)[0]
    assert not torch.allclose(cut, grads[0])
    torch.testing.assert_close(truncated(problem, theta, x, 3), problem.answers(theta, x))


def test_the_tables_have_a_row_for_each_and_the_pictures_are_drawn(bench, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bench, "made", bench.one)  # a fork would look for the module by its name
    monkeypatch.setattr(bench, "SIZES", (3, 4))
    monkeypatch.setattr(bench, "LENGTHS", (5, 6))
    cost = bench.cost
    monkeypatch.setattr(bench, "cost", lambda way, n, t: cost(way, n, t, 0.0))
    words = ["--methods", "adam", "extended Kalman filter", "--seconds", "0.02", "--seeds", "1", "--only"]
    log = tmp_path / "runs"
    for only, rows in (("error", 2), ("gradients", 2 * len(bench.gradients.WAYS))):
        monkeypatch.setattr(sys, "argv", ["training_methods.py", *words, only, "--log", str(log), "--out", str(tmp_path)])
        bench.main()
        *table, last = capsys.readouterr().out.splitlines()
        assert set(json.loads(last)["training_methods"]) == {"seeds", only}
        assert len([line for line in table if line.startswith("  ") and "N =" not in line and "T =" not in line]) == rows
    assert len(log.read_text().splitlines()) == 2
    assert {p.name for p in tmp_path.glob("*.svg")} == {"training-error.svg", "training-cost.svg"}


def test_without_scipy_the_global_optimisers_are_left_out_with_a_word(bench, monkeypatch, capsys):
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    assert bench.error_table({name: bench.METHODS[name] for name in NEEDS_SCIPY}, [1], 0.02, None) == {}
    assert capsys.readouterr().out.count("left out: SciPy is not installed") == 2
