"""What cells have in common whose x is multiplied once, for all steps at once: P = W x + c."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indrnn.model.cells.cell import Cell, Floats


class Product(Cell):
    """A layer of one product. project: weight W [width, in], bias c [width], which starts at 0."""

    def __init__(self, inputs: int, size: int, width: int) -> None:
        super().__init__(inputs, size)
        self.project = nn.Linear(inputs, width)
        nn.init.zeros_(self.project.bias)

    @torch.no_grad()
    def fold_(self, scale: Tensor, shift: Tensor) -> bool:
        """W (scale x + shift) + c = (W scale) x + (W shift + c)."""
        self.project.bias.add_(self.project.weight @ shift)
        self.project.weight.mul_(scale)
        return True

    def constants(self) -> Mapping[str, Tensor]:
        """Return what the cell's ONNX nodes read beside W and c, or in their place, by the names that they have for it."""
        return {}

    @torch.no_grad()
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Return what the cell's ONNX nodes read: W, c and `constants`."""
        given = {"W": self.project.weight.T, "bias": self.project.bias, **self.constants()}
        return {name: w.detach().float().cpu().numpy() for name, w in given.items()}

    def product(self, weights: Mapping[str, Floats], x: Floats) -> Floats:
        """Return P [width] of one step, for the specifications: x [in]."""
        p: Floats = weights["project.weight"] @ x + weights["project.bias"]
        return p
