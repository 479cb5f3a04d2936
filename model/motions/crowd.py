"""A batch of streams as other bodies before other cameras: what model/data/augment.py does with one clip, with all rows at once.

Clip by clip it took half of a step's time.
"""

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from indrnn.model.data.augment import Augment, misplacement, rotation, symmetric_bones
from indrnn.model.data.bodies import Body


def seen_elsewhere(x: Tensor, body: Body, a: Augment, hz: float, rng: Generator) -> Tensor:
    """x [B, T, P, J, 3], 0 where nobody is, as other bodies do it before other cameras and trackers, each row its own."""
    B = len(x)
    there = x.ne(0).any(-1, keepdim=True).any(-2, keepdim=True)  # [B, T, P, 1, 1]
    if a.bones or a.trunk:
        x = resized(x, torch.from_numpy(np.stack([symmetric_bones(body, a, rng) for _ in range(B)])), body)
    elif a.body:
        x = x * _rows(1 + rng.uniform(-a.body, a.body, B), 4)
    if a.misplaced:
        x = misplaced(x, torch.from_numpy(np.stack([misplacement(body, a.misplaced, rng) for _ in range(B)])), body)
    if a.drift:
        x = x + gliding(x, body, a.drift / hz, rng)
    angles = np.stack([rng.uniform(-most, most, B) for most in (a.turn, a.tilt, a.tilt)], 1)
    turn = torch.from_numpy(np.stack([rotation(*three) for three in angles]))  # [B, 3, 3]
    x = x @ turn.mT[:, None, None]
    if a.noise:
        drawn = torch.Generator().manual_seed(int(rng.integers(2**31)))
        x = x + _rows(rng.uniform(0, a.noise, B), 4) * torch.randn(x.shape, generator=drawn)
    return torch.where(there, x, torch.zeros(()))


def resized(x: Tensor, bones: Tensor, body: Body) -> Tensor:
    """x [B, T, P, J, 3] with each bone times bones [B, J], joints placed anew from the root."""
    places = list(x.unbind(3))
    for j in body.order:
        p = body.parents[j]
        places[j] = places[p] + (x[..., j, :] - x[..., p, :]) * bones[:, j, None, None, None]
    return torch.stack(places, 3)


def across(x: Tensor, body: Body) -> Tensor:
    """Return the line from left to right across bodies x [B, T, P, J, 3], as seen from above, at length 1: [B, T, P, 1, 2]."""
    left, right = (list(side) for side in zip(*body.across, strict=True))
    line = (x[..., right, :].sum(-2, keepdim=True) - x[..., left, :].sum(-2, keepdim=True))[..., 0::2]
    unit: Tensor = line / line.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return unit


def misplaced(x: Tensor, off: Tensor, body: Body) -> Tensor:
    """x [B, T, P, J, 3] with joints off [B, J, 3] from where they are, as the body says right, up and behind."""
    c, s = across(x, body).unbind(-1)  # [B, T, P, 1]
    right, up, behind = off[:, None, None].unbind(-1)  # [B, 1, 1, J]
    return x + torch.stack([c * right - s * behind, up.expand(x.shape[:-1]), s * right + c * behind], -1)


def gliding(x: Tensor, body: Body, metres: float, rng: Generator) -> Tensor:
    """Return how far bodies x [B, T, P, J, 3] are to be moved over the ground, [B, T, 1, 1, 3].

    Half of them by up to so many metres a frame, a quarter such that they stay in place. Most glide to where they face: who walks in one
    place in one set walks about in another.
    """
    B, T = x.shape[:2]
    kind = rng.random(B)
    c, s = across(x[:, T // 4 : T // 4 + 1], body)[:, 0, 0, 0].unbind(-1)  # [B]
    angle = torch.atan2(s, c) + torch.from_numpy(rng.normal(0, 0.7, B).astype(np.float32)) - np.pi / 2
    speed = torch.from_numpy((rng.uniform(0, metres, B) * (kind < 0.5)).astype(np.float32))
    way = torch.stack([speed * angle.cos(), torch.zeros(B), speed * angle.sin()], 1)  # [B, 3]
    moved = torch.arange(T)[:, None] * way[:, None]  # [B, T, 3]
    middle = x[:, :, 0, body.root]  # [B, T, 3]
    back = (middle[:, :1] - middle) * torch.tensor([1.0, 0.0, 1.0])
    return torch.where(torch.from_numpy(kind > 0.75)[:, None, None], back, moved)[:, :, None, None]


def _rows(values: NDArray[np.floating], axes: int) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).reshape(-1, *[1] * axes)
