"""The stories task: where somebody is, or where what they carry is, told in 10 to 50 sentences; a memory, or any cell word by word."""

from dataclasses import dataclass, field
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.cells.classic.memory import Memory
from indrnn.model.data.texts import stories as data
from indrnn.model.data.texts.stories import Stories
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.stories import MemoryNet, StoriesConfig, StoryNet
from indrnn.model.nets.wordwise import WordwiseNet
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.learner import Learner, Recipe
from indrnn.model.training.options import SEQUENCES, SMOOTHING
from indrnn.model.training.task import Figures, Job, Task, figure

MEASURED = {"val": 1000, "test": 2000}  # stories of either kind
ROWS = 250  # stories measured at once
KINDS = {1: "one", 2: "two"}
FACTS = (*KINDS, 0)  # sentences that a question rests on; 0: some stories of one, some of two


@dataclass(frozen=True)
class StoriesRecipe(Recipe):
    """facts: what is asked. told: stories to learn from, of each kind. rows B of a batch.

    empty: how often a sentence is followed by an empty slot in training, so that no answer hangs on an exact age ("random noise", section
    4.1 of the memory network's paper). linear: the part of the steps that are made without softmax in the memory ("linear start", 4.2).
    """

    rate: float = 5e-3
    precision: str = "32-true"
    epoch: int = 500
    facts: int = field(default=0, metadata={"choices": FACTS, "help": "sentences that a question rests on; 0: one or two"})
    told: int = field(default=10_000, metadata={"help": "stories to learn from, of each number of facts"})
    rows: int = field(default=32, metadata=SEQUENCES)
    empty: float = field(default=0.1, metadata={"help": "memory: how often an empty slot follows a sentence in training"})
    smoothing: float = field(default=0.1, metadata=SMOOTHING)
    linear: float = field(default=0.0, metadata={"help": "memory: part of the steps that are made without softmax"})


class StoriesLearner(Learner[StoryNet, StoriesRecipe]):
    """Classification of the answer to the question that ends a story."""

    def __init__(
        self, config: StoriesConfig, recipe: StoriesRecipe, train: list[Stories], validation: dict[int, Stories], seed: int
    ) -> None:
        super().__init__(network(config), recipe, seed)
        self.train_stories = joined(train)
        self.validation = validation

    def loss(self, step: int) -> Tensor:
        """Return the mean cross-entropy in nats."""
        rng = np.random.default_rng([self.seed, step])
        stories = self.train_stories
        chosen = rng.integers(len(stories.answers), size=self.recipe.rows)
        told, lengths = stories.told[chosen], stories.lengths[chosen]
        if isinstance(self.net, MemoryNet):
            told, lengths = with_gaps(told, lengths, self.recipe.empty, rng)
            self.net.memory.linear = step < self.recipe.linear * self.recipe.steps
        answers = torch.from_numpy(stories.answers[chosen]).to(self.device)
        return F.cross_entropy(
            self.net.ask(*self.tensors(told, lengths, stories.asked[chosen])), answers, label_smoothing=self.recipe.smoothing
        )

    def tensors(self, *parts: NDArray[Any]) -> list[Tensor]:
        """Return arrays as tensors of int64."""
        return [torch.from_numpy(part.astype(np.int64)).to(self.device) for part in parts]

    def validate(self) -> dict[str, float]:
        """Return the accuracy on stories of validation, of each number of facts."""
        folded = self.folded()
        return {f"val_{KINDS[facts]}": accuracy(folded, stories) for facts, stories in self.validation.items()}


def network(config: StoriesConfig) -> StoryNet:
    """Return the network that a configuration describes."""
    return (MemoryNet if config.cell == Memory.name else WordwiseNet)(config)


def joined(parts: list[Stories]) -> Stories:
    """Return stories of several kinds as one set."""
    return Stories(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("told", "lengths", "asked", "answers")))


def with_gaps(
    told: NDArray[np.uint8], lengths: NDArray[np.int64], share: float, rng: Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return stories told [B, T, W], lengths [B] in which a share of the sentences is followed by an empty one."""
    B, T, W = told.shape
    gaps = rng.random((B, T)) < share
    before: NDArray[np.int64] = np.cumsum(gaps, 1) - gaps  # [B, T] empty ones before each sentence
    spread = np.zeros((B, T + int(before.max()), W), np.uint8)
    spread[np.arange(B)[:, None], np.arange(T) + before] = told
    return spread, lengths + before[np.arange(B), lengths - 1]


@torch.no_grad()
def accuracy(net: StoryNet, stories: Stories) -> float:
    """Return the percentage of questions that are answered with their place."""
    right = 0
    for i in range(0, len(stories.answers), ROWS):
        told, lengths, asked, answers = (
            torch.from_numpy(part[i : i + ROWS].astype(np.int64))
            for part in (stories.told, stories.lengths, stories.asked, stories.answers)
        )
        right += int((net.ask(told, lengths, asked).argmax(1) == answers).sum())
    return 100 * right / len(stories.answers)


def kinds(facts: int) -> tuple[int, ...]:
    """Return the numbers of facts that a recipe's stories have."""
    return (facts,) if facts else tuple(KINDS)


def begin(job: Job, config: dict[str, Any], recipe: StoriesRecipe) -> tuple[StoriesLearner, Meta]:
    """Nothing to read: the stories are made up."""
    facts = kinds(recipe.facts)
    train = [data.draw(recipe.told, f, "train") for f in facts]
    validation = {f: data.draw(MEASURED["val"], f, "val") for f in facts}
    lightning.seed_everything(job.seed, verbose=False)
    sizes = StoriesConfig(words=len(data.WORDS), width=data.WIDTH, classes=len(data.PLACES), **config)
    learner = StoriesLearner(sizes, recipe, train, validation, job.seed)
    told = {"words": data.WORDS, "width": data.WIDTH}
    clips = {"facts": recipe.facts, "told": recipe.told}
    return learner, Meta("stories", job.command, job.seed, job.steps, labels=data.PLACES, data=(DATA,), told=told, clips=clips)


DATA = {
    "name": "made-up stories",
    "terms": "none: they are made by model/data/texts/stories.py",
    "citation": "model/data/texts/stories.py, whose seeds are written there; after Weston et al., 2015 (arXiv 1502.05698)",
}


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Return the accuracy on questions of each number of facts, all of pairs that no story of training has."""
    assert isinstance(net, StoryNet)
    rows = []
    for facts in kinds(meta.clips["facts"]):
        stories = data.draw(MEASURED[split], facts, split)
        common = np.bincount(data.draw(meta.clips["told"], facts, "train").answers).argmax()
        blind = 100 * float(np.mean(stories.answers == common))
        protocol = (
            f"{len(stories.answers):,} stories of 10 to 50 sentences, a question on {KINDS[facts]} of them, of pairs that no story of "
            f"training has; the most frequent answer in training has {blind:.1f} %"
        )
        rows.append(figure(f"{split}_{KINDS[facts]}", accuracy(net, stories), "%", protocol))
    return tuple(rows)


TASK = Task(
    "stories",
    StoriesConfig,
    StoriesRecipe,
    begin,
    figures,
    "test_two",
    "where somebody is, or where what they carry is: a memory network on made-up stories",
    steps=8000,
    decay=3000,
    given=frozenset({"words", "width", "classes"}),
)
