"""The adding problem's data and networks."""

import numpy as np
import pytest
import torch

from indrnn.model.cells.lstm import LSTM
from indrnn.model.cells.rnn import IRNN
from indrnn.model.cells.table import CELLS
from indrnn.model.data import adding
from indrnn.model.nets.adding import AddingConfig, AddingNet
from indrnn.model.tasks.adding import squared_error


@pytest.mark.parametrize("steps", [2, 7, 100])
def test_two_numbers_are_marked_one_in_each_half_and_their_sum_is_the_target(steps):
    x, total = adding.draw(np.random.default_rng(0), 300, steps)
    assert x.shape == (300, steps, 2)
    assert ((x[:, :, 0] >= 0) & (x[:, :, 0] < 1)).all()
    assert set(np.unique(x[:, :, 1])) <= {0.0, 1.0}
    assert (x[:, : steps // 2, 1].sum(1) == 1).all()
    assert (x[:, steps // 2 :, 1].sum(1) == 1).all()
    np.testing.assert_allclose((x[:, :, 0] * x[:, :, 1]).sum(1), total, rtol=1e-6)


def test_marks_fall_on_every_step_of_their_half():
    x, _ = adding.draw(np.random.default_rng(1), 2000, 10)
    assert (x[:, :, 1].mean(0) > 0.15).all()


def test_the_answer_one_has_the_error_that_the_papers_call_the_baseline():
    _, total = adding.draw(np.random.default_rng(2), 200_000, 2)
    assert np.mean((total - 1) ** 2) == pytest.approx(adding.ALWAYS_ONE, rel=0.01)


def test_validation_and_test_sequences_differ_and_are_the_same_at_every_look():
    torch.manual_seed(0)
    net = AddingNet(AddingConfig(length=20, hidden=8)).eval()
    assert squared_error(net, "val") == squared_error(net, "val")
    assert squared_error(net, "val") != squared_error(net, "test")


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_answers_alike_in_one_piece_and_in_two(cell):
    torch.manual_seed(1)
    net = AddingNet(AddingConfig(cell=cell, length=12, hidden=8, spread=0.5)).eval()
    x = torch.from_numpy(adding.draw(np.random.default_rng(0), 3, 12)[0])
    whole, end = net(x, torch.full((3,), 12), net.start(3))
    first, state = net(x[:, :5], torch.full((3,), 5), net.start(3))
    second, state = net(x[:, 5:], torch.full((3,), 7), state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(state, end)
    torch.testing.assert_close(net.answer(x), whole[:, -1, 0])


def test_the_parameters_are_as_many_as_the_paper_says():
    def count(cell):
        return sum(p.numel() for p in AddingNet(AddingConfig(cell=cell)).stack.parameters())

    assert count("indrnn") == 2 * 128 + 128 * 128 + 4 * 128  # MN + NN + 4N: the 17K of figure 2
    assert count("lstm") // 1000 == 67
    assert count("tanh") // 1000 == 16


def test_the_irnn_starts_as_a_sum_of_what_comes_in():
    rnn = IRNN(2, 4).rnn
    torch.testing.assert_close(rnn.weight_hh_l0.detach(), torch.eye(4))
    assert not rnn.bias_ih_l0.any()
    assert rnn.weight_ih_l0.abs().max() < 0.01


def test_the_lstm_starts_by_remembering():
    rnn = LSTM(2, 4).rnn
    gates = (rnn.bias_hh_l0).detach().view(4, 4)
    assert (gates[1] == 1).all()
    assert (gates[[0, 2, 3]].abs() < 1).all()


@pytest.mark.parametrize("cell", CELLS)
def test_rows_that_end_earlier_are_answered_as_if_alone(cell):
    torch.manual_seed(1)
    net = AddingNet(AddingConfig(cell=cell, length=12, hidden=8, spread=0.5)).eval()
    x = torch.from_numpy(adding.draw(np.random.default_rng(0), 3, 12)[0])
    answers = net.answer(x, torch.tensor([12, 5, 1]))
    for row, steps in enumerate((12, 5, 1)):
        torch.testing.assert_close(net.answer(x[row : row + 1, :steps])[0], answers[row])
