"""Several sets at once: every motion of every set as often as any other, mirrored clips with mirrored labels, strangers without one."""

import numpy as np
import pytest
import torch

from indrnn.frames.layouts import UTD20
from indrnn.model.data import bodies, vocabulary
from indrnn.model.data.clips import HZ, Clip, ClipSet
from indrnn.model.motions.motion_learner import ARMS, ENDS, STRANGE, MotionLearner, MotionRecipe, drawn_in, strange
from indrnn.model.nets.action import ActionConfig

WORDS = vocabulary.read()
BODY = bodies.kinect(UTD20)
PLAIN = {"speed": 0.0, "sway": 0.0, "turn": 0.0, "tilt": 0.0, "body": 0.0, "bones": 0.0, "noise": 0.0, "endless": 0.0}
STAND = np.random.default_rng(3).uniform(-0.5, 0.5, (20, 3)).astype(np.float32)
STAND[[4, 12], 0], STAND[[8, 16], 0] = -0.2, 0.2  # faces the camera


def clip(motion, subject, T=12, seed=0):
    rng = np.random.default_rng(seed)
    x = STAND + np.cumsum(rng.standard_normal((T, 1, 20, 3), dtype=np.float32) * np.float32(0.01), 0)
    return Clip(x, WORDS.index(motion), subject, "")


def learner(clips, **recipe):
    config = ActionConfig(hidden=8, layers=2, classes=len(WORDS.motions), across=BODY.across, own=True)
    data = ClipSet(clips, WORDS.motions, UTD20, HZ, 1.0, flat=False)
    return MotionLearner(config, MotionRecipe(steps=2, decay=1, rows=8, **recipe), BODY, data, clips, [], 1, WORDS)


@pytest.mark.parametrize("mixed", [0.0, 1.0])
def test_every_motion_of_every_set_is_drawn_as_often_as_any_other(mixed):
    clips = [*(clip("wave", 101) for _ in range(30)), *(clip("walk", 101) for _ in range(3)), *(clip("walk", 201) for _ in range(10))]
    ours = learner(clips, mixed=mixed)
    rng = np.random.default_rng(0)
    drawn = [c for _ in range(120) for row in ours._chosen(2, rng) for c in row]
    share = [
        sum(c.label == WORDS.index(m) and c.subject == s for c in drawn) / len(drawn)
        for m, s in (("wave", 101), ("walk", 101), ("walk", 201))
    ]
    assert share == pytest.approx([1 / 3] * 3, abs=0.06)


def test_a_mirrored_clip_has_the_mirrored_label_and_a_tick_is_never_mirrored():
    swipe, tick = clip("swipe left", 101), clip("draw tick", 301)
    ours = learner([swipe, tick], swapped=1.0, **PLAIN)
    frames, labels, _ = ours._row([swipe, tick], np.random.default_rng(0))
    assert sorted(set(labels.tolist())) == sorted([WORDS.index("swipe right"), WORDS.index("draw tick")])
    left, right = UTD20.index("left wrist"), UTD20.index("right wrist")
    first = frames[labels == WORDS.index("swipe right")]
    assert first[0, 0, left] == pytest.approx(swipe.x[0, 0, right] * [-1, 1, 1], abs=1e-5)
    assert frames[labels == WORDS.index("draw tick")][0, 0, left] == pytest.approx(tick.x[0, 0, left], abs=1e-5)


def test_sets_that_play_fast_are_slowed_to_the_pace_of_the_others():
    clips = [clip("walk", 101, 60), clip("walk", 201, 60)]
    ours = learner(clips, swapped=0.0, **PLAIN)
    lengths = [len(ours._row([c], np.random.default_rng(0))[0]) for c in clips]
    assert lengths == [40, 88]  # 1.5 times life's pace, from once and from 2.2 times it


def test_of_a_strange_clip_nothing_is_to_be_said():
    clips = [clip("walk", 101), clip("wave", 101, seed=1)]
    ours = learner(clips, strange=1.0)
    _, labels, weights = ours._row(clips, np.random.default_rng(0))
    assert set(labels.tolist()) == {STRANGE}
    assert weights.sum() == pytest.approx(2)
    loss = ours.loss(0)
    assert loss.item() == pytest.approx(np.log(len(WORDS.motions)), abs=1e-4)  # an untrained readout has uniform scores: no less is left
    loss.backward()
    assert max(float(p.grad.abs().max()) for p in ours.net.readout.parameters()) < 1e-6


def test_a_strange_clip_keeps_its_legs_or_all_of_it_lies_half_way():
    rng = np.random.default_rng(0)
    x, other = clip("walk", 101).x, clip("wave", 101, T=30, seed=1).x
    kinds = set()
    for _ in range(20):
        y = strange(x, other, rng)
        assert y.shape == x.shape
        moved = np.abs(y - x).max((0, 1, 3)) > 1e-6
        arms = {j for arm in ARMS for j in arm[1:]}
        kinds.add("legs" if moved[UTD20.index("left knee")] else "both" if moved[ARMS[1][3]] else "one")
        if not moved[UTD20.index("left knee")]:
            assert set(np.flatnonzero(moved)) <= arms
            shoulder, elbow = ARMS[0][:2]
            if moved[ARMS[1][3]]:  # its own arms, turned about their shoulders
                before, after = (np.linalg.norm(z[..., elbow, :] - z[..., shoulder, :], axis=-1) for z in (x, y))
                assert after == pytest.approx(before, abs=1e-5)
    assert kinds == {"legs", "both", "one"}


def test_hands_are_drawn_to_wrists_and_nothing_else_moves():
    x = clip("walk", 101).x
    y = drawn_in(x, 0.0)
    for end, joint in ENDS:
        assert y[..., end, :] == pytest.approx(x[..., joint, :])
    others = [j for j in range(20) if j not in dict(ENDS)]
    assert np.array_equal(y[..., others, :], x[..., others, :])
    assert drawn_in(x, 1.0) is x


def test_smoothing_is_that_of_torch():
    ours = learner([clip("walk", 101)], strange=0.0, swapped=0.0)
    logits = torch.randn(3, len(WORDS.motions))
    label = torch.tensor([1, 2, 3])
    expected = torch.nn.functional.cross_entropy(logits, label, reduction="none", label_smoothing=0.1)
    assert torch.allclose(ours.cross_entropy(logits, label), expected, atol=1e-5)


def test_plenty_draws_motions_as_often_as_they_have_clips():
    clips = [*(clip("wave", 101) for _ in range(40)), *(clip("walk", 101) for _ in range(10))]
    for plenty, share in ((0.0, 0.5), (0.5, 2 / 3), (1.0, 0.8)):
        ours = learner(clips, plenty=plenty, mixed=1.0)
        rng = np.random.default_rng(0)
        drawn = [c.label for _ in range(150) for row in ours._chosen(2, rng) for c in row]
        assert drawn.count(WORDS.index("wave")) / len(drawn) == pytest.approx(share, abs=0.04)


def test_bodies_that_stand_are_made_to_walk_and_jog_at_lifes_pace_whatever_their_set():
    upright = np.zeros((20, 3), np.float32)
    heights = {"shoulder": 1.4, "elbow": 1.1, "wrist": 0.9, "hand": 0.8, "hip": 0.9, "knee": 0.5, "ankle": 0.1, "foot": 0.0}
    for j, name in enumerate(UTD20):
        side, _, joint = name.partition(" ")
        if side in ("left", "right"):
            upright[j] = ((-0.2 if side == "left" else 0.2), heights[joint], 2.0)
        else:
            upright[j] = (0.0, {"head": 1.6, "shoulder centre": 1.4, "spine": 1.1, "hip centre": 0.95}[name], 2.0)
    still = Clip(np.repeat(upright[None, None], 30, 0), WORDS.index("wave"), 201, "")
    fallen = Clip(still.x[..., [1, 0, 2]], WORDS.index("wave"), 201, "")
    ours = learner([still, fallen], gait=1.0, swapped=0.0, **PLAIN)
    rng = np.random.default_rng(0)
    rows = [ours._row([still], rng) for _ in range(20)]
    assert {int(label) for _, labels, _ in rows for label in labels} == {WORDS.index("walk"), WORDS.index("jog")}
    assert max(len(frames) for frames, _, _ in rows) <= 60 + 1  # at most three seconds, 1.5 times as fast as life
    assert set(ours._row([fallen], rng)[1].tolist()) == {WORDS.index("wave")}
