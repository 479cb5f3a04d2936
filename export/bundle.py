"""What a trained model is on disk: bundles/<name>/<version>/{model.onnx, manifest.json, CARD.md}.

The trainer writes bundles and the service reads them; this file, and what x means (export/modalities/), is all they share. It imports
neither torch nor model.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from indrnn.export.modalities.modality import Content, Dtype
from indrnn.export.modalities.modality import Frozen as _Frozen
from indrnn.export.modalities.modality import Layout as Layout
from indrnn.export.modalities.modality import Quantity as Quantity
from indrnn.export.modalities.skeleton import OTHER as OTHER
from indrnn.export.modalities.table import MODALITIES, of_kind
from indrnn.kernels.activations import ACTIVATIONS

OP_DOMAIN = "ai.indrnn"
OP_TYPE = "IndRNN"
DIAGONAL_TYPE = "DiagonalRecurrence"
OP_VERSION = 1
GRAPH = "model.onnx"
EXPLAIN = "explain.onnx"  # what an answer depends on, where a bundle says so
WEIGHTS = "model.onnx.data"  # the weights of a graph of more than 2 GB
PARITY_BOUND = 1e-4  # largest |ONNX Runtime - PyTorch| in a logit that a bundle may carry
HALF_PARITY_BOUND = 5e-3  # the same of an adopted file that works in float16, as part of its largest answer

Role = Literal["hidden", "window", "position", "last_frame", "pool", "started", "event", "last_logits"]


class BundleError(Exception):
    """A bundle cannot be used; the message names the bundle, what was expected and what came."""


class Part(_Frozen):
    """One stretch of the state vector: state[offset : offset + size], float32."""

    role: Role
    layer: int | None = Field(default=None, description="index of the recurrent layer, for role hidden")
    name: str | None = Field(default=None, description="what its cell's equations call it (h, c); of IndRNN's, which have u, not stated")
    offset: int = Field(ge=0)
    size: int = Field(gt=0)
    dtype: str | None = Field(default=None, description="adopted: the type in the file, exactly packed into float32")
    shape: tuple[int | str, ...] | None = Field(default=None, description="adopted: the shape in the file, B is the batch")
    activation: str | None = Field(default=None, description="of kernels/activations.py")
    u: tuple[float, ...] | None = Field(default=None, description="recurrent weight per neuron, [size]")

    @model_validator(mode="after")
    def _hidden_has_u(self) -> Self:
        if self.role == "hidden" and self.name is None and (self.u is None or self.layer is None or self.activation is None):
            raise ValueError("a hidden part states its layer, activation and u")
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if self.name is not None and (self.role != "hidden" or self.layer is None or self.u is not None):
            raise ValueError("a part with a name is hidden, states its layer and has no u")
        if self.u is not None and len(self.u) != self.size:
            raise ValueError(f"u: expected {self.size} weights, got {len(self.u)}")
        return self


class Tensor(_Frozen):
    """An input or output of the graph; a text in shape is a free axis by its letter (B, T)."""

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]


class Limits(_Frozen):
    """What the graph was made for; the service's own limits may be lower."""

    max_position: int | None = Field(default=None, description="frames or characters a session may consume; required where max |u| >= 1")
    max_batch: int | None = Field(default=None, ge=1, description="rows of one run, where the graph does not take any number of them")


class AdoptedTensor(_Frozen):
    """An input or output of the file, or a value that it always gets; B rows, T steps, W samples of a window."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    value: tuple[float, ...] | None = None


class Adopted(_Frozen):
    """The file that a bundle was adopted from, and what was found out about it."""

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the file, then of those with its weights")
    inputs: tuple[AdoptedTensor, ...]
    outputs: tuple[AdoptedTensor, ...]
    constants: tuple[AdoptedTensor, ...] = ()
    context: int = Field(default=0, ge=0, description="samples before a window that the file reads again")
    checks: dict[str, str] = Field(description="each check of the kit and what it said; one that failed and was allowed begins with FAULT")
    notes: tuple[str, ...] = ()


class TrainingData(_Frozen):
    """A data set the weights were made from, and on what terms. labels: which class each of its labels is, where it has its own words."""

    name: str
    terms: str
    citation: str
    labels: dict[str, str] | None = None


class Figure(_Frozen):
    """One measured result, with how it was measured and how often test data was looked at."""

    name: str
    value: float
    unit: str
    protocol: str
    test_evaluations: int = Field(ge=0)


class Training(_Frozen):
    """What reproduces the weights. optimizer: as the card words it; None where the manifest is older than that."""

    command: str
    seed: int
    parameters: int
    data: tuple[TrainingData, ...]
    optimizer: str | None = None


class Explanation(_Frozen):
    """explain.onnx: x, lengths [B] of 1 and more, weights [B, K] -> gradient, logits [B, K], off [B, T].

    The gradient of sum_k weights_k logits_k after each row's last step, from the start of a sequence: by every number of x, of x's shape;
    of text [B, T], that by a symbol's vector times the vector. off: the share of relu neurons that are at 0 in a step. Large weights may
    be those of model.onnx, read from there (ONNX's external data).
    """

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of explain.onnx")
    error: float = Field(ge=0, le=PARITY_BOUND, description="largest difference from PyTorch, of 1 or the largest number if more")


class Manifest(Content):
    """manifest.json: all that a server needs to know about a model. Sizes are counts, times ISO 8601 UTC.

    A manifest that states kind or modality alone, as 0.1.0's do, gets the other.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")
    version: str = Field(pattern=r"^[0-9]{1,9}$")
    cell: str = Field(default="indrnn", pattern=r"^[a-z][a-z0-9_-]{0,31}$", description="what its layers are made of")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of model.onnx")
    op_version: int
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    state: tuple[Part, ...]
    limits: Limits = Limits()
    training: Training
    figures: tuple[Figure, ...]
    adopted: Adopted | None = None
    explain: Explanation | None = Field(default=None, description="of explain.onnx, where the bundle has one")
    weights_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="of model.onnx.data, where weights lie there")
    parity_error: float = Field(ge=0, le=HALF_PARITY_BOUND, description="adopted: of 1 or the largest answer, if that is more")
    created: str
    source_revision: str

    @property
    def half(self) -> bool:
        """Return whether it is an adopted file some of whose tensors are float16, which is good to three digits."""
        told = () if self.adopted is None else (*self.adopted.inputs, *self.adopted.outputs)
        return "float16" in {*(t.dtype for t in told), *(p.dtype for p in self.state)}

    @property
    def state_size(self) -> int:
        """Return N, the length of one row of state."""
        return sum(p.size for p in self.state)

    @property
    def classes(self) -> int:
        """Return the length of one row of logits: K, and the numbers of an event where events are told."""
        return MODALITIES[self.modality].width(self)

    @property
    def unknown_symbol(self) -> int | None:
        """Return the place of the symbol that stands for those the alphabet lacks; None where there is none."""
        return None if self.unknown is None else (self.alphabet or "").index(self.unknown)

    @property
    def max_abs_u(self) -> float:
        """Return the largest |u| of any recurrent neuron; below 1, a bounded input keeps the state bounded for ever."""
        return max((abs(u) for p in self.state for u in p.u or ()), default=0.0)

    def part(self, role: Role) -> Part | None:
        """The first part of that role, or None."""
        return next((p for p in self.state if p.role == role), None)

    @model_validator(mode="before")
    @classmethod
    def _modality_and_kind(cls, told: Any) -> Any:
        if not isinstance(told, dict):
            return told
        kind, name = told.get("kind"), told.get("modality")
        found = of_kind(kind) if name is None else MODALITIES.get(name) if isinstance(name, str) else None
        if found is None or kind not in (None, found.kind):
            known = ", ".join(f"{m.name} ({m.kind})" for m in MODALITIES.values())
            raise ValueError(f"modality (and kind): expected one of {known}, got {name} ({kind})")
        return {**told, "modality": found.name, "kind": found.kind}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        offset = 0
        for p in self.state:
            if p.offset != offset:
                raise ValueError(f"state: expected a part at offset {offset}, got {p.role} at {p.offset}")
            offset += p.size
        hidden = [p.role == "hidden" for p in self.state]
        if hidden != sorted(hidden, reverse=True) or (self.streams and not any(hidden)):
            raise ValueError("state: expected the hidden parts first, at least one where there is a stream")
        if any((p.u is None) is (self.cell == "indrnn") for p in self.state if p.role == "hidden"):
            raise ValueError(f"state: expected hidden parts of the cell {self.cell!r}, with u if and only if it is indrnn")
        MODALITIES[self.modality].check(self, {p.role: p.size for p in reversed(self.state)})
        if (self.part("event") is None) is not (self.events is None):
            raise ValueError("expected a state part event if and only if events are stated")
        if self.events is not None and len(self.labels or ()) < 2:
            raise ValueError("events: expected labels, the first of them nothing's")
        last_logits = self.part("last_logits")
        if last_logits is None or last_logits.size != self.classes:
            raise ValueError(f"state: expected a last_logits part of {self.classes}")
        if self.op_version != OP_VERSION:
            raise ValueError(f"op_version: expected {OP_VERSION}, got {self.op_version}")
        if self.parity_error > PARITY_BOUND and not self.half:
            raise ValueError(f"parity_error: expected at most {PARITY_BOUND:g}, got {self.parity_error:g}")
        if self.max_abs_u >= 1 and self.limits.max_position is None:
            raise ValueError(f"max |u| is {self.max_abs_u:g}: limits.max_position is required")
        return self


@dataclass(frozen=True)
class Bundle:
    """A bundle whose file was checked against its manifest."""

    manifest: Manifest
    graph: Path

    @property
    def explanation(self) -> Path | None:
        """Return explain.onnx, where the manifest states it."""
        return None if self.manifest.explain is None else self.graph.parent / EXPLAIN


def digest(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(folder: Path) -> Bundle:
    """Reads and checks bundles/<name>/<version>.

    Raises BundleError when the manifest is missing or wrong, when the folder's name disagrees with it, when x has not the axes of its
    modality, when model.onnx, or another file that the manifest states, is not the one whose digest it states, or when one cannot be read.
    """
    title = f"bundle {folder.parent.name}/{folder.name}"
    manifest = _manifest(folder / "manifest.json", title)
    graph = folder / GRAPH
    found = _found(graph, title)
    if found is None:
        raise BundleError(f"{title}: model.onnx is missing")
    if found != manifest.sha256:
        raise BundleError(f"{title}: model.onnx: expected sha256 {manifest.sha256}, got {found}")
    more = {WEIGHTS: manifest.weights_sha256, EXPLAIN: None if manifest.explain is None else manifest.explain.sha256}
    for name, stated in more.items():
        if stated is not None and (found := _found(folder / name, title)) != stated:
            raise BundleError(f"{title}: {name}: expected sha256 {stated}, got {found or 'no file'}")
    return Bundle(manifest, graph)


def _manifest(path: Path, title: str) -> Manifest:
    """Read and check a manifest by itself. Raises BundleError."""
    try:
        if path.exists():
            _check_regular(path, title)
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{title}: {path.name}: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'manifest'}: {e['msg']}" for e in error.errors())
        raise BundleError(f"{title}: {path.name}: {wrong}") from error
    if (manifest.name, manifest.version) != (path.parent.parent.name, path.parent.name):
        raise BundleError(f"{title}: {path.name} says {manifest.name}/{manifest.version}")
    modality = MODALITIES[manifest.modality]
    x, expected = manifest.inputs[0] if manifest.inputs else None, ("B", "T", *modality.step(manifest))
    if x is None or (x.dtype, x.shape) != (modality.dtype, expected):
        said = f"expected x, {modality.dtype} {list(expected)}, first, got {x and f'{x.name}, {x.dtype} {list(x.shape)}'}"
        raise BundleError(f"{title}: {path.name}: inputs: {said}".replace("'", ""))
    return manifest


def _found(path: Path, title: str) -> str | None:
    """Return the sha256 of a file; None where there is none. Raises BundleError where it cannot be read."""
    try:
        if not path.exists():
            return None
        _check_regular(path, title)
        return digest(path)
    except OSError as error:
        raise BundleError(f"{title}: {path.name}: {error}") from error


def _check_regular(path: Path, title: str) -> None:
    """Raise BundleError where a path is no file: a named pipe would be waited for, for ever."""
    if not path.is_file():
        raise BundleError(f"{title}: {path.name}: expected a regular file")
