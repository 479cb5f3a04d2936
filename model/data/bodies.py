"""What augmentation and features must know of a body, whatever its joints: its bones, its middle, which joints are left and right twins.

Told from the clips, the bones being pairs that are never far apart, and from the joints' names where they have any.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indrnn.frames.layouts import twins as twins

Frames = NDArray[np.float32]

_MIDDLES = ("hip centre", "hip center", "spine base", "root", "pelvis", "hips", "mid hip")
_SIDES = ("shoulder", "hip", "humerus", "femur", "clavicle")
SAMPLES = 2000  # frames that the bones are told from


@dataclass(frozen=True)
class Body:
    """J joints. parents[j]: the joint that j hangs on, the root on itself; order: every joint after its parent; twins: (left, right)."""

    root: int
    parents: tuple[int, ...]
    twins: tuple[tuple[int, int], ...] = ()
    across: tuple[tuple[int, int], ...] = ()

    @property
    def order(self) -> tuple[int, ...]:
        """Return every joint but the root, parents before children."""
        return tuple(sorted((j for j in range(len(self.parents)) if j != self.root), key=lambda j: len(self.way(j))))

    def way(self, joint: int) -> list[int]:
        """Return the joints from this one to the root, both included."""
        way = [joint]
        while way[-1] != self.root:
            way.append(self.parents[way[-1]])
        return way


def known(names: Sequence[str], bones: Sequence[tuple[str, str]], root: str) -> Body:
    """Return the body of bones (parent, child) that are known, and need not be told from clips."""
    parents = [names.index(root)] * len(names)
    for parent, child in bones:
        parents[names.index(child)] = names.index(parent)
    return Body(names.index(root), tuple(parents), twins(names), across(names))


def kinect(names: Sequence[str]) -> Body:
    """Return the body of the first Kinect's 20 joints in any order: of clips, `tree` hangs UTD-MHAD's right leg on the left ankle."""
    trunk = [("hip centre", "spine"), ("spine", "shoulder centre"), ("shoulder centre", "head")]
    limbs = [("shoulder centre", ("shoulder", "elbow", "wrist", "hand")), ("hip centre", ("hip", "knee", "ankle", "foot"))]
    for start, limb in limbs:
        for side in ("left", "right"):
            chain = [start, *(f"{side} {joint}" for joint in limb)]
            trunk += itertools.pairwise(chain)
    return known(names, trunk, "hip centre")


def across(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the twins that lie across the trunk, shoulders and hips: the line between them says where the body faces."""
    return tuple((a, b) for a, b in twins(names) if any(side in names[a].lower() for side in _SIDES))


def tree(frames: Frames, root: int | None = None, unbound: Sequence[tuple[int, int]] = ()) -> Body:
    """Bones told from frames [n, J, 3] of whole bodies: the shortest tree by how far apart two joints ever get; its middle the root.

    Of UTD-MHAD's and NW-UCLA's 19 bones this finds all but the collar bones and one knee, which stays beside the other knee in most
    actions: unbound lists pairs that are no bone, such as left and right twins. Variances of the distances find fewer (13 to 16).
    """
    n = len(frames)
    some = frames[np.linspace(0, n - 1, min(n, SAMPLES)).astype(np.int64)]
    cost = np.percentile(np.linalg.norm(some[:, :, None] - some[:, None], axis=-1), 99, axis=0)  # [J, J]
    for a, b in unbound:
        cost[a, b] = cost[b, a] = np.inf
    parents = _spanning(cost, 0)
    if root is None:
        root = _middle(parents)
    return Body(root, _hung_on(parents, root))


def of(names: Sequence[str] | None, frames: Frames) -> Body:
    """Return the body of frames [n, J, 3], with what the names tell where there are names."""
    if names is None:
        return tree(frames)
    low = [n.lower() for n in names]
    root = next((low.index(m) for m in _MIDDLES if m in low), None)
    told = tree(frames, root, twins(names))
    return Body(told.root, told.parents, twins(names), across(names))


def _spanning(cost: NDArray[np.floating], start: int) -> dict[int, int]:
    """Prim's tree over joints: joint -> the one it was reached from."""
    parents = {start: start}
    best = {j: (float(cost[start, j]), start) for j in range(len(cost)) if j != start}
    while best:
        j = min(best, key=lambda k: best[k][0])
        parents[j] = best.pop(j)[1]
        for k, (c, _) in best.items():
            if cost[j, k] < c:
                best[k] = (float(cost[j, k]), j)
    return parents


def _neighbours(parents: dict[int, int]) -> list[list[int]]:
    near: list[list[int]] = [[] for _ in parents]
    for j, p in parents.items():
        if j != p:
            near[j].append(p)
            near[p].append(j)
    return near


def _hung_on(parents: dict[int, int], root: int) -> tuple[int, ...]:
    near = _neighbours(parents)
    out, todo = {root: root}, [root]
    while todo:
        j = todo.pop()
        for k in near[j]:
            if k not in out:
                out[k] = j
                todo.append(k)
    return tuple(out[j] for j in range(len(parents)))


def _middle(parents: dict[int, int]) -> int:
    """Return the joint from which all others are nearest in bones: where their distances sum to the least."""
    J = len(parents)

    def total(root: int) -> int:
        body = Body(root, _hung_on(parents, root))
        return sum(len(body.way(j)) for j in range(J))

    return min(range(J), key=total)
