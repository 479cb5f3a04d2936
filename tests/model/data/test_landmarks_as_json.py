"""MediaPipe's landmarks are frames in their order, whatever the file calls these and wherever in it they are."""

import json

import numpy as np
import pytest

from indrnn.model.data.formats import table

BODIES = np.random.default_rng(5).uniform(-0.5, 0.5, (12, 33, 3))
LISTS = BODIES.tolist()
OBJECTS = [[dict(zip("xyz", p, strict=True)) for p in body] for body in LISTS]
WORLD = [{"pose_landmarks": [b], "pose_world_landmarks": [b]} for b in OBJECTS]
LATE_FIRST = range(11, -1, -1)
FORMS = {
    "numbers": {str(t): {"world": LISTS[t]} for t in LATE_FIRST},
    "numbers of persons": {str(t): WORLD[t] for t in sorted(range(12), key=str)},
    "names": {f"frame_{t}": WORLD[t] for t in LATE_FIRST},
    "filled up": {f"frame_{t:04}.jpg": WORLD[t] for t in LATE_FIRST},
    "videos": {f"take2/{t}.png": WORLD[t] for t in LATE_FIRST},
    "seconds": {f"{t / 25:.2f}": WORLD[t] for t in LATE_FIRST},
    "within": {"data": {"frames": WORLD}},
    "within, numbered": {"meta": {"size": [640, 480]}, "video": {"frames": {str(t): WORLD[t] for t in LATE_FIRST}}},
    "beside": {"times": list(range(99)), "frames": WORLD, "notes": {"0": "a", "1": "b"}},
    "columns": {"pose_landmarks": OBJECTS, "pose_world_landmarks": OBJECTS},
}


def read(tmp_path, told, persons=2):
    (tmp_path / "a.json").write_text(json.dumps(told))
    (found,) = table.FORMATS["json"].read(tmp_path / "a.json", persons)
    return found


@pytest.mark.parametrize("form", FORMS)
def test_frames_are_in_the_order_of_their_numbers_wherever_they_are(tmp_path, form):
    """They were one frame of many persons."""
    found = read(tmp_path, FORMS[form])
    np.testing.assert_array_equal(found.x[:, 0], BODIES)
    assert (found.notes, found.unit) == ((), "m")


def test_bodies_under_numbers_are_frames_and_under_persons_are_persons(tmp_path):
    found = read(tmp_path, {str(t): OBJECTS[t] for t in LATE_FIRST})
    np.testing.assert_array_equal(found.x[:, 0], BODIES[..., :2])
    assert read(tmp_path, {f"person_{k}": OBJECTS[k] for k in range(2)}).x.shape == (1, 2, 33, 2)
    assert read(tmp_path, WORLD[0]).x.shape == (1, 2, 33, 3)


@pytest.mark.parametrize("name", ["fps", "FPS", "frame_rate", "frameRate", "hz"])
@pytest.mark.parametrize("where", [lambda told: told, lambda told: {"metadata": told}])
def test_a_rate_beside_the_frames_is_theirs(tmp_path, name, where):
    assert read(tmp_path, {**where({name: 25}), "frames": WORLD}).hz == 25
    assert read(tmp_path, {**where({name: 12.5}), **FORMS["names"]}).hz == 12.5
    timed = [{"time_ms": 20 * t, **f} for t, f in enumerate(WORLD)]
    assert read(tmp_path, {**where({name: 25}), "frames": timed}).hz == 50
    for none in (0, -1, "many", None, [25], 10**400):
        assert read(tmp_path, {**where({name: none}), "frames": WORLD}).hz is None
