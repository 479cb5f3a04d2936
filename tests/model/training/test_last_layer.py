"""A probe finds groups that features tell apart, and no others."""

import numpy as np
import pytest
import torch

from indrnn.model.data.clips import Clip
from indrnn.model.training.measure import last_layer, told_apart

GROUPS = [1] * 80 + [2] * 40
KINDS = [0, 1] * 60


def features(shift):
    torch.manual_seed(0)
    return torch.randn(120, 6) + shift * torch.tensor(GROUPS)[:, None]


def test_groups_that_lie_apart_are_told_and_others_are_guessed():
    told, chance = told_apart(features(4.0), GROUPS, KINDS)
    assert (told, chance) == (1.0, 0.5)
    assert told_apart(features(0.0), GROUPS, KINDS)[0] == pytest.approx(0.5, abs=0.15)


def test_the_last_layer_is_what_the_readout_makes_its_scores_of(action_net):
    rng = np.random.default_rng(0)
    clips = [Clip(rng.standard_normal((T, 2, 5, 3), dtype=np.float32), 0, 0, "") for T in (7, 3, 5)]
    seen = last_layer(action_net.eval(), clips)
    for row, clip in zip(seen, clips, strict=True):
        x, lengths = torch.from_numpy(clip.x)[None], torch.tensor([len(clip.x)])
        logits, _ = action_net(x, lengths, action_net.start(1))
        assert torch.allclose(action_net.readout(row), logits[0, -1], atol=1e-5)
