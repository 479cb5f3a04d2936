"""Which values the options of `indrnn train` take: a value beyond is refused in one line before anything is read."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

from indrnn.ranges import within

_COUNTS = (
    "window steps validate_every devices hidden layers rows clips epoch alike average settling length joints persons looks rounds block "
    "told slots hops"
)
_SHARES = "mirror lossy lost other_rate reset swapped endless mixed strange plenty gait silence mark empty linear"  # odds and parts
_BELOW_ONE = "dropout embedding_dropout readout_dropout steady pools smoothing asked"
_NOT_NEGATIVE = (
    "decay warmup left_out horizon max_time rate recurrent_rate weight_decay clip jump unit turn tilt speed sway body bones noise spread"
    " max_wall_time drift misplaced trunk early late unsure norm_penalty delay shift"
)
_ABOVE_ZERO = "gamma bound slowest fastest quick"

# option -> (least, most, whether the least is allowed, whether the most is)
_LIMITS = (
    dict.fromkeys(_COUNTS.split(), (1.0, math.inf, True, False))
    | dict.fromkeys(_SHARES.split(), (0.0, 1.0, True, True))
    | dict.fromkeys(_BELOW_ONE.split(), (0.0, 1.0, True, False))
    | dict.fromkeys(_NOT_NEGATIVE.split(), (0.0, math.inf, True, False))
    | dict.fromkeys(_ABOVE_ZERO.split(), (0.0, math.inf, False, False))
    | {"seed": (0.0, 2.0**32 - 1, True, True), "left_out": (0.0, math.inf, True, False), "cut": (0.0, 0.5, True, False)}
)


class UnlimitedError(Exception):
    """An option that takes a number has no limits; the message names it, and where they belong."""


def require(title: str, options: Iterable[dataclasses.Field[Any]]) -> None:
    """Raises UnlimitedError unless each field that becomes an option of numbers has limits here, or choices; title: whose they are."""
    for f in options:
        one = f.default[0] if isinstance(f.default, tuple) and f.default else f.default
        number = isinstance(one, int | float | tuple) and not isinstance(one, bool)
        if number and f.name not in _LIMITS and "choices" not in f.metadata:
            raise UnlimitedError(f"{title}: the option {f.name} takes numbers: expected its limits in model/commands/limits.py, found none")


def reader(name: str, kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return what argparse reads the option `name` with, an int or a float: it refuses what is no such number or beyond its limits."""
    return within(kind, *_LIMITS[name]) if name in _LIMITS else within(kind) if kind in (int, float) else kind
