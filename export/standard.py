"""Recurrences in ONNX's own words: nodes of ours whose decays are all positive become `LinearAttention` of opset 27.

Gated linear attention of heads of one number is h_t = exp(g_t) h_{t-1} + k_t v_t, read out by q_t h_t: with g = log a, v = b and k = q = 1
the diagonal recurrence, for a above 0 and without bounds. A weight of 0 or below has no logarithm, and a bound no place there: such nodes
stay what they are, with their portable bodies. The decay of a node is looked at, not believed: it has to come out of operators that give
nothing but positive numbers, or from weights that are.
"""

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.inliner
from onnx import numpy_helper

from indrnn.export import op
from indrnn.export.bundle import DIAGONAL_TYPE, OP_DOMAIN, OP_TYPE
from indrnn.export.errors import GraphError

OPSET = 27  # the first with LinearAttention (onnx 1.22)
NAME = "LinearAttention"

# One step more than there is, of a = 1 and b = 0: ONNX Runtime 1.32 cannot run the operator over no steps. Past a row's length the same
# numbers keep the state where it is. 1e-38: a float32 that a sigmoid has made 0 of has a logarithm then.
_FUNCTION = """
<opset_import: ["": {opset}], domain: "{domain}">
{name} (A, B, lengths, h) => (Y, Y_h) {{
    a_shape = Shape (B)
    a_given = Expand (A, a_shape)
    T_1d = Shape <start = 0, end = 1> (B)
    T = Squeeze (T_1d)
    zero_int = Constant <value_int = 0> ()
    one_int = Constant <value_int = 1> ()
    zero = Constant <value_float = 0.0> ()
    one = Constant <value_float = 1.0> ()
    least = Constant <value_float = 1.2e-38> ()
    first_axis = Constant <value_ints = [0]> ()
    around_time = Constant <value_ints = [1, 2]> ()
    around_rows = Constant <value_ints = [0, 2]> ()
    around_state = Constant <value_ints = [2, 3]> ()
    count = Range (zero_int, T, one_int)
    steps = Unsqueeze (count, around_time)
    ends = Unsqueeze (lengths, around_rows)
    live = Less (steps, ends)
    a_live = Where (live, a_given, one)
    b_live = Where (live, B, zero)
    row = Unsqueeze (h, first_axis)
    row_shape = Shape (row)
    ones_row = ConstantOfShape <value = float[1] {{1.0}}> (row_shape)
    zeros_row = ConstantOfShape <value = float[1] {{0.0}}> (row_shape)
    a_all = Concat <axis = 0> (a_live, ones_row)
    b_all = Concat <axis = 0> (b_live, zeros_row)
    a_some = Max (a_all, least)
    log_a = Log (a_some)
    decay = Transpose <perm = [1, 0, 2]> (log_a)
    value = Transpose <perm = [1, 0, 2]> (b_all)
    value_shape = Shape (value)
    ones = ConstantOfShape <value = float[1] {{1.0}}> (value_shape)
    past = Unsqueeze (h, around_state)
    read, present = LinearAttention <q_num_heads = {H}, kv_num_heads = {H}, update_rule = "gated", scale = 1.0>
        (ones, ones, value, past, decay)
    Y_h = Squeeze (present, around_state)
    in_time = Transpose <perm = [1, 0, 2]> (read)
    Y_all = Slice (in_time, first_axis, T_1d, first_axis)
    Y = Where (live, Y_all, zero)
}}
"""


def to_linear_attention(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Return the model at opset 27 with its recurrences of positive decays as `LinearAttention`, and how many of ours are left.

    model: as export/graph.py makes it, at opset 18. Raises GraphError where there is no recurrence of positive decays.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    made, left = _Sources(result.graph), 0
    names: list[tuple[str, str]] = []
    widths = _widths(model)
    for node in result.graph.node:
        if node.domain != OP_DOMAIN or node.op_type not in (DIAGONAL_TYPE, OP_TYPE):
            continue
        if not _fits(node) or not made.positive(_decay(node)):
            left += 1
            continue
        name = f"Linear_{len(names)}"
        text = _FUNCTION.format(opset=OPSET, domain=OP_DOMAIN, name=name, H=widths[node.output[1]])
        result.functions.append(onnx.parser.parse_function(text))
        names.append((OP_DOMAIN, name))
        if node.op_type == OP_TYPE:  # x, u
            node.input[0], node.input[1] = node.input[1], node.input[0]
        node.op_type, node.overload = name, ""
        del node.attribute[:]
    if not names:
        raise GraphError("expected a recurrence whose decays are all positive and whose states have no bounds, got none")
    for opset in (*result.opset_import, *(o for f in result.functions for o in f.opset_import)):
        if not opset.domain:
            opset.version = OPSET
    result = onnx.inliner.inline_selected_functions(result, names)
    _drop_unused(result, left)
    onnx.checker.check_model(result, full_check=True)
    return result, left


def opset(model: onnx.ModelProto) -> int:
    """Return the opset of the standard operators of a model."""
    return next(int(o.version) for o in model.opset_import if not o.domain)


def _fits(node: onnx.NodeProto) -> bool:
    """Return whether a node runs forwards, linearly and without bounds."""
    told = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if told.get("direction", b"forward") != b"forward":
        return False
    return told.get("activation") == b"identity" if node.op_type == OP_TYPE else op.bounds_of(tuple(told)) == "free"


def _decay(node: onnx.NodeProto) -> str:
    return str(node.input[0] if node.op_type == DIAGONAL_TYPE else node.input[1])


def _widths(model: onnx.ModelProto) -> Mapping[str, int]:
    """Return H of each recurrence by the name of its state after it, [B, H]: what its state before it is cut to."""
    found = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {v.name: v.type.tensor_type.shape.dim for v in (*found.graph.value_info, *found.graph.input, *found.graph.output)}
    widths: dict[str, int] = {}
    for node in model.graph.node:
        if node.domain == OP_DOMAIN:
            dims = shapes.get(node.input[3])
            if dims is None or len(dims) != 2 or not dims[1].HasField("dim_value"):
                raise GraphError(f"{node.op_type}: expected a state of a known width, got {node.input[3]!r}")
            widths[node.output[1]] = dims[1].dim_value
    return widths


def _drop_unused(model: onnx.ModelProto, left: int) -> None:
    """Leave out the bodies that no node needs any more, and the domain with them."""
    used = {(n.domain, n.op_type, n.overload) for n in model.graph.node}
    kept = [f for f in model.functions if (f.domain, f.name, f.overload) in used]
    del model.functions[:]
    model.functions.extend(kept)
    if not left:
        standard = [o for o in model.opset_import if o.domain != OP_DOMAIN]
        del model.opset_import[:]
        model.opset_import.extend(standard)


class _Sources:
    """The nodes of a graph by what they give, to say which values are above 0."""

    SURE = ("Sigmoid", "Exp", "Softplus")
    THROUGH = ("Identity", "Expand", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Cast", "Slice", "Gather")  # of their first input
    TOGETHER = ("Add", "Mul", "Concat", "Max", "Div")

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.by_output = {name: node for node in graph.node for name in node.output}
        self.weights = {w.name: w for w in graph.initializer}

    def positive(self, name: str) -> bool:
        """Return whether all numbers of a value are above 0, whatever comes in."""
        if name in self.weights:
            return bool((numpy_helper.to_array(self.weights[name]) > 0).all())
        node = self.by_output.get(name)
        if node is None or node.domain:
            return False
        if node.op_type == "Constant":
            value = onnx.helper.get_node_attr_value(node, node.attribute[0].name)
            array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
            return bool((array > 0).all())
        if node.op_type in self.SURE:
            return True
        if node.op_type in self.THROUGH:
            return self.positive(node.input[0])
        return node.op_type in self.TOGETHER and all(self.positive(i) for i in node.input)
