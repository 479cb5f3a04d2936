"""The vocabulary says of every label which motion it is, and the sets' clips come out in one joint order at one rate."""

import tomllib

import numpy as np
import pytest

from indrnn.frames.layouts import UTD20
from indrnn.model.data import vocabulary
from indrnn.model.data.clips import find
from indrnn.model.data.vocabulary import FILE, VocabularyError

WORDS = vocabulary.read()
V1 = WORDS.motions[:27]


def content():
    return tomllib.loads(FILE.read_text())


def test_the_first_27_motions_are_those_of_version_1_in_its_order():
    from indrnn.export.bundle import read

    assert read(FILE.parents[2] / "bundles/action/1").manifest.labels == V1
    assert 40 <= len(WORDS.motions) <= 60


def test_twins_are_mutual_and_a_mirrored_tick_is_no_motion():
    for motion, twin in enumerate(WORDS.twins):
        assert twin is None or WORDS.twins[twin] == motion
    of = dict(zip(WORDS.motions, WORDS.twins, strict=True))
    assert of["draw tick"] is None
    assert of["swipe left"] == WORDS.index("swipe right")
    assert of["wave"] == WORDS.index("wave")


@pytest.mark.parametrize("name", WORDS.sets)
def test_every_label_of_every_set_is_mapped_or_left_out(name, needs):
    needs(WORDS.sets[name].file)
    with np.load(find(WORDS.sets[name].file)) as d:
        assert set(map(str, d["classes"])) == set(WORDS.sets[name].motions)


def test_known_motions_of_a_set_left_out_are_all_that_version_1_and_another_set_have():
    for name, told in WORDS.left_out.items():
        others = {motion for other, member in WORDS.sets.items() if other != name for motion in member.motions.values()}
        assert set(told.known) == set(WORDS.sets[name].motions.values()) & others & set(V1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["motions"].update({"swipe left": "wave"}), "swipe left: expected a twin whose twin it is, got 'wave'"),
        (lambda c: c["sets"]["hdm05"]["motions"].update({"squat1Reps": "squatt"}), "hdm05: expected motions of the list, got squatt"),
        (lambda c: c["motions"].update({"fly": "fly"}), "fly: expected a set that shows it"),
        (lambda c: c["left_out"]["nwucla"]["known"].append("push"), "left_out.nwucla: expected known motions that others have too"),
        (lambda c: c["left_out"]["nwucla"]["unknown"].pop(), "left_out.nwucla: expected known motions that others have too"),
    ],
)
def test_a_vocabulary_that_contradicts_itself_is_refused(change, said):
    changed = content()
    change(changed)
    with pytest.raises(VocabularyError, match=said):
        vocabulary.vocabulary(changed)


def test_a_joint_is_the_mean_of_those_said_and_a_joint_not_sent_is_refused():
    joints = {own: ["root"] for own in UTD20} | {"hip centre": ["left", "left", "root"]}
    of = vocabulary.table(("root", "left"), joints)
    x = np.array([[[[0.0, 0, 0], [3, 6, 9]]]], np.float32)
    assert vocabulary.own_joints(x, of)[0, 0, UTD20.index("hip centre")].tolist() == [2, 4, 6]
    with pytest.raises(VocabularyError, match="expected joints among root, left, got tail"):
        vocabulary.table(("root", "left"), joints | {"head": ["tail"]})


def test_a_file_with_other_labels_is_refused(tmp_path, monkeypatch):
    (tmp_path / "skeleton").mkdir()
    x = np.zeros((2, 20, 3), np.float32) + np.arange(20, dtype=np.float32)[:, None] / 20
    np.savez(tmp_path / "skeleton/msraction3d.npz", x=x, off=[0, 2], y=[0], classes=["jump"], joint_names=UTD20)
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    with pytest.raises(VocabularyError, match=r"msraction3d: expected the labels of skeleton/msraction3d\.npz, jump, got high arm wave"):
        vocabulary.joined(WORDS, ["msraction3d"])


def test_clips_of_every_set_are_people_in_one_joint_order_at_one_rate(needs):
    for member in WORDS.sets.values():
        needs(member.file)
    found = vocabulary.joined(WORDS)
    assert (len(found.clips), found.hz, found.joint_names) == (3405, 30, UTD20)
    for name in WORDS.sets:
        own = [c for c in found.clips if WORDS.name(c.subject) == name]
        assert {c.label for c in own} == {WORDS.index(m) for m in WORDS.sets[name].motions.values()}
        at = dict(zip(UTD20, np.median([c.x[0, 0] for c in own], 0), strict=True))
        # who stands has the head over the hips over the feet, and is between 1.2 m and 1.9 m from head to foot
        assert at["head"][1] > at["shoulder centre"][1] > at["spine"][1] > at["hip centre"][1] - 0.01 > at["left knee"][1]
        assert 1.2 < at["head"][1] - at["left foot"][1] < 1.9
    sits = [c for c in found.clips if WORDS.motions[c.label] == "stand to sit"]
    down = np.mean([c.x[-1, 0, UTD20.index("hip centre"), 1] < c.x[0, 0, UTD20.index("hip centre"), 1] for c in sits])
    assert down > 0.95  # of three sets, one of them with two labels exchanged
