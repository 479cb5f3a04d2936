"""The optimisers by name, and the rate that each takes where nobody says one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn, optim

from indrnn.model.cells.recurrent_weight import parameter_groups
from indrnn.model.training.optimisation.lbfgs import BatchLBFGS


class OptimiserError(Exception):
    """An optimiser cannot do what a recipe asks of it; the message says what it takes."""


@dataclass(frozen=True)
class Optimiser:
    """One of torch's optimisers.

    make: from parameters and options; options: its own, beside rate and decay. times: its rate as a multiple of the one that AdamW takes in
    the task, where that multiple means something, else the rate itself is `rate`. whole: it takes one list of parameters, so that U can
    have no rate of its own and weights cannot decay apart, and evaluates the loss of a batch more than once a step. about: on the card.
    """

    make: Callable[..., optim.Optimizer]
    about: str
    options: Mapping[str, Any] = field(default_factory=dict)
    times: float | None = None
    rate: float | None = None
    whole: bool = False

    def default_rate(self, adamw: float) -> float:
        """Return the rate that it takes by default where AdamW takes `adamw`."""
        return adamw * self.times if self.times is not None else self.rate or adamw


# Rates: see docs/training-methods.md for what each was measured to need.
OPTIMISERS: Mapping[str, Optimiser] = {
    "sgd": Optimiser(optim.SGD, "stochastic gradient descent", times=10.0),
    "momentum": Optimiser(optim.SGD, "gradient descent with momentum 0.9 (Polyak, 1964)", {"momentum": 0.9}, times=1.0),
    "nesterov": Optimiser(
        optim.SGD, "Nesterov's accelerated gradient, momentum 0.9 (Sutskever et al., 2013)", {"momentum": 0.9, "nesterov": True}, times=3.0
    ),
    "adagrad": Optimiser(optim.Adagrad, "Adagrad (Duchi et al., 2011)", times=10.0),
    "adadelta": Optimiser(optim.Adadelta, "Adadelta (Zeiler, 2012)", {"rho": 0.9}, rate=1.0),
    "rmsprop": Optimiser(optim.RMSprop, "RMSprop (Tieleman and Hinton, 2012)", {"alpha": 0.99}, times=0.5),
    "adam": Optimiser(optim.Adam, "Adam (Kingma and Ba, 2015)", {"betas": (0.9, 0.99)}, times=1.0),
    "adamw": Optimiser(optim.AdamW, "AdamW (Loshchilov and Hutter, 2019)", {"betas": (0.9, 0.99)}, times=1.0),
    "lbfgs": Optimiser(
        BatchLBFGS,
        "L-BFGS with a strong Wolfe line search (Liu and Nocedal, 1989)",
        {"max_iter": 10, "history_size": 10, "line_search_fn": "strong_wolfe"},
        rate=1.0,
        whole=True,
    ),
}


def check(name: str, weight_decay: float, recurrent_rate: float) -> None:
    """Raises OptimiserError where an optimiser of one list of parameters is asked to treat some of them apart."""
    if OPTIMISERS[name].whole and (weight_decay or recurrent_rate != 1):
        raise OptimiserError(
            f"--optimizer {name}: expected --weight-decay 0 and --recurrent-rate 1, since it treats all weights alike, got "
            f"{weight_decay:g} and {recurrent_rate:g}"
        )


def check_penalty(name: str, norm_penalty: float) -> None:
    """Raises OptimiserError where a line search would see the gradient of a penalty whose value the loss lacks."""
    if OPTIMISERS[name].whole and norm_penalty:
        raise OptimiserError(
            f"--optimizer {name}: expected --norm-penalty 0, since its line search compares losses, which lack the penalty, "
            f"got {norm_penalty:g}"
        )


def regrouped(kept: dict[str, Any], net: nn.Module) -> dict[str, Any]:
    """Return an optimiser's state, as a run keeps it, with its parameters in the groups that they have now.

    A run of angles or directions (`Directed`) may be older than the rule that these do not decay: from here on they do not. Raises
    OptimiserError for a state of other groups.
    """
    if len(kept["param_groups"]) == 1:
        return kept
    now, before = ([g["params"] for g in parameter_groups(net, 0.0, spare_directions=spare)] for spare in (True, False))
    sizes = [len(group["params"]) for group in kept["param_groups"]]
    if sizes == [len(params) for params in now]:
        return kept
    if sizes != [len(params) for params in before]:
        raise OptimiserError(
            f"expected an optimiser's state of groups of {', '.join(str(len(params)) for params in now)} weights, got of "
            f"{', '.join(str(size) for size in sizes)}: another version began the run, which cannot be gone on with"
        )
    numbers = [number for group in kept["param_groups"] for number in group["params"]]
    number_of = {id(p): number for p, number in zip((p for params in before for p in params), numbers, strict=True)}
    groups = [{**group, "params": [number_of[id(p)] for p in params]} for group, params in zip(kept["param_groups"], now, strict=True)]
    return {**kept, "param_groups": groups}


def build(name: str, net: nn.Module, rate: float, weight_decay: float) -> optim.Optimizer:
    """Return the optimiser of that name for all parameters of the net; of three groups the last is U (`parameter_groups`)."""
    kind = OPTIMISERS[name]
    if kind.whole:
        return kind.make([p for p in net.parameters() if p.requires_grad], lr=rate, **kind.options)
    return kind.make(parameter_groups(net, weight_decay), lr=rate, **kind.options)
