"""The ptb-word task: words of the Penn Treebank, one endless stream."""

from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
from numpy.typing import NDArray

from indrnn.model.data import sets, treebank
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.words import WordsConfig, WordsNet
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.measure import bits_per_char
from indrnn.model.training.stream_learner import StreamLearner, StreamRecipe
from indrnn.model.training.task import Figures, Job, Task, figure


@dataclass(frozen=True)
class PtbWordRecipe(StreamRecipe):
    """The training recipe of this task; StreamRecipe explains its fields."""

    rows: int = 32
    length: int = 64
    weight_decay: float = 0.01


def encoded(words: list[str], vocabulary: list[str]) -> NDArray[np.int64]:
    """Return the numbers [n] of words. Raises KeyError on one that the vocabulary lacks; in Mikolov's preprocessing there is none."""
    index = {word: i for i, word in enumerate(vocabulary)}
    return np.array([index[word] for word in words], np.int64)


def vocabulary() -> list[str]:
    """Return the types of the training part, sorted: 10,000."""
    return sorted(set(treebank.words("train")))


def perplexity(net: StateNet, symbols: NDArray[np.int64], rows: int = 1) -> float:
    """2 to the mean bits of a word; rows as in `bits_per_char`."""
    return float(2 ** bits_per_char(net, symbols, rows))


class WordsLearner(StreamLearner):
    """Learns from the training part."""

    def __init__(self, config: WordsConfig, recipe: PtbWordRecipe, parts: dict[str, NDArray[np.int64]], seed: int) -> None:
        super().__init__(WordsNet(config), recipe, parts["train"], seed)
        self.validation = parts["val"]

    def validate(self) -> dict[str, float]:
        """Return the perplexity of the validation part."""
        return {"val_perplexity": perplexity(self.folded(), self.validation, rows=8)}


def begin(job: Job, config: dict[str, Any], recipe: PtbWordRecipe) -> tuple[WordsLearner, Meta]:
    """Reads the training and validation parts."""
    words = vocabulary()
    parts = {part: encoded(treebank.words(part), words) for part in ("train", "val")}
    lightning.seed_everything(job.seed, verbose=False)
    learner = WordsLearner(WordsConfig(classes=len(words), **config), recipe, parts, job.seed)
    return learner, Meta("words", job.command, job.seed, job.steps, data=(sets.PTB,))


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Return the perplexity of the validation or test part."""
    symbols = encoded(treebank.words(split), vocabulary())
    protocol = f"{split} part, one pass, running statistics, from a zero state, every word, <eos> too, scored before it is read"
    return (figure(f"{split}_perplexity", perplexity(net, symbols), "", protocol),)


TASK = Task(
    "ptb-word",
    WordsConfig,
    PtbWordRecipe,
    begin,
    figures,
    "test_perplexity",
    summary="words of the Penn Treebank",
    steps=6000,
    decay=5000,
    published=(("--seed", "1", "--steps", "2500", "--decay", "2000"),),
)
