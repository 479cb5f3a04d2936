"""Five sets under one vocabulary: trained, measured set by set, calibrated by networks that left a set out, exported with their labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from indrnn.__main__ import main
from indrnn.export.bundle import read
from indrnn.frames.layouts import KINECT20, UTD20
from indrnn.model.data import vocabulary
from indrnn.model.tasks import motions
from indrnn.model.training import checkpoint

WORDS = vocabulary.read()
SMALL = ["--hidden", "8", "--layers", "2", "--rows", "8", "--epoch", "2", "--warmup", "1", "--average", "2", "--steps", "4", "--decay", "2"]
PEOPLE = {"utd_mhad": range(1, 9), "hdm05": range(5)}  # of the other sets 1 to 10


def write_sets(folder: Path) -> None:
    """Write a file for each set of the vocabulary: its subjects do each motion once."""
    (folder / "skeleton").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name, member in WORDS.sets.items():
        sent = sorted({j for own in UTD20 for j in member.joints.get(own, (own,))})
        order = list(KINECT20 if member.layout == "kinect20" else UTD20 if member.layout else sent)
        people = np.array(PEOPLE.get(name, range(1, 11)))
        N, T = len(people) * len(member.motions), 4
        one = rng.standard_normal((N, 1, len(order), 3)) * 0.3 + rng.standard_normal((N, T, len(order), 3)) * 0.01
        arrays = {
            "x": (one / (member.unit or 1)).reshape(N * T, len(order), 3).astype(np.float32),
            "off": np.arange(N + 1) * T,
            "y": np.arange(N) % len(member.motions),
            "subject": np.repeat(people, len(member.motions)),
            "view": np.repeat(people % 3 + 1, len(member.motions)),
            "test": np.repeat(people > 2, len(member.motions)),
            "classes": list(member.motions),
            "hz": 30.0,
        }
        np.savez(folder / member.file, **arrays, **({} if member.layout else {"joint_names": order}))


@pytest.fixture(autouse=True)
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sets(tmp_path)
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)


def train(out: Path, *more: str) -> Path:
    assert main(["train", "motions", *SMALL, *more, "--no-progress", "--out", str(out)]) == 0
    return out / "model.pt"


def named(path: Path) -> dict[str, float]:
    return {f["name"]: f["value"] for f in checkpoint.load_trained(path)[1].figures}


def test_a_network_is_calibrated_by_one_that_left_a_set_out_and_exported_with_every_label(tmp_path, capsys):
    judge = train(tmp_path / "judge", "--without", "hdm05")
    last = train(tmp_path / "last", "--held", "none")
    assert main(["calibrate", str(last), "--by", str(judge)]) == 0
    assert main(["calibrate", str(judge)]) == 0
    assert main(["evaluate", str(last), "--split", "test", "--record"]) == 0
    assert main(["evaluate", str(judge), "--record"]) == 0
    found = named(last)
    for name in WORDS.sets:
        assert 0 <= found[f"test_{name}_shown"] <= found[f"test_{name}_accuracy"] <= 100
    assert {"test_utd_mhad_stream", "test_utd_mhad_accuracy_lost_50", "test_set_told"} <= set(found)
    left = named(judge)

    wrong = left["without_hdm05_wrong_and_sure"] + left["without_hdm05_known_called_other"]
    assert left["without_hdm05_shown_wrong"] == pytest.approx(wrong, abs=1e-3)
    assert not any(name.startswith("val_hdm05") for name in left)
    assert main(["export", str(last), str(tmp_path / "bundles"), "--version", "2"]) == 0
    bundle = read(tmp_path / "bundles/action/2")
    m = bundle.manifest
    assert (m.labels, m.layout, m.hz) == (WORDS.motions, "utd20", 30)
    assert {d.name for d in m.training.data} == {t["name"] for t in motions.TERMS.values()}
    assert {d.labels["throw"] for d in m.training.data if d.labels and "throw" in d.labels} == {"throw"}
    card = (tmp_path / "bundles/action/2/CARD.md").read_text()
    assert "throwBasketball → basketball shoot" in card
    assert "L. Seidenari" in card
    assert json.loads((tmp_path / "bundles/action/2/manifest.json").read_text())["training"]["data"][0]["labels"]["wave"] == "wave"


def test_nothing_is_learned_from_the_set_left_out_nor_from_held_and_test_subjects(tmp_path):
    job = motions.Job(seed=1, out=tmp_path, command="", steps=1, decay=1)
    learner, meta = motions.begin(job, {"hidden": 8}, motions.MotionsRecipe(steps=1, decay=1, without="nwucla"))
    trained = {name: {c.subject % 100 for c in learner.all if WORDS.name(c.subject) == name} for name in WORDS.sets}
    assert trained == {"utd_mhad": {1, 3, 5}, "nwucla": set(), "msraction3d": {1, 3, 5, 7}, "florence3d": {3, 4, 5, 6}, "hdm05": {0, 2}}
    assert {WORDS.name(c.subject) for c in learner.validation} == {"utd_mhad", "msraction3d", "florence3d", "hdm05"}
    assert [d["name"] for d in meta.data] == [motions.TERMS[n]["name"] for n in WORDS.sets if n != "nwucla"]
    every, _ = motions.begin(job, {"hidden": 8}, motions.MotionsRecipe(steps=1, decay=1, held="none"))
    assert {c.subject % 100 for c in every.all if WORDS.name(c.subject) == "utd_mhad"} == {1, 3, 5, 7}
    assert not every.validation
