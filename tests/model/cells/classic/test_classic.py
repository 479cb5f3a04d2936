"""What is particular about the cells of the survey: how they hang together, and what stays orthogonal whatever training does."""

import numpy as np
import pytest
import torch
from torch import Tensor

from indrnn.model.cells.cell import Cell
from indrnn.model.cells.classic.goru import GORU
from indrnn.model.cells.classic.gru_before import ResetBeforeGRU
from indrnn.model.cells.classic.peephole import PeepholeLSTM
from indrnn.model.cells.classic.scrn import ALPHA, SCRN
from indrnn.model.cells.classic.urnn import UnitaryRNN
from indrnn.model.cells.gru import GRU
from indrnn.model.cells.lstm import LSTM
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.cells.rnn import IRNN, PositiveDefiniteRNN, TanhRNN

SHUT = 40.0  # a gate's bias at which its sigmoid is 0 or 1 in float64


def given(cell: Cell, T: int = 7, B: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(T, B, cell.inputs, dtype=torch.float64), torch.rand(B, cell.state_size, dtype=torch.float64)


@pytest.mark.parametrize("form", [GRU, ResetBeforeGRU])
@torch.no_grad()
def test_a_gru_of_reset_1_and_update_0_is_the_simple_rnn(form):
    """z of h' = (1 - z) n + z h is what is kept: at 0 all is new."""
    torch.manual_seed(0)
    gru, rnn = form(5, 4).double(), TanhRNN(5, 4).double()
    if form is GRU:
        w, u, b = gru.rnn.weight_ih_l0, gru.rnn.weight_hh_l0, gru.rnn.bias_ih_l0
        gru.rnn.bias_hh_l0.zero_()
    else:
        w, u, b = gru.project.weight, gru.recurrent, gru.project.bias
    w[:8], u[:8] = 0, 0
    b[:4], b[4:8] = SHUT, -SHUT
    for name, value in (("weight_ih_l0", w[8:]), ("weight_hh_l0", u[8:]), ("bias_ih_l0", b[8:])):
        getattr(rnn.rnn, name).copy_(value)
    rnn.rnn.bias_hh_l0.zero_()
    x, state = given(gru)
    for got, want in zip(gru(x, None, state), rnn(x, None, state), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@torch.no_grad()
def test_without_reset_both_forms_of_the_gru_are_one_and_with_it_they_are_two():
    torch.manual_seed(0)
    before, after = ResetBeforeGRU(5, 4).double(), GRU(5, 4).double()
    for name, value in (("weight_ih_l0", before.project.weight), ("weight_hh_l0", before.recurrent), ("bias_ih_l0", before.project.bias)):
        getattr(after.rnn, name).copy_(value)
    after.rnn.bias_hh_l0.zero_()
    x, state = given(before)
    assert not torch.allclose(before(x, None, state)[0], after(x, None, state)[0])
    before.project.bias[:4] = after.rnn.bias_ih_l0[:4] = SHUT
    torch.testing.assert_close(before(x, None, state), after(x, None, state))


@torch.no_grad()
def test_without_peepholes_it_is_the_lstm_and_with_them_the_output_gate_sees_the_new_cell():
    torch.manual_seed(0)
    cell, lstm = PeepholeLSTM(5, 4).double(), LSTM(5, 4).double()
    for name, value in (("weight_ih_l0", cell.project.weight), ("weight_hh_l0", cell.recurrent), ("bias_ih_l0", cell.project.bias)):
        getattr(lstm.rnn, name).copy_(value)
    lstm.rnn.bias_hh_l0.zero_()
    x, state = given(cell)
    torch.testing.assert_close(cell(x, None, state), lstm(x, None, state))
    cell.peepholes[8:] = 1e4  # the output gate is open where c' is above 0, and shut where it is below
    y, after = cell(x[:1], None, state)
    c = after[:, 4:]
    torch.testing.assert_close(y[0], torch.where(c > 0, c.tanh(), 0), rtol=0, atol=1e-9)


@torch.no_grad()
def test_slow_neurons_forget_by_alpha_and_nothing_else():
    cell = SCRN(5, 9).double()
    assert cell.sizes == (7, 2)
    _, state = given(cell)
    _, after = cell(torch.zeros(10, 3, 5, dtype=torch.float64), None, state)
    torch.testing.assert_close(after[:, 7:], state[:, 7:] * ALPHA**10)
    with pytest.raises(SizeError, match="expected two neurons and more"):
        SCRN(5, 1)


@pytest.mark.parametrize("size", [7, 16])
@pytest.mark.parametrize(("kind", "matrix"), [(UnitaryRNN, "unitary"), (GORU, "orthogonal")])
def test_its_matrix_is_unitary_after_training_too(kind, matrix, size):
    torch.manual_seed(0)
    cell = kind(3, size)
    optimizer = torch.optim.Adam(cell.parameters(), lr=0.1)
    begun = getattr(cell, matrix)().detach()
    for _ in range(30):
        y, _ = cell(torch.randn(5, 4, 3), None, torch.zeros(4, cell.state_size))
        optimizer.zero_grad()
        (y - 1).square().mean().backward()
        optimizer.step()
    w = getattr(cell, matrix)().detach()
    assert float((w - begun).abs().max()) > 0.1
    torch.testing.assert_close(w @ w.conj().T, torch.eye(len(w), dtype=w.dtype), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_unitary_state_keeps_its_length_and_goros_where_its_gates_let_it():
    for kind in (UnitaryRNN, GORU):
        cell = kind(2, 8).double()
        cell.project.weight.zero_()
        cell.project.bias.zero_()
        if kind is GORU:
            cell.gates.zero_()
            cell.project.bias[:8], cell.project.bias[8:16] = SHUT, -SHUT
        x, state = given(cell, 200)
        _, after = cell(x, None, state)
        torch.testing.assert_close(after.norm(dim=1), state.norm(dim=1), rtol=2e-2 if kind is UnitaryRNN else 1e-9, atol=0)


def test_a_positive_definite_start_has_one_eigenvalue_of_1_and_the_identity_has_them_all():
    for kind, least in ((PositiveDefiniteRNN, 0.0), (IRNN, 1.0)):
        torch.manual_seed(0)
        found = np.linalg.eigvalsh(kind(3, 40).rnn.weight_hh_l0.detach().double().numpy())
        assert found[-1] == pytest.approx(1, abs=1e-5)
        assert found[0] >= least
    assert np.linalg.eigvalsh(PositiveDefiniteRNN(3, 40).rnn.weight_hh_l0.detach().numpy())[-2] < 0.99
