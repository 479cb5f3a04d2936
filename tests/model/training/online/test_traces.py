"""Traces give the gradient of backpropagation through all steps, whatever the pieces, and do not grow with their number."""

import pytest
import torch
from torch import nn

from indrnn.model.cells.independent import Independent
from indrnn.model.cells.layer import Layer
from indrnn.model.cells.stacks import Chain, StackConfig, build_stack, skip_chain
from indrnn.model.training.online import traces
from indrnn.model.training.online.traces import OnlineError, Traces

B, H, K = 3, 5, 7


def chain(layers, reads, activation="relu", skip=True):
    """A chain in float64 whose memory is longer than any piece; reads: how many numbers, or an embedding of K symbols."""
    torch.manual_seed(layers)
    first = nn.Embedding(K, H) if reads is None else nn.Linear(reads, H)
    made = [Layer(first if i == 0 else nn.Linear(H, H), Independent(H, H, 0.999, 0.9, activation)) for i in range(layers)]
    return Chain(made, skip).double()


def given(reads, T=200):
    torch.manual_seed(9)
    x = torch.randint(K, (T, B)) if reads is None else torch.randn(T, B, reads).double()
    return x, torch.randn(T, B, H).double() / T


def whole(stack, x, weight):
    """Gradients of all weights by backpropagation through all T steps."""
    stack.zero_grad()
    y, _ = stack(x, None, torch.zeros(B, stack.state_size).double())
    (y * weight).sum().backward()
    return [p.grad.clone() for p in stack.parameters()]


def in_pieces(stack, x, weight, length):
    """The same by pieces of `length` steps, each of which sees no other."""
    stack.zero_grad()
    state, known = torch.zeros(B, stack.state_size).double(), Traces(stack, B)
    for begin in range(0, len(x), length):
        piece = slice(begin, begin + length)
        lengths = torch.full((B,), len(x[piece]))
        y, after = stack(x[piece], lengths, known.attached(stack, state))
        known.advance(stack, x[piece], lengths, state)  # in this order, as learners do
        (y * weight[piece]).sum().backward()
        state = after.detach()
    return [p.grad for p in stack.parameters()]


@pytest.mark.parametrize("length", [1, 37])
@pytest.mark.parametrize(
    ("layers", "reads", "activation", "skip"),
    [
        (1, 2, "relu", True),
        (1, None, "relu", True),
        (1, 2, "tanh", True),
        (2, 2, "relu", False),
        (3, None, "relu", True),
        (3, 2, "tanh", True),
    ],
)
def test_the_gradient_is_that_of_backpropagation_through_all_steps(layers, reads, activation, skip, length):
    stack, (x, weight) = chain(layers, reads, activation, skip), given(reads)
    for want, got in zip(whole(stack, x, weight), in_pieces(stack, x, weight, length), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 2])
def test_it_is_so_after_thousands_of_steps(layers):
    stack, (x, weight) = chain(layers, 2), given(2, 5000)
    for want, got in zip(whole(stack, x, weight), in_pieces(stack, x, weight, 100), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-12)


def test_without_traces_it_is_another():
    """The reach of these weights is longer than a piece: truncated backpropagation would not pass the test above."""
    stack, (x, weight) = chain(1, 2), given(2)
    want = whole(stack, x, weight)
    state = torch.zeros(B, H).double()
    stack.zero_grad()
    for begin in range(0, len(x), 37):
        y, after = stack(x[begin : begin + 37], None, state)
        (y * weight[begin : begin + 37]).sum().backward()
        state = after.detach()
    cut = [p.grad for p in stack.parameters()]
    assert max(float((a - b).norm() / b.norm()) for a, b in zip(cut, want, strict=True)) > 0.1


def test_rows_of_unequal_lengths_and_rows_that_begin_anew():
    stack, (x, weight) = chain(2, 2), given(2)
    lengths, known = torch.tensor([5, 0, 9]), Traces(stack, B)
    state = torch.zeros(B, stack.state_size).double()
    known.advance(stack, x[:9], lengths, state)
    state = stack(x[:9], lengths, state)[1].detach()
    known.forget(torch.tensor([False, True, True]))
    state[1:] = 0
    y, _ = stack(x[9:20], None, known.attached(stack, state))
    (y * weight[9:20]).sum().backward()
    got = [p.grad.clone() for p in stack.parameters()]
    stack.zero_grad()
    long, _ = stack(torch.cat([x[:5, :1], x[9:20, :1]]), None, torch.zeros(1, stack.state_size).double())
    short, _ = stack(x[9:20, 1:], None, torch.zeros(2, stack.state_size).double())
    ((long[5:] * weight[9:20, :1]).sum() + (short * weight[9:20, 1:]).sum()).backward()
    for a, p in zip(got, stack.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-9, atol=1e-12)


def test_they_are_as_many_after_any_number_of_steps_as_before_the_first():
    stack, (x, _) = chain(2, 2), given(2)
    known = Traces(stack, B)
    size = sum(b.numel() for b in known.buffers())
    assert size == B * traces.numbers(stack.indrnns())
    for _ in range(20):
        known.advance(stack, x, torch.full((B,), len(x)), torch.zeros(B, stack.state_size).double())
    assert sum(b.numel() for b in known.buffers()) == size
    assert all(b.grad_fn is None and bool(b.isfinite().all()) for b in known.buffers())


@pytest.mark.parametrize(
    ("stack", "said"),
    [
        (skip_chain(2, 8, 1, 0.99, 0.0, norm=True), "layers without norm"),
        (skip_chain(2, 8, 1, 0.99, 0.5, norm=False), "--dropout 0"),
        (skip_chain(2, 8, 1, 0.99, 0.0, norm=False, cell="gru"), "--cell indrnn"),
        (build_stack(StackConfig("residual", 3, 8), 2), "in a chain"),
        (skip_chain(2, 512, 3, 0.99, 0.0, norm=False), "--layers 1 takes 0.0"),
    ],
)
def test_what_cannot_be_taught_so_is_refused_with_the_remedy(stack, said):
    with pytest.raises(OnlineError, match=said):
        Traces(stack, 16)
