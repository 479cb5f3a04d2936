"""What is said of neurons, on a network whose neurons were set by hand: one spikes, one accumulates, the others do not."""

import json

import pytest
import torch

from indrnn.__main__ import main
from indrnn.model.commands import inspect_adding
from indrnn.model.nets.adding import AddingConfig, AddingNet
from indrnn.model.training import checkpoint

SPIKES, ACCUMULATES = 2, 1


@pytest.fixture
def net():
    """Neuron 2 of layer 1 is relu(number + mark - 1); neuron 1 of layer 2 adds it up, three times as loud; the sum is a third of it."""
    torch.manual_seed(0)
    net = AddingNet(AddingConfig(length=200, hidden=4))
    first, second = net.stack.indrnns()
    with torch.no_grad():
        for layer in (first, second):
            layer.project.weight.normal_(0, 0.05)
            layer.project.bias.zero_()
            layer.cell.u.fill_(0.5)
        first.project.weight[SPIKES] = torch.tensor([1.0, 1.0])
        first.project.bias[SPIKES] = -1
        first.cell.u[SPIKES] = 0
        second.project.weight[ACCUMULATES] = 0
        second.project.weight[ACCUMULATES, SPIKES] = 3
        second.cell.u[ACCUMULATES] = 1
    return net.eval().requires_grad_(False)


def test_the_neuron_that_spikes_and_the_one_that_accumulates_are_found(net):
    n = inspect_adding.look(net)
    assert n.T == 200
    assert n.spiking == [SPIKES]
    assert n.at_marks[SPIKES] == pytest.approx(0.5, abs=0.05)  # a number of U(0, 1)
    assert n.elsewhere[SPIKES] == 0
    assert n.best == ACCUMULATES
    assert n.share[ACCUMULATES] == pytest.approx(1)
    assert max(n.share[i] for i in range(4) if i != ACCUMULATES) < 0.9
    assert (n.weight, n.bias) == (pytest.approx(1 / 3, abs=1e-4), pytest.approx(0, abs=1e-4))
    assert n.error < 1e-8
    assert sorted(n.errors)[1] > 0.05


def test_its_one_neuron_answers_at_another_length(net):
    assert inspect_adding.look(net, 5000).error < 1e-6


def test_a_neuron_that_forgets_answers_nothing_after_5000_steps_until_its_u_is_1(net):
    """0.99 keeps a third of a mark at a distance of 100 steps, and nothing at 2,500."""
    net.stack.indrnns()[-1].cell.u[ACCUMULATES] = 0.99
    short, long, remembering = inspect_adding.inspect(net, 5000, None)
    assert (short.T, long.T, remembering.T) == (200, 5000, 5000)
    assert 0.01 < short.error < 0.1
    assert long.error > 0.14  # the answer 1 has 0.167
    assert remembering.error < 1e-6
    assert (remembering.best, remembering.u) == (ACCUMULATES, 1)
    assert float(net.stack.indrnns()[-1].cell.u[ACCUMULATES]) == pytest.approx(0.99)  # the network itself is left as it was


@pytest.mark.filterwarnings("error")
def test_neurons_that_grow_past_float32_are_passed_over(net):
    net.stack.indrnns()[-1].cell.u[0] = 1.1
    net.stack.indrnns()[-1].project.bias[0] = 1
    n = inspect_adding.look(net, 5000)
    assert n.best == ACCUMULATES
    assert n.error < 1e-6


def test_the_command_tells_and_draws(net, tmp_path, capsys):
    checkpoint.save(tmp_path / "model.pt", net, checkpoint.Meta("adding", "", 0, 0))
    assert main(["inspect", str(tmp_path / "model.pt"), "--out", str(tmp_path / "pictures"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["adding"]
    assert (told["spiking"], told["best"], told["u_best"]) == ([SPIKES], ACCUMULATES, 1.0)
    assert [(x["T"], x["neuron"]) for x in told["one_neuron"]] == [(200, ACCUMULATES), (5000, ACCUMULATES), (5000, ACCUMULATES)]
    assert max(x["mse"] for x in told["one_neuron"]) < 1e-6
    for name in ("neurons.png", "one_neuron.png", "memory.png"):
        assert (tmp_path / "pictures" / name).read_bytes().startswith(b"\x89PNG")


def test_the_command_says_the_same_to_people_at_the_length_asked_for(net, tmp_path, capsys):
    checkpoint.save(tmp_path / "model.pt", net, checkpoint.Meta("adding", "", 0, 0))
    assert main(["inspect", str(tmp_path / "model.pt"), "--length", "400"]) == 0
    out = capsys.readouterr().out
    assert "{" not in out
    assert "1 of 4 neurons spike at the marks" in out
    (line,) = [x for x in out.splitlines() if "u set to 1" in x]
    assert "T = 400" in line
    assert float(line.split()[-1]) < 1e-6


def test_a_network_without_neurons_of_our_kind_is_refused(tmp_path, capsys):
    lstm = AddingNet(AddingConfig(cell="lstm", length=10, hidden=4))
    checkpoint.save(tmp_path / "model.pt", lstm, checkpoint.Meta("adding", "", 0, 0))
    assert main(["inspect", str(tmp_path / "model.pt")]) == 1
    assert "expected parts of the state with recurrent weights" in capsys.readouterr().err
