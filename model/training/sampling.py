"""A few frames of a clip for the whole, as the papers read NTU RGB+D: 20, one from each of 20 segments (Li et al., 2018, section 5.4).

Where the text is silent this follows the authors' code: clips between T and 2 T frames give a window, shorter ones stand in zeros.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.data.clips import Clip
from indrnn.model.nets.network import StateNet
from indrnn.model.training.measure import padded

Frames = NDArray[np.float32]
LATEST = 0.25  # of T: the most zeros before a clip shorter than T
ROWS = 256  # clips read at once


def segments(x: Frames, T: int, rng: Generator) -> Frames:
    """T frames of x [n, P, J, 3], in their order, drawn from rng.

    More than 2 T frames: one of each of T equal segments, the last taking what does not divide. T to 2 T: a stretch of T. Fewer: all,
    with zeros before (at most a quarter of T) and after.
    """
    n = len(x)
    if n > 2 * T:
        size = n // T
        begins = size * np.arange(T)
        sizes = np.append(np.full(T - 1, size), n - size * (T - 1))
        picked: Frames = x[begins + rng.integers(sizes)]
        return picked
    if n >= T:
        begin = int(rng.integers(n - T + 1))
        return x[begin : begin + T]
    out = np.zeros((T, *x.shape[1:]), np.float32)
    begin = int(rng.integers(min(T - n, int(LATEST * T)) + 1))
    out[begin : begin + n] = x
    return out


@torch.no_grad()
def mean_scores(net: StateNet, clips: Sequence[Clip], T: int, samplings: int, seed: int = 0) -> Tensor:
    """Return logits [clips, K] at the last of T frames, the mean over so many samplings drawn from the seed."""
    rng = np.random.default_rng(seed)
    total = torch.zeros(len(clips), net.classes)
    for _ in range(samplings):
        for at in range(0, len(clips), ROWS):
            x, lengths = padded([segments(c.x, T, rng) for c in clips[at : at + ROWS]])
            total[at : at + ROWS] += net(x, lengths, net.start(len(x)))[0][:, -1]
    return total / samplings


def accuracy(net: StateNet, clips: Sequence[Clip], T: int, samplings: int, seed: int = 0) -> float:
    """Return the share of clips answered rightly by the mean scores of so many samplings."""
    label = torch.tensor([c.label for c in clips])
    return float((mean_scores(net, clips, T, samplings, seed).argmax(1) == label).float().mean())
