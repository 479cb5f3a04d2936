"""Text: x [B, T] int64, places in an alphabet; answers are scores of the next character."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from indrnn.export.modalities.modality import Content, Modality, Sample

BLANKS = {" ": "blank", "\n": "newline", "\t": "tabulator"}


class TextContent(Modality):
    """Characters one by one, from an alphabet of code points."""

    name = "text"
    kind = "chars"
    reads = "text"
    fields = ("alphabet", "unknown")
    dtype = "int64"

    def check(self, m: Content, state: Mapping[str, int]) -> None:
        """Raise ValueError as the class says."""
        if m.alphabet is None or len(set(m.alphabet)) != len(m.alphabet):
            raise ValueError("a chars bundle has an alphabet of distinct symbols")
        if m.labels is not None:
            raise ValueError("expected labels or an alphabet, got both")
        if m.unknown is not None and m.unknown not in m.alphabet:
            raise ValueError("unknown: expected a symbol of the alphabet")

    def step(self, m: Content) -> tuple[int, ...]:
        """Return no axis at all: a step is one symbol."""
        return ()

    def answers(self, m: Content) -> int:
        """Return how many symbols the alphabet has."""
        return len(m.alphabet or "")

    def sample(self, m: Content) -> Sample:
        """Return symbols as unequal as letters."""
        return symbols(self.answers(m))

    def what(self, m: Content) -> str:
        """Return what a network of text does."""
        return "Reads text character by character and says, after every character, which comes next; it can write, too."

    def contract(self, m: Content) -> str:
        """Return what symbols and scores are."""
        words = f"`x` is indices into the alphabet below; text is NFC. `logits` are scores of the next character, one of {self.answers(m)}."
        if m.unknown is None:
            return words
        place = (m.alphabet or "").index(m.unknown)
        return f"{words} Index {place} is every character that the alphabet lacks: read as such, and never the next character."

    def limits(self, m: Content, data: tuple[str, ...]) -> str:
        """Return what its text is worth."""
        return (
            "It imitates the texts it was trained on, their views and their spelling included: mostly real words, phrases that hold, "
            "sentences that do not. What it writes is neither true nor advice; it "
            "knows no words outside its alphabet and no language but that of those texts."
        )

    def sections(self, m: Content) -> list[str]:
        """Return the alphabet."""
        blanks = ", ".join(name for c, name in BLANKS.items() if c in (m.alphabet or "")).capitalize()
        shown = [
            f"U+{ord(c):04X}" if not c.isprintable() else "`` ` ``" if c == "`" else f"`{c}`"
            for c in m.alphabet or ""
            if c not in BLANKS and c != m.unknown
        ]
        text = f"{blanks}, and: " if blanks else ""
        rest = "" if m.unknown is None else f", and U+{ord(m.unknown):04X} for all others"
        return [f"## Alphabet\n\n{text}{' '.join(shown)}{rest}"]


def symbols(classes: int) -> Sample:
    """Return symbols as unequal as letters (Zipf); some rows use all of them alike."""

    def sample(rng: np.random.Generator, B: int, T: int) -> NDArray[np.int64]:
        weight = 1 / np.arange(1, classes + 1)
        x = rng.choice(classes, size=(B, T), p=weight / weight.sum())
        noise = rng.random(B) < 0.25
        x[noise] = rng.integers(0, classes, x[noise].shape)
        return x.astype(np.int64)

    return sample
