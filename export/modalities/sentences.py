"""Sentences: x [B, T, W] float32, numbers of words, 0 past a sentence's end; answers are scores of what is asked.

Word k of the manifest has the number k + 1. x is float32, and not int64 as text is: a word is no symbol that comes next, and never scored.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from indrnn.export.modalities.modality import Content, Modality, Sample

QUESTION = "?"  # the word that makes a sentence a question
SLOTS = "slots"  # the part of a memory network's state that holds sentences (model/cells/classic/memory.py)


class SentencesContent(Modality):
    """Sentences of a few words, told or asked."""

    name = "sentences"
    kind = "stories"
    reads = "sentences"
    unexplained = "numbers of words have no gradient"
    fields = ("labels", "words", "width")

    def check(self, m: Content, state: Mapping[str, int]) -> None:
        """Raise ValueError as the class says."""
        if m.labels is None or not m.words or m.width is None:
            raise ValueError("a bundle of sentences has labels, words and width")
        if len(set(m.words)) != len(m.words) or any(word != word.lower() or word.split() != [word] for word in m.words):
            raise ValueError("words: expected different ones, in small letters and without blanks")
        if m.words[0] != QUESTION:
            raise ValueError(f"words: expected {QUESTION!r} first, which makes a sentence a question, got {m.words[0]!r}")
        if m.alphabet is not None or m.other_below is not None:
            raise ValueError("a bundle of sentences has neither an alphabet nor other_below")

    def step(self, m: Content) -> tuple[int, ...]:
        """Return (W,). Raises ValueError where a checkpoint does not say which."""
        if m.width is None or not m.words:
            raise ValueError("expected a network of sentences to state its words and their most in a sentence, got none")
        return (m.width,)

    def answers(self, m: Content) -> int:
        """Return how many answers there are."""
        return len(m.labels or ())

    def sample(self, m: Content) -> Sample:
        """Return sentences of words at random, some of them questions."""
        (width,) = self.step(m)
        return sentences(len(m.words or ()), width)

    def what(self, m: Content) -> str:
        """Return what a network of sentences does."""
        return "Reads a story sentence by sentence and answers questions on it."

    def contract(self, m: Content) -> str:
        """Return what word numbers and scores are."""
        return (
            f"`x` is a row of {m.width} word numbers for each sentence, told or asked: those of the list below, and 0 past the sentence's "
            f"end. A sentence with `{QUESTION}` is a question. `logits` are scores of the {self.answers(m)} answers below; behind a "
            "sentence that is told they say nothing."
        )

    def limits(self, m: Content, data: tuple[str, ...]) -> str:
        """Return what its answers are worth."""
        return (
            "It knows the words below and the sentences that its stories are made of, and nothing of the world; it answers every question "
            "with one of its answers, also where the story does not say."
        )

    def sections(self, m: Content) -> list[str]:
        """Return the words and the answers."""
        words = ", ".join(f"{k} `{word}`" for k, word in enumerate(m.words or (), 1))
        return [f"## Words\n\n{words}", "## Answers\n\n" + ", ".join(m.labels or ())]


def no_word(numbers: NDArray[np.generic], words: int, width: int | None, kept: bool = False) -> tuple[int, str] | None:
    """Return the place of the first of finite numbers of sentences that is neither a word's nor a 0 past the end, and what is said of it.

    None where all are. words: how many there are. width: in a sentence at most; None: where one ends is not looked at.
    kept: the numbers are of sentences in a memory, which keeps no question.
    """
    flat: NDArray[np.float64] = numbers.reshape(-1).astype(np.float64)
    least = 2 if kept else 1
    odd = np.flatnonzero((flat != 0) & ((flat < least) | (flat > words) | (flat != np.trunc(flat))))
    if len(odd):
        return int(odd[0]), f"expected 0 or the number of a word, from {least} to {words}, got {flat[odd[0]]:g}"
    if width is None:
        return None
    sentences = flat.reshape(-1, width)
    row, place = np.nonzero((sentences[:, :-1] == 0) & (sentences[:, 1:] != 0))
    if not len(row):
        return None
    at = int(row[0]) * width + int(place[0]) + 1
    return at, f"expected 0 past a sentence's end, got {flat[at]:g} behind a 0"


def sentences(words: int, width: int) -> Sample:
    """Return sentences of one word and more, every fourth a question."""

    def sample(rng: np.random.Generator, B: int, T: int) -> NDArray[np.float32]:
        x = rng.integers(2, max(3, words + 1), (B, T, width))
        length = rng.integers(1, width + 1, (B, T, 1))
        x *= np.arange(width) < length
        x[(np.arange(width) == length - 1) & (rng.random((B, T, 1)) < 0.25)] = 1
        return x.astype(np.float32)

    return sample
