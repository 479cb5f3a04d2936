"""Any PyTorch module with layers or cells of ours as one ONNX file, which `indrnn adopt` makes a bundle of.

Neither of PyTorch's exporters knows the recurrence: `indrnn.export.to_onnx(module, args)` does, and gives the file its portable body.
"""

import inspect
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from indrnn.export import graph, lowering, op
from indrnn.export.bundle import PARITY_BOUND
from indrnn.export.errors import GraphError
from indrnn.kernels.runtime import ort
from indrnn.model.cells.cell import numbered

Array = NDArray[np.generic]


def to_onnx(
    module: nn.Module, args: Sequence[Tensor], *, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
) -> onnx.ModelProto:
    """Return the module's graph at opset 18, compared with the module at sizes other than the example's.

    args: an example of what `forward` takes, tensors alone; states that are to be carried come in and go out. An axis of the first stays
    free if the module runs at another size of it, alone (T) or together with axes of others (B); both must be above 1 in the example,
    because PyTorch's exporter takes an axis of 1 for a constant. inputs: names, by default those of `forward`. outputs: by default NAME_out
    for a last output that has the shape of the last input, and so on backwards, as states have; the others y, y_1, and so on.

    The module is exported in evaluation mode, and left as it was. Raises GraphError when PyTorch cannot export it, where its numbers are
    neither float32 nor float64, and when the graph cannot be run at another size or answers it differently, as one does that has a time
    loop in Python.
    """
    args = tuple(args)
    _check_types(module, args)
    names = list(inputs) if inputs is not None else _parameters(module, len(args))
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            flat = _flat(module(*args))
            axes = free_axes(module, args)
        given = list(outputs) if outputs is not None else _names(names, args, flat)
        if len(names) != len(args) or len(given) != len(flat):
            raise GraphError(f"expected {len(args)} names of inputs and {len(flat)} of outputs, got {names} and {given}")
        made = _export(module, args, axes, names, given)
        _free_outputs(made, module, args, axes)
        _compare(made, module, args, axes, names, given)
    finally:
        module.train(training)
    return made


def _check_types(module: nn.Module, args: Sequence[Tensor]) -> None:
    """Raise GraphError for numbers that the graphs of these layers do not have: on float16 the runtime ends the process."""
    floats = {str(t.dtype).removeprefix("torch.") for t in (*module.parameters(), *module.buffers(), *args) if t.is_floating_point()}
    if wrong := sorted(floats - {"float32", "float64"}):
        raise GraphError(f"expected weights and inputs of float32 or float64, got {', '.join(wrong)} (module.float() converts)")


def _parameters(module: nn.Module, count: int) -> list[str]:
    names = list(inspect.signature(module.forward).parameters)[:count]
    return names if len(names) == count else [*names, *(f"input_{i}" for i in range(len(names), count))]


def _flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, tuple | list):
        return [tensor for part in output for tensor in _flat(part)]
    raise GraphError(f"expected the module to return tensors, alone or in tuples, got {type(output).__name__}")


def _names(inputs: Sequence[str], args: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[str]:
    """Return names of outputs: the last that have the shapes of the last inputs, but the first, are those states afterwards."""
    states = 0
    while states < min(len(args) - 1, len(outputs) - 1) and args[-1 - states].shape == outputs[-1 - states].shape:
        states += 1
    plain = len(outputs) - states
    return ["y" if i == 0 else f"y_{i}" for i in range(plain)] + [f"{name}_out" for name in inputs[len(inputs) - states :]]


def free_axes(module: nn.Module, args: Sequence[Tensor]) -> list[dict[int, str]]:
    """Return which axes of each argument may have another size, and by which letter: found by running the module at such sizes.

    B is an axis of the first argument that changes together with one of another, T one that changes alone, or the first two that do.
    """
    found: list[dict[int, str]] = [{} for _ in args]
    letters = iter("TUVW")
    for axis, size in enumerate(args[0].shape):
        choices = [[None, *(i for i, n in enumerate(a.shape) if n == size and i not in found[k + 1])] for k, a in enumerate(args[1:])]
        for chosen in sorted(itertools.product(*choices), key=lambda one: sum(i is not None for i in one)):
            together = [axis, *chosen]
            if _runs(module, [a if i is None else _longer(a, i) for a, i in zip(args, together, strict=True)]):
                shared = any(i is not None for i in chosen) and not any("B" in one.values() for one in found)
                letter = "B" if shared or (len(args) == 1 and axis == 0) else next(letters)
                for one, i in zip(found, together, strict=True):
                    one.update({} if i is None else {i: letter})
                break
    return found


def _runs(module: nn.Module, args: Sequence[Tensor]) -> bool:
    try:
        _flat(module(*args))
    except Exception:  # whatever a module says of a size it does not take
        return False
    return True


def _longer(a: Tensor, axis: int) -> Tensor:
    return torch.cat([a, a.narrow(axis, 0, 1)], axis)


def _export(
    module: nn.Module, args: tuple[Tensor, ...], axes: Sequence[dict[int, str]], names: list[str], outputs: list[str]
) -> onnx.ModelProto:
    small = [(n, i) for n, a, free in zip(names, args, axes, strict=True) for i in free if a.shape[i] < 2]
    if small:
        raise GraphError(f"{small[0][0]}: expected an example of 2 or more along its axis {small[0][1]}, got {1}")
    op.register()
    lowering.register()
    with numbered(module) as cells:
        made = graph.traced(module, args, names, outputs, [dict.fromkeys(free, Dim.DYNAMIC) for free in axes])
    _name_axes(made, axes)
    del made.graph.value_info[:]
    graph.strip(made.graph)
    made = lowering.lower(made, cells)
    graph.append_functions(made)
    onnx.checker.check_model(made, full_check=True)
    return made


def _name_axes(made: onnx.ModelProto, axes: Sequence[dict[int, str]]) -> None:
    """Call free axes by their letters, in inputs and outputs."""
    renamed: dict[str, str] = {}
    for value, free in zip(made.graph.input, axes, strict=True):
        for i, letter in free.items():
            renamed[value.type.tensor_type.shape.dim[i].dim_param] = letter
    for value in (*made.graph.input, *made.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in renamed:
                dim.dim_param = renamed[dim.dim_param]


def _free_outputs(made: onnx.ModelProto, module: nn.Module, args: Sequence[Tensor], axes: Sequence[dict[int, str]]) -> None:
    """Leave those sizes of the outputs open that change with the inputs': PyTorch states an LSTM's at the example's length."""
    with torch.no_grad():
        usual = _flat(module(*args))
        for letter in sorted({letter for free in axes for letter in free.values()}):
            other = _flat(module(*[_varied(a, free, {letter: 1}, 0) for a, free in zip(args, axes, strict=True)]))
            for value, one, another in zip(made.graph.output, usual, other, strict=True):
                dims = value.type.tensor_type.shape.dim
                for dim, n, m in zip(dims, one.shape, another.shape, strict=True) if len(dims) == one.ndim == another.ndim else ():
                    if n != m and not dim.dim_param:
                        dim.dim_param = letter if m == n + 1 else f"{value.name}_{letter}"


def _compare(
    made: onnx.ModelProto,
    module: nn.Module,
    args: Sequence[Tensor],
    axes: Sequence[dict[int, str]],
    names: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Raise GraphError unless the graph answers what the module does, at the example's sizes and at others."""
    try:
        session = ort.InferenceSession(graph.serialize(made), providers=["CPUExecutionProvider"])
    except Exception as failed:  # the runtime's exceptions have no common base of their own
        raise GraphError(f"the runtime does not take the graph: {_reason(failed)}") from failed
    taken = {i.name for i in session.get_inputs()}
    for more in ({}, {"B": 1, "T": 5}, {"B": 3, "T": 1}):
        varied = [_varied(a, free, more, k) for k, (a, free) in enumerate(zip(args, axes, strict=True))]
        with torch.no_grad():
            want = _flat(module(*varied))
        try:
            got = session.run(list(outputs), {n: v.numpy() for n, v in zip(names, varied, strict=True) if n in taken})
        except Exception as failed:
            said = f"at {', '.join(str(list(v.shape)) for v in varied)} the graph cannot be run"
            raise GraphError(f"{said}; PyTorch has exported it at the example's sizes: {_reason(failed)}") from failed
        for name, a, b in zip(outputs, got, want, strict=True):
            error = _difference(a, b.numpy())
            if not error <= PARITY_BOUND:
                said = f"{name}: at {', '.join(str(list(v.shape)) for v in varied)} PyTorch and the graph differ by {error:.2g}"
                raise GraphError(f"{said}; expected at most {PARITY_BOUND:g} (a time loop in Python is exported at the example's length)")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[-300:]


def _varied(a: Tensor, free: dict[int, str], more: dict[str, int], seed: int) -> Tensor:
    """Return the example with other sizes of its free axes, made of the numbers that it has: symbols stay within their alphabet."""
    shape = tuple(n + more.get(free.get(i, ""), 0) for i, n in enumerate(a.shape))
    if shape == tuple(a.shape):
        return a
    index = torch.randint(0, max(a.numel(), 1), shape, generator=torch.Generator().manual_seed(seed))
    return a.reshape(-1)[index]


def _difference(got: Array, want: Array) -> float:
    if got.shape != want.shape:
        return float("inf")
    if not want.size:
        return 0.0
    largest = max(1.0, float(np.abs(want.astype(np.float64)).max()))
    return float(np.abs(got.astype(np.float64) - want.astype(np.float64)).max()) / largest
