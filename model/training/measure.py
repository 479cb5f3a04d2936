"""What a network is worth: bits per character of a text, accuracy on clips and on streams of clips.

Each measure runs the graph as it is served: running statistics, float32, one pass, nothing looked at twice.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.data.clips import Clip
from indrnn.model.data.series import Series
from indrnn.model.nets.network import StateNet

CHUNK = 1024  # symbols read at once; the state carries over, so it changes nothing but memory
PORTIONS = (0.25, 0.5, 0.75, 1.0)
RIDGE = 1.0  # of features brought to unit size, of the probe
ROWS = 64  # clips that are read at once, those of like length together
PLACES = 50_000  # rows times steps of series that are measured at once


@torch.no_grad()
def bits_per_char(
    net: StateNet, symbols: NDArray[np.int64], rows: int = 1, before: NDArray[np.int64] | None = None, unread: int = -100
) -> float:
    """Return the mean bits that net gives to each of symbols [n], from a zero state on, the first by its uniform guess.

    before: symbols [m] read first and not scored. rows > 1 cuts the text into that many pieces: faster, a little pessimistic.
    unread: a symbol that is read and not scored, since no network says it.
    """
    state = net.start(rows)
    if before is not None:
        for x in torch.from_numpy(before).expand(rows, -1).split_with_sizes(_chunks(len(before)), 1):
            _, state = net(x, torch.full((rows,), x.shape[1]), state)
    pieces = torch.from_numpy(symbols[: len(symbols) // rows * rows].reshape(rows, -1))
    nats = 0.0
    for x in pieces.split_with_sizes(_chunks(pieces.shape[1]), 1):
        guess = state[:, -net.classes :]
        logits, state = net(x, torch.full((rows,), x.shape[1]), state)
        guesses = torch.cat([guess[:, None], logits[:, :-1]], 1)
        nats += F.cross_entropy(guesses.flatten(0, 1), x.flatten(), reduction="sum", ignore_index=unread).item()
    return nats / int((pieces != unread).sum()) / math.log(2)


def _chunks(n: int) -> list[int]:
    return [min(CHUNK, n - i) for i in range(0, n, CHUNK)]


def padded(sequences: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Sequences [T_b, ...] -> x [B, T, ...], 0 past the ends, and lengths [B]."""
    lengths = torch.tensor([len(s) for s in sequences])
    x = torch.zeros(len(sequences), int(lengths.max()), *sequences[0].shape[1:])
    for row, s in zip(x, sequences, strict=True):
        row[: len(s)] = torch.from_numpy(s)
    return x, lengths


@torch.no_grad()
def scores(net: StateNet, sequences: Sequence[NDArray[np.float32]]) -> list[Tensor]:
    """Return logits [T_b, K] after every frame of each sequence [T_b, P, J, 3], each from a zero state on."""
    found: list[Tensor] = [torch.empty(0)] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for at in range(0, len(order), ROWS):
        block = order[at : at + ROWS]
        x, lengths = padded([sequences[i] for i in block])
        logits, _ = net(x, lengths, net.start(len(block)))
        for row, n, i in zip(logits, lengths.tolist(), block, strict=True):
            found[i] = row[:n]
    return found


def clip_accuracy(net: StateNet, clips: Sequence[Clip]) -> dict[float, float]:
    """Return the share of clips answered rightly after 25, 50, 75 and 100 % of their frames (rounded up), each clip from a zero state."""
    right = dict.fromkeys(PORTIONS, 0)
    for clip, logits in zip(clips, scores(net, [c.x for c in clips]), strict=True):
        for p in PORTIONS:
            right[p] += int(logits[math.ceil(p * len(logits)) - 1].argmax()) == clip.label
    return {p: n / len(clips) for p, n in right.items()}


def stream_accuracy(net: StateNet, clips: Sequence[Clip], seed: int = 0) -> float:
    """Return the share of clips answered rightly at their last frame when each subject's clips are one stream, never reset.

    The order is drawn from the seed: the files' own order repeats each action four times in a row.
    """
    rng = np.random.default_rng(seed)
    subjects = sorted({c.subject for c in clips})
    streams = [[own[i] for i in rng.permutation(len(own))] for own in ([c for c in clips if c.subject == s] for s in subjects)]
    right = 0
    for stream, logits in zip(streams, scores(net, [np.concatenate([c.x for c in stream]) for stream in streams]), strict=True):
        ends = np.cumsum([len(c.x) for c in stream]) - 1
        right += int((logits[ends].argmax(1) == torch.tensor([c.label for c in stream])).sum())
    return right / len(clips)


def told(net: StateNet, series: Sequence[Series], end: bool) -> list[Tensor]:
    """Return logits [T_b, K] after every step of each sequence from a zero state on; where `end`, [1, K], after the last alone."""
    order = sorted(range(len(series)), key=lambda i: len(series[i].x))
    found: list[Tensor] = [torch.empty(0)] * len(series)
    while order:
        rows = max(1, min(len(order), PLACES // len(series[order[-1]].x)))
        order, block = order[:-rows], order[-rows:]
        for i, logits in zip(block, scores(net, [series[i].x for i in block]), strict=True):
            found[i] = logits[-1:] if end else logits
    return found


def series_accuracy(net: StateNet, series: Sequence[Series]) -> dict[float, float]:
    """Return the share of sequences answered rightly after 25, 50, 75 and 100 % of their steps; with a class a step, of all steps.

    A network without a stream knows the rest of a sequence at any of its steps: it is measured at the end alone.
    """
    if series[0].y.ndim:
        right = sum(int((a.argmax(1) == torch.from_numpy(s.y)).sum()) for a, s in zip(told(net, series, False), series, strict=True))
        return {1.0: right / sum(len(s.x) for s in series)}
    answers = told(net, series, False)
    return {
        p: sum(int(a[math.ceil(p * len(a)) - 1].argmax()) == s.label for a, s in zip(answers, series, strict=True)) / len(series)
        for p in (PORTIONS if net.streams else PORTIONS[-1:])
    }


def series_errors(net: StateNet, series: Sequence[Series]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return, for each of the D values, the root mean squared error in its own unit and R^2, 1 less its square over the values' variance.

    Over all steps where there is a value a step, else over the sequences' ends. R^2 is NaN where the values are all the same.
    """
    end = series[0].y.ndim == 1
    got = torch.cat(told(net, series, end)).double().numpy()
    want = np.concatenate([np.atleast_2d(s.y) for s in series]).astype(np.float64)
    squared, variance = ((got - want) ** 2).mean(0), want.var(0)
    return np.sqrt(squared), 1 - squared / np.where(variance > 0, variance, np.nan)


@torch.no_grad()
def last_layer(net: StateNet, clips: Sequence[Clip]) -> Tensor:
    """Return what the readout sees at each clip's last frame, [n, F]."""
    seen: list[Tensor] = []
    readout = net.get_submodule("readout")
    handle = readout.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    found: list[Tensor] = [torch.empty(0)] * len(clips)
    order = sorted(range(len(clips)), key=lambda i: len(clips[i].x))
    try:
        for at in range(0, len(order), ROWS):
            block = order[at : at + ROWS]
            x, lengths = padded([clips[i].x for i in block])
            net(x, lengths, net.start(len(block)))
            for row, i in enumerate(block):
                found[i] = seen[-1][lengths[row] - 1, row]  # [T, B, F]
            seen.clear()
    finally:
        handle.remove()
    return torch.stack(found)


def told_apart(features: Tensor, groups: Sequence[int], kinds: Sequence[int]) -> tuple[float, float]:
    """Return how often a linear probe of features [n, F] names the right group, and how often guessing would; each group weighs the same.

    Ridge regression to the groups on every other clip of each kind of each group, asked about the rest.
    """
    names = sorted(set(groups))
    y = torch.tensor([names.index(g) for g in groups])
    count: dict[tuple[int, int], int] = {}
    learned = []
    for key in zip(groups, kinds, strict=True):
        count[key] = count.get(key, -1) + 1
        learned.append(count[key] % 2 == 0)
    part = torch.tensor(learned)
    x = (features - features[part].mean(0)) / features[part].std(0).clamp_min(1e-6)
    x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    target = F.one_hot(y, len(names)).double()
    weight = (1 / target[part].sum(0))[y[part]][:, None]
    a = x[part].T @ (weight * x[part]) + RIDGE / len(names) * torch.eye(x.shape[1], dtype=torch.float64) / x.shape[1]
    answer = (x @ torch.linalg.solve(a, x[part].T @ (weight * target[part]))).argmax(1)
    right = [float((answer[~part & (y == g)] == g).double().mean()) for g in range(len(names))]
    return sum(right) / len(right), 1 / len(names)
