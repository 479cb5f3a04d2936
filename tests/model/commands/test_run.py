"""A run says what it learns from, how it ends and how it goes on; folds are runs of one file."""

import dataclasses
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indrnn.__main__ import main
from indrnn.model.data import clips
from indrnn.model.training import checkpoint
from indrnn.model.training.clip_learner import ClipLearner

SMALL = ["--hidden", "8", "--layers", "1", "--rows", "4", "--clips", "1", "--dropout", "0", "--no-progress"]


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """As a terminal has it: workers that run tests beside each other are told to leave the signal alone."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two motions of six people in three rooms, in millimetres, one joint of which is at times at 0."""
    rng = np.random.default_rng(0)
    body = rng.normal(scale=0.28, size=(7, 3)) + np.array([0, 0, 3])
    x = []
    for i in range(24):
        clip = body + rng.normal(scale=0.01, size=(12, 7, 3))
        clip[:, i % 2] += np.linspace(0, 0.5, 12)[:, None]
        clip[3:5, 4] = 0
        x.append(clip)
    arrays = {"x": np.rint(np.concatenate(x) * 1000).astype(np.int16), "off": np.arange(0, 289, 12), "y": np.arange(24) % 2 + 1}
    more = {"subject": np.arange(24) // 4, "room": np.array(["hall", "yard", "attic"])[np.arange(24) // 8], "classes": np.array(["a", "b"])}
    np.savez(tmp_path / "mine.npz", **arrays, **more)
    return tmp_path / "mine.npz"


def test_training_begins_with_what_it_learns_from(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--test", "room=attic", "--held", "subject=3", "--steps", "4", "--decay", "2", "--epoch", "2", "--seed", "3"]
    assert main(["train", "skeleton", str(file), *options, "--out", str(tmp_path / "run"), *SMALL]) == 0
    out, said = capsys.readouterr()
    assert out.strip() == str(tmp_path / "run" / "model.pt")
    lines = [line.split(None, 1) for line in said.splitlines() if " " in line]
    assert [what for what in lines if what[0] in ("clips", "classes", "persons", "joints", "unit", "rate", "steps")] == [
        ["clips", "24: 12 to train on, 4 held (subject=3), 8 to test on (room=attic)"],
        ["classes", "2"],
        ["persons", "1 in a frame, 6 in all"],
        ["joints", "7, without names: left and right are not told (--layout)"],
        ["unit", "millimetres, read as metres"],
        ["rate", "30 Hz"],
        ["steps", "4"],
    ]
    notes = [words for what, words in lines if what == "note"]
    assert notes[0].startswith("warning: 48 joints stand at exactly 0 on all axes")
    assert notes[1] == "y: counted from 1: 1 is 'a', 2 is 'b'"
    assert notes[2] == "warning: each clip is seen 1.3 times: --steps 30 makes it 10"
    assert checkpoint.load_trained(tmp_path / "run" / "model.pt")[1].clips["unit"] == 0.001


@pytest.mark.parametrize("how", ["--lost=zero", "--lost"])
def test_lost_zero_makes_lost_joints_of_zeros_beside_the_number(file, tmp_path, capsys, how) -> None:
    words = [how] if "=" in how else [how, "zero"]
    options = ["--lost", "0.25", *words, "--steps", "2", "--decay", "1", "--epoch", "2"]
    assert main(["train", "skeleton", str(file), *options, "--out", str(tmp_path / "run"), *SMALL]) == 0
    assert "48 joints at exactly 0 on all axes are joints not seen" in capsys.readouterr().err
    _, meta = checkpoint.load_trained(tmp_path / "run" / "model.pt")
    assert meta.clips["zero"]
    assert main(["evaluate", str(tmp_path / "run" / "model.pt")]) == 0
    held = clips.read(file, 0.001, zero=True).clips[0].x
    np.testing.assert_array_equal(held[3, 0, 4], held[2, 0, 4])
    with pytest.raises(SystemExit):
        main(["train", "skeleton", str(file), "--lost", "none"])
    assert "argument --lost: expected a number from 0 to 1, got 'none'" in capsys.readouterr().err


def test_a_run_is_gone_on_with_by_its_folder_alone(file, tmp_path, capsys, monkeypatch) -> None:
    out, options = tmp_path / "run", ["--test", "room=attic", "--decay", "2", "--epoch", "2", "--seed", "3", *SMALL]

    def stopped(self: ClipLearner, step: int, loss=ClipLearner.loss) -> object:
        if step == 5:
            signal.raise_signal(signal.SIGINT)
        return loss(self, step)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(ClipLearner, "loss", stopped)
    assert main(["train", "skeleton", str(file), *options, "--steps", "8", "--out", str(out)]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"stopped; 4 of 8 steps are kept: indrnn train --resume {out} goes on"
    assert signal.getsignal(signal.SIGINT) is handler
    monkeypatch.undo()
    moved = tmp_path / "moved"
    shutil.copytree(out, moved)
    assert main(["train", "--resume", str(out)]) == 0
    assert main(["train", "skeleton", str(file), *options, "--steps", "8", "--out", str(tmp_path / "whole")]) == 0
    command = f"indrnn train skeleton {file} {' '.join(options[:-1])} --steps 8 --out {out}"
    nets = [checkpoint.load_trained(folder / "model.pt") for folder in (out, tmp_path / "whole")]
    assert nets[0][1].command == command
    for a, b in zip(nets[0][0].parameters(), nets[1][0].parameters(), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-6)
    assert main(["train", "--resume", str(moved), "--steps", "6"]) == 0
    assert checkpoint.load_trained(moved / "model.pt")[1].steps == 6
    capsys.readouterr()
    for words, said in (
        ([], "expected --resume RUN"),
        ([str(tmp_path)], "there is nothing to go on from"),
        (["--steps"], "expected --resume RUN"),
    ):
        assert main(["train", "--resume", *words]) == 1
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["train"])
    assert "the following arguments are required: TASK" in capsys.readouterr().err


def test_ctrl_c_before_anything_is_kept_is_a_sentence(file, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(ClipLearner, "loss", lambda self, step: signal.raise_signal(signal.SIGINT))
    assert main(["train", "skeleton", str(file), "--steps", "4", "--epoch", "2", "--out", str(tmp_path / "run"), *SMALL]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped before the end of the first 2 steps: nothing is kept yet"
    monkeypatch.setattr(clips, "read", lambda *a, **k: signal.raise_signal(signal.SIGINT))
    assert main(["train", "skeleton", str(file), "--out", str(tmp_path / "other"), *SMALL]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped"


def test_a_run_stops_by_the_clock_too(file, tmp_path, capsys) -> None:
    options = ["--steps", "40", "--decay", "2", "--epoch", "2", "--max-wall-time", "0"]
    assert main(["train", "skeleton", str(file), *options, "--out", str(tmp_path / "run"), *SMALL]) == 0
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("stopped after 2 of 40 steps, ")
    assert said.endswith(f"by the clock: indrnn train --resume {tmp_path / 'run'} goes on")


def test_the_bar_counts_all_steps_and_shows_epochs_and_the_validation_figure(file, tmp_path, capfd) -> None:
    options = ["--steps", "6", "--decay", "2", "--epoch", "2", "--held", "fold=1/2", *SMALL[:-1]]
    assert main(["train", "skeleton", str(file), *options, "--out", str(tmp_path / "run")]) == 0
    seen = capfd.readouterr().out.replace("\r", "\n").splitlines()
    last = [line for line in seen if line.startswith("epoch 3 of 3")][-1]
    assert "6/6" in last
    assert "val_100=" in last
    assert "v_num" not in last
    assert any(line.startswith("epoch 2 of 3") for line in seen)


def test_a_run_that_began_with_another_default_goes_on_with_that(file, tmp_path) -> None:
    out, options = tmp_path / "run", ["--steps", "2", "--decay", "1", "--epoch", "2", *SMALL]
    assert main(["train", "skeleton", str(file), *options, "--out", str(out), "--held", "fold=1/5"]) == 0
    net, meta = checkpoint.load_trained(out / "model.pt")
    assert " --held fold=1/5" in meta.command
    checkpoint.save(out / "model.pt", net, dataclasses.replace(meta, command=meta.command.replace(" --held fold=1/5", "")))
    assert main(["train", "--resume", str(out), "--steps", "4"]) == 0
    assert checkpoint.load_trained(out / "model.pt")[1].held == "fold=1/5"
    assert main(["train", "skeleton", str(file), *options, "--out", str(tmp_path / "new")]) == 0
    assert checkpoint.load_trained(tmp_path / "new" / "model.pt")[1].held == "fold=1/10"
    assert main(["train", "--resume", str(tmp_path / "new"), "--steps", "4"]) == 0


@pytest.mark.parametrize("task", ["skeleton", "tensor"])
def test_leave_one_out_is_a_run_for_each_value_of_an_array(file, tmp_path, capsys, task) -> None:
    with np.load(file) as d:
        arrays = dict(d)
    if task == "tensor":
        arrays["x"] = arrays["x"].reshape(len(arrays["x"]), -1)
    np.savez(file, **arrays)
    small = SMALL if task == "skeleton" else [*SMALL[:6], "--no-progress"]
    options = ["--test", "fold=each/all:room", "--steps", "2", "--decay", "1", "--epoch", "2", "--out", str(tmp_path / "run"), *small]
    assert main(["train", task, str(file), *options]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out] == ["fold=1/all:room", "fold=2/all:room", "fold=3/all:room", "mean"]
    values = [float(line.split()[2]) for line in out]
    assert values[3] == pytest.approx(np.mean(values[:3]), abs=0.1)
    folders = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert folders == ["1-of-all-room", "2-of-all-room", "3-of-all-room"]
    _, meta = checkpoint.load_trained(tmp_path / "run" / folders[0] / "model.pt")
    assert meta.clips["test"] == "fold=1/all:room"
    assert {f["test_evaluations"] for f in meta.figures} == {1}
    assert "--test fold=1/all:room" in meta.command
    assert main(["train", task, str(file), *options, "--resume"]) == 0  # all is done
    assert capsys.readouterr().out.splitlines() == out
    assert main(["train", task, str(file), "--test", "fold=each/all:house", *small]) == 1
    assert "arrays with a value for each are" in capsys.readouterr().err
