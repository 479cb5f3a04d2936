"""One text in many layouts: lines as printed, wrapped anew or not at all, indents, blank lines, quotes, dashes, capitals.

A network that has seen lines of 75 characters alone counts to 75, and is lost on the line of a modern paragraph; so it is taught on a text
that changes its layout every few thousand characters. What is said stays what the author wrote.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNKNOWN = "\ufffd"  # stands in an alphabet for every symbol that the alphabet lacks
TYPOGRAPHIC = "‘’“”–—…`_\t"  # what layouts write beside the symbols of the text itself
LAP = 64  # batches that a row keeps one layout for
WHOLE, PRINTED = -1, 0  # widths: everything on one line; lines as the book has them


@dataclass(frozen=True)
class PageLayout:
    """How a text is set.

    width: characters of a line, or PRINTED, WHOLE, None: one line a paragraph. between: what stands between paragraphs. indent: before
    a paragraph's first line, margin: before every line. leading: what ends a line. quotes: four marks, double and single, opening and
    closing; the second pair None: single ones stay. gap: blanks between sentences. shouted: share of words in capitals, stressed: between
    low lines. unknown: symbols that are read as UNKNOWN, noise: share of all others that are.
    """

    width: int | None = PRINTED
    between: str = "\n\n"
    indent: str = ""
    margin: str = ""
    leading: str = "\n"
    quotes: tuple[str, str, str, str] = ('"', '"', "'", "'")
    dash: str = "--"
    ellipsis: str = "..."
    gap: str = " "
    heading: bool = False
    shouted: float = 0.0
    stressed: float = 0.0
    unknown: str = ""
    noise: float = 0.0


QUOTES = (
    (('"', '"', "'", "'"), 45),
    (("“", "”", "‘", "’"), 32),
    (("'", "'", "'", "'"), 7),
    (("‘", "’", "‘", "’"), 6),
    (("`", "'", "'", "'"), 7),
    (("``", "''", "`", "'"), 3),
)
DASHES = (("--", 48), ("—", 30), (" — ", 7), (" – ", 7), (" - ", 4), (" -- ", 4))
ELLIPSES = (("...", 70), ("…", 20), (". . .", 10))
INDENTS = (("", 50), ("  ", 15), ("    ", 14), ("   ", 5), (" ", 3), ("     ", 4), ("      ", 3), ("\t", 6))
BETWEEN = (("\n\n", 62), ("\n", 30), ("\n\n\n", 8))


def draw(rng: np.random.Generator, rare: str) -> PageLayout:
    """Return a layout at random; rare: symbols that may be missing from an alphabet."""

    def odds(share: float) -> bool:
        return bool(rng.random() < share)

    def pick(choices: Sequence[tuple[Any, int]]) -> Any:
        weights = np.array([weight for _, weight in choices], float)
        return choices[int(rng.choice(len(choices), p=weights / weights.sum()))][0]

    unknown = "".join(rng.choice(list(rare), rng.integers(1, 4))) if rare and odds(0.2) else ""
    noise = 0.002 * rng.random() if odds(0.2) else 0.0
    if odds(0.35):
        return PageLayout(unknown=unknown, noise=noise)
    width: int | None = PRINTED
    if odds(0.85):
        width = None if odds(0.4) else int(rng.integers(36, 130)) if odds(0.9) else int(rng.integers(130, 260))
    width = WHOLE if odds(0.18) else width
    return PageLayout(
        width=width,
        between=pick(BETWEEN),
        indent=pick(INDENTS),
        margin=" " * int(rng.integers(1, 11)) if odds(0.1) else "",
        leading="\n\n" if odds(0.05) else "\n",
        quotes=pick(QUOTES),
        dash=pick(DASHES),
        ellipsis=pick(ELLIPSES),
        gap="  " if odds(0.22) else " ",
        heading=odds(0.15),
        shouted=0.01 * rng.random() if odds(0.2) else 0.0,
        stressed=0.01 * rng.random() if odds(0.15) else 0.0,
        unknown=unknown,
        noise=noise,
    )


def typeset(text: str, layout: PageLayout, rng: np.random.Generator | None = None) -> str:
    """Return a text, straight quotes, -- and ... as it has them, set so; rng: for what falls on words at random, none without it."""
    text = _marks(text, layout)
    if layout.gap != " ":
        text = re.sub(r"(?<=[a-z][.!?])([\"'”’]*) (?=\S)", lambda m: m[1] + layout.gap, text)
    paragraphs = [p for p in re.split(r"\n{2,}", text.strip("\n")) if p]
    if rng is not None:
        paragraphs = [_spoken(p, layout, rng, i == 0) for i, p in enumerate(paragraphs)]
    if layout.width == WHOLE:
        done = layout.margin + " ".join(" ".join(p.split("\n")) for p in paragraphs)
    else:
        done = layout.between.join(_lines(p, layout) for p in paragraphs) + "\n"
    return _unknown(done, layout, rng)


def _marks(text: str, layout: PageLayout) -> str:
    """Quotes, dashes and ellipses."""
    opening, closing, single_opening, single_closing = layout.quotes
    if layout.quotes != PageLayout.quotes:
        text = re.sub(r"(?:^|(?<=[\s(\[-]))'(?=\w)", "\x01", text)
        text = re.sub(r'(?:^|(?<=[\s(\[-])|(?<=\x01))"(?=\S)', "\x02", text)
        text = text.replace("'", single_closing).replace('"', closing).replace("\x01", single_opening).replace("\x02", opening)
    if layout.dash != PageLayout.dash:
        text = re.sub(r" ?(?<!-)--(?!-) ?", layout.dash, text).replace(layout.dash + "\n", layout.dash.rstrip() + "\n")
    if layout.ellipsis != PageLayout.ellipsis:
        text = text.replace("...", layout.ellipsis)
    return text


def _spoken(paragraph: str, layout: PageLayout, rng: np.random.Generator, first: bool) -> str:
    """Capitals and low lines about words; with headings, a short paragraph in capitals and the beginning of the first one."""
    if layout.heading and (first or (len(paragraph) < 60 and rng.random() < 0.3)):
        end = len(paragraph) if len(paragraph) < 60 else paragraph.find(" ", int(rng.integers(4, 30)))
        paragraph = paragraph[:end].upper() + paragraph[end:]
    if layout.shouted or layout.stressed:

        def said(m: re.Match[str]) -> str:
            drawn = rng.random()
            if drawn < layout.shouted:
                return m[0].upper()
            return f"_{m[0]}_" if drawn < layout.shouted + layout.stressed else m[0]

        paragraph = re.sub(r"\b\w+\b", said, paragraph)
    return paragraph


def _lines(paragraph: str, layout: PageLayout) -> str:
    if layout.width == PRINTED:
        lines = paragraph.split("\n")
        lines[0] = layout.indent + lines[0]
    elif layout.width is None:
        lines = [layout.indent + " ".join(paragraph.split("\n"))]
    else:
        whole = paragraph.replace("\n", " ")
        lines = textwrap.wrap(
            whole, layout.width, initial_indent=layout.indent, break_long_words=False, break_on_hyphens=False, expand_tabs=False
        )
    return layout.leading.join(layout.margin + line for line in lines)


def _unknown(text: str, layout: PageLayout, rng: np.random.Generator | None) -> str:
    if layout.unknown:
        text = text.translate(dict.fromkeys(map(ord, layout.unknown), UNKNOWN))
    if rng is not None and layout.noise:
        symbols = list(text)
        for i in rng.integers(0, len(symbols), rng.binomial(len(symbols), layout.noise)):
            symbols[i] = UNKNOWN
        text = "".join(symbols)
    return text


class LayoutStreams:
    """B readers of a text, each in a layout that changes every LAP batches; where one changes, half of the readers forget all.

    text: clean, straight quotes, paragraphs with blank lines between. places: symbol -> its place in the alphabet, UNKNOWN among them.
    Batch k depends on the seed and k alone.
    """

    def __init__(self, text: str, places: dict[str, int], rare: str, rows: int, steps: int, seed: int) -> None:
        self.text, self.places, self.rare, self.rows, self.steps, self.seed = text, places, rare, rows, steps, seed
        self.lap, self.set = -1, np.zeros((0, 0), np.int64)

    def batch(self, k: int) -> tuple[Tensor, Tensor]:
        """Batch k: symbols [B, T] and the symbol after each [B, T], int64."""
        if k // LAP != self.lap:
            self.lap = k // LAP
            self.set = np.stack([self._row(self.lap, row) for row in range(self.rows)])
        at = k % LAP * self.steps
        piece = self.set[:, at : at + self.steps + 1]
        return torch.from_numpy(piece[:, :-1]), torch.from_numpy(piece[:, 1:])

    def forgets(self, k: int) -> NDArray[np.bool_]:
        """Return which rows [B] begin batch k from the start."""
        changes = k % LAP == 0
        return np.array([changes and np.random.default_rng([self.seed, k, row, 1]).random() < 0.5 for row in range(self.rows)])

    def _row(self, lap: int, row: int) -> NDArray[np.int64]:
        """Return LAP * T + 1 symbols of a piece of the text that no other row of the round reads."""
        wanted = LAP * self.steps + 1
        pieces = max(1, len(self.text) // wanted)
        turn, i = divmod(lap * self.rows + row, pieces)
        begin = int(np.random.default_rng([self.seed, turn]).permutation(pieces)[i]) * wanted
        rng = np.random.default_rng([self.seed, lap, row])
        found: list[str] = []
        while sum(map(len, found)) < wanted:
            paragraph = self.text.find("\n\n", begin) + 2
            begin = paragraph if 1 < paragraph < len(self.text) else 0
            found.append(typeset(self.text[begin : begin + wanted], draw(rng, self.rare), rng))
            begin = (begin + wanted) % len(self.text)
        unknown = self.places[UNKNOWN]
        return np.fromiter((self.places.get(c, unknown) for c in "".join(found)[:wanted]), np.int64, wanted)
