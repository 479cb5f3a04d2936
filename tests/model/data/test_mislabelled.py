"""Labels that the published files have wrong are put right, and no other label is touched."""

import numpy as np
import pytest

from indrnn.model.data.clips import Clip, read
from indrnn.model.data.mislabelled import SWAPPED, Swap, put_right

SWAPS = (Swap(4, 2, "sit", "stand"),)


def clip(label, subject, view):
    return Clip(np.zeros((2, 1, 3, 3), np.float32), label, subject, "", view)


def test_exchanged_labels_are_exchanged_back_in_that_view_of_that_subject_alone():
    clips = [clip(k, subject, view) for subject in (3, 4) for view in (1, 2) for k in (0, 1, 2)]
    assert [c.label for c in put_right(clips, ("sit", "walk", "stand"), SWAPS)] == [0, 1, 2] * 3 + [2, 1, 0]


def test_classes_of_other_names_are_left_as_they_are():
    clips = [clip(0, 4, 2), clip(1, 4, 2)]
    assert put_right(clips, ("sit", "lie"), SWAPS) == clips


def bend(x):
    """How far the knees lie under the hips, metres: half as far sitting; in the mean over a fifth of a clip."""
    return (x[:, 0, [12, 16], 1] - x[:, 0, [13, 17], 1]).mean()


@pytest.mark.parametrize(("label", "straightens"), [("sit down", False), ("stand up", True)])
def test_the_knees_of_who_stands_up_straighten(label, straightens, needs):
    """So it is in every clip of the swap after it was undone; in the file it is the other way round."""
    needs("skeleton/nwucla.npz")
    found = read("skeleton/nwucla.npz")
    swap = SWAPPED["skeleton/nwucla.npz"][0]
    for clips, so in ((put_right(found.clips, found.classes, (swap,)), straightens), (found.clips, not straightens)):
        ours = [c for c in clips if (c.subject, c.view, found.classes[c.label]) == (swap.subject, swap.view, label)]
        assert len(ours) in (5, 6)
        rises = [bend(c.x[-len(c.x) // 5 :]) > bend(c.x[: len(c.x) // 5]) for c in ours]
        assert rises == [so] * len(ours)
