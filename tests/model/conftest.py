import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nets import stirred

from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.nets.network import StateNet

torch.set_num_threads(1)  # the tensors here are small, and the machine may be shared


@pytest.fixture
def needs() -> Callable[[str], None]:
    """Skips the test, by the file's name, when a data file is missing."""

    def check(name: str) -> None:
        root = Path(os.environ.get("INDRNN_DATA", "data"))
        if not (root / name).is_file():
            pytest.skip(f"data missing: {name} under {root} (INDRNN_DATA)")

    return check


@pytest.fixture
def action_net() -> ActionNet:
    """Small, two persons, every feature in use."""
    torch.manual_seed(0)
    net = stirred(ActionNet(ActionConfig(joints=5, persons=2, root=1, classes=4, hidden=8, layers=3, pools=(0.5, 0.9))))
    assert isinstance(net, ActionNet)
    return net


@pytest.fixture
def chars_net() -> CharsNet:
    """Small."""
    torch.manual_seed(0)
    net = stirred(CharsNet(CharsConfig(classes=7, hidden=8, layers=3)))
    assert isinstance(net, CharsNet)
    return net


@pytest.fixture(params=["action", "chars"])
def net(request: pytest.FixtureRequest) -> StateNet:
    """Each kind of network in turn."""
    net: StateNet = request.getfixturevalue(f"{request.param}_net")
    return net
