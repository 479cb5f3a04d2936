"""The images network: a whole picture in, row by row of its pixels, class scores out.

`rcl`: convolution [C] -> pooling -> recurrent convolutional layers (model/cells/grid/recurrent_conv.py), pooling again in their middle ->
the largest of each map -> scores (Liang and Hu, 2015, figure 3: a convolution, four layers, pooling in their middle, global max pooling).
`md_indrnn`, `md_relu`, `md_tanh`: blocks of pixels -> multi-dimensional layers (model/cells/grid/multidimensional.py), each above the
first reading blocks of 2 x 2 places of the one below -> what each direction says of the corner where it ends, beside the mean over
all places -> scores (Graves et al., 2007, section 4.2, whose last layer alone is summed over all places).
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

from indrnn.model.cells.cell import StatePart
from indrnn.model.cells.grid.multidimensional import CORNERS, MultiDimensional
from indrnn.model.cells.grid.recurrent_conv import NORMS, PlaneNorm, PlaneScale, RecurrentConv
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.nets.network import StateNet, centre_
from indrnn.model.nets.options import CLASSES, LAYERS

DARK, BRIGHT = 0.0, 255.0  # a pixel; a number beyond counts as one of these
HALF = 2  # places of the layer below along each side of what a multi-dimensional layer reads at once
CHANNELS = {"rcl": 32, "md_indrnn": 24, "md_relu": 24, "md_tanh": 24}


@dataclass(frozen=True)
class ImagesConfig:
    """Sizes of the network. side: rows R of a picture, and columns. hidden: maps C of a layer, or neurons H of each of four directions.

    looks: K of the recurrent convolutional layers. response: their norm (model/cells/grid/recurrent_conv.py). block: pixels along each side
    of what the first multi-dimensional layer reads at once.
    """

    kind: str = field(default="rcl", metadata={"choices": tuple(CHANNELS), "help": "layers: recurrent convolutional, multi-dimensional"})
    side: int = 28
    classes: int = field(default=10, metadata=CLASSES)
    hidden: int = field(default=32, metadata={"help": "maps of a convolution, or neurons of each of four directions"})
    layers: int = field(default=2, metadata=LAYERS)
    looks: int = field(default=3, metadata={"help": "rcl: times that a layer looks at its input again"})
    plane_norm: str = field(default="batch", metadata={"choices": NORMS, "help": "rcl: norm of the maps; response: the paper's"})
    block: int = field(default=2, metadata={"help": "md_*: pixels along each side of a block"})
    gamma: float = field(default=2.0, metadata={"help": "md_indrnn: most that a gradient grows across the picture"})
    dropout: float = field(default=0.1, metadata={"help": "before the scores"})


class ImagesNet(StateNet):
    """x [B, T, R] of pixels from 0 to 255, row by row, from the top; lengths [B]; state [B, N] -> logits [B, T, K], state [B, N].

    The answer is that of the whole picture, and stands at each of its steps: a picture of fewer rows is dark below them, and what comes
    after its last row is not looked at. Of the state only the last answer goes from picture to picture, and nothing reads it.
    """

    def __init__(self, config: ImagesConfig) -> None:
        super().__init__()
        c = self.config = config
        self.body: _Convolutional | _MultiDimensional = _Convolutional(c) if c.kind == "rcl" else _MultiDimensional(c)
        self.drop = nn.Dropout(c.dropout)
        self.readout = nn.Linear(self.body.out_features, c.classes)
        nn.init.zeros_(self.readout.weight)  # an untrained net knows nothing: uniform scores
        nn.init.zeros_(self.readout.bias)
        self.sizes = [c.classes]

    @property
    def streams(self) -> bool:
        """Return False: a picture is looked at as a whole."""
        return False

    @property
    def longest(self) -> int:
        """Return the rows of a picture."""
        side: int = self.config.side
        return side

    @property
    def cell(self) -> str:
        """Return the kind of its layers, which are no cells: nothing is carried from step to step."""
        kind: str = self.config.kind
        return kind

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the shapes that the class names."""
        there = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # [B, T]
        seen = torch.where(there[:, :, None], x, DARK)  # [B, T, R]
        picture = F.pad(seen, (0, 0, 0, self.longest))[:, : self.longest]  # [B, R, R]
        answer = self.answer(picture)  # [B, K]
        logits = answer[:, None].expand(-1, x.shape[1], -1) + torch.zeros_like(x[:, :, :1])  # [B, T, K]
        return logits, torch.where(lengths[:, None] > 0, answer, state)

    def answer(self, picture: Tensor) -> Tensor:
        """picture [B, R, R], pixels from 0 to 255 -> scores [B, K]."""
        scaled = picture.clamp(DARK, BRIGHT) * (2 / BRIGHT) - 1
        logits: Tensor = self.readout(self.drop(self.body(scaled)))
        return logits.float()

    def parts(self) -> tuple[StatePart, ...]:
        """Return the state's one part."""
        return (StatePart("last_logits", self.classes),)

    def fold_(self) -> None:
        """Moves batch norm into the maps beside it; centres the scores."""
        self.body.fold_()
        centre_(self.readout)


class _Convolutional(nn.Module):
    """Picture [B, R, C] -> the largest of each map [B, maps]."""

    def __init__(self, c: ImagesConfig) -> None:
        super().__init__()
        if c.side < 4:
            raise SizeError(f"expected pictures of 4 x 4 pixels and more, which are pooled twice, got {c.side} x {c.side}")
        self.out_features, self.middle = c.hidden, c.layers // 2
        self.first = nn.Conv2d(1, c.hidden, 5, padding=2)
        self.norm: nn.Module = PlaneNorm(c.hidden)
        self.layers = nn.ModuleList(RecurrentConv(c.hidden, c.hidden, c.looks, 3, c.plane_norm) for _ in range(c.layers))

    def forward(self, picture: Tensor) -> Tensor:
        """Look at the picture."""
        y = F.max_pool2d(F.relu(self.norm(self.first(picture[:, None]))), 2)
        for i, layer in enumerate(self.layers):
            if i == self.middle and i > 0:
                y = F.max_pool2d(y, 2)
            y = layer(y)
        return y.amax((2, 3))

    def fold_(self) -> None:
        """Fold every norm."""
        self.norm = PlaneScale(*self.norm.affine()) if isinstance(self.norm, PlaneNorm) else self.norm
        for layer in self.layers:
            assert isinstance(layer, RecurrentConv)
            layer.fold_()


class _MultiDimensional(nn.Module):
    """Picture [B, R, C] -> corners and means [B, 8 H]."""

    def __init__(self, c: ImagesConfig) -> None:
        super().__init__()
        least = c.block * HALF ** (c.layers - 1)
        if c.side % least:
            raise SizeError(f"expected a side that {c.layers} layers can halve ({least} and its multiples), got {c.side}")
        self.out_features, self.block = 2 * CORNERS * c.hidden, c.block
        sides = [c.side // (c.block * HALF**i) for i in range(c.layers)]
        reads = [c.block**2] + [HALF**2 * CORNERS * c.hidden] * (c.layers - 1)
        self.layers = nn.ModuleList(
            MultiDimensional(read, c.hidden, side, side, c.kind.removeprefix("md_"), gamma=c.gamma)
            for read, side in zip(reads, sides, strict=True)
        )

    def forward(self, picture: Tensor) -> Tensor:
        """Go through the picture."""
        y = picture[..., None]
        for i, layer in enumerate(self.layers):
            y = layer(blocks(y, HALF if i else self.block))
        tl, tr, bl, br = y.view(*y.shape[:3], CORNERS, -1).unbind(3)  # of the layers that begin at that corner, and end at the other
        ends = [tl[:, -1, -1], tr[:, -1, 0], bl[:, 0, -1], br[:, 0, 0]]
        return torch.cat([*ends, y.mean((1, 2))], 1)

    def fold_(self) -> None:
        """Fold every norm."""
        for layer in self.layers:
            assert isinstance(layer, MultiDimensional)
            layer.fold_()


def blocks(y: Tensor, side: int) -> Tensor:
    """y [B, R, C, F] -> [B, R / side, C / side, side^2 F], the places of each block one after another."""
    B, R, C, width = y.shape
    cut = y.reshape(B, R // side, side, C // side, side, width)
    return cut.permute(0, 1, 3, 2, 4, 5).flatten(3)
