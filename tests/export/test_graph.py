"""What is in the exported file, and what is refused."""

import getpass
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import to_graph
from tiny import ACTIVATIONS, STATE, Forgetful, K, Stateless, Tiny, Unrolled, answer, meta

from indrnn.export import graph, op
from indrnn.export.bundle import Part
from indrnn.export.errors import GraphError
from indrnn.export.manifest import parts
from indrnn.kernels.runtime import ort


def loops(function: onnx.FunctionProto) -> int:
    def count(nodes: list[onnx.NodeProto]) -> int:
        inner = [a.g for n in nodes for a in n.attribute if a.HasField("g")]
        return sum(n.op_type == "Loop" for n in nodes) + sum(count(list(g.node)) for g in inner)

    return count(list(function.node))


def test_nodes_carry_the_op_and_functions_carry_its_loop(exported: onnx.ModelProto) -> None:
    nodes = graph.recurrent_nodes(exported)
    assert [graph.attributes(n)["activation"] for n in nodes] == list(ACTIVATIONS)
    assert all(len(n.input) == 4 and all(n.input) for n in nodes)
    assert sorted(n.overload for n in nodes) == sorted(f.overload for f in exported.functions) == ["relu_forward", "tanh_forward"]
    assert all(loops(f) == 2 for f in exported.functions)
    assert not [n.op_type for n in exported.graph.node if n.op_type in ("Loop", "Scan")]


def test_the_example_leaves_no_trace(module: Tiny, exported: onnx.ModelProto) -> None:
    """Another batch and length to export with, and a second export of the same weights, give the same file."""
    assert graph.serialize(to_graph(module, B=3, T=11)) == graph.serialize(exported)


def test_file_tells_nothing_of_the_machine(exported: onnx.ModelProto) -> None:
    data = graph.serialize(exported)
    root = Path(__file__).parents[2]
    for word in (str(root), str(Path.home()), ".py", "site-packages", "stack_trace", f"/{getpass.getuser()}/"):
        assert word.encode() not in data, word


def test_axes_are_free_and_named(exported: onnx.ModelProto) -> None:
    values = (*exported.graph.input, *exported.graph.output)
    shapes = {v.name: tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    assert not exported.graph.value_info, "the exporter has other names for them"
    assert shapes == {
        "x": ("B", "T"),
        "lengths": ("B",),
        "state": ("B", STATE),
        "logits": ("B", "T", K),
        "state_out": ("B", STATE),
    }


def test_checker_takes_the_file_and_weights_are_in_it(exported: onnx.ModelProto) -> None:
    op.register()
    again = onnx.load_from_string(graph.serialize(exported))
    onnx.checker.check_model(again, full_check=True)
    assert all(w.data_location == onnx.TensorProto.DEFAULT for w in again.graph.initializer)
    assert {i.domain: i.version for i in again.opset_import} == {"": 18, "ai.indrnn": 1}


@pytest.mark.parametrize("T", [1, 2, 53])
def test_graph_answers_what_the_specification_says(module: Tiny, exported: onnx.ModelProto, T: int) -> None:
    """Against NumPy and model/cells/reference.py: torch, which wrote the graph, has no say."""
    x = np.random.default_rng(T).integers(0, K, (1, T))
    session = ort.InferenceSession(graph.serialize(exported), providers=["CPUExecutionProvider"])
    logits, state = session.run(None, {"x": x, "lengths": np.array([T]), "state": np.zeros((1, STATE), np.float32)})
    want = answer(module, x[0])
    np.testing.assert_allclose(logits[0], want, atol=1e-5)
    np.testing.assert_allclose(state[0, -K:], want[-1], atol=1e-5)


def test_an_axis_of_one_is_refused_as_example(module: Tiny) -> None:
    with pytest.raises(GraphError, match="above 1"):
        to_graph(module, B=1)


def test_a_time_loop_in_python_is_refused() -> None:
    with pytest.raises(GraphError, match="inferred a static shape of 6"):
        to_graph(Unrolled())


def test_a_module_without_the_op_is_refused() -> None:
    with pytest.raises(GraphError, match="expected IndRNN nodes, got none"):
        to_graph(Stateless())


def changed(module: Tiny, i: int, **update: object) -> list[Part]:
    state = list(parts(meta(module)))
    state[i] = state[i].model_copy(update=update)
    return state


def test_recurrence_as_trained_is_taken(module: Tiny, exported: onnx.ModelProto) -> None:
    graph.check_recurrence(exported, parts(meta(module)))


def test_other_recurrence_is_refused(module: Tiny, exported: onnx.ModelProto) -> None:
    u = tuple(module.u[1].tolist())
    with pytest.raises(GraphError, match=r"node 1, neuron 0 of part hidden at 4: expected the trained U, [-0-9.]+, got"):
        graph.check_recurrence(exported, changed(module, 1, u=(u[0] + 1e-6, *u[1:])))
    with pytest.raises(GraphError, match=r"node 0, neuron 0 .*: expected activation sigmoid, got relu"):
        graph.check_recurrence(exported, changed(module, 0, activation="sigmoid"))
    with pytest.raises(GraphError, match=r"for 4 neurons with a recurrent weight, got 8"):
        graph.check_recurrence(exported, changed(module, 1, u=None))
    more = changed(module, 2, activation="relu", u=(0.5,) * K)
    with pytest.raises(GraphError, match=r"for 13 neurons with a recurrent weight, got 8"):
        graph.check_recurrence(exported, more)


def test_nodes_and_parts_need_not_be_cut_alike(module: Tiny, exported: onnx.ModelProto) -> None:
    first, second, last = parts(meta(module))
    halves = [first.model_copy(update={"offset": i, "size": 2, "u": (first.u or ())[i : i + 2]}) for i in (0, 2)]
    graph.check_recurrence(exported, [*halves, second, last])


def test_a_u_that_is_computed_is_refused(module: Tiny, exported: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(exported)
    graph.recurrent_nodes(model)[0].input[1] = "scaled_u"
    with pytest.raises(GraphError, match=r"node 0.*got the computed value 'scaled_u'"):
        graph.check_recurrence(model, parts(meta(module)))


def test_forgotten_u_is_refused() -> None:
    module = Forgetful()
    with pytest.raises(GraphError, match="node 1, neuron 0 of part hidden at 4: "):
        graph.check_recurrence(to_graph(module), parts(meta(module)))
