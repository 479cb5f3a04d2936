"""What is done to all rows at once is what is done to one clip."""

import numpy as np
import pytest
import torch

from indrnn.frames.layouts import UTD20
from indrnn.model.data import augment, bodies
from indrnn.model.data.augment import Augment
from indrnn.model.motions import crowd

BODY = bodies.kinect(UTD20)
PLAIN = {"turn": 0.0, "tilt": 0.0, "body": 0.0, "bones": 0.0, "noise": 0.0}


def streams(rows: int = 3, T: int = 9) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((rows, T, 1, 20, 3), dtype=np.float32))


def changed(x: torch.Tensor, **how: float) -> torch.Tensor:
    return crowd.seen_elsewhere(x, BODY, Augment(**{**PLAIN, **how}), 30.0, np.random.default_rng(1))


def test_nothing_is_changed_where_nothing_is_asked_for() -> None:
    x = streams()
    assert torch.allclose(changed(x), x)


def test_bones_and_trackers_are_those_of_single_clips() -> None:
    x = streams()
    bones = np.random.default_rng(2).uniform(0.8, 1.2, (3, 20)).astype(np.float32)
    off = np.random.default_rng(3).uniform(-0.1, 0.1, (3, 20, 3)).astype(np.float32)
    resized, misplaced = crowd.resized(x, torch.from_numpy(bones), BODY), crowd.misplaced(x, torch.from_numpy(off), BODY)
    for i in range(3):
        assert resized[i].numpy() == pytest.approx(augment.resize(x[i].numpy(), bones[i], BODY), abs=1e-5)
        assert misplaced[i].numpy() == pytest.approx(augment.seen_by(x[i].numpy(), off[i], BODY), abs=1e-5)


def test_turns_and_tilts_keep_distances_and_are_each_rows_own() -> None:
    x = streams()
    x[1:] = x[:1]
    y = changed(x, turn=1.0, tilt=0.3)
    assert torch.cdist(y[:, :, 0], y[:, :, 0]).numpy() == pytest.approx(torch.cdist(x[:, :, 0], x[:, :, 0]).numpy(), abs=1e-4)
    assert (y[0] - y[1]).abs().max() > 0.1


def test_who_is_absent_stays_absent() -> None:
    x = streams()
    x[0, 4:] = 0
    y = changed(x, turn=1.0, tilt=0.3, body=0.1, bones=0.1, noise=0.05, drift=2.0, misplaced=0.02, trunk=0.1)
    assert not y[0, 4:].any()
    assert y[0, :4].any(-1).all()


def test_bodies_glide_by_at_most_so_much_or_are_held_in_place() -> None:
    x = streams(rows=200)
    x[:] = x[:, :1] + 0.01 * torch.arange(9.0)[:, None, None, None]  # of itself it moves by 1 cm a frame on every axis
    moved = (changed(x, drift=3.0) - x)[:, :, 0, BODY.root]  # [B, T, 3]
    step = moved.diff(dim=1).norm(dim=-1)
    held = (step - 0.01 * 2**0.5).abs().amax(1) < 1e-4
    gliding = step.amax(1) > 0.015
    assert step.max() < 3.0 / 30 + 1e-4
    assert 0.15 < held.float().mean() < 0.4
    assert gliding.float().mean() > 0.3
    assert moved[..., 1].abs().max() < 1e-6
