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
from indrnn.export.bundle import OP_VERSION, Figure, Layout, Limits, Manifest, Part, Tensor, Training, TrainingData
from indrnn.export.errors import ExportError
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
                "kind": meta.kind,
                "cell": meta.cell,
                "sha256": sha256,
                "op_version": OP_VERSION,
                "opset": op.OPSET,
                "inputs": tuple(_tensor(v) for v in graph.graph.input),
                "outputs": tuple(_tensor(v) for v in graph.graph.output),
                "state": parts(meta),
                "labels": meta.labels,
                "alphabet": meta.alphabet,
                "layout": meta.layout,
                "layouts": {k: Layout(joint_names=names, table=table) for k, (names, table) in meta.layouts.items()},
                "persons": meta.persons,
                "hz": meta.hz,
                "other_below": meta.other_below,
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
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in invalid.errors())
        raise ExportError(f"the checkpoint does not make a manifest: {reasons}") from invalid


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
