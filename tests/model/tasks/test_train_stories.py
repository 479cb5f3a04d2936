"""`indrnn train stories`: from made-up stories to figures and to a bundle that passes the kit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from indrnn.__main__ import main
from indrnn.export.bundle import read
from indrnn.model.data.texts import stories as data
from indrnn.model.nets.stories import MemoryNet, StoriesConfig
from indrnn.model.tasks.drawn import stories
from indrnn.model.tasks.drawn.stories import StoriesLearner, StoriesRecipe, accuracy, with_gaps
from indrnn.model.training import checkpoint

SMALL = ["--told", "40", "--hidden", "8", "--rows", "8", "--epoch", "4", "--steps", "8", "--decay", "4", "--no-progress"]
SIZES = {"words": len(data.WORDS), "width": data.WIDTH, "classes": len(data.PLACES)}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stories, "MEASURED", {"val": 40, "test": 60})


def test_a_memory_is_trained_measured_exported_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", "stories", *SMALL, "--slots", "12", "--linear", "0.5", "--out", str(out)]) == 0
    assert "val_one" in (out / "log.txt").read_text()
    assert main(["evaluate", str(out / "model.pt"), "--split", "test", "--record"]) == 0
    capsys.readouterr()
    assert main(["export", str(out / "model.pt"), str(tmp_path / "bundles")]) == 0
    bundle = read(tmp_path / "bundles" / "stories" / "1")
    m = bundle.manifest
    assert (m.modality, m.cell, m.state_size, m.words, m.width) == ("sentences", "memory", 12 * data.WIDTH + 8, data.WORDS, data.WIDTH)
    assert [f.name for f in m.figures] == ["test_one", "test_two"]
    assert [f.test_evaluations for f in m.figures] == [1, 1]
    assert "of pairs that no story of training has; the most frequent answer in training has" in m.figures[0].protocol
    card = (bundle.graph.parent / "CARD.md").read_text()
    assert "End-to-end memory network (Sukhbaatar et al., NIPS 2015): 72 word numbers in its slots" in card
    assert "1 `?`, 2 `anna`" in card
    assert main(["check", str(bundle.graph.parent), "--steps", "200"]) == 0
    capsys.readouterr()
    assert main(["export", str(out / "model.pt"), str(tmp_path / "bundles"), "--version", "2", "--explain"]) == 1
    assert capsys.readouterr().err.startswith("export refused: no explanation of a network of ")


def test_an_lstm_reads_the_same_stories_word_by_word(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["train", "stories", "--facts", "2", "--cell", "lstm", *SMALL, "--out", str(out)]) == 0
    net, meta = checkpoint.load(out / "model.pt")
    assert (net.cell, meta.cell, meta.clips) == ("lstm", "lstm", {"facts": 2, "told": 40})
    assert [f["name"] for f in stories.figures(net, meta, "val")] == ["val_two"]


def test_a_memory_learns_a_few_stories_by_heart() -> None:
    """Five stories, each of its own answer: what a gradient that is not lost does in a hundred steps."""
    drawn = data.draw(40, 1, "train")
    torch.manual_seed(0)
    learner = StoriesLearner(StoriesConfig(**SIZES, hidden=16), StoriesRecipe(150, 1, rows=40, empty=0), [drawn], {1: drawn}, 0)
    optimizer = torch.optim.Adam(learner.net.parameters(), 0.02)
    learner._device = torch.device("cpu")
    for step in range(150):
        optimizer.zero_grad()
        learner.loss(step).backward()
        optimizer.step()
    assert accuracy(learner.net.fold(), drawn) > 90


def test_softmax_comes_back_after_the_linear_start() -> None:
    drawn = data.draw(8, 1, "train")
    learner = StoriesLearner(StoriesConfig(**SIZES, hidden=8), StoriesRecipe(10, 1, rows=4, linear=0.3), [drawn], {}, 0)
    learner._device = torch.device("cpu")
    assert isinstance(learner.net, MemoryNet)
    told = []
    for step in range(10):
        learner.loss(step)
        told.append(learner.net.memory.linear)
    assert told == [True] * 3 + [False] * 7
    assert not learner.folded().memory.linear  # type: ignore[union-attr]


def test_gaps_move_sentences_apart_and_lose_none() -> None:
    drawn, rng = data.draw(30, 1, "train"), np.random.default_rng(0)
    spread, lengths = with_gaps(drawn.told, drawn.lengths, 0.3, rng)
    for told, length, far, longer in zip(drawn.told, drawn.lengths, spread, lengths, strict=True):
        np.testing.assert_array_equal(far[far.any(1)], told[:length])
        assert far[longer - 1].any(), "the last sentence told is the last"
    assert lengths.sum() > 1.2 * drawn.lengths.sum()
    same, as_before = with_gaps(drawn.told, drawn.lengths, 0.0, rng)
    np.testing.assert_array_equal(same, drawn.told)
    np.testing.assert_array_equal(as_before, drawn.lengths)
