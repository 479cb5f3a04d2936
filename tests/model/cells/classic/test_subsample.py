"""A subsampled stack makes fewer steps the higher a layer is, and still any split of a stream gives the same."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from indrnn.export import kit
from indrnn.export.adopt.bundle_subject import bundle_subject
from indrnn.export.write import write
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.cells.stacks import SUBSAMPLED, Stack, StackConfig, build_stack
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.training.checkpoint import Meta

SIZES = {"layers": 3, "hidden": 4, "T": 30, "gamma": 1.0, "kind": SUBSAMPLED}


def stack_of(cell: str, window: int = 3, norm: str = "none", **more: object) -> Stack:
    torch.manual_seed(0)
    stack = build_stack(StackConfig(**SIZES, window=window, cell=cell, norm=norm, **more), 5)
    with torch.no_grad():
        for name, tensor in stack.state_dict().items():
            if "norm" in name:
                tensor.copy_(0.5 + torch.rand_like(tensor))
    return stack.eval()


@pytest.fixture(autouse=True)
def wide():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("norm", ["before", "after", "none"])
@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("cell", ["indrnn", "gru", "lstm", "mingru", "scrn"])
@torch.no_grad()
def test_any_split_gives_the_same_and_rows_may_stand_at_different_places(cell, window, norm):
    stack = stack_of(cell, window, norm)
    x, lengths = torch.randn(31, 4, 5), torch.tensor([31, 9, 0, 17])
    y, end = stack(x, lengths)
    assert [p.size for p in stack.parts()] == stack.sizes
    for _ in range(2):
        state, pieces = None, []
        for start, stop in ((0, 1), (1, 1), (1, 8), (8, 12), (12, 13), (13, 31)):
            piece, state = stack(x[start:stop], (lengths - start).clamp(0, stop - start), state)
            pieces.append(piece)
        torch.testing.assert_close(state, end)
        for b, n in enumerate(lengths):
            torch.testing.assert_close(torch.cat(pieces)[:n, b], y[:n, b])
        stack.fold_()
    _, left = stack(x[:9], torch.tensor([4, 9, 0, 1]))  # each row's window is as full as its own past says
    for b, n in enumerate((4, 9, 0, 1)):
        rest, _ = stack(x[n:, b : b + 1], (lengths[b : b + 1] - n).clamp_min(0), left[b : b + 1])
        torch.testing.assert_close(rest[: max(0, int(lengths[b]) - n), 0], y[n : int(lengths[b]), b])


@torch.no_grad()
def test_it_is_the_layers_run_one_after_another_on_joined_windows():
    stack = stack_of("lstm")
    x = torch.randn(20, 2, 5)
    got, _ = stack(x)
    level = x
    for i, layer in enumerate(stack.indrnns()):
        if i:
            level = torch.stack([torch.cat(list(level[k : k + 3]), 1) for k in range(0, len(level) // 3 * 3, 3)])
        level, _ = layer.cell(level, None, torch.zeros(2, layer.cell.state_size))
    want = torch.stack([torch.zeros(2, 4), *level])[torch.arange(1, 21) // 9]
    torch.testing.assert_close(got, want)


def test_training_in_pieces_gives_the_gradients_of_the_whole():
    for norm in ("before", "after", "none"):
        grads = []
        for pieces in (False, True):
            stack = stack_of("gru", 2, norm).train()
            stack.checkpoint_activations = pieces
            x = torch.randn(18, 3, 5, generator=torch.Generator().manual_seed(2))
            stack.final(x, torch.tensor([18, 13, 8])).square().sum().backward()
            grads.append([p.grad for p in stack.parameters()])
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-6, atol=1e-8)


@torch.no_grad()
def test_a_neighbour_of_nan_is_no_index():
    stack = stack_of("gru")
    x, state = torch.randn(7, 2, 5), torch.zeros(2, stack.state_size)
    state[1] = np.nan
    torch.testing.assert_close(stack(x, None, state)[0][:, 0], stack(x[:, :1])[0][:, 0])


def test_norms_per_step_are_refused():
    with pytest.raises(SizeError, match="do not agree on what a step is"):
        build_stack(StackConfig(**SIZES, per_step=True, norm="before"), 5)


@pytest.fixture
def narrow(wide):
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("cell", ["indrnn", "lstm"])
def test_its_file_passes_the_kit(cell: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"layers": 3, "hidden": 6, "T": 30, "gamma": 0.5, "inputs": 2, "classes": 2, "window": 3}
    net = SequenceNet(SequenceConfig(SUBSAMPLED, norm="none", cell=cell, h0="learned", **sizes)).eval().requires_grad_(False)
    told = {"features": [{"name": "a"}, {"name": "b"}], "answer": "end"}
    meta = Meta("tensor", "", 0, 0, labels=("x", "y"), told=told, cell=cell, parts=net.parts(), parameters=1)
    bundle = write(net, meta, tmp_path, "net", "1", command="")
    assert bundle.manifest.parity_error <= 1e-5
    findings = kit.check(bundle_subject(bundle), steps=100)
    assert [f.fault for f in findings if f.fault is not None] == [], kit.report(findings)


def test_a_last_layer_that_would_not_make_a_step_is_refused_and_the_largest_that_fits_named():
    for sizes, said in (
        ({"layers": 6, "window": 4, "T": 784}, "784 steps, got 4 ^ 5: a window of 3 or 5 layers at most"),
        ({"layers": 2, "window": 31}, "30 steps, got 31 ^ 1: a window of 30 or 1 layers at most"),
        ({"layers": 9, "window": 2}, "30 steps, got 2 ^ 8: a window of 1 or 5 layers at most"),
    ):
        with pytest.raises(SizeError, match=re.escape(said)):
            build_stack(StackConfig(**SIZES | sizes), 5)
    for sizes in ({"layers": 2, "window": 30}, {"layers": 5, "window": 2}, {"layers": 9, "window": 1}):
        build_stack(StackConfig(**SIZES | sizes), 5)


@pytest.mark.parametrize("steps", [8, 9])
@pytest.mark.parametrize("norm", ["before", "after"])
def test_one_row_with_one_full_window_or_none_can_be_trained_on(norm, steps):
    """One step has no variance: batch norm takes its running statistics, in pieces as in the whole."""
    found = []
    for pieces in (False, True):
        stack = stack_of("indrnn", 3, norm).train()
        stack.checkpoint_activations = pieces
        running = stack.indrnns()[2].norm.mean.clone()
        y = stack.final(torch.randn(steps, 1, 5, generator=torch.Generator().manual_seed(2)))
        y.sum().backward()
        found.append([y.detach(), *(p.grad for p in stack.parameters() if p.grad is not None)])
        assert torch.equal(stack.indrnns()[2].norm.mean, running)
    assert all(tensor.isfinite().all() for tensor in found[0])
    torch.testing.assert_close(found[1], found[0])
