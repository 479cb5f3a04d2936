"""From a PyTorch module to an ONNX model whose recurrence is `ai.indrnn::IndRNN`, portable body included, or another cell's operators."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnxscript
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim

import indrnn.model.cells.diagonal.recurrence  # noqa: F401  # registers torch.ops.indrnn.diagonal, and recurrence with it
from indrnn.export import lowering, op
from indrnn.export.bundle import DIAGONAL_TYPE, OP_DOMAIN, OP_TYPE, OP_VERSION, Part
from indrnn.export.errors import GraphError
from indrnn.model.cells.cell import numbered

INPUTS = {"x": ("B", "T"), "lengths": ("B",), "state": ("B",)}  # leading axes, free; those after them are the model's own
OUTPUTS = {"logits": ("B", "T"), "state_out": ("B",)}
AT_LENGTH = "lengths: expected 0 to T in each row"  # the name of nodes that fail otherwise, and all that a runtime says of where it failed


def to_onnx(module: nn.Module, x: Tensor, lengths: Tensor, state: Tensor) -> onnx.ModelProto:
    """Return the module's graph, one self-contained model at opset 18, equal bytes for equal weights.

    module: forward(x [B, T, ...], lengths [B] int64, state [B, N]) -> logits [B, T, K], state [B, N], in evaluation mode. The example's B
    and T stay free, and must be above 1, because the exporter takes an axis of 1 for a constant. Raises GraphError when PyTorch
    cannot export the module, when an axis is not free, as with a time loop in Python, or when there is no recurrence.
    """
    if min(x.shape[:2]) < 2:
        raise GraphError(f"expected an example of B and T above 1, got {tuple(x.shape[:2])}")
    op.register()
    lowering.register()
    free = [dict.fromkeys(range(len(axes)), Dim.DYNAMIC) for axes in INPUTS.values()]
    with numbered(module) as cells:
        graph = traced(module, (x, lengths, state), list(INPUTS), list(OUTPUTS), free)
    _name_axes(graph)
    strip(graph.graph)
    _name_what_reads_at_lengths(graph.graph)
    if not cells and not recurrent_nodes(graph) and getattr(module, "streams", True):
        raise GraphError("expected IndRNN nodes, got none: the recurrence must go through model.recurrence")
    graph = lowering.lower(graph, cells)
    append_functions(graph)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def traced(
    module: nn.Module,
    args: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: Sequence[Mapping[int, object]],
    what: str = "the module",
) -> onnx.ModelProto:
    """Return what PyTorch's exporter makes of a module and an example; free: the axes of each input that are not fixed.

    Raises GraphError.
    """
    try:
        with quiet():
            program = torch.onnx.export(
                module,
                args,
                dynamo=True,
                opset_version=op.OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=tuple(free),
                custom_translation_table=TRANSLATIONS,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise GraphError(f"PyTorch cannot export {what}: {reason[:500]}") from error
    if program is None:
        raise GraphError("the exporter returned nothing")
    return program.model_proto


def serialize(graph: onnx.ModelProto) -> bytes:
    """Return the model.onnx file, weights included."""
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def same(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Return whether two graphs have the same weights, inputs, outputs and nodes.

    Names of nodes, the order of attributes and the portable bodies of our ops may differ: they are those of the release that exported.
    """
    return _bare(one) == _bare(other)


def _bare(model: onnx.ModelProto) -> tuple[object, ...]:
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    for node in graph.node:
        node.ClearField("name")
        _sort_attributes(node)
    return tuple(list(items) for items in (graph.initializer, graph.input, graph.output, graph.node))


def _sort_attributes(node: onnx.NodeProto) -> None:
    """Put a node's attributes in the order of their names: the exporter's is another in each process."""
    in_order = sorted(node.attribute, key=lambda a: a.name)
    copies = [onnx.AttributeProto.FromString(a.SerializeToString(deterministic=True)) for a in in_order]
    del node.attribute[:]
    node.attribute.extend(copies)


def recurrent_nodes(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the graph's IndRNN nodes in the order they run."""
    return [n for n in graph.graph.node if (n.domain, n.op_type) == (OP_DOMAIN, OP_TYPE)]


def check_recurrence(graph: onnx.ModelProto, parts: Sequence[Part], streams: bool = True) -> None:
    """Raises GraphError unless the graph's IndRNN nodes, in order, run the neurons of the parts that have a recurrent weight, forwards.

    streams: whether the network reads sequences in pieces; one that reads whole ones may run them backwards too.

    Several nodes may share a part. PyTorch and ONNX Runtime agree just as well on a model that forgets its U, and so do all splits of
    a sequence: only a comparison with what was trained finds it.
    """
    weights = {w.name: w for w in graph.graph.initializer}
    expected = [(p, i) for p in parts for i in range(len(p.u or ()))]
    done = 0
    for k, node in enumerate(recurrent_nodes(graph)):
        weight = weights.get(node.input[1])
        if weight is None:
            raise GraphError(f"IndRNN node {k}: expected U to be a weight of the file, got the computed value {node.input[1]!r}")
        u = numpy_helper.to_array(weight)
        told = attributes(node)
        activation, direction = told["activation"], told["direction"]
        if direction != "forward" and streams:  # what comes later would change earlier answers, and no split of a sequence give the same
            raise GraphError(f"IndRNN node {k}: expected the direction forward, got {direction}: a stream has no end to begin at")
        for value, (part, i) in zip(u, expected[done:], strict=False):
            title = f"IndRNN node {k}, neuron {i} of part {part.role} at {part.offset}"
            if activation != part.activation:
                raise GraphError(f"{title}: expected activation {part.activation}, got {activation}")
            if part.u is None or value != np.float32(part.u[i]):
                raise GraphError(f"{title}: expected the trained U, {part.u and part.u[i]}, got {value}")
        done += len(u)
    if done != len(expected):
        raise GraphError(f"expected IndRNN nodes for {len(expected)} neurons with a recurrent weight, got {done}")


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values, texts decoded."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def _translate(x: Any, u: Any, lens: Any, h0: Any, activation: str, alpha: float, direction: str) -> Any:
    """torch.ops.indrnn.recurrence as one opaque node; a function with a Loop would be inlined by the exporter at opset 18."""
    domain = onnxscript.values.Opset(OP_DOMAIN, OP_VERSION)
    return domain.IndRNN(x, u, lens, h0, activation=activation, alpha=alpha, direction=direction, _outputs=2)


def _translate_diagonal(a: Any, b: Any, lens: Any, h0: Any, lo: float | None, hi: float | None, direction: str) -> Any:
    """torch.ops.indrnn.diagonal as one opaque node; a bound that is not there is no attribute."""
    domain = onnxscript.values.Opset(OP_DOMAIN, OP_VERSION)
    bounds = {name: value for name, value in (("lo", lo), ("hi", hi)) if value is not None}
    return domain.DiagonalRecurrence(a, b, lens, h0, **bounds, direction=direction, _outputs=2)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.indrnn.recurrence.default: _translate,
    torch.ops.indrnn.diagonal.default: _translate_diagonal,
    torch.ops.indrnn.cell.default: lowering.translate,
}
"""What the exporter makes of our operators."""


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what the exporter says about itself: torchvision's absence, and a deprecation inside torch's own copy of a tree."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _name_axes(graph: onnx.ModelProto) -> None:
    """Calls the free axes B and T; the shapes in between, which name them otherwise, are dropped (runtimes infer them)."""
    del graph.graph.value_info[:]
    for values, axes in ((graph.graph.input, INPUTS), (graph.graph.output, OUTPUTS)):
        if [v.name for v in values] != list(axes):
            raise GraphError(f"expected {list(axes)}, got {[v.name for v in values]}")
        for value in values:
            dims = value.type.tensor_type.shape.dim
            for i, letter in enumerate(axes[value.name]):
                if not dims[i].dim_param:
                    raise GraphError(f"{value.name}: expected axis {i} to be free, got {dims[i].dim_value}")
                dims[i].dim_param = letter
            own = [d.dim_param for d in dims[len(axes[value.name]) :] if not d.HasField("dim_value")]
            if own:
                raise GraphError(f"{value.name}: expected only {axes[value.name]} to be free, got {own} too")


def strip(graph: onnx.GraphProto) -> None:
    """Removes the exporter's notes: they hold stack traces with the paths of the machine that exported."""
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                strip(inner)


def _name_what_reads_at_lengths(graph: onnx.GraphProto) -> None:
    """Names the nodes that pick what stands at each row's length: of a length above T a runtime says the node's name, and a bare index."""
    follows, count = {"lengths"}, 0
    for node in graph.node:  # in the order in which they run
        if node.op_type in ("GatherElements", "GatherND") and node.input[1] in follows:
            count += 1
            node.name = AT_LENGTH if count == 1 else f"{AT_LENGTH} ({count})"
        elif node.op_type in ("Unsqueeze", "Expand", "Reshape", "Cast") and node.input[0] in follows:
            follows.update(node.output)


def append_functions(graph: onnx.ModelProto) -> None:
    """Points each node of our ops at the portable body for its attributes and adds the bodies that are used."""
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    graph.ir_version = max(graph.ir_version, op.IR_VERSION)
    for node in graph.graph.node:
        _sort_attributes(node)
    variants = set()
    for node in recurrent_nodes(graph):
        a = attributes(node)
        node.overload = op.overload(a["activation"], a["direction"])
        variants.add((a["activation"], a["direction"]))
    for variant in sorted(variants):
        graph.functions.append(op.function(*variant))
    diagonals = set()
    for node in (n for n in graph.graph.node if (n.domain, n.op_type) == (OP_DOMAIN, DIAGONAL_TYPE)):
        a = attributes(node)
        bounds, direction = op.bounds_of(tuple(a)), a.get("direction", op.DIRECTIONS[0])
        node.overload = op.diagonal_overload(bounds, direction)
        diagonals.add((bounds, direction))
    for variant in sorted(diagonals):
        graph.functions.append(op.diagonal_function(*variant))
