import gzip
import json
import re

import numpy as np
import pytest
import torch

from indrnn.__main__ import main
from indrnn.model.cells import chunked
from indrnn.model.cells.layer import Layer
from indrnn.model.tasks.adding import AddingLearner
from indrnn.model.tasks.chars import begin
from indrnn.model.training import checkpoint
from indrnn.model.training.learner import Recipe
from indrnn.model.training.stream_learner import StreamRecipe
from indrnn.model.training.task import Job


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """Two small texts where the real ones are looked for."""
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    (tmp_path / "text").mkdir()
    for name, words in (("shakespeare", "to be or not "), ("war_and_peace", "well, Prince ")):
        (tmp_path / "text" / f"{name}.txt.gz").write_bytes(gzip.compress((words * 80).encode()))
    return tmp_path


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Eight subjects who each raise the left hand or the right one, twice."""
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    (tmp_path / "skeleton").mkdir()
    rng, frames, y, subject = np.random.default_rng(0), [], [], []
    for who in range(1, 9):
        for label in (0, 1, 0, 1):
            x = rng.standard_normal((20, 3)).astype(np.float32) * 0.01 + np.zeros((24, 1, 1), np.float32) + np.arange(20)[:, None] * 0.05
            x[:, 11 if label else 7, 1] += np.linspace(0, 1, 24)
            frames.append(x.astype(np.float32))
            y.append(label)
            subject.append(who)
    off = np.cumsum([0, *(len(x) for x in frames)])
    names = np.array([f"c{i}" for i in range(len(y))])
    arrays = {"x": np.concatenate(frames), "off": off, "y": np.array(y), "subject": np.array(subject), "names": names}
    np.savez(tmp_path / "skeleton" / "utd_mhad.npz", classes=np.array(["left", "right"]), **arrays)
    return tmp_path


SMALL_CHARS = [
    "train",
    "chars",
    "--hidden",
    "16",
    "--layers",
    "2",
    "--rows",
    "4",
    "--length",
    "16",
    "--epoch",
    "5",
    "--validate-every",
    "1",
    "--warmup",
    "5",
    "--rate",
    "0.01",
    "--no-progress",
]
SMALL_ACTION = [
    "train",
    "action",
    "--hidden",
    "16",
    "--layers",
    "2",
    "--rows",
    "8",
    "--epoch",
    "10",
    "--validate-every",
    "1",
    "--warmup",
    "5",
    "--rate",
    "0.01",
    "--no-progress",
]


def train(arguments, out, *more):
    assert main([*arguments, "--out", str(out), *more]) == 0
    return out / "model.pt"


def losses(out):
    return [float(x) for x in re.findall(r" loss (\S+)", (out / "log.txt").read_text())]


def steps_logged(out):
    return [int(x) for x in re.findall(r"^step (\d+)", (out / "log.txt").read_text(), re.MULTILINE)]


def test_training_lowers_the_loss_and_the_checkpoint_says_how_it_was_made(texts):
    path = train(SMALL_CHARS, texts / "run", "--steps", "40", "--decay", "10", "--seed", "3")
    assert losses(texts / "run")[-1] < 0.7 * losses(texts / "run")[0]
    net, meta = checkpoint.load(path)
    assert (meta.kind, meta.seed, meta.steps, meta.alphabet) == ("chars", 3, 40, " ,Pbceilnortw")
    assert meta.command.startswith("indrnn train chars --hidden 16")
    assert "--no-progress" not in meta.command
    assert meta.parameters == sum(p.numel() for p in net.parameters())
    assert not any(p.requires_grad for p in net.parameters())
    assert [d["terms"] for d in meta.data] == ["public domain"] * 2


def test_checkpointed_activations_change_the_memory_and_not_the_loss(texts, monkeypatch):
    in_pieces, run = [], chunked.run
    monkeypatch.setattr(chunked, "run", lambda *args, **options: in_pieces.append(name) or run(*args, **options))
    for name, more in (("whole", []), ("pieces", ["--checkpoint-activations"])):
        train(SMALL_CHARS, texts / name, "--steps", "15", "--decay", "5", *more)
    assert in_pieces == ["pieces"] * 15
    assert losses(texts / "pieces") == pytest.approx(losses(texts / "whole"), rel=0.02)


@pytest.mark.parametrize("kind", ["chars", "action"])
def test_a_resumed_run_ends_with_the_weights_of_the_unbroken_one(kind, request):
    folder = request.getfixturevalue("texts" if kind == "chars" else "clips")
    small, steps = (SMALL_CHARS, "15") if kind == "chars" else (SMALL_ACTION, "20")
    whole = train(small, folder / "whole", "--steps", steps, "--decay", "5", "--dropout", "0.2")
    train(small, folder / "cut", "--steps", "10", "--decay", "0", "--dropout", "0.2")
    with (folder / "cut" / "log.txt").open("a") as log:
        log.write("step 11 seconds 0 loss 0.1\nstep 1")  # as a kill leaves it that came before last.ckpt was written
    cut = train(small, folder / "cut", "--steps", steps, "--decay", "5", "--dropout", "0.2", "--resume")
    a, b = (torch.load(p, weights_only=True)["weights"] for p in (whole, cut))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6, msg=name)
    assert steps_logged(folder / "cut") == steps_logged(folder / "whole")
    commands = checkpoint.load(cut)[1].command.split(" && ")
    assert len(commands) == 2
    assert commands[1].endswith("--resume")
    train(small, folder / "cut", "--steps", steps, "--decay", "5", "--dropout", "0.2", "--resume")  # nothing left to do
    assert checkpoint.load(cut)[1].command.split(" && ") == commands


def test_a_run_cut_within_an_epoch_looks_where_the_unbroken_one_does(texts):
    small = [*SMALL_CHARS, "--decay", "5", "--validate-every", "2"]
    train(small, texts / "cut", "--steps", "7")
    train(small, texts / "cut", "--steps", "25", "--resume")
    assert steps_logged(texts / "cut") == [7, 10, 20, 25]  # 7 and 25 are ends


def test_the_action_task_learns_and_keeps_its_layouts(clips, capsys):
    plain = ["--readout-dropout", "0", "--dropout", "0", "--lossy", "0", "--other-rate", "0"]  # so that a loss of few clips says something
    path = train(SMALL_ACTION, clips / "run", "--steps", "60", "--decay", "20", *plain, "--held", "0")
    assert losses(clips / "run")[-1] < 0.9 * losses(clips / "run")[0]
    _, meta = checkpoint.load(path)
    assert (meta.labels, meta.layout, meta.persons, meta.hz) == (("left", "right"), "utd20", 1, 30.0)
    assert set(meta.layouts) == {"utd20", "kinect20", "ntu25"}
    assert main(["evaluate", str(path), "--split", "val"]) == 1
    assert "held" in capsys.readouterr().err
    for times in (1, 2):
        assert main(["evaluate", str(path), "--split", "test", "--record", "--json"]) == 0
        figures = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert {f["test_evaluations"] for f in figures} == {times}
    assert figures[3]["name"] == "test_accuracy_100"
    assert figures[3]["value"] > 80
    assert checkpoint.load(path)[1].figures == tuple(figures)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(texts):
    def weights(out, seed):
        return torch.load(train(SMALL_CHARS, texts / out, "--steps", "5", "--decay", "1", "--seed", seed), weights_only=True)["weights"]

    a, b, c = weights("a", "1"), weights("b", "1"), weights("c", "2")
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not torch.equal(a["readout.weight"], c["readout.weight"])


def test_missing_data_is_said_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    assert main(["train", "chars", "--out", str(tmp_path / "run")]) == 1
    assert "text/shakespeare.txt.gz" in capsys.readouterr().err


def test_a_foreign_file_is_no_checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"weights": {}}, path)
    with pytest.raises(checkpoint.CheckpointError, match=r"model\.pt"):
        checkpoint.load(path)
    with pytest.raises(checkpoint.CheckpointError, match=r"missing\.pt"):
        checkpoint.load(tmp_path / "missing.pt")


def test_the_rate_does_not_depend_on_the_length_of_the_run_until_it_falls():
    short, long = Recipe(steps=100, decay=20, warmup=10), Recipe(steps=500, decay=200, warmup=10)
    assert [short.factor(i) for i in range(80)] == [long.factor(i) for i in range(80)]
    assert short.factor(0) == 0.1
    assert short.factor(90) == 0.5
    assert short.factor(100) == 0


def test_recurrent_weights_start_within_the_bound_the_last_layer_nearer_to_it(chars_net):
    layers = [m for m in chars_net.modules() if isinstance(m, Layer)]
    assert all(0 <= u <= 0.99 for layer in layers for u in layer.cell.u.tolist())
    assert min(layers[-1].cell.u.tolist()) >= 0.495


def test_every_step_ends_with_the_recurrent_weights_within_their_bound(texts):
    path = train(SMALL_CHARS, texts / "run", "--steps", "5", "--decay", "1", "--rate", "1.0", "--bound", "0.6")
    _, meta = checkpoint.load(path)
    assert 0.4 < max(abs(u) for p in meta.parts for u in p.u or ()) <= 0.6


def test_the_chars_task_carries_its_state_from_batch_to_batch(texts):
    job = Job(seed=1, out=texts, command="", steps=10, decay=1)
    learner, _ = begin(job, {"hidden": 16, "layers": 2}, StreamRecipe(steps=10, decay=1, rows=4, length=16, reset=0.0))
    for step in (0, 1):
        x, _ = learner.streams.batch(step)
        expected = learner.net(x, torch.full((4,), 16), learner.carried)[1]
        learner.loss(step)
        torch.testing.assert_close(learner.carried, expected.detach())
    assert learner.carried.abs().sum() > 0


def test_a_run_is_neither_overwritten_nor_gone_on_from_as_another(texts, capsys):
    out = texts / "run"
    train(SMALL_CHARS, out, "--steps", "10", "--decay", "5")
    kept = (out / "model.pt").read_bytes()
    for more, said in (
        ([], "holds a run already: --resume goes on with it"),
        (["--resume", "--seed", "2"], "the same seed, 1, got 2"),
        (["--resume", "--steps", "5"], "at least the 10 steps that are made, got --steps 5"),
        (["--resume", "--hidden", "8"], "the same network, hidden 16, got hidden 8\n"),
    ):
        steps = [] if "--steps" in more else ["--steps", "20"]
        assert main([*SMALL_CHARS, "--out", str(out), "--decay", "5", *steps, *more]) == 1
        assert said in capsys.readouterr().err
    assert main([*SMALL_CHARS, "--out", str(texts / "none"), "--resume"]) == 1
    assert "there is no run to go on from" in capsys.readouterr().err
    assert not (texts / "none").exists()
    assert (out / "model.pt").read_bytes() == kept


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--held", "2", "invalid choice: 2"),
        ("--held", "99", "invalid choice: 99"),
        ("--steps", "0", "expected a whole number from 1, got '0'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(option, value, said, capsys):
    with pytest.raises(SystemExit):
        main(["train", "action", option, value])
    assert f"argument {option}: {said}" in capsys.readouterr().err


def test_what_is_no_checkpoint_is_called_by_its_name(texts):
    train(SMALL_CHARS, texts / "run", "--steps", "5", "--decay", "2")
    with pytest.raises(checkpoint.CheckpointError, match=r"last\.ckpt is for --resume; the network is in .*model\.pt"):
        checkpoint.load(texts / "run" / "last.ckpt")
    with pytest.raises(checkpoint.CheckpointError, match="there is no such file"):
        checkpoint.load(texts / "nothing.pt")


def test_a_step_of_training_takes_denormal_numbers_for_zero_and_what_follows_does_not(tmp_path, monkeypatch):
    """They took three quarters of a step of the adding problem's GRU at T = 500."""
    small, seen, loss = torch.tensor([1e-39]), [], AddingLearner.loss
    monkeypatch.setattr(AddingLearner, "loss", lambda self, step: seen.append((small * 0.5).item()) or loss(self, step))
    assert (
        main(["train", "adding", "--length", "10", "--steps", "2", "--decay", "0", "--epoch", "2", "--no-progress", "--out", str(tmp_path)])
        == 0
    )
    assert seen == [0, 0]
    assert (small * 0.5).item() > 0


def test_a_machine_without_the_accelerator_is_an_error_of_one_line(texts, capsys):
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    assert main([*SMALL_CHARS, "--out", str(texts / "run"), "--steps", "1", "--accelerator", "gpu"]) == 1
    assert main([*SMALL_CHARS, "--out", str(texts / "run"), "--steps", "1", "--strategy", "none-such"]) == 1
    assert [line[:45] for line in capsys.readouterr().err.splitlines() if line.startswith("expected")] == [
        "expected what Lightning can train with: No su",
        "expected what Lightning can train with: You s",
    ]
