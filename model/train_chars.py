"""Teaching the chars network: endless streams of text, the state carried from batch to batch and never looked back upon further."""

from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor

from model import data, text
from model.chars import CharsConfig, CharsNet
from model.checkpoint import Meta
from model.learner import Learner, Recipe
from model.measure import bits_per_char
from model.network import StateNet
from model.task import Figures, Job, Task, figure

MILLION = 1_000_000


@dataclass(frozen=True)
class CharsRecipe(Recipe):
    """rows B and steps T of a batch; reset: how often a row forgets all, so that the start of a sequence is learned too."""

    warmup: int = 200
    average: int = 300
    epoch: int = 500
    rows: int = 16
    length: int = 128
    reset: float = 0.01


class CharsLearner(Learner[CharsNet, CharsRecipe]):
    """Truncated backpropagation through time over the training parts of both texts, joined."""

    carried: Tensor
    lengths: Tensor

    def __init__(self, config: CharsConfig, recipe: CharsRecipe, alphabet: str, parts: dict[str, dict[str, str]], seed: int) -> None:
        super().__init__(CharsNet(config), recipe, seed)
        self.alphabet = alphabet
        joined = np.concatenate([text.encode(p["train"], alphabet) for p in parts.values()])
        self.streams = text.Streams(joined, recipe.rows, recipe.length)
        self.validation = {name: text.encode(p["val"], alphabet) for name, p in parts.items()}
        self.register_buffer("carried", self.net.start(recipe.rows))
        self.register_buffer("lengths", torch.full((recipe.rows,), recipe.length), persistent=False)

    def loss(self, step: int) -> Tensor:
        """Mean cross-entropy in nats of a batch of [B, T] symbols."""
        x, target = self.streams.batch(step)
        forget = np.random.default_rng([self.seed, step]).random(len(x)) < self.recipe.reset
        state = self.carried.masked_fill(torch.from_numpy(forget)[:, None], 0)
        logits, state = self.net(x, self.lengths, state)
        self.carried = state.detach()
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())

    def validate(self) -> dict[str, float]:
        """Bits per character of each text's validation part."""
        folded = self.averaged.fold()
        return {f"val_bpc_{name}": bits_per_char(folded, symbols, rows=16) for name, symbols in self.validation.items()}


def begin(job: Job, config: dict[str, Any], recipe: CharsRecipe) -> tuple[CharsLearner, Meta]:
    """Reads both texts; the alphabet is that of their training parts."""
    parts = {name: text.read(name) for name in text.TEXTS}
    alphabet = text.alphabet_of([p["train"] for p in parts.values()])
    lightning.seed_everything(job.seed, verbose=False)
    learner = CharsLearner(CharsConfig(classes=len(alphabet), **config), recipe, alphabet, parts, job.seed)
    sources = (data.SHAKESPEARE, data.WAR_AND_PEACE)
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


TASK = Task("chars", CharsConfig, CharsRecipe, begin, figures, "test_bpc_war_and_peace", steps=12000, decay=4500)
