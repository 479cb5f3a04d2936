"""Drawing a character from logits, reproducibly: the seed and the character's index decide, and nothing else."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indrnn.service.session.machine import Floats, Sampling


def log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Log-probabilities in nats along the last axis, in the type of the logits."""
    shifted = logits - logits.max(-1, keepdims=True)
    scores: NDArray[Any] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return scores


class Ranking(NamedTuple):
    """The likeliest symbols before each of t characters, the best first: symbols [t, k] int64, logprobs [t, k] float32 in nats."""

    symbols: NDArray[np.int64]
    logprobs: Floats


def rank(scores: Floats, k: int) -> Ranking:
    """Return the k likeliest of log-probabilities [t, K]."""
    symbols = np.argsort(-scores, axis=-1, kind="stable")[:, :k]
    return Ranking(symbols, np.take_along_axis(scores, symbols, -1).astype(np.float32))


def uniform(seed: int, index: int) -> float:
    """Return a number in [0, 1) from the seed and the index of the draw: a restart needs no generator's state."""
    word = hashlib.blake2b(index.to_bytes(8, "little"), digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return (int.from_bytes(word, "little") >> 11) * 2.0**-53


def draw(logits: Floats, sampling: Sampling, index: int) -> tuple[int, float]:
    """Return the symbol drawn from logits [K], and its log-probability under the model itself (temperature 1, no nucleus)."""
    scores = log_softmax(logits)
    best = int(scores.argmax())
    if sampling.temperature == 0:
        return best, float(scores[best])
    with np.errstate(over="ignore"):  # the best has score 0 before and after, however small the temperature
        tempered = np.exp((scores - scores[best]).astype(np.float64) / sampling.temperature)
    order = np.argsort(-tempered, kind="stable")
    sums = np.cumsum(tempered[order])
    kept = int(np.searchsorted(sums, sampling.top_p * sums[-1], side="left")) + 1  # the smallest nucleus of mass top_p
    sums = sums[:kept]
    k = int(order[min(int(np.searchsorted(sums, uniform(sampling.seed, index) * sums[-1], side="right")), len(sums) - 1)])
    return k, float(scores[k])
