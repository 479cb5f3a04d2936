"""Files and folders that a command cannot read or write are one line that names them."""

import argparse
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

from indrnn.__main__ import main
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.training import checkpoint
from indrnn.model.training.training import Bar

ROOT = Path(__file__).parents[3]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    checkpoint.save(path, CharsNet(CharsConfig(classes=2, hidden=4, layers=1)), checkpoint.Meta("chars", "", 0, 0, alphabet="ab"))
    return path


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Run a command that is refused, and return its one line."""
    assert main([str(word) for word in argv]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.endswith("\n")
    assert error.count("\n") == 1
    return error.strip()


def test_an_occupied_or_impossible_output_is_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    occupied = tmp_path / "page.md"
    occupied.write_text("a page")
    log = tmp_path / "run" / "log.txt"
    log.parent.mkdir()
    log.write_text("step 1 seconds 1 loss 2.0\nstep 2 seconds 1 loss 1.0\n")
    small = ("train", "adding", "--length", 10, "--steps", 2, "--decay", 0, "--epoch", 2, "--no-progress", "--out")
    a_file = f"{occupied}: expected a folder, got a file"
    assert refused(capsys, *small, occupied) == a_file
    assert refused(capsys, *small, occupied / "below") == a_file
    assert refused(capsys, "inspect", model, "--out", occupied) == a_file
    assert refused(capsys, *small, "/proc/x") == "/proc/x: No such file or directory"
    assert refused(capsys, "plot", "/proc/x.svg", log.parent, "--figure", "loss") == "/proc/x.svg: No such file or directory"
    assert refused(capsys, "plot", occupied / "x.svg", log.parent, "--figure", "loss") == a_file
    assert occupied.read_text() == "a page"


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one_and_no_part(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model.read_bytes()
    net, meta = checkpoint.load_trained(model)

    def full(content: object, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(model, net, meta)
    assert model.read_bytes() == before
    assert [p.name for p in model.parent.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("command", ["inspect", "evaluate", "calibrate", "export", "import"])
def test_what_is_no_checkpoint_is_one_sentence(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = "a state_dict of tensors" if command == "import" else "a model.pt that `indrnn train` wrote"
    more = {"export": [tmp_path / "bundles"], "import": ["--out", tmp_path / "net.pt"]}.get(command, [])
    (tmp_path / "empty.pt").touch()
    (tmp_path / "old.pt").write_bytes(b"\x80\x02not a pickle of tensors")
    (tmp_path / "noise.pt").write_bytes(bytes(range(256)))
    for path, got in (
        (ROOT / "README.md", "a text"),
        (ROOT / "bundles" / "action" / "1" / "model.onnx", "an ONNX graph"),
        (tmp_path / "empty.pt", "an empty file"),
        (tmp_path / "old.pt", "a file with other things in it than tensors"),
        (tmp_path / "noise.pt", "another kind of file"),
        *([(tmp_path, "a folder")] if command != "inspect" else []),
    ):
        told = refused(capsys, command, path, *more).removeprefix("export refused: ")
        assert told == f"{path}: expected {expected}, got {got}"


def test_what_is_no_bundle_is_a_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = "expected a checkpoint, or a bundle, a folder with manifest.json and model.onnx; got"
    first = ROOT / "bundles" / "action" / "1"
    for path in (ROOT / "bundles", ROOT / "bundles" / "action"):
        assert refused(capsys, "inspect", path) == f"{path}: {said} a folder without manifest.json; in it there is {first}"
    assert refused(capsys, "inspect", tmp_path) == f"{tmp_path}: {said} a folder without manifest.json"
    assert refused(capsys, "inspect", "nope") == f"nope: {said} nothing: there is no such file or folder"
    (tmp_path / "manifest.json").write_text("{}")
    assert refused(capsys, "inspect", tmp_path) == f"{tmp_path}: {said} a manifest.json without 'state'"


def test_the_progress_bar_shows_figures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TQDMProgressBar, "get_metrics", lambda self, *of: {"loss": 1.0, "v_num": "rves"})
    assert Bar().get_metrics(argparse.Namespace(), argparse.Namespace()) == {"loss": 1.0}
