"""What a state can hold is what the types of its parts pack to: all of it is taken, and nothing else."""

import numpy as np
import pytest

from indrnn.export.adopt.packing import PIECES, pieces
from indrnn.export.bounds import bounds, outside
from indrnn.export.bundle import Adopted, AdoptedTensor, Manifest, Part, Quantity, Tensor, Training
from indrnn.export.modalities.modality import Returned
from indrnn.service.errors import OutOfRange
from indrnn.service.oip.message import Ask, SentTensor
from indrnn.service.oip.rows import InferLimits, read
from indrnn.service.serving.signature import Signature
from indrnn.service.session.machine import Snapshot
from indrnn.service.session.state_file import StateFile, check

WHOLE = [d for d in PIECES if "int" in d]
SOME = [0.0, -0.0, 1.0, -1 / 3, np.pi, 1e-20, 65504.0, -6e-8]


def packed(values: np.ndarray) -> tuple[Manifest, np.ndarray]:
    """A manifest with one part of that type, an adopted file's that reads windows of 16, and a state of it."""
    row = pieces(values.reshape(1, -1))[0]
    n = len(row)
    parts = [
        Part(role="hidden", layer=0, name="h", offset=0, size=n, dtype=str(values.dtype), shape=("B", values.size)),
        Part(role="window", offset=n, size=15),
        Part(role="position", offset=n + 15, size=1),
        Part(role="started", offset=n + 16, size=1),
        Part(role="last_logits", offset=n + 17, size=2),
    ]
    x = Tensor(name="x", dtype="float32", shape=("B", "T", 1))
    pcm = AdoptedTensor(name="pcm", dtype="float32", shape=("B", "W"))
    speech = AdoptedTensor(name="speech", dtype="float32", shape=("B", 1))
    return Manifest(
        name="win",
        version="1",
        modality="tensor",
        kind="tensor",
        cell="adopted",
        answer="step",
        features=(Quantity(name="pcm"),),
        values=(Quantity(name="speech"), Quantity(name="whether a window ends")),
        returned=(Returned(name="speech", shape=(1,)),),
        window=16,
        sha256="0" * 64,
        op_version=1,
        opset=20,
        inputs=(x, Tensor(name="state", dtype="float32", shape=("B", n + 19))),
        outputs=tuple(
            Tensor(name=name, dtype="float32", shape=shape) for name, shape in (("logits", ("B", "T", 2)), ("state_out", ("B", n + 19)))
        ),
        state=tuple(parts),
        training=Training(command="indrnn adopt", seed=0, parameters=0, data=()),
        figures=(),
        adopted=Adopted(file="win.onnx", sha256="0" * 64, inputs=(pcm,), outputs=(speech,), checks={}),
        parity_error=0,
        created="2026-11-29T00:00:00+00:00",
        source_revision="0",
    ), np.concatenate([row, np.zeros(19, np.float32)])


def refused(manifest: Manifest, state: np.ndarray) -> bool:
    """Whether it is refused as a file and as the input `state`, which agree."""
    file = StateFile(manifest.name, manifest.version, manifest.sha256, Snapshot(state, 1, 1, None))
    x = SentTensor("pcm", "FP32", (1, 16), np.zeros(16, np.float32).tobytes())
    ask = Ask("", [x, SentTensor("state", "FP32", (1, len(state)), state.astype(np.float32).tobytes())], None)
    found = []
    for reads in (lambda: check(file, manifest), lambda: read(ask, Signature.of(manifest), InferLimits(8, 100, 100, 10_000))):
        try:
            reads()
            found.append(False)
        except OutOfRange:
            found.append(True)
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("dtype", PIECES)
def test_what_a_type_packs_to_is_taken(dtype: str) -> None:
    with np.errstate(over="ignore", under="ignore"):
        values = np.array(SOME).astype(dtype) if dtype not in WHOLE else np.array([0, 1, np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    assert not refused(*packed(values))


def test_any_float64_that_is_packed_is_taken() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((500, 40)) * 10.0 ** rng.integers(-44, 38, (500, 40))
    with np.errstate(under="ignore"):
        manifest, rows = packed(values[0])[0], pieces(values)
    assert outside(rows, bounds(manifest)[:2]) is None


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        *((d, [0.5, 1e30, -1e30]) for d in WHOLE),
        ("bool", [0.5, -3, 1e30]),
        ("float16", [1e30, -65520, 1 / 3]),
    ],
)
def test_what_it_does_not_pack_to_is_not(dtype: str, values: list[float]) -> None:
    manifest, state = packed(np.zeros(2, dtype))
    for place in range(manifest.state[0].size):
        for value in values:
            state[place] = value
            assert refused(manifest, state), (place, value)
        state[place] = 0


@pytest.mark.parametrize(
    ("dtype", "place", "low", "high"),
    [
        ("int64", 0, 0, 2**22 - 1),
        ("int64", 2, -(2**19), 2**19 - 1),
        ("int32", 1, -(2**9), 2**9 - 1),
        ("uint32", 1, 0, 2**10 - 1),
        ("int8", 0, -128, 127),
        ("bool", 0, 0, 1),
        ("bool", 16, 0, 15),  # samples since the last window
        ("bool", 17, 0, 1),  # started
        ("bool", 19, 0, 1),  # whether a window ends
    ],
)
def test_a_number_ends_where_its_piece_does(dtype: str, place: int, low: int, high: int) -> None:
    manifest, state = packed(np.zeros(1, dtype))
    for value, expected in ((low, False), (high, False), (low - 1, True), (high + 1, True), (0.5, True)):
        state[place] = value
        assert refused(manifest, state) is expected, value


def test_the_rest_of_a_float64_is_smaller_than_a_step_of_what_it_is_left_of() -> None:
    manifest, state = packed(np.array([1.0]))
    state[1] = 0.5
    assert refused(manifest, state)
    state[1], state[2] = 2**-25, 2**-25
    assert refused(manifest, state)
    state[2] = 0
    assert not refused(manifest, state)


def test_a_part_whose_type_is_not_said_holds_anything() -> None:
    manifest, state = packed(np.zeros(1, "int64"))
    part = manifest.state[0].model_copy(update={"dtype": None})
    state[0] = 0.5
    assert not refused(manifest.model_copy(update={"state": (part, *manifest.state[1:])}), state)
