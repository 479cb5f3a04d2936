"""Every task trains a GRU or an LSTM as it trains IndRNN, and `indrnn export` of it works, or says in one line why not."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from test_detect import arrays
from test_motions import write_sets
from test_skeleton import file
from test_tasks import idx

from indrnn.__main__ import main
from indrnn.export.bundle import read
from indrnn.model.cells.table import CELLS
from indrnn.model.data import mnist, treebank
from indrnn.model.tasks.table import TASKS
from indrnn.model.training import checkpoint

SMALL = ["--hidden", "8", "--epoch", "2", "--warmup", "1", "--average", "2", "--steps", "4", "--decay", "2", "--no-progress"]
OPTIONS = {
    "adding": ["--length", "6", "--rows", "8"],
    "chars": ["--rows", "4", "--length", "16", "--layers", "2"],
    "copying": ["--length", "3", "--rows", "8"],
    "detect": ["--rows", "4", "--layers", "2", "--test", "subject=3", "--held", "subject=2"],
    "mnist": ["--rows", "8", "--settling", "2", "--layers", "2"],
    "pmnist": ["--rows", "8", "--settling", "2", "--layers", "2", "--kind", "skip"],
    "ptb-char": ["--rows", "4", "--length", "16", "--layers", "2"],
    "ptb-word": ["--rows", "4", "--length", "16", "--layers", "2"],
    "skeleton": ["--rows", "8", "--clips", "1", "--layers", "2"],
    "action": ["--rows", "8", "--clips", "1", "--layers", "2", "--held", "7"],
    "motions": ["--rows", "8", "--layers", "2"],
    "nwucla": ["--rows", "8", "--layers", "2"],
    "hdm05": ["--rows", "8", "--layers", "2"],
    "ntu": ["--rows", "8", "--layers", "2", "--held", "subject=4"],
    "tensor": ["--rows", "8", "--layers", "2", "--test", "subject=3", "--held", "subject=2"],
    "stories": ["--rows", "8", "--told", "20", "--facts", "1"],
}
# The kinds that the service reads; what the others are trained for nobody could send it.
EXPORTED = {
    *("adding", "chars", "copying", "detect", "ptb-char", "skeleton", "action", "motions", "nwucla", "hdm05", "ntu", "tensor", "stories"),
}
OF_PICTURES = {"images", "strokes"}  # their layers are no cells
BOTH = ("adding", "chars", "skeleton", "tensor")  # of the others one cell each: they share their networks
CASES = [(task, cell) for i, task in enumerate(OPTIONS) for cell in (("gru", "lstm") if task in BOTH else (("gru", "lstm")[i % 2],))]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny files where each task looks for its own."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("mnist", "ptb", "text", "skeleton"):
        (folder / name).mkdir()
    for part, n in (("train", 80), ("t10k", 20)):
        (folder / "mnist" / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(rng.integers(0, 256, (n, 28, 28)).astype(np.uint8)))
        (folder / "mnist" / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(rng.integers(0, 2, n).astype(np.uint8)))
    for name in treebank.PARTS.values():
        (folder / "ptb" / f"ptb.{name}.txt.gz").write_bytes(gzip.compress(b" the cat sat on the <unk> mat \n" * 60))
    for name, words in (("shakespeare", "to be or not "), ("war_and_peace", "well, Prince ")):
        (folder / "text" / f"{name}.txt.gz").write_bytes(gzip.compress((words * 80).encode()))
    np.savez(folder / "streams.npz", **arrays())
    np.savez(folder / "numbers.npz", x=rng.normal(size=(24, 12, 3)), y=np.arange(24) % 2, subject=np.arange(24) // 8 + 1)
    skeleton, of = folder / "skeleton", np.arange(24) // 4
    file(skeleton / "mine.npz")
    file(skeleton / "utd_mhad.npz", joints=20, subject=np.arange(24) // 3 + 1)
    file(skeleton / "nwucla.npz", joints=20, view=np.arange(24) % 4 // 2 + np.arange(24) // 12 + 1)
    file(skeleton / "hdm05.npz", joints=7, test=of > 3)
    subjects = np.array([1, 2, 4, 3, 5, 6])[of]
    names = np.array([f"S001C002P{s:03}R001A{k % 2 + 1:03}" for k, s in enumerate(subjects)])
    file(skeleton / "ntu.npz", joints=25, persons=2, subject=subjects, names=names)
    return folder


@pytest.fixture(autouse=True)
def quick(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDRNN_DATA", str(data))
    monkeypatch.setattr(mnist, "HELD_OUT", 16)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)


def test_every_task_is_asked() -> None:
    assert set(OPTIONS) | OF_PICTURES == set(TASKS)


@pytest.mark.parametrize(("task", "cell"), CASES)
def test_a_task_trains_another_cell_and_its_export_works_or_says_why_not(
    task: str, cell: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if task == "motions":  # its files have the names of others' and every label of the real ones
        write_sets(tmp_path)
        monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    files = {"skeleton": "skeleton/mine.npz", "tensor": "numbers.npz", "detect": "streams.npz"}
    path = [str(data / files[task])] if task in files else []
    out = tmp_path / "run"
    assert main(["train", task, *path, "--cell", cell, *OPTIONS[task], *SMALL, "--out", str(out)]) == 0
    net, meta = checkpoint.load(out / "model.pt")
    assert (net.cell, meta.cell, torch.load(out / "model.pt")["meta"]["cell"]) == (cell, cell, cell)
    assert all(isinstance(layer.cell, CELLS[cell]) for layer in getattr(net, "classifier", net).stack.indrnns())
    capsys.readouterr()
    done = main(["export", str(out / "model.pt"), str(tmp_path / "bundles"), "--name", "net"])
    said = capsys.readouterr()
    assert done == (0 if task in EXPORTED else 1)
    if task in EXPORTED:
        m = read(tmp_path / "bundles" / "net" / "1").manifest
        assert (m.cell, m.state_size) == (cell, net.state_size)
        assert m.parity_error <= 1e-4
    else:
        (line,) = said.err.splitlines()
        assert line.startswith("export refused: expected a network of ")
        assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize("cell", ["indrnn", "tanh", "irnn", "gru", "lstm"])
def test_the_adding_problem_keeps_its_option_and_is_exported_as_a_network_of_numbers(
    cell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", "adding", "--cell", cell, *OPTIONS["adding"], *SMALL, "--out", str(out)]) == 0
    assert main(["evaluate", str(out / "model.pt")]) == 0
    capsys.readouterr()
    unbounded = cell in ("indrnn", "irnn")  # gamma^(1/T) is more than 1, and nothing else bounds the state
    assert main(["export", str(out / "model.pt"), str(tmp_path / "bundles")]) == (1 if unbounded else 0)
    if unbounded:
        (line,) = capsys.readouterr().err.splitlines()
        assert "max" in line
        assert main(["export", str(out / "model.pt"), str(tmp_path / "bundles"), "--max-position", "6"]) == 0
    m = read(tmp_path / "bundles" / "adding" / "1").manifest
    assert (m.modality, m.cell, [v.name for v in m.values or ()]) == ("tensor", cell, ["sum"])
    assert m.parity_error <= 1e-4


def test_a_start_a_penalty_and_a_subsampled_stack_are_options_of_the_command_and_the_bundle_passes_the_kit(tmp_path: Path) -> None:
    out, more = tmp_path / "run", ["--cell", "goru", "--kind", "subsampled", "--window", "2", "--h0", "learned", "--norm-penalty", "0.1"]
    assert main(["train", "adding", *more, *OPTIONS["adding"], *SMALL, "--out", str(out)]) == 0
    assert main(["export", str(out / "model.pt"), str(tmp_path / "bundles"), "--max-position", "40"]) == 0
    bundle = read(tmp_path / "bundles" / "adding" / "1")
    assert [p.role for p in bundle.manifest.state] == ["hidden", "hidden", "window", "started", "last_logits"]
    assert main(["check", str(bundle.graph.parent), "--steps", "40"]) == 0


def test_an_unknown_cell_is_refused_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "chars", "--cell", "mamba"])
    assert "invalid choice: 'mamba'" in capsys.readouterr().err


def test_a_resumed_run_of_another_cell_ends_with_the_weights_of_the_unbroken_one(tmp_path: Path) -> None:
    more = ["ptb-char", "--cell", "lstm", *OPTIONS["ptb-char"], *SMALL]
    assert main(["train", *more, "--out", str(tmp_path / "whole")]) == 0
    assert main(["train", *more, "--out", str(tmp_path / "cut"), "--steps", "2", "--decay", "0"]) == 0
    assert main(["train", *more, "--out", str(tmp_path / "cut"), "--resume"]) == 0
    whole, cut = (torch.load(tmp_path / name / "model.pt")["weights"] for name in ("whole", "cut"))
    for name in whole:
        torch.testing.assert_close(cut[name], whole[name], rtol=0, atol=1e-5, msg=name)
    assert main(["train", "ptb-char", "--cell", "gru", *OPTIONS["ptb-char"], *SMALL, "--out", str(tmp_path / "cut"), "--resume"]) == 1


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_inspect_says_that_such_a_cell_has_no_weight_to_read_memory_off(
    cell: str, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", "chars", "--cell", cell, *OPTIONS["chars"], *SMALL, "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["inspect", str(out / "model.pt")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"found none: its cell is {cell}" in line
