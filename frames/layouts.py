"""The joint orders that clips may come in, as data, and how the joints of one become those of another.

`ORDERS` has every order by name. An order says of each part of a body which of its joints stand for it: their mean, an index given twice
weighs twice. So `table` maps any order to any network's joints. A subject facing the camera has the left hand at negative x, y is up, and
the orders of Microsoft's first sensors, of `msr20`, `florence15` and `hdm31` were checked on recordings: mean heights, bone lengths, and
which wrist moves in actions of the right arm. The other orders are as their makers document them, and have met no recording here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}  # metres in the units of length that everybody knows

_ARM, _LEG = ("shoulder", "elbow", "wrist", "hand"), ("hip", "knee", "ankle", "foot")
_LIMBS = tuple(f"{side} {joint}" for limb in (_ARM, _LEG) for side in ("left", "right") for joint in limb)
UTD20 = ("head", "shoulder centre", "spine", "hip centre", *_LIMBS)
KINECT20 = ("hip centre", "spine", "shoulder centre", "head", *_LIMBS)
NTU25 = (
    *("spine base", "spine middle", "neck", "head"),
    *_LIMBS,
    *("spine shoulder", "left hand tip", "left thumb", "right hand tip", "right thumb"),
)
MSR20 = (
    *("left shoulder", "right shoulder", "shoulder centre", "spine", "left hip", "right hip", "hip centre"),
    *(f"{side} {joint}" for joint in (*_ARM[1:], *_LEG[1:]) for side in ("left", "right")),
    "head",
)
FLORENCE15 = ("head", "neck", "spine", *(f"{side} {joint}" for limb in (_ARM, _LEG) for side in ("left", "right") for joint in limb[:3]))
HDM31 = (
    *("root", "root_@_lhipjoint", "lhipjoint_@_lfemur", "lfemur_@_ltibia", "ltibia_@_lfoot", "lfoot_@_ltoes"),
    *("root_@_rhipjoint", "rhipjoint_@_rfemur", "rfemur_@_rtibia", "rtibia_@_rfoot", "rfoot_@_rtoes"),
    *("root_@_lowerback", "lowerback_@_upperback", "upperback_@_thorax"),
    *("thorax_@_lowerneck", "lowerneck_@_upperneck", "upperneck_@_head"),
    *("thorax_@_lclavicle", "lclavicle_@_lhumerus", "lhumerus_@_lradius", "lradius_@_lwrist"),
    *("lwrist_@_lhand", "lhand_@_lfingers", "lwrist_@_lthumb"),
    *("thorax_@_rclavicle", "rclavicle_@_rhumerus", "rhumerus_@_rradius", "rradius_@_rwrist"),
    *("rwrist_@_rhand", "rhand_@_rfingers", "rwrist_@_rthumb"),
)
AZURE32 = (
    *("pelvis", "spine navel", "spine chest", "neck"),
    *(f"{side} {joint}" for side in ("left", "right") for joint in ("clavicle", *_ARM, "hand tip", "thumb")),
    *(f"{side} {joint}" for side in ("left", "right") for joint in _LEG),
    *("head", "nose", "left eye", "left ear", "right eye", "right ear"),
)
MEDIAPIPE33 = (
    *("nose", "left eye inner", "left eye", "left eye outer", "right eye inner", "right eye", "right eye outer"),
    *("left ear", "right ear", "left mouth", "right mouth"),
    *(f"{side} {joint}" for joint in (*_ARM[:3], "pinky", "index", "thumb", *_LEG[:3], "heel", "toe") for side in ("left", "right")),
)
COCO17 = ("nose", *(f"{side} {joint}" for joint in ("eye", "ear", *_ARM[:3], *_LEG[:3]) for side in ("left", "right")))
OPENPOSE18 = (
    *("nose", "neck"),
    *(f"{side} {joint}" for limb in (_ARM, _LEG) for side in ("right", "left") for joint in limb[:3]),
    *("right eye", "left eye", "right ear", "left ear"),
)
OPENPOSE25 = (
    *OPENPOSE18[:8],
    "mid hip",
    *OPENPOSE18[8:],
    *(f"{side} {joint}" for side in ("left", "right") for joint in ("big toe", "small toe", "heel")),
)

Layout = tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]
Table = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class JointOrder:
    """One order of joints. parts: of the body, each by the joints whose mean it is; a joint is the part of its own name unless they differ.

    unit, axes: what its usual sensor writes: "m", "mm" or "px", and where x, y and z of this project lie in it, as in "-x -y z". dims: 2
    for places in a picture. told: what writes it, in words.
    """

    names: tuple[str, ...]
    parts: Mapping[str, tuple[int, ...]]
    told: str
    unit: str = "m"
    axes: str = "x y z"
    dims: int = 3

    @cached_property
    def all_parts(self) -> dict[str, tuple[int, ...]]:
        """Return every part that can be told from the order's joints."""
        return {**{n: (i,) for i, n in enumerate(self.names)}, **self.parts}

    @cached_property
    def twins(self) -> tuple[tuple[int, int], ...]:
        """Return the pairs (left, right) that a mirror swaps."""
        return twins(self.names)


def _order(names: tuple[str, ...], told: str, parts: Mapping[str, str], unit: str = "m", axes: str = "x y z", dims: int = 3) -> JointOrder:
    """Make an order of parts that are written as texts: joints' names, "2 x" before one that weighs twice."""

    def index(words: str) -> list[int]:
        weight, _, name = words.rpartition("* ")
        return [names.index(name)] * int(weight or 1)

    known = {part: tuple(i for words in joints.split(", ") for i in index(words)) for part, joints in parts.items()}
    return JointOrder(names, known, told, unit, axes, dims)


# Of the distance from the hips' line up to the shoulders', the first Kinect's hip centre stands at 19 %, its spine at 36 % (UTD-MHAD; 18
# and 35 in NW-UCLA); of that from the shoulders' line to the head its shoulder centre at 37 % (37). The means below come within 3 %.
_HIPS, _SHOULDERS, _EARS = "left hip, right hip", "left shoulder, right shoulder", "left ear, right ear"
_TRUNK = {
    "shoulder centre": f"2* left shoulder, 2* right shoulder, {_EARS}",
    "spine": f"2* left hip, 2* right hip, {_SHOULDERS}",
    "hip centre": f"4* left hip, 4* right hip, {_SHOULDERS}",
    "spine base": _HIPS,
    "spine middle": f"{_HIPS}, {_SHOULDERS}",
    "spine shoulder": _SHOULDERS,
    "neck": _SHOULDERS,
    "mid hip": _HIPS,
    "head": f"nose, {_EARS}",
}
_FIRST_KINECT = {
    **{"spine base": _HIPS, "mid hip": _HIPS, "spine middle": f"{_HIPS}, {_SHOULDERS}", "spine shoulder": _SHOULDERS},
    "neck": "shoulder centre",
}
_PICTURE = {"unit": "px", "axes": "-x -y z", "dims": 2}
_SECOND_KINECT = {
    # Its spine base lies between the hips and its middle half-way up, where the first has the hip centre some 7 cm above the hips and the
    # spine 6 cm above that; the first's shoulder centre lies between the second's neck and spine shoulder.
    "shoulder centre": "neck, spine shoulder",
    "spine": "spine base, spine middle",
    "hip centre": "3* spine base, spine middle",
    "mid hip": "spine base",
}

ORDERS: dict[str, JointOrder] = {
    "utd20": _order(UTD20, "UTD-MHAD: Kinect for Windows, head first", _FIRST_KINECT),
    "kinect20": _order(KINECT20, "Kinect for Windows SDK 1, hip centre first; NW-UCLA", _FIRST_KINECT),
    "kinect25": _order(NTU25, "Kinect for Windows SDK 2; NTU RGB+D", _SECOND_KINECT),
    "azure32": _order(
        AZURE32,
        "Azure Kinect body tracking",
        {
            "shoulder centre": "neck",
            "spine": "pelvis, spine navel",
            "hip centre": "3* pelvis, spine navel",
            "spine base": "pelvis",
            "spine middle": "spine navel",
            "spine shoulder": "spine chest, neck",
            "mid hip": "pelvis",
        },
        unit="mm",
        axes="-x -y z",
    ),
    "mediapipe33": _order(
        MEDIAPIPE33,
        "MediaPipe Pose (BlazePose), world landmarks",
        {
            **_TRUNK,
            **{f"{s} hand": f"{s} pinky, {s} index" for s in ("left", "right")},
            **{f"{s} foot": f"{s} ankle, {s} toe" for s in ("left", "right")},
            **{f"{s} hand tip": f"{s} index" for s in ("left", "right")},
        },
        axes="-x -y z",
    ),
    "coco17": _order(COCO17, "COCO keypoints: YOLO pose, HRNet, MMPose, Detectron2", _TRUNK, **_PICTURE),  # type: ignore[arg-type]
    "openpose18": _order(OPENPOSE18, "OpenPose, COCO model", {k: v for k, v in _TRUNK.items() if k != "neck"}, **_PICTURE),  # type: ignore[arg-type]
    "openpose25": _order(
        OPENPOSE25,
        "OpenPose, BODY_25",
        {
            **{k: v for k, v in _TRUNK.items() if k not in ("neck", "mid hip")},
            **{f"{s} foot": f"{s} ankle, {s} big toe, {s} small toe" for s in ("left", "right")},
        },
        **_PICTURE,  # type: ignore[arg-type]
    ),
    "msr20": _order(
        MSR20,
        "MSR-Action3D, as its files list the joints",
        {  # its tracker has the hip centre between the hips, the spine at 61 % and the shoulder centre at 17 % of the ways told above
            "shoulder centre": "3* shoulder centre, head",
            "spine": "3* spine, 2* hip centre",
            "hip centre": "2* hip centre, spine",
            **_FIRST_KINECT,
        },
    ),
    "florence15": _order(
        FLORENCE15,
        "Florence 3D Action; OpenNI's 15 joints",
        {  # its neck lies between the shoulders, and its spine half-way from the hips to it
            "shoulder centre": "2* neck, head",
            "spine": f"5* spine, {_HIPS}",
            "hip centre": "3* spine, 2* left hip, 2* right hip",
            "spine base": _HIPS,
            "spine middle": "spine",
            "spine shoulder": "neck",
        },
    ),
    "hdm31": _order(
        HDM31,
        "HDM05: motion capture, a joint at the end of each bone",
        {
            "head": "upperneck_@_head",
            "shoulder centre": "thorax_@_lowerneck, lowerneck_@_upperneck",
            "spine": "root, 3* root_@_lowerback",
            "hip centre": "root",
            "spine base": "root_@_lhipjoint, root_@_rhipjoint",
            "spine middle": "lowerback_@_upperback",
            "spine shoulder": "upperback_@_thorax",
            "neck": "lowerneck_@_upperneck",
            **{
                f"{side} {part}": f"{one}{s}{two}"
                for side, s in (("left", "l"), ("right", "r"))
                for part, one, two in (("shoulder", "thorax_@_", "clavicle"), ("hip", "root_@_", "hipjoint"))
            },
            **{
                f"{side} {part}": f"{s}{one}_@_{s}{two}"
                for side, s in (("left", "l"), ("right", "r"))
                for part, one, two in (
                    *(("elbow", "clavicle", "humerus"), ("wrist", "humerus", "radius"), ("hand", "radius", "wrist")),
                    *(("knee", "hipjoint", "femur"), ("ankle", "femur", "tibia"), ("foot", "tibia", "foot")),
                    *(("hand tip", "hand", "fingers"), ("thumb", "wrist", "thumb")),
                )
            },
        },
    ),
}
ALIASES = {"ntu25": "kinect25"}
"""Names of 0.1.0 that stay valid."""

_WAYS = (("hand", ("wrist",)), ("hand tip", ("hand", "wrist")), ("thumb", ("hand", "wrist")), ("foot", ("ankle",)))
_NEAREST = {f"{side} {end}": [f"{side} {b}" for b in before] for side in ("left", "right") for end, before in _WAYS}
ENOUGH = 0.7  # of a network's joints; an order that tells fewer is not offered


def order(name: str) -> JointOrder | None:
    """Return the order of that name, an old name included."""
    return ORDERS.get(ALIASES.get(name, name))


def table(sent: JointOrder, names: Sequence[str], near: bool = False) -> Table:
    """Return for each of a network's joints, by their names, the sent joints whose mean it is; () for a joint that the order has not.

    near: a hand, finger or foot that the order has not stands where the limb ends in it.
    """
    parts = sent.all_parts
    if tuple(names) == sent.names:
        return tuple((i,) for i in range(len(names)))
    ways = [[n, *(_NEAREST.get(n, []) if near else [])] for n in names]
    return tuple(next((parts[n] for n in way if n in parts), ()) for way in ways)


def offered(names: Sequence[str], own: str | None = None) -> dict[str, Layout]:
    """Return every order, old names included, that tells enough of a network's joints, with its table; own: the order that they are in.

    A joint that an order has not is lost: (); hands and feet stand at wrists and ankles.
    """
    known = order(own or "")
    joints = known.names if known is not None and set(known.names) == set(names) else tuple(names)
    found: dict[str, Layout] = {}
    for name, key in ({n: n for n in ORDERS} | ALIASES).items():
        filled = table(ORDERS[key], joints, near=True)
        if sum(map(bool, filled)) >= ENOUGH * len(filled):
            found[name] = ORDERS[key].names, filled
    return found


def likely(joints: int, dims: int) -> list[str]:
    """Return the orders that a frame of so many joints of 2 or 3 numbers may be in, the likeliest first."""
    same = [name for name, o in ORDERS.items() if len(o.names) == joints]
    return sorted(same, key=lambda name: (ORDERS[name].dims != dims, name != "kinect20"))


# --- left and right ---------------------------------------------------------------------------------------------------------------------

_LEFT = (re.compile(r"\bleft\b"), re.compile(r"\bl(?=[a-z])"))


def twins(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs (left, right) of joints whose names differ only in the side, such as `left knee` or `lfemur_@_ltibia`."""
    at = {n.lower(): i for i, n in enumerate(names)}
    pairs = []
    for n, i in at.items():
        words = n.replace("_", " ")
        for pattern, other in zip(_LEFT, ("right", "r"), strict=True):
            if pattern.search(words):
                twin = next((k for name, k in at.items() if name.replace("_", " ") == pattern.sub(other, words)), None)
                if twin is not None and twin != i:
                    pairs.append((i, twin))
                break
    return tuple(pairs)


# --- as in 0.1.0 ------------------------------------------------------------------------------------------------------------------------

LAYOUTS: dict[str, Layout] = {name: (o.names, table(o, UTD20)) for name in ("utd20", "kinect20", "ntu25") if (o := order(name))}
"""The orders that bundles of 20 joints state with their tables since 0.1.0. A service adds those of `offered`."""


def known(names: Sequence[str]) -> dict[str, Layout]:
    """Return the layouts that can be mapped to an own one of these joints: those above where all are utd20's, in any order."""
    if not set(names) <= set(UTD20):
        return {}
    return {layout: (sent, tuple(filled[UTD20.index(n)] for n in names)) for layout, (sent, filled) in LAYOUTS.items()}
