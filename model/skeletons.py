"""The action data: clips of UTD-MHAD, and which subjects are for training, for selection and for the published figure.

The published protocol trains on subjects 1, 3, 5, 7 and tests on 2, 4, 6, 8 (Chen et al., 2015). Selection holds out one subject of the
training half at a time; the published model learns from all four by the recipe selected.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.data import find

SUBJECTS = {"train": (1, 3, 5, 7), "test": (2, 4, 6, 8)}
HZ = 30.0
Frames = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """One recorded action: x [T, J, 3] metres at 30 Hz, its class, who did it."""

    x: Frames
    label: int
    subject: int
    name: str


def read(file: str = "skeleton/utd_mhad.npz") -> tuple[list[Clip], tuple[str, ...]]:
    """Every clip of a skeleton file and the names of its classes. Raises DataMissingError."""
    with np.load(find(file), allow_pickle=False) as d:
        off = d["off"]
        clips = [
            Clip(d_x, int(label), int(subject), str(name))
            for d_x, label, subject, name in zip(np.split(d["x"], off[1:-1]), d["y"], d["subject"], d["names"], strict=True)
        ]
        return clips, tuple(str(c) for c in d["classes"])


def of_subjects(clips: list[Clip], subjects: Iterable[int]) -> list[Clip]:
    """The clips of some subjects, in the file's order."""
    wanted = set(subjects)
    return [c for c in clips if c.subject in wanted]
