"""How accuracy holds up when a camera loses joints or has another rate: the curves of a model's card.

What is measured is what the service would do with such clips: joints not seen hold their last place, other rates are resampled causally.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from indrnn.frames.joints import hold
from indrnn.model.data.camera import lose, resample, seen_at
from indrnn.model.data.clips import Clip, Frames
from indrnn.model.nets.network import StateNet
from indrnn.model.training.measure import scores
from indrnn.model.training.task import Figures, figure

SHARES = (0.1, 0.2, 0.3, 0.5)
RATES = (10.0, 15.0, 20.0, 45.0, 60.0)
STRETCH = 10  # frames that a joint stays lost, in the mean
SEED = 0


def accuracy(net: StateNet, clips: Sequence[Clip], change: Callable[[Frames], Frames]) -> float:
    """Return the share of changed clips answered rightly at their last frame, each from a zero state."""
    changed = [replace(c, x=change(c.x)) for c in clips]
    found = scores(net, [c.x for c in changed])
    return sum(int(s[-1].argmax()) == c.label for s, c in zip(found, clips, strict=True)) / len(clips)


def without_joints(share: float) -> Callable[[Frames], Frames]:
    """Return clips with that share of their joints' places lost and held, the same ones at every call."""
    rng = np.random.default_rng(SEED)
    return lambda x: hold(lose(x, share, rng, STRETCH), np.zeros(x.shape[1:], np.float32))


def at_rate(own_hz: float, hz: float) -> Callable[[Frames], Frames]:
    """Return clips of rate own_hz as a camera of rate hz would have sent them and the service would have resampled them."""
    return lambda x: resample(seen_at(x, own_hz, hz), hz, own_hz)


def curves(net: StateNet, clips: Sequence[Clip], hz: float, split: str, which: str) -> Figures:
    """Return the accuracy at every share of lost joints and every rate."""
    lost = [
        figure(
            f"{split}_accuracy_lost_{round(100 * share)}",
            100 * accuracy(net, clips, without_joints(share)),
            "%",
            f"{which}; single clips, {round(100 * share)} % of the joints' places lost for some {STRETCH} frames each, held; seed {SEED}",
        )
        for share in SHARES
    ]
    rates = [
        figure(
            f"{split}_accuracy_hz_{rate:g}",
            100 * accuracy(net, clips, at_rate(hz, rate)),
            "%",
            f"{which}; single clips as a camera of {rate:g} Hz sees them, resampled to {hz:g} Hz causally",
        )
        for rate in RATES
    ]
    return (*lost, *rates)
