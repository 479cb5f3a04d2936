"""Small networks with nothing at its initial value, and inputs for them."""

import torch

from indrnn.model.nets.action import ActionNet
from indrnn.model.nets.network import StateNet


def stirred(net: StateNet) -> StateNet:
    """The net with nothing left at its initial value, so that a forgotten parameter or statistic shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("norm.var"):
                tensor.copy_(0.5 + noise.abs())
            elif not name.endswith(".u"):
                tensor.add_(0.1 * noise)
    return net.eval()


def inputs(net: StateNet, rows: int, steps: int, seed: int = 0) -> torch.Tensor:
    """Random x [B, T, ...] for either kind of network."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(net, ActionNet):
        c = net.config
        return torch.randn(rows, steps, c.persons, c.joints, 3, generator=generator)
    return torch.randint(0, net.classes, (rows, steps), generator=generator)
