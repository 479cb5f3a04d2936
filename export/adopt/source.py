"""The file that is adopted: read whole, and refused here where no packing of its states would help."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from indrnn.export.errors import AdoptError

OLDEST, NEWEST = 13, 18  # opsets that the nodes round a file are written in at least; what an older file is converted to
LARGE = 2**31 - 2**20  # bytes of one protobuf file; beyond, weights lie in a file beside it
KNOWN = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "ai.onnx.preview.training"}
RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64", TensorProto.BOOL: "bool",
    TensorProto.INT8: "int8", TensorProto.INT16: "int16", TensorProto.INT32: "int32", TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8", TensorProto.UINT16: "uint16", TensorProto.UINT32: "uint32",
}  # fmt: skip
ELEMENT = {name: element for element, name in DTYPES.items()}


@dataclass(frozen=True)
class Value:
    """An input or output of the file. A text in shape is a free axis: its name, or the tensor's and the axis' where it has none."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class OnnxFile:
    """A file, its weights loaded. sha256: of the file, then of those with its weights. notes: what was done to it."""

    path: Path
    model: ModelProto
    sha256: str
    opset: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    notes: tuple[str, ...] = ()


def read_source(path: Path) -> OnnxFile:
    """Read a file. Raises AdoptError in one line where it cannot be adopted whatever is told about it."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own errors have no public base
        raise AdoptError(f"{path}: expected an ONNX file, got {' '.join(str(error).split())[:120] or 'something else'}") from error
    if not model.graph.node or not model.graph.output:
        raise AdoptError(f"{path}: expected an ONNX file with nodes and outputs, got none")
    digest = hashlib.sha256(path.read_bytes())
    for beside in _load_weights(path, model):
        digest.update(beside.read_bytes())
    _check_nodes(path, model)
    inputs = tuple(_value(path, v, "input") for v in model.graph.input)
    outputs = tuple(_value(path, v, "output") for v in model.graph.output)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if not opset:
        opset = NEWEST
        model.opset_import.append(onnx.helper.make_opsetid("", NEWEST))
    notes: tuple[str, ...] = ()
    if opset < OLDEST:
        model, notes = _newer(model, opset)
        opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    return OnnxFile(path, model, digest.hexdigest(), opset, inputs, outputs, notes)


def _load_weights(path: Path, model: ModelProto) -> list[Path]:
    """Load the weights that lie beside the file, and return where they lay."""
    folder, found = path.resolve().parent, []
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        beside = (folder / location).resolve()
        if Path(location).is_absolute() or not beside.is_relative_to(folder):
            raise AdoptError(f"{tensor.name}: its weights lie at {location}, outside the file's folder: put them beside {path.name}")
        if not beside.is_file():
            raise AdoptError(f"{tensor.name}: its weights are expected in {location} beside {path.name}, and are not there")
        found.append(beside)
    try:
        onnx.load_external_data_for_model(model, str(folder))
    except Exception as error:  # a cut file, an offset beyond its end
        raise AdoptError(f"{path}: its weights cannot be read: {' '.join(str(error).split())[:160]}") from error
    return sorted(set(found))


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in _graphs(model):
        yield from graph.initializer
    for node in nodes_of(model):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    yield model.graph
    for node in nodes_of(model):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield attribute.g


def nodes_of(model: ModelProto) -> Iterator[NodeProto]:
    """Return every node, also those of functions and of graphs within nodes."""
    waiting = [*model.graph.node, *(n for f in model.functions for n in f.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            waiting += attribute.g.node if attribute.type == AttributeProto.GRAPH else []
            for graph in attribute.graphs:
                waiting += graph.node


def _check_nodes(path: Path, model: ModelProto) -> None:
    functions = {(f.domain, f.name) for f in model.functions}
    for node in nodes_of(model):
        names = {a.name for a in node.attribute}
        title = node.output[0] if node.output else node.op_type
        if node.domain not in KNOWN and (node.domain, node.op_type) not in functions:
            what = f"{node.domain}::{node.op_type}"
            raise AdoptError(f"{title}: nobody here knows the operator {what}: export it as a function of standard operators")
        if node.op_type in RANDOM and "seed" not in names:
            raise AdoptError(
                f"{title}: {node.op_type} draws without a seed, so that a repeated step would differ: draw outside, or seed it"
            )


def _value(path: Path, value: onnx.ValueInfoProto, what: str) -> Value:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        said = (kind or "an unknown type").removesuffix("_type")
        raise AdoptError(f"{value.name}: expected a tensor as {what}, got {said}: export it as a tensor of a fixed shape")
    told = value.type.tensor_type
    if told.elem_type not in DTYPES:
        name = TensorProto.DataType.Name(told.elem_type).lower()
        raise AdoptError(f"{value.name}: an {what} of type {name} cannot be kept or sent: export it as numbers")
    shape = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or f"{value.name}.{i}" for i, d in _axes(told)]
    return Value(value.name, DTYPES[told.elem_type], tuple(shape))


def _axes(told: onnx.TypeProto.Tensor) -> list[tuple[int, onnx.TensorShapeProto.Dimension]]:
    return list(enumerate(told.shape.dim))


def _newer(model: ModelProto, opset: int) -> tuple[ModelProto, tuple[str, ...]]:
    """Return a file of an old opset in a newer one; where nobody can convert it, as it is. What comes of it is compared with the file."""
    try:
        converted = onnx.version_converter.convert_version(model, NEWEST)
        onnx.checker.check_model(converted)
    except Exception as error:  # the converter's errors have no base of their own
        kept = ModelProto()
        kept.CopyFrom(model)
        for told in kept.opset_import:
            if told.domain in ("", "ai.onnx"):
                told.version = OLDEST
        reason = " ".join(str(error).split())[:80]
        return kept, (f"opset {opset} taken as {OLDEST} as it is: it could not be converted ({reason})",)
    return converted, (f"opset {opset} converted to {NEWEST}",)
