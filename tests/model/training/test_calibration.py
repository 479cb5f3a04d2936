import json

import numpy as np
import pytest
import torch

from indrnn.__main__ import main
from indrnn.model.data.clips import Clip
from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.training import calibration as calibrate
from indrnn.model.training import checkpoint
from indrnn.model.training import robustness as robust


def noisy(n=4000, K=5, t=2.5, seed=0):
    """Logits that are too sure by a factor of t, and labels drawn from what they should be."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, K, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits * t, labels


@pytest.mark.parametrize("t", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_a_factor(t):
    assert calibrate.temperature(*noisy(t=t)) == pytest.approx(t, rel=0.05)


@pytest.mark.parametrize("t", [0.05, 20.0])
def test_a_temperature_far_from_one_is_found_at_once(t):
    assert calibrate.temperature(*noisy(t=t)) == pytest.approx(t, rel=0.05)


def test_clips_that_are_all_answered_rightly_have_a_temperature_of_their_own():
    right = torch.eye(4) * 3
    assert calibrate.temperature(right, torch.arange(4)) == calibrate.SURE


def test_scores_that_are_as_true_as_they_say_have_no_error_and_sure_ones_have():
    logits, labels = noisy(t=1.0)
    assert calibrate.calibration_error(logits, labels) < 0.02
    assert calibrate.calibration_error(5 * logits, labels) > 0.1
    wrong_and_sure = torch.tensor([[9.0, 0.0]] * 10)
    assert calibrate.calibration_error(wrong_and_sure, torch.ones(10, dtype=torch.long)) == pytest.approx(1, abs=1e-3)
    assert calibrate.calibration_error(wrong_and_sure, torch.zeros(10, dtype=torch.long)) == pytest.approx(0, abs=1e-3)


def test_one_in_twenty_known_scores_lies_below_the_threshold():
    known = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert (known < calibrate.threshold(known)).sum() == 50
    assert calibrate.threshold(torch.tensor([0.3, 0.2, 0.9])) == pytest.approx(0.2)  # of three none may be lost


def clips(file_rng, n, label):
    return [Clip(file_rng.normal(size=(9, 1, 3, 3)).astype(np.float32), label, 1, f"c{i}") for i in range(n)]


def test_a_cooled_net_gives_the_same_answers_less_surely():
    torch.manual_seed(0)
    net = ActionNet(ActionConfig(joints=3, root=0, classes=4, hidden=8, layers=2)).eval()
    torch.nn.init.normal_(net.readout.weight)
    some = clips(np.random.default_rng(0), 6, 0)
    before, _ = calibrate.ends(net, some)
    calibrate.cool_(net, 2.0)
    torch.testing.assert_close(calibrate.ends(net, some)[0], before / 2)


def test_openness_counts_scores_below_the_threshold():
    class Sure(ActionNet):
        """Sure of what moves up, unsure of all else."""

        def forward(self, x, lengths, state):
            up = x[:, :, 0, 0, 1]
            return torch.stack([5 * up, torch.zeros_like(up)], 2), state

    def raised(by):
        x = np.zeros((4, 1, 3, 3), np.float32)
        x[..., 1] = by
        return Clip(x, 0, 1, "")

    net = Sure(ActionConfig(joints=3, root=0, classes=2))
    assert calibrate.openness(net, [raised(1), raised(1), raised(0), raised(1)], [raised(0.01), raised(2)], 0.9) == (0.25, 0.5)


class Height(ActionNet):
    """Answers 1 where joint 1 is above 0 at the last frame."""

    def forward(self, x, lengths, state):
        up = x[:, :, 0, 1, 1]
        return torch.stack([torch.zeros_like(up), up], 2), state


def test_curves_measure_clips_as_the_service_would_mend_them():
    x = np.ones((40, 1, 3, 3), np.float32)
    x[:39, 0, 1, 1] = -1  # only the last frame says it
    net = Height(ActionConfig(joints=3, root=0, classes=2))
    assert robust.accuracy(net, [Clip(x, 1, 1, "")], lambda x: x) == 1
    assert robust.accuracy(net, [Clip(x, 1, 1, "")], robust.at_rate(30, 10)) == 1  # frame 39 is the 14th of a camera of 10 Hz
    assert robust.accuracy(net, [Clip(x, 1, 1, "")], robust.at_rate(30, 12.5)) == 0  # at 12.5 Hz the last comes before
    lost = robust.accuracy(net, [Clip(x, 1, i, "") for i in range(300)], robust.without_joints(0.5))
    assert 0.4 < lost < 0.75  # half see it; some whose every joint was lost begin anew with the mean of what they see
    names = [f["name"] for f in robust.curves(net, [Clip(x, 1, 1, "")], 30.0, "val", "all")]
    assert len(names) == len(set(names)) == len(robust.SHARES) + len(robust.RATES)


SMALL = ["--hidden", "16", "--layers", "2", "--rows", "8", "--rate", "0.01", "--no-progress", "--dropout", "0", "--readout-dropout", "0"]


@pytest.fixture
def four_classes(tmp_path, monkeypatch):
    """UTD-MHAD's subjects, each raising one of four joints, twice."""
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    (tmp_path / "skeleton").mkdir()
    rng, frames, y, subject = np.random.default_rng(0), [], [], []
    for who in range(1, 9):
        for label in (0, 1, 2, 3) * 2:
            x = rng.normal(scale=0.01, size=(24, 20, 3)) + np.arange(20)[:, None] * 0.05
            x[:, (7, 11, 15, 19)[label], 1] += np.linspace(0, 1, 24)
            frames.append(x.astype(np.float32))
            y.append(label)
            subject.append(who)
    off = np.cumsum([0, *map(len, frames)])
    arrays = {"x": np.concatenate(frames), "off": off, "y": np.array(y), "subject": np.array(subject)}
    np.savez(tmp_path / "skeleton" / "utd_mhad.npz", classes=np.array(list("abcd")), **arrays)
    return tmp_path


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_second_calibration_changes_nothing_and_the_first_is_at_the_minimum(four_classes, capsys, by_itself):
    argv = ["train", "action", "--steps", "20", "--decay", "5", *SMALL]
    assert main([*argv, "--out", str(four_classes / "short")]) == 0
    path = four_classes / "short" / "model.pt"
    others = [] if by_itself else ["--by", str(four_classes / "other" / "model.pt")]
    if others:
        assert main([*argv, "--out", str(four_classes / "other"), "--held", "5", "--seed", "2"]) == 0
    capsys.readouterr()
    assert main(["calibrate", str(path), *others]) == 0
    first, told = checkpoint.load_trained(path), capsys.readouterr().out
    assert f"temperature {first[1].temperature:.3f}" in told
    assert first[1].temperature < 1  # a short run is not as sure as it could be
    assert main(["calibrate", str(path), *others]) == 0
    again = checkpoint.load_trained(path)
    assert capsys.readouterr().out == told
    assert again[1] == first[1]
    for name, weight in first[0].state_dict().items():
        assert torch.equal(weight, again[0].state_dict()[name]), name


def test_by_without_a_network_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["calibrate", "model.pt", "--by"])
    assert "expected at least one argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        (["99"], "left_out: expected classes from 0 to 3, got 99\n"),
        (["0", "1", "2", "3"], "left_out: expected at least one of the 4 classes to learn, got all of them\n"),
    ],
)
def test_classes_that_there_are_not_cannot_be_left_out(four_classes, capsys, left_out, said):
    assert main(["train", "action", "--out", str(four_classes / "run"), *SMALL, "--left-out", *left_out]) == 1
    assert capsys.readouterr().err == said


def test_a_net_of_three_classes_is_calibrated_and_asked_about_the_fourth(four_classes, capsys):
    def train(out, *more):
        assert main(["train", "action", "--out", str(four_classes / out), "--steps", "60", "--decay", "20", *SMALL, *more]) == 0
        return four_classes / out / "model.pt"

    held, all_of_them = train("held", "--left-out", "2"), train("all", "--left-out", "2", "--held", "0")
    assert checkpoint.load(held)[1].labels == ("a", "b", "d")
    assert main(["calibrate", str(all_of_them)]) == 1
    assert "held out" in capsys.readouterr().err
    assert main(["calibrate", str(all_of_them), "--by", str(train("others", "--left-out", "1", "--steps", "10"))]) == 1
    assert "same joints and classes" in capsys.readouterr().err
    assert main(["calibrate", str(all_of_them), "--by", str(held)]) == 0
    meta = checkpoint.load(all_of_them)[1]
    assert 0 < meta.other_below < 1
    assert meta.temperature != 1
    assert meta.command.endswith(f" && indrnn calibrate {all_of_them} --by {held}")
    assert {f["name"] for f in meta.figures} == {"val_ece", "val_ece_before"}
    before = checkpoint.load_trained(held)[0].readout.weight.detach().norm()
    assert main(["calibrate", str(held)]) == 0
    kept, meta = checkpoint.load_trained(held)
    assert float(before / kept.readout.weight.detach().norm()) == pytest.approx(meta.temperature, rel=1e-3)
    capsys.readouterr()
    assert main(["evaluate", str(held), "--record", "--json"]) == 0
    found = {f["name"]: f["value"] for f in json.loads(capsys.readouterr().out.splitlines()[-1])}
    assert found["val_known_called_other"] <= 17
    assert found["val_accuracy_100"] > 80
    assert {"val_unknown_called_other", "val_accuracy_lost_50", "val_accuracy_hz_60"} <= set(found)
