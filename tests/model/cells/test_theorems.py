"""What the papers prove of IndRNN, on the operator and the layer as they are."""

import numpy as np
import pytest
import torch
from torch import nn

from indrnn.model.cells.recurrence import ACTIVATIONS, recurrence
from indrnn.model.indrnn import IndRNN

SLOPES = {
    "relu": lambda h: (h > 0).double(),
    "leaky_relu": lambda h: torch.where(h > 0, 1.0, 0.1).double(),
    "tanh": lambda h: 1 - h**2,
    "sigmoid": lambda h: h * (1 - h),
    "identity": torch.ones_like,
    "piecewise_linear": lambda h: (h.abs() < 1).double(),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_through_time_is_u_to_the_power_of_the_distance_times_the_slopes(activation):
    """Li et al., 2018, equation 5: dJ/dh_t = dJ/dh_T u^(T - t) prod_(k = t .. T-1) f'_(k+1), neuron by neuron."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(12, 2, 6, generator=g, dtype=torch.float64).requires_grad_()
    u = torch.empty(6, dtype=torch.float64).uniform_(-1.1, 1.1, generator=g)
    dJ = torch.randn(2, 6, generator=g, dtype=torch.float64)
    y, h_T = recurrence(x, u, activation=activation, alpha=0.1)
    (dx,) = torch.autograd.grad(h_T, x, dJ)
    slopes = SLOPES[activation](y.detach())
    for t in range(12):
        dh_t = dJ * u ** (11 - t) * slopes[t + 1 :].prod(0)
        torch.testing.assert_close(dx[t], dh_t * slopes[t])


def test_the_bound_keeps_the_gradient_of_an_active_relu_neuron_below_gamma():
    rnn = IndRNN(1, 50, recurrent_max_abs=(2.0, 300), dtype=torch.float64)
    with torch.no_grad():
        rnn.bias_ih_l0.fill_(1.0)
        rnn.weight_ih_l0.abs_()
    h0 = torch.zeros(1, 1, 50, dtype=torch.float64, requires_grad=True)
    _, h = rnn(torch.rand(300, 1, 1, dtype=torch.float64), h0)
    (g,) = torch.autograd.grad(h.sum(), h0)
    torch.testing.assert_close(g[0, 0], rnn.weight_hh_l0.detach() ** 300)
    assert g.max() <= 2.0 + 1e-9


def test_two_linear_layers_equal_a_linear_rnn_whose_recurrent_matrix_can_be_diagonalised():
    """Li et al., 2018, section 4.2: h_t = A h_(t-1) + W x_t with A = Q diag(u) Q^-1 is a layer of u behind Q^-1 W, and Q after it.

    The second layer is Q with u = 0; its neurons see each other's past through the first.
    """
    g = torch.Generator().manual_seed(0)
    Q, W = torch.randn(5, 5, generator=g, dtype=torch.float64), torch.randn(5, 3, generator=g, dtype=torch.float64)
    u = torch.empty(5, dtype=torch.float64).uniform_(-0.99, 0.99, generator=g)
    A = Q @ torch.diag(u) @ torch.linalg.inv(Q)
    rnn = IndRNN(3, 5, num_layers=2, bias=False, nonlinearity="identity", dtype=torch.float64)
    with torch.no_grad():
        rnn.weight_ih_l0.copy_(torch.linalg.solve(Q, W))
        rnn.weight_hh_l0.copy_(u)
        rnn.weight_ih_l1.copy_(Q)
        nn.init.zeros_(rnn.weight_hh_l1)
        x = torch.randn(40, 2, 3, generator=g, dtype=torch.float64)
        output, _ = rnn(x)
    h = np.zeros((2, 5))
    for t in range(40):
        h = h @ A.numpy().T + x[t].numpy() @ W.numpy().T
        np.testing.assert_allclose(output[t], h, atol=1e-9)
