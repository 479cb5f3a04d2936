"""Training in two processes, which Lightning starts and joins: gradients are means over the batches of both."""

import gzip
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from indrnn.__main__ import main
from indrnn.model.tasks import adding as train_adding
from indrnn.model.training import checkpoint

ROOT = Path(__file__).parents[3]
RUN = ["train", "adding", "--no-progress", "--hidden", "8", "--length", "10", "--warmup", "1", "--steps", "20", "--epoch", "10"]
RUN += ["--decay", "5", "--rate", "0.01", "--spread", "0.3", "--average", "1"]  # so that another batch is another network


def in_two(run: list[str], out: Path, *more: str) -> str:
    """Trains in two processes and returns what they said on stderr."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "indrnn", *run, "--out", str(out), "--devices", "2", "--strategy", "ddp", *more]
    return subprocess.run(command, env=environment, capture_output=True, timeout=300, check=True, text=True).stderr


def raised(path: Path) -> Path:
    """Clips of subjects who raise one joint or another, in the format of docs/data.md."""
    rng = np.random.default_rng(0)
    frames = rng.normal(scale=0.4, size=(5, 3)) + rng.normal(scale=0.01, size=(12, 10, 5, 3))
    frames[::2, :, 3, 1] += np.linspace(0, 1, 10)
    arrays = {"x": frames.reshape(-1, 5, 3).astype(np.float32), "off": 10 * np.arange(13), "y": np.arange(12) % 2}
    np.savez(path, **arrays, subject=np.arange(12) // 2, classes=np.array(["three", "rest"]))
    return path


def logged(out: Path) -> list[str]:
    """The lines of the log without their seconds."""
    return [re.sub(r" seconds \d+", "", line) for line in (out / "log.txt").read_text().splitlines()]


@pytest.fixture(scope="module")
def skeletons(tmp_path_factory):
    """Folder of one run in `whole`, and of another in `cut` that stopped after its first epoch and was resumed; what each said.

    With batch norm, whose statistics differ from process to process, and dropout.
    """
    out = tmp_path_factory.mktemp("skeletons")
    run = ["train", "skeleton", str(raised(out / "clips.npz")), "--test", "subject=5", "--held", "subject=4", "--no-progress"]
    run += ["--hidden", "8", "--layers", "2", "--rows", "4", "--epoch", "5", "--steps", "15", "--decay", "5", "--warmup", "1"]
    said = [in_two(run, out / "whole"), in_two(run, out / "cut", "--max-time", "0")]
    stopped = checkpoint.load_trained(out / "cut" / "model.pt")[1].steps
    return out, stopped, [*said, in_two(run, out / "cut", "--resume")]


def test_two_processes_stop_together(skeletons):
    assert skeletons[1] == 5


def test_a_resumed_run_of_two_processes_ends_as_the_unbroken_one(skeletons):
    whole, cut = (checkpoint.load_trained(skeletons[0] / name / "model.pt")[0].state_dict() for name in ("whole", "cut"))
    assert any(name.endswith("norm.mean") for name in whole)
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=0, atol=1e-6, msg=name)


def test_one_process_writes_and_a_resumed_log_is_that_of_the_unbroken_run(skeletons):
    assert [line.split(" loss")[0] for line in logged(skeletons[0] / "whole")] == ["step 5", "step 10", "step 15"]
    assert logged(skeletons[0] / "cut") == logged(skeletons[0] / "whole")


def test_no_warning_is_printed(skeletons):
    """Neither by Python (file:line: ...) nor by a logger; in other tests of training a warning is an error."""
    for said in skeletons[2]:
        assert "GPU available" in said  # Lightning's other words are there
        assert not re.search(r"\.py:\d+|warn|deprecat|litlogger", said, re.IGNORECASE), said


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The weights that two processes have learned, which Lightning started."""
    out = tmp_path_factory.mktemp("two")
    in_two(RUN, out)
    return checkpoint.load_trained(out / "model.pt")[0].state_dict()


def test_two_processes_learn_as_one_from_both_batches(two, tmp_path, monkeypatch):
    one = train_adding.AddingLearner.loss
    monkeypatch.setattr(train_adding.AddingLearner, "loss", lambda self, step: (one(self, 2 * step) + one(self, 2 * step + 1)) / 2)
    assert main([*RUN, "--out", str(tmp_path / "one")]) == 0
    one = checkpoint.load_trained(tmp_path / "one" / "model.pt")[0].state_dict()
    assert all(torch.isfinite(value).all() for value in one.values())
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=name)


def test_torchrun_starts_the_processes_as_well(two, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port, "-m", "indrnn"]
    command = [*launch, *RUN, "--out", str(tmp_path / "out"), "--devices", "2", "--strategy", "ddp"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, text=True)
    assert done.returncode == 0, done.stderr
    assert "distributed_backend=gloo" in done.stderr
    found = checkpoint.load_trained(tmp_path / "out" / "model.pt")[0].state_dict()
    for name, value in two.items():
        assert torch.equal(found[name], value), name


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
