"""The Penn Treebank in Mikolov's preprocessing: 10,000 word types, `<unk>` and `N` for the others and for numbers, as characters or words.

A line of the files is one sentence, words between single blanks. As characters a blank stands between words and a newline ends each line
(the usual notation writes `_` for the blank); as words `<eos>` ends each line.
"""

from indrnn.model.data.formats import gzipped
from indrnn.model.data.sets import find

PARTS = {"train": "train", "val": "valid", "test": "test"}
EOS = "<eos>"
LEAST = 2  # words of a part: the second is what the first is asked for


def lines(part: str) -> list[str]:
    """Return the lines of `train`, `val` or `test`, without blanks at their ends. Raises DataMissingError, GzippedError."""
    path = find(f"ptb/ptb.{PARTS[part]}.txt.gz")
    content = gzipped.text(path)
    if len(content.split()) < LEAST:
        raise gzipped.GzippedError(f"{path}: expected sentences of {LEAST} words and more in all, got {len(content.split())}")
    return [line.strip() for line in content.splitlines()]


def characters(part: str) -> str:
    """Return the part as one text."""
    return "".join(line + "\n" for line in lines(part))


def words(part: str) -> list[str]:
    """Return the part as words."""
    return [word for line in lines(part) for word in (*line.split(), EOS)]
