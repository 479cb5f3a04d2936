"""`indrnn train … --online`: from a file to a bundle that streams, gone on with bit for bit, and refused where it would not be exact."""

import itertools

import numpy as np
import pytest
import torch

from indrnn.__main__ import main
from indrnn.export import bundle
from indrnn.model.data.series import Series
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.nets.tensor import TensorConfig
from indrnn.model.training.online.series import OnlineSeriesLearner, PieceOrder
from indrnn.model.training.series_learner import SeriesRecipe
from indrnn.model.training.stream_learner import StreamLearner, StreamRecipe

SMALL = ["--online", "--layers", "1", "--hidden", "12", "--rows", "3", "--length", "4", "--epoch", "20", "--rate", "0.02", "--no-progress"]


def train(task, file, out, steps, *more):
    return main(["train", task, *file, *SMALL, "--average", "10", "--steps", str(steps), "--decay", "0", *more, "--out", str(out)])


def figures(out, name):
    lines = [line.split() for line in (out / "log.txt").read_text().splitlines()]
    return [float(line[line.index(name) + 1]) for line in lines]


def weights(out):
    return torch.load(out / "model.pt", weights_only=True)["weights"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "mine.txt").write_text("to be or not to be, that is the question. " * 60)
    return ["--text", str(folder / "mine.txt")]


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Three records; at every step the sum of all that came so far is above 0 or not: a memory without a horizon."""
    folder, rng = tmp_path_factory.mktemp("series"), np.random.default_rng(0)
    lengths = (70, 130, 50, 60)
    x = rng.normal(size=(sum(lengths), 1)).astype(np.float32)
    off = np.cumsum([0, *lengths])
    y = np.concatenate([(np.cumsum(x[a:b]) > 0).astype(np.int64) for a, b in itertools.pairwise(off)])
    np.savez(folder / "mine.npz", x=x, off=off, y=y)
    ends = [float(x[a:b].mean()) for a, b in itertools.pairwise(off)]
    np.savez(folder / "ends.npz", x=x, off=off, y=ends)
    return folder


def test_a_text_is_learned_online_gone_on_with_and_exported(text, tmp_path):
    small = ["--epoch", "40"]
    assert train("chars", text, tmp_path / "whole", 80, *small) == 0
    bits = figures(tmp_path / "whole", "val_bpc")
    assert bits[-1] < 0.9 * bits[0]
    assert train("chars", text, tmp_path / "cut", 40, *small) == 0
    assert train("chars", text, tmp_path / "cut", 80, *small, "--resume") == 0
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert main(["export", str(tmp_path / "whole" / "model.pt"), str(tmp_path / "bundles"), "--name", "mine"]) == 0
    made = bundle.read(tmp_path / "bundles" / "mine" / "1")
    assert "--online" in made.manifest.training.command
    assert [p.size for p in made.manifest.state if p.role == "hidden"] == [12]


@pytest.mark.parametrize("file", ["mine.npz", "ends.npz"])
def test_numbers_are_learned_online_and_gone_on_with(file, series, tmp_path):
    exact = ["--dropout", "0", "--pools", "--test", "none", "--held", "fold=1/4"]
    where = [str(series / file)]
    assert train("tensor", where, tmp_path / "whole", 100, *exact) == 0
    if file == "mine.npz":
        found = figures(tmp_path / "whole", "val_100")
        assert found[-1] > found[0]
    assert train("tensor", where, tmp_path / "cut", 60, *exact) == 0
    assert train("tensor", where, tmp_path / "cut", 100, *exact, "--resume") == 0
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--cell", "gru"], "--cell indrnn"),
        (["--dropout", "0.1"], "--dropout 0"),
        (["--checkpoint-activations"], "--no-checkpoint-activations"),
        (["--h0", "small"], "--h0 zero"),
        (["--h0", "learned"], "--h0 zero"),
        (["--norm-penalty", "1"], "--norm-penalty 0"),
        (["--layers", "5", "--hidden", "640"], "--layers 1 takes"),
    ],
)
def test_what_would_not_be_exact_is_one_line(more, said, text, tmp_path, capsys):
    assert train("chars", text, tmp_path / "run", 1, *more) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("--online: expected")
    assert said in line


def test_leaky_means_and_classes_as_often_as_others_are_refused(series, tmp_path, capsys):
    where = [str(series / "mine.npz")]
    for more, said in (([], "--pools without a number"), (["--pools", "--balanced"], "--no-balanced")):
        assert train("tensor", where, tmp_path, 1, "--dropout", "0", "--test", "none", *more) == 1
        assert said in capsys.readouterr().err


def test_rows_read_every_sequence_from_end_to_end_once_a_pass():
    order = PieceOrder((10, 3, 8), rows=2, length=4, seed=1)  # 3 + 1 + 2 pieces a pass
    for row, first in ((0, 0), (1, 3)):  # the second row begins in the middle of a pass
        read = [order.piece(row, k) for k in range(6 - first, 12 - first)]
        assert sorted(read) == [(0, 0), (0, 4), (0, 8), (1, 0), (2, 0), (2, 4)]
        assert all(b == (a[0], a[1] + 4) for a, b in itertools.pairwise(read) if b[1])
    assert [order.piece(0, k) for k in range(6)] != [order.piece(0, k) for k in range(6, 12)]


def gradient(learner, step):
    learner.zero_grad()
    learner.loss(step).backward()
    return torch.cat([p.grad.flatten() for p in learner.net.parameters() if p.grad is not None])


def test_a_batch_of_text_has_the_gradient_of_the_whole_stream():
    """Of one batch behind twenty others, beside that of all of them with a loss in the last alone."""
    torch.manual_seed(0)
    rng, steps = np.random.default_rng(0), 20
    recipe = StreamRecipe(1, 0, rows=2, length=5, reset=0.0, online=True)
    learner = StreamLearner(
        CharsNet(CharsConfig(classes=6, hidden=7, layers=2, bound=0.999, norm=False)), recipe, rng.integers(0, 6, 400), 1
    )
    with torch.no_grad():
        learner.net.readout.weight.normal_()
    for step in range(steps):
        learner.loss(step)
    got = gradient(learner, steps)
    parts = [learner.streams.batch(k) for k in range(steps + 1)]
    x, target = (torch.cat([p[i] for p in parts], 1) for i in (0, 1))
    learner.zero_grad()
    logits, _ = learner.net(x, torch.full((2,), x.shape[1]), learner.net.start(2))
    torch.nn.functional.cross_entropy(logits[:, -5:].flatten(0, 1), target[:, -5:].flatten()).backward()
    want = torch.cat([p.grad.flatten() for p in learner.net.parameters()])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_a_batch_that_is_read_again_begins_where_it_began():
    torch.manual_seed(0)
    recipe = StreamRecipe(1, 0, rows=2, length=5, reset=0.0, online=True)
    learner = StreamLearner(CharsNet(CharsConfig(classes=6, hidden=7, layers=1, norm=False)), recipe, np.arange(90) % 6, 1)
    with torch.no_grad():
        learner.net.readout.weight.normal_()
    learner.loss(0)
    once, after = gradient(learner, 1), learner.carried
    again = gradient(learner, 1)
    torch.testing.assert_close(again, once, rtol=0, atol=0)
    torch.testing.assert_close(learner.carried, after, rtol=0, atol=0)


def test_the_losses_of_a_pass_are_those_of_its_sequences_ends():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    train_on = [Series(rng.normal(size=(n, 2)).astype(np.float32), rng.normal(size=1).astype(np.float32), 0, n, "") for n in (6, 9, 4)]
    config = TensorConfig((0.0,) * 2, (1.0,) * 2, 1, (0.0,), (1.0,), hidden=5, layers=1, pools=(), dropout=0.0, norm=False)
    learner = OnlineSeriesLearner(config, SeriesRecipe(1, 0, rows=1, length=4, noise=0.0, online=True), train_on, [], 1)
    with torch.no_grad():
        learner.net.readout.weight.normal_()
        got = sum(float(learner.loss(k)) for k in range(6))
        answers = [learner.net.answer(torch.from_numpy(s.x)[None])[0] for s in train_on]
    want = sum(float((a - torch.from_numpy(s.y)).square().mean()) for a, s in zip(answers, train_on, strict=True))
    assert got == pytest.approx(want, rel=1e-5)


def test_a_sequence_that_begins_knows_nothing_of_the_one_before():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    train_on = [
        Series(rng.normal(size=(n, 2)).astype(np.float32), np.array([1.0, 0], np.float32)[:1], 0, i, "") for i, n in enumerate((6, 9))
    ]
    config = TensorConfig((0.0,) * 2, (1.0,) * 2, 1, (0.0,), (1.0,), hidden=5, layers=1, pools=(), dropout=0.0, norm=False)
    recipe = SeriesRecipe(1, 0, rows=1, length=4, noise=0.0, online=True)
    learner = OnlineSeriesLearner(config, recipe, train_on, [], 1)
    begins = [k for k in range(12) if learner.order.piece(0, k)[1] == 0 and k]
    assert learner.traces is not None
    for k in range(begins[0]):
        learner.loss(k)
    learner.loss(begins[0])
    after = {name: b.clone() for name, b in learner.traces.named_buffers()}
    fresh = OnlineSeriesLearner(config, recipe, train_on, [], 1)
    fresh.net.load_state_dict(learner.net.state_dict())
    fresh.loss(begins[0])
    for name, b in fresh.traces.named_buffers():
        torch.testing.assert_close(after[name], b)
