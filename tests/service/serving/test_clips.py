"""Reading clips: every way to be wrong is named, joints not seen hold their place, and any split gives the same frames."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indrnn.export.bundle import Layout
from indrnn.frames.joints import hold
from indrnn.frames.rate import Carry, resample
from indrnn.service.errors import BadInput, OutOfRange, ServiceError, TooLarge
from indrnn.service.serving.skeleton import ClipReader, _without_nulls

OWN = Layout(joint_names=("a", "b"), table=((0,), (1,)))
WIDE = Layout(joint_names=("b", "x", "a"), table=((2,), (0, 1)))
READER = ClipReader({"own": OWN, "wide": WIDE}, "own", 1, 30.0, 10)
PAIR = ClipReader({"own": OWN}, "own", 2, 30.0, 10)
FRAME = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def test_a_clip_becomes_frames_with_a_person_axis() -> None:
    assert READER.read([FRAME, FRAME], OWN, "s").tolist() == [[FRAME], [FRAME]]
    assert READER.read([[FRAME]], OWN, "s").tolist() == [[FRAME]]
    assert READER.read([[[1, 2, 3], [4, 5, 6]]], OWN, "s").dtype == np.float32


def test_a_missing_second_person_is_absent() -> None:
    assert PAIR.read([FRAME], OWN, "s").tolist() == [[FRAME, [[0.0] * 3] * 2]]


def test_another_layout_is_mapped_and_a_mean_takes_the_seen_joints() -> None:
    assert READER.read([[[2, 2, 2], [4, 4, 4], [9, 9, 9]]], WIDE, "s").tolist() == [[[[9.0] * 3, [3.0] * 3]]]
    assert READER.read([[[2, 2, 2], None, [9, 9, 9]]], WIDE, "s").tolist() == [[[[9.0] * 3, [2.0] * 3]]]
    assert np.isnan(READER.read([[None, None, [9, 9, 9]]], WIDE, "s")[0, 0, 1]).all()


@pytest.mark.parametrize(
    ("clip", "field", "said"),
    [
        ([], "s", "expected a list of frames"),
        ("text", "s", "expected a list of frames, got 'text'"),
        ({"a": 1}, "s", "expected a list of frames, got an object"),
        ([FRAME, FRAME[:1]], "s[1]", "expected 2 joints, got 1"),
        ([FRAME, [*FRAME, [0, 0, 0]]], "s[1]", "expected 2 joints, got 3"),
        ([FRAME[:1]], "s[0]", "expected 2 joints, got 1"),
        ([FRAME, [[1, 2], [3, 4, 5]]], "s[1][0]", "expected x, y and z, or null, got 2 elements"),
        ([[[1, 2], [3, 4]]], "s[0][0]", "expected x, y and z, or null, got 2 elements"),
        ([FRAME, None], "s[1]", "expected a list of joints, got null"),
        ([[[1, 2, "3"], [4, 5, 6]]], "s[0][0][2]", "expected a number, got '3'"),
        ([[[1, 2, True], None]], "s[0][0][2]", "expected a number, got true"),
        ([[[1, 2.5, True], [4, 5, 6]]], "s[0][0][2]", "expected a number, got true"),
        ([[[[1, 2.5, 3], [4, 5, False]]]], "s[0][0][1][2]", "expected a number, got false"),
        ([[None]], "s[0]", "expected 2 joints, got 1"),
        ([[[1, 2, None], [4, 5, 6]]], "s[0][0][2]", "expected a number, got null"),
        ([[[1, 2, [3]], [4, 5, 6]]], "s[0][0][2]", "expected a number, got a list of 1"),
        ([[FRAME, FRAME]], "s[0]", "expected at most 1 persons, got 2"),
        ([1.0, 2.0], "s[0]", "expected a list of joints, got 1.0"),
        ([[]], "s[0]", "expected 2 joints, got 0"),
        ([[[]]], "s[0]", "expected 2 joints, got 1"),
    ],
)
def test_what_does_not_fit_is_named(clip: Any, field: str, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        READER.read(clip, OWN, "s")
    assert raised.value.field == field
    assert said in raised.value.detail


@pytest.mark.parametrize("number", [50.1, -286.0, -1e30, 10**400, 1e308, float("inf"), 2**63])
def test_numbers_that_are_no_metres_are_refused(number: float) -> None:
    clip = [FRAME, [[0, 0, 0], [0, number, 0]]]
    with pytest.raises(OutOfRange) as raised:
        READER.read(clip, OWN, "s")
    assert raised.value.field == "s[1][1][1]"


def test_a_clip_over_the_limit_is_too_large() -> None:
    with pytest.raises(TooLarge, match="at most 10 frames, got 11"):
        READER.read([FRAME] * 11, OWN, "s")


@pytest.mark.parametrize("layout", ["nope", 3, ["own"], ""])
def test_an_unknown_layout_is_refused_with_the_known_ones(layout: object) -> None:
    with pytest.raises(BadInput, match="expected one of own, wide"):
        READER.check_layout(layout)


@pytest.mark.parametrize("hz", [0, -1, 1e9, "30", True, float("nan")])
def test_a_rate_out_of_range_is_refused(hz: object) -> None:
    with pytest.raises(BadInput, match="expected frames per second from 1 to 1000"):
        READER.check_hz(hz)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=30,
)


@given(json_like)
def test_any_json_is_read_or_refused_but_never_breaks(clip: object) -> None:
    try:
        x = PAIR.read(clip, OWN, "s")
    except ServiceError:
        return
    assert x.shape[1:] == (2, 2, 3)
    assert not np.isinf(x).any()


# --- joints not seen ------------------------------------------------------------------------------------------------------------------

frames = st.integers(1, 12).flatmap(
    lambda t: st.lists(st.lists(st.none() | st.integers(-9, 9), min_size=2, max_size=2), min_size=t, max_size=t)
)


def clip_of(values: list[list[int | None]]) -> np.ndarray:
    x = np.array([[[math.nan if v is None else v] * 3 for v in frame] for frame in values], np.float32)
    return x[:, None]


def test_a_joint_not_seen_holds_its_last_place() -> None:
    x = hold(clip_of([[1, 2], [None, 3], [None, 4]]), np.zeros((1, 2, 3), np.float32))
    assert x[:, 0, :, 0].tolist() == [[1, 2], [1, 3], [1, 4]]


def test_a_joint_never_seen_stands_among_the_seen_ones_and_nobody_seen_is_absent() -> None:
    x = hold(clip_of([[None, None], [None, 3]]), np.zeros((1, 2, 3), np.float32))
    assert x[:, 0, :, 0].tolist() == [[0, 0], [3, 3]]


def slow_hold(x: np.ndarray, last: np.ndarray) -> np.ndarray:
    """What `hold` promises, joint by joint."""
    out = []
    for frame in x:
        now = np.zeros_like(frame)
        for p, person in enumerate(frame):
            gone = np.isnan(person).any(-1)
            if not person[~gone].any():
                continue
            filling = last[p] if last[p].any() else np.broadcast_to(person[~gone].mean(0), person.shape)
            now[p] = np.where(gone[:, None], filling, person)
        last = now
        out.append(now)
    return np.array(out)


@given(frames, st.booleans())
def test_holding_is_what_it_says_joint_by_joint(values: list[list[int | None]], began: bool) -> None:
    x, last = clip_of(values), np.full((1, 2, 3), 7.0 if began else 0.0, np.float32)
    assert np.array_equal(hold(x, last), slow_hold(x, last))


@given(frames, st.integers(0, 12))
def test_holding_in_two_pieces_is_holding_in_one(values: list[list[int | None]], at: int) -> None:
    x, start = clip_of(values), np.zeros((1, 2, 3), np.float32)
    whole = hold(x, start)
    first = hold(x[:at], start)
    rest = hold(x[at:], first[-1] if len(first) else start)
    assert np.array_equal(np.concatenate([first, rest]), whole)


# --- rates ----------------------------------------------------------------------------------------------------------------------------

rates = st.sampled_from([10.0, 15.0, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0, 120.0])


def moving(n: int) -> np.ndarray:
    """One joint that goes 1 metre a second in x at 30 frames a second... as many frames as asked."""
    return np.broadcast_to(np.arange(1, n + 1, dtype=np.float32)[:, None, None, None], (n, 1, 1, 3)).copy()


@given(st.integers(1, 60), rates, st.lists(st.integers(1, 20), max_size=8))
def test_resampling_in_pieces_is_resampling_in_one(n: int, hz: float, cuts: list[int]) -> None:
    x = moving(n)
    whole, end = resample(x, hz, 30.0, None)
    carry: Carry | None = None
    parts, at = [], 0
    for size in [*cuts, n]:
        if at < n:
            part, carry = resample(x[at : at + size], hz, 30.0, carry)
            parts.append(part)
            at += size
    assert np.array_equal(np.concatenate(parts), whole)
    assert carry is not None
    assert (carry.numerator, carry.denominator) == (end.numerator, end.denominator)


@given(st.integers(2, 60), rates)
def test_frames_come_at_the_models_rate_on_straight_lines(n: int, hz: float) -> None:
    out, _ = resample(moving(n), hz, 30.0, None)
    ratio = Fraction(hz).limit_denominator(1000) / 30
    assert len(out) == math.floor((n - 1) / ratio) + 1
    assert np.allclose(out[:, 0, 0, 0], 1 + np.arange(len(out)) * float(ratio), atol=1e-4)


def test_a_person_who_comes_is_not_drawn_in_from_the_origin() -> None:
    x = np.zeros((3, 1, 1, 3), np.float32)
    x[1:] = 5
    out, _ = resample(x, 15.0, 30.0, None)
    assert out[:, 0, 0, 0].tolist() == [0, 5, 5, 5, 5]


@given(st.lists(st.integers(1, 10), min_size=1, max_size=5), st.sampled_from([OWN, WIDE]), st.sampled_from([READER, PAIR]))
def test_clips_read_together_are_as_each_alone(lengths: list[int], layout: Layout, reader: ClipReader) -> None:
    rng = np.random.default_rng(sum(lengths))
    clips = [rng.normal(size=(n, layout.joints, 3)).round(3).tolist() for n in lengths]
    together = reader.read_alike(clips, layout)
    assert together is not None
    for clip, x in zip(clips, together, strict=True):
        alone = reader.read(clip, layout, "s")
        assert (x.dtype, x.shape, x.tobytes()) == (alone.dtype, alone.shape, alone.tobytes())


@pytest.mark.parametrize(
    "odd", [[], [FRAME] * 11, [FRAME[:1]], [[[1, 2, None], [4, 5, 6]]], [[None, [4, 5, 6]]], [[FRAME]], [[[1, 2, 51], [4, 5, 6]]]]
)
def test_a_clip_that_takes_a_closer_look_is_not_read_together_with_others(odd: Any) -> None:
    assert READER.read_alike([[FRAME], odd], OWN) is None


def test_a_long_text_among_many_numbers_takes_no_memory() -> None:
    """NumPy would make an array of texts, here of 10^11 bytes."""
    clip: list[object] = [[[[0.0, 0.0, "x" * 500_000], [0.0] * 3]]] + [[[[0.0] * 3] * 2]] * 10_000
    with pytest.raises(BadInput, match="expected a number, got 'xxx"):
        ClipReader({"own": OWN}, "own", 1, 30.0, 20_000).read(clip, OWN, "s")


def test_the_least_integer_is_out_of_range_also_among_many_clips() -> None:
    assert READER.read_alike([[[[0, 0, -(2**63)], [0, 0, 0]]]], OWN) is None


def test_each_null_joint_becomes_a_list_of_its_own() -> None:
    """Of one list at several places of what is ragged NumPy reads memory that is not its own: a request could end the service."""
    joint = [0.1, 0.2, 0.3]
    for frame in ([None, joint, None, [None, 0.2]], [[None, joint, None], [None, None, joint]]):
        made = _without_nulls(frame, 3)
        lists = [one for item in made for one in [item, *item] if isinstance(one, list) and one is not joint]  # type: ignore[attr-defined]
        assert len({id(one) for one in lists}) == len(lists)


def test_a_null_number_beside_null_joints_is_refused_in_words() -> None:
    for clip in ([[None, [0.1, None, 0.3]], FRAME], [FRAME, [[None, 0.2, 0.3], None], [None, [1.0, 2.0, 3.0]]]):
        with pytest.raises(BadInput, match="expected"):
            READER.read(clip, OWN, "s")
