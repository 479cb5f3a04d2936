"""A session's state as a file: safetensors, as it is downloaded from one server and uploaded to another.

Tensor `state` [N] float32; where frames are being resampled, `carry` [P, J, 3] float32. Metadata, all texts: `format_version`, `model`,
`version`, `digest` (sha256 of model.onnx), `step`, `position`; with a carry `carry_hz` and `carry_phase` ("7/6", client
frames), or of frames that say when they were taken `carry_times` (start, last, count); of a model that
watches bodies `bodies` (hex of float32 [E]), what it has seen of them. What comes in is believed nothing: it must be what
this service could have written for a session of the model.
"""

import math
import re
from dataclasses import dataclass, field

import numpy as np
import orjson
import safetensors

from indrnn.export.bounds import bounds, outside
from indrnn.export.bundle import Manifest, Part
from indrnn.export.modalities.sentences import SLOTS, no_word
from indrnn.export.modalities.skeleton import evidence_size
from indrnn.export.modalities.table import MODALITIES
from indrnn.frames.rate import HZ_RANGE, LATEST, Carry, may_be_left_over
from indrnn.kernels.activations import ACTIVATIONS
from indrnn.service.errors import BadInput, NotFinite, NotState, OtherModel, OutOfRange, said
from indrnn.service.session.machine import Floats, Session, Snapshot

FORMAT_VERSION = "1"
MAX_HEADER = 2**14  # bytes; ours are some 500
MOST_AXES = 3
MOST = 2**53 - 1  # steps and positions: what JSON numbers hold
NOTHING: Floats = np.zeros(0, np.float32)
_TEXTS = ("model", "version", "digest")
_COUNT = re.compile(r"0|[1-9][0-9]{0,15}")
_PHASE = re.compile(r"([1-9][0-9]{0,11})/([1-9][0-9]{0,11})")

FARTHEST_EVIDENCE = 2.0**26  # of what was seen of a body (frames/anatomy.py): sums over frames, and joints as 24 bits
MOST_STEPS = 1e6  # that hysteresis counts (model/nets/hysteresis.py)


@dataclass(frozen=True, slots=True)
class StateFile:
    """A downloaded state and whose it is; whether it fits that model is for `check` to say. bodies [E]: of a model that watches them."""

    model: str
    version: str
    digest: str
    snapshot: Snapshot
    bodies: Floats = field(default_factory=lambda: NOTHING)


def encode(session: Session, size: int | None = None) -> bytes:
    """Encode the session as it stands, without its stored result; size: N, of the graph's state (None: all of it)."""
    tensors = {"state": session.state[:size]}
    metadata = {
        "format_version": FORMAT_VERSION,
        "model": session.model,
        "version": session.version,
        "digest": session.digest,
        "step": str(session.step),
        "position": str(session.position),
    }
    if carry := session.carry:
        tensors["carry"] = carry.frame
        timed = {"carry_times": f"{carry.start!r} {carry.last!r} {carry.count}"}
        phase = {"carry_hz": repr(carry.hz), "carry_phase": f"{carry.numerator}/{carry.denominator}"}
        metadata |= timed if carry.timed else phase
    if size is not None and len(session.state) > size:
        metadata["bodies"] = session.state[size:].astype("<f4").tobytes().hex()
    return _write(tensors, metadata)


def _write(tensors: dict[str, Floats], metadata: dict[str, str]) -> bytes:
    """Safetensors in a fixed order, so that one state is always the same bytes; the library's own order of metadata is random."""
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [end, end + tensor.size * 4]}
        end += tensor.size * 4
    head = orjson.dumps(header)
    head += b" " * (-len(head) % 8)  # the data begins at a multiple of 8 bytes
    return len(head).to_bytes(8, "little") + head + b"".join(t.astype("<f4").tobytes() for t in tensors.values())


def decode(data: bytes) -> StateFile:
    """Decode what encode has encoded. Raises NotState for what is no such file, NotFinite."""
    metadata = _metadata(data)
    if metadata.get("format_version") != FORMAT_VERSION:
        raise NotState(f"expected format_version {FORMAT_VERSION!r}, got {said(metadata.get('format_version'))}", field="format_version")
    model, version, digest = (_text(metadata, name) for name in _TEXTS)
    tensors = _tensors(data)
    state = tensors.pop("state", None)
    frame = tensors.pop("carry", None)
    if state is None or state.ndim != 1 or tensors:
        raise NotState("expected the tensors state [N] and, where frames are resampled, carry [P, J, 3], and no others", field="state")
    bodies = _bodies(metadata.get("bodies", ""))
    carry = None if frame is None else _carry(metadata, frame)
    step, position = _count(metadata, "step"), _count(metadata, "position")
    return StateFile(model, version, digest, Snapshot(state, step, position, carry), bodies)


def check(file: StateFile, manifest: Manifest) -> Snapshot:
    """Return the state, if a session of this model could stand there.

    Raises OtherModel for another model's, BadInput for a wrong shape, OutOfRange for values that no step leaves behind.
    """
    if file.digest != manifest.sha256:
        mine, others = f"{manifest.name}/{manifest.version} ({manifest.sha256[:12]}…)", f"{file.model[:64]}/{file.version[:16]}"
        raise OtherModel(f"expected a state of {mine}, got one of {others} ({file.digest[:12]}…)", field="digest")
    at = file.snapshot
    bodies = evidence_size(manifest)
    if len(file.bodies) not in (0, bodies):
        raise BadInput(f"expected {bodies} numbers, got {len(file.bodies)}", field="bodies")
    if len(file.bodies):
        if not (np.abs(file.bodies) <= FARTHEST_EVIDENCE).all():
            raise OutOfRange(f"expected numbers up to {FARTHEST_EVIDENCE:g}, got {np.abs(file.bodies).max():g}", field="bodies")
        if len(at.state) != manifest.state_size:
            raise BadInput(f"expected {manifest.state_size} numbers, got {len(at.state)}", field="state")
        at = at._replace(state=np.concatenate([at.state, file.bodies]))
    if len(at.state) not in (manifest.state_size, manifest.state_size + bodies):
        raise BadInput(f"expected {manifest.state_size} numbers, got {len(file.snapshot.state)}", field="state")
    for part in manifest.state:
        _check_part(at.state, part, MODALITIES[manifest.modality].farthest)
        if part.name == SLOTS and manifest.words is not None:
            _check_slots(at.state, part, manifest)
    if (odd := outside(at.state[None], bounds(manifest))) is not None:
        raise OutOfRange(odd[1], field=f"state[{odd[0]}]")
    if manifest.limits.max_position is not None and at.position > manifest.limits.max_position:
        raise OutOfRange(f"expected at most {manifest.limits.max_position}, got {at.position}", field="position")
    if at.carry is not None:
        _check_carry(at, manifest)
    return at


def _metadata(data: bytes) -> dict[str, str]:
    """Return the texts of the header, which the library leaves out where it reads from memory."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER, len(data) - 8):
        raise NotState(f"expected a safetensors file with a header of at most {MAX_HEADER} bytes")
    try:
        header = orjson.loads(data[8 : 8 + size])
    except orjson.JSONDecodeError as error:
        raise NotState(f"expected a safetensors file: its header is no JSON: {error.msg}") from None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise NotState("expected metadata of texts, as GET /sessions/{id}/state writes them", field="__metadata__")
    return metadata


def _tensors(data: bytes) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    try:
        parts = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise NotState(f"expected a safetensors file: {error}"[:200]) from None
    for name, tensor in parts:
        if tensor["dtype"] != "F32":
            raise NotState(f"expected float32 (F32), got {said(tensor['dtype'])}", field=name[:80])
        shape = tensor["shape"]
        if len(shape) > MOST_AXES or 0 in shape:
            raise NotState(f"expected at most {MOST_AXES} axes, none of them empty, got {said(str(shape))}", field=name[:80])
        values: Floats = np.frombuffer(bytes(tensor["data"]), "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise NotFinite("expected finite numbers", field=name[:80])
        found[name] = values.reshape(shape)
    return found


def _bodies(text: str) -> Floats:
    try:
        found: Floats = np.frombuffer(bytes.fromhex(text), "<f4").astype(np.float32)
    except ValueError:
        raise NotState("expected float32 numbers in hex", field="bodies") from None
    if not np.isfinite(found).all():
        raise NotFinite("expected finite numbers", field="bodies")
    return found


def _text(metadata: dict[str, str], name: str) -> str:
    if name not in metadata:
        raise NotState("expected a text in the metadata, got nothing", field=name)
    return metadata[name]


def _count(metadata: dict[str, str], name: str) -> int:
    text = metadata.get(name, "")
    if not _COUNT.fullmatch(text) or int(text) > MOST:
        raise NotState(f"expected a whole number from 0 to {MOST}, got {said(text)}", field=name)
    return int(text)


def _carry(metadata: dict[str, str], frame: Floats) -> Carry:
    if times := metadata.get("carry_times"):
        return _timed(times, frame)
    phase = _PHASE.fullmatch(metadata.get("carry_phase", ""))
    try:
        hz = float(metadata.get("carry_hz", ""))
    except ValueError:
        hz = math.nan
    if phase is None or not HZ_RANGE[0] <= hz <= HZ_RANGE[1]:
        raise NotState("expected carry_hz and carry_phase beside the tensor carry", field="carry")
    return Carry(hz, frame, int(phase[1]), int(phase[2]))


_SECONDS = r"(-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"  # as Python writes a float
_TIMES = re.compile(rf"{_SECONDS} {_SECONDS} ([0-9]{{1,15}})", re.ASCII)


def _timed(times: str, frame: Floats) -> Carry:
    words = _TIMES.fullmatch(times)
    if words is None:
        raise NotState(f"expected seconds of start and last and a count, got {said(times)}", field="carry_times") from None
    start, last, count = float(words[1]), float(words[2]), int(words[3])
    if not (abs(start) <= LATEST and abs(last) <= LATEST and 0 < count <= MOST):
        raise NotState(f"expected seconds of start and last and a count, got {said(times)}", field="carry_times")
    return Carry(0.0, frame, 1, 1, start, last, count)


def _check_part(state: Floats, part: Part, farthest: float) -> None:
    if part.role == "hidden":
        bounds = ACTIVATIONS[part.activation or "identity"]
        low, high = bounds.least, bounds.most
    elif part.role == "last_frame":
        low, high = -farthest, farthest
    elif part.role == "event":
        low, high = 0.0, MOST_STEPS
    else:
        return
    values = state[part.offset : part.offset + part.size]
    slack = min(1e-5 * high, 1e-3) if math.isfinite(high) else 0.0  # a mean of joints at the edge may round over it
    wrong = np.flatnonzero((values < low - slack) | (values > high + slack))
    if len(wrong):
        at = part.offset + int(wrong[0])
        raise OutOfRange(f"expected {low:g} to {high:g} in part {part.role}, got {state[at]:g}", field=f"state[{at}]")


def _check_slots(state: Floats, part: Part, manifest: Manifest) -> None:
    assert manifest.words is not None
    assert manifest.width is not None, "as its modality says"
    wrong = no_word(state[part.offset : part.offset + part.size], len(manifest.words), manifest.width, kept=True)
    if wrong is not None:
        raise OutOfRange(f"part {part.name}: {wrong[1]}", field=f"state[{part.offset + wrong[0]}]")


def _check_carry(at: Snapshot, manifest: Manifest) -> None:
    assert at.carry is not None, "looked at before"
    modality = MODALITIES[manifest.modality]
    rate = modality.rate(manifest)
    if manifest.layout is None or rate is None:
        raise BadInput(f"expected none: model {manifest.name} resamples nothing", field="carry")
    shape = manifest.persons, manifest.layouts[manifest.layout].joints, 3
    if at.carry.frame.shape != shape:
        raise BadInput(f"expected a frame of {list(shape)}, got {list(at.carry.frame.shape)}", field="carry")
    if (np.abs(at.carry.frame) > modality.farthest * (1 + 1e-5)).any():
        raise OutOfRange(f"expected metres within ±{modality.farthest:g}", field="carry")
    kept_in_state = at.carry.hz == rate and manifest.part("last_frame") is not None
    if at.position == 0 or kept_in_state or not may_be_left_over(at.carry, rate):
        raise OutOfRange(f"expected what resampling to {rate:g} Hz leaves over", field="carry_phase")
