"""The Open Inference Protocol's bytes: what was written is what is read, and what cannot be read says why."""

import contextlib
import gzip
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from indrnn.service.errors import BadInput, NotFinite, NotSupported, OutOfAlphabet, OutOfRange, ServiceError, TooLarge
from indrnn.service.oip import message
from indrnn.service.oip.compression import accepted, compress
from indrnn.service.oip.message import Ask, InferAnswer, Output, SentTensor, decode
from indrnn.service.oip.rows import InferLimits, read
from indrnn.service.serving.request import decompress
from indrnn.service.serving.signature import Signature, Spec
from indrnn.service.serving.steps import tensor_digest

K, N = 4, 6
BOUNDS = InferLimits(rows=8, steps=100, sequence_steps=10, reply=10_000)


def signature(datatype: str = "FP32", shape: tuple[int, ...] = (-1, -1, 2, 3)) -> Signature:
    inputs = [Spec("x", datatype, shape), Spec("lengths", "INT64", (-1, 1), True), Spec("state", "FP32", (-1, N), True)]
    outputs = [Spec("logits", "FP32", (-1, -1, K)), Spec("state_out", "FP32", (-1, N), True)]
    return Signature("m", "1", {t.name: t for t in inputs}, {t.name: t for t in outputs}, K, N)


def request(inputs: list[dict[str, Any]], raw: bytes = b"", **more: Any) -> tuple[bytes, int]:
    head = orjson.dumps({"inputs": inputs, **more})
    return head + raw, len(head)


def tensor(array: np.ndarray, datatype: str = "FP32", name: str = "x", shape: list[Any] | None = None) -> Ask:
    return Ask("", [SentTensor(name, datatype, tuple(shape or array.shape), array.tobytes())], None)


ARRAYS = st.one_of(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4), elements=st.floats(width=32, allow_nan=False)),
    hnp.arrays(np.int64, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)),
)


@given(ARRAYS, st.booleans(), st.booleans())
def test_a_tensor_is_read_as_it_was_written(array: np.ndarray, binary: bool, nested: bool) -> None:
    datatype = "FP32" if array.dtype == np.float32 else "INT64"
    described: dict[str, Any] = {"name": "t", "datatype": datatype, "shape": list(array.shape)}
    if binary:
        described["parameters"] = {"binary_data_size": array.nbytes}
    else:
        described["data"] = (array if nested else array.reshape(-1)).tolist()
        described = orjson.loads(orjson.dumps(described))
        if not np.isfinite(array).all():
            return  # JSON has no infinity
    body, length = request([described], array.tobytes() if binary else b"")
    ask = message.read(body, length if binary else None)
    back = decode(ask.inputs[0], Spec("t", datatype, (-1,) * array.ndim), "m")
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


@given(ARRAYS, ARRAYS, st.booleans(), st.booleans(), st.text(max_size=5))
def test_a_reply_carries_its_outputs_each_as_asked_for(a: np.ndarray, b: np.ndarray, a_raw: bool, b_raw: bool, ident: str) -> None:
    outputs = [Output("a", "FP32" if a.dtype == np.float32 else "INT64", a, a_raw), Output("b", "INT64", b, b_raw)]
    if any(not o.binary and not np.isfinite(o.array).all() for o in outputs):
        return
    body, length = message.write(InferAnswer("m", "1", ident, outputs, 3, 4))
    assert (length is not None) == (a_raw or b_raw)
    head = orjson.loads(body[:length])
    assert head["model_name"] == "m"
    assert head.get("id", "") == ident
    assert head["parameters"] == {"indrnn_step": 3, "indrnn_position": 4}
    at = length or 0
    for described, o in zip(head["outputs"], outputs, strict=True):
        assert described["shape"] == list(o.array.shape)
        if o.binary:
            size = described["parameters"]["binary_data_size"]
            back = np.frombuffer(body[at : at + size], o.array.dtype).reshape(o.array.shape)
            at += size
        else:
            back = np.array(described["data"], o.array.dtype).reshape(o.array.shape)
        assert np.array_equal(back, o.array)
    assert at in (0, len(body))


@given(st.binary(max_size=200), st.none() | st.integers(0, 200))
def test_any_bytes_are_read_or_refused_with_a_reason(body: bytes, length: int | None) -> None:
    if length is not None and length > len(body):
        length = len(body)
    with pytest.raises(BadInput):
        message.read(body, length)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "shape", "data", "parameters"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["id", "inputs", "outputs", "parameters"]), JSONS), JSONS)
def test_json_of_any_shape_is_read_or_refused_and_nothing_else_happens(head: dict[str, Any], item: object) -> None:
    for inputs in (head.get("inputs"), [item], [{"name": "x", "datatype": "FP32", "shape": item, "data": item}]):
        with contextlib.suppress(ServiceError):
            read(message.read(orjson.dumps({**head, "inputs": inputs}), None), signature(), BOUNDS)


X = np.zeros((1, 3, 2, 3), np.float32)


def says(text: str, ask: Ask, made: Signature | None = None, kind: type[Exception] = BadInput) -> None:
    with pytest.raises(kind) as caught:
        read(ask, made or signature(), BOUNDS)
    assert text in str(caught.value)


def test_what_does_not_fit_the_model_is_refused_in_tritons_words() -> None:
    says("inference input 'x' data-type is 'FP16', but model 'm' expects 'FP32'", tensor(X.astype(np.float16), "FP16"))
    says("data-type is 'FP64'", tensor(X.astype(np.float64), "FP64"))
    says("data-type is 'BYTES'", tensor(X, "BYTES"))
    says("unexpected shape for input 'x' for model 'm'. Expected [-1,-1,2,3], got [3,2,3]", tensor(X[0]))
    says("unexpected shape for input 'x' for model 'm'. Expected [-1,-1,2,3], got [1,3,3,2]", tensor(X.reshape(1, 3, 3, 2)))
    says("input byte size mismatch for input 'x' for model 'm'. Expected 96, got 72", tensor(X, shape=[1, 4, 2, 3]))
    says("got 72", tensor(X, shape=[2**62, 2**62, 2, 3]))  # the size is no 64-bit number any more
    says("unexpected inference input 'y' for model 'm'", tensor(X, name="y"))
    says("missing required input(s) ['x']", Ask("", [], None))
    says("input 'x' already exists in request", Ask("", tensor(X).inputs * 2, None))
    says("must have from 1 to 100 time steps, got 101", tensor(np.zeros((1, 101, 2, 3), np.float32)), kind=TooLarge)
    says("got 0", tensor(X[:, :0]), kind=TooLarge)
    says("batch-size must be from 1 to 8 for 'm', got 9", tensor(np.zeros((9, 1, 2, 3), np.float32)))
    says("batch-size must be from 1 to 8 for 'm', got 0", tensor(X[:0]))
    says("would have", tensor(np.zeros((8, 90, 2, 3), np.float32)), kind=TooLarge)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_numbers_that_are_not_finite_are_refused_in_x_and_in_state(value: float, what: str) -> None:
    x = X.copy()
    x[0, 2, 1, 1] = value
    says(f"expected finite numbers, got {what}", tensor(x), kind=NotFinite)
    state = np.full((1, N), value, np.float32)
    ask = Ask("", [*tensor(X).inputs, SentTensor("state", "FP32", (1, N), state.tobytes())], None)
    says(f"input 'state' for model 'm': expected finite numbers, got {what}", ask, kind=NotFinite)


@pytest.mark.parametrize("symbol", [-1, K, 2**62])
def test_a_symbol_outside_the_alphabet_is_refused(symbol: int) -> None:
    says(
        f"expected symbols from 0 to {K - 1}, got {symbol}",
        tensor(np.array([[0, symbol]]), "INT64"),
        signature("INT64", (-1, -1)),
        OutOfAlphabet,
    )


def test_lengths_may_have_one_axis_or_two_and_must_fit() -> None:
    for shape in ((2,), (2, 1)):
        lengths = SentTensor("lengths", "INT64", shape, np.array([3, 1]).tobytes())
        rows = read(Ask("", [*tensor(np.repeat(X, 2, 0)).inputs, lengths], None), signature(), BOUNDS)
        assert [len(rows.content(b).x) for b in (0, 1)] == [3, 1]
    for odd in ([0], [4], [-1]):
        lengths = SentTensor("lengths", "INT64", (1,), np.array(odd).tobytes())
        says("expected 1 numbers from 1 to 3", Ask("", [*tensor(X).inputs, lengths], None))
    says("expected 1 numbers", Ask("", [*tensor(X).inputs, SentTensor("lengths", "INT64", (2,), np.array([1, 1]).tobytes())], None))


def test_the_digest_of_a_step_tells_steps_apart_and_nothing_else() -> None:
    def digest(x: np.ndarray, end: bool = False, lengths: list[int] | None = None) -> bytes:
        rows = read(tensor(x), signature(), BOUNDS)
        return tensor_digest(type(rows)(rows.x, lengths, None).content(0), rows.x.shape[1], end)

    other = X.copy()
    other[0, 2, 1, 2] = 1e-30
    digests = [digest(X), digest(X, True), digest(X[:, :2]), digest(X, lengths=[2]), digest(other)]
    assert len(set(digests)) == 5
    assert digest(X.copy()) == digests[0]


@pytest.mark.parametrize(
    ("value", "size", "expected"),
    [(None, 5, None), ("0", 5, 0), ("5", 5, 5), ("6", 5, "bad"), ("-1", 5, "bad"), ("x", 5, "bad"), ("9" * 5_000, 5, "bad")],
)
def test_the_length_of_the_header_is_a_number_within_the_body(value: str | None, size: int, expected: int | str | None) -> None:
    if expected == "bad":
        with pytest.raises(BadInput, match="Unable to parse Inference-Header-Content-Length"):
            message.header_length(value, size)
    else:
        assert message.header_length(value, size) == expected


def test_a_request_of_raw_bytes_alone_is_one_row() -> None:
    ask = message.read_raw(X.tobytes(), signature())
    assert np.array_equal(read(ask, signature(), BOUNDS).x, X)
    for odd in (b"", X.tobytes()[:-1]):
        with pytest.raises(BadInput, match="Expected a multiple of 24"):
            message.read_raw(odd, signature())


@given(st.binary(max_size=2_000), st.integers(0, 2_000), st.sampled_from(["gzip", "x-gzip", "GZIP", "gzip, identity"]))
def test_a_gzip_body_may_have_several_members(body: bytes, cut: int, name: str) -> None:
    packed = gzip.compress(body[:cut]) + gzip.compress(b"") + gzip.compress(body[cut:])
    assert decompress(packed, name, 2_000) == body
    for broken in (packed[:-1], packed + b"x", packed + packed[:12]):
        with pytest.raises(BadInput):
            decompress(broken, name, 2_000)


def test_members_are_unpacked_once_each_and_count_towards_the_limit_together() -> None:
    member = gzip.compress(bytes(700))
    assert decompress(member * 2, "gzip", 1_400) == bytes(1_400)
    with pytest.raises(TooLarge, match="at most 1399 bytes after decompression"):
        decompress(member * 2, "gzip", 1_399)
    with pytest.raises(BadInput, match="not one whole gzip stream"):
        decompress(gzip.compress(b"") * 70_000, "gzip", 1_000)


def test_deflate_is_zlibs_form_or_the_bare_one_and_codings_are_undone_from_the_last() -> None:
    bare = zlib.compressobj(wbits=-15)
    assert decompress(bare.compress(b"abc") + bare.flush(), "deflate", 10) == b"abc"
    assert decompress(gzip.compress(zlib.compress(b"abc")), "deflate, gzip", 20) == b"abc"
    assert decompress(b"", "gzip", 10) == b"", "some clients say it of no body too"
    with pytest.raises(BadInput, match="at most 2 encodings, got 3"):
        decompress(b"x", "gzip, gzip, gzip", 10)
    with pytest.raises(NotSupported, match="unsupported Content-Encoding 'zstd'"):
        decompress(b"x", "gzip, zstd", 10)


@given(st.binary(max_size=2_000), st.sampled_from(["gzip", "deflate"]))
def test_a_compressed_body_is_the_body_and_always_the_same(body: bytes, encoding: str) -> None:
    packed = compress(body, encoding)
    assert decompress(packed, encoding, 2_000) == body
    assert compress(body, encoding) == packed
    assert (gzip.decompress if encoding == "gzip" else zlib.decompress)(packed) == body
    for cut in (packed[:-1], packed + b"x", b"\x00" + packed):
        with pytest.raises(BadInput):
            decompress(cut, encoding, 2_000)


def test_a_small_body_that_grows_beyond_the_limit_is_refused_before_it_has_grown() -> None:
    with pytest.raises(TooLarge, match="at most 1000 bytes after decompression"):
        decompress(gzip.compress(bytes(50_000_000)), "gzip", 1_000)
    with pytest.raises(NotSupported, match="unsupported Content-Encoding 'br'"):
        decompress(b"", "br", 1_000)
    assert decompress(b"abc", "identity", 1_000) == b"abc"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate, gzip", "deflate"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("gzip;q=0", None),
        ("br, *", None),
        ("gzip;q=x", None),
        ("x-gzip", "gzip"),
    ],
)
def test_the_client_says_how_the_reply_is_compressed(header: str, expected: str | None) -> None:
    assert accepted(header) == expected


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"sequence_id": 7}, (7, False, False, None)),
        ({"sequence_id": "7", "sequence_start": True}, ("7", True, False, None)),
        ({"sequence_id": 2**64 - 1, "sequence_end": True, "indrnn_step": 3}, (2**64 - 1, False, True, 3)),
        ({"sequence_id": 0}, (None, False, False, None)),
        ({"sequence_id": ""}, (None, False, False, None)),
        ({"of_the_client": [1], "priority": 1}, (None, False, False, None)),
    ],
)
def test_parameters_are_read(parameters: dict[str, Any], expected: tuple[Any, ...]) -> None:
    ask = Ask("", [], None)
    ask.take_parameters(parameters)
    assert (ask.sequence, ask.start, ask.end, ask.step) == expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"sequence_id": -1}, {"sequence_id": True}, {"sequence_id": 1.0}, {"sequence_id": "x" * 129},
        {"sequence_start": 1}, {"sequence_end": "true"}, {"indrnn_step": 0}, {"indrnn_step": "1"}, {"indrnn_step": True},
        {"indrnn_stepp": 1}, {"triton_foo": 1}, {"timeout": -1}, {"timeout": 1.5}, {"binary_data_output": 1},
    ],
)  # fmt: skip
def test_parameters_of_another_type_reserved_ones_and_misspelt_ones_of_ours_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Ask("", [], None).take_parameters(parameters)


def told(x: list[float], state: list[float] | None = None) -> Ask:
    """A request of one sentence, and the state that a client holds."""
    ask = tensor(np.array([[x]], np.float32))
    if state is not None:
        ask.inputs.extend(tensor(np.array([state], np.float32), name="state").inputs)
    return ask


@pytest.mark.parametrize("wrong", [2.5, -1.0, 5.0, 1e30])
def test_sentences_are_numbers_of_words(wrong: float) -> None:
    of_words = replace(signature(shape=(-1, -1, 3)), words=4, slots=(0, 3))
    assert read(told([1, 4, 0], [0, 2, 4, 0.5, -1, 1e9]), of_words, BOUNDS).state is not None
    what = f"expected 0 or the number of a word, from 1 to 4, got {wrong:g}"
    says(f"inference input 'x' for model 'm': {what}", told([1, wrong, 0]), of_words, OutOfAlphabet)
    in_slots = what.replace("from 1", "from 2")
    says(f"inference input 'state' for model 'm': {in_slots}", told([1, 2, 0], [0, wrong, 0, 0, 0, 0]), of_words, OutOfRange)


@pytest.mark.parametrize(("x", "word"), [([0, 2, 0], 2), ([2, 0, 3], 3), ([0, 0, 4], 4)])
def test_no_word_stands_behind_a_sentences_end(x: list[float], word: int) -> None:
    of_words = replace(signature(shape=(-1, -1, 3)), words=4, slots=(0, 3))
    says(f"inference input 'x' for model 'm': expected 0 past a sentence's end, got {word} behind a 0", told(x), of_words, OutOfAlphabet)
    for whole in ([0, 0, 0], [1, 0, 0], [2, 3, 4]):
        assert read(told(whole), of_words, BOUNDS).x.size == 3


def test_no_question_is_kept_in_a_memory() -> None:
    of_words = replace(signature(shape=(-1, -1, 3)), words=4, slots=(0, 3))
    says("from 2 to 4, got 1", told([1, 2, 0], [0, 1, 0, 0, 0, 0]), of_words, OutOfRange)
