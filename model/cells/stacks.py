"""Stacks of recurrent layers: plain, residual, dense, convolutional. One vector [B, N] carries the state of all their layers.

Li et al., 2019 (arXiv 1910.06251), section 4. The state holds the hidden part of each layer, in the order they run, then the windows of
convolutional projections, then the position of norms per step; a row of zeros is the start of a sequence.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn

from indrnn.model.cells import chunked
from indrnn.model.cells.bidirectional import Bidirectional, ends
from indrnn.model.cells.cell import Cell, StatePart
from indrnn.model.cells.classic.subsample import Subsample
from indrnn.model.cells.layer import CausalConv, Layer, Norm, Projection, Steps, valid_steps
from indrnn.model.cells.norm import BatchNorm, Gathered, ReachedError, StepBatchNorm
from indrnn.model.cells.recurrent_weight import SizeError, bound
from indrnn.model.cells.table import CELLS

KINDS = ("plain", "residual", "dense", "conv")
SUBSAMPLED = "subsampled"  # a kind too; it has no norms per step
NORMS = ("before", "after", "none")
STARTS = ("zero", "small", "learned")
SMALL = 0.1  # deviation of a start that is not zero


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """Options that the stack of every network has, whatever its layers are made of.

    h0: the state that a sequence starts from: zero; small: drawn once, normal of deviation SMALL; learned: drawn so, then trained. A zero
    row of the carried state is the start in any case, told by a number of its own, `started`.
    norm_penalty: beta of the norm stabiliser (model/cells/classic/norm_penalty.py), of every layer; 0: none.
    bidirectional: half of each layer's neurons go through a sequence backwards (model/cells/bidirectional.py); such a network has no stream.
    """

    h0: str = field(default="zero", metadata={"choices": STARTS, "help": "state that a sequence starts from"})
    norm_penalty: float = field(default=0.0, metadata={"help": "of states whose length changes (beta of the norm stabiliser)"})
    bidirectional: bool = field(
        default=False, metadata={"help": "half of each layer goes backwards; it looks at whole sequences and has no stream"}
    )


@dataclass(frozen=True)
class StackConfig(StackOptions):
    """The description of the stack that `build_stack` builds.

    kind     plain; residual (pre-activation, Li et al., 2019, figure 3b); dense (3c); conv: plain, each layer's input projection a causal
             convolution over `kernel` steps.
             subsampled: plain, and each layer above the first makes a step for every `window` of the one below, which it reads at once
             (model/cells/classic/subsample.py); window^(layers - 1) is at most T, else the last would make none.
    cell     what the layers are made of, of model/cells/table.py; the papers' is indrnn.
    layers   recurrent layers of plain, conv and residual; a residual stack has two a block and one last: an odd number.
    hidden   width H; dense instead: growth k, a bottleneck of 4k in each dense layer, `first` * k neurons before the `blocks`, whose
             numbers are of dense layers; transitions halve the features between blocks, and with `last_transition` after the last.
    norm     before or after the recurrence, or none; with `per_step` statistics of their own for each of the first 2 T positions.
    T, gamma IndRNN's recurrent weights start in U[0, gamma^(1/T)] and stay within; the last layer's start in U[epsilon^(1/T), gamma^(1/T)]
             (section 5.1) where only the last step is read; epsilon 0: as the others.
    dropout  after each layer (dense: after each dense layer), one mask for all steps; dense takes `dropout_first` after the first layer,
             `dropout_bottleneck` and `dropout_transition` besides.
    spread   deviation of IndRNN's normal input weights; 0: uniform, Kaiming of slope 8, as the authors' code. Without a norm take 0.001 in
             the adding problem.
    """

    kind: str = field(default="plain", metadata={"help": "plain, residual, dense, conv or subsampled"})
    layers: int = field(default=6, metadata={"help": "recurrent layers"})
    hidden: int = field(default=128, metadata={"help": "neurons H of a layer"})
    growth: int = field(default=16, metadata={"help": "dense: neurons a layer adds"})
    blocks: tuple[int, ...] = field(default=(8, 6, 4), metadata={"help": "dense: layers of each block"})
    first: int = field(default=6, metadata={"help": "dense: neurons before the blocks, times growth"})
    last_transition: bool = field(default=True, metadata={"help": "dense: halve the features after the last block too"})
    kernel: int = field(default=3, metadata={"help": "conv: steps of a convolution"})
    window: int = field(default=4, metadata={"help": "subsampled: outputs of the layer below that are read at once"})
    norm: str = field(default="after", metadata={"help": "before or after the recurrence, or none"})
    per_step: bool = field(default=False, metadata={"help": "statistics of their own for each position"})
    T: int = field(default=784, metadata={"help": "steps that U is bounded for"})
    gamma: float = field(default=2.0, metadata={"help": "|u| is at most gamma^(1/T)"})
    epsilon: float = field(default=0.5, metadata={"help": "the last layer's U starts above epsilon^(1/T); 0: as the others"})
    dropout: float = field(default=0.0, metadata={"help": "after each layer, one mask for all steps"})
    dropout_first: float = field(default=0.0, metadata={"help": "dense: after the first layer"})
    dropout_bottleneck: float = field(default=0.0, metadata={"help": "dense: in the bottlenecks"})
    dropout_transition: float = field(default=0.0, metadata={"help": "dense: in the transitions"})
    nonlinearity: str = field(default="relu", metadata={"help": "of the recurrence"})
    spread: float = field(default=0.0, metadata={"help": "deviation of the input weights at the start"})
    cell: str = field(default="indrnn", metadata={"choices": CELLS, "help": "what the layers are made of"})


class Stack(nn.Module, ABC):
    """x [T, B, in] (or [T, B] symbols), lengths [B] | None, state [B, N] | None -> y [T, B, out_features], state [B, N] after each row.

    Past a row's length y is unspecified. Subclasses say in `compute` how the layers hang together. checkpoint_activations: in training
    memory grows as the square root of T (model/cells/chunked.py), for more arithmetic; SizeError where it is set beside a norm penalty.
    ends: of layers that go both ways, whether every output has what the second half answers at the first step, having read all: where a
    sequence has one answer.
    """

    out_features: int
    h0: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("h0", None)
        self._checkpoint_activations = False
        self.ends = False

    @property
    def bidirectional(self) -> bool:
        """Return whether layers go both ways, so that outputs depend on what comes after them."""
        return any(isinstance(layer.cell, Bidirectional) for layer in self.indrnns())

    @property
    def norm_penalty(self) -> float:
        """Return the largest beta of the norm stabiliser among the layers."""
        return max((layer.norm_penalty for layer in self.indrnns()), default=0.0)

    @property
    def checkpoint_activations(self) -> bool:
        """Return whether training goes in pieces of time."""
        return self._checkpoint_activations

    @checkpoint_activations.setter
    def checkpoint_activations(self, wanted: bool) -> None:
        """Train in pieces or not. Raises SizeError where a penalty spans the pieces, or layers go both ways."""
        self._refuse_pieces(wanted, self.norm_penalty)
        if wanted and self.bidirectional:
            raise SizeError(
                "--bidirectional: expected --no-checkpoint-activations, since a piece of time does not know what comes after it"
            )
        self._checkpoint_activations = wanted

    @staticmethod
    def _refuse_pieces(wanted: bool, penalty: float) -> None:
        if wanted and penalty:
            raise SizeError(
                f"--norm-penalty {penalty:g}: expected --no-checkpoint-activations, since each piece of time would add a mean of its own"
            )

    def taking(self, options: StackOptions) -> Self:
        """Take a start and a penalty as the options say; called once, on a stack whose layers are there. Raises SizeError."""
        if options.h0 not in STARTS:
            raise SizeError(f"expected h0 of {STARTS}, got {options.h0!r}")
        if options.norm_penalty < 0:
            raise SizeError(f"expected a norm penalty of 0 or more, got {options.norm_penalty}")
        self._refuse_pieces(self.checkpoint_activations, options.norm_penalty)
        if options.bidirectional and not self.bidirectional:
            raise SizeError(
                "--bidirectional: expected a network that looks at whole sequences, and this one answers while they go on: --delay of "
                "`tensor` sees some steps of the future and streams"
            )
        self.ends = options.bidirectional
        for layer in self.indrnns():
            layer.norm_penalty = options.norm_penalty
        if options.h0 != "zero":
            drawn = torch.randn(sum(self.hidden_sizes)) * SMALL
            del self.h0
            if options.h0 == "learned":
                self.h0 = nn.Parameter(drawn)
            else:
                self.register_buffer("h0", drawn)
        return self

    @abstractmethod
    def indrnns(self) -> list[Layer]:
        """Return the layers in the order they run, which is that of their state."""

    @abstractmethod
    def compute(self, x: Tensor, run: "StackRun") -> Tensor:
        """x [T, B, in] -> y [T, B, out]; runs each layer once, by run(layer, x)."""

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the stack on the shapes that the class names."""
        state = self._start(x) if state is None else state
        if self.training and self.checkpoint_activations:
            return chunked.run(self, x, lengths, state, last=False)
        run = self.begin(x, lengths, state)
        y = self.compute(x, run)
        return (ends(y) if self.ends else y), run.state()

    def final(self, x: Tensor, lengths: Tensor | None = None, state: Tensor | None = None) -> Tensor:
        """y [B, out] after each row's last step, lengths of 1 and more; with checkpoint_activations nothing of length T is kept."""
        if self.training and self.checkpoint_activations:
            return chunked.run(self, x, lengths, self._start(x) if state is None else state, last=True)[0]
        y: Tensor = self(x, lengths, state)[0]
        return chunked.final_step(y, lengths)

    def begin(self, x: Tensor, lengths: Tensor | None, state: Tensor, gathered: Gathered | None = None) -> "StackRun":
        """Return a pass over x, for `compute`."""
        return StackRun(self, x.shape[0], lengths, state, gathered)

    def _start(self, x: Tensor) -> Tensor:
        return torch.zeros(x.shape[1], self.state_size, device=x.device)

    @property
    def sizes(self) -> list[int]:
        """Return the lengths of the state's stretches in order."""
        windows = [layer.window for layer in self.indrnns() if layer.window]
        return [*self.hidden_sizes, *windows, *([1] if self.positions else []), *([] if self.h0 is None else [1])]

    @property
    def hidden_sizes(self) -> list[int]:
        """Return the lengths of those that the cells carry."""
        return [size for layer in self.indrnns() for size in layer.cell.sizes]

    @property
    def state_size(self) -> int:
        """Return N, the size of the whole state."""
        return sum(self.sizes)

    @property
    def positions(self) -> int:
        """Return how many positions have statistics of their own; 0 without norms per step."""
        return max((layer.norm.positions for layer in self.indrnns() if isinstance(layer.norm, StepBatchNorm)), default=0)

    def parts(self) -> tuple[StatePart, ...]:
        """Return the state's parts in order, as the manifest lists them."""
        layers = list(enumerate(self.indrnns()))
        hidden = [replace(part, layer=i) for i, layer in layers for part in layer.cell.parts()]
        windows = [StatePart("window", layer.window, i) for i, layer in layers if layer.window]
        position = [StatePart("position", 1)] if self.positions else []
        return (*hidden, *windows, *position, *([] if self.h0 is None else [StatePart("started", 1)]))

    def fold_(self, input_scale: Tensor | None = None) -> bool:
        """Moves the norms that can be, and a scale [in] of the features, into the weights. False where the scale could not be."""
        moved = [layer.fold_(input_scale if i == 0 else None) for i, layer in enumerate(self.indrnns())]
        return all(moved)


class StackRun:
    """One pass of a stack: hands each layer its piece of the state, and keeps what comes back."""

    def __init__(self, stack: Stack, T: int, lengths: Tensor | None, state: Tensor, gathered: Gathered | None = None) -> None:
        layers = stack.indrnns()
        sizes = [layer.state_size for layer in layers]
        windows = [layer.window for layer in layers if layer.window]
        ends = [*([1] if stack.positions else []), *([] if stack.h0 is None else [1])]
        pieces = torch.split_with_sizes(state, [*sizes, *windows, *ends], 1)
        self.hidden, self.rest = list(pieces[: len(layers)]), list(pieces[len(layers) :])
        self.before: Tensor | None = None
        if stack.h0 is not None:
            self.before, started = state, self.rest.pop() > 0.5
            starts = torch.split_with_sizes(stack.h0.to(state.dtype), sizes)
            self.hidden = [torch.where(started, h, start) for h, start in zip(self.hidden, starts, strict=True)]
        self.hidden_out: list[Tensor] = []
        self.rest_out: list[Tensor] = []
        self.none = state[:, :0]
        position = self.rest[-1].squeeze(1) if stack.positions else None
        self.steps = Steps(lengths, valid_steps(T, lengths) if stack.training else None, position, gathered)
        self.T, self.positions = T, stack.positions

    def __call__(self, layer: Layer, x: Tensor) -> Tensor:
        """x [T, B, in] -> y [T, B, H] of the stack's next layer, whose state is the next S numbers."""
        window = self.rest[len(self.rest_out)] if layer.window else self.none
        y: Tensor
        try:
            y, h, window = layer(x, self.steps, self.hidden[len(self.hidden_out)], window)
        except ReachedError as reached:
            self._keep(layer, *reached.carried)
            raise
        self._keep(layer, h, window)
        return y

    def _keep(self, layer: Layer, h: Tensor, window: Tensor) -> None:
        self.hidden_out.append(h)
        if layer.window:
            self.rest_out.append(window)

    def state(self) -> Tensor:
        """Return the state [B, N] after the layers that have run; what the others carry is as it was."""
        windows = len(self.rest) - (1 if self.positions else 0)
        rest = [*self.rest_out, *self.rest[len(self.rest_out) : windows]]
        if self.steps.position is not None:
            seen = self.T if self.steps.lengths is None else self.steps.lengths
            # It stops at the first position without statistics of its own: float32 counts to no end.
            rest.append((self.steps.position + seen).clamp_max(self.positions - 1)[:, None].to(self.none.dtype))
        after = [*self.hidden_out, *self.hidden[len(self.hidden_out) :], *rest]
        return torch.cat(after, 1) if self.before is None else self._begun(after, self.before)

    def _begun(self, after: list[Tensor], before: Tensor) -> Tensor:
        """Return the state of rows that have begun; one that has made no step is as it was, and may still stand at the start."""
        every = torch.cat([*after, torch.ones_like(before[:, :1])], 1)
        if self.steps.lengths is None:
            return every if self.T else before
        return torch.where((self.steps.lengths > 0)[:, None], every, before)


class Chain(Stack):
    """Layers one after another; with `skip` each adds to its input from the second on: y_l = y_{l-1} + layer_l(y_{l-1})."""

    def __init__(self, layers: list[Layer], skip: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.skip, self.out_features = skip, layers[-1].size

    def indrnns(self) -> list[Layer]:
        """Return the layers, from the input on."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def compute(self, x: Tensor, run: StackRun) -> Tensor:
        """Run the layers over x as `Stack.compute` says."""
        for i, layer in enumerate(self.indrnns()):
            y = run(layer, x)
            x = x + y if self.skip and i else y
        return x


class ResidualBlock(nn.Module):
    """x + W2 r2(W1 r1(x)): each r is a norm, a recurrence and its activation, before the weights (pre-activation)."""

    def __init__(self, r1: Layer, w1: nn.Linear, r2: Layer, w2: nn.Linear) -> None:
        super().__init__()
        self.r1, self.w1, self.r2, self.w2 = r1, w1, r2, w2


class Residual(Stack):
    """A linear map of the input to H, pre-activation blocks of two layers, and a last layer."""

    def __init__(self, inputs: nn.Linear, blocks: list[ResidualBlock], last: Layer) -> None:
        super().__init__()
        self.inputs, self.blocks, self.last = inputs, nn.ModuleList(blocks), last
        self.out_features = last.size

    def indrnns(self) -> list[Layer]:
        """Two layers a block, then the last."""
        return [*(r for block in self._blocks() for r in (block.r1, block.r2)), self.last]

    def _blocks(self) -> list[ResidualBlock]:
        return [block for block in self.blocks if isinstance(block, ResidualBlock)]

    def compute(self, x: Tensor, run: StackRun) -> Tensor:
        """Run the layers over x as `Stack.compute` says."""
        x = self.inputs(x)
        for block in self._blocks():
            x = x + block.w2(run(block.r2, block.w1(run(block.r1, x))))
        return run(self.last, x)

    def fold_(self, input_scale: Tensor | None = None) -> bool:
        """Moves a scale [in] of the features into the first map; the norms stand before sums and stay."""
        if input_scale is not None:
            with torch.no_grad():
                self.inputs.weight.mul_(input_scale)
        return True


class DenseBlock(nn.Module):
    """Dense layers, each a bottleneck and a narrow layer whose output is appended to all before, and the transition after them."""

    def __init__(self, bottlenecks: list[Layer], layers: list[Layer], transition: Layer | None) -> None:
        super().__init__()
        self.bottlenecks, self.layers, self.transition = nn.ModuleList(bottlenecks), nn.ModuleList(layers), transition

    def pairs(self) -> Iterator[tuple[Layer, Layer]]:
        """Return the bottleneck and layer, in the order they run."""
        for bottleneck, layer in zip(self.bottlenecks, self.layers, strict=True):
            assert isinstance(bottleneck, Layer)
            assert isinstance(layer, Layer)
            yield bottleneck, layer


class Dense(Stack):
    """A first layer, then dense blocks; without a last transition the features of the last block are what comes out."""

    def __init__(self, first: Layer, blocks: list[DenseBlock], out_features: int) -> None:
        super().__init__()
        self.first, self.blocks = first, nn.ModuleList(blocks)
        self.out_features = out_features

    def _blocks(self) -> list[DenseBlock]:
        return [block for block in self.blocks if isinstance(block, DenseBlock)]

    def indrnns(self) -> list[Layer]:
        """Return the layers in the order they run."""
        layers = [self.first]
        for block in self._blocks():
            layers += [layer for pair in block.pairs() for layer in pair]
            layers += [block.transition] if block.transition is not None else []
        return layers

    def compute(self, x: Tensor, run: StackRun) -> Tensor:
        """Run the layers over x as `Stack.compute` says."""
        x = run(self.first, x)
        for block in self._blocks():
            for bottleneck, layer in block.pairs():
                x = torch.cat([x, run(layer, run(bottleneck, x))], 2)
            x = x if block.transition is None else run(block.transition, x)
        return x


def skip_chain(
    first: int | nn.Embedding,
    size: int,
    layers: int,
    bound: float,
    dropout: float,
    norm: bool,
    cell: str = "indrnn",
    bidirectional: bool = False,
) -> Chain:
    """Layers of one width H, norm before the cell, each added to its input: what the action and the chars network are made of.

    first: numbers in of a step, or the embedding that reads symbols. Raises SizeError on a cell that is not in the table.
    """
    kind = _cell(cell)
    reads: list[tuple[Projection | None, int]] = [_mapped(kind, first, size)] + [_mapped(kind, size, size) for _ in range(layers - 1)]
    # The last layer keeps what the answer needs: its U starts nearer the bound (Li et al., 2019, section 5.1).
    lows = [0.0] * (layers - 1) + [bound / 2]
    chain = []
    for (project, inputs), low in zip(reads, lows, strict=True):
        made = Bidirectional(kind, inputs, size, bound, low) if bidirectional else kind(inputs, size, bound, low)
        layer = Layer(project, made, dropout, BatchNorm(inputs) if norm else None)
        loudness = layer.cell.loudness()
        if isinstance(layer.norm, BatchNorm) and loudness is not None:
            layer.norm.weight.data.copy_(loudness)
        chain.append(layer)
    return Chain(chain, skip=True)


def _cell(name: str) -> type[Cell]:
    if name not in CELLS:
        raise SizeError(f"expected a cell of {tuple(CELLS)}, got {name!r}")
    return CELLS[name]


def _mapped(kind: type[Cell], inputs: int | nn.Embedding, size: int) -> tuple[Projection | None, int]:
    """Return what stands before such a cell, and how many numbers a step then has."""
    if isinstance(inputs, nn.Embedding):
        return inputs, size
    return (nn.Linear(inputs, size), size) if kind.projected else (None, inputs)


def build_stack(config: StackConfig, input_size: int) -> Stack:
    """Return the stack a configuration describes, its weights drawn. Raises SizeError on a configuration that makes no sense."""
    c = config
    if c.kind not in (*KINDS, SUBSAMPLED) or c.norm not in NORMS:
        raise SizeError(f"expected kind of {(*KINDS, SUBSAMPLED)} and norm of {NORMS}, got {c.kind!r} and {c.norm!r}")
    if c.bidirectional and (c.kind == SUBSAMPLED or (c.kind == "dense" and not c.last_transition)):
        raise SizeError(f"--bidirectional: expected a kind of {KINDS}, a dense one with its last transition, got {c.kind!r}")
    if c.kind == SUBSAMPLED and c.per_step:
        raise SizeError("expected no norms per step in a subsampled stack: its layers do not agree on what a step is")
    if min(c.layers, c.hidden, c.growth, c.first, c.kernel, c.window, *c.blocks) < 1 or not c.blocks:
        raise SizeError(f"expected sizes of 1 and more, got {c}")
    if c.kind == SUBSAMPLED:
        _check_reached(c.layers, c.window, c.T)
    if c.kind == "residual":
        return _residual(c, input_size).taking(c)
    return _dense(c, input_size).taking(c) if c.kind == "dense" else _chain(c, input_size).taking(c)


def _check_reached(layers: int, window: int, T: int) -> None:
    """Raises SizeError where the last layer of a subsampled stack would make no step within T."""
    if window ** (layers - 1) <= T:
        return
    most, widest = 1, 1
    while window**most <= T:
        most += 1
    while (widest + 1) ** (layers - 1) <= T:
        widest += 1
    raise SizeError(
        f"expected a subsampled stack whose last layer makes a step, window ^ (layers - 1), within {T} steps, got {window} ^ {layers - 1}: "
        f"a window of {widest} or {most} layers at most"
    )


def _layer(c: StackConfig, inputs: int | None, size: int, dropout: float, last: bool = False) -> Layer:
    """Return a layer of the configuration; inputs None: without a projection of its own."""
    kind, reads = _cell(c.cell), size
    project: Projection | None = None
    if inputs is not None and c.kind == "conv":
        project = CausalConv(inputs, size, c.kernel)
    elif inputs is not None and kind.projected:
        project = _linear(c, inputs, size)
    elif inputs is not None:
        reads = inputs
    norm: Norm | None = None
    if c.norm != "none":
        norm = _norm(c, size if c.norm == "after" else reads)
    low = c.epsilon ** (1 / c.T) if last else 0.0
    words = reads, size, bound(c.gamma, c.T), low, c.nonlinearity
    return Layer(project, Bidirectional(kind, *words) if c.bidirectional else kind(*words), dropout, norm, c.norm == "after")


def _windowed(c: StackConfig, level: int) -> Layer:
    """Return the layer of a level above the first, which makes a step for every `window` of the one below."""
    layer = _layer(c, c.window * c.hidden, c.hidden, c.dropout, last=level == c.layers - 1)
    assert layer.project is None or isinstance(layer.project, nn.Linear)
    layer.project = Subsample(c.hidden, c.window, c.window ** (level - 1), c.hidden, layer.project)
    return layer


def _norm(c: StackConfig, size: int) -> Norm:
    return StepBatchNorm(size, 2 * c.T) if c.per_step else BatchNorm(size)


def _linear(c: StackConfig, inputs: int, size: int) -> nn.Linear:
    linear = nn.Linear(inputs, size)
    if c.spread:
        nn.init.normal_(linear.weight, std=c.spread)
    else:
        nn.init.kaiming_uniform_(linear.weight, a=8)
    nn.init.zeros_(linear.bias)
    return linear


def _chain(c: StackConfig, inputs: int) -> Chain:
    if c.kind == SUBSAMPLED:
        first = _layer(c, inputs, c.hidden, c.dropout, last=c.layers == 1)
        return Chain([first, *(_windowed(c, level) for level in range(1, c.layers))])
    widths = [inputs, *[c.hidden] * c.layers]
    return Chain([_layer(c, widths[i], c.hidden, c.dropout, last=i == c.layers - 1) for i in range(c.layers)])


def _residual(c: StackConfig, inputs: int) -> Residual:
    if c.layers % 2 == 0:
        raise SizeError(f"expected an odd number of layers, two a block and a last one, got {c.layers}")
    H = c.hidden
    first = _linear(c, inputs, H)
    blocks = [
        ResidualBlock(_layer(c, None, H, c.dropout), _linear(c, H, H), _layer(c, None, H, c.dropout), _linear(c, H, H))
        for _ in range(c.layers // 2)
    ]
    return Residual(first, blocks, _layer(c, None, H, c.dropout, last=True))


def _dense(c: StackConfig, inputs: int) -> Dense:
    k, features = c.growth, c.first * c.growth
    first = _layer(c, inputs, features, c.dropout_first)
    blocks = []
    for i, count in enumerate(c.blocks):
        bottlenecks = [_layer(c, features + j * k, 4 * k, c.dropout_bottleneck) for j in range(count)]
        layers = [_layer(c, 4 * k, k, c.dropout) for _ in range(count)]
        features += count * k
        last, transition = i == len(c.blocks) - 1, None
        if not last or c.last_transition:
            transition = _layer(c, features, features // 2, c.dropout_transition, last)
            features //= 2
        blocks.append(DenseBlock(bottlenecks, layers, transition))
    return Dense(first, blocks, features)
