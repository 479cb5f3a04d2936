"""Lost joints written as zeros, units, axes and joint orders of other cameras; and what can be no body is `other`, in any split."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from indrnn.export.bundle import Layout, Manifest, read
from indrnn.frames.anatomy import ENTRIES, _packed, _unpacked
from indrnn.frames.joints import hold
from indrnn.frames.layouts import ORDERS
from indrnn.frames.rate import may_be_left_over
from indrnn.service.engine.requests import Exact, Frames
from indrnn.service.engine.runtime import BodyWatch, Engine, Feeding, ModelFacts, frames_of, prepare
from indrnn.service.errors import BadInput, NotState, OutOfRange, ServiceError
from indrnn.service.oip.inference import content_of
from indrnn.service.oip.message import Ask
from indrnn.service.oip.rows import Rows
from indrnn.service.serving.modality import EventModality, at_times
from indrnn.service.serving.skeleton import AS_IT_IS, DOUBTS, ClipReader, Sent, SkeletonModality, warned
from indrnn.service.session.machine import Scores, Session
from indrnn.service.session.state_file import _timed, check, decode, encode
from indrnn.service.store.record import decode_carry, encode_carry

Change = Callable[[Any], Any]
BUNDLE = read(Path("bundles/action/1"))
WAVE = np.array(json.loads(Path("examples/wave.json").read_text())["sequences"][0])
MODALITY = SkeletonModality(BUNDLE.manifest, 5_000)
NAMES = BUNDLE.manifest.layouts["utd20"].joint_names
ARMS = [j for j, name in enumerate(NAMES) if any(part in name for part in ("elbow", "wrist", "hand"))]
FLAT = Layout(joint_names=("a", "b", "c"), table=((0,), (1,), (2,)))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(BUNDLE, "cpu", 1, 2)


def answer(engine: Engine, content: Frames, pieces: tuple[int, ...] = ()) -> dict[str, Any]:
    """What is answered after the last piece of a clip that comes in pieces of these sizes, over and over; whole for none."""
    facts = ModelFacts.of(BUNDLE.manifest, 5_000)
    session = Session("s", "action", "1", "", "", np.zeros(facts.state_size, np.float32), 0, 0, 0.0, 1.0)
    at, scores = 0, None
    while at < len(content.x):
        size = pieces[session.step % len(pieces)] if pieces else len(content.x)
        prepared = prepare(content._replace(x=content.x[at : at + size]), session, facts)
        work = Feeding(prepared.x, prepared.carry, size, session.state, facts.last_logits, False, None, 0.0)
        work.lost = prepared.lost
        while not work.finished:
            (result,) = engine.run([work.next_row()])
            work.take(result.logits, result.state, result.doubts)
        if len(prepared.x) == 0:
            assert facts.frames is not None
            assert facts.frames.watch is not None
            work.doubts = facts.frames.watch.doubts(work.state)
        session = session._replace(state=work.state, carry=prepared.carry, step=session.step + 1, position=session.position + size)
        at, scores = at + size, work.result()
    assert scores is not None
    (words,) = MODALITY.word([(scores, content)], 27)
    return words


# --- zeros for joints not seen -----------------------------------------------------------------------------------------------------------


def with_lost_arms(value: Any) -> list[Any]:
    clip = WAVE.tolist()
    for t in range(0, len(clip), 3):
        for j in ARMS:
            clip[t][j] = value
    return clip


def test_lost_arms_written_as_zeros_are_said_and_with_the_option_answered_as_nulls(engine: Engine) -> None:
    nulls, zeros = with_lost_arms(None), with_lost_arms([0.0, 0.0, 0.0])
    want = answer(engine, MODALITY.read(nulls, None, None, "s"))
    assert want["predictions"][0]["label"] == "wave"
    assert "warnings" not in want
    read = MODALITY.read(zeros, None, None, "s", {"lost": "zero"})
    assert np.array_equal(read.x, MODALITY.read(nulls, None, None, "s").x, equal_nan=True)  # so the digest of a step is the same
    assert answer(engine, read) == want
    told = answer(engine, MODALITY.read(zeros, None, None, "s"))
    assert "left elbow, left wrist, left hand and 3 more at exactly 0, 0, 0 in 24 of 72 frames" in told["warnings"][0]
    assert told["predictions"][0]["label"] == "other"  # limbs of three metres


def test_the_root_of_centred_data_and_absent_persons_are_no_lost_joints() -> None:
    centred = WAVE - WAVE[:, NAMES.index("hip centre"), None]
    assert MODALITY.read(centred.tolist(), None, None, "s").warnings == ()
    assert MODALITY.read(np.zeros_like(WAVE).tolist(), None, None, "s").warnings == ()
    hand = centred.copy()
    hand[:, NAMES.index("left hand")] = 0
    assert "left hand" in MODALITY.read(hand.tolist(), None, None, "s").warnings[0]  # two joints in one place
    assert not np.isnan(MODALITY.read(np.zeros_like(WAVE).tolist(), None, None, "s", {"lost": "zero"}).x).any()


def test_many_clips_at_once_give_those_with_zeros_to_the_closer_look() -> None:
    plain, zeros = WAVE.tolist(), with_lost_arms([0, 0, 0])
    found = MODALITY.read_alike([plain, zeros], None, [None, None])
    assert found[0] is not None
    assert found[1] is None
    centred = (WAVE - WAVE[:, 3:4]).tolist()
    assert MODALITY.read_alike([centred], None, [None])[0] is not None


# --- units, axes, orders -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "more"),
    [
        (WAVE * 1000, {"unit": "mm"}),
        (WAVE * 100, {"unit": "cm"}),
        (WAVE, {"unit": "m"}),
        (WAVE * [-1, -1, 1], {"axes": "-x -y z"}),
        (WAVE[..., [0, 2, 1]], {"axes": "x z y"}),
        (WAVE[..., [2, 0, 1]] * [-1000, 1000, 1000], {"axes": "y,z,-x", "unit": "mm"}),
    ],
)
def test_places_in_another_unit_and_other_axes_are_read_as_metres_with_y_up(sent: Any, more: dict[str, object]) -> None:
    np.testing.assert_allclose(MODALITY.read(sent.tolist(), None, None, "s", more).x[:, 0], WAVE, atol=1e-5)
    np.testing.assert_allclose(MODALITY.of_tensor(sent[:, None].astype(np.float32), more).x[:, 0], WAVE, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "field", "said"),
    [
        ({"unit": "inch"}, "unit", "expected one of m, cm, mm, got 'inch'"),
        ({"unit": 1}, "unit", "expected one of m, cm, mm, got 1"),
        ({"lost": True}, "lost", "expected zero or null, got true"),
        ({"axes": "x y"}, "axes", "expected x, y and z in the order they have in what is sent"),
        ({"axes": "x y -y"}, "axes", "expected x, y and z"),
        ({"axes": ""}, "axes", "expected x, y and z"),
        ({"axes": 7}, "axes", "got 7"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(more: dict[str, object], field: str, said: str) -> None:
    with pytest.raises(BadInput, match=said.replace("'", ".")) as caught:
        MODALITY.check_options(None, None, more)
    assert caught.value.field == field


def test_millimetres_without_their_unit_are_refused_with_the_option_that_names_it() -> None:
    with pytest.raises(OutOfRange, match=r"expected metres within ±50, got .*say .unit.: .mm.") as caught:
        MODALITY.read((WAVE * 1000).tolist(), None, None, "s")
    assert caught.value.field is not None
    assert caught.value.field.startswith("s[0][0][")
    with pytest.raises(OutOfRange, match=r"expected places within ±50000 \(50 m\), got 60000"):
        MODALITY.read([[[60000.0, 1.0, 0.0], *[[1, 1, 1]] * 19]], None, None, "s", {"unit": "mm"})


@pytest.mark.parametrize(
    ("joints", "numbers", "said"),
    [
        (25, 3, "expected 20 joints, got 25; did you mean layout kinect25 or openpose25?"),
        (25, 2, "did you mean layout openpose25 or kinect25?"),
        (33, 3, "did you mean layout mediapipe33?"),
        (17, 2, "did you mean layout coco17?"),
        (32, 3, "did you mean layout azure32?"),
        (18, 3, "did you mean layout openpose18?"),
        (26, 3, "expected 20 joints, got 26"),
    ],
)
def test_as_many_joints_as_another_order_has_are_asked_for_by_its_name(joints: int, numbers: int, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        MODALITY.read([[[0.1] * numbers] * joints], None, None, "s")
    assert caught.value.detail.endswith(said)


@pytest.mark.parametrize("name", ["kinect25", "ntu25", "azure32", "mediapipe33", "coco17", "openpose25", "msr20", "florence15", "hdm31"])
def test_a_bundle_of_0_1_0_takes_every_known_order(name: str) -> None:
    joints = len(ORDERS["kinect25" if name == "ntu25" else name].names)
    x = MODALITY.read(np.full((2, joints, 3), 0.5).tolist(), name, None, "s").x
    assert x.shape == (2, 1, 20, 3)
    assert (x == np.float32(0.5)).all()


FLAT_READER = ClipReader({"own": FLAT}, "own", 1, 30.0, 10, dims=2, unit="px", metres=0.002)


@pytest.mark.parametrize("numbers", [2, 3])
def test_a_network_of_two_dimensions_takes_two_numbers_and_leaves_a_third_out(numbers: int) -> None:
    """A third one is OpenPose's: how sure it is."""
    clip = [[[100, 50, 0.9][:numbers], None, [300, 40, 0.1][:numbers]]]
    sent = FLAT_READER.check_sent({"unit": "px", "axes": "-x -y"})
    x, _ = FLAT_READER.read_warned(clip, FLAT, "s", sent)
    np.testing.assert_allclose(x[0, 0, 0], [-0.2, -0.1, 0], atol=1e-6)
    np.testing.assert_allclose(x[0, 0, 2], [-0.6, -0.08, 0], atol=1e-6)
    assert np.isnan(x[0, 0, 1]).all()


def test_two_numbers_for_three_dimensions_are_refused_and_the_other_way_round_said() -> None:
    with pytest.raises(BadInput, match="expected x, y and z, or null, got 2 elements"):
        MODALITY.read(WAVE[..., :2].tolist(), None, None, "s")
    with pytest.raises(BadInput, match="expected x and y, or null, got 1 elements"):
        FLAT_READER.read([[[1], [2], [3]]], FLAT, "s")
    assert FLAT_READER.check_sent({}) is AS_IT_IS
    assert FLAT_READER.units == {"m": 1.0, "cm": 0.01, "mm": 0.001, "px": 0.002}
    assert Sent(scale=2.0).placed(np.ones((1, 3))).tolist() == [[2, 2, 2]]


# --- what can be no body -----------------------------------------------------------------------------------------------------------------


def noise(x: Any) -> Any:
    return np.random.default_rng(0).uniform(-1, 1, x.shape)


NONSENSE: dict[str, tuple[Change, str]] = {
    "y down": (lambda x: x * [1, -1, 1], "upright"),
    "z up": (lambda x: x[..., [0, 2, 1]], "upright"),
    "mirrored": (lambda x: x * [-1, 1, 1], "sides"),
    "shuffled": (lambda x: x[:, np.random.default_rng(1).permutation(20)], "shape"),
    "feet": (lambda x: x * 3.28, "size"),
    "decimetres": (lambda x: x * 10, "size"),
    "noise": (noise, "change"),
    "one place": (lambda x: np.repeat(x[:, :1], 20, 1), "size"),
    "a limb of 3 m": (lambda x: np.where(np.arange(20)[:, None] == NAMES.index("left hand") - 1, x - [0, 3, 0], x), "shape"),
    "flat": (lambda x: x * [1, 1, 0], "flat"),
    "breathing": (lambda x: (x - x.mean(1, keepdims=True)) * (1 + np.sin(np.arange(72) / 5)[:, None, None] / 2) + [0, 0, 3], "change"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_other_with_a_warning(engine: Engine, what: str) -> None:
    change, check = NONSENSE[what]
    told = answer(engine, MODALITY.read(change(WAVE).tolist(), None, None, "s"))
    assert told["predictions"][0]["label"] == "other"
    assert DOUBTS[check] in told["warnings"]
    assert len(told["predictions"][0]["top"]) == 27


@pytest.mark.parametrize("pieces", [(1,), (7,), (5, 1, 30), (72,)])
@pytest.mark.parametrize("hz", [None, 12.5, 60.0])
def test_any_split_is_answered_alike(engine: Engine, pieces: tuple[int, ...], hz: float | None) -> None:
    for clip in (WAVE.tolist(), (WAVE * [1, -1, 1]).tolist(), with_lost_arms(None)):
        content = MODALITY.read(clip, None, hz, "s")
        whole, split = answer(engine, content), answer(engine, content, pieces)
        assert split["predictions"][0]["label"] == whole["predictions"][0]["label"]
        assert split.get("warnings") == whole.get("warnings")


def test_joints_that_come_and_go_tell_the_same_in_any_split(engine: Engine) -> None:
    """A joint that is seen again at the first frame of a piece has not jumped there from where it was held."""
    anatomy = BodyWatch.of(BUNDLE.manifest).anatomy  # type: ignore[union-attr]
    rng = np.random.default_rng(3)
    x = (WAVE[:, None] + rng.normal(0, 0.02, (len(WAVE), 1, 20, 3))).astype(np.float32)
    lost = rng.random(x.shape[:3]) < 0.3
    x = hold(np.where(lost[..., None], np.nan, x).astype(np.float32), x[0])
    found = []
    for size in (len(x), 1, 7):
        evidence, before = np.zeros((1, 1, ENTRIES), np.float32), np.zeros((1, 1, 20, 3), np.float32)
        for at in range(0, len(x), size):
            piece, gone = x[None, at : at + size], lost[None, at : at + size]
            told = gone if gone.any() else None  # as `prepare` has it
            evidence = anatomy.look(piece, before, np.array([piece.shape[1]]), evidence, 30.0, told)
            before = piece[:, -1]
        found.append(evidence)
    assert np.allclose(found[0], found[1], atol=1e-3)
    assert np.allclose(found[0], found[2], atol=1e-3)


def test_many_joints_not_seen_are_kept_as_bits() -> None:
    unseen = np.random.default_rng(0).random((3, 2, 33)) < 0.5
    assert np.array_equal(_unpacked(_packed(unseen), 33), unseen)
    assert np.array_equal(_unpacked(_packed(unseen[..., :5]), 5), unseen[..., :5])


def test_joints_that_a_layout_has_not_are_held_also_where_many_clips_are_read_at_once() -> None:
    few = Layout(joint_names=("a", "c"), table=((0,), (), (1,)))
    modality = SkeletonModality(BUNDLE.manifest, 10)
    modality.reader = ClipReader({"own": FLAT, "few": few}, "own", 1, 30.0, 10)
    (content,) = modality.read_alike([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]], "few", [None])
    assert isinstance(content, Frames)
    assert np.isnan(content.x).any()
    assert not content.whole, "else the engine would not hold them"


def test_a_body_of_which_only_arms_are_seen_is_no_nonsense(engine: Engine) -> None:
    """Who sits at a desk has no legs: lost joints hold their place, and say nothing of the body."""
    clip = [
        [None if any(part in NAMES[j] for part in ("knee", "ankle", "foot")) else joint for j, joint in enumerate(f)] for f in WAVE.tolist()
    ]
    assert "warnings" not in answer(engine, MODALITY.read(clip, None, None, "s"))


@pytest.mark.parametrize("frames", [1, 30, 300])
@pytest.mark.parametrize("place", [None, [0, 0, 0]], ids=["null", "zeros"])
def test_where_nobody_is_seen_the_answer_is_other(engine: Engine, frames: int, place: list[int] | None) -> None:
    told = answer(engine, MODALITY.read([[place] * 20] * frames, None, None, "s"))
    assert told["predictions"][0]["label"] == "other"
    assert told["warnings"] == [DOUBTS["nobody"]]


def test_somebody_who_was_there_is_not_forgotten_at_once(engine: Engine) -> None:
    gone, nobody = [[None] * 20] * 100, [[None] * 20] * 700
    assert "warnings" not in answer(engine, MODALITY.read(WAVE.tolist() + gone, None, None, "s"))
    assert DOUBTS["nobody"] in answer(engine, MODALITY.read(WAVE.tolist() + nobody, None, None, "s"))["warnings"]
    assert "warnings" not in answer(engine, MODALITY.read(nobody + WAVE.tolist(), None, None, "s"))


def test_doubts_pass_when_a_body_comes(engine: Engine) -> None:
    flipped, right = (WAVE * [1, -1, 1]).tolist(), np.concatenate([WAVE] * 6).tolist()
    told = answer(engine, MODALITY.read(flipped + right, None, None, "s"))
    assert "warnings" not in told
    assert told["predictions"][0]["label"] == "wave"


def test_scores_have_as_many_decimals_as_are_told_and_the_first_is_the_score() -> None:
    logits = np.zeros(27, np.float32)
    logits[2] = np.float32(13.5)
    (words,) = MODALITY.word([(Scores(logits, logits[:0], logits[:0]), Frames(np.zeros((1, 1, 20, 3), np.float32), None))], 3)
    (p,) = words["predictions"]
    assert p["score"] == p["top"][0]["score"] == 0.999964
    assert p["top"][1]["score"] == 0.000001


def test_a_manifest_says_how_bodies_are_told_or_that_nothing_is_told() -> None:
    told = json.loads(Path("bundles/action/1/manifest.json").read_text())
    assert ModelFacts.of(Manifest.model_validate(told), 9).state_size == 1882 + 16
    none = Manifest.model_validate(told | {"bodies": {"pairs": []}})
    assert ModelFacts.of(none, 9).state_size == 1882
    own = Manifest.model_validate(told | {"layout": "mine", "layouts": {"mine": told["layouts"]["utd20"]}})
    assert ModelFacts.of(own, 9).state_size == 1882  # of 0.1.0: nobody knows in which unit
    with pytest.raises(ValueError, match=r"bodies.pairs\[0\]: expected two of 20 joints"):
        Manifest.model_validate(told | {"bodies": {"pairs": [[0, 20, 0.3]]}})
    with pytest.raises(ValueError, match=r"bodies\.limits: expected size, shape"):
        Manifest.model_validate(told | {"bodies": {"pairs": [[0, 1, 0.3]], "limits": {"colour": 1}}})
    strict = Manifest.model_validate(told | {"bodies": {"pairs": [[0, 1, 0.2], [1, 2, 0.34], [2, 3, 0.08]], "limits": {"size": 0.01}}})
    facts = ModelFacts.of(strict, 9)
    assert facts.frames is not None
    assert facts.frames.watch is not None
    assert facts.frames.watch.anatomy.limits.size == 0.01


def test_warnings_are_the_contents_and_the_bodys() -> None:
    content = Frames(np.zeros((1, 1, 1, 3), np.float32), None, warnings=("a joint",))
    assert warned(content, ("size",)) == {"warnings": ["a joint", DOUBTS["size"]]}
    assert warned(content._replace(warnings=()), ()) == {}
    assert issubclass(BadInput, ServiceError)


# --- frames that say when they were taken ----------------------------------------------------------------------------------------------


def jittered(seed: int = 0, start: float = 1.7e9) -> tuple[Any, Any]:
    """The wave as a camera of some 22 Hz sends it that is late now and then, and its times."""
    rng = np.random.default_rng(seed)
    t = np.cumsum(np.concatenate([[0.0], rng.uniform(0.02, 0.07, 40)]))
    t = t[t < 71 / 30]
    at = t * 30
    low = np.floor(at).astype(int)
    part = (at - low)[:, None, None]
    return WAVE[low] + (WAVE[np.minimum(low + 1, 71)] - WAVE[low]) * part, start + t


def test_uneven_frames_with_their_times_are_the_motion_at_the_models_rate(engine: Engine) -> None:
    x, t = jittered()
    content = MODALITY.read(x.tolist(), None, 22.0, "s", {"t": t.tolist()})
    prepared = prepare(content, None, ModelFacts.of(BUNDLE.manifest, 5_000))
    n = len(prepared.x)
    assert n == int(np.floor((t[-1] - t[0]) * 30 + 1e-6)) + 1
    smooth = np.abs(prepared.x[:, 0] - WAVE[:n]).max()
    assert smooth < 0.05  # corners of the wave are cut
    label = answer(engine, content)["predictions"][0]
    assert (label["label"], label["frames"]) == ("wave", len(x))


@pytest.mark.parametrize("pieces", [(1,), (2, 1, 9), (40,)])
def test_uneven_frames_give_the_same_in_any_split(engine: Engine, pieces: tuple[int, ...]) -> None:
    x, t = jittered(1)
    facts = ModelFacts.of(BUNDLE.manifest, 5_000)
    sent = x.tolist()
    sent[3][7] = None
    whole = prepare(MODALITY.read(sent, None, None, "s", {"t": t.tolist()}), None, facts)
    session, frames, at, step = Session("s", "", "", "", "", np.zeros(facts.state_size, np.float32), 0, 0, 0.0, 1.0), [], 0, 0
    while at < len(x):
        size = pieces[step % len(pieces)]
        content = MODALITY.read(sent[at : at + size], None, None, "s", {"t": t[at : at + size].tolist()})
        prepared = prepare(content, session, facts)
        frames.append(prepared.x)
        session = session._replace(carry=decode_carry(encode_carry(prepared.carry)) if prepared.carry else None, position=at + size)
        at, step = at + size, step + 1
    np.testing.assert_allclose(np.concatenate(frames), whole.x, atol=1e-6)
    assert session.carry is not None
    assert whole.carry is not None
    assert session.carry.last == whole.carry.last
    assert may_be_left_over(session.carry, 30.0)
    file = decode(encode(session._replace(model="m", version="1", digest="d", step=step)))
    assert file.snapshot.carry is not None
    assert (file.snapshot.carry.start, file.snapshot.carry.last, file.snapshot.carry.count) == (t[0], t[-1], len(whole.x))


@pytest.mark.parametrize(
    ("t", "field", "said"),
    [
        ([0.0, 0.1], "t", "expected 3 seconds, one for each frame, got 2"),
        ([0.0, 0.2, 0.2], "t[2]", "expected a time after 0.200000"),
        ([0.0, "x", 0.2], "t[1]", "expected seconds, got 'x'"),
        ([0.0, True, 0.2], "t[1]", "expected seconds, got true"),
        ([0.0, 1e12, 2e12], "t[1]", "expected seconds"),
        (7, "t", "expected a list of seconds"),
    ],
)
def test_times_that_make_no_sense_are_refused(t: object, field: str, said: str) -> None:
    with pytest.raises(BadInput, match=said.replace("'", ".")) as caught:
        MODALITY.read(WAVE[:3].tolist(), None, None, "s", {"t": t})
    assert caught.value.field == field


def test_a_session_keeps_to_times_or_to_a_rate_and_time_goes_on() -> None:
    facts = ModelFacts.of(BUNDLE.manifest, 30)
    fresh = Session("s", "", "", "", "", np.zeros(facts.state_size, np.float32), 0, 0, 0.0, 1.0)
    first = prepare(MODALITY.read(WAVE[:2].tolist(), None, None, "s", {"t": [5.0, 5.1]}), fresh, facts)
    timed = fresh._replace(carry=first.carry, position=2)
    cases: list[tuple[Session, dict[str, object], str]] = [
        (timed, {}, "expected when each frame was taken, as in the session's earlier steps"),
        (fresh._replace(position=2), {"t": [6.0, 6.1]}, "expected none, as in the session's earlier steps"),
        (timed, {"t": [5.1, 5.2]}, "expected a time after 5.100000, the last one of the step before, got 5.100000"),
        (timed, {"t": [5.2, 900.0]}, "expected at most 1 s in one piece, got"),
    ]
    for session, more, said in cases:
        with pytest.raises(ServiceError, match=said):
            prepare(MODALITY.read(WAVE[:2].tolist(), None, None, "s", more), session, facts)
    short = facts._replace(max_position=10)
    with pytest.raises(ServiceError, match=r"the model was made for 0\.333333 s in a sequence"):
        prepare(MODALITY.read(WAVE[:2].tolist(), None, None, "s", {"t": [0.0, 0.5]}), None, short)


def test_a_model_that_tells_events_reads_tensors_as_the_one_within_it() -> None:
    """The options of `/v2` reach it; times of frames are refused, since an event's place is a number of frames."""
    model: Any = SimpleNamespace(modality=EventModality(MODALITY, BUNDLE.manifest))
    ask = Ask("", [], None)
    ask.more["unit"] = "mm"
    x = (1000 * WAVE[None, :2, None]).astype(np.float32)
    content = content_of(ask, Rows(x, None, None), model, 0)
    assert np.allclose(content.x, WAVE[:2, None], atol=1e-4)
    assert "t" not in model.modality.more
    assert "unit" in model.modality.more
    with pytest.raises(BadInput, match="null"):
        at_times(model.modality, {}, [0.0, 0.1], "t")


def test_few_frames_may_stand_for_many_of_the_models() -> None:
    """What a message may have scored or watched one by one is counted so."""
    x = np.zeros((2, 1, 20, 3), np.float32)
    assert frames_of(Frames(x, None), 30.0) == 2
    assert frames_of(Frames(x, None, t=np.array([0.0, 166.0])), 30.0) == 4_980
    assert frames_of(Frames(np.zeros((72, 1, 20, 3), np.float32), 1.0), 30.0) == 2_160
    assert frames_of(Exact(np.zeros(9, np.int64)), None) == 9


@pytest.mark.parametrize("numbers", [np.full(16, 3.4e38, np.float32), np.full(16, -1e9, np.float32), np.zeros(15, np.float32)])
def test_an_uploaded_state_holds_no_evidence_that_nobody_could_have_gathered(numbers: np.ndarray[Any, Any]) -> None:
    m = BUNDLE.manifest
    state = np.concatenate([np.zeros(m.state_size, np.float32), numbers])
    file = decode(encode(Session("s", m.name, m.version, m.sha256, "", state, 1, 1, 0.0, 1.0), m.state_size))
    with pytest.raises((BadInput, OutOfRange), match="expected"):
        check(file, m)


@pytest.mark.parametrize("times", ["0.0 0.1 4 5", "0_0 0.1 4", "٠ 0.1 4", "0.0 0.1", "0.0 0.1 -1", "nan 0.1 4"])
def test_times_of_an_uploaded_state_are_three_numbers(times: str) -> None:
    with pytest.raises(NotState, match="seconds of start and last"):
        _timed(times, np.zeros((1, 20, 3), np.float32))
