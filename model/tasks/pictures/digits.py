"""Teaching a network to name handwritten digits, however it sees them; each pass through them in an order of its own."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.cells.norm import settle_
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.nets.pictures.images import ImagesNet
from indrnn.model.nets.pixels import PixelsNet
from indrnn.model.training.learner import Learner, Recipe
from indrnn.model.training.options import SEQUENCES, SETTLING

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]
ROWS = 250  # images measured at once


@dataclass(frozen=True)
class DigitsRecipe(Recipe):
    """rows B of a batch; settling: batches that the norms of the averaged weights are measured on."""

    warmup: int = 200
    average: int = 300
    rows: int = field(default=32, metadata=SEQUENCES)
    settling: int = field(default=50, metadata=SETTLING)


DigitsNet = TypeVar("DigitsNet", bound=PixelsNet | ImagesNet)
AnyDigitsRecipe = TypeVar("AnyDigitsRecipe", bound=DigitsRecipe)


class DigitsLearner(Learner[DigitsNet, AnyDigitsRecipe]):
    """Classification of images. Raises SizeError where a batch is larger than what there is to learn from."""

    def __init__(self, net: DigitsNet, recipe: AnyDigitsRecipe, train: Images, validation: Images, seed: int) -> None:
        super().__init__(net, recipe, seed)
        self.images, self.validation = train, validation
        if recipe.rows > len(train[0]):
            raise SizeError(f"--rows {recipe.rows}: expected at most {len(train[0]):,} rows, the images to learn from")
        self.batches = len(train[0]) // recipe.rows
        self.order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    @staticmethod
    @abstractmethod
    def read(x: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return images x [B, pixels] as the network reads them."""

    def changed(self, x: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
        """Return images x [B, pixels] as a step of training shows them; as they are, unless a subclass says otherwise."""
        return x

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images as the network reads them and classes [B] of step number `step`; a last few of each pass are left out."""
        x, y = self.images
        passes, place = divmod(step, self.batches)
        if self.order[0] != passes:
            self.order = (passes, np.random.default_rng([self.seed, passes]).permutation(len(x)))
        chosen = self.order[1][place * self.recipe.rows : (place + 1) * self.recipe.rows]
        seen = self.read(self.changed(x[chosen], step))
        return torch.from_numpy(seen).to(self.device), torch.from_numpy(y[chosen]).to(self.device)

    def loss(self, step: int) -> Tensor:
        """Return the mean cross-entropy in nats."""
        x, y = self.batch(step)
        return F.cross_entropy(self.net.answer(x), y)

    def settle(self) -> None:
        """Measures the norms' statistics on training images."""
        settle_(self.averaged, self.recipe.settling, lambda i: self.averaged.answer(self.batch(i)[0]))

    def validate(self) -> dict[str, float]:
        """Return the error on the validation images."""
        return {"val_error": self.error(self.folded(), *self.validation)}

    @classmethod
    @torch.no_grad()
    def error(cls, net: DigitsNet, x: NDArray[np.uint8], y: NDArray[np.int64]) -> float:
        """Return the percentage of images x [N, pixels] that are not answered with their class y [N]."""
        wrong = 0
        for i in range(0, len(x), ROWS):
            answers = net.answer(torch.from_numpy(cls.read(x[i : i + ROWS]))).argmax(1)
            wrong += int((answers != torch.from_numpy(y[i : i + ROWS])).sum())
        return 100 * wrong / len(x)
