"""`--delay D`: an answer comes D steps later, and has then seen what it rests on; the bundle says so and streams."""

from pathlib import Path

import numpy as np
import pytest

from indrnn.__main__ import main
from indrnn.export.bundle import read
from indrnn.kernels.runtime import ort
from indrnn.model.data.series import Series, delayed

SIZES = ["--hidden", "16", "--layers", "2", "--rows", "16", "--rate", "0.01", "--dropout", "0", "--noise", "0", "--warmup", "10"]
STEPS = ["--average", "20", "--steps", "200", "--decay", "100", "--no-progress", "--test", "fold=1/4", "--held", "none"]
AHEAD = 2


@pytest.fixture(scope="module")
def future(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences whose class at each step is the sign of the number two steps later: nobody can know it in time."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 30, 1)).astype(np.float32)
    y = np.zeros((40, 30), np.int64)
    y[:, :-AHEAD] = x[:, AHEAD:, 0] > 0
    path = tmp_path_factory.mktemp("future") / "signs.npz"
    np.savez(path, x=x, y=y)
    return path


def accuracy(out: Path, capsys: pytest.CaptureFixture[str]) -> float:
    capsys.readouterr()
    assert main(["evaluate", str(out / "model.pt"), "--split", "test"]) == 0
    said = capsys.readouterr().out
    return float(next(word for word in said.split("test_accuracy")[1].split() if word.replace(".", "").isdigit()))


def test_what_is_in_the_future_is_learned_with_a_delay_alone(future: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for delay in (0, AHEAD):
        out = tmp_path / str(delay)
        assert main(["train", "tensor", str(future), "--delay", str(delay), *SIZES, *STEPS, "--out", str(out)]) == 0
        found[delay] = accuracy(out, capsys)
    assert found[0] < 65
    assert found[AHEAD] > 85  # of the first two answers, which come before anything is due, none can be known
    assert main(["export", str(tmp_path / str(AHEAD) / "model.pt"), str(tmp_path / "b"), "--name", "net"]) == 0
    bundle = read(tmp_path / "b" / "net" / "1")
    assert bundle.manifest.delay == AHEAD
    assert f"An answer is of the step {AHEAD} steps before" in (bundle.graph.parent / "CARD.md").read_text()
    x = np.load(future)["x"][:1]
    session, state, said = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"]), None, []
    state = np.zeros((1, bundle.manifest.state_size), np.float32)
    for row in x[0]:  # as a stream
        logits, state = session.run(None, {"x": row[None, None], "lengths": np.ones(1, np.int64), "state": state})
        said.append(int(logits[0, 0].argmax()))
    right = np.mean(np.array(said[AHEAD:]) == (x[0, AHEAD:, 0] > 0))
    assert right > 0.85


def test_a_sequence_with_one_answer_cannot_be_delayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "one.npz", x=np.zeros((8, 5, 1), np.float32), y=np.arange(8) % 2)
    assert main(["train", "tensor", str(tmp_path / "one.npz"), "--delay", "2", *SIZES, *STEPS, "--out", str(tmp_path / "run")]) == 1
    assert "expected an answer for each step, to come 2 steps later, got one a sequence" in capsys.readouterr().err


def test_x_goes_on_with_its_last_row_and_y_begins_with_its_first() -> None:
    s = Series(np.arange(6, dtype=np.float32).reshape(3, 2), np.array([7, 8, 9]), 0, 1, "a")
    later = delayed(s, 2)
    assert later.x[:, 0].tolist() == [0, 2, 4, 4, 4]
    assert later.y.tolist() == [7, 7, 7, 8, 9]
    assert delayed(s, 0).y.tolist() == [7, 8, 9]
