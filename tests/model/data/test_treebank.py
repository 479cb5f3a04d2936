"""The Penn Treebank's text, as characters and as words."""

import gzip

import numpy as np
import pytest
import torch

from indrnn.model.data import text, treebank
from indrnn.model.nets.words import WordsConfig, WordsNet
from indrnn.model.tasks.ptb_word import encoded, perplexity, vocabulary

FILES = {part: f"ptb/ptb.{name}.txt.gz" for part, name in treebank.PARTS.items()}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Three sentences where the real text is looked for."""
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    (tmp_path / "ptb").mkdir()
    for name in FILES.values():
        (tmp_path / name).write_bytes(gzip.compress(b" the <unk> fell N points \n it rose \n the end \n"))


def test_blanks_at_a_line_s_ends_are_no_characters_and_its_end_is_one(small):
    assert treebank.characters("train") == "the <unk> fell N points\nit rose\nthe end\n"


def test_every_line_ends_with_eos(small):
    assert treebank.words("val") == ["the", "<unk>", "fell", "N", "points", "<eos>", "it", "rose", "<eos>", "the", "end", "<eos>"]


def test_a_word_outside_the_vocabulary_is_an_error(small):
    assert encoded(["it", "<eos>"], vocabulary()).tolist() == [5, 0]
    with pytest.raises(KeyError):
        encoded(["zebra"], vocabulary())


def test_the_counts_are_those_of_mikolovs_preprocessing(needs):
    for name in FILES.values():
        needs(name)
    words = {part: treebank.words(part) for part in FILES}
    assert {part: len(w) for part, w in words.items()} == {"train": 929_589, "val": 73_760, "test": 82_430}
    assert len(set(words["train"])) == 10_000
    assert set(words["val"]) | set(words["test"]) <= set(words["train"])
    characters = {part: treebank.characters(part) for part in FILES}
    without_newlines = {part: len(c) - c.count("\n") for part, c in characters.items()}
    assert without_newlines == {"train": 4_975_414, "val": 389_672, "test": 438_662}
    alphabet = text.alphabet_of([characters["train"]])
    assert len(alphabet) == 50
    assert set(characters["val"]) | set(characters["test"]) <= set(alphabet)
    assert "_" not in alphabet  # the usual notation for the blank is free to be one


@pytest.fixture
def words_net():
    torch.manual_seed(0)
    return WordsNet(WordsConfig(classes=11, hidden=8, layers=2)).eval()


def test_the_words_network_is_a_uniform_guess_before_the_first_word(words_net):
    assert perplexity(words_net, np.array([3])) == pytest.approx(11)


def test_one_matrix_reads_and_answers(words_net):
    shapes = [tuple(p.shape) for p in words_net.parameters()]
    assert shapes.count((11, 8)) == 1
    x = torch.tensor([[1, 2, 3]])
    before, _ = words_net(x, torch.tensor([3]), words_net.start(1))
    with torch.no_grad():
        words_net.embedding.weight[7] += 1  # a word that is not read: what changes is its score alone
    after, _ = words_net(x, torch.tensor([3]), words_net.start(1))
    others = [k for k in range(11) if k != 7]
    torch.testing.assert_close(before[..., others], after[..., others])
    assert (before[..., 7] != after[..., 7]).all()


def test_any_split_of_words_gives_the_same_scores_and_folding_changes_none(words_net):
    x = torch.randint(0, 11, (2, 9))
    whole, end = words_net(x, torch.full((2,), 9), words_net.start(2))
    first, state = words_net(x[:, :4], torch.full((2,), 4), words_net.start(2))
    second, state = words_net(x[:, 4:], torch.full((2,), 5), state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(state, end)
    torch.testing.assert_close(words_net.fold()(x, torch.full((2,), 9), words_net.start(2))[0], whole)


def test_dropout_hides_the_same_features_at_every_step(words_net):
    words_net.train()
    dropped = words_net._dropped(torch.ones(5, 3, 8), 0.5)
    assert (dropped == dropped[:1]).all()
    assert not (dropped[0, 0] == dropped[0, 1]).all()
    words_net.eval()
    assert (words_net._dropped(torch.ones(5, 3, 8), 0.5) == 1).all()
