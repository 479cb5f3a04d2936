"""Cells in an exported graph: each opaque node of PyTorch's exporter becomes the nodes of its cell's lowering (model/cells/cell.py)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxscript
from onnx import numpy_helper
from onnx.defs import OpSchema

from indrnn.export.bundle import OP_DOMAIN, OP_VERSION
from indrnn.export.errors import GraphError
from indrnn.export.op import OPSET
from indrnn.model.cells.cell import Cell, Lowering

CELL = "Cell"  # the opaque node; no file has it

_FUNCTION = """
<opset_import: ["": {opset}], domain: "{domain}">
{name} ({given}) => (Y, state_out) {{
{nodes}
}}
"""


def register() -> None:
    """Makes the opaque node known to this process's onnx; a second call does nothing."""
    if onnx.defs.has(CELL, OP_DOMAIN):
        return
    of = OpSchema.FormalParameter
    onnx.defs.register_schema(
        OpSchema(
            CELL,
            OP_DOMAIN,
            OP_VERSION,
            doc="A cell, by its number among those of the network that is being exported.",
            inputs=[of("X", "T", "[T, B, in]"), of("lengths", "tensor(int64)", "[B]"), of("state", "T", "[B, S]")],
            outputs=[of("Y", "T", "[T, B, H]"), of("state_out", "T", "[B, S]")],
            type_constraints=[("T", ["tensor(float)"], "Float tensors.")],
            attributes=[OpSchema.Attribute("number", OpSchema.AttrType.INT)],
        )
    )


def translate(x: Any, lengths: Any, state: Any, number: int, size: int) -> Any:
    """torch.ops.indrnn.cell as one opaque node."""
    return onnxscript.values.Opset(OP_DOMAIN, OP_VERSION).Cell(x, lengths, state, number=number, _outputs=2)


def lower(graph: onnx.ModelProto, cells: Sequence[Cell]) -> onnx.ModelProto:
    """Return the model with every opaque node replaced; cells: the network's, by number.

    Raises GraphError unless each of them runs, once: a network that leaves one out would forget what it is to carry.
    """
    nodes = {onnx.helper.get_node_attr_value(n, "number"): n for n in graph.graph.node if (n.domain, n.op_type) == (OP_DOMAIN, CELL)}
    if sorted(nodes) != list(range(len(cells))):
        raise GraphError(f"expected a node for each of {len(cells)} cells, got those of {sorted(nodes)}")
    names = []
    for number, cell in enumerate(cells):
        lowering = cell.lowering()
        assert lowering is not None  # `numbered` lists those that have one
        name = f"{cell.name}_{number}"
        names.append((OP_DOMAIN, name))
        _replace(graph, nodes[number], name, lowering)
    if not names:
        return graph
    graph = onnx.inliner.inline_selected_functions(graph, names)
    if not any(n.domain == OP_DOMAIN for n in graph.graph.node):  # a file of standard operators alone names no domain of ours
        standard = [o for o in graph.opset_import if o.domain != OP_DOMAIN]
        del graph.opset_import[:]
        graph.opset_import.extend(standard)
    return graph


def _replace(graph: onnx.ModelProto, node: onnx.NodeProto, name: str, lowering: Lowering) -> None:
    """Points the node at a function of the lowering's nodes, and gives it the weights."""
    given = ", ".join(("X", "lengths", "state", *lowering.weights))
    text = _FUNCTION.format(opset=OPSET, domain=OP_DOMAIN, name=name, given=given, nodes=lowering.nodes)
    try:
        function = onnx.parser.parse_function(text)
    except onnx.parser.ParseError as error:
        raise GraphError(f"the lowering of the cell {name} is no ONNX text: {' '.join(str(error).split())}") from error
    function.opset_import.append(onnx.helper.make_opsetid(OP_DOMAIN, OP_VERSION))  # of cells on an op of ours
    graph.functions.append(function)
    node.op_type = name
    del node.attribute[:]
    for own, array in lowering.weights.items():
        weight = numpy_helper.from_array(np.ascontiguousarray(array, np.float32), f"{name}.{own}")
        graph.graph.initializer.append(weight)
        node.input.append(weight.name)
