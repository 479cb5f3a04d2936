"""A start that is not zero: told by `started`, the same in any split, learned where asked; and the penalty on states that grow."""

import numpy as np
import pytest
import torch

from indrnn.model.cells.classic.norm_penalty import norm_change, penalised
from indrnn.model.cells.recurrent_weight import SizeError, parameter_groups
from indrnn.model.cells.stacks import KINDS, Stack, StackConfig, StackOptions, build_stack

SMALL = {"layers": 3, "hidden": 6, "growth": 2, "blocks": (2, 1), "first": 3, "T": 4, "gamma": 1.0}


def stack_of(h0: str, cell: str = "gru", kind: str = "plain", **more: object) -> Stack:
    torch.manual_seed(0)
    return build_stack(StackConfig(**SMALL | {"kind": kind, "cell": cell, "h0": h0, "norm": "none"} | more), 5).eval()


@pytest.mark.parametrize("h0", ["small", "learned"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["indrnn", "lstm", "urnn"])
@torch.no_grad()
def test_a_zero_row_starts_from_h0_and_any_split_goes_on(cell, kind, h0):
    stack = stack_of(h0, cell, kind, norm="after", per_step=kind == "plain")
    assert [p.role for p in stack.parts()][-1] == "started"
    assert [p.size for p in stack.parts()] == stack.sizes
    x, lengths = torch.randn(9, 3, 5), torch.tensor([9, 4, 0])
    y, end = stack(x, lengths)
    assert end[:, -1].tolist() == [1, 1, 0]
    assert not end[2].any()  # it has made no step, and stands at the start
    state, pieces = None, []
    for start, stop in ((0, 1), (1, 1), (1, 6), (6, 9)):
        piece, state = stack(x[start:stop], (lengths - start).clamp(0, stop - start), state)
        pieces.append(piece)
    torch.testing.assert_close(state, end)
    for b, n in enumerate(lengths):
        torch.testing.assert_close(torch.cat(pieces)[:n, b], y[:n, b])
    none, same = stack(x[:0])
    assert none.shape[0] == 0
    assert not same.any()


@torch.no_grad()
def test_the_start_is_what_the_cells_carry_into_the_first_step():
    stack, plain = stack_of("learned"), stack_of("zero")
    plain.load_state_dict({name: w for name, w in stack.state_dict().items() if name != "h0"})
    x = torch.randn(4, 2, 5)
    want, _ = plain(x, None, stack.h0.expand(2, -1))
    torch.testing.assert_close(stack(x)[0], want)
    assert not torch.equal(want, plain(x)[0])


def test_a_learned_start_is_trained_and_does_not_decay_and_a_small_one_stays():
    for h0, learns in (("learned", True), ("small", False)):
        stack = stack_of(h0)
        before = stack.h0.detach().clone()
        optimizer = torch.optim.AdamW(parameter_groups(stack, 0.1), lr=0.01)
        assert any(p is stack.h0 for p in parameter_groups(stack, 0.1)[1]["params"]) is learns
        stack(torch.randn(3, 2, 5))[0].square().sum().backward()
        optimizer.step()
        assert torch.equal(stack.h0, before) is not learns
        assert "h0" in stack.state_dict()


@pytest.mark.parametrize("h0", ["small", "learned"])
def test_training_in_pieces_starts_once(h0):
    grads = []
    for pieces in (False, True):
        stack = stack_of(h0, norm="before").train()
        stack.checkpoint_activations = pieces
        x = torch.randn(10, 3, 5, generator=torch.Generator().manual_seed(2))
        stack.final(x, torch.tensor([10, 7, 4])).square().sum().backward()
        grads.append([p.grad for p in stack.parameters()])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)


def test_what_is_no_start_and_no_penalty_is_refused():
    for wrong in ({"h0": "ones"}, {"norm_penalty": -1.0}):
        with pytest.raises(SizeError, match="expected"):
            build_stack(StackConfig(**SMALL, **wrong), 5)
    assert StackOptions() == StackOptions(h0="zero", norm_penalty=0.0)


def test_the_penalty_is_that_of_its_equation_over_the_steps_of_each_row():
    h, lengths = torch.randn(5, 3, 4, dtype=torch.float64), torch.tensor([5, 3, 0])
    norms = np.linalg.norm(h.numpy(), axis=2)
    want = [(norms[t, b] - norms[t - 1, b]) ** 2 for b, n in enumerate(lengths) for t in range(1, n)]
    assert float(norm_change(h, lengths)) == pytest.approx(np.mean(want))
    assert float(norm_change(h[:1])) == 0
    h[3:, 1] = np.nan
    assert float(norm_change(h, lengths)) == pytest.approx(np.mean(want))


def test_a_penalised_output_is_the_output_and_its_gradient_has_the_penalty_in_it():
    h = torch.randn(5, 2, 4, dtype=torch.float64).requires_grad_()
    y = penalised(h, None, 0.3)
    assert torch.equal(y, h)
    (got,) = torch.autograd.grad(y.square().sum(), h)
    (want,) = torch.autograd.grad(h.square().sum() + 0.3 * norm_change(h), h)
    torch.testing.assert_close(got, want)


def test_a_stack_adds_the_penalty_in_training_alone():
    torch.manual_seed(0)
    x, found = torch.randn(6, 2, 5), []
    for beta in (0.0, 10.0):
        stack = stack_of("zero", "irnn", norm_penalty=beta)
        y, _ = stack(x)
        y.sum().backward()
        evaluated = [p.grad.clone() for p in stack.parameters()]
        stack.train()
        stack.zero_grad()
        y, _ = stack(x)
        y.sum().backward()
        found.append((evaluated, [p.grad for p in stack.parameters()]))
    (plain, plain_training), (same, penalised_training) = found
    torch.testing.assert_close(plain, same)
    torch.testing.assert_close(plain, plain_training)
    assert any(not torch.allclose(a, b) for a, b in zip(plain_training, penalised_training, strict=True))


def test_a_penalty_and_training_in_pieces_do_not_go_together():
    """Each piece of time would add a mean of its own, and the pairs across borders would be missing."""
    with pytest.raises(SizeError, match="--no-checkpoint-activations"):
        stack_of("zero", "irnn", norm_penalty=1.0).checkpoint_activations = True
    stack = stack_of("zero", "irnn")
    stack.checkpoint_activations = True
    with pytest.raises(SizeError, match="--no-checkpoint-activations"):
        stack.taking(StackOptions(norm_penalty=1.0))
    penalised_stack = stack_of("zero", "irnn", norm_penalty=1.0)
    penalised_stack.checkpoint_activations = False
    assert penalised_stack.norm_penalty == 1
