"""The chars task: two texts, character by character."""

from typing import Any

import lightning
import numpy as np

from indrnn.model.data import sets, text
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.nets.network import StateNet
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.measure import bits_per_char
from indrnn.model.training.stream_learner import StreamLearner, StreamRecipe
from indrnn.model.training.task import Figures, Job, Task, figure

MILLION = 1_000_000


class CharsLearner(StreamLearner):
    """Learns from the training parts of some texts, joined; each text has a validation part of its own."""

    def __init__(self, config: CharsConfig, recipe: StreamRecipe, alphabet: str, parts: dict[str, dict[str, str]], seed: int) -> None:
        joined = np.concatenate([text.encode(p["train"], alphabet) for p in parts.values()])
        super().__init__(CharsNet(config), recipe, joined, seed)
        self.validation = {name: text.encode(p["val"], alphabet) for name, p in parts.items()}

    def validate(self) -> dict[str, float]:
        """Bits per character of each text's validation part."""
        folded = self.folded()
        return {f"val_bpc_{name}": bits_per_char(folded, symbols, rows=16) for name, symbols in self.validation.items()}


def begin(job: Job, config: dict[str, Any], recipe: StreamRecipe) -> tuple[CharsLearner, Meta]:
    """Reads both texts; the alphabet is that of their training parts."""
    parts = {name: text.read(name) for name in text.TEXTS}
    alphabet = text.alphabet_of([p["train"] for p in parts.values()])
    lightning.seed_everything(job.seed, verbose=False)
    learner = CharsLearner(CharsConfig(classes=len(alphabet), **config), recipe, alphabet, parts, job.seed)
    sources = (sets.SHAKESPEARE, sets.WAR_AND_PEACE)
    return learner, Meta("chars", job.command, job.seed, job.steps, alphabet=alphabet, data=sources)


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Bits per character of each text's part; of the novel's also by a state that has read a million characters before."""
    protocol = f"{split} part of the text, one pass, running statistics, from a zero state, every character scored before it is read"
    texts = {name: {part: text.encode(s, meta.alphabet or "") for part, s in text.read(name).items()} for name in text.TEXTS}
    measured = [(name, bits_per_char(net, parts[split]), protocol) for name, parts in texts.items()]
    novel = texts["war_and_peace"]
    late = bits_per_char(net, novel[split], before=novel["train"][:MILLION])
    measured.append(("war_and_peace_late", late, f"{protocol}, after a million characters of the training part"))
    return tuple(figure(f"{split}_bpc_{name}", bits, "bits per character", how) for name, bits, how in measured)


SUMMARY = "characters of Shakespeare and of War and Peace"
TASK = Task("chars", CharsConfig, StreamRecipe, begin, figures, "test_bpc_war_and_peace", SUMMARY, steps=12000, decay=4500)
