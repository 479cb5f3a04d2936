"""Files of clips that nobody has seen before are trained on, measured and exported with no code touched."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from indrnn.__main__ import main
from indrnn.export.manifest import content
from indrnn.export.modalities.skeleton import SkeletonContent
from indrnn.export.modalities.skeleton import anatomy as anatomy_of
from indrnn.frames.anatomy import ENTRIES
from indrnn.frames.layouts import UTD20
from indrnn.model.data.bodies import tree
from indrnn.model.data.clips import Clip, ClipSet
from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.tasks.skeleton import told_of_bodies
from indrnn.model.training import checkpoint, sampling
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.clip_learner import ClipLearner, ClipRecipe

SMALL = ["--hidden", "16", "--layers", "2", "--rows", "8", "--rate", "0.01", "--dropout", "0", "--readout-dropout", "0", "--no-progress"]


def file(path, joints=9, persons=1, dims=3, scale=1.0, clips=24, **more):
    """Six subjects who raise joint 3 (class 0) or joint 5 (class 1)."""
    rng, frames, y = np.random.default_rng(0), [], []
    body = rng.normal(scale=0.4, size=(persons, joints, dims))
    for i in range(clips):
        T = int(rng.integers(12, 30))
        x = body + rng.normal(scale=0.01, size=(T, persons, joints, dims)) + rng.normal(scale=0.5, size=(1, 1, 1, dims))
        x[:, 0, 5 if i % 2 else 3, 1] += np.linspace(0, 1, T)
        frames.append(x if persons > 1 else x[:, 0])
        y.append(i % 2)
    arrays = {
        "x": np.concatenate(frames).astype(np.float32) * np.float32(scale),
        "off": np.cumsum([0, *map(len, frames)]),
        "y": np.array(y),
        "subject": np.arange(clips) // 4,
        "classes": np.array(["three", "five"]),
    }
    np.savez(path, **(arrays | more))
    return path


def train(*arguments):
    assert main(["train", *map(str, arguments)]) == 0


@pytest.mark.parametrize(
    ("kind", "split"),
    [
        ({"joints": 9, "scale": 1000.0}, ["--test", "subject=4,5", "--held", "subject=3"]),
        ({"joints": 12, "persons": 2, "dims": 2, "hz": np.array(25)}, ["--test", "fold=1/3", "--held", "fold=1/2"]),
        ({"joints": 7, "test": np.arange(24) // 4 % 3 == 2}, ["--test", "flag", "--held", "none"]),
    ],
)
def test_a_file_never_seen_is_learned_and_measured(tmp_path, capsys, kind, split):
    clips, out = file(tmp_path / "mine.npz", **kind), tmp_path / "run"
    train("skeleton", clips, *split, "--out", out, "--steps", "60", "--decay", "30", "--clips", "1", *SMALL)
    net, meta = checkpoint.load(out / "model.pt")
    assert (net.config.joints, net.config.persons, meta.labels) == (kind["joints"], kind.get("persons", 1), ("three", "five"))
    assert meta.hz == kind.get("hz", 30)
    assert net.config.together == (meta.persons > 1), "two persons keep their distance; a run of one goes on as it was begun"
    if "none" not in split:
        assert main(["evaluate", str(out / "model.pt"), "--json"]) == 0
        assert {f["test_evaluations"] for f in json.loads(capsys.readouterr().out.splitlines()[-1])} == {0}
    assert main(["evaluate", str(out / "model.pt"), "--split", "test", "--json"]) == 0
    figures = {f["name"]: f["value"] for f in json.loads(capsys.readouterr().out.splitlines()[-1])}
    assert figures["test_accuracy_100"] > 80


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--test", "view=1"], "expected among views None"),
        (["--layout", "utd20"], "has 20 joints"),
        (["--layout", "mine"], "expected one of"),
    ],
)
def test_a_split_or_layout_that_the_file_has_not_is_refused_in_words(tmp_path, capsys, arguments, said):
    clips = file(tmp_path / "mine.npz")
    assert main(["train", "skeleton", str(clips), *arguments, "--out", str(tmp_path / "run"), *SMALL]) == 1
    assert said in capsys.readouterr().err


def test_the_presets_train_on_their_own_files(tmp_path, monkeypatch):
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    (tmp_path / "skeleton").mkdir()
    file(tmp_path / "skeleton" / "nwucla.npz", joints=20, view=np.arange(24) % 4 // 2 + np.arange(24) // 12 + 1)
    train("nwucla", "--out", tmp_path / "run", "--steps", "2", "--decay", "1", *SMALL)
    net, meta = checkpoint.load(tmp_path / "run" / "model.pt")
    assert (meta.layout, meta.task, meta.held) == ("kinect20", "nwucla", "view=2")
    assert set(meta.layouts) == {"utd20", "kinect20", "ntu25"}
    assert net.config.across == ((4, 8), (12, 16))
    names = np.array([f"{side}{bone}" for bone in ("femur", "tibia", "foot") for side in "lr"] + ["root"])
    file(tmp_path / "skeleton" / "hdm05.npz", joints=7, joint_names=names, test=np.arange(24) // 4 > 3, scale=40)
    train("hdm05", "--out", tmp_path / "hdm05", "--steps", "2", "--decay", "1", *SMALL)
    net, meta = checkpoint.load(tmp_path / "hdm05" / "model.pt")
    assert (meta.layout, net.config.root, net.config.across) == ("own", 6, ((0, 1),))


def test_ntu_is_read_from_twenty_frames_and_answers_for_both_persons(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    (tmp_path / "skeleton").mkdir()
    subjects = np.array([1, 2, 4, 3, 5, 6])[np.arange(24) // 4]
    names = np.array([f"S001C002P{s:03}R001A{k % 2 + 1:03}" for k, s in enumerate(subjects)])
    file(tmp_path / "skeleton" / "ntu.npz", joints=25, persons=2, subject=subjects, names=names)
    train("ntu", "--held", "subject=4", "--out", tmp_path / "run", "--steps", "60", "--decay", "30", *SMALL)
    assert main(["evaluate", str(tmp_path / "run" / "model.pt"), "--split", "test", "--json"]) == 0
    figures = {f["name"]: f for f in json.loads(capsys.readouterr().out.splitlines()[-1])}
    assert figures["test_accuracy_20"]["value"] > 80
    assert set(figures) == {"test_accuracy_1", "test_accuracy_20"}
    assert checkpoint.load(tmp_path / "run" / "model.pt")[0].config.together


@pytest.mark.parametrize("n", [3, 16, 20, 21, 39, 40, 41, 57, 300])
def test_twenty_frames_are_in_order_and_one_of_each_segment(n):
    x = np.arange(1, n + 1, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 1, 3), np.float32)
    firsts = set()
    for seed in range(200):
        got = sampling.segments(x, 20, np.random.default_rng(seed))[:, 0, 0, 0]
        assert len(got) == 20
        told = got[got > 0]
        assert (np.diff(told) > 0).all()
        firsts.add(int(np.argmax(got > 0)) if n < 20 else told[0])
        if n < 20:
            assert (np.diff(told) == 1).all()
            assert len(told) == n
            assert np.argmax(got > 0) <= 5
        elif n <= 40:
            assert (np.diff(told) == 1).all()
        else:
            size = n // 20
            assert ((told[:-1] - 1) // size == np.arange(19)).all()
            assert told[-1] > 19 * size
    assert len(firsts) == (min(20 - n, 5) + 1 if n < 20 else n - 19 if n <= 40 else n // 20)


def test_scores_are_the_mean_over_samplings():
    class Last(ActionNet):
        def forward(self, x, lengths, state):
            return x[:, :, 0, 0, :1].expand(-1, -1, self.config.classes), state

    net = Last(ActionConfig(joints=2, root=0, classes=3))
    x = np.arange(1, 101, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 2, 3), np.float32)
    got = sampling.mean_scores(net, [Clip(x, 0, 1, "")], 20, 400)
    assert got.shape == (1, 3)
    torch.testing.assert_close(got, torch.full((1, 3), 98.0), atol=0.3, rtol=0)  # the last of 20 segments of 5: frames 96 to 100


@pytest.mark.parametrize(("balanced", "share"), [(True, 0.5), (False, 0.1)])
def test_balanced_every_class_is_learned_from_alike(balanced, share):
    x = np.random.default_rng(0).normal(scale=0.4, size=(9, 1, 4, 3)).astype(np.float32)
    train = [Clip(x, int(i < 4), i % 3, "") for i in range(40)]
    data = ClipSet(train, ("many", "few"), None, 30.0, 1.0, False)
    recipe = ClipRecipe(steps=1, decay=1, rows=50, alike=20, balanced=balanced)
    config = ActionConfig(joints=4, root=0, classes=2, hidden=4, layers=1)
    learner = ClipLearner(config, recipe, tree(x[:, 0]), data, train, [], 1)
    rng = np.random.default_rng(1)
    drawn = [clips[0].label for _ in range(20) for clips in learner._chosen(1, rng)]
    assert np.mean(drawn) == pytest.approx(share, abs=0.05)


def test_unit_axes_and_build_of_the_bodies_go_into_the_bundle(tmp_path):
    """Of millimetres, of a picture whose y goes down, and of joints that nobody has named."""
    wave = np.array(json.loads((Path(__file__).parents[3] / "examples" / "wave.json").read_text())["sequences"][0], np.float32)
    body = tree(wave)
    told = told_of_bodies(UTD20, wave, body, 0.00112, False)
    assert (told["unit"], told["metres"], told["axes"], told["dims"]) == ("mm", 0.00112, "x y z", 3)
    assert len(told["bodies"]["pairs"]) == 18
    flat = told_of_bodies(UTD20, wave * np.float32([1, -1, 0]), body, 0.002, True)
    assert (flat["unit"], flat["axes"], flat["dims"]) == ("px", None, 2)
    assert flat["bodies"]["limits"].items() >= {"up": None, "down": None, "side": None, "flat": None}.items()
    names = tuple(f"joint {j}" for j in range(20))
    own = told_of_bodies(names, wave, body, 0.0237, False)
    assert (own["unit"], own["axes"]) == ("own", None)
    assert len(own["bodies"]["pairs"]) == 19
    for joints, layout, one in ((UTD20, "utd20", told), (UTD20, "own", flat), (names, "own", own)):
        own_layout = {layout: (joints, tuple((j,) for j in range(20)))}
        meta = Meta("action", "", 0, 0, labels=("a", "b", "c"), layout=layout, layouts=own_layout, persons=1, hz=30.0, told=one)
        found = content(meta)
        assert (found.unit, found.dims) == (one["unit"], one["dims"])
        seen = anatomy_of(found)
        assert seen is not None
        x, start = wave[None, :, None], np.zeros((1, 1, 20, 3), np.float32)
        if one is flat:
            x = x * np.float32([1, -1, 0])
        evidence = seen.look(x, start, np.array([len(wave)]), np.zeros((1, 1, ENTRIES), np.float32), 30.0)
        assert seen.doubts(evidence) == [()]
        evidence = seen.look(x * 4, start, np.array([len(wave)]), np.zeros((1, 1, ENTRIES), np.float32), 30.0)
        assert "size" in seen.doubts(evidence)[0]
        words = SkeletonContent().contract(found)
        assert ("two numbers of each" in words) == (one is flat)
        assert f'"unit": "{one["unit"]}"' in words
