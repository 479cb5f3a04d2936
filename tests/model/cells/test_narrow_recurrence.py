"""The operator over inputs narrower than its state, as a GPU is given them."""

import pytest
import torch

from indrnn.model.cells.recurrence import recurrence, recurrence_op


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_input_keeps_its_type_and_the_state_its_own(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, 5, generator=g).to(dtype).requires_grad_()
    u, h0 = (torch.randn(s, generator=g).requires_grad_() for s in ((5,), (3, 5)))
    lens = torch.tensor([7, 0, 4])
    torch.library.opcheck(recurrence_op, (x, u, lens, h0, "tanh", 0.0, "forward"))
    y, y_h = recurrence_op(x, u, lens, h0, "tanh", 0.0, "forward")
    want_y, want_h = recurrence(x.float(), u, lens, h0, "tanh")
    assert y.dtype == dtype
    assert torch.equal(y, want_y.to(dtype))
    torch.testing.assert_close(y_h, want_h)
    grads = torch.autograd.grad(y.float().square().sum() + y_h.sum(), (x, u, h0))
    wants = torch.autograd.grad(want_y.square().sum() + want_h.sum(), (x, u, h0))
    for got, want in zip(grads, wants, strict=True):
        torch.testing.assert_close(got, want, rtol=2e-2, atol=2e-2)


def test_on_the_cpu_a_narrow_input_is_widened() -> None:
    y, y_h = recurrence(torch.ones(2, 1, 3, dtype=torch.bfloat16), torch.ones(3))
    assert (y.dtype, y_h.dtype) == (torch.float32, torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("shape", [(37, 5, 33), (1500, 1, 64)], ids=str)
def test_on_a_gpu_it_says_what_the_cpu_says(shape: tuple[int, int, int], activation: str) -> None:
    g = torch.Generator().manual_seed(0)
    T, B, H = shape
    x, u, h0 = torch.randn(shape, generator=g), torch.rand(H, generator=g) * 2 - 1, torch.randn(B, H, generator=g)
    lens = torch.randint(0, T + 1, (B,), generator=g)
    results = []
    for device in ("cpu", "cuda"):
        inputs = [t.to(device).requires_grad_() for t in (x, u, h0)]
        y, y_h = recurrence(inputs[0], inputs[1], lens.to(device), inputs[2], activation)
        results.append([t.cpu() for t in (y, y_h, *torch.autograd.grad(y.sum() + y_h.sum(), inputs))])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
