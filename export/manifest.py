"""From a checkpoint's description and its graph to the manifest."""

import json
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

import numpy as np
import onnx
from pydantic import ValidationError

from indrnn.export import op
from indrnn.export.bundle import OP_VERSION, Figure, Limits, Manifest, Part, Tensor, Training, TrainingData
from indrnn.export.errors import ExportError
from indrnn.export.modalities.modality import Content, Layout
from indrnn.export.modalities.table import MODALITIES, of_kind
from indrnn.model.training.checkpoint import Meta


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
        return Content(modality=modality.name, kind=modality.kind, **told)
    except ValidationError as invalid:
        raise ExportError(f"the checkpoint does not make a manifest: {_reasons(invalid)}") from invalid


def _reasons(invalid: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in invalid.errors())


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
                "opset": op.OPSET,
                "inputs": tuple(_tensor(v) for v in graph.graph.input),
                "outputs": tuple(_tensor(v) for v in graph.graph.output),
                "state": parts(meta),
                "limits": Limits(max_position=max_position),
                "training": Training(
                    command=meta.command,
                    seed=meta.seed,
                    parameters=meta.parameters,
                    data=tuple(TrainingData(**d) for d in meta.data),
                ),
                "figures": tuple(named.values()),
                "parity_error": error,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "source_revision": source_revision(),
            }
        )
    except ValidationError as invalid:
        raise ExportError(f"the checkpoint does not make a manifest: {_reasons(invalid)}") from invalid


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    dtype = "int64" if kind.elem_type == onnx.TensorProto.INT64 else "float32"
    return Tensor(name=value.name, dtype=dtype, shape=tuple(d.dim_param or d.dim_value for d in kind.shape.dim))


def source_revision() -> str:
    """Return the commit this code is from, with -dirty when files differ from it; "unknown" outside git."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def to_json(m: Manifest) -> str:
    """Return manifest.json, one entry a line; what is not stated is left out."""
    entries = m.model_dump(mode="json", exclude_none=True).items()
    lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in entries]
    return "{\n" + ",\n".join(lines) + "\n}\n"
