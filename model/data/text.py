"""The chars data: two texts, what of each is for training, for selection and for the published figure, and endless batches of it.

A text is NFC with \\n line ends. Of each, the last 5 % are `test`, the 5 % before them `val`, the rest `train`. The alphabet is every code
point of the training parts, sorted, however rare: a symbol seen once costs one row of the embedding, and text need not be rewritten.
"""

import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.data.formats import gzipped
from indrnn.model.data.sets import find

TEXTS = {"shakespeare": "text/shakespeare.txt.gz", "war_and_peace": "text/war_and_peace.txt.gz"}
HELD_OUT = 0.05
REPLACED = 1e-3  # of the symbols of a text that may be replaced by the unknown one


class AlphabetError(Exception):
    """A text has a symbol that the alphabet lacks; the message names it and where it stands."""


def clean(text: str) -> str:
    """NFC, \\n line ends, no byte-order mark."""
    return unicodedata.normalize("NFC", text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))


def split(text: str) -> dict[str, str]:
    """train, val and test of one text, in the order of the text."""
    n = len(text)
    test = n - round(n * HELD_OUT)
    val = test - round(n * HELD_OUT)
    return {"train": text[:val], "val": text[val:test], "test": text[test:]}


def read(name: str) -> dict[str, str]:
    """Read the three parts of the text called `name` in TEXTS. Raises DataMissingError, GzippedError."""
    return split(read_whole(TEXTS[name]))


def read_whole(name: str) -> str:
    """Return the whole clean text of a gzipped file under INDRNN_DATA. Raises DataMissingError, GzippedError."""
    return clean(gzipped.text(find(name)))


def alphabet_of(texts: list[str]) -> str:
    """Return every code point in the texts, sorted."""
    return "".join(sorted(set("".join(texts))))


def encode(text: str, alphabet: str) -> NDArray[np.int64]:
    """Return symbols [n] int64 of a clean text. Raises AlphabetError."""
    index = {c: i for i, c in enumerate(alphabet)}
    try:
        return np.fromiter((index[c] for c in text), np.int64, len(text))
    except KeyError as error:
        c = error.args[0]
        raise AlphabetError(f"expected symbols of the alphabet ({len(alphabet)}), got {c!r} at {text.index(c)}") from error


def encode_all(text: str, alphabet: str, unknown: str) -> NDArray[np.int64]:
    """Return symbols [n] int64 of a clean text; those that the alphabet lacks are its symbol `unknown`."""
    index = {c: i for i, c in enumerate(alphabet)}
    return np.fromiter((index.get(c, index[unknown]) for c in text), np.int64, len(text))


@dataclass(frozen=True)
class Streams:
    """B readers that go round a text [n] without end, started evenly spaced; batch k follows batch k - 1, so state is carried over.

    unknown: a symbol that takes the place of some, as of those in other texts that the alphabet lacks; drawn from seed and k.
    """

    text: NDArray[np.integer[Any]]
    rows: int
    steps: int
    unknown: int | None = None
    seed: int = 0

    def batch(self, k: int) -> tuple[Tensor, Tensor]:
        """Batch k: symbols [B, T] and the symbol after each [B, T], int64."""
        n = len(self.text)
        start = np.arange(self.rows)[:, None] * n // self.rows + k * self.steps
        piece = self.text[(start + np.arange(self.steps + 1)) % n].astype(np.int64)
        if self.unknown is not None:
            piece[np.random.default_rng([self.seed, k]).random(piece.shape) < REPLACED] = self.unknown
        return torch.from_numpy(piece[:, :-1]), torch.from_numpy(piece[:, 1:])

    def forgets(self, k: int) -> NDArray[np.bool_]:
        """Return no row at all: the text has no end."""
        return np.zeros(self.rows, bool)
