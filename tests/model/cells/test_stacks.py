"""Stacks of every kind: one state, any split, any neighbours, the papers' sizes, and depth that trains."""

import numpy as np
import pytest
import torch
from torch import nn

from indrnn.model.cells.layer import CausalConv, Layer
from indrnn.model.cells.norm import BatchNorm, Moments, StepBatchNorm
from indrnn.model.cells.recurrent_weight import clamp_after_steps, parameter_groups
from indrnn.model.cells.reference import indrnn
from indrnn.model.cells.stacks import KINDS, NORMS, Stack, StackConfig, build_stack
from indrnn.model.cells.table import CELLS

SMALL = {"layers": 3, "hidden": 6, "growth": 2, "blocks": (2, 1), "first": 3, "T": 4, "gamma": 2.0}
VARIANTS = [{"kind": k, "norm": n, "per_step": s} for k in KINDS for n in NORMS for s in (False, True) if n != "none" or not s]


def stirred(stack: Stack) -> Stack:
    """The stack with nothing left at its initial value, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in stack.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("norm.var"):
            tensor.copy_(0.5 + noise.abs())
        elif not name.endswith(".u"):
            tensor.add_(0.3 * noise)
    return stack.eval()


@pytest.fixture(params=VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def stack(request):
    """A small stack of each kind, norm and place of the norm."""
    torch.manual_seed(0)
    return stirred(build_stack(StackConfig(**SMALL, **request.param), 5))


@torch.no_grad()
def test_any_split_gives_the_same_outputs_and_state(stack):
    x, lengths = torch.randn(23, 3, 5), torch.tensor([23, 9, 0])
    y, end = stack(x, lengths)
    state, pieces = None, []
    for start, stop in ((0, 1), (1, 1), (1, 8), (8, 12), (12, 23)):
        piece, state = stack(x[start:stop], (lengths - start).clamp(0, stop - start), state)
        pieces.append(piece)
    torch.testing.assert_close(state, end)
    split = torch.cat(pieces)
    for b, n in enumerate(lengths):
        torch.testing.assert_close(split[:n, b], y[:n, b])


@torch.no_grad()
def test_without_lengths_all_steps_count_and_without_state_a_sequence_begins(stack):
    x = torch.randn(7, 2, 5)
    for got, want in zip(stack(x), stack(x, torch.tensor([7, 7]), torch.zeros(2, stack.state_size)), strict=True):
        assert torch.equal(got, want)


@torch.no_grad()
def test_the_position_stops_at_the_last_with_statistics_of_its_own(stack):
    if not stack.positions:
        assert "position" not in {p.role for p in stack.parts()}
        return
    _, state = stack(torch.randn(23, 3, 5), torch.tensor([23, 3, 0]))
    assert state[:, -1].tolist() == [stack.positions - 1, 3, 0]


@torch.no_grad()
def test_neither_neighbours_nor_what_stands_past_a_length_matter(stack):
    x, state = torch.randn(9, 2, 5), torch.rand(2, stack.state_size)
    alone = stack(x[:4, :1], torch.tensor([4]), state[:1])
    x[4:, 0], x[:, 1], state[1, :-1] = float("inf"), float("nan"), float("nan")
    y, end = stack(x, torch.tensor([4, 9]), state)
    torch.testing.assert_close(y[:4, :1], alone[0])
    torch.testing.assert_close(end[:1], alone[1])


def test_the_state_is_what_the_parts_say_and_the_output_as_wide_as_promised(stack):
    y, state = stack(torch.randn(3, 2, 5))
    assert [p.size for p in stack.parts()] == stack.sizes
    assert state.shape == (2, stack.state_size)
    assert y.shape == (3, 2, stack.out_features)
    hidden = [p for p in stack.parts() if p.role == "hidden"]
    assert [p.u for p in hidden] == [tuple(layer.cell.u.tolist()) for layer in stack.indrnns()]
    assert len(hidden) == sum(isinstance(m, Layer) for m in stack.modules())


@torch.no_grad()
def test_folding_changes_nothing(stack):
    x, scale = torch.randn(6, 2, 5), torch.rand(5) + 0.5
    y, end = stack(x * scale)
    if isinstance(stack.indrnns()[0].project, CausalConv):
        stack.fold_()
        x = x * scale
    else:
        stack.fold_(scale)
    for got, want in zip(stack(x), (y, end), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_in_training_padding_changes_neither_statistics_nor_gradients(variant):
    results = []
    for T, filler in ((6, 0.0), (9, 100.0)):
        torch.manual_seed(1)
        stack = build_stack(StackConfig(**SMALL, **variant), 5).train()
        x = torch.full((T, 3, 5), filler)
        x[:6] = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(2))
        lengths = torch.tensor([6, 2, 4])
        x[2:, 1], x[4:, 2] = filler, filler
        y, _ = stack(x, lengths)
        valid = torch.arange(T)[:, None] < lengths
        y[valid].square().sum().backward()
        results.append([*(p.grad for p in stack.parameters()), *stack.buffers()])
    for clean, dirty in zip(*results, strict=True):
        torch.testing.assert_close(dirty, clean)


# Parameters that the authors' published logs state for pixel MNIST: one input, ten classes.
PUBLISHED = [
    ({"kind": "plain", "layers": 6}, 86_410),
    ({"kind": "plain", "layers": 12}, 187_786),
    ({"kind": "residual", "layers": 11}, 170_890),
    ({"kind": "dense", "growth": 16}, 256_514),
]


@pytest.mark.parametrize(("config", "parameters"), PUBLISHED, ids=lambda p: str(p))
def test_the_stacks_have_as_many_parameters_as_the_authors_logs_say(config, parameters):
    stack = build_stack(StackConfig(**config), 1)
    count = sum(p.numel() for p in stack.parameters()) + (stack.out_features + 1) * 10
    assert count == parameters


def test_the_dense_stack_has_40_layers():
    assert len(build_stack(StackConfig(kind="dense"), 1).indrnns()) == 40


@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_weights_start_where_the_paper_says(kind):
    config = StackConfig(**SMALL | {"hidden": 300, "growth": 100, "T": 10}, kind=kind, epsilon=0.25)
    *others, last = [layer.cell.u.detach() for layer in build_stack(config, 2).indrnns()]
    high, low = 2 ** (1 / 10), 0.25 ** (1 / 10)
    assert all(0 <= u.min() < 0.1 for u in others)
    assert all(high - 0.1 < u.max() <= high for u in [*others, last])
    assert low <= last.min() < low + 0.02


DEEP = [("plain", 6), ("plain", 12), ("residual", 21), ("plain", 21), ("residual", 41), ("plain", 40), ("conv", 6), ("dense", 40)]


@pytest.mark.parametrize("norm", ["before", "after"])
@pytest.mark.parametrize(("kind", "layers"), DEEP)
def test_depth_trains(kind, layers, norm):
    """Which half of a sequence holds the larger sum: the loss falls to under half of a guess's in 60 steps."""
    torch.manual_seed(0)
    config = StackConfig(kind=kind, layers=layers, hidden=24, growth=4, norm=norm, T=12)
    stack = build_stack(config, 1)
    net = nn.ModuleList([stack, nn.Linear(stack.out_features, 2)])
    optimizer = torch.optim.Adam(parameter_groups(net, 0.0), lr=4e-3)
    clamp_after_steps(optimizer, net)
    losses = []
    for _ in range(60):
        x = torch.randn(12, 64, 1)
        x[:6] += torch.where(torch.rand(64, 1) < 0.5, 1.0, -1.0)
        label = (x[:6].sum(0) > x[6:].sum(0)).long().squeeze(1)
        loss = nn.functional.cross_entropy(net[1](stack(x)[0][-1]), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.5 * np.log(2)


@torch.no_grad()
def test_the_residual_stack_equals_a_twin_in_numpy():
    torch.manual_seed(0)
    stack = stirred(build_stack(StackConfig(**SMALL | {"layers": 5}, kind="residual", norm="before"), 5)).double()

    def linear(m, x):
        return x @ m.weight.numpy().T + m.bias.numpy()

    def r(layer, x):
        n = layer.norm
        x = (x - n.mean.numpy()) / np.sqrt(n.var.numpy() + 1e-5) * n.weight.numpy() + n.bias.numpy()
        return indrnn(x, layer.cell.u.numpy())[0]

    x = torch.randn(7, 2, 5, dtype=torch.float64)
    y = linear(stack.inputs, x.numpy())
    for block in stack.blocks:
        y = y + linear(block.w2, r(block.r2, linear(block.w1, r(block.r1, y))))
    np.testing.assert_allclose(stack(x, state=torch.zeros(2, 30, dtype=torch.float64))[0], r(stack.last, y), atol=1e-9)


@torch.no_grad()
def test_the_dense_stack_equals_a_twin_in_numpy():
    torch.manual_seed(0)
    stack = stirred(build_stack(StackConfig(**SMALL, kind="dense", norm="after"), 5)).double()

    def run(layer, x):
        n = layer.norm
        h = indrnn(x @ layer.project.weight.numpy().T + layer.project.bias.numpy(), layer.cell.u.numpy())[0]
        return (h - n.mean.numpy()) / np.sqrt(n.var.numpy() + 1e-5) * n.weight.numpy() + n.bias.numpy()

    x = torch.randn(7, 2, 5, dtype=torch.float64)
    y = run(stack.first, x.numpy())
    for block in stack.blocks:
        for bottleneck, layer in zip(block.bottlenecks, block.layers, strict=True):
            y = np.concatenate([y, run(layer, run(bottleneck, y))], 2)
        y = run(block.transition, y)
    np.testing.assert_allclose(stack(x, state=torch.zeros(2, stack.state_size, dtype=torch.float64))[0], y, atol=1e-9)


@torch.no_grad()
def test_the_causal_convolution_is_torchs_on_padded_input():
    conv, x = CausalConv(3, 4, 5), torch.randn(9, 2, 3)
    a, window = conv(x, None, torch.zeros(2, conv.window))
    padded = nn.functional.pad(x.permute(1, 2, 0), (4, 0))  # [B, in, 4 + T]
    want = nn.functional.conv1d(padded, conv.weight.flip(0).permute(1, 2, 0), conv.bias)
    torch.testing.assert_close(a, want.permute(2, 0, 1))
    assert torch.equal(window.view(2, 4, 3), x[-4:].transpose(0, 1))


def test_norm_per_step_is_torchs_batch_norm_of_each_step():
    norm, x = StepBatchNorm(4, 6, momentum=0.1).train(), torch.randn(5, 8, 4)
    y = norm(x, None, torch.zeros(8))
    for t in range(5):
        reference = nn.BatchNorm1d(4)
        torch.testing.assert_close(y[t], reference(x[t]))
        torch.testing.assert_close(norm.mean[t], reference.running_mean)
        torch.testing.assert_close(norm.var[t], reference.running_var)
    assert torch.equal(norm.var[5], torch.ones(4))


def test_norm_per_step_knows_each_rows_position_and_shares_the_last():
    norm, x = StepBatchNorm(4, 3, momentum=1.0).train(), torch.randn(4, 6, 4)
    position = torch.tensor([0.0, 0, 0, 7, 7, 7])
    y = norm(x, None, position)
    last = torch.cat([x[:, 3:].flatten(0, 1), x[2:, :3].flatten(0, 1)])
    torch.testing.assert_close(norm.mean, torch.stack([x[0, :3].mean(0), x[1, :3].mean(0), last.mean(0)]))
    torch.testing.assert_close(y[0, :3], nn.BatchNorm1d(4)(x[0, :3]))


def test_a_row_alone_at_its_position_takes_the_running_statistics():
    norm = StepBatchNorm(2, 3).train()
    x = torch.randn(1, 1, 2)
    torch.testing.assert_close(norm(x, None, torch.zeros(1)), x / (1 + 1e-5) ** 0.5)
    assert torch.equal(norm.mean, torch.zeros(3, 2))


@pytest.mark.parametrize("steps", [0, 1])
def test_one_step_and_none_have_no_statistics_of_their_own_and_leave_the_running_ones_alone(steps):
    norm = BatchNorm(2).train()
    with torch.no_grad():
        norm.mean.fill_(0.5)
        norm.var.fill_(4.0)
    x, valid = torch.randn(3, 1, 2), torch.arange(steps)
    y = norm(x, valid)
    torch.testing.assert_close(y[:steps], (x[:steps] - 0.5) / (4 + 1e-5) ** 0.5)
    assert not y[steps:].any()
    moments = Moments.of(x, valid)
    torch.testing.assert_close(norm.by(x, moments)[:steps], y[:steps])
    norm.track(moments)
    assert norm.mean.tolist() == [0.5, 0.5]
    assert norm.var.tolist() == [4.0, 4.0]


def test_dropout_has_one_mask_over_time():
    stack = build_stack(StackConfig(layers=1, hidden=50, norm="none", dropout=0.5, T=5, nonlinearity="sigmoid"), 3).train()
    dropped = stack(torch.ones(20, 4, 3))[0] == 0  # a sigmoid is never 0
    assert (dropped == dropped[0]).all()
    assert 60 < dropped[0].sum() < 140
    assert not (stack.eval()(torch.ones(20, 4, 3))[0] == 0).any()


def test_weights_decay_and_recurrent_weights_biases_norms_and_embeddings_do_not():
    net = nn.ModuleList([build_stack(StackConfig(kind=k, layers=3), 3) for k in KINDS] + [nn.Embedding(4, 5), nn.Linear(5, 2)])
    decayed, rest, recurrent = parameter_groups(net, 1e-4)
    assert [group["weight_decay"] for group in (decayed, rest, recurrent)] == [1e-4, 0.0, 0.0]
    names = {id(p): n for n, p in net.named_parameters()}
    assert all(names[id(p)].endswith("weight") and "norm" not in names[id(p)] for p in decayed["params"])
    assert "4.weight" in {names[id(p)] for p in rest["params"]}
    assert "5.weight" in {names[id(p)] for p in decayed["params"]}
    assert {names[id(p)] for p in recurrent["params"]} == {n for n in names.values() if n.endswith(".u")}
    assert len(decayed["params"]) + len(rest["params"]) + len(recurrent["params"]) == len(names)


@pytest.mark.parametrize("cell", CELLS)
def test_matrices_of_cells_decay_and_angles_and_reflections_do_not(cell):
    """A phase has no size that could be small: a decay would turn it towards 0. A reflection is the same whatever its vector's length."""
    net = CELLS[cell](3, 8)
    decayed, rest, recurrent = ({id(p) for p in group["params"]} for group in parameter_groups(net, 1e-4))
    assert len(decayed) + len(rest) + len(recurrent) == len(list(net.parameters()))
    for name, p in net.named_parameters():
        turning = name in ("angles", "reflections")
        assert (id(p) in decayed) is (p.dim() == 2 and not turning), name


def test_an_optimiser_with_the_hook_keeps_recurrent_weights_in_their_bound_until_it_is_removed():
    stack = build_stack(StackConfig(**SMALL), 2)
    optimizer = torch.optim.SGD(stack.parameters(), lr=1.0)
    hook, top = clamp_after_steps(optimizer, stack), 2 ** (1 / 4)
    for sign in (1, -1):
        for layer in stack.indrnns():
            layer.cell.u.grad = torch.full_like(layer.cell.u, 50.0 * sign)
        optimizer.step()
        assert all(torch.allclose(layer.cell.u, torch.full_like(layer.cell.u, -sign * top)) for layer in stack.indrnns())
    hook.remove()
    optimizer.step()
    assert all((layer.cell.u.abs() > top).all() for layer in stack.indrnns())


@pytest.mark.parametrize(
    "wrong", [{"kind": "tree"}, {"norm": "beside"}, {"kind": "residual", "layers": 6}, {"hidden": 0}, {"blocks": ()}, {"gamma": 0.0}]
)
def test_a_configuration_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        build_stack(StackConfig(**wrong), 3)
