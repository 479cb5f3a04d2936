"""Clips whose labels are wrong in the published files, found in training data alone, and put right wherever they are read.

NW-UCLA, view 2: subject 4's `sit down` and `stand up` carry each other's label, as do subject 5's `donning` and `doffing`. The knees bend
in all five of the one's `stand up` and straighten in all six `sit down`; the other's takes are numbered in view 1 as in view 2 with
the names exchanged (6 and 7 takes against 7 and 6). A kernel ridge that never saw the subject calls 11 of 11 and 9 of 13 the other.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from indrnn.model.data.clips import Clip


class Swap(NamedTuple):
    """Two classes that a subject's clips in a view have exchanged."""

    subject: int
    view: int
    one: str
    other: str


SWAPPED = {
    "skeleton/nwucla.npz": (Swap(4, 2, "sit down", "stand up"), Swap(5, 2, "donning", "doffing")),
}


def put_right(clips: Sequence[Clip], classes: Sequence[str], swaps: Sequence[Swap]) -> list[Clip]:
    """Return the clips, those of the swaps with the labels exchanged back. A class that is not among `classes` leaves its swap undone."""
    out = list(clips)
    for swap in swaps:
        if swap.one not in classes or swap.other not in classes:
            continue
        one, other = classes.index(swap.one), classes.index(swap.other)
        back = {one: other, other: one}
        for i, c in enumerate(clips):
            if (c.subject, c.view) == (swap.subject, swap.view) and c.label in back:
                out[i] = dataclasses.replace(c, label=back[c.label])
    return out
