"""Steps that are read by the form of the last one: what is read is what JSON says, and what is no JSON is not read."""

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indrnn.service.serving.request import MAX_STEP
from indrnn.service.stream.plain_steps import StepForm, plain_step

NUMBERS = st.integers(-50, 50) | st.floats(-50, 50).map(lambda value: round(value, 4)) | st.floats(-1e-5, 1e-5)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4))
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": ")])


def clip(shape: tuple[int, int], numbers: Any) -> list[Any]:
    return [[[next(numbers) for _ in range(3)] for _ in range(shape[1])] for _ in range(shape[0])]


def text(number: object, frames: object, separators: tuple[str, str] = (",", ":")) -> bytes:
    return json.dumps({"type": "step", "step": number, "frames": frames}, separators=separators).encode()


FRAMES = [[[1, 2.5, -3], [4, 5, 6]]]
FORM = StepForm.of(text(7, FRAMES), FRAMES)


@given(shape=SHAPES, data=st.data(), separators=SEPARATORS, number=st.integers(1, MAX_STEP))
def test_a_step_of_a_known_form_is_read_as_json_reads_it(shape: tuple[int, int], data: Any, separators: Any, number: int) -> None:
    drawn = [data.draw(st.lists(NUMBERS, min_size=3 * shape[0] * shape[1], max_size=3 * shape[0] * shape[1])) for _ in range(2)]
    first, second = (clip(shape, iter(numbers)) for numbers in drawn)
    form = StepForm.of(text(1, first, separators), first)
    if any("e" in repr(value) for value in drawn[0]):
        assert form is None, "a form has no letters"
        return
    assert form is not None
    found = form.numbers(text(number, second, separators))
    if any("e" in repr(value) for value in drawn[1]):
        assert found is None
        return
    assert found is not None
    assert found[0] == number
    flat = orjson.loads(b"[" + found[1] + b"]")
    assert np.array_equal(np.asarray(flat).reshape(form.shape), np.asarray(second))


SPOILT = [b"", b"1", b"0", b".", b"-", b",", b"[", b"]", b" ", b"],[", b"e", b'"']


@settings(max_examples=500)
@given(data=st.data())
def test_what_a_form_reads_is_a_plain_step_with_those_numbers(data: Any) -> None:
    """Spoilt anywhere, a message is either not of the form, or has what the form says; what orjson refuses afterwards is neither."""
    assert FORM is not None
    spoilt = bytearray(text(8, [[[0.5, 1, 22], [-4, 5.25, 6]]]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        spoilt[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from(SPOILT))
    found = FORM.numbers(bytes(spoilt))
    if found is None:
        return
    try:
        flat = orjson.loads(b"[" + found[1] + b"]")
    except orjson.JSONDecodeError:
        return
    message = plain_step(bytes(spoilt), "frames")
    assert message is not None
    assert message["step"] == found[0]
    assert np.asarray(message["frames"]).ravel().tolist() == flat
    assert np.asarray(message["frames"]).shape == FORM.shape


@pytest.mark.parametrize(
    "other",
    [
        text(8, [[[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]]),
        text(8, [[[1, 2], [3, 4, 5, 6]]]),
        text(8, [[[1, 2, 3], [4, 5, None]]]),
        text(8, [[[1, 2, 3], [4, 5, "6"]]]),
        text(0, FRAMES),
        text(None, FRAMES),
        text(MAX_STEP + 1, FRAMES),
        text(8, FRAMES).replace(b"8", b"08"),
        text(8, FRAMES).replace(b"],[", b",4],[").replace(b"4,", b"", 1),
        text(8, FRAMES).replace(b"-3],[4", b"-3],4[") + b"",
        text(8, FRAMES).replace(b"type", b"typo"),
        text(8, FRAMES).replace(b"type", b"type1"),
        text(8, FRAMES)[:-1],
        text(8, FRAMES) + b"}",
    ],
)
def test_what_looks_otherwise_is_not_of_the_form(other: bytes) -> None:
    assert FORM is not None
    assert FORM.numbers(text(8, FRAMES)) is not None
    assert FORM.numbers(other) is None


TEXT = b'{"type":"step","step":1,"frames":[[["1",2,3]]]}'


@pytest.mark.parametrize("payload", [text(1, [[1, 2, 3]]), text(1, "x"), TEXT, text(None, FRAMES)])
def test_other_messages_have_no_form(payload: bytes) -> None:
    assert StepForm.of(payload, FRAMES) is None
    assert StepForm.of(text(1, FRAMES), np.zeros((1, 2, 3))) is None
