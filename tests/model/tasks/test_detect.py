"""Marked streams that nobody has seen before are learned, and each motion is told once, soon after its mark."""

import json

import numpy as np
import pytest

from indrnn.__main__ import main
from indrnn.model.data.bodies import tree
from indrnn.model.detection import figures
from indrnn.model.detection.figures import Thresholds, ToldEvent, chosen, curve, matches, probabilities, worth
from indrnn.model.detection.learner import DetectLearner, DetectRecipe
from indrnn.model.detection.streams import MarkedMotion, MarkedStream, stream_set
from indrnn.model.nets.detect import DetectConfig
from indrnn.model.training import checkpoint
from indrnn.model.training.source import Source
from indrnn.model.training.task import NothingHeldError

SMALL = ["--hidden", "16", "--layers", "2", "--rows", "8", "--length", "120", "--rate", "0.01", "--dropout", "0", "--readout-dropout", "0"]
SPLIT = ["--test", "subject=4,5", "--held", "subject=3", "--no-progress"]
RAISE = 12  # frames in which a joint goes up, as many in which it stays, and as many in which it goes down


def arrays(streams=18, **change):
    """Six subjects who stand, and now and then raise joint 3 (class 0) or joint 5 (class 1), marked when it is up."""
    rng, x, events = np.random.default_rng(0), [], []
    body = rng.normal(scale=0.4, size=(7, 3))
    up = np.concatenate([np.linspace(0, 1, RAISE), np.ones(RAISE), np.linspace(1, 0, RAISE)])
    for i in range(streams):
        T = 400
        frames = body + rng.normal(scale=0.005, size=(T, 7, 3)) + rng.normal(scale=0.5, size=(1, 1, 3))
        for begin in range(int(rng.integers(20, 60)), T - 60, 80):
            begin += int(rng.integers(0, 30))
            k = int(rng.integers(2))
            frames[begin : begin + len(up), 5 if k else 3, 1] += up
            events.append((i, k, begin + RAISE))
        x.append(frames)
    columns = dict(zip(("event_stream", "event_label", "event_point"), np.array(events).T, strict=True))
    told = {"x": np.concatenate(x).astype(np.float32), "off": np.cumsum([0, *map(len, x)]), "subject": np.arange(streams) // 3}
    return told | columns | {"classes": np.array(["three", "five"])} | change


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect")
    np.savez(folder / "mine.npz", **arrays())
    steps = ["--steps", "120", "--decay", "60", "--epoch", "40", "--average", "20"]
    assert main(["train", "detect", str(folder / "mine.npz"), *SPLIT, *SMALL, *steps, "--out", str(folder / "run")]) == 0
    return folder


def test_a_file_never_seen_is_learned_and_measured(trained, capsys):
    path = str(trained / "run" / "model.pt")
    net, meta = checkpoint.load(trained / "run" / "model.pt")
    assert meta.labels == ("nothing", "three", "five")
    assert meta.told["events"] == {"on": net.config.on, "off": net.config.off, "least": net.config.least, "pause": net.config.pause}
    assert main(["evaluate", path, "--split", "test", "--json", "--curves", str(trained / "curves"), "--record"]) == 0
    told_figures = {f["name"]: f for f in json.loads(capsys.readouterr().out.splitlines()[-1])}
    assert told_figures["test_f1"]["value"] > 90
    assert told_figures["test_false_alarms"]["value"] < 1
    assert -10 <= told_figures["test_delay_p50"]["value"] <= 10
    assert "6 streams, 1 minutes" in told_figures["test_f1"]["protocol"]
    told = json.loads((trained / "curves" / "test.json").read_text())
    assert told["on"] == net.config.on
    nearest = min(told["points"], key=lambda p: abs(p["on"] - net.config.on))
    assert nearest["f1"] == pytest.approx(told_figures["test_f1"]["value"] / 100, abs=0.05)
    assert [p["on"] for p in told["points"]] == pytest.approx(np.arange(0.02, 0.99, 0.02))
    assert (trained / "curves" / "test.svg").read_text().startswith("<?xml")
    figures = {
        f["name"]: f for f in checkpoint.load(trained / "run" / "model.pt")[1].figures
    }  # a calibration's come first, where there was one
    assert figures["test_f1"]["test_evaluations"] == 1


def test_another_file_is_measured_by_the_same_split(trained, capsys):
    np.savez(trained / "other.npz", **arrays(12, subject=np.full(12, 3)))
    assert main(["evaluate", str(trained / "run" / "model.pt"), "--data", str(trained / "other.npz"), "--json"]) == 1
    assert "subject=4,5: expected among subjects 3" in capsys.readouterr().err
    np.savez(trained / "other.npz", **arrays(24, subject=np.arange(24) % 6))
    assert main(["evaluate", str(trained / "run" / "model.pt"), "--data", str(trained / "other.npz"), "--json"]) == 0
    assert "4 streams" in capsys.readouterr().out


def test_a_resumed_run_goes_on_and_chooses_again(trained):
    out = str(trained / "run")
    assert (
        main(["train", "detect", str(trained / "mine.npz"), *SPLIT, *SMALL, "--steps", "121", "--decay", "40", "--out", out, "--resume"])
        == 0
    )


def test_a_network_that_learned_from_all_takes_the_hysteresis_of_one_that_did_not(trained, capsys):
    own, other = trained / "run" / "model.pt", trained / "whole" / "model.pt"
    split = ["--test", "subject=4,5", "--held", "none", "--no-progress", "--steps", "2", "--out", str(other.parent)]
    assert main(["train", "detect", str(trained / "mine.npz"), *split, *SMALL]) == 0
    assert main(["calibrate", str(other)]) == 1
    assert "expected a network with streams held out" in capsys.readouterr().err
    assert main(["calibrate", str(other), "--by", str(own)]) == 0
    assert "false alarms a minute on held streams" in capsys.readouterr().out
    net, meta = checkpoint.load(other)
    learned = checkpoint.load(own)[0].config
    assert (net.config.on, net.config.off, net.config.least) == (learned.on, learned.off, learned.least)
    assert meta.told["events"]["on"] == learned.on
    assert meta.command.endswith(f" && indrnn calibrate {other} --by {own}")
    assert main(["calibrate", str(own)]) == 0  # on its own held streams: what training has chosen
    assert checkpoint.load(own)[0].config.on == learned.on


def test_what_needs_cut_clips_says_so(trained, capsys):
    _, meta = checkpoint.load(trained / "run" / "model.pt")
    with pytest.raises(NothingHeldError, match="expected a network of cut clips"):
        Source.told(meta)
    np.savez(trained / "clips.npz", x=np.zeros((9, 3, 3)), off=[0, 9], y=[0])
    assert main(["train", "detect", str(trained / "clips.npz"), "--out", str(trained / "no")]) == 1
    assert "expected streams with marked motions" in capsys.readouterr().err


def test_a_network_without_a_threshold_has_no_curves(trained, capsys):
    out = str(trained / "adding")
    assert main(["train", "adding", "--length", "10", "--rows", "4", "--hidden", "8", "--steps", "2", "--no-progress", "--out", out]) == 0
    assert main(["evaluate", f"{out}/model.pt", "--curves", out]) == 1
    assert "expected a network with a threshold" in capsys.readouterr().err
    assert main(["evaluate", f"{out}/model.pt", "--data", out]) == 1
    assert "expected a network that learned from a file" in capsys.readouterr().err


def learner(**recipe):
    found = stream_set(arrays(), "f")
    config = DetectConfig(7, 1, 0, 3, hidden=8, layers=2)
    still = {"turn": 0.0, "tilt": 0.0, "body": 0.0, "bones": 0.0, "noise": 0.0, "misplaced": 0.0, "trunk": 0.0, "early": 0.1, "late": 0.4}
    body = tree(found.clips[0].x[:, 0])
    return DetectLearner(config, DetectRecipe(1, 1, **(still | recipe)), body, found, found.clips, [], 1)


def test_marks_go_with_a_changed_pace():
    made, near = learner(length=150), []
    for step in range(40):
        x, label, weight = made._row(np.random.default_rng(step))
        for k in (1, 2):
            asked = np.flatnonzero((label == k) & (weight > 0))
            starts = asked[np.diff(asked, prepend=-9) > 1]
            height = x[:, 0, 3 if k == 1 else 5, 1] - np.median(x[:, 0, 3 if k == 1 else 5, 1])
            near += [float(height[min(a + 3, len(x) - 1)]) for a in starts if 0 < a < len(x) - 4]  # early is three frames
    assert len(near) > 20
    assert min(near) > 0.8  # the joint is up where the mark is


def test_short_streams_and_streams_without_marks_are_learned_from():
    made = learner()
    made.streams, made.marks, made.chances = [stream(n) for n in (1, 2, 30, 70)], [], np.full(4, 0.25)
    lengths = {len(made._row(np.random.default_rng(step))[0]) for step in range(60)}
    assert 1 in lengths
    assert max(lengths) > 40


def test_a_class_is_asked_for_around_its_mark_and_nothing_is_asked_beside_it():
    made = learner()
    label, weight = made._asked([MarkedMotion(2, 50)], 100)
    assert np.flatnonzero(label).tolist() == list(range(47, 63))
    assert (np.diff(weight[47:63]) < 0).all()  # the sooner the heavier
    assert not weight[41:47].any()
    assert not weight[63:69].any()
    assert (weight[:41] == 1).all()
    assert (weight[69:] == 1).all()


def test_between_close_marks_nothing_is_asked_for():
    made = learner()
    for gap in (9, 16, 30, 60):
        label, weight = made._asked([MarkedMotion(1, 40), MarkedMotion(1, 40 + gap), MarkedMotion(2, 40 + 2 * gap)], 200)
        for point, k in ((40, 1), (40 + gap, 1), (40 + 2 * gap, 2)):
            assert label[point] == k
            assert weight[point] > 0.7
        between = slice(40, 40 + gap)
        assert (weight[between][label[between] == 0] > 0).sum() >= gap // 4


def stream(length, *events):
    return MarkedStream(np.zeros((length, 1, 7, 3), np.float32), 0, 0, "", events=tuple(MarkedMotion(*e) for e in events))


def test_events_are_matched_once_and_by_class():
    marks = [MarkedMotion(1, 100), MarkedMotion(1, 118), MarkedMotion(2, 200)]
    assert matches([ToldEvent(1, 109)], marks, 10) == [9]
    assert matches([ToldEvent(1, 109), ToldEvent(1, 111)], marks, 10) == [9, -7]
    assert matches([ToldEvent(1, 111)], marks, 10) == [-7]
    assert matches([ToldEvent(1, 95), ToldEvent(1, 97), ToldEvent(1, 200), ToldEvent(2, 211)], marks, 10) == [-5]
    assert matches([], marks, 10) == []


def test_long_streams_are_measured_in_pieces(trained, monkeypatch):
    net, _ = checkpoint.load(trained / "run" / "model.pt")
    found = stream_set(arrays(3), "f").clips
    found[1] = MarkedStream(found[1].x[:70], 0, 0, "")
    whole = probabilities(net, found)
    monkeypatch.setattr(figures, "PIECE", 64)
    for one, pieces in zip(whole, probabilities(net, found), strict=True):
        np.testing.assert_allclose(pieces, one, atol=1e-5)
    assert [len(p) for p in whole] == [400, 70, 400]


def test_figures_are_what_they_say():
    found = [stream(1800, (1, 100), (2, 300), (1, 500)), stream(900)]
    w = worth(0.5, [[ToldEvent(1, 104), ToldEvent(2, 318), ToldEvent(1, 900)], [ToldEvent(2, 20)]], found, 30.0)
    assert (w.precision, w.recall, w.f1) == pytest.approx((1 / 4, 1 / 3, 2 / 7))
    assert w.false_alarms == pytest.approx(3 / 1.5)
    assert (w.delay_p50, w.delay_p90) == pytest.approx((11, 16.6))


def test_the_hysteresis_is_chosen_by_f1_among_those_that_keep_to_one_false_alarm_a_minute():
    p = np.zeros((900, 2), np.float32)
    p[100:110, 1] = 0.9
    p[300:310, 1] = 0.4
    for t in range(400, 900, 40):
        p[t : t + 3, 1] = 0.45
    p[:, 0] = 1 - p[:, 1]
    found = [stream(900, (1, 101), (1, 301))]
    rules = [Thresholds(on, on / 2, least, 0) for on in (0.3, 0.44, 0.6) for least in (1, 4)]
    assert chosen([p], found, 30.0, rules) == Thresholds(0.3, 0.15, 4, 0)
    assert chosen([p], found, 30.0, [r for r in rules if r.least == 1]) == Thresholds(0.6, 0.3, 1, 0)
    points = {w.on: w for w in curve([p], found, 30.0, Thresholds(0.6, 0.3, 1, 0))}
    assert points[0.3].recall == 1
    assert points[0.6].precision == 1
    assert points[0.98].f1 == 0
