"""Training begins from a bundle's folded graph: the network computes what the bundle does, and knows more symbols."""

import numpy as np
import pytest
import torch

from indrnn.export import write as exporting
from indrnn.model.nets.chars import LEAST_LOGIT, CharsConfig, CharsNet
from indrnn.model.tasks import warm_start
from indrnn.model.training import checkpoint
from indrnn.model.training.checkpoint import CheckpointError, Meta

ALPHABET = " \"',-.ab"
WIDER = " \"',-.abé’\ufffd"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle of a small network whose norms have seen something."""
    torch.manual_seed(3)
    net = CharsNet(CharsConfig(classes=len(ALPHABET), hidden=8, layers=3))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if not name.endswith(".u"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    net.train()
    for _ in range(5):
        net(torch.randint(0, len(ALPHABET), (4, 20)), torch.full((4,), 20), net.start(4))
    root = tmp_path_factory.mktemp("bundles")
    checkpoint.save(root / "model.pt", net, Meta("chars", "indrnn train", 1, 1, alphabet=ALPHABET))
    module, meta = checkpoint.load(root / "model.pt")
    exporting.write(module, meta, root, "chars", "1", command="indrnn export")
    return root / "chars" / "1"


def begun(folder, **sizes):
    torch.manual_seed(0)
    net = CharsNet(CharsConfig(classes=len(WIDER), unknown=True, **{"hidden": 8, "layers": 3, **sizes}))
    rng = np.random.default_rng(0)
    batches = [torch.from_numpy(rng.integers(0, len(ALPHABET), (4, 30))) for _ in range(3)]
    warm_start.begin_(net, WIDER, folder, batches)
    return net


def test_it_says_of_known_symbols_what_the_bundle_says(folder):
    old, _ = checkpoint.load(folder.parent.parent / "model.pt")
    new = begun(folder).fold()
    x = torch.arange(24).reshape(2, 12) % len(ALPHABET)
    lengths = torch.tensor([12, 12])
    want, got = (net(x, lengths, net.start(2))[0][..., : len(ALPHABET)] for net in (old, new))
    torch.testing.assert_close(got - got.mean(-1, keepdim=True), want - want.mean(-1, keepdim=True), rtol=0, atol=1e-4)


def test_a_new_symbol_begins_as_the_one_that_it_resembles_and_less_likely(folder):
    net = begun(folder).requires_grad_(False)
    rows, like = net.stack.indrnns()[0].project.weight, WIDER.index("'")
    torch.testing.assert_close(rows[WIDER.index("’")], rows[like])
    assert float(net.readout.bias[WIDER.index("’")]) == pytest.approx(float(net.readout.bias[like]) - warm_start.NEW)


def test_the_symbol_for_what_is_unknown_is_never_said(folder):
    net = begun(folder)
    with torch.no_grad():  # as training might leave it
        net.readout.weight[-1] = 1.0
        net.readout.bias[-1] = 9.0
    logits, _ = net.fold().requires_grad_(False)(torch.arange(10)[None] % len(WIDER), torch.tensor([10]), net.start(1))
    assert bool((logits[..., -1] == LEAST_LOGIT).all())
    assert float(logits[..., :-1].mean(-1).abs().max()) < 1e-4


@pytest.mark.parametrize(("sizes", "said"), [({"hidden": 6}, "these sizes"), ({"layers": 2}, "these sizes")])
def test_a_bundle_of_other_sizes_and_what_is_none_are_refused_by_name(folder, sizes, said, tmp_path):
    with pytest.raises(CheckpointError, match=said):
        begun(folder, **sizes)
    with pytest.raises(CheckpointError, match="expected a bundle of text"):
        begun(tmp_path)
