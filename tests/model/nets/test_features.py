"""What the network sees of a body does not depend on what it says it does not depend on."""

import pytest
import torch
from nets import stirred

from indrnn.model.data.augment import rotation
from indrnn.model.nets.action import ActionConfig, ActionNet, distances, facing, places, turned

ACROSS = ((0, 1), (3, 4))


def body(T=12, persons=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(1, T, persons, 5, 3, generator=generator) * 0.05
    frames = frames.cumsum(1) + torch.tensor([[-0.3, 0.4, 0.0], [0.3, 0.4, 0.0], [0, 0, 0], [-0.1, 0, 0], [0.1, 0, 0]])
    return frames + torch.tensor([0.2, 0.1, 3.0])


def net(**more):
    torch.manual_seed(0)
    return stirred(ActionNet(ActionConfig(joints=5, root=2, classes=3, hidden=8, layers=2, **more)))


def answer(network, x):
    with torch.no_grad():
        return network(x, torch.tensor([x.shape[1]]), network.start(1))[0]


@pytest.mark.parametrize("angle", [0.4, 1.6, 3.1])
def test_a_body_seen_from_its_own_side_looks_the_same_however_it_is_turned(angle):
    x = body()
    own, both = net(across=ACROSS, own=True), net(across=ACROSS)
    y = x @ torch.from_numpy(rotation(angle, 0, 0)).T
    torch.testing.assert_close(answer(own, y), answer(own, x), atol=1e-4, rtol=1e-4)
    assert (answer(both, y) - answer(both, x)).abs().max() > 0.01


def test_a_body_that_faces_the_camera_is_not_turned():
    x = torch.tensor([[-0.3, 0.4, 0.0], [0.3, 0.4, 0.0], [0, 0, 0], [-0.1, 0, 0], [0.1, 0, 0]])[None, None, None]
    across = torch.tensor([-1.0, 1, 0, -1, 1])
    torch.testing.assert_close(facing(x, across), torch.tensor([1.0, 0.0]).view(1, 1, 1, 1, 2))
    torch.testing.assert_close(turned(x, facing(x, across)), x)


def test_a_body_without_a_side_has_no_features_of_its_own_and_no_nan():
    x = torch.zeros(1, 3, 1, 5, 3)
    across = torch.tensor([-1.0, 1, 0, -1, 1])
    assert not turned(x, facing(x, across)).any()


def test_together_two_persons_show_where_they_stand_to_each_other():
    x = body(persons=2)
    far = x.clone()
    far[:, :, 1, :, 0] += 1.0
    apart, together = net(persons=2), net(persons=2, together=True)
    torch.testing.assert_close(answer(apart, far), answer(apart, x), atol=1e-5, rtol=1e-4)
    assert (answer(together, far) - answer(together, x)).abs().max() > 0.01
    everybody = x + torch.tensor([0.5, 0, 0.5])
    torch.testing.assert_close(answer(together, everybody), answer(together, x), atol=1e-4, rtol=1e-4)


def test_who_is_there_alone_is_the_centre_in_either_slot():
    x = body(persons=2)
    x[:, :, 0] = 0
    frames = torch.cat([torch.zeros_like(x[:, :1]), x], 1)
    position, velocity = places(frames, root=2, together=True)
    assert not position[:, :, 0].any()
    assert not position[:, :, 1, 2].any()
    assert not velocity[:, 0].any()
    torch.testing.assert_close(position[:, :, 1], x[:, :, 1] - x[:, :, 1, 2:3])


def test_distances_are_those_of_every_pair_whatever_the_camera():
    x = body()[:, :, :, :3]
    ours = distances(x)
    assert ours.shape == (1, 12, 1, 3)
    for k, (a, b) in enumerate([(0, 1), (0, 2), (1, 2)]):
        torch.testing.assert_close(ours[0, 5, 0, k], torch.dist(x[0, 5, 0, a], x[0, 5, 0, b]))
    torch.testing.assert_close(distances(x @ torch.from_numpy(rotation(1.0, 0.5, 0.2)).T + 2), ours, atol=1e-4, rtol=1e-4)


def test_who_is_absent_has_no_distances():
    x = body(persons=2)
    x[:, :, 1] = 0
    network = net(persons=2, apart=True)
    seen = network._features(x, torch.zeros(1, 2 * 5 * 3))
    assert seen.shape == (1, 12, network.config.features)
    first, second = seen[..., -20:].split(10, 2)
    assert first.abs().min() > 0
    assert not second.any()


def test_a_joint_that_jumps_moves_the_answer_no_more_than_the_limit():
    """What it leaps beyond is the tracker's error; its place is still seen."""
    x = body()
    near, far = x.clone(), x.clone()
    near[:, 6:, :, 0, 0] += 10
    far[:, 6:, :, 0, 0] += 20
    free, held = net(), net(jump=0.1)
    assert free._features(far, x[:, 0].flatten(1))[0, 6].max() > 19
    speeds = held._features(far, x[:, 0].flatten(1))[..., 15:]
    assert speeds.abs().max() == pytest.approx(0.1)
    torch.testing.assert_close(held._features(near, x[:, 0].flatten(1))[..., 15:], speeds)


SEEN = (
    {"across": ACROSS},
    {"across": ACROSS, "own": True, "together": True, "persons": 2},
    {"across": ACROSS, "own": True, "apart": True, "jump": 0.1, "persons": 2, "steady": 0.9},
)


@pytest.mark.parametrize("more", SEEN)
def test_any_split_gives_the_same_answer(more):
    network = net(**more)
    x = body(persons=more.get("persons", 1))
    whole = answer(network, x)
    state, parts = network.start(1), []
    with torch.no_grad():
        for piece in x.split([1, 4, 7], 1):
            logits, state = network(piece, torch.tensor([piece.shape[1]]), state)
            parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)
