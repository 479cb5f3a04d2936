"""Whatever type, unit and manner a file of clips is stored in, the clips are those of float32 metres."""

import numpy as np
import pytest

from indrnn.model.data.clips import ClipFileError, clip_set
from indrnn.model.data.formats import lost

PARTS = np.random.default_rng(1).normal(size=(15, 3)) * (0.22, 0.42, 0.12)  # a standing body of 0.47 m, as Florence 3D's


def bodies(T=24, persons=1):
    """Frames [T, P, 15, 3] float64 metres, a walker in front of a camera, every number above 0 as unsigned ones need them."""
    t = np.arange(T)[:, None, None, None]
    walk = np.array([0.02, 0.0, 0.01]) * t + np.array([1.5, 1.4, 3.0]) + 0.5 * np.arange(persons)[:, None, None] * np.array([1, 0, 0])
    swing = 0.1 * np.sin(t / 3 + np.arange(15)[:, None])
    return PARTS - PARTS.mean(0) + walk + swing


def file(x, lengths=(10, 14), **more):
    return {"x": x, "off": np.cumsum([0, *lengths]), "y": np.arange(len(lengths))} | more


METRES = clip_set(file(bodies().astype(np.float32)[:, 0]), "f")
FLOATS = ["<f2", "<f4", "<f8", ">f4", ">f8", "g"]
WHOLE = ["<i2", ">i2", "<i4", ">i4", "<i8", "<u2", ">u2", "<u4", "<u8"]
STORED = [(d, 1.0) for d in FLOATS] + [(d, u) for d in FLOATS + WHOLE for u in (100.0, 1000.0)] + [("<i1", 20.0), ("<u1", 40.0)]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("dtype", "times"), STORED)
def test_every_type_and_unit_gives_the_clips_of_float32_metres(dtype, times, order):
    x = np.asarray(np.rint(bodies() * times) if np.dtype(dtype).kind in "iu" else bodies() * times, dtype, order=order)
    found = clip_set(file(x[:, 0]), "f", None if times in (1, 100, 1000) else 1 / times)
    assert found.unit == pytest.approx(1 / times, rel=1e-6)
    step = 0.5 / times if x.dtype.kind in "iu" else {2: 4.5 * 2**-11, 4: 1e-6}.get(x.dtype.itemsize, 1e-6)
    for a, b in zip(found.clips, METRES.clips, strict=True):
        assert a.x.dtype == np.float32
        np.testing.assert_allclose(a.x, b.x, rtol=0, atol=step * 1.01)


@pytest.mark.parametrize("dtype", [*FLOATS, *WHOLE, "<u1"])
@pytest.mark.parametrize("tall", [40, 150, 480, 4000])
def test_pixels_of_every_type_have_the_size_of_a_person(dtype, tall):
    """Squares of float16 overflow from 256 on: the unit was 0, and all clips zeros."""
    at = bodies()[..., :2] - bodies()[..., :2].min()
    at = at / at.max() * tall
    if tall > np.iinfo("u1").max and dtype == "<u1":
        at = at / tall * 255
    x = np.rint(at).astype(dtype) if np.dtype(dtype).kind in "iu" else at.astype(dtype)
    found = clip_set(file(x), "f")
    sizes = [np.sqrt(((f - f.mean(0)) ** 2).sum(1).mean()) for c in found.clips for f in c.x[:, 0]]
    assert np.median(sizes) == pytest.approx(0.5, rel=0.02)
    assert found.flat


@pytest.mark.parametrize("times", [1e-4, 0.01, 39.37, 1e6, 1e8])
@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_any_other_scale_is_scaled_to_a_person(dtype, times):
    found = clip_set(file((bodies()[:, 0] * times).astype(dtype)), "f")
    sizes = [np.sqrt(((f - f.mean(0)) ** 2).sum(1).mean()) for c in found.clips for f in c.x[:, 0]]
    assert np.median(sizes) == pytest.approx(0.5, rel=0.02)


def test_the_unit_is_told_although_a_joint_is_never_seen():
    x = bodies()[:, 0] * 1000
    x[:, 4] = np.nan
    assert clip_set(file(x), "f").unit == 0.001


def test_matlabs_arrays_of_two_axes_and_h5pys_bytes_are_read_as_what_they_mean():
    plain = {"subject": np.array([3, 4]), "test": np.array([0, 1]), "hz": np.array(25)}
    names = {"classes": ["wave", "süß"], "names": ["a", "b"], "joint_names": [f"joint {j}" for j in range(15)]}
    expected = clip_set(file(bodies()[:, 0], **plain, **{k: np.array(v) for k, v in names.items()}), "f")
    matlab = {k: np.atleast_2d(v).astype(float) for k, v in file(None, **plain).items() if k != "x"}
    matlab["y"] = matlab["y"].T + 1
    for given in (
        {k: np.array([[f"{v:9}" for v in vs]]) for k, vs in names.items()},  # MATLAB's rows of characters are filled up with blanks
        {k: np.array([v.encode() for v in vs]) for k, vs in names.items()},
        {k: np.array([v.encode("latin-1") for v in vs]) for k, vs in names.items()},
        {k: np.array([str(v.encode()) for v in vs]) for k, vs in names.items()},  # "b'wave'"
    ):
        found = clip_set({"x": bodies()[:, 0], **matlab, **given}, "f")
        assert (found.classes, found.joint_names, found.hz) == (expected.classes, expected.joint_names, 25.0)
        assert [(c.label, c.subject, c.name, c.test) for c in found.clips] == [(0, 3, "a", False), (1, 4, "b", True)]
        assert found.notes == ("y: counted from 1: 1 is 'wave', 2 is 'süß'",)


def test_classes_are_those_that_clips_have():
    x = np.tile(bodies()[:4, 0], (6, 1, 1))
    found = clip_set(file(x, [4] * 6) | {"y": np.array([1, 2, 5, 5, 2, 1])}, "f")
    assert (found.classes, [c.label for c in found.clips]) == (("1", "2", "5"), [0, 1, 2, 2, 1, 0])
    assert found.notes == ("y: 3 classes, 1 to 5; no clip has any of the 3 other numbers up to there",)
    named = clip_set(file(x, [4] * 6) | {"y": np.array([0, 2, 0, 2, 0, 2]), "classes": np.array(["a", "b", "c"])}, "f")
    assert named.notes == ("warning: no clip is of 'b': nothing is learned of them",)
    texts = clip_set({k: v for k, v in file(x, [4] * 6).items() if k != "y"} | {"labels": np.array([b"b", b"a"] * 3)}, "f")
    assert (texts.classes, [c.label for c in texts.clips]) == (("a", "b"), [1, 0] * 3)


def gone(v, dtype="<f4", times=1.0, axes=slice(None), share=0.3):
    """A file in which that share of the places is v, and the places as they would be with NaN."""
    x = (bodies() * times)[:, 0]
    away = np.random.default_rng(2).random(x.shape[:2]) < share
    away[0] = False
    told, nan = x.astype(dtype), x.astype(np.float64)
    told[away] = np.where(np.isin(np.arange(3), np.arange(3)[axes]), np.array(v).astype(dtype), told[away])
    nan[away] = np.nan
    return file(told), file(nan), int(away.sum())


@pytest.mark.parametrize(
    ("v", "dtype", "times"),
    [
        (-9999, "<f4", 1), (-9999, "<f2", 1), (-9999, "<f8", 100), (-9999, "<i2", 1000), (-9999, "<f4", 1000), (9999, "<f4", 1000),
        (-999, "<f4", 1), (-999, "<i2", 1000), (-999, "<f2", 1), (1e30, "<f4", 1), (-1e30, "<f8", 1000), (3e38, "<f4", 1),
        (-32768, "<i2", 1000), (32767, "<i2", 1000), (65535, "<u2", 1000), (2**31 - 1, "<i4", 1000), (-1e6, "<f4", 1),
    ],
)  # fmt: skip
def test_a_number_that_no_place_has_is_a_joint_not_seen_and_counted(v, dtype, times):
    told, nan, count = gone(v, dtype, times)
    found, expected = clip_set(told, "f"), clip_set(nan, "f")
    assert found.unit == pytest.approx(expected.unit, rel=1e-4)
    for a, b in zip(found.clips, expected.clips, strict=True):
        np.testing.assert_allclose(a.x, b.x, atol=2e-3)
    (said,) = found.notes
    assert said.startswith(f"{count} places with ")
    assert said.endswith(" in them are joints not seen")


def test_a_depth_alone_that_stands_for_none_loses_its_joint():
    told, nan, count = gone(-9999, axes=slice(2, 3))
    assert clip_set(told, "f").notes[0].startswith(f"{count} places with -9999 in them")
    np.testing.assert_allclose(clip_set(told, "f").clips[0].x, clip_set(nan, "f").clips[0].x, atol=1e-6)


def test_two_such_numbers_in_one_file_are_both_found():
    told, _, count = gone(-9999)
    free = np.argwhere((told["x"] != -9999).all(-1))[30:40]
    told["x"][tuple(free.T)] = 1e30
    assert clip_set(told, "f").notes == (f"{count + 10} places with -9999, numbers of 1e+09 and more in them are joints not seen",)


def test_minus_one_beside_pixels_is_none_and_places_far_from_others_are_places():
    pixels = np.rint(bodies()[:, 0, :, :2] * 200)
    pixels[5:, 3] = -1
    assert clip_set(file(pixels), "f").notes == ("19 places with -1 in them are joints not seen",)
    leap = bodies()[:, 0]
    leap[7, 3] += 4.0  # a tracker's error, but a place
    assert clip_set(file(leap), "f").notes == ()


def zeroed(x, share=0.3):
    away = np.random.default_rng(2).random(x.shape[:2]) < share
    away[0] = False
    x = x.copy()
    x[away] = 0
    return x, away


def test_zeros_are_lost_joints_where_one_says_so_and_a_warning_where_they_cannot_be_places():
    x, away = zeroed(bodies()[:, 0])
    nan = np.where(away[..., None], np.nan, x)
    (said,) = clip_set(file(x), "f").notes
    assert said.startswith(f"warning: {away.sum()} joints stand at exactly 0 on all axes, far from all others of their person")
    assert "--lost zero" in said
    found, expected = clip_set(file(x), "f", zero=True), clip_set(file(nan), "f")
    for a, b in zip(found.clips, expected.clips, strict=True):
        np.testing.assert_array_equal(a.x, b.x)
    assert found.notes == (f"{away.sum()} joints at exactly 0 on all axes are joints not seen",)


def test_the_root_of_centred_data_is_a_place():
    x = bodies()[:, 0]
    x = x - x[:, :1]
    assert lost.at_zero(x[:, None]).sum() == 24
    assert clip_set(file(x), "f").notes == ()


def test_absent_persons_are_no_lost_joints():
    x = bodies(persons=2)
    x[5:12, 1] = 0
    found = clip_set(file(x), "f", zero=True)
    assert found.notes == ()
    assert not found.clips[0].x[5:, 1].any()


def test_a_clip_of_nobody_is_counted():
    x = bodies()[:, 0]
    x[:10] = np.nan
    assert clip_set(file(x, names=np.array(["first", "second"])), "f").notes == ("warning: 1 clips show nobody: first",)


@pytest.mark.parametrize("x", [np.full((24, 15, 3), np.nan), np.zeros((24, 15, 3)), np.full((24, 15, 3), 1e30)])
def test_a_file_of_nobody_at_all_is_refused(x):
    with pytest.raises(ClipFileError, match="expected bodies, got no joint that is seen"):
        clip_set(file(x), "f")
