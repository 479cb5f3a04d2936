"""Pictures of training."""

import pytest

from indrnn.__main__ import main
from indrnn.model.commands.plot import CurveError, read


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "gru"
    folder.mkdir()
    lines = ["step 10 seconds 1 loss 0.5 val_mse 0.2", "step 20 seconds 2 loss 0.4 val_mse 0.1", "step 20 seconds 3 loss 0.4 val_mse 0.15"]
    (folder / "log.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_a_curve_is_what_the_log_says_and_a_step_made_again_counts_once(run):
    assert read(run, "val_mse") == [(10, 0.2), (20, 0.15)]


def test_a_figure_that_was_not_logged_is_named_with_those_that_were(run):
    with pytest.raises(CurveError, match="val_error, got loss, seconds, val_mse"):
        read(run, "val_error")
    with pytest.raises(CurveError, match=r"no log\.txt"):
        read(run.parent, "loss")


def test_the_picture_names_its_curves_and_is_the_same_each_time(run, capsys):
    out = run.parent / "docs" / "adding.svg"
    arguments = ["plot", str(out), str(run), f"{run}=another", "--figure", "val_mse", "--log", "--level", "0.167=always 1"]
    assert main(arguments) == 0
    first = out.read_bytes()
    assert first.startswith(b"<?xml")
    for label in (b"<!-- gru -->", b"<!-- another -->", b"<!-- always 1 -->", b"<!-- val_mse -->"):
        assert label in first
    assert main(arguments) == 0
    assert out.read_bytes() == first
    assert main(["plot", str(out), str(run), "--figure", "x"]) == 1
    assert "expected figures called x" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "more", "expected"),
    [("run", [], "a picture to write first"), ("a.xyz", [], "got"), ("a.svg", ["--level", "best"], "--level VALUE=TEXT, got 'best'")],
)
def test_a_picture_that_cannot_be_drawn_is_refused_in_one_line(out, more, expected, run, capsys):
    assert main(["plot", str(run.parent / out), str(run), "--figure", "val_mse", *more]) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (run.parent / out).exists()
