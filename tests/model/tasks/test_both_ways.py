"""`--bidirectional`: the future is known without a delay, an answer at the end rests on all, and where there is a stream it is refused."""

from pathlib import Path

import numpy as np
import pytest
from test_delay import AHEAD, SIZES, STEPS, accuracy
from test_skeleton import SMALL, file

from indrnn.__main__ import main
from indrnn.export.bundle import read
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.data import bodies
from indrnn.model.data.series import Series
from indrnn.model.nets.detect import DetectConfig, DetectNet
from indrnn.model.nets.tensor import TensorConfig
from indrnn.model.tasks.tensor import TensorRecipe, begin
from indrnn.model.training.checkpoint import load, load_trained
from indrnn.model.training.clip_learner import ClipLearner, ClipRecipe
from indrnn.model.training.series_learner import SEEN, SeriesLearner, SeriesRecipe
from indrnn.model.training.source import Source
from indrnn.model.training.task import Job


def test_what_is_in_the_future_is_known_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 30, 1)).astype(np.float32)
    y = np.zeros((40, 30), np.int64)
    y[:, :-AHEAD] = x[:, AHEAD:, 0] > 0
    np.savez(tmp_path / "signs.npz", x=x, y=y)
    out = tmp_path / "run"
    assert main(["train", "tensor", str(tmp_path / "signs.npz"), "--bidirectional", *SIZES, *STEPS, "--out", str(out)]) == 0
    assert accuracy(out, capsys) > 80  # at the last two steps nothing is to come
    net, _ = load_trained(out / "model.pt")
    assert not net.stack.ends
    assert main(["export", str(out / "model.pt"), str(tmp_path / "b"), "--name", "net"]) == 0
    assert read(tmp_path / "b" / "net" / "1").manifest.streams is False
    capsys.readouterr()
    assert main(["check", str(tmp_path / "b" / "net" / "1")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["skipped", "ok", "skipped", "skipped", "ok", "skipped", "ok", "skipped"]


def test_only_the_end_is_asked_and_measured_where_a_sequence_has_one_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 9, 1)).astype(np.float32)
    np.savez(tmp_path / "one.npz", x=x, y=(x[:, 0, 0] > 0).astype(np.int64))
    out, few = tmp_path / "run", ["--steps", "4", "--decay", "2"]
    assert main(["train", "tensor", str(tmp_path / "one.npz"), "--bidirectional", *SIZES, *STEPS, *few, "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out / "model.pt"), "--split", "test"]) == 0
    said = capsys.readouterr().out
    assert "test_accuracy" in said
    assert "test_accuracy_50" not in said
    assert load_trained(out / "model.pt")[0].stack.ends


def test_a_network_without_it_is_what_a_checkpoint_of_before_says(tmp_path: Path) -> None:
    """Else `--resume` would not go on with it: what an answer is of changes the network only where it goes both ways."""
    np.savez(tmp_path / "one.npz", x=np.random.default_rng(0).normal(size=(8, 5, 1)).astype(np.float32), y=np.arange(8) % 2)
    recipe = TensorRecipe(steps=1, decay=1, file=str(tmp_path / "one.npz"), test="none", held="none")
    found = [begin(Job(1, tmp_path, "", 1, 1), {"hidden": 4, "layers": 1, **more}, recipe)[0] for more in ({}, {"bidirectional": True})]
    assert [learner.net.config.ends for learner in found] == [False, True]


@pytest.mark.parametrize(("steps", "want"), [(False, [0] * 19 + [1]), (True, None)])
def test_what_counts_of_a_row(steps: bool, want: list[float] | None) -> None:
    """Of a piece of a longer row neither end counts: each half has not seen enough at one of them."""
    config = TensorConfig(hidden=4, layers=1, bidirectional=True)
    series = Series(np.zeros((20, 1), np.float32), np.zeros(20, np.int64) if steps else np.int64(1), 0, 1, "a")
    learner = SeriesLearner(config, SeriesRecipe(steps=1, decay=1, length=8), [series], [], 0)
    _, _, weight = learner._row(series, np.random.default_rng(3))
    if want is not None:
        assert weight.tolist() == want
        return
    edge = int(SEEN * 8)
    assert weight.tolist() == [0] * edge + [1] * (8 - 2 * edge) + [0] * edge


def test_clips_of_skeletons_are_read_one_by_one_and_answered_at_their_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    options = [
        "--bidirectional",
        "--rows",
        "4",
        "--steps",
        "3",
        "--decay",
        "2",
        "--epoch",
        "2",
        "--test",
        "subject=4,5",
        "--held",
        "subject=3",
    ]
    assert main(["train", "skeleton", str(file(tmp_path / "mine.npz")), *SMALL, *options, "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out / "model.pt")]) == 0
    said = capsys.readouterr().out
    assert "val_accuracy_100" in said
    assert "val_accuracy_50" not in said
    assert "stream" not in said
    net, meta = load(out / "model.pt")
    assert meta.told["streams"] is False
    clips = Source.told(meta).read()
    body = bodies.of(clips.joint_names, np.concatenate([c.x.reshape(-1, *c.x.shape[2:]) for c in clips.clips]))
    learner = ClipLearner(net.config, ClipRecipe(steps=1, decay=1, clips=3), body, clips, clips.clips, [], 0)
    assert {len(row) for row in learner._chosen(1, np.random.default_rng(0))} == {1}
    _, _, weight = learner._row(clips.clips[:1], np.random.default_rng(0))
    assert (np.flatnonzero(weight) == len(weight) - 1).all()


def test_a_network_that_answers_at_once_refuses_it() -> None:
    with pytest.raises(SizeError, match="this one answers while they go on"):
        DetectNet(DetectConfig(bidirectional=True))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tensor", "FILE", "--bidirectional", "--delay", "2"], "--delay 2: expected 0 beside --bidirectional"),
        (["tensor", "FILE", "--bidirectional", "--hidden", "5"], "expected an even number of neurons for two directions, got 5"),
        (["tensor", "FILE", "--bidirectional", "--checkpoint-activations"], "--bidirectional: expected --no-checkpoint-activations"),
        (["tensor", "FILE", "--bidirectional", "--online", "--pools"], "--online: expected"),
        (["adding", "--bidirectional", "--kind", "subsampled"], "got 'subsampled'"),
        (["skeleton", "CLIPS", "--bidirectional", "--steady", "0.5"], "expected --steady 0, since only the answer at a clip's end is one"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "f.npz", x=rng.normal(size=(8, 6, 1)).astype(np.float32), y=rng.integers(0, 2, (8, 6)))
    files = {"FILE": str(tmp_path / "f.npz"), "CLIPS": str(file(tmp_path / "clips.npz"))}
    given = [files.get(a, a) for a in arguments]
    more = ["--steps", "2", "--decay", "1", "--no-progress", "--out", str(tmp_path / "run")]
    assert main(["train", *given, *more]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
