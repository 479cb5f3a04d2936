"""What the native library says of bodies is what frames/anatomy.py says, in any batch."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indrnn.export.bundle import read
from indrnn.frames.anatomy import Anatomy, BodyLimits
from indrnn.frames.joints import hold
from indrnn.kernels.bodies import DOUBTS, library
from indrnn.service.engine.runtime import BodyWatch

MANIFEST = read(Path("bundles/action/1")).manifest
FOUND = BodyWatch.of(MANIFEST)
assert FOUND is not None
PEOPLE, JOINTS = 2, len(FOUND.anatomy.names)
STRICT = dataclasses.replace(BodyLimits(), size=0.1, limb=0.3, change=0.02, breath=0.02, up=0.9, upright=0.9, down=None, side=-0.2)
ANATOMIES = {
    "usual": FOUND.anatomy,
    "strict": dataclasses.replace(FOUND.anatomy, limits=STRICT),
    "nothing checked": dataclasses.replace(FOUND.anatomy, limits=BodyLimits(*[None] * 5, None, 0.25, None, None, None, None)),  # type: ignore[arg-type]
    "no names": Anatomy(tuple("abcdefghijklmnopqrst"), FOUND.anatomy.pairs),
}


class InPython(BodyWatch):
    """The same where there is no native library."""

    _kernel = None  # type: ignore[assignment]


def watch(kind: type[BodyWatch], anatomy: Anatomy) -> BodyWatch:
    """Over a state that begins with three numbers and then has the last frame."""
    size = PEOPLE * JOINTS * 3
    return kind(anatomy, 30.0, PEOPLE, slice(3, 3 + size), 3 + size + 40)


def bodies(rng: np.random.Generator, B: int, T: int) -> NDArray[np.float32]:
    """[B, T, P, J, 3] of people who stand, are thrown about, are flat, are absent for a while, or are somewhere far."""
    stands = rng.normal(0, 0.4, (B, 1, PEOPLE, JOINTS, 3)) + rng.normal(0, 0.02, (B, T, PEOPLE, JOINTS, 3))
    stands *= rng.choice([0.01, 1, 1, 4], (B, 1, PEOPLE, 1, 1))
    stands[..., 2] *= rng.choice([0, 1, 1], (B, 1, PEOPLE, 1))
    stands *= rng.random((B, T, PEOPLE, 1, 1)) < 0.8
    return (stands + (rng.random((B, 1, 1, 1, 1)) < 0.1) * 1e4).astype(np.float32)


@pytest.mark.skipif(library() is None, reason="needs the native library")
@pytest.mark.parametrize("name", ANATOMIES)
@pytest.mark.parametrize("seen", ["all", "some"])
def test_native_and_numpy_say_the_same(name: str, seen: str) -> None:
    rng, anatomy = np.random.default_rng(5), ANATOMIES[name]
    native, numpy = watch(BodyWatch, anatomy), watch(InPython, anatomy)
    said: set[str] = set()
    for T in (1, 1, 3, 40, 1, 17):
        B = 9
        if T == 1 or said == set():
            state = np.zeros((B, native.graph_size), np.float32)
            held = np.zeros((B, native.size), np.float32)
        for _ in range(12):
            lengths = rng.integers(1, T + 1, B)
            x = bodies(rng, B, T)
            lost: list[NDArray[np.bool_] | None] = [None] * B
            if seen == "some":
                for b in range(0, B, 2):
                    lost[b] = rng.random((lengths[b], PEOPLE, JOINTS)) < rng.choice([0.05, 0.3, 0.95])
                    last = state[b, native.last_frame].reshape(PEOPLE, JOINTS, 3)
                    x[b, : lengths[b]] = hold(np.where(lost[b][..., None], np.nan, x[b, : lengths[b]]).astype(np.float32), last)  # type: ignore[index]
            after = rng.normal(size=state.shape).astype(np.float32)
            after[:, native.last_frame] = x[np.arange(B), lengths - 1].reshape(B, -1)
            after[rng.integers(B), 1] = np.nan
            a, b = (w.look(x, lengths, state.tobytes(), held.tobytes(), lost, after) for w in (native, numpy))
            assert np.array_equal(a[0][:, : native.graph_size], after, equal_nan=True)
            assert a[0] == pytest.approx(b[0], rel=2e-4, abs=2e-4, nan_ok=True)
            assert a[1] == b[1]
            assert [set(found) for found in a[2]] == [set(found) for found in b[2]]
            said.update(*a[2])
            state, held = np.nan_to_num(after), b[0][:, native.graph_size :].copy()
    assert said >= {"usual": {"size", "shape", "change", "flat"}, "strict": set(DOUBTS) - {"nobody"}}.get(name, set())
    if name == "nothing checked":
        assert not said


def test_doubts_have_the_same_names_in_the_same_order() -> None:
    evidence = np.zeros((1, 1, 16), np.float32)
    evidence[0, 0, [0, 1, 3, 5, 9, 10, 11]] = 100, 1e3, 1e3, 100, -100, 100, 100
    evidence[0, 0, [6, 7, 8]] = 100, -100, 100
    assert FOUND is not None
    assert FOUND.anatomy.doubts(evidence) == [DOUBTS[:-1]]
    assert FOUND.anatomy.doubts(np.zeros((1, 2, 16), np.float32)) == [DOUBTS[-1:]]


@pytest.mark.skipif(library() is None, reason="needs the native library")
def test_native_and_numpy_miss_everybody_alike() -> None:
    rng = np.random.default_rng(1)
    x = bodies(rng, 4, 700)
    x[0], x[1, :, 0], x[2, 20:], x[3, :, 1] = 0, 0, 0, 0
    lengths, said = np.full(4, 700), []
    for kind in (BodyWatch, InPython):
        w = watch(kind, FOUND.anatomy)  # type: ignore[union-attr]
        state, held = np.zeros((4, w.graph_size), np.float32), np.zeros((4, w.size), np.float32)
        said.append(
            [
                [
                    "nobody" in found
                    for found in w.look(x[:, :n], lengths.clip(max=n), state.tobytes(), held.tobytes(), [None] * 4, state)[2]
                ]
                for n in (9, 700)
            ]
        )
    assert said[0] == said[1] == [[True, False, False, False], [True, False, True, False]]
