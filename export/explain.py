"""What an answer depends on, as a graph of its own: `explain.onnx`, the exact gradient of weighted logits by what the network reads.

The network is traced together with its backward pass (PyTorch's), in which the gradient of each recurrence is the op DiagonalRecurrence,
reversed in time (model/cells/diagonal/backward.py). So the file is portable and fused as model.onnx is, and needs no PyTorch.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from indrnn.export import graph, op
from indrnn.export.bundle import GRAPH
from indrnn.export.errors import GraphError
from indrnn.export.modalities.modality import Sample
from indrnn.kernels.runtime import ort
from indrnn.model.cells.cell import Cell
from indrnn.model.cells.classic.bidirectional import Bidirectional
from indrnn.model.cells.classic.subsample import Subsample
from indrnn.model.cells.diagonal.backward import indrnn_backward
from indrnn.model.cells.diagonal.gated import GatedCell
from indrnn.model.cells.diagonal.recurrence import composed_backward
from indrnn.model.cells.grid.table import LAYERS
from indrnn.model.cells.independent import Independent
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.stories import StoryNet

INPUTS = {"x": ("B", "T"), "lengths": ("B",), "weights": ("B",)}  # leading axes, free
OUTPUTS = {"gradient": ("B", "T"), "logits": ("B",), "off": ("B", "T")}
LENT = 4096  # bytes from which on a weight is read from model.onnx; smaller ones are not worth a line
CASES = ((1, 1), (1, 33), (3, 17))  # B, T that the file is compared at; none of them the example's
# In place of one opaque pass: what an exported graph can hold.
BACKWARDS: dict[Any, Callable[..., Any]] = {
    torch.ops.indrnn.recurrence_backward.default: indrnn_backward,
    torch.ops.indrnn.diagonal_backward.default: composed_backward,
}


def explanation(module: StateNet, x: Tensor, lengths: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of sum_k weights_k logits_k after each row's last step, from the start of a sequence, in PyTorch.

    x [B, T, ...], lengths [B] of 1 and more, weights [B, K] -> gradient: by x, of x's shape; of symbols [B, T], that by the symbol's vector
    times the vector itself (which is gradient times input on one-hot symbols); logits [B, K] after the last step; off [B, T], the share of
    relu neurons that are at 0. Raises GraphError of a subsampled network, whose layers do not make the same steps, and of word numbers.
    """
    if any(isinstance(part, Subsample) for part in module.modules()):
        raise GraphError("no explanation of a subsampled network: expected layers that all make a step at each step of the input")
    if isinstance(module, StoryNet):
        raise GraphError("no explanation of word numbers: they have no gradient")
    leaf: list[Tensor] = []
    states: list[Tensor] = []

    def read(value: Tensor) -> Tensor:
        leaf.append(value.detach().requires_grad_())
        return leaf[0]

    symbols = not x.is_floating_point()
    within = {half for part in module.modules() if isinstance(part, Bidirectional) for half in (part.ahead, part.back)}
    with torch.enable_grad(), contextlib.ExitStack() as hooks:
        for part in module.modules():
            if symbols and isinstance(part, nn.Embedding):
                hooks.enter_context(_removed(part.register_forward_hook(lambda _, __, out: read(out))))
            if _is_relu(part) and part not in within:
                hooks.enter_context(_removed(part.register_forward_hook(lambda _, __, out: states.append(out[0]))))
        start = torch.zeros(x.shape[0], module.state_size, device=x.device)
        every, _ = module(x if symbols else read(x), lengths, start)
        at = (lengths - 1)[:, None, None].expand(-1, 1, every.shape[2])
        logits = every.gather(1, at).squeeze(1)
        (gradient,) = torch.autograd.grad((logits * weights).sum(), leaf[0])
    if symbols:  # [T, B, H], as the stack reads it
        gradient = (gradient * leaf[0]).sum(2).transpose(0, 1)
    off = [(y.detach() <= 0).float() for y in states]
    share = torch.cat(off, 2).mean(2).transpose(0, 1) if off else torch.zeros_like(every[..., 0]).detach()
    return gradient.detach(), logits.detach(), share


def _is_relu(part: nn.Module) -> bool:
    """Return whether what a layer answers are relu neurons, of which some are at 0."""
    cell = part.ahead if isinstance(part, Bidirectional) else part
    return isinstance(cell, Independent) and cell.activation == "relu"


def _traced(run: Callable[..., Any], *example: Tensor) -> torch.fx.GraphModule:
    """Return the operations of `run`, forward and backward, at a B and a T that stay free."""
    shapes = ShapeEnv()
    mode = FakeTensorMode(shape_env=shapes, allow_non_fake_inputs=True)
    given = []
    for tensor, axes in zip(example, INPUTS.values(), strict=True):
        sizes = [DimDynamic.DYNAMIC if i < len(axes) else DimDynamic.STATIC for i in range(tensor.dim())]
        given.append(mode.from_tensor(tensor, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes)))
    with mode:
        traced = make_fx(run, decomposition_table=BACKWARDS, _allow_non_fake_inputs=True)(*given)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    traced.eval()
    return traced


@contextlib.contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def to_onnx(module: StateNet, x: Tensor, lengths: Tensor) -> onnx.ModelProto:
    """Return `explain.onnx` of a folded module; the example's B and T stay free, and must be above 1.

    Raises GraphError where the module has cells whose gradient is no op of ours, or PyTorch cannot export it.
    """
    known = Independent | GatedCell | Bidirectional
    others = sorted({cell.name for cell in module.modules() if isinstance(cell, Cell) and not isinstance(cell, known)})
    if others:
        raise GraphError(f"no explanation of a network of {others[0]}: expected cells whose gradient is a diagonal recurrence")
    if module.cell in LAYERS:
        raise GraphError(f"no explanation of {module.cell}: expected a network that goes from step to step, got one that looks at pictures")
    op.register()
    weights = torch.ones(x.shape[0], module.classes)

    def run(x: Tensor, lengths: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return explanation(module, x, lengths, weights)

    frozen = [(p, p.requires_grad) for p in module.parameters()]
    for p, _ in frozen:
        p.requires_grad_(False)
    try:
        with graph.quiet():
            traced = _traced(run, x, lengths, weights)
        free = [dict.fromkeys(range(len(axes)), Dim.DYNAMIC) for axes in INPUTS.values()]
        made = graph.traced(traced, (x, lengths, weights), list(INPUTS), list(OUTPUTS), free, "the explanation")
    finally:
        for p, required in frozen:
            p.requires_grad_(required)
    del made.graph.value_info[:]
    for values, axes in ((made.graph.input, INPUTS), (made.graph.output, OUTPUTS)):
        for value in values:
            for dim, letter in zip(value.type.tensor_type.shape.dim, axes[value.name], strict=False):
                dim.dim_param = letter
    graph.strip(made.graph)
    graph.append_functions(made)
    onnx.checker.check_model(made, full_check=True)
    return made


def borrow(explain: onnx.ModelProto, model: bytes) -> onnx.ModelProto:
    """Return the explanation with its large weights read from model.onnx, beside which it lies, wherever the same bytes stand there.

    ONNX calls it external data: the name of a file, where in it, and how long. model: the bytes of model.onnx.
    """
    lent = onnx.ModelProto()
    lent.CopyFrom(explain)
    for weight in lent.graph.initializer:
        data = weight.raw_data
        if len(data) < LENT or (at := model.find(data)) < 0:
            continue
        onnx.external_data_helper.set_external_data(weight, GRAPH, at, len(data))
        weight.ClearField("raw_data")
    return lent


def largest_error(explain: Path, module: StateNet, sample: Sample, seed: int = 0) -> float:
    """Return the largest |ONNX Runtime - PyTorch| in an output, of 1 or the largest number there if that is more; NaN where one has NaN.

    explain: the file, where it will be read.
    """
    rng, worst = np.random.default_rng(seed), 0.0
    session = ort.InferenceSession(explain, providers=["CPUExecutionProvider"])
    for B, T in CASES:
        x, lengths = sample(rng, B, T), rng.integers(1, T + 1, B)
        lengths[rng.integers(B)] = T
        weights = rng.normal(size=(B, module.classes)).astype(np.float32)
        got = session.run(list(OUTPUTS), {"x": x, "lengths": lengths, "weights": weights})
        want = explanation(module, torch.from_numpy(x), torch.from_numpy(lengths), torch.from_numpy(weights))
        errors = [np.abs(g - w.numpy()).max() / max(1.0, float(w.abs().max())) for g, w in zip(got, want, strict=True)]
        worst = float(np.max([worst, *errors]))  # np.max keeps a NaN
    return worst
