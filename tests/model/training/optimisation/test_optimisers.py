"""Every optimiser that `--optimizer` names learns, goes on where it was stopped bit for bit, and stands on the card."""

import re

import pytest
import torch
from torch import nn

from indrnn.__main__ import main
from indrnn.export import bundle
from indrnn.model.cells.recurrent_weight import parameter_groups
from indrnn.model.cells.table import CELLS
from indrnn.model.tasks.adding import AddingRecipe
from indrnn.model.training import checkpoint
from indrnn.model.training.optimisation import optimisers
from indrnn.model.training.optimisation.lbfgs import BatchLBFGS
from indrnn.model.training.optimisation.optimisers import OPTIMISERS

SMALL = [
    "--length",
    "8",
    "--hidden",
    "8",
    "--rows",
    "16",
    "--epoch",
    "10",
    "--average",
    "5",
    "--warmup",
    "1",
    "--decay",
    "0",
    "--no-progress",
]


def train(out, name, steps, *more):
    assert main(["train", "adding", "--optimizer", name, "--steps", str(steps), *SMALL, *more, "--out", str(out)]) == 0
    return torch.load(out / "model.pt", weights_only=True)


def cell(name: str) -> nn.Module:
    torch.manual_seed(0)
    return CELLS[name](3, 8)


def of_angles(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What an optimiser has kept of each weight, by its name."""
    return {name: optimizer.state[p]["exp_avg"] for name, p in net.named_parameters() if p in optimizer.state}


def test_a_run_that_is_older_than_the_rule_that_angles_do_not_decay_goes_on() -> None:
    net, twin = cell("urnn"), cell("urnn")
    old = torch.optim.AdamW(parameter_groups(net, 0.1, spare_directions=False), lr=0.01)
    sum(p.square().sum() for p in net.parameters()).backward()
    old.step()
    new = optimisers.build("adamw", twin, 0.01, 0.1)
    with pytest.raises(ValueError, match="doesn't match the size"):
        new.load_state_dict(old.state_dict())
    new.load_state_dict(optimisers.regrouped(old.state_dict(), twin))
    kept, there = of_angles(net, old), of_angles(twin, new)
    assert any(name.endswith("angles") for name in kept)
    assert all(torch.equal(kept[name], there[name]) for name in kept)
    assert [group["weight_decay"] for group in new.param_groups] == [0.1, 0.0, 0.0]
    now = new.state_dict()
    assert optimisers.regrouped(now, twin) is now


def test_a_state_of_other_weights_is_refused_in_one_sentence() -> None:
    other = optimisers.build("adamw", cell("gru"), 0.01, 0.1).state_dict()
    with pytest.raises(optimisers.OptimiserError, match="another version began the run"):
        optimisers.regrouped(other, cell("urnn"))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_it_learns_and_goes_on_bit_for_bit(name, tmp_path):
    whole = train(tmp_path / "whole", name, 30)
    errors = [float(e) for e in re.findall(r"val_mse (\S+)", (tmp_path / "whole" / "log.txt").read_text())]
    assert errors[-1] < 0.9 * errors[0] or errors[-1] < 0.2  # 0.17 is what knows the mean of the sums
    train(tmp_path / "cut", name, 20)
    cut = train(tmp_path / "cut", name, 30, "--resume")
    for weight, value in whole["weights"].items():
        assert torch.equal(cut["weights"][weight], value), weight
    assert cut["meta"]["optimizer"] == name


def test_a_run_goes_on_with_the_optimiser_that_it_was_begun_with(tmp_path, capsys):
    train(tmp_path, "sgd", 10)
    assert main(["train", "adding", "--optimizer", "adam", "--steps", "20", *SMALL, "--out", str(tmp_path), "--resume"]) == 1
    assert "expected to go on with the same optimizer, sgd, got adam" in capsys.readouterr().err


def test_the_rate_is_the_optimisers_own_unless_one_is_given(tmp_path, monkeypatch):
    made = []
    build = optimisers.build
    monkeypatch.setattr(optimisers, "build", lambda name, net, rate, decay: made.append(rate) or build(name, net, rate, decay))
    for i, (name, more) in enumerate((("adamw", ()), ("sgd", ()), ("adadelta", ()), ("sgd", ("--rate", "0.001")))):
        train(tmp_path / str(i), name, 1, *more)
    task = AddingRecipe(1, 0).rate
    assert made == [task, task * OPTIMISERS["sgd"].times, 1.0, 0.001]


def test_one_that_treats_all_weights_alike_refuses_to_treat_some_apart(tmp_path, capsys):
    for option, value in (("--weight-decay", "0.1"), ("--recurrent-rate", "0.5")):
        assert main(["train", "adding", "--optimizer", "lbfgs", option, value, *SMALL, "--out", str(tmp_path)]) == 1
        assert "--optimizer lbfgs: expected --weight-decay 0 and --recurrent-rate 1" in capsys.readouterr().err


def test_a_line_search_evaluates_one_batch_with_the_same_dropout_and_from_the_same_state(tmp_path):
    """L-BFGS asks for a batch's loss some times a step; a stream moves on once."""
    (tmp_path / "mine.txt").write_text("to be or not to be, that is the question. " * 20)
    small = ["--hidden", "8", "--layers", "1", "--rows", "2", "--length", "8", "--epoch", "2", "--no-progress", "--dropout", "0.3"]
    argv = ["train", "chars", "--text", str(tmp_path / "mine.txt"), "--optimizer", "lbfgs", *small, "--decay", "0"]
    for out, cuts in (("whole", ("4",)), ("cut", ("2", "4"))):
        for i, steps in enumerate(cuts):
            assert main([*argv, "--steps", steps, "--out", str(tmp_path / out), *(["--resume"] if i else [])]) == 0
    a, b = (torch.load(tmp_path / out / "model.pt", weights_only=True)["weights"] for out in ("whole", "cut"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    net, _ = checkpoint.load(tmp_path / "whole" / "model.pt")
    assert all(bool(p.isfinite().all()) for p in net.parameters())


def test_the_card_says_which_it_was(tmp_path):
    train(tmp_path / "run", "nesterov", 1)
    assert main(["export", str(tmp_path / "run" / "model.pt"), str(tmp_path / "bundles"), "--max-position", "30"]) == 0
    made = bundle.read(tmp_path / "bundles" / "adding" / "1")
    assert made.manifest.training.optimizer == OPTIMISERS["nesterov"].about
    assert "Trained by Nesterov's accelerated gradient" in (made.graph.parent / "CARD.md").read_text()


def test_a_batch_is_searched_along_lines_of_its_own():
    """A quadratic of two weights is at its minimum after one step, whatever the batch before it was."""
    weights = torch.tensor([3.0, -2.0], requires_grad=True)
    optimiser = BatchLBFGS([weights], max_iter=20, line_search_fn="strong_wolfe")
    for scale in (1.0, -1.0):
        minimum = scale * torch.tensor([1.0, 2.0])

        def closure(minimum=minimum):
            optimiser.zero_grad()
            loss = (torch.tensor([1.0, 25.0]) * (weights - minimum) ** 2).sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        torch.testing.assert_close(weights.detach(), minimum, rtol=0, atol=1e-3)
