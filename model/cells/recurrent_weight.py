"""The recurrent weights U and what is particular about them: where they start, that they are bounded, and that they do not decay."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class SizeError(ValueError):
    """A network of such sizes makes no sense; the message says what was expected and what came."""


def bound(gamma: float, steps: int) -> float:
    """gamma^(1/T): with |u| below it, gradients of a relu neuron grow at most gamma-fold over T steps (Li et al., 2018, section 4.1).

    Raises SizeError.
    """
    if gamma <= 0 or steps < 1:
        raise SizeError(f"expected gamma above 0 and at least one step, got {gamma} and {steps}")
    return float(gamma ** (1 / steps))


class Recurrent(nn.Module, ABC):
    """A module with recurrent weights of its own. `bound`: what |u| may not exceed after an optimiser's step, None for no bound."""

    bound: float | None

    @abstractmethod
    def recurrent_weights(self) -> Iterator[nn.Parameter]:
        """Return each U [H] of this module, not of the modules within."""


class Directed(nn.Module, ABC):
    """A module with weights that are angles, or vectors of which the direction alone counts: their size says nothing that could decay."""

    @abstractmethod
    def directions(self) -> Iterator[nn.Parameter]:
        """Return each of these weights of this module, not of the modules within."""


def recurrent_weights(net: nn.Module) -> Iterator[nn.Parameter]:
    """Return every U of the net."""
    for module in net.modules():
        if isinstance(module, Recurrent):
            yield from module.recurrent_weights()


@torch.no_grad()
def clamp_recurrent_(net: nn.Module) -> None:
    """Projects every U of the net back to its bound, |u| <= bound (Li et al., 2019, section 3.1); call after each optimiser step.

    The bound is symmetric: trained neurons do turn negative (section 5.2.4, figure 5).
    """
    for module in net.modules():
        if isinstance(module, Recurrent) and module.bound is not None:
            for u in module.recurrent_weights():
                u.clamp_(-module.bound, module.bound)


def clamp_after_steps(optimizer: Optimizer, net: nn.Module) -> RemovableHandle:
    """Has the optimiser call `clamp_recurrent_` after each of its steps; `.remove()` on what is returned ends it."""

    def clamp(*_: Any) -> None:
        clamp_recurrent_(net)

    return optimizer.register_step_post_hook(clamp)


def parameter_groups(net: nn.Module, weight_decay: float, spare_directions: bool = True) -> list[dict[str, Any]]:
    """Three groups for an optimiser: weights of linear maps and convolutions, which decay, all others, which do not, and U, which does not.

    U, biases, norms and embeddings do not decay (Li et al., 2019, section 5.1). A decaying U forgets. What counts as a weight: every
    parameter of two axes or more that no embedding owns and that is no angle or direction (`Directed`). Parameters that are not
    trained are left out; a group may be empty. spare_directions: False groups them as runs did that were begun before they were spared.
    """
    recurrent = [u for u in recurrent_weights(net) if u.requires_grad]
    of_u = {id(u) for u in recurrent}
    spared = {id(p) for m in net.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    if spare_directions:
        spared |= {id(p) for m in net.modules() if isinstance(m, Directed) for p in m.directions()}
    others = [p for p in net.parameters() if p.requires_grad and id(p) not in of_u]
    decayed = [p for p in others if p.dim() > 1 and id(p) not in spared]
    rest = [p for p in others if p.dim() <= 1 or id(p) in spared]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
        {"params": recurrent, "weight_decay": 0.0},
    ]
