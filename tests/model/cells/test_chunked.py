"""Training in pieces of time is training on the whole, in memory that grows as the square root of T."""

import weakref
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from indrnn.model.cells.norm import Moments
from indrnn.model.cells.stacks import KINDS, NORMS, StackConfig, build_stack

SMALL = {"layers": 3, "hidden": 6, "growth": 2, "blocks": (2, 1), "first": 3, "T": 6}
VARIANTS = [{"kind": k, "norm": n, "per_step": s} for k in KINDS for n in NORMS for s in (False, True) if n != "none" or not s]


def trained(variant, chunked, lengths, final, T=11):
    """Outputs, gradients and statistics of one training step, in float64."""
    torch.manual_seed(0)
    stack = build_stack(StackConfig(**SMALL, **variant), 5).double().train()
    stack.checkpoint_activations = chunked
    x = torch.randn(T, 3, 5, dtype=torch.float64, requires_grad=True)
    state = torch.rand(3, stack.state_size, dtype=torch.float64)
    if stack.positions:
        state[:, -1] = 1
    state.requires_grad_()
    if final:
        outputs = (stack.final(x, lengths, state),)
    else:
        y, end = stack(x, lengths, state)
        outputs = (y if lengths is None else y * (torch.arange(T)[:, None] < lengths)[..., None], end)
    sum((o * o.detach().cos()).sum() for o in outputs).backward()
    return [*outputs, x.grad, state.grad, *(p.grad for p in stack.parameters()), *stack.buffers()]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
@pytest.mark.parametrize("lengths", [None, torch.tensor([11, 3, 6])], ids=["whole", "ragged"])
@pytest.mark.parametrize("final", [False, True], ids=["every", "final"])
def test_outputs_gradients_and_statistics_are_those_of_the_whole(variant, lengths, final):
    for got, want in zip(trained(variant, True, lengths, final), trained(variant, False, lengths, final), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("T", [0, 1])
def test_no_step_and_one_step_are_pieces_too(T):
    variant = {"kind": "plain", "norm": "none", "per_step": False}
    for got, want in zip(trained(variant, True, None, False, T), trained(variant, False, None, False, T), strict=True):
        torch.testing.assert_close(got, want)


def test_dropout_keeps_its_one_mask_over_all_pieces_and_draws_another_next_time():
    stack = build_stack(StackConfig(layers=1, hidden=50, norm="none", dropout=0.5, nonlinearity="sigmoid"), 3).train()
    stack.checkpoint_activations = True
    masks = []
    for _ in range(2):
        dropped = stack(torch.ones(20, 4, 3))[0] == 0
        assert (dropped == dropped[0]).all()
        masks.append(dropped[0])
    assert not torch.equal(*masks)


def test_the_backward_pass_drops_what_the_forward_pass_dropped():
    stack = build_stack(StackConfig(layers=1, hidden=50, norm="none", dropout=0.5, nonlinearity="sigmoid"), 3).train()
    stack.checkpoint_activations = True
    y, _ = stack(torch.ones(20, 1, 3))
    torch.rand(7)  # whatever is drawn in between
    y.sum().backward()
    assert torch.equal(stack.indrnns()[0].project.bias.grad == 0, y[0, 0] == 0)


def test_evaluation_is_left_alone():
    stack = build_stack(StackConfig(**SMALL), 5).eval()
    x = torch.randn(9, 2, 5)
    y = stack(x)[0]
    stack.checkpoint_activations = True
    assert torch.equal(stack(x)[0], y)
    assert torch.equal(stack.final(x), y[-1])


def test_merged_moments_are_those_of_all_steps_however_far_from_zero():
    x = torch.randn(12, 3, 4) + 1000
    parts = [Moments.of(piece, None) for piece in x.split([5, 1, 6])]
    merged = parts[0].merged(parts[1]).merged(parts[2])
    torch.testing.assert_close(merged.mean, x.mean((0, 1)))
    torch.testing.assert_close(merged.var, x.var((0, 1), correction=0), rtol=1e-3, atol=0)
    nothing = Moments.of(x, torch.tensor([], dtype=torch.int64))
    for got, want in zip(vars(merged.merged(nothing)).values(), vars(merged).values(), strict=True):
        torch.testing.assert_close(got, want)


class Peak(TorchDispatchMode):
    """Counts the bytes of all tensors made within, and the most that were there at once."""

    def __init__(self):
        super().__init__()
        self.seen, self.now, self.most = set(), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, torch.Tensor):
                self.count(t.untyped_storage())
        return out

    def count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return
        self.seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self.free, key, size)

    def free(self, key, size):
        self.seen.discard(key)
        self.now -= size


def peak(T, chunked):
    torch.manual_seed(0)
    stack = build_stack(StackConfig(layers=3, hidden=32, T=T), 1).train()
    stack.checkpoint_activations = chunked
    x = torch.randn(T, 4, 1)
    with Peak() as seen:
        stack.final(x).sum().backward()
    return seen.most


def test_memory_grows_as_the_square_root_of_t_and_without_as_t():
    whole, pieces = ([peak(T, chunked) for T in (100, 400, 1600)] for chunked in (False, True))
    assert all(3.5 < b / a < 4.5 for a, b in pairwise(whole))
    assert all(1.6 < b / a < 2.4 for a, b in pairwise(pieces))
    assert pieces[2] < whole[2] / 5
