"""Networks over every kind of stack become bundles; what their state holds beside hidden neurons travels with it."""

import dataclasses

import pytest
import torch

from indrnn.export.write import write
from indrnn.frames.layouts import LAYOUTS
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.training.checkpoint import Meta, load, save

SIZES = {"layers": 3, "hidden": 8, "growth": 2, "blocks": (1, 1), "T": 20, "gamma": 0.9, "inputs": 60, "classes": 3, "frames": True}


@pytest.mark.parametrize(
    ("variant", "roles"),
    [
        ({"kind": "conv", "norm": "before"}, {"window"}),
        ({"kind": "residual", "norm": "after", "per_step": True}, {"position"}),
        ({"kind": "dense", "norm": "before", "nonlinearity": "tanh"}, set()),
        ({"kind": "conv", "norm": "after", "per_step": True}, {"window", "position"}),
    ],
    ids=["conv", "residual", "dense", "conv, per step"],
)
def test_a_network_of_any_stack_becomes_a_bundle_whose_graph_answers_the_same(variant, roles, tmp_path):
    torch.manual_seed(0)
    net = SequenceNet(SequenceConfig(**SIZES, **variant))
    with torch.no_grad():  # statistics of some training
        net.train()(torch.randn(4, 30, 1, 20, 3), torch.full((4,), 30), net.start(4))
    own = (LAYOUTS["utd20"][0], tuple((j,) for j in range(20)))
    meta = Meta("action", "", 0, 0, labels=("a", "b", "c"), layout="utd20", layouts={"utd20": own}, persons=1, hz=30.0)
    save(tmp_path / "net.pt", net, dataclasses.replace(meta))
    module, meta = load(tmp_path / "net.pt")
    manifest = write(module, meta, tmp_path / "bundles", "net", "1", command="").manifest
    assert {p.role for p in manifest.state} == {"hidden", "last_frame", "last_logits"} | roles
    assert manifest.state_size == net.state_size
