"""Training in two processes, which Lightning starts and joins: gradients are means over the batches of both."""

import gzip
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from model import checkpoint, train_adding
from model.__main__ import main

# Lightning's own use of torch; nothing of ours to mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
]
ROOT = Path(__file__).parent.parent.parent
RUN = ["train", "adding", "--no-progress", "--hidden", "8", "--length", "10", "--warmup", "1", "--steps", "20", "--epoch", "10"]
RUN += ["--decay", "5", "--rate", "0.01", "--spread", "0.3", "--average", "1"]  # so that another batch is another network


def in_two(out: Path, *more: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "model", *RUN, "--out", str(out), "--devices", "2", "--strategy", "ddp", *more]
    subprocess.run(command, env=environment, capture_output=True, timeout=300, check=True, text=True)


def test_two_processes_stop_together(tmp_path):
    in_two(tmp_path / "two", "--max-time", "0")
    assert checkpoint.load_trained(tmp_path / "two" / "model.pt")[1].steps == 10


def test_two_processes_learn_as_one_from_both_batches(tmp_path, monkeypatch):
    in_two(tmp_path / "two")
    one = train_adding.AddingLearner.loss
    monkeypatch.setattr(train_adding.AddingLearner, "loss", lambda self, step: (one(self, 2 * step) + one(self, 2 * step + 1)) / 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        assert main([*RUN, "--out", str(tmp_path / "one")]) == 0
    two, one = (checkpoint.load_trained(tmp_path / name / "model.pt")[0].state_dict() for name in ("two", "one"))
    assert all(torch.isfinite(value).all() for value in one.values())
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=name)


def test_a_task_whose_state_is_carried_by_one_process_is_not_split(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "ptb"
    folder.mkdir()
    for part in ("train", "valid", "test"):
        (folder / f"ptb.{part}.txt.gz").write_bytes(gzip.compress(b" the cat sat on the mat \n" * 40))
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    options = ["--hidden", "8", "--layers", "1", "--rows", "2", "--length", "8", "--devices", "2", "--no-progress"]
    assert main(["train", "ptb-char", "--out", str(tmp_path / "run"), *options]) == 1
    assert "expected --devices 1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_no_batch_stays_behind_on_the_cpu():
    """The device "meta" computes nothing, but refuses tensors of another one."""
    learner = train_adding.AddingLearner(train_adding.AddingConfig(hidden=4, length=10), train_adding.AddingRecipe(1, 1), 0).to("meta")
    assert learner.loss(0).device.type == "meta"
