"""Files of numbers that nobody has seen before are trained on, measured and exported: classes and values, of steps and at the end."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from indrnn.__main__ import main
from indrnn.export.bundle import read
from indrnn.kernels.runtime import ort
from indrnn.model.data.series import series_set
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.tasks.tensor import TensorRecipe, TensorSource, begin
from indrnn.model.training import checkpoint
from indrnn.model.training.measure import series_errors
from indrnn.model.training.task import Job

SMALL = [
    "--hidden",
    "16",
    "--layers",
    "2",
    "--rows",
    "16",
    "--rate",
    "0.01",
    "--dropout",
    "0",
    "--noise",
    "0",
    "--warmup",
    "10",
    "--average",
    "20",
]
PAGE = Path(__file__).parents[3] / "docs" / "tensors.md"
FREQUENCIES = np.array([0.02, 0.2])


def turns(rng, classes):
    """A channel [T] that swings at the frequency of each step's class, far from 0 and in a unit of its own."""
    swing = np.sin(2 * np.pi * (np.cumsum(FREQUENCIES[classes]) + rng.random()))
    return 1000 + 50 * (swing + 0.1 * rng.standard_normal(len(classes)))


def file(path, kind, answer, n=60):
    """Sequences one after another of six subjects: two channels, one of which says nothing."""
    rng, xs, ys = np.random.default_rng(0), [], []
    for i in range(n):
        T = int(rng.integers(20, 40))
        classes = np.full(T, i % 2) if answer == "end" else np.repeat(rng.integers(0, 2, 4), 10)[:T]
        x = np.stack([turns(rng, classes), rng.standard_normal(T)], 1)
        total = (x[:, :1] - 1000).cumsum(0) / 50 + [[300.0, -1.0]]  # two values, a constant apart
        xs.append(x)
        ys.append({("classes", "end"): i % 2, ("classes", "step"): classes, ("values", "end"): total[-1]}.get((kind, answer), total))
    y = np.array(ys) if answer == "end" else np.concatenate(ys)
    arrays = {"x": np.concatenate(xs), "off": np.cumsum([0, *map(len, xs)]), "y": y, "subject": np.arange(n) // 2 % 6}
    arrays |= {"features": ["pressure", "hum"], "units": ["Pa", ""], "hz": 0.5}
    arrays |= {"classes": ["slow", "fast"]} if kind == "classes" else {"outputs": ["sum", "other"], "output_units": ["K", ""]}
    np.savez(path, **arrays)
    return path


def run(*arguments):
    assert main([str(a) for a in arguments]) == 0


@pytest.mark.parametrize("answer", ["step", "end"])
@pytest.mark.parametrize("kind", ["classes", "values"])
def test_a_file_never_seen_is_learned_measured_exported_and_answers_the_same_in_any_split(tmp_path, capsys, kind, answer):
    clips, out = file(tmp_path / "mine.npz", kind, answer), tmp_path / "run"
    split = ["--test", "subject=4,5", "--held", "subject=3"]
    run("train", "tensor", clips, *split, "--out", out, "--steps", 150, "--decay", 75, *SMALL, "--no-progress")
    capsys.readouterr()
    run("evaluate", out / "model.pt", "--split", "test", "--record", "--json")
    figures = {f["name"]: f for f in json.loads(capsys.readouterr().out.splitlines()[-1])}
    if kind == "classes":
        assert figures["test_accuracy"]["value"] > 85
        assert "subject=4,5; 20 sequences" in figures["test_accuracy"]["protocol"]
        assert ("test_accuracy_25" in figures) == (answer == "end")
    else:
        assert figures["test_r2_0"]["value"] > 0.5
        assert figures["test_rmse_0"]["unit"] == "K"
    run("export", out / "model.pt", tmp_path / "bundles", "--name", "mine")
    bundle = read(tmp_path / "bundles" / "mine" / "1")
    m = bundle.manifest
    assert (m.modality, m.kind, m.answer, m.hz, m.inputs[0].shape) == ("tensor", "tensor", answer, 0.5, ("B", "T", 2))
    assert [(f.name, f.unit) for f in m.features] == [("pressure", "Pa"), ("hum", None)]
    assert m.features[0].mean == pytest.approx(1000, abs=10)
    assert m.max_abs_u < 1
    assert m.limits.max_position is None
    assert m.classes == 2
    assert m.labels == (("slow", "fast") if kind == "classes" else None)
    assert m.parity_error <= 1e-4

    net, _ = checkpoint.load(out / "model.pt")
    rng = np.random.default_rng(1)
    x = (np.array([1000, 0]) + np.array([40, 1]) * rng.standard_normal((5, 83, 2))).astype(np.float32)
    lengths = np.array([83, 40, 1, 0, 77])
    with torch.no_grad():
        want, state = (a.numpy() for a in net(torch.from_numpy(x), torch.from_numpy(lengths), net.start(5)))
    session = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
    carried = np.zeros((5, m.state_size), np.float32)
    done, scale = np.zeros(5, np.int64), np.array([v.scale for v in m.values or ()] or [1.0])
    for longest in (1, 7, 30, 100):
        take = np.minimum(longest, lengths - done)
        piece = np.full((5, longest, 2), 7e7, np.float32)  # past a row's length is noise
        for b in range(5):
            piece[b, : take[b]] = x[b, done[b] : done[b] + take[b]]
        got, carried = session.run(None, {"x": piece, "lengths": take, "state": carried})
        for b in range(5):
            np.testing.assert_allclose(got[b, : take[b]] / scale, want[b, done[b] : done[b] + take[b]] / scale, atol=1e-4, rtol=0)
        done += take
    np.testing.assert_allclose(carried, state, atol=2e-3)
    card = (bundle.graph.parent / "CARD.md").read_text()
    assert "skelet" not in card
    assert "metre" not in card
    assert "| 0 | pressure | Pa | " in card


def test_the_page_makes_a_file_that_its_commands_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(code, {})
    found = TensorSource("mine.npz", "subject=7,8", "subject=6", "auto")
    train, held, test = found.split(found.read().series)
    assert (len(train), len(held), len(test)) == (42, 6, 12)
    assert (found.read().answer, found.read().values, found.read().value_units) == ("end", ("mean",), ("°C",))


def test_scaling_is_the_training_parts_alone_and_of_its_own_numbers(tmp_path):
    x = np.zeros((10, 4, 3), np.float32)
    x[:, :, 0] = np.arange(10)[:, None]
    x[8:] = 1e6  # tested on
    x[:, :, 2] = 5
    np.savez(tmp_path / "mine.npz", x=x, y=x[:, -1, 0].astype(np.float64) + 0.5, test=np.arange(10) > 7)

    recipe = TensorRecipe(1, 1, file=str(tmp_path / "mine.npz"), test="flag", held="none")
    learner, meta = begin(Job(1, tmp_path, "", 1, 1), {}, recipe)
    c = learner.net.config
    assert c.mean == pytest.approx((3.5, 0, 5))
    assert c.scale == pytest.approx((5.25**0.5, 1, 1))
    assert (c.value_mean, c.value_scale) == (pytest.approx((4.0,)), pytest.approx((5.25**0.5,)))
    assert meta.told["features"][0] == {"name": "feature 0", "unit": None, "mean": 3.5, "scale": pytest.approx(5.25**0.5)}
    assert TensorSource(**meta.clips).split(TensorSource(**meta.clips).read().series)[2][0].x[0, 0] == 1e6


def test_r2_and_error_are_those_of_the_textbook():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(6, 2)) * [1, 100] + [0, 50]
    found = series_set({"x": rng.normal(size=(6, 3, 1)), "y": y}, "mine")
    net = TensorNet(TensorConfig(classes=2, hidden=4, layers=1, value_mean=(0.0, 50.0), value_scale=(1.0, 100.0))).eval()
    error, r2 = series_errors(net, found.series)  # an untrained net answers the means it was given
    np.testing.assert_allclose(error, np.sqrt(((y - [0, 50]) ** 2).mean(0)), rtol=1e-5)
    np.testing.assert_allclose(r2, 1 - ((y - [0, 50]) ** 2).mean(0) / y.var(0), rtol=1e-3, atol=1e-5)


def test_a_number_beyond_all_bounds_leaves_state_and_answer_finite():
    net = TensorNet(TensorConfig(hidden=8, layers=2, scale=(1e-9,))).eval()
    logits, state = net(torch.full((1, 300, 1), 3e38), torch.tensor([300]), net.start(1))
    assert logits.isfinite().all()
    assert state.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--test", "view=1"], "expected among views None"),
        (["--test", "flag"], "expected a file with an array `test`"),
        (["--test", "fold=99/99"], "expected to pick some of the 60 sequences"),
        (["--answer", "step"], r"(--answer step)"),
    ],
)
def test_a_split_that_the_file_has_not_is_refused_in_one_line(tmp_path, capsys, arguments, said):
    clips = file(tmp_path / "mine.npz", "classes", "end")
    assert main(["train", "tensor", str(clips), *arguments, "--out", str(tmp_path / "run"), *SMALL]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_ends_with_the_weights_of_the_unbroken_one_and_calibrate_says_it_is_not_for_it(tmp_path, capsys):
    clips = file(tmp_path / "mine.npz", "values", "step")
    for name, steps, decay, more in (("whole", 20, 10, ()), ("cut", 10, 0, ()), ("cut", 20, 10, ("--resume",))):
        options = ["--steps", steps, "--decay", decay, "--epoch", 10, "--no-progress", *more]
        run("train", "tensor", clips, "--out", tmp_path / name, *SMALL, *options)
    a, b = (torch.load(tmp_path / name / "model.pt", weights_only=True)["weights"] for name in ("whole", "cut"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-5, msg=name)
    capsys.readouterr()
    assert main(["calibrate", str(tmp_path / "whole" / "model.pt")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected a network of skeleton clips" in line
