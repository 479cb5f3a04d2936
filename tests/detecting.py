"""A network that detects, untrained but with opinions that come and go: for tests that need events but no meaning."""

import numpy as np
import torch

from indrnn.export.modalities.skeleton import skeletons
from indrnn.frames.layouts import LAYOUTS
from indrnn.model.nets.detect import DetectConfig, DetectNet
from indrnn.model.training.checkpoint import Meta

J, LABELS = 5, ("nothing", "wave", "push", "kick")


def network() -> DetectNet:
    torch.manual_seed(3)
    config = DetectConfig(
        J, 1, 1, len(LABELS), hidden=16, layers=2, pools=(0.5,), across=((0, 2),), apart=False, on=0.5, off=0.3, least=2, pause=3
    )
    made = DetectNet(config)
    torch.nn.init.normal_(made.classifier.readout.weight)
    with torch.no_grad():  # as often one class as another
        logits, _ = made.eval().classifier(torch.from_numpy(bodies(1, 200)), torch.tensor([200]), made.classifier.start(1))
        made.classifier.readout.weight *= 4 / logits.std(1).mean()
        made.classifier.readout.bias -= logits.mean((0, 1)) * 4 / logits.std(1).mean()
    return made


def bodies(rows: int, T: int) -> np.ndarray:
    """Frames [rows, T, 1, J, 3] of somebody who swings the joints and is always there."""
    x = skeletons(1, J)(np.random.default_rng(5), rows, T)
    return np.where(x.any((2, 3, 4), keepdims=True), x, x[:, :1])


def meta() -> Meta:
    own = {"own": (LAYOUTS["utd20"][0][:J], tuple((j,) for j in range(J)))}
    return Meta("action", "indrnn train detect x.npz", 1, 0, labels=LABELS, layout="own", layouts=own, persons=1, hz=30.0, task="detect")
