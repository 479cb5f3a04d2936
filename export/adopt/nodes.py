"""Nodes one after another, each with a name of its own: what a graph, or the body of a loop, is made of."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from indrnn.export.adopt.source import ELEMENT


class Nodes:
    """A list of nodes that grows. Bodies share the counter of names, and see the names of what is round them."""

    def __init__(self, outer: "Nodes | None" = None) -> None:
        self.nodes: list[NodeProto] = []
        self._names: count[int] = outer._names if outer else count()

    def name(self, what: str) -> str:
        """Return a name that no other node has."""
        return f"adopt/{what}_{next(self._names)}"

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output, and return the output's name."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node of several outputs, and return their names."""
        names = [self.name(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=names[0], **attributes))
        return names

    def const(self, value: NDArray[Any] | np.generic) -> str:
        """Return a constant."""
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(value)))

    def ints(self, *values: int) -> str:
        """Return whole numbers in a row."""
        return self.const(np.array(values, np.int64))

    def cast(self, value: str, dtype: str) -> str:
        """Return a tensor in another type."""
        return self.op("Cast", value, to=ELEMENT[dtype])

    def slice(self, value: str, start: int, end: int, axis: int) -> str:
        """Return value[start:end] along an axis."""
        return self.op("Slice", value, self.ints(start), self.ints(end), self.ints(axis))

    def dim(self, value: str, axis: int) -> str:
        """Return the size of an axis, [1]."""
        return self.op("Gather", self.op("Shape", value), self.ints(axis), axis=0)

    def scalar(self, value: str) -> str:
        """Return the one number of [1] as []."""
        return self.op("Squeeze", value, self.ints(0))

    def body(
        self, name: str, inputs: Sequence[tuple[str, int, Sequence[int | str | None] | None]], outputs: Sequence[tuple[str, int]]
    ) -> GraphProto:
        """Return these nodes as the body of another."""
        taken = [helper.make_tensor_value_info(n, element, shape) for n, element, shape in inputs]
        given = [helper.make_tensor_value_info(n, element, None) for n, element in outputs]
        return helper.make_graph(self.nodes, name, taken, given)

    def copy(self, graph: GraphProto, feeds: Mapping[str, str]) -> dict[str, str]:
        """Add a copy of a graph's nodes, which read the same weights; feeds: what its inputs are here. Return its outputs' names."""
        prefix = self.name("copy") + "/"
        own = set(_made(graph.node))
        renamed = {**{name: prefix + name for name in own}, **feeds}
        for node in graph.node:
            self.nodes.append(_renamed(node, renamed, prefix))
        return {v.name: renamed.get(v.name, v.name) for v in graph.output}


def _made(nodes: Sequence[NodeProto]) -> list[str]:
    """Return the names that the nodes, and the graphs within them, give to what they make, take or hold."""
    found: list[str] = []
    for node in nodes:
        found += [n for n in node.output if n]
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs) if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) else ():
                found += [*(v.name for v in graph.input), *(w.name for w in graph.initializer), *_made(graph.node)]
    return found


def _renamed(node: NodeProto, names: Mapping[str, str], prefix: str) -> NodeProto:
    made = NodeProto()
    made.CopyFrom(node)
    made.name = prefix + (node.name or node.output[0] if node.output else node.op_type)
    made.ClearField("metadata_props")
    for ends in (made.input, made.output):
        ends[:] = [names.get(n, n) for n in ends]
    for attribute in made.attribute:
        for graph in (attribute.g, *attribute.graphs) if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) else ():
            _rename_graph(graph, names, prefix)
    return made


def _rename_graph(graph: GraphProto, names: Mapping[str, str], prefix: str) -> None:
    nodes = [_renamed(n, names, prefix) for n in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.ClearField("shape")  # of the export's sizes; a Loop's number and condition have to stay scalars
    for weight in graph.initializer:
        weight.name = names.get(weight.name, weight.name)


FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
