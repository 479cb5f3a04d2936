"""The chars task: two texts in many layouts, character by character."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from numpy.typing import NDArray

from indrnn.model.data import sets, text, typeset
from indrnn.model.data.typeset import UNKNOWN, Layout
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.nets.network import StateNet
from indrnn.model.training import warm_start
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.measure import bits_per_char
from indrnn.model.training.stream_learner import Batches, StreamLearner, StreamRecipe
from indrnn.model.training.task import Figures, Job, Task, figure

MILLION = 1_000_000
RARE = 1e-3  # a symbol that is less of the text than this, and no letter, may be missing from an alphabet
GLANCE = 40_000  # characters of a part that a look during training measures
LAYOUTS = {
    "": Layout(),
    "_70": Layout(width=70),
    "_120": Layout(width=120),
    "_paragraphs": Layout(width=None),
    "_one_line": Layout(width=typeset.WHOLE),
    "_typographic": Layout(width=100, quotes=("“", "”", "‘", "’"), dash="—", ellipsis="…"),
    "_indented": Layout(width=64, indent="  ", gap="  ", quotes=("`", "'", "'", "'")),
}
HOW = {
    "": "as printed",
    "_70": "lines of 70",
    "_120": "lines of 120",
    "_paragraphs": "a line for each paragraph",
    "_one_line": "one line",
    "_typographic": "lines of 100, typographic marks",
    "_indented": "indented, lines of 64, two blanks between sentences, old typewriter's quotes",
}


@dataclass(frozen=True)
class CharsRecipe(StreamRecipe):
    """begin_with: a bundle whose weights training begins with."""

    begin_with: str = field(default="", metadata={"help": "a bundle of text, bundles/<name>/<version>, whose weights it begins with"})


class CharsLearner(StreamLearner):
    """Learns from the training parts of some texts, joined; each text has a validation part of its own."""

    def __init__(
        self,
        config: CharsConfig,
        recipe: StreamRecipe,
        alphabet: str,
        parts: dict[str, dict[str, str]],
        seed: int,
        streams: Batches | None = None,
    ) -> None:
        unread = config.classes - 1 if config.unknown else None
        joined = np.zeros(0, np.int64) if streams else np.concatenate([text.encode(p["train"], alphabet) for p in parts.values()])
        super().__init__(CharsNet(config), recipe, joined, seed, streams, unread)
        self.validation = {name: _glance(p["val"], alphabet) for name, p in parts.items()} if streams else {}
        if not streams:
            self.validation = {name: {"": text.encode(p["val"], alphabet)} for name, p in parts.items()}

    def validate(self) -> dict[str, float]:
        """Bits per character of each text's validation part, or of the beginning of it in each layout."""
        folded = self.folded()
        return {
            f"val_bpc_{name}{layout}": bits_per_char(folded, symbols, rows=16 if not layout else 4, unread=self.unread)
            for name, layouts in self.validation.items()
            for layout, symbols in layouts.items()
        }


def _glance(part: str, alphabet: str) -> dict[str, NDArray[np.int64]]:
    """Return the beginning of a part, in each layout."""
    return {name: text.encode_all(typeset.typeset(part[:GLANCE], layout), alphabet, UNKNOWN) for name, layout in LAYOUTS.items()}


def begin(job: Job, config: dict[str, Any], recipe: StreamRecipe) -> tuple[CharsLearner, Meta]:
    """Reads both texts; the alphabet is that of their training parts, what layouts add, and a place for all others."""
    parts = {name: text.read(name) for name in text.TEXTS}
    train = "\n\n".join(p["train"] for p in parts.values())
    alphabet = text.alphabet_of([train, typeset.TYPOGRAPHIC]) + UNKNOWN
    count = Counter(train)
    rare = "".join(c for c in alphabet[:-1] if count[c] < RARE * len(train) and not ("a" <= c.lower() <= "z"))
    lightning.seed_everything(job.seed, verbose=False)
    streams = typeset.Settings(train, {c: i for i, c in enumerate(alphabet)}, rare, recipe.rows, recipe.length, job.seed)
    sizes = CharsConfig(classes=len(alphabet), unknown=True, **config)
    learner = CharsLearner(sizes, recipe, alphabet, parts, job.seed, streams)
    bundle = getattr(recipe, "begin_with", "")
    if bundle and not job.resume:
        warm_start.begin_(learner.net, alphabet, Path(bundle), [streams.batch(k)[0] for k in range(0, 640, 16)])
        learner.averaged.load_state_dict(learner.net.state_dict())
    sources = (sets.SHAKESPEARE, sets.WAR_AND_PEACE)
    return learner, Meta("chars", job.command, job.seed, job.steps, alphabet=alphabet, data=sources)


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Bits per character of each text's part; of the novel's also by a state that has read a million characters before."""
    protocol = f"{split} part of the text, one pass, running statistics, from a zero state, every character scored before it is read"
    alphabet = meta.alphabet or ""
    texts = {name: {part: text.encode(s, alphabet) for part, s in text.read(name).items()} for name in text.TEXTS}
    measured = [(name, bits_per_char(net, parts[split]), protocol) for name, parts in texts.items()]
    novel = texts["war_and_peace"]
    late = bits_per_char(net, novel[split], before=novel["train"][:MILLION])
    measured.append(("war_and_peace_late", late, f"{protocol}, after a million characters of the training part"))
    return tuple(figure(f"{split}_bpc_{name}", bits, "bits per character", how) for name, bits, how in measured)


SUMMARY = "characters of Shakespeare and of War and Peace"
TASK = Task(
    "chars",
    CharsConfig,
    CharsRecipe,
    begin,
    figures,
    "test_bpc_war_and_peace",
    SUMMARY,
    steps=12000,
    decay=4500,
    given=frozenset({"classes", "unknown"}),
)
