"""Every task of the table: it learns, goes on where it was cut, and can be reproduced."""

import dataclasses
import gzip
import json
import re
import struct

import numpy as np
import pytest
import torch

from indrnn.__main__ import main
from indrnn.model.commands import reproduce
from indrnn.model.data import mnist, treebank
from indrnn.model.tasks.table import TASKS
from indrnn.model.training import checkpoint
from indrnn.model.training.training import Work

SMALL = {
    "adding": ["--length", "6", "--hidden", "16", "--spread", "0.3", "--rows", "64"],
    "images": ["--hidden", "8", "--looks", "1", "--rows", "16", "--dropout", "0", "--settling", "2"],
    "mnist": ["--hidden", "8", "--layers", "1", "--rows", "8", "--settling", "2"],
    "pmnist": ["--hidden", "8", "--layers", "1", "--rows", "8", "--settling", "2", "--dropout", "0.1"],
    "ptb-char": ["--hidden", "16", "--layers", "2", "--rows", "4", "--length", "16"],
    "ptb-word": ["--hidden", "16", "--layers", "2", "--rows", "4", "--length", "16", "--dropout", "0.1", "--embedding-dropout", "0"],
}


def idx(array):
    return gzip.compress(b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes())


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Images that are dark or bright, and a text of one sentence, where the real ones are looked for."""
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    monkeypatch.setattr(mnist, "HELD_OUT", 16)
    rng = np.random.default_rng(0)
    (tmp_path / "mnist").mkdir()
    for part, n in (("train", 80), ("t10k", 20)):
        labels = rng.integers(0, 2, n).astype(np.uint8)
        images = (rng.integers(0, 56, (n, 28, 28)) + 200 * labels[:, None, None]).astype(np.uint8)
        (tmp_path / "mnist" / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (tmp_path / "mnist" / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    (tmp_path / "ptb").mkdir()
    for name in treebank.PARTS.values():
        (tmp_path / "ptb" / f"ptb.{name}.txt.gz").write_bytes(gzip.compress(b" the cat sat on the <unk> mat \n" * 60))
    return tmp_path


def run(*arguments):
    return main([str(a) for a in arguments])


def train(task, out, *more):
    options = ["--epoch", "10", "--warmup", "5", "--average", "10", "--rate", "0.01", "--no-progress", "--out", out]
    assert run("train", task, *SMALL[task], *options, *more) == 0
    return out / "model.pt"


def logged(out, name):
    return [float(x) for x in re.findall(rf" {name} (\S+)", (out / "log.txt").read_text())]


@pytest.mark.parametrize(
    ("task", "steps", "name", "below"),  # knowing nothing: 0.167, 50 %, log2 15, 8
    [
        ("adding", 200, "val_mse", 0.05),
        ("images", 30, "val_error", 5.0),
        ("mnist", 20, "val_error", 5.0),
        ("ptb-char", 60, "val_bpc_ptb", 2.2),
        ("ptb-word", 60, "val_perplexity", 4.0),
    ],
)
def test_a_task_learns_something_tiny_and_its_figures_are_counted(task, steps, name, below, data, capsys):
    path = train(task, data / "run", "--steps", steps, "--decay", "10")
    assert logged(data / "run", name)[-1] < below
    meta = checkpoint.load_trained(path)[1]
    assert meta.task == task
    assert meta.work > 0
    assert list((data / "run" / "curves").glob("events*"))
    assert run("evaluate", path, "--split", "val", "--json") == 0
    val = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert val[0]["name"] == name
    assert val[0]["test_evaluations"] == 0
    assert run("evaluate", path, "--split", "test", "--record") == 0
    kept = checkpoint.load_trained(path)[1].figures
    assert [(f["name"], f["test_evaluations"]) for f in kept] == [(TASKS[task].headline, 1)]
    line, looks = capsys.readouterr().out.splitlines()  # without --json, for people
    assert line.split()[:2] == [TASKS[task].headline, f"{kept[0]['value']:.4g}"]
    assert looks == "test evaluation 1 of these weights"


def test_pooled_images_are_read_in_fewer_steps_by_the_neurons_that_are_asked_for_and_measured_alike(data, capsys):
    path = train("pmnist", data / "run", "--pool", "4", "--nonlinearity", "leaky_relu", "--steps", "20", "--decay", "10")
    net = checkpoint.load_trained(path)[0]
    assert (net.config.steps, net.stack.layers[0].cell.activation) == (49, "leaky_relu")
    assert logged(data / "run", "val_error")[-1] < 5
    assert run("evaluate", path, "--split", "val", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "means of 4 x 4 pixels in an order drawn from" in told["protocol"]


def test_copying_is_told_beside_who_has_no_memory(data, capsys):
    small = ("--hidden", "16", "--length", "2", "--cell", "goru", "--rows", "16", "--epoch", "5", "--warmup", "1", "--no-progress")
    assert run("train", "copying", *small, "--steps", "10", "--decay", "5", "--out", data / "run") == 0
    assert logged(data / "run", "val_nats")[-1] < 2.5  # of ten symbols alike 2.303
    assert run("evaluate", data / "run" / "model.pt", "--split", "val", "--json") == 0
    nats, wrong = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (nats["name"], wrong["name"]) == ("val_nats", "val_wrong")
    assert "without memory 0.9452" in nats["protocol"]  # 10 log 8 / 22


@pytest.mark.parametrize("task", ["adding", "pmnist", "ptb-char", "ptb-word"])
def test_a_resumed_run_ends_with_the_weights_of_the_unbroken_one(task, data):
    whole = train(task, data / "whole", "--steps", "30", "--decay", "10")
    train(task, data / "cut", "--steps", "20", "--decay", "0")
    before = checkpoint.load_trained(data / "cut" / "model.pt")[1].work
    cut = train(task, data / "cut", "--steps", "30", "--decay", "10", "--resume")
    a, b = (torch.load(p, weights_only=True)["weights"] for p in (whole, cut))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-5, msg=name)
    assert checkpoint.load_trained(cut)[1].work > before


def test_time_to_stop_is_counted_in_work_and_the_run_goes_on_later(data):
    path = train("adding", data / "run", "--steps", "100", "--decay", "20", "--max-time", "0")
    assert checkpoint.load_trained(path)[1].steps == 10  # one epoch, then it is over
    train("adding", data / "run", "--steps", "100", "--decay", "20", "--resume")
    assert checkpoint.load_trained(path)[1].steps == 100


def test_a_process_that_waits_does_no_work(monkeypatch):
    clock = iter([100.0, 160.0, 160.0])
    monkeypatch.setattr("indrnn.model.training.training.time.process_time", lambda: next(clock))
    work = Work(before=3)
    assert work.here() == 1 / torch.get_num_threads()
    assert work.minutes() == 3 + 1 / torch.get_num_threads()


def test_reproduce_trains_measures_once_and_prints_the_row(data, capsys, monkeypatch):
    options = (*SMALL["adding"], "--epoch", "10", "--steps", "20", "--decay", "10")
    published = ((*options, "--seed", "1"), (*options, "--seed", "2"))
    monkeypatch.setitem(TASKS, "adding", dataclasses.replace(TASKS["adding"], published=published))
    rows = []
    for _ in range(2):  # the second time nothing is left to train or to measure
        assert run("reproduce", "adding", "--out", data / "again", "--no-progress") == 0
        lines = capsys.readouterr().out.splitlines()
        header = lines.index(reproduce.HEADER.splitlines()[0])
        rows.append(lines[header + 2 :])
    assert rows[0] == rows[1]
    cells = [[c.strip() for c in row.strip("|").split("|")] for row in rows[0]]
    assert [c[:2] + c[3:6] for c in cells] == [["adding", "test_mse", "1", seed, "20"] for seed in "12"]
    assert float(cells[0][2]) != float(cells[1][2])
    assert cells[0][-1].startswith("`indrnn train adding --length 6")
    assert str(data) not in cells[0][-1]


def test_every_task_s_published_options_are_ones_it_takes(capsys):
    from indrnn.__main__ import build_parser

    for name, task in TASKS.items():
        for options in task.published:
            args = build_parser().parse_args(["train", name, *options])
            assert args.steps >= args.decay


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("adding", ["--length", "1"], "two steps and more"),
        ("mnist", ["--kind", "residual", "--layers", "6"], "odd number of layers"),
        ("mnist", ["--kind", "subsampled"], "784 steps, got 4 ^ 5: a window of 3 or 5 layers at most"),
        ("adding", ["--kind", "subsampled", "--length", "100", "--layers", "5"], "100 steps, got 4 ^ 4: a window of 3 or 4 layers at most"),
        ("adding", ["--norm-penalty", "1", "--checkpoint-activations"], "--no-checkpoint-activations"),
        ("mnist", ["--norm-penalty", "1", "--checkpoint-activations"], "--no-checkpoint-activations"),
        ("adding", ["--norm-penalty", "1", "--optimizer", "lbfgs"], "--optimizer lbfgs: expected --norm-penalty 0"),
    ],
    ids=str,
)
def test_sizes_that_make_no_sense_are_refused_in_one_line_before_anything_is_written(task, options, said, data, capsys):
    assert run("train", task, *options, "--no-progress", "--out", data / "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (data / "run").exists()
