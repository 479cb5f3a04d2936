"""The graph's contract: one state vector, any split, any neighbours, one recurrence node per layer."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets import inputs

from indrnn.model.cells.norm import BatchNorm
from indrnn.model.cells.recurrent_weight import clamp_recurrent_
from indrnn.model.cells.reference import indrnn
from indrnn.model.nets.action import GATE_FLOOR, POSITION_SCALE, VELOCITY_SCALE, ActionConfig, ActionNet
from indrnn.model.nets.chars import LEAST_LOGIT

CLOSE = {"rtol": 0, "atol": 1e-4}
many = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@torch.no_grad()
def run(net, x, lengths, state):
    return net(x, torch.tensor(lengths), state)


def test_folding_changes_nothing_but_the_rounding_and_the_mean_of_the_logits(net):
    x, state, K = inputs(net, 3, 11), torch.rand(3, net.state_size), net.classes
    logits, end = run(net, x, [11, 11, 4], state)
    folded_logits, folded_end = run(net.fold(), x, [11, 11, 4], state)
    torch.testing.assert_close(folded_logits, logits - logits.mean(2, keepdim=True), **CLOSE)
    torch.testing.assert_close(folded_end[:, :-K], end[:, :-K], **CLOSE)


def test_a_folded_chars_net_gives_up_on_no_symbol(chars_net):
    with torch.no_grad():
        chars_net.readout.bias[2] = -500
    logits, _ = run(chars_net.fold(), inputs(chars_net, 1, 9), [9], chars_net.start(1))
    assert (logits[..., 2] == LEAST_LOGIT).all()
    assert (logits[..., :2] > 0).all()


def test_a_folded_net_has_no_batch_norm_and_the_unfolded_keeps_its_own(net):
    folded = net.fold()
    assert not any(isinstance(m, BatchNorm) for m in folded.modules())
    assert any(isinstance(m, BatchNorm) for m in net.modules())


@many
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 1000))
def test_any_split_gives_the_same_logits_and_state(net, pieces, seed):
    net, T = net.fold(), sum(pieces)
    x, state = inputs(net, 1, T, seed), net.start(1)
    whole, end = run(net, x, [T], state)
    logits = []
    for piece in x.split(pieces, 1):
        out, state = run(net, piece, [piece.shape[1]], state)
        logits.append(out)
    torch.testing.assert_close(torch.cat(logits, 1), whole, **CLOSE)
    torch.testing.assert_close(state, end, **CLOSE)


@many
@given(st.lists(st.integers(0, 7), min_size=2, max_size=4), st.integers(0, 1000))
def test_neighbours_do_not_matter_not_even_when_they_hold_nan(net, lengths, seed):
    net, T = net.fold(), max(lengths)
    x, state = inputs(net, len(lengths), T, seed), torch.rand(len(lengths), net.state_size)
    alone = run(net, x[:1, : lengths[0]], lengths[:1], state[:1])
    if x.is_floating_point():
        x[1:] = float("nan")
        x[0, lengths[0] :] = float("inf")
    state[1:] = float("nan")
    logits, end = run(net, x, lengths, state)
    torch.testing.assert_close(logits[:1, : lengths[0]], alone[0], **CLOSE)
    torch.testing.assert_close(end[:1], alone[1], **CLOSE)


@pytest.mark.parametrize("T", [0, 3])
def test_a_row_of_length_0_keeps_its_state_to_the_bit(net, T):
    state = torch.rand(2, net.state_size)
    logits, end = run(net.fold(), inputs(net, 2, T), [0, 0], state)
    assert logits.shape == (2, T, net.classes)
    assert torch.equal(end, state)


def test_the_state_ends_with_the_logits_after_the_last_step(net):
    logits, end = run(net.fold(), inputs(net, 2, 6), [6, 4], net.start(2))
    assert torch.equal(end[:, -net.classes :], torch.stack([logits[0, 5], logits[1, 3]]))


def test_the_parts_cover_the_state_and_name_every_recurrent_weight(net):
    parts = net.parts()
    assert sum(p.size for p in parts) == net.state_size
    hidden = [p for p in parts if p.role == "hidden"]
    assert [p.layer for p in hidden] == [0, 1, 2]
    assert parts[-1].role == "last_logits"
    for p, layer in zip(hidden, net.stack.indrnns(), strict=True):
        np.testing.assert_array_equal(np.float32(p.u), layer.cell.u.detach())
    assert all(len(p.u) == p.size for p in parts if p.u is not None)


def test_every_recurrent_weight_is_below_1_after_the_clamp(net):
    with torch.no_grad():
        for layer in net.stack.indrnns():
            layer.cell.u.mul_(5)
    clamp_recurrent_(net)
    assert max(abs(u) for p in net.parts() for u in p.u or ()) < 1


def test_export_sees_one_recurrence_node_per_layer_at_any_batch_and_length(net):
    net, free = net.fold().requires_grad_(False), torch.export.Dim.DYNAMIC
    example = (inputs(net, 2, 4), torch.tensor([4, 2]), net.start(2))
    graph = torch.export.export(net, example, dynamic_shapes=({0: free, 1: free}, {0: free}, {0: free}))
    nodes = [n for n in graph.graph.nodes if n.target is torch.ops.indrnn.recurrence.default]
    assert len(nodes) == (3 if "Chars" in type(net).__name__ else 5)
    for rows, steps in ((1, 1), (3, 9), (2, 0)):
        x, state, lengths = inputs(net, rows, steps, 1), torch.rand(rows, net.state_size), torch.full((rows,), steps)
        torch.testing.assert_close(graph.module()(x, lengths, state), net(x, lengths, state))


def test_the_chars_net_equals_a_twin_in_numpy(chars_net):
    net = chars_net.fold()
    x = inputs(net, 2, 9)
    y: np.ndarray = np.zeros((9, 2, 8))
    for i, layer in enumerate(net.stack.indrnns()):
        w, u = layer.project.weight.detach().double().numpy(), layer.cell.u.detach().double().numpy()
        a = w[x.T] if i == 0 else y @ w.T + layer.project.bias.detach().double().numpy()
        y = y + indrnn(a, u)[0]
    logits = y @ net.readout.weight.detach().double().numpy().T + net.readout.bias.detach().double().numpy()
    np.testing.assert_allclose(run(net, x, [9, 9], net.start(2))[0].transpose(0, 1), logits, atol=1e-4)


def test_the_action_net_equals_a_twin_in_numpy(action_net):
    net, T = action_net.fold(), 9
    x = inputs(net, 1, T)
    frames = x[0].double().numpy()
    position = (frames - frames[:, :, 1:2]).reshape(T, -1) * POSITION_SCALE
    velocity = np.diff(frames, axis=0, prepend=frames[:1]).reshape(T, -1) * VELOCITY_SCALE
    y = np.concatenate([position, velocity], 1)[:, None]
    scale = np.repeat([POSITION_SCALE, VELOCITY_SCALE], position.shape[1])
    for i, layer in enumerate(net.stack.indrnns()):
        w, b = (t.detach().double().numpy() for t in (layer.project.weight, layer.project.bias))
        out = indrnn(y @ (w / scale if i == 0 else w).T + b, layer.cell.u.detach().double().numpy())[0]
        y = out if i == 0 else y + out
    gates, shifts = (t.detach().double().numpy() for t in (net.gate.weight, net.gate.bias))
    means: list[np.ndarray] = []
    for a in net.config.pools:
        gate = GATE_FLOOR + (1 - GATE_FLOOR) / (1 + np.exp(-(y[:, 0] @ gates.T + shifts)))[:, len(means)]
        share = [gate[: t + 1] * a ** np.arange(t, -1, -1) for t in range(T)]
        means.append(np.stack([s @ y[: t + 1, 0] / s.sum() for t, s in enumerate(share)]))
    read = np.concatenate([y[:, 0], *means], 1)
    logits = read @ net.readout.weight.detach().double().numpy().T + net.readout.bias.detach().double().numpy()
    np.testing.assert_allclose(run(net, x, [T], net.start(1))[0][0], logits, rtol=1e-4, atol=1e-3)


def test_an_absent_person_contributes_nothing(action_net):
    net, x = action_net.fold(), inputs(action_net, 1, 5)
    x[:, :, 1] = 0
    logits, _ = run(net, x, [5], net.start(1))
    with torch.no_grad():
        weight = net.stack.indrnns()[0].project.weight
        weight.view(-1, 2, 2, 15)[:, :, 1] = 100.0  # whatever the second person's weights are
    torch.testing.assert_close(run(net, x, [5], net.start(1))[0], logits)


def test_the_first_frame_has_no_velocity_and_moving_everything_has_no_position(action_net):
    x = inputs(action_net, 1, 2)
    far = action_net._features(x + 7, torch.zeros(1, 30))
    near = action_net._features(x, torch.zeros(1, 30))
    torch.testing.assert_close(far, near, rtol=0, atol=1e-5)
    assert not near[0, 0, 30:].any()


def test_a_constant_pool_is_its_own_mean_from_the_first_step_on(action_net):
    y = torch.full((50, 1, 8), 3.0)
    means, _ = action_net._pool(y, torch.tensor([50]), torch.zeros(1, 18))
    torch.testing.assert_close(means, torch.full((50, 1, 16), 3.0))


def test_batch_norm_counts_only_the_steps_named():
    x = torch.randn(4, 3, 5)
    valid = torch.tensor([0, 1, 5, 7, 11])
    kept = x.flatten(0, 1)[valid]
    norm = BatchNorm(5, momentum=1.0).train()
    x.view(12, 5)[[2, 3, 4, 6, 8, 9, 10]] = float("nan")
    y = norm(x, valid).flatten(0, 1)
    torch.testing.assert_close(y[valid], (kept - kept.mean(0)) / (kept.var(0, correction=0) + 1e-5).sqrt())
    torch.testing.assert_close(norm.mean, kept.mean(0))
    assert not y[[2, 3, 4, 6, 8, 9, 10]].any()


def test_the_pool_stays_a_mean_when_the_network_wants_to_weigh_nothing(action_net):
    with torch.no_grad():
        action_net.gate.bias.fill_(-200)
        means, _ = action_net._pool(torch.full((3000, 1, 8), 2.0), torch.tensor([3000]), torch.zeros(1, 18))
    torch.testing.assert_close(means, torch.full((3000, 1, 16), 2.0))


def test_places_of_any_size_leave_a_finite_state():
    """Triton's load tool sends random bits for numbers."""
    torch.manual_seed(0)
    net = ActionNet(ActionConfig(hidden=8, layers=1, across=((4, 8), (12, 16)), apart=True)).eval()
    x = torch.randn(2, 3, 1, 20, 3).sign() * torch.tensor([3e38, 1e20]).view(2, 1, 1, 1, 1)
    _, state = net(x, torch.tensor([3, 3]), torch.zeros(2, sum(net.sizes)))
    assert torch.isfinite(state).all()


def test_a_steadied_answer_is_the_leaky_mean_of_each_frames_own():
    """The first frame's is its own, and what comes after counts 0.8 times less for each frame that has passed since."""
    torch.manual_seed(0)
    own = ActionNet(ActionConfig(hidden=8, layers=1, pools=(0.9,), norm=False)).eval()
    torch.nn.init.normal_(own.readout.weight)
    steadied = ActionNet(dataclasses.replace(own.config, steady=0.8)).eval()
    steadied.load_state_dict(own.state_dict())
    x = torch.randn(2, 7, 1, 20, 3)
    each, _ = run(own, x, [7, 4], own.start(2))
    means, state = run(steadied, x, [7, 4], steadied.start(2))
    for row, T in enumerate((7, 4)):
        for t in range(T):
            weights = 0.8 ** torch.arange(t, -1, -1.0)
            torch.testing.assert_close(means[row, t], (weights[:, None] * each[row, : t + 1]).sum(0) / weights.sum(), **CLOSE)
        torch.testing.assert_close(state[row, -steadied.classes :], means[row, T - 1])
    assert [p.size for p in steadied.parts()] == steadied.sizes
    assert own.state_size + own.classes + 1 == steadied.state_size
