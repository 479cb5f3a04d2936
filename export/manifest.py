"""From a checkpoint's description and its graph to the manifest."""

from dataclasses import asdict
from datetime import UTC, datetime
from itertools import accumulate

import numpy as np
import onnx
from pydantic import ValidationError

from indrnn.export import standard
from indrnn.export.bundle import OP_VERSION, Figure, Limits, Manifest, Part, Tensor, Training, TrainingData
from indrnn.export.errors import ExportError
from indrnn.export.folder import reasons
from indrnn.export.folder import source_revision as source_revision
from indrnn.export.folder import to_json as to_json
from indrnn.export.modalities.modality import Content, Layout
from indrnn.export.modalities.table import MODALITIES, of_kind
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.optimisation.optimisers import OPTIMISERS


def parts(meta: Meta) -> tuple[Part, ...]:
    """Return the state's parts as the manifest lists them, offsets added."""
    ends = list(accumulate(p.size for p in meta.parts))
    return tuple(
        Part(**{**asdict(p), "offset": end - p.size, "u": p.u and tuple(map(_shortest, p.u))})
        for p, end in zip(meta.parts, ends, strict=True)
    )


def _shortest(value: float) -> float:
    """Return the shortest decimal that reads back as the same float32: 0.99 for 0.9900000095367432."""
    return float(str(np.float32(value)))


def content(meta: Meta) -> Content:
    """Return what goes in and comes out, as the checkpoint tells it. Raises ExportError for a network of what no modality reads."""
    modality = of_kind(meta.kind) or MODALITIES.get(meta.told.get("modality", ""))
    if modality is None:
        reads = " or ".join(m.reads for m in MODALITIES.values())
        what = f"expected a network of {reads}, which is what the service reads, got one of {meta.kind!r}"
        imported = "; `indrnn import` says with --layout, --joints or --numbers, or --features, what a network reads"
        raise ExportError(what + (imported if meta.task == "import" else ""))
    told = {name: meta.told.get(name, getattr(meta, name, None)) for name in modality.fields}
    if "layouts" in told:
        told["layouts"] = {k: Layout(joint_names=names, table=table) for k, (names, table) in meta.layouts.items()}
    try:
        return Content(modality=modality.name, kind=modality.kind, streams=meta.told.get("streams", True), **told)
    except ValidationError as invalid:
        raise ExportError(f"the checkpoint does not make a manifest: {reasons(invalid)}") from invalid


def manifest(
    meta: Meta,
    graph: onnx.ModelProto,
    name: str,
    version: str,
    sha256: str,
    error: float,
    figures: tuple[Figure, ...],
    max_position: int | None,
) -> Manifest:
    """Return the manifest of root/<name>/<version>; arguments as in export.write. Raises ExportError when it would not be a valid one."""
    named = {f.name: f for f in (*(Figure(**f) for f in meta.figures), *figures)}
    try:
        return Manifest.model_validate(
            {
                "name": name,
                "version": version,
                **content(meta).model_dump(exclude_none=True),
                "cell": meta.cell,
                "sha256": sha256,
                "op_version": OP_VERSION,
                "opset": standard.opset(graph),
                "inputs": tuple(_tensor(v) for v in graph.graph.input),
                "outputs": tuple(_tensor(v) for v in graph.graph.output),
                "state": parts(meta),
                "limits": Limits(max_position=max_position),
                "training": Training(
                    command=meta.command,
                    seed=meta.seed,
                    parameters=meta.parameters,
                    data=tuple(TrainingData(**d) for d in meta.data),
                    optimizer=OPTIMISERS[meta.optimizer].about if meta.optimizer in OPTIMISERS else None,
                ),
                "figures": tuple(named.values()),
                "parity_error": error,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "source_revision": source_revision(),
            }
        )
    except ValidationError as invalid:
        raise ExportError(f"the checkpoint does not make a manifest: {reasons(invalid)}") from invalid


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    dtype = "int64" if kind.elem_type == onnx.TensorProto.INT64 else "float32"
    return Tensor(name=value.name, dtype=dtype, shape=tuple(d.dim_param or d.dim_value for d in kind.shape.dim))
