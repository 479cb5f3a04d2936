"""How a network learns, whatever it learns: optimiser, schedule, the bound on U, averaged weights. Lightning runs the loop.

One batch per step, made from the step's number and the seed alone, so that a resumed run sees what the unbroken one would have seen.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import lightning
import torch
from torch import Tensor, nn, optim

from indrnn.model.cells.recurrent_weight import clamp_recurrent_
from indrnn.model.cells.stacks import Stack
from indrnn.model.nets.network import StateNet
from indrnn.model.training.optimisation import optimisers
from indrnn.model.training.optimisation.optimisers import OPTIMISERS


@dataclass(frozen=True)
class Recipe:
    """Steps of training and how each is made.

    The rate rises over `warmup` steps, stays, and falls linearly to 0 over the last `decay` steps: until the fall begins a run does not
    depend on its length. It is AdamW's, where `optimizer` is another its own (model/training/optimisation/optimisers.py). recurrent_rate:
    U's, as a part of that: in a sequence of T steps u acts T times, so that what is a small step for a weight may be a large one for it.
    average: horizon in steps of the exponential mean of the weights, the weights that are kept. precision: of the matrix products, as
    Lightning names it; the recurrence is float32 on a CPU whatever it says. checkpoint_activations: memory grows as the square root of a
    batch's length, for more arithmetic (model/cells/chunked.py).
    """

    steps: int
    decay: int
    rate: float = field(default=2e-3, metadata={"help": "of learning", "by_optimizer": True})
    optimizer: str = field(default="adamw", metadata={"choices": OPTIMISERS, "help": "one of torch's"})
    recurrent_rate: float = field(default=1.0, metadata={"help": "of U, as a part of the rate"})
    warmup: int = field(default=100, metadata={"help": "steps over which the rate rises"})
    weight_decay: float = field(default=0.0, metadata={"help": "of all weights but U"})
    average: int = field(default=100, metadata={"help": "horizon in steps of the mean of the weights, which are what is kept"})
    clip: float = field(default=1.0, metadata={"help": "largest norm of the gradient"})
    epoch: int = field(default=100, metadata={"help": "steps between looks at validation data"})
    precision: str = field(default="bf16-mixed", metadata={"choices": ("bf16-mixed", "32-true"), "help": "of the matrix products"})
    checkpoint_activations: bool = field(default=False, metadata={"help": "memory as the square root of the length, for more arithmetic"})

    def factor(self, step: int) -> float:
        """Return the rate at a step as a part of `rate`."""
        return min(1.0, (step + 1) / max(1, self.warmup), max(0.0, (self.steps - step) / max(1, self.decay)))


Net = TypeVar("Net", bound=StateNet)
AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


class Learner(lightning.LightningModule, Generic[Net, AnyRecipe]):
    """A network in training; subclasses give `loss` of a step's number and `validate`, the figure to follow."""

    net: Net
    averaged: Net
    about: tuple[tuple[str, str], ...] = ()  # what is said before training begins: a word and what it is
    shown: dict[str, float]  # the last figures of the averaged weights, beside the progress bar
    parallel = True  # whether several processes may each draw their own batches

    def __init__(self, net: Net, recipe: AnyRecipe, seed: int) -> None:
        super().__init__()
        optimisers.check(recipe.optimizer, recipe.weight_decay, recipe.recurrent_rate)
        self.net, self.recipe, self.seed, self.shown = net, recipe, seed, {}
        for stack in net.modules():
            if isinstance(stack, Stack):
                stack.checkpoint_activations = recipe.checkpoint_activations
                optimisers.check_penalty(recipe.optimizer, stack.norm_penalty)
        self.averaged = copy.deepcopy(net).requires_grad_(False)  # never run as it is: `folded` and `settle` evaluate it

    def loss(self, step: int) -> Tensor:
        """Return the loss of the batch drawn from the number `step`, a scalar."""
        raise NotImplementedError

    def settle(self) -> None:
        """Do what the averaged weights need before they are measured and kept; nothing, unless a subclass says otherwise."""

    def folded(self) -> Net:
        """Return the averaged weights as they will be served, on the CPU, where everything is measured."""
        return self.averaged.fold().cpu()

    @property
    def number(self) -> int:
        """Return the number that this process's next batch is drawn from.

        It is the step, where there is one process; with several no two draw the same.
        """
        return self.global_step * self.trainer.world_size + self.trainer.global_rank

    def validate(self) -> dict[str, float]:
        """Return figures of the averaged weights on validation data."""
        raise NotImplementedError

    def train_dataloader(self) -> range:
        """Lightning's name for what an epoch counts through; `loss` makes the batches itself."""
        return range(self.recipe.epoch)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: the epoch that last.ckpt ends is over, and the next one ends where it would have in an unbroken run.

        Lightning, which has no validation of its own to do here, would make one step more and end the same epoch a second time. Raises
        OptimiserError where the optimiser's state is not of this network's weights.
        """
        checkpoint["optimizer_states"] = [optimisers.regrouped(kept, self.net) for kept in checkpoint["optimizer_states"]]
        loop = checkpoint["loops"]["fit_loop"]
        loop["epoch_progress"]["current"]["completed"] = loop["epoch_progress"]["current"]["processed"]
        loop["epoch_progress"]["total"]["completed"] = loop["epoch_progress"]["total"]["processed"]
        made = checkpoint["global_step"] % self.recipe.epoch  # not 0 where --steps was no multiple of --epoch
        loop["epoch_loop.batch_progress"]["current"] |= dict.fromkeys(("ready", "started", "processed", "completed"), made)

    def on_train_batch_start(self, *_: Any) -> None:
        """Sets the rate of a step."""
        groups = self.trainer.optimizers[0].param_groups
        for group, part in zip(groups, (1.0, 1.0, self.recipe.recurrent_rate), strict=False):  # as parameter_groups orders them, or one
            group["lr"] = self.recipe.rate * self.recipe.factor(self.global_step) * part

    def training_step(self, _: int) -> Tensor:
        """Lightning's name for: the loss of the next batch, with its draws of dropout. An optimiser may ask for it more than once."""
        torch.manual_seed(self.seed * 1_000_003 + self.number)
        loss = self.loss(self.number)
        self.log("loss", loss.detach(), prog_bar=True, batch_size=1)
        return loss

    def configure_optimizers(self) -> optim.Optimizer:
        """Return the recipe's optimiser; only weights decay."""
        return optimisers.build(self.recipe.optimizer, self.net, self.recipe.rate, self.recipe.weight_decay)

    def on_train_batch_end(self, *_: Any) -> None:
        """Projects U to its bound and moves the averaged weights, a plain mean at first."""
        clamp_recurrent_(self.net)
        weight = max(1 / self.global_step, 1 / self.recipe.average)
        with torch.no_grad():
            for mean, now in zip(_tensors(self.averaged), _tensors(self.net), strict=True):
                mean.lerp_(now, weight)


def _tensors(net: nn.Module) -> Iterator[Tensor]:
    yield from net.state_dict().values()
