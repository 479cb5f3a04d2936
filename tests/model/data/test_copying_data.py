"""The copying problem's data, and what can be had of it without memory."""

import math

import numpy as np
import pytest
import torch

from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.data.drawn import copying
from indrnn.model.tasks.drawn.copying import CopyingConfig, CopyingLearner, CopyingRecipe, cross_entropy, measured


@pytest.mark.parametrize("blanks", [1, 7, 200])
def test_ten_symbols_blanks_a_mark_and_room_for_the_ten(blanks):
    x, y = copying.draw(np.random.default_rng(0), 300, blanks)
    assert x.shape == y.shape == (300, blanks + 20)
    assert set(np.unique(x[:, :10])) == set(range(8))
    assert (x[:, 10 : blanks + 9] == copying.BLANK).all()
    assert (x[:, blanks + 9] == copying.MARK).all()
    assert (x[:, -10:] == copying.BLANK).all()
    assert (y[:, :-10] == copying.BLANK).all()
    np.testing.assert_array_equal(y[:, -10:], x[:, :10])


class Memoryless(torch.nn.Module):
    """Who knows the place in time and nothing of what came: sure of a blank, then of none of the eight."""

    def forward(self, x, lengths, state):
        logits = torch.full((*x.shape[:2], copying.SYMBOLS), -40.0)
        logits[:, :-10, copying.BLANK] = 0
        logits[:, -10:, : copying.BLANK] = 0
        return logits, state

    def start(self, rows):
        return torch.zeros(rows, 1)


def test_who_has_no_memory_has_the_papers_baseline():
    x, y = map(torch.from_numpy, copying.draw(np.random.default_rng(0), 8, 200))
    assert cross_entropy(Memoryless(), x, y).item() == pytest.approx(copying.without_memory(200), rel=1e-5)
    assert copying.without_memory(200) == pytest.approx(10 * math.log(8) / 220)


def test_figures_are_those_of_the_loss_and_validation_is_not_test():
    torch.manual_seed(0)
    learner = CopyingLearner(CopyingConfig(length=5, hidden=8, cell="urnn"), CopyingRecipe(1, 1), 0)
    net = learner.folded()
    nats, wrong = measured(net, "val")
    x, y = map(torch.from_numpy, copying.draw(np.random.default_rng(copying.SEEDS["val"]), copying.MEASURED, 5))
    assert nats == pytest.approx(cross_entropy(net, x, y).item(), rel=1e-5)
    assert 84 < wrong <= 100  # by chance 87.5; an untrained network answers blank, too
    assert measured(net, "test")[0] != nats
    assert learner.validate() == {"val_nats": nats}


def test_both_ways_is_refused_since_the_symbols_are_told_while_the_sequence_goes_on():
    with pytest.raises(SizeError, match="--bidirectional: expected a network that looks at whole sequences"):
        CopyingLearner(CopyingConfig(length=5, hidden=8, bidirectional=True), CopyingRecipe(1, 1), 0)
