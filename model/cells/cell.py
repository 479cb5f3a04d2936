"""What a recurrent cell is, and the seam through which layers, stacks, the exporter, bundles and cards know one.

A cell is a module of one layer: it reads x [T, B, in], carries a state [B, S] and answers y [T, B, H]. A new one is a class below `Cell`
in a file of its own, and a line in `CELLS` of model/cells/table.py; nothing else of ours names it (docs/layers.md shows one).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indrnn.model.cells import reference

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class StatePart:
    """One stretch of a state vector, as checkpoints and manifests list it.

    role: as `Role` of export/bundle.py; size: its numbers. layer: which layer's, from 0, of roles hidden and window. name: of a cell with
    matrices for recurrent weights, what its equations call this part. activation: what bounds its numbers; u: recurrent weight of each
    neuron, where it has one of its own.
    """

    role: str
    size: int
    layer: int | None = None
    name: str | None = None
    activation: str | None = None
    u: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Lowering:
    """A cell in ONNX: weights that it has there, by name, and its nodes in ONNX's own text form, over standard operators.

    The nodes read X [T, B, in] float, lengths [B] int64, state [B, S] float and the weights by their names, and give Y [T, B, H] and
    state_out [B, S]: the state after each row's steps, where a length of 0 leaves it as it was. T may be 0.
    """

    weights: Mapping[str, NDArray[np.float32]]
    nodes: str


class Cell(nn.Module, ABC):
    """One layer's recurrence; every cell is made from the same words, and leaves alone those that it has no use for.

    inputs, size: numbers in of a step it reads, and its neurons H. bound, low: most and least of recurrent weights at the start, where
    there is one per neuron. activation: of the neurons, where it can be chosen.
    """

    name: ClassVar[str]  # in options, checkpoints and manifests
    about: ClassVar[str]  # of the network, on the card: what it is, and the source
    carried: ClassVar[str]  # on the card: how the file holds the recurrence
    endless: ClassVar[str]  # on the card: what becomes of the state in a stream without end
    kept: ClassVar[str | None] = None  # on the card: what the numbers of its state are, where they are no neurons
    bounded: ClassVar[bool] = True  # whether a bounded input keeps the state bounded; else a bundle states max_position
    projected: ClassVar[bool] = False  # whether x comes multiplied by input weights, inputs = H; else the cell has its own

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__()
        self.inputs, self.size = inputs, size
        self.number: int | None = None  # among the cells of a network that is being exported (`numbered`)

    @abstractmethod
    def parts(self) -> tuple[StatePart, ...]:
        """Return the parts of the state, all of role hidden, in order; the layer is filled in by who knows it."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the sizes of the state's parts."""
        return tuple(part.size for part in self.parts())

    @property
    def state_size(self) -> int:
        """Return S, the numbers of state of a row."""
        return sum(self.sizes)

    @abstractmethod
    def run(self, x: Tensor, lengths: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what `forward` promises, in PyTorch."""

    def forward(self, x: Tensor, lengths: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, B, in], lengths [B] (None: all T), state [B, S] -> y [T, B, H], 0 past a row's length, and the state after its steps.

        While the network is exported, one opaque node in place of what it computes.
        """
        if self.number is not None:
            lengths = torch.full((x.shape[1],), x.shape[0], dtype=torch.int64) if lengths is None else lengths
            out: tuple[Tensor, Tensor] = torch.ops.indrnn.cell(x, lengths, state, self.number, self.size)
            return out
        return self.run(x, lengths, state)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step: x [B, in], state [B, S] -> y [B, H], state [B, S]."""
        y, state = self(x[None], None, state)
        return y[0], state

    def fold_(self, scale: Tensor, shift: Tensor) -> bool:
        """Take scale * x + shift [in] of the input into the weights. False, unless a cell says otherwise: it cannot."""
        return False

    def loudness(self) -> Tensor | None:
        """Return the scale [in] at which white noise makes every neuron equally loud at the start; None: they are."""
        return None

    def remember_(self, low: float) -> None:
        """Draw recurrent weights anew, none below `low`; nothing, where no weight of one neuron alone says what it remembers."""

    def lowering(self) -> Lowering | None:
        """Return the cell in ONNX; None: what `run` does is an op of ours, which the exporter knows."""
        return None

    @abstractmethod
    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step of one row in NumPy, the specification: weights by their names in the module, x [in], state [S] -> y [H], state [S]."""

    def specified(self, x: Floats, lengths: NDArray[np.int64] | None, state: Floats) -> tuple[Floats, Floats]:
        """Return what `forward` must return, by the specification and in float64."""
        weights = {name: w.detach().double().cpu().numpy() for name, w in self.state_dict().items()}
        return reference.rows(lambda x, s: self.reference(weights, x, s), self.size, x, lengths, state)


class Product(Cell):
    """A cell whose x is multiplied once, for all steps at once: P = W x + c.

    project: weight W [width, in], bias c [width], which starts at 0.
    """

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


class Stepwise(Cell):
    """A cell given by its one step, in PyTorch (`one_step`) and in ONNX (`step_lowering`): a loop goes round either.

    The slow and sure way to a new cell: T calls in Python to train, a `Loop` to serve.
    """

    @abstractmethod
    def one_step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, in], state [B, S] -> y [B, H], state [B, S]."""

    @abstractmethod
    def step_lowering(self) -> Lowering:
        """Return one step in ONNX: nodes that read x [B, in], s [B, S] and the weights, and give y [B, H] and s_next [B, S]."""

    def run(self, x: Tensor, lengths: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Go step by step."""
        outputs = []
        for t, now in enumerate(x):
            y, after = self.one_step(now, state)
            live = None if lengths is None else (t < lengths)[:, None]
            outputs.append(y if live is None else torch.where(live, y, 0))
            state = after if live is None else torch.where(live, after, state)
        return (torch.stack(outputs) if outputs else x.new_zeros(0, x.shape[1], self.size)), state

    def lowering(self) -> Lowering:
        """Return a `Loop` round the step."""
        step = self.step_lowering()
        return Lowering(step.weights, loop(step.nodes, self.size))


def loop(step: str, size: int, reads: str = "X") -> str:
    """Return nodes of a `Loop` round one step: `step` reads x [B, F], s [B, S] and gives y [B, H], s_next [B, S].

    reads: the name of what is gone through, [T, B, F].
    """
    return _LOOP.format(step=step, H=size, reads=reads)


_LOOP = """
    T_1d = Shape <start = 0, end = 1> (X)
    T = Squeeze (T_1d)
    B_1d = Shape <start = 1, end = 2> (X)
    H_1d = Constant <value_ints = [{H}]> ()
    last_axis = Constant <value_ints = [1]> ()
    go_first = Constant <value = bool {{1}}> ()
    nothing = Constant <value_float = 0.0> ()
    ends = Unsqueeze (lengths, last_axis)
    state_out, stacked = Loop (T, go_first, state) <body = step (int64 i, bool go, s) => (go_on, s_kept, y_kept) {{
        x = Gather <axis = 0> ({reads}, i)
        {step}
        live = Less (i, ends)
        s_kept = Where (live, s_next, s)
        y_kept = Where (live, y, nothing)
        go_on = Identity (go)
    }}>
    Y_shape = Concat <axis = 0> (T_1d, B_1d, H_1d)
    Y = Reshape <allowzero = 1> (stacked, Y_shape)
"""


@torch.library.custom_op("indrnn::cell", mutates_args=())
def cell_op(x: Tensor, lengths: Tensor, state: Tensor, number: int, size: int) -> tuple[Tensor, Tensor]:
    """Stand for a cell of a network that is being exported; never run."""
    raise RuntimeError("expected to be exported: a cell runs through `run`")


@cell_op.register_fake
def _(x, lengths, state, number, size):  # type: ignore[no-untyped-def]  # torch calls it
    return x.new_empty(x.shape[0], x.shape[1], size), torch.empty_like(state, memory_format=torch.contiguous_format)


@contextmanager
def numbered(net: nn.Module) -> Iterator[list[Cell]]:
    """Give each cell of the network that has a lowering its place in the list that is given; within, such cells are opaque nodes."""
    cells = [m for m in net.modules() if isinstance(m, Cell) and type(m).lowering is not Cell.lowering]
    for i, cell in enumerate(cells):
        cell.number = i
    try:
        yield cells
    finally:
        for cell in cells:
            cell.number = None
