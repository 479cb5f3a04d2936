"""A state as a file: what goes out comes back, and nothing else gets in."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from indrnn.export.bundle import Manifest, Part, read
from indrnn.export.modalities.sentences import SLOTS
from indrnn.frames.rate import Carry, resample
from indrnn.service.errors import BadInput, NotFinite, NotState, OtherModel, OutOfRange, ServiceError
from indrnn.service.session.machine import Session
from indrnn.service.session.state_file import MAX_HEADER, check, decode, encode

ROOT = Path(__file__).parents[3]


@functools.cache
def manifest(name: str = "action") -> Manifest:
    return read(ROOT / "bundles" / name / "1").manifest


def session(**changes: object) -> Session:
    m = manifest()
    state = np.abs(np.random.default_rng(1).standard_normal(m.state_size)).astype(np.float32)
    made = Session("id", m.name, m.version, m.sha256, "me", state, 3, 70, 0.0, 9.0)
    return made._replace(**changes)  # type: ignore[arg-type]


def left_over(hz: float) -> Carry:
    x = np.random.default_rng(2).uniform(-1, 1, (7, 1, 20, 3)).astype(np.float32)
    return resample(x, hz, 30.0, None)[1]


@pytest.mark.parametrize("hz", [None, 60.0, 25.0, 29.97, 119.88, 1.0, 1000.0])
def test_what_goes_out_comes_back_with_its_resampling(hz: float | None) -> None:
    sent = session(carry=None if hz is None else left_over(hz))
    at = check(decode(encode(sent)), manifest())
    assert np.array_equal(at.state, sent.state)
    assert (at.step, at.position) == (3, 70)
    assert repr(at.carry) == repr(sent.carry)


@given(pieces=st.lists(st.integers(1, 9), min_size=1, max_size=6), hz=st.floats(1, 1000))
@settings(max_examples=200, deadline=None)
def test_every_carry_that_resampling_leaves_is_taken_back(pieces: list[int], hz: float) -> None:
    carry = None
    for n in pieces:
        _, carry = resample(np.zeros((n, 1, 20, 3), np.float32), hz, 30.0, carry)
    assert hz == 30 or check(decode(encode(session(carry=carry))), manifest()).carry is not None


def test_the_file_says_in_plain_words_whose_state_it_is() -> None:
    data = encode(session())
    header = orjson.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    m = manifest()
    expected = {"format_version": "1", "model": "action", "version": "1", "digest": m.sha256, "step": "3", "position": "70"}
    assert header["__metadata__"] == expected
    assert {name: (t.dtype, t.shape) for name, t in load(data).items()} == {"state": (np.float32, (m.state_size,))}


def changed(**changes: str | None) -> bytes:
    """A good file with other metadata."""
    data = encode(session(carry=left_over(60.0)))
    header = orjson.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = {**header["__metadata__"], **changes}
    return save(load(data), {k: v for k, v in metadata.items() if v is not None})


def with_tensors(change: Callable[[dict[str, np.ndarray]], object]) -> bytes:
    data = encode(session(carry=left_over(60.0)))
    header = orjson.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = load(data)
    change(tensors)
    return save(tensors, header["__metadata__"])


def put(name: str, value: np.ndarray) -> bytes:
    return with_tensors(lambda t: t.__setitem__(name, value))


def at(index: int, value: float) -> bytes:
    return with_tensors(lambda t: t["state"].__setitem__(index, value))


def shaped(name: str, shape: list[int], at: int) -> bytes:
    """A good file whose header says that shape, of a tensor that begins at that byte."""
    data = encode(session())
    size = int.from_bytes(data[:8], "little")
    header = orjson.loads(data[8 : 8 + size])
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, 4 * manifest().state_size]}
    head = orjson.dumps(header)
    return len(head).to_bytes(8, "little") + head + data[8 + size :]


def padded(data: bytes, more: int) -> bytes:
    size = int.from_bytes(data[:8], "little")
    return (size + more).to_bytes(8, "little") + data[8 : 8 + size] + b" " * more + data[8 + size :]


N = 1882
TIMES = ("1.2.3 4 5", "... 1 1", ". . 1", "1e5e5 2 1", "1 2", "nan 1 1", "1 inf 1", "1 1e999 1", "0 1 0")
CASES: list[tuple[str, Callable[[], bytes], type[ServiceError], str | None]] = [
    ("nothing", lambda: b"", NotState, None),
    ("text", lambda: b"to be or not to be", NotState, None),
    ("a header that is too long", lambda: (MAX_HEADER + 1).to_bytes(8, "little") + b" " * 2 * MAX_HEADER, NotState, None),
    ("a good header with more blanks than needed", lambda: padded(encode(session()), MAX_HEADER), NotState, None),
    ("a header longer than the file", lambda: (2**63).to_bytes(8, "little") + b"{}", NotState, None),
    ("a header that is a list", lambda: (2).to_bytes(8, "little") + b"[]", NotState, "__metadata__"),
    ("no metadata", lambda: save({"state": np.zeros(N, np.float32)}), NotState, "__metadata__"),
    ("cut off", lambda: encode(session())[:-4], NotState, None),
    ("something behind", lambda: encode(session()) + b"1234", NotState, None),
    ("another format", lambda: changed(format_version="2"), NotState, "format_version"),
    ("no digest", lambda: changed(digest=None), NotState, "digest"),
    ("another digest", lambda: changed(digest="0" * 64), OtherModel, "digest"),
    ("a negative step", lambda: changed(step="-1"), NotState, "step"),
    ("a step with a point", lambda: changed(step="1.0"), NotState, "step"),
    ("a step in other digits", lambda: changed(step="١"), NotState, "step"),
    ("a step beyond 2^53", lambda: changed(step=str(2**53)), NotState, "step"),
    ("a long position", lambda: changed(position="9" * 5000), NotState, "position"),
    ("no position", lambda: changed(position=None), NotState, "position"),
    ("no tensor", lambda: with_tensors(lambda t: t.clear()), NotState, "state"),
    ("one more tensor", lambda: put("more", np.zeros(1, np.float32)), NotState, "state"),
    ("two axes", lambda: put("state", np.zeros((1, N), np.float32)), NotState, "state"),
    ("more axes than an array has", lambda: shaped("state", [1] * 100 + [N], 0), NotState, "state"),
    ("nothing, in more bytes than there are", lambda: shaped("carry", [0, 2**62], 4 * N), NotState, "carry"),
    ("float64", lambda: put("state", np.zeros(N)), NotState, "state"),
    ("int32", lambda: put("state", np.zeros(N, np.int32)), NotState, "state"),
    ("too short", lambda: put("state", np.zeros(N - 1, np.float32)), BadInput, "state"),
    ("NaN", lambda: at(7, np.nan), NotFinite, "state"),
    ("infinity", lambda: at(7, np.inf), NotFinite, "state"),
    ("a negative relu neuron", lambda: at(7, -1.0), OutOfRange, "state[7]"),
    ("a joint far away", lambda: at(1030, 51.0), OutOfRange, "state[1030]"),
    ("a carry of two persons", lambda: put("carry", np.zeros((2, 20, 3), np.float32)), BadInput, "carry"),
    ("a carry far away", lambda: put("carry", np.full((1, 20, 3), 51, np.float32)), OutOfRange, "carry"),
    ("a carry of NaN", lambda: put("carry", np.full((1, 20, 3), np.nan, np.float32)), NotFinite, "carry"),
    ("no phase", lambda: changed(carry_phase=None), NotState, "carry"),
    ("a phase over nothing", lambda: changed(carry_phase="1/0"), NotState, "carry"),
    ("a phase that no rate leaves", lambda: changed(carry_phase="1/7"), OutOfRange, "carry_phase"),
    ("a phase of years", lambda: changed(carry_phase="999999999999/1"), OutOfRange, "carry_phase"),
    ("a rate of NaN", lambda: changed(carry_hz="nan"), NotState, "carry"),
    ("a rate of 0", lambda: changed(carry_hz="0"), NotState, "carry"),
    ("the model's own rate", lambda: changed(carry_hz="30.0", carry_phase="1/1"), OutOfRange, "carry_phase"),
    *[(f"times {times}", lambda times=times: changed(carry_times=times), NotState, "carry_times") for times in TIMES],  # type: ignore[misc]
    ("a carry before the first frame", lambda: changed(position="0"), OutOfRange, "carry_phase"),
]


@pytest.mark.parametrize(("make", "error", "field"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_this_service_could_not_have_written_is_refused(make: Callable[[], bytes], error: type, field: str | None) -> None:
    with pytest.raises(ServiceError) as caught:
        check(decode(make()), manifest())
    assert type(caught.value) is error
    assert caught.value.field == field


def test_a_state_of_another_model_is_refused_before_anything_else() -> None:
    with pytest.raises(OtherModel, match=r"expected a state of chars/1 .*, got one of action/1"):
        check(decode(encode(session())), manifest("chars"))


@pytest.mark.parametrize("value", [-1.0, 2e6])
def test_a_memory_of_events_that_no_graph_leaves_is_refused(value: float) -> None:
    parts = tuple(p.model_copy(update={"role": "event"}) if p.role == "pool" else p for p in manifest().state)
    telling = manifest().model_copy(update={"state": parts})
    offset = next(p.offset for p in parts if p.role == "event")
    state = session().state.copy()
    check(decode(encode(session())), telling)
    state[offset] = value
    with pytest.raises(OutOfRange, match="in part event"):
        check(decode(encode(session(state=state))), telling)


def test_a_position_past_what_the_model_was_made_for_is_refused() -> None:
    limited = manifest().model_copy(update={"limits": manifest().limits.model_copy(update={"max_position": 69})})
    with pytest.raises(OutOfRange, match="expected at most 69, got 70"):
        check(decode(encode(session())), limited)


@given(data=st.binary(max_size=300) | st.builds(lambda n, b: n.to_bytes(8, "little") + b, st.integers(0, 300), st.binary(max_size=300)))
@settings(max_examples=300, deadline=None)
def test_no_bytes_get_more_than_a_refusal(data: bytes) -> None:
    with pytest.raises(ServiceError):
        decode(data)


@given(where=st.integers(0, 2000), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_is_refused_or_is_a_state(where: int, bit: int) -> None:
    data = bytearray(encode(session()))
    data[where] ^= 1 << bit
    try:
        at = check(decode(bytes(data)), manifest())
    except ServiceError:
        return
    assert at.state.shape == (N,)
    assert np.isfinite(at.state).all()


WORDS = ("?", "anna", "garden", "walked")


def stories() -> Manifest:
    """A memory of two sentences of three words, and its scores."""
    parts = Part(role="hidden", layer=0, name=SLOTS, offset=0, size=6), Part(role="last_logits", offset=6, size=2)
    told = {"modality": "sentences", "words": WORDS, "width": 3, "alphabet": None, "labels": ("attic", "garden"), "state": parts}
    return manifest("chars").model_copy(update=told)


@pytest.mark.parametrize("wrong", [2.5, 1.0, 5.0, -1.0, 1e30])
def test_a_memory_holds_numbers_of_words_alone(wrong: float) -> None:
    m = stories()
    state = np.array([0, 0, 0, 2, 4, 3, -0.5, 7.25], np.float32)
    sent = session(model=m.name, version=m.version, digest=m.sha256, state=state)
    assert np.array_equal(check(decode(encode(sent)), m).state, state)
    state[4] = wrong
    with pytest.raises(OutOfRange) as refused:
        check(decode(encode(sent)), m)
    assert refused.value.field == "state[4]"
    assert refused.value.detail == f"part slots: expected 0 or the number of a word, from 2 to 4, got {wrong:g}"


@pytest.mark.parametrize(("slots", "place"), [([0, 0, 0, 2, 0, 3], 5), ([0, 2, 0, 2, 3, 4], 1), ([0, 0, 2, 3, 0, 0], 2)])
def test_a_sentence_in_a_memory_has_no_hole(slots: list[float], place: int) -> None:
    m = stories()
    state = np.array([*slots, -0.5, 7.25], np.float32)
    with pytest.raises(OutOfRange, match="0 past a sentence's end") as refused:
        check(decode(encode(session(model=m.name, version=m.version, digest=m.sha256, state=state))), m)
    assert refused.value.field == f"state[{place}]"


def test_an_end_of_a_sentence_is_not_that_of_the_next() -> None:
    m = stories()
    state = np.array([2, 0, 0, 2, 3, 0, -0.5, 7.25], np.float32)
    assert np.array_equal(check(decode(encode(session(model=m.name, version=m.version, digest=m.sha256, state=state))), m).state, state)
