"""The joint orders that clips may come in, and how each becomes `utd20`, the action network's own.

Own joint j is the mean of the sent joints table[j]; an index given twice weighs twice. The orders were checked on the recordings: mean
heights, bone lengths, and which wrist moves in actions of the right arm. A subject facing the camera has the left hand at negative x.
"""

from collections.abc import Sequence

_LIMBS = (
    *("left shoulder", "left elbow", "left wrist", "left hand", "right shoulder", "right elbow", "right wrist", "right hand"),
    *("left hip", "left knee", "left ankle", "left foot", "right hip", "right knee", "right ankle", "right foot"),
)
UTD20 = ("head", "shoulder centre", "spine", "hip centre", *_LIMBS)
KINECT20 = ("hip centre", "spine", "shoulder centre", "head", *_LIMBS)
NTU25 = (
    *("spine base", "spine middle", "neck", "head"),
    *_LIMBS,
    *("spine shoulder", "left hand tip", "left thumb", "right hand tip", "right thumb"),
)


Layout = tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]


def _one_each(*indices: int) -> tuple[tuple[int, ...], ...]:
    return tuple((i,) for i in indices)


# The second Kinect's skeleton has its spine base between the hips and its middle half-way up, where the first has the hip centre some
# 7 cm above the hips and the spine 6 cm above that; its shoulder centre lies between the second's neck and spine shoulder.
_NTU_TORSO = ((3,), (2, 20), (0, 1), (0, 0, 0, 1))

LAYOUTS: dict[str, Layout] = {
    "utd20": (UTD20, _one_each(*range(20))),
    "kinect20": (KINECT20, _one_each(3, 2, 1, 0, *range(4, 20))),
    "ntu25": (NTU25, (*_NTU_TORSO, *_one_each(*range(4, 20)))),
}


def known(names: Sequence[str]) -> dict[str, Layout]:
    """Return the layouts that can be mapped to an own one of these joints: those above where all are utd20's, in any order."""
    if not set(names) <= set(UTD20):
        return {}
    return {layout: (sent, tuple(table[UTD20.index(n)] for n in names)) for layout, (sent, table) in LAYOUTS.items()}
