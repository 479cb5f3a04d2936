"""The ptb-char task: characters of the Penn Treebank, one endless stream; the network and its learner are those of chars."""

from dataclasses import dataclass
from typing import Any

import lightning

from indrnn.model.data import sets, text, treebank
from indrnn.model.nets.chars import CharsConfig
from indrnn.model.nets.network import StateNet
from indrnn.model.tasks.chars import CharsLearner
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.measure import bits_per_char
from indrnn.model.training.stream_learner import StreamRecipe
from indrnn.model.training.task import Figures, Job, Task, figure


@dataclass(frozen=True)
class PtbCharConfig(CharsConfig):
    """Sizes of the network."""

    hidden: int = 1024
    layers: int = 6
    dropout: float = 0.1


@dataclass(frozen=True)
class PtbCharRecipe(StreamRecipe):
    """The training recipe of this task; StreamRecipe explains its fields."""

    rate: float = 1.5e-3
    rows: int = 32
    length: int = 128


def begin(job: Job, config: dict[str, Any], recipe: PtbCharRecipe) -> tuple[CharsLearner, Meta]:
    """Reads the training and validation parts; the alphabet is that of the training part, 50 symbols."""
    parts = {part: treebank.characters(part) for part in ("train", "val")}
    alphabet = text.alphabet_of([parts["train"]])
    lightning.seed_everything(job.seed, verbose=False)
    sizes = CharsConfig(classes=len(alphabet), norm=not recipe.online, **config)
    learner = CharsLearner(sizes, recipe, alphabet, {"ptb": parts}, job.seed)
    return learner, Meta("chars", job.command, job.seed, job.steps, alphabet=alphabet, data=(sets.PTB,))


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Bits per character of the validation or test part."""
    symbols = text.encode(treebank.characters(split), meta.alphabet or "")
    protocol = f"{split} part, one pass, running statistics, from a zero state, every character, newlines too, scored before it is read"
    return (figure(f"{split}_bpc_ptb", bits_per_char(net, symbols), "bits per character", protocol),)


TASK = Task(
    "ptb-char",
    PtbCharConfig,
    PtbCharRecipe,
    begin,
    figures,
    headline="test_bpc_ptb",
    summary="characters of the Penn Treebank",
    steps=12000,
    decay=9000,
    published=(("--validate-every", "2"),),
    given=frozenset({"classes", "unknown"}),
)
