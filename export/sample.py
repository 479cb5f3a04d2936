"""Made-up input that looks like the real one, so that an exported model can be tried where its data is not at hand."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Sample = Callable[[np.random.Generator, int, int], NDArray[np.generic]]  # (rng, B, T) -> x [B, T, ...]


def skeletons(persons: int, joints: int) -> Sample:
    """Persons of about 1.7 m, 3 m from the camera, who swing their joints; some frames lack a person, some rows are plain noise."""

    def sample(rng: np.random.Generator, B: int, T: int) -> NDArray[np.float32]:
        P, J = persons, joints
        t = np.arange(T)[None, :, None, None, None] / 30  # seconds
        pose = rng.uniform([-0.4, -0.9, -0.15], [0.4, 0.8, 0.15], size=(B, 1, P, J, 3)) + rng.normal(size=(B, 1, P, 1, 3)) * 0.3 + [0, 0, 3]
        swing = rng.uniform(0, 0.25, (B, 1, P, J, 3)) * np.sin(
            2 * np.pi * rng.uniform(0.3, 2, (B, 1, P, J, 1)) * t + rng.uniform(0, 6, (B, 1, P, J, 3))
        )
        x = pose + swing + rng.normal(size=(B, T, P, J, 3)) * 0.01
        x[rng.random((B, T, P)) < 0.05] = 0
        noise = rng.random(B) < 0.25
        x[noise] = rng.normal(size=x[noise].shape)
        return x.astype(np.float32)

    return sample


def symbols(classes: int) -> Sample:
    """Symbols as unequal as letters (Zipf); some rows use all of them alike."""

    def sample(rng: np.random.Generator, B: int, T: int) -> NDArray[np.int64]:
        weight = 1 / np.arange(1, classes + 1)
        x = rng.choice(classes, size=(B, T), p=weight / weight.sum())
        noise = rng.random(B) < 0.25
        x[noise] = rng.integers(0, classes, x[noise].shape)
        return x.astype(np.int64)

    return sample
