"""Whether a network tells the sets of its clips apart where it should tell motions: a linear probe of what its readout sees."""

from collections.abc import Sequence

import torch
from torch import Tensor

from indrnn.model.data.clips import Clip
from indrnn.model.nets.network import StateNet
from indrnn.model.training.measure import padded

RIDGE = 1.0  # of features brought to unit size
ROWS = 64  # clips read at once


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
    target = torch.nn.functional.one_hot(y, len(names)).double()
    weight = (1 / target[part].sum(0))[y[part]][:, None]
    a = x[part].T @ (weight * x[part]) + RIDGE / len(names) * torch.eye(x.shape[1], dtype=torch.float64) / x.shape[1]
    answer = (x @ torch.linalg.solve(a, x[part].T @ (weight * target[part]))).argmax(1)
    right = [float((answer[~part & (y == g)] == g).double().mean()) for g in range(len(names))]
    return sum(right) / len(right), 1 / len(names)
