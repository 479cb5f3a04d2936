"""Made-up input that looks like the real one, so that an exported model can be tried where its data is not at hand."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Sample = Callable[[np.random.Generator, int, int], NDArray[np.generic]]  # (rng, B, T) -> x [B, T, ...]


def skeletons(persons: int, joints: int) -> Sample:
    """Return persons of about 1.7 m, 3 m from the camera, who swing their joints; now and then one is absent, some rows only tremble.

    They move by some 2 cm a frame, as recorded ones do, the trembling rows by five times that. Far outside what a model was trained
    on its scores grow without bound, and so do the rounding errors of any two runtimes.
    """

    def sample(rng: np.random.Generator, B: int, T: int) -> NDArray[np.float32]:
        one = (B, 1, persons, joints, 3)
        seconds = np.arange(T).reshape(1, T, 1, 1, 1) / 30
        pose = rng.uniform([-0.4, -0.9, -0.15], [0.4, 0.8, 0.15], one) + np.array([0, 0, 3])
        swing = rng.uniform(0, 0.25, one) * np.sin(2 * np.pi * rng.uniform(0.3, 1.5, one) * seconds + rng.uniform(0, 6, one))
        trembling = rng.random((B, 1, 1, 1, 1)) < 0.25
        x: NDArray[np.float64] = pose + np.where(trembling, 0, swing) + rng.normal(size=(B, T, *one[2:])) * np.where(trembling, 0.07, 0.01)
        x[rng.random((B, T, persons)) < 0.05] = 0
        return x.astype(np.float32)

    return sample


def symbols(classes: int) -> Sample:
    """Return symbols as unequal as letters (Zipf); some rows use all of them alike."""

    def sample(rng: np.random.Generator, B: int, T: int) -> NDArray[np.int64]:
        weight = 1 / np.arange(1, classes + 1)
        x = rng.choice(classes, size=(B, T), p=weight / weight.sum())
        noise = rng.random(B) < 0.25
        x[noise] = rng.integers(0, classes, x[noise].shape)
        return x.astype(np.int64)

    return sample
