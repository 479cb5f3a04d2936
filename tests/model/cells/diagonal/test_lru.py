"""What is particular about the LRU: it turns, and a long turn keeps its digits."""

import numpy as np
import torch

from indrnn.model.cells.diagonal.lru import LRU


@torch.no_grad()
def test_an_impulse_turns_by_theta_and_shrinks_by_lambda_at_each_step():
    cell = LRU(1, 3, 0.99, 0.9).double()
    cell.project.weight.copy_(torch.tensor([[1.0], [1], [1], [0], [0], [0], [0], [0], [0]]))  # into the real part
    x = torch.zeros(40, 1, 1, dtype=torch.float64)
    x[0] = 1
    _, state = cell(x, None, torch.zeros(1, 6, dtype=torch.float64))
    power = np.exp(39 * (-np.exp(cell.nu.numpy()) + 1j * np.exp(cell.turn.numpy())) + cell.gain.numpy())
    np.testing.assert_allclose(state[0].numpy(), np.concatenate([power.real, power.imag]), atol=1e-12)


@torch.no_grad()
def test_five_thousand_steps_in_float32_are_those_of_float64():
    """Of angles up to 31,000: multiplied in float32 they would be wrong by a thousandth, and answers with them."""
    torch.manual_seed(0)
    cell = LRU(2, 16, 0.9999, 0.99)
    x = torch.randn(5000, 1, 2)
    y, state = cell(x, None, torch.zeros(1, 32))
    narrow = cell.turn.exp().double()  # the turn that float32 holds
    wide = LRU(2, 16).double()
    wide.load_state_dict(cell.state_dict())
    wide.turn.copy_(narrow.log())
    want_y, want = wide(x.double(), None, torch.zeros(1, 32, dtype=torch.float64))
    scale = float(want_y.abs().max())
    np.testing.assert_allclose(y, want_y, atol=2e-5 * scale)
    np.testing.assert_allclose(state, want, atol=2e-5 * float(want.abs().max()))


def test_the_ring_is_between_the_bounds():
    torch.manual_seed(0)
    kept = (-LRU(1, 500, 0.95, 0.6).nu.detach().exp()).exp()
    assert 0.6 <= float(kept.min()) < 0.62
    assert 0.94 < float(kept.max()) <= 0.95
