"""Teaching a network to say what comes next in an endless stream, whose state is carried from batch to batch."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.data import text
from indrnn.model.nets.network import StateNet
from indrnn.model.training.learner import Learner, Recipe
from indrnn.model.training.online.carried import Carrying
from indrnn.model.training.options import ONLINE, SEQUENCES


@dataclass(frozen=True)
class StreamRecipe(Recipe):
    """rows B and steps T of a batch; reset: how often a row forgets all, so that the start of a sequence is learned too.

    online: the gradient goes back to the start of the stream and not of the batch (model/training/online/traces.py).
    """

    warmup: int = 200
    average: int = 300
    epoch: int = 500
    rows: int = field(default=16, metadata=SEQUENCES)
    length: int = field(default=128, metadata={"help": "steps of a batch"})
    reset: float = field(default=0.01, metadata={"help": "how often a row forgets all"})
    online: bool = field(default=False, metadata=ONLINE)


class Batches(Protocol):
    """Batches of a stream; batch k follows batch k - 1, but in the rows that begin anew there."""

    def batch(self, k: int) -> tuple[Tensor, Tensor]:
        """Return symbols [B, T] of batch k and the symbol after each [B, T], int64."""

    def forgets(self, k: int) -> NDArray[np.bool_]:
        """Return which rows [B] begin batch k from the start."""


class StreamLearner(Carrying, Learner[StateNet, StreamRecipe]):
    """Backpropagation over symbols [n], read by B readers that go round without end, truncated or with traces; subclasses validate.

    streams: batches made in another way. unread: a symbol that is read and never to be said: no loss where it comes next.
    """

    lengths: Tensor
    parallel = False

    def __init__(
        self,
        net: StateNet,
        recipe: StreamRecipe,
        symbols: NDArray[np.int64],
        seed: int,
        streams: Batches | None = None,
        unread: int | None = None,
    ) -> None:
        super().__init__(net, recipe, seed)
        self.streams: Batches = text.Streams(symbols, recipe.rows, recipe.length) if streams is None else streams
        self.unread = -100 if unread is None else unread  # torch's own number of no class
        self.carry(self.net, recipe.rows, recipe.online, recipe.checkpoint_activations)
        self.register_buffer("lengths", torch.full((recipe.rows,), recipe.length), persistent=False)

    def loss(self, step: int) -> Tensor:
        """Return the mean cross-entropy in nats of a batch of [B, T] symbols."""
        x, target = (part.to(self.device) for part in self.streams.batch(step))
        forget = np.random.default_rng([self.seed, step]).random(len(x)) < self.recipe.reset
        forget |= self.streams.forgets(step)
        logits = self.read(self.net, step, x, self.lengths, torch.from_numpy(forget).to(self.device))
        return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=self.unread)


@torch.no_grad()
def written(net: StateNet, alphabet: str, characters: int, seed: int, unsaid: int | None = None, temperature: float = 0.8) -> str:
    """Return so many characters, drawn from a folded net that begins after a line's end, or after its first symbol where it knows none.

    unsaid: a symbol that is never drawn.
    """
    draws = torch.Generator().manual_seed(seed)
    one = torch.ones(1, dtype=torch.int64)
    symbol = one * max(0, alphabet.find("\n"))
    state, said = net.start(1), ""
    for _ in range(characters):
        logits, state = net(symbol[None], one, state)
        scores = logits[0, 0] / temperature
        if unsaid is not None:
            scores[unsaid] = -torch.inf
        symbol = torch.multinomial(scores.softmax(0), 1, generator=draws)
        said += alphabet[int(symbol)]
    return said
